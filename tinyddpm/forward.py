"""The forward process: from data to noise, in one step, in a jump, and back again when x_0 is known.

Everything here is Gaussian and exact. Where a function takes or names `noise`, it is a standard normal sample; the
variance of the noise in x_t is `var_t` = 1 - alpha_bar_t. Next: prediction.py.
"""

import numpy as np

from tinyddpm.coefficients import check_like, check_t, gather, spread
from tinyddpm.gaussian import Gaussian

__all__ = ["q_step", "q_transition", "q_sample", "q_marginal", "q_jump", "q_posterior", "posterior_coefficients"]
__all__ += ["q_bridge"]


def q_transition(schedule, x_prev, t):
    """q(x_t | x_{t-1}): one step, t in 1..T. (Ho et al. 2020 eq. 2; E1)"""
    alpha, beta = gather(schedule.alpha, t, x_prev, first=1), gather(schedule.beta, t, x_prev)
    return Gaussian(alpha**0.5 * x_prev, beta)  # E1


def q_step(schedule, x_prev, t, noise):
    """x_t from x_{t-1} and standard normal noise of its shape and dtype, t in 1..T. (E1)"""
    return q_transition(schedule, x_prev, t).sample(noise)


def q_marginal(schedule, x0, t):
    """q(x_t | x_0), t in 0..T; at t = 0 it is x_0 itself, with variance 0. (Ho et al. 2020 eq. 4; E2)"""
    alpha_bar = gather(schedule.alpha_bar, t, x0)
    return Gaussian(alpha_bar**0.5 * x0, gather(schedule.one_minus_alpha_bar, t, x0))  # E2


def q_sample(schedule, x0, t, noise):
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, for standard normal noise. (E2)

    schedule: a NoiseSchedule. x0, noise: (N, ...) floating; x0, noise and x_t have one shape and dtype. t:
    an integer in 0..T, or such integers (N,). Raises ValueError for a wrong shape or range, TypeError for a
    wrong dtype.
    """
    return q_marginal(schedule, x0, t).sample(noise)


def q_jump(schedule, x_s, s, t):
    """q(x_t | x_s) for any 0 <= s <= t <= T, each an integer or integers (N,). (E3)"""
    s, t = check_t(s, schedule.T, x_s, name="s"), check_t(t, schedule.T, x_s)
    alpha, beta = schedule.jump(s, t)
    return Gaussian(spread(alpha**0.5, x_s) * x_s, spread(beta, x_s))  # E3


def q_posterior(schedule, x0, xt, t, s=None):
    """q(x_s | x_t, x_0) for 0 <= s < t <= T; s is t - 1 unless given. (Ho et al. 2020 eq. 6-7; E7, E10)

    x0, xt: (N, ...) floating, equal in shape and dtype. t, s: integers, or integers (N,). At s = 0 it is x_0
    itself, with variance 0. Raises ValueError for a wrong shape or range, TypeError for a wrong dtype.
    """
    check_like("x0", x0, "xt", xt)
    t = check_t(t, schedule.T, xt, first=1)
    s = t - 1 if s is None else check_t(s, schedule.T, xt, name="s")
    if np.any(s >= t):
        raise ValueError(f"s must be before t, got s = {s}, t = {t}")
    from_x0, from_xt, variance = posterior_coefficients(schedule, s, t)
    return Gaussian(spread(from_xt, xt) * xt + spread(from_x0, x0) * x0, spread(variance, xt))  # E7


def posterior_coefficients(schedule, s, t):
    """(a, b, variance) in float64: q(x_s | x_t, x_0) is N(a x_0 + b x_t, variance). (E7, E10)"""
    alpha, beta = schedule.jump(s, t)
    var_s, var_t = schedule.one_minus_alpha_bar[s], schedule.one_minus_alpha_bar[t]
    from_x0 = schedule.alpha_bar[s] ** 0.5 * beta / var_t
    from_xt = alpha**0.5 * var_s / var_t
    return from_x0, from_xt, var_s / var_t * beta  # E7, E10


def q_bridge(schedule, x_prev, x_next, t):
    """q(x_t | x_{t-1}, x_{t+1}) for t in 1..T-1, of precision 1/beta_t + alpha_{t+1}/beta_{t+1}. (E15)"""
    check_like("x_next", x_next, "x_prev", x_prev)
    t = check_t(t, schedule.T - 1, x_prev, first=1)
    _, beta_of_both = schedule.jump(t - 1, t + 1)  # both steps taken as one: beta_{t+1} + alpha_{t+1} beta_t
    from_prev = schedule.alpha[t] ** 0.5 * schedule.beta[t + 1] / beta_of_both
    from_next = schedule.alpha[t + 1] ** 0.5 * schedule.beta[t] / beta_of_both
    variance = schedule.beta[t] * schedule.beta[t + 1] / beta_of_both
    mean = spread(from_prev, x_prev) * x_prev + spread(from_next, x_next) * x_next
    return Gaussian(mean, spread(variance, x_prev))  # E15
