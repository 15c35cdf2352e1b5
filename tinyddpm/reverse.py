"""The reverse process: from noise to data with a model `denoise(xt, t) -> x0_hat`.

A model is any such function: a network, or one of the oracles in theory/oracle.py. A sampler is a function too, called
a step: `step(denoise, schedule, xt, t)` returns the Gaussian of x_{t-1}, for t in 1..T. It may call the model any
number of times. `ancestral_step` is here, the other steps are in samplers.py. Next: samplers.py.
"""

import numpy as np

from tinyddpm.coefficients import check_like, check_t, float_dtype, gather, spread
from tinyddpm.forward import q_posterior
from tinyddpm.gaussian import Gaussian, exp
from tinyddpm.prediction import mean_from_eps

__all__ = ["p_mean_variance", "p_mean_variance_eps", "reverse_variance", "variance_table", "learned_variance"]
__all__ += ["ancestral_step", "along_flow", "partly_renewed", "predict_x0", "reverse_process", "sample"]


# ---- p(x_{t-1} | x_t) ----


def p_mean_variance(schedule, x0_hat, xt, t, variance="beta_tilde"):
    """p(x_{t-1} | x_t) as q(x_{t-1} | x_t, x_0 = x0_hat), with `variance` as its variance. (E29)

    variance: "beta" or "beta_tilde" (see `variance_table`), a number, or an array that broadcasts over xt.
    """
    mean = q_posterior(schedule, x0_hat, xt, t).mean
    return Gaussian(mean, reverse_variance(schedule, variance, xt, t))  # E29


def p_mean_variance_eps(schedule, eps_hat, xt, t, variance="beta_tilde"):
    """p(x_{t-1} | x_t) from a prediction of the noise, as in Algorithm 2 of Ho et al. 2020. (E8, E29)

    It equals `p_mean_variance` for x0_hat = x0_from_eps(eps_hat), unless that x0_hat is clipped: this form has no
    x0_hat to clip.
    """
    check_like("eps_hat", eps_hat, "xt", xt)
    mean = mean_from_eps(schedule, eps_hat, xt, t)
    return Gaussian(mean, reverse_variance(schedule, variance, xt, t))  # E29


def reverse_variance(schedule, variance, xt, t):
    """If `variance` is a name, sigma_t^2 from `variance_table`, shaped to broadcast over xt; else `variance`."""
    if not isinstance(variance, str):
        return variance
    return gather(variance_table(schedule, variance), t, xt, first=1)


def variance_table(schedule, variance):
    """The table of sigma_t^2: "beta" is beta_t; "beta_tilde" is beta_tilde_t, but beta_tilde_2 at t = 1. (E9)

    Why two: the exact variance of the reverse step is beta_t if the data are N(0, I), beta_tilde_t if they are a single
    point, and between the two for other data. Why beta_tilde_2 at t = 1: beta_tilde_1 is 0, and the likelihood of x_0
    needs a variance above 0. (If T = 1 there is no beta_tilde_2, and entry 1 is beta_1.) Samplers do not use entry 1:
    they add no noise at t = 1. Raises ValueError for another name.
    """
    if variance == "beta":
        return schedule.beta
    if variance == "beta_tilde":
        table = schedule.beta_tilde.copy()
        table[1] = table[2] if schedule.T > 1 else schedule.beta[1]
        return table
    raise ValueError(f"unknown variance {variance!r}; there are: beta, beta_tilde")


def learned_variance(schedule, fraction, xt, t):
    """exp(fraction log beta_t + (1 - fraction) log beta_tilde_t). (Nichol & Dhariwal 2021 eq. 15; E19)

    fraction: in [0, 1], of xt's shape and dtype; a network predicts it. Pass the result to `p_mean_variance` as
    `variance`.
    """
    t = check_t(t, schedule.T, xt, first=1)
    high, low = np.log(schedule.beta[t]), np.log(variance_table(schedule, "beta_tilde")[t])
    return exp(spread(low, xt) + spread(high - low, xt) * fraction)


# ---- steps that all samplers are made of ----


def along_flow(schedule, x0_hat, xt, t):
    """x_{t-1} on the probability flow from x_t, with x0_hat held constant: DDIM's step at eta = 0. (E30)"""
    t = check_t(t, schedule.T, xt, first=1)
    return partly_renewed(schedule, x0_hat, xt, t, t - 1, 0.0).mean


def partly_renewed(schedule, x0_hat, xt, t, s, noise):
    """The Gaussian of x_s, s < t, with x0_hat held constant and a part of the noise drawn anew. (E10, E30)

    noise: tau^2 of Xue et al. 2023 ("SA-Solver"). 0 draws nothing: the flow. 1 is q(x_s | x_t, x_0 = x0_hat).
    """
    rise = schedule.log_snr[s] - schedule.log_snr[t]  # infinite at s = 0
    kept = (schedule.snr[t] / schedule.snr[s]) ** noise  # of the variance of the noise in x_s
    variance = schedule.one_minus_alpha_bar[s]
    from_xt = (variance / schedule.one_minus_alpha_bar[t] * kept) ** 0.5
    from_x0 = -(schedule.alpha_bar[s] ** 0.5) * np.expm1(-rise * (1 + noise) / 2)
    return Gaussian(spread(from_xt, xt) * xt + spread(from_x0, xt) * x0_hat, spread(variance * (1 - kept), xt))


# ---- the chain ----


def ancestral_step(denoise, schedule, xt, t, variance="beta_tilde"):
    """p(x_{t-1} | x_t) of the model, see `p_mean_variance`. (Ho et al. 2020, Algorithm 2; E29)"""
    return p_mean_variance(schedule, denoise(xt, t), xt, t, variance)


def predict_x0(denoise, schedule, xt, t, clip=None):
    """denoise(xt, schedule.timesteps[t]), clipped to the range clip = (low, high) unless that is None.

    x_0 is clipped here and nowhere else: images lie in [-1, 1], and a prediction outside would lead the chain away
    from them. clip may also be a function of x0_hat, such as `solvers.dynamic_threshold()`. Raises ValueError or TypeError if
    the model returns another shape or dtype, or if clip is none of these.
    """
    if clip is not None and not callable(clip):
        low, high = check_clip(clip)
    t = check_t(t, schedule.T, xt, first=1)
    x0_hat = denoise(xt, schedule.timesteps[t])
    check_like("what denoise returns", x0_hat, "xt", xt)
    if callable(clip):
        return clip(x0_hat)
    return x0_hat if clip is None else x0_hat.clip(low, high)


def check_clip(clip):
    """clip = (low, high) as two Python floats, which, unlike NumPy scalars, leave the dtype of x_0 as it is."""
    pair = tuple(clip) if np.ndim(clip) == 1 else ()
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise ValueError(f"clip must be a pair (low, high) with low < high, or None, got {clip!r}")
    return float(pair[0]), float(pair[1])


def reverse_process(denoise, schedule, x_T, noise, step=ancestral_step, clip=None):
    """Walk from x_T down to x_0, yielding (t, x_{t-1}, x0_hat) for t = T..1: the one loop of every sampler.

    denoise(xt, t) -> x0_hat is given schedule.timesteps[t] as t. x_T: (N, ...) floating. noise(t) returns standard
    normal noise of x_T's shape and dtype. It is not called where the step's variance is 0, nor at t = 1, where x_0 is
    the mean. step: a sampler's step. clip: as in `predict_x0`. x0_hat: what the model returned last. Raises ValueError
    or TypeError where the shape, the dtype or the type of x changes on the way.
    """
    float_dtype("x_T", x_T)
    x0_hat = None

    def ask(xt, t):
        nonlocal x0_hat
        x0_hat = predict_x0(denoise, schedule, xt, t, clip)
        return x0_hat

    x = x_T
    for t in range(schedule.T, 0, -1):
        p = step(ask, schedule, x, t)
        x = p.mean if t == 1 or is_zero(p.variance) else p.sample(noise(t))
        check_like("x_{t-1}", x, "x_T", x_T)
        if not isinstance(x, type(x_T)) and not isinstance(x_T, type(x)):
            raise TypeError(
                f"denoise, noise and step must return a {type(x_T).__name__}; x became a {type(x).__name__}"
            )
        yield t, x, x0_hat


def is_zero(variance):
    return getattr(variance, "shape", ()) == () and variance == 0


def sample(denoise, schedule, x_T, noise, step=ancestral_step, clip=None, progress=None):
    """x_0 drawn with the model, starting from x_T, standard normal (N, ...). Arguments as in `reverse_process`.

    progress: wraps the loop as `tqdm` does, called with total=T. To visit fewer steps pass `schedule.respace(S)`. To
    see the x_t on the way, iterate over `reverse_process` instead.
    """
    x = x_T
    steps = reverse_process(denoise, schedule, x_T, noise, step, clip)
    for _, x_prev, _ in steps if progress is None else progress(steps, total=schedule.T):
        x = x_prev
    return x
