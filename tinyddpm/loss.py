"""What is minimised: the squared error, the weight that the bound gives it, and which timesteps to draw.

Read bound.py next: the bound itself, term by term.
"""

import math

import numpy as np

from tinyddpm.coefficients import check_like, check_t
from tinyddpm.gaussian import sum_per_sample
from tinyddpm.reverse import variance_table

__all__ = ["l_simple", "loss_weight", "snr_weight", "uniform_timesteps", "stratified_timesteps", "importance_timesteps"]
__all__ += ["importance_probabilities", "draw_variance"]


def l_simple(target, prediction):
    """The mean square of target - prediction in each sample: (N,). (Ho et al. 2020 eq. 14; E23)

    target: eps for the paper's loss, or whatever is predicted. Raises ValueError or TypeError where the two
    differ in shape or dtype.
    """
    check_like("prediction", prediction, "target", target)
    return sum_per_sample((target - prediction) ** 2) * (1 / math.prod(target.shape[1:]))  # E23


# ---- the weight of a squared error: L_{t-1} = weight ||target - prediction||^2 + c_t (E19, E22) ----


def loss_weight(schedule, kind, t, variance="beta_tilde"):
    """The weight of the squared error (summed over a sample) of a kind of prediction in L_{t-1}. (E22)

    kind: one of `prediction.PREDICTIONS`. t: an integer in 2..T or an array of them, whose shape the result
    has, in float64; t = 1 is L_0, which is no KL. variance: a name, see `reverse.variance_table`.
    Raises ValueError for another kind, variance or t.
    """
    if kind not in LOSS_WEIGHTS:
        raise ValueError(f"unknown prediction {kind!r}; there are: {', '.join(LOSS_WEIGHTS)}")
    return LOSS_WEIGHTS[kind](schedule, check_t(t, schedule.T, np.asarray(t), first=2), variance)


def eps_weight(schedule, t, variance):
    """beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)). (Ho et al. 2020 eq. 12; E22)"""
    sigma2, noise = variance_table(schedule, variance)[t], schedule.one_minus_alpha_bar[t]
    return schedule.beta[t] ** 2 / (2 * sigma2 * schedule.alpha[t] * noise)  # E22


def x0_weight(schedule, t, variance):
    """alpha_bar_{t-1} beta_t^2 / (2 sigma_t^2 (1 - alpha_bar_t)^2). (E22)"""
    sigma2, noise = variance_table(schedule, variance)[t], schedule.one_minus_alpha_bar[t]
    return schedule.alpha_bar[t - 1] * schedule.beta[t] ** 2 / (2 * sigma2 * noise**2)  # E22


def v_weight(schedule, t, variance):
    """As x_0 - x0_hat = -sqrt(1 - alpha_bar_t) (v - v_hat). (E22, E24)"""
    return x0_weight(schedule, t, variance) * schedule.one_minus_alpha_bar[t]


def score_weight(schedule, t, variance):
    """As eps - eps_hat = -sqrt(1 - alpha_bar_t) (score - score_hat). (E22, E24)"""
    return eps_weight(schedule, t, variance) * schedule.one_minus_alpha_bar[t]


def mean_weight(schedule, t, variance):
    """1 / (2 sigma_t^2), the precision of the step (S0). (E12, E19)"""
    return 1 / (2 * variance_table(schedule, variance)[t])  # E19


LOSS_WEIGHTS = {"eps": eps_weight, "x0": x0_weight, "v": v_weight, "score": score_weight, "mean": mean_weight}


def snr_weight(schedule, t):
    """(SNR(t-1) - SNR(t)) / 2 of the squared error of x_0, which sigma_t^2 = beta_tilde_t gives. (E22)

    Written so that two SNRs close to each other do not cancel.
    """
    t = check_t(t, schedule.T, np.asarray(t), first=2)
    noise_prev, noise = schedule.one_minus_alpha_bar[t - 1], schedule.one_minus_alpha_bar[t]
    return schedule.alpha_bar[t - 1] * schedule.beta[t] / (2 * noise_prev * noise)  # E22


# ---- which t to draw: t (n,) in 1..T, and weights (n,) with E[weight L_t] the mean of L_t over t (E36) ----
# rng: anything with NumPy's `random`, such as numpy.random.default_rng(seed).


def uniform_timesteps(T, n, rng):
    """Each t alike, independently; all weights 1. (E36)"""
    return 1 + np.floor(T * rng.random(n)).astype(int), np.ones(n)  # E36


def stratified_timesteps(T, n, rng):
    """n points evenly spaced from one random start, modulo 1; all weights 1. (Kingma et al. 2021; E36)"""
    u = (rng.random() + np.arange(n) / n) % 1
    return 1 + np.floor(T * u).astype(int), np.ones(n)  # E36


def importance_timesteps(probabilities, n, rng):
    """t with the given probabilities, a table of T + 1 entries, 0 at t = 0; weights 1/(T p_t). (E36)

    Raises ValueError unless they sum to 1 and are positive for every t >= 1, or the estimate would be biased.
    """
    p = np.asarray(probabilities)
    if p.ndim != 1 or len(p) < 2 or p[0] != 0 or not (p[1:] > 0).all() or abs(p.sum() - 1) > 1e-9:
        raise ValueError(f"probabilities must be 0 at t = 0, positive elsewhere, and sum to 1, got {p}")
    cumulative = np.cumsum(p)
    t = np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right")
    return t, 1 / ((len(p) - 1) * p[t])  # E36


def importance_probabilities(mean_square, uniform=0.001):
    """Probabilities ~ sqrt(E L_t^2), mixed with a share of the uniform. (Nichol & Dhariwal 2021 eq. 18; E36)

    mean_square: E L_t^2, a table of T + 1 entries of which entry 0 is ignored. These minimise `draw_variance`
    (without the mixing, which keeps every t possible).
    """
    size = np.sqrt(np.append(0.0, mean_square[1:]))
    p = (1 - uniform) * size / size.sum()
    p[1:] += uniform / (len(p) - 1)
    return p


def draw_variance(mean, mean_square, probabilities):
    """The variance of weight L_t for one t drawn with the given probabilities. (E36)

    mean, mean_square: E L_t and E L_t^2, tables of T + 1 entries, as `probabilities`; entry 0 is ignored.
    """
    T = len(probabilities) - 1
    return (mean_square[1:] / probabilities[1:]).sum() / T**2 - (mean[1:].sum() / T) ** 2  # E36
