"""What a network may predict, and how each prediction gives the others: eps, x_0, v, the score, the mean, a velocity.

Given (x_t, t) they are linear bijections of each other (E24), so every conversion goes through x_0. Which one a network
learns is a choice. Where x_t is nearly all noise, a small error in eps is a large one in x_0. Where x_t has nearly no
noise, a small error in x_0 is a large one in eps. v is good at both ends.

Everywhere x_t and the prediction are (N, ...) floating, of one shape and dtype; t is an integer in 1..T, or such
integers (N,). Next: reverse.py.
"""

import math

from tinyddpm.coefficients import check_like, check_t, gather, named, spread
from tinyddpm.forward import posterior_coefficients, q_posterior

__all__ = ["signal_and_noise", "x0_from_eps", "eps_from_x0", "x0_from_v", "v_from_x0", "x0_from_score"]
__all__ += ["score_from_x0", "x0_from_mean", "mean_from_x0", "mean_from_eps", "x0_from_velocity", "velocity_from_x0"]
__all__ += ["PREDICTIONS", "BIJECTIONS", "x0_from", "from_x0", "convert", "guided", "between"]
__all__ += ["karras_input", "preconditioning", "flow_input"]


def signal_and_noise(schedule, xt, t):
    """The standard deviations sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t): x_t = signal x_0 + noise eps."""
    signal = gather(schedule.alpha_bar, t, xt, first=1) ** 0.5
    return signal, gather(schedule.one_minus_alpha_bar, t, xt) ** 0.5


# ---- each prediction from x_0, and x_0 from each ----


def x0_from_eps(schedule, eps, xt, t):
    """x_0 from the total noise eps in x_t. (Ho et al. 2020 eq. 15; E2, E24)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (xt - noise * eps) / signal


def eps_from_x0(schedule, x0, xt, t):
    """The total noise eps in x_t. (E2, E24)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (xt - signal * x0) / noise


def x0_from_v(schedule, v, xt, t):
    """x_0 from v = signal eps - noise x_0. (Salimans & Ho 2022, "Progressive distillation"; E24)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return signal * xt - noise * v


def v_from_x0(schedule, x0, xt, t):
    """v = signal eps - noise x_0, with eps expressed by x_t and x_0. (E24)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (signal * xt - x0) / noise


def x0_from_score(schedule, score, xt, t):
    """x_0 from the score of q(x_t | x_0). Given the score of q(x_t) instead, it is E[x_0 | x_t] (Tweedie). (E27)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (xt + noise**2 * score) / signal  # E27


def score_from_x0(schedule, x0, xt, t):
    """grad log q(x_t | x_0) with respect to x_t. (E25)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return -(xt - signal * x0) / noise**2  # E25


def x0_from_mean(schedule, mean, xt, t):
    """x_0 from the mean of q(x_{t-1} | x_t, x_0). (E7 solved for x_0)"""
    t = check_t(t, schedule.T, xt, first=1)
    from_x0, from_xt, _ = posterior_coefficients(schedule, t - 1, t)
    return (mean - spread(from_xt, xt) * xt) / spread(from_x0, xt)


def mean_from_x0(schedule, x0, xt, t):
    """The mean of q(x_{t-1} | x_t, x_0). (E7)"""
    return q_posterior(schedule, x0, xt, t).mean


def mean_from_eps(schedule, eps, xt, t):
    """The mean of q(x_{t-1} | x_t, x_0), from the total noise eps. (Ho et al. 2020 eq. 11; E8)"""
    _, noise = signal_and_noise(schedule, xt, t)
    alpha, beta = gather(schedule.alpha, t, xt), gather(schedule.beta, t, xt)
    return (xt - beta / noise * eps) / alpha**0.5  # E8


def x0_from_velocity(schedule, velocity, xt, t):
    """x_0 from the velocity eps - x_0 of flow matching, see `flow_input`. (Lipman et al. 2023; E37)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (xt - noise * velocity) / (signal + noise)  # E37


def velocity_from_x0(schedule, x0, xt, t):
    """The velocity eps - x_0, with eps expressed by x_t and x_0. (E37)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (xt - (signal + noise) * x0) / noise  # E37


def itself(schedule, x0, xt, t):
    return x0


# To add a kind of prediction, add its two functions here: to x_0, and from x_0.
BIJECTIONS = {
    "eps": (x0_from_eps, eps_from_x0),
    "x0": (itself, itself),
    "v": (x0_from_v, v_from_x0),
    "score": (x0_from_score, score_from_x0),
    "mean": (x0_from_mean, mean_from_x0),
    "velocity": (x0_from_velocity, velocity_from_x0),
}
PREDICTIONS = tuple(BIJECTIONS)


def x0_from(schedule, kind, prediction, xt, t):
    """x_0 from a prediction of the given kind, one of PREDICTIONS. (E24)

    Raises ValueError for another kind, for a t out of range and for a prediction that is not shaped like xt, TypeError
    for another dtype.
    """
    to_x0, _ = named("prediction", kind, BIJECTIONS)
    check_like("prediction", prediction, "xt", xt)
    return to_x0(schedule, prediction, xt, check_t(t, schedule.T, xt, first=1))


def from_x0(schedule, kind, x0, xt, t):
    """x_0 converted to the given kind of prediction, one of PREDICTIONS. Raises as `x0_from`. (E24)"""
    _, of_x0 = named("prediction", kind, BIJECTIONS)
    check_like("x0", x0, "xt", xt)
    return of_x0(schedule, x0, xt, check_t(t, schedule.T, xt, first=1))


def convert(schedule, prediction, xt, t, source, target):
    """A prediction of kind `source` as one of kind `target`. Raises as `x0_from`. (E24)"""
    x0 = x0_from(schedule, source, prediction, xt, t)
    return prediction if source == target else from_x0(schedule, target, x0, xt, t)  # there and back would round


def guided(null, conditional, scale):
    """null + scale (conditional - null), for predictions of any one kind. (Ho & Salimans 2022; E39)

    scale: 0 gives the model without the condition, 1 the model with it; above 1 the result follows the condition more
    closely. The conversions are linear, so the result stands for the same x_0 whichever kind is combined.
    """
    check_like("conditional", conditional, "null", null)
    if not math.isfinite(scale):
        raise ValueError(f"the guidance scale must be finite, got {scale}")
    scale = float(scale)  # 1 - scale of an unsigned integer would wrap round
    return (1 - scale) * null + scale * conditional  # E39


def between(inside, outside, low, high):
    """The model `inside` for low <= t <= high, and `outside` elsewhere; t an integer. (Kynkaanniemi et al. 2024; E39)

    With inside = model.denoiser(labels, scale) and outside = model.denoiser(labels), guidance over an interval. Early in
    the chain guidance draws all samples to one place, late it changes little: left out there, it costs less too.
    Raises ValueError unless low <= high.
    """
    if not low <= high:
        raise ValueError(f"an interval of timesteps is low, high with low <= high, got {low}, {high}")
    return lambda xt, t: (inside if low <= t <= high else outside)(xt, t)


# ---- the same path in other papers' coordinates (E37) ----


def karras_input(schedule, xt, t):
    """x_0 + sigma eps and sigma = noise/signal, what a model D(x, sigma) -> x_0 takes. (Karras et al. 2022; E37)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return xt / signal, noise / signal


def preconditioning(sigma):
    """c_skip, c_out, c_in of D(x) = c_skip x + c_out F(c_in x), for data of variance 1. (Karras et al. 2022; E37)

    It is v-prediction by another name: c_in x is x_t, and F is -v.
    """
    root = (1 + sigma**2) ** 0.5
    return 1 / root**2, sigma / root, 1 / root  # E37


def flow_input(schedule, xt, t):
    """(1 - u) x_0 + u eps and u = noise/(signal + noise), what a velocity model takes. (Lipman et al. 2023; E37)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return xt / (signal + noise), noise / (signal + noise)
