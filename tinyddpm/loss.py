"""What is minimised: the squared error, its weight, and which timesteps to draw. Next: bound.py."""

import math

import numpy as np

from tinyddpm.coefficients import as_steps, check_like, check_T, named
from tinyddpm.gaussian import sum_per_sample
from tinyddpm.prediction import BIJECTIONS
from tinyddpm.reverse import variance_table

__all__ = ["l_simple", "loss_weight", "snr_weight", "x0_slope", "TRAINING_WEIGHTS", "training_weight"]
__all__ += ["uniform_timesteps", "stratified_timesteps", "importance_timesteps", "importance_probabilities"]
__all__ += ["log_snr_probabilities"]
__all__ += ["draw_variance"]


def l_simple(target, prediction):
    """The mean square of target - prediction in each sample: (N,). (Ho et al. 2020 eq. 14; E23)

    target: eps for the paper's loss; else what the network predicts, such as v. Raises ValueError or TypeError where
    the two differ in shape or dtype.
    """
    check_like("prediction", prediction, "target", target)
    return sum_per_sample((target - prediction) ** 2) * (1 / math.prod(target.shape[1:]))  # E23


# ---- the weight that the bound gives a squared error: L_{t-1} = weight ||target - prediction||^2 + c_t (E19, E22) ----


def loss_weight(schedule, kind, t, variance="beta_tilde"):
    """The weight of the squared error (summed over a sample) of a kind of prediction in L_{t-1}. (E22)

    kind: one of `prediction.PREDICTIONS`. t: an integer in 2..T or an array of them; not 1, because L_0 is not a KL.
    variance: a name, see `reverse.variance_table`. The result is float64 of t's shape. For eps it is
    beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha_bar_t)) (Ho et al. 2020 eq. 12), for the mean 1 / (2 sigma_t^2). Raises
    ValueError for another kind, variance or t.
    """
    t = as_steps("t", t, 2, schedule.T)
    return x0_weight(schedule, t, variance) * x0_slope(schedule, kind, t) ** 2  # E22


def x0_weight(schedule, t, variance="beta_tilde"):
    """The weight of ||x_0 - x0_hat||^2: alpha_bar_{t-1} beta_t^2 / (2 sigma_t^2 (1 - alpha_bar_t)^2). (E22)

    At t = 1 it is 1 / (2 sigma_1^2), the weight of the square in -log p(x_0 | x_1) for continuous data. (E12)
    """
    sigma2, var_t = variance_table(schedule, variance)[t], schedule.one_minus_alpha_bar[t]
    return schedule.alpha_bar[t - 1] * schedule.beta[t] ** 2 / (2 * sigma2 * var_t**2)  # E22


def x0_slope(schedule, kind, t):
    """d x_0 / d prediction at fixed x_t, shaped like t: how much x_0 moves when the prediction does. (E24)

    The conversions are linear. So the slope is the x_0 that belongs to prediction = 1 and x_t = 0.
    """
    to_x0, _ = named("prediction", kind, BIJECTIONS)
    steps = np.ravel(as_steps("t", t, 1, schedule.T))
    return np.reshape(to_x0(schedule, np.ones(len(steps)), np.zeros(len(steps)), steps), np.shape(t))  # E24


def snr_weight(schedule, t):
    """(SNR(t-1) - SNR(t)) / 2, the weight of the squared error of x_0 if sigma_t^2 = beta_tilde_t. (E22)

    Computed without that difference, which would cancel where the two SNRs are close.
    """
    t = as_steps("t", t, 2, schedule.T)
    var_prev, var_t = schedule.one_minus_alpha_bar[t - 1], schedule.one_minus_alpha_bar[t]
    return schedule.alpha_bar[t - 1] * schedule.beta[t] / (2 * var_prev * var_t)  # E22


# ---- weights to train with: each multiplies the squared error of the kind that the network predicts ----


def simple_weight(schedule, kind, t, gamma):
    """1, whatever is predicted. (Ho et al. 2020 eq. 14; E23)"""
    return np.ones(np.shape(t))


def bound_weight(schedule, kind, t, gamma):
    """The weight in the bound: `loss_weight` for t >= 2, the weight in L_0 at t = 1. (E22)"""
    return x0_weight(schedule, t) * x0_slope(schedule, kind, t) ** 2


def min_snr_weight(schedule, kind, t, gamma):
    """min(SNR, gamma) for the error of x_0, so that the loss is the same for every kind. (Hang et al. 2023; E38)

    That is min(SNR, gamma)/SNR for eps, and min(SNR, gamma)/(SNR + 1) for v.
    """
    return np.minimum(schedule.snr[t], gamma) * x0_slope(schedule, kind, t) ** 2  # E38


# To add a weight, write its function and add it here.
TRAINING_WEIGHTS = {"simple": simple_weight, "bound": bound_weight, "min-snr": min_snr_weight}


def training_weight(schedule, name, kind, t, gamma=5.0):
    """The factor for `l_simple` by its name in TRAINING_WEIGHTS, for a kind of prediction: float64, shaped like t.

    t: an integer in 1..T, or an array of them. gamma: the constant of "min-snr", above 0. With "bound", weight times
    `l_simple` is L_{t-1} in nats per dimension, up to a constant that no prediction changes. Raises ValueError for
    another name, kind, t or gamma.
    """
    weight = named("loss weight", name, TRAINING_WEIGHTS)
    named("prediction", kind, BIJECTIONS)
    if not gamma > 0:
        raise ValueError(f"gamma must be above 0, got {gamma}")
    return weight(schedule, kind, as_steps("t", t, 1, schedule.T), gamma)


# ---- which t to draw: t (n,) in 1..T, and weights (n,) with E[weight L_t] the mean of L_t over t (E36) ----
# rng: anything with NumPy's `random`, such as numpy.random.default_rng(seed).


def uniform_timesteps(T, n, rng):
    """n independent t, uniform in 1..T; all weights 1. (E36)"""
    return 1 + np.floor(check_T(T) * rng.random(n)).astype(int), np.ones(n)  # E36


def stratified_timesteps(T, n, rng):
    """n points evenly spaced from one random start, modulo 1; all weights 1. (Kingma et al. 2021; E36)"""
    u = (rng.random() + np.arange(n) / n) % 1
    return 1 + np.floor(check_T(T) * u).astype(int), np.ones(n)  # E36


def importance_timesteps(probabilities, n, rng):
    """t with the given probabilities, a table of T + 1 entries, 0 at t = 0; weights 1/(T p_t). Stratified. (E36)

    Raises ValueError unless they sum to 1 and are positive for every t >= 1: a t that is never drawn would bias the
    estimate.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 1 or len(p) < 2 or p[0] != 0 or not (p[1:] > 0).all() or abs(p.sum() - 1) > 1e-9:
        raise ValueError(f"probabilities must be 0 at t = 0, positive elsewhere, and sum to 1, got {p}")
    cumulative, u = np.cumsum(p), (rng.random() + np.arange(n) / n) % 1
    t = np.searchsorted(cumulative, u * cumulative[-1], side="right")
    return t, 1 / ((len(p) - 1) * p[t])  # E36


def log_snr_probabilities(schedule, share):
    """Probabilities of t = 1..T in a table of T + 1 entries: `share` of them even in log-SNR, the others even in t. (E36)

    Even in log-SNR is where the bound weighs the square of eps - eps_hat alike (E35). t = 1, whose step ends at an
    infinite log-SNR, has as much as t = 2. ValueError unless 0 <= share <= 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share must lie in [0, 1], got {share}")
    steps = -np.diff(schedule.log_snr[1:], prepend=2 * schedule.log_snr[1] - schedule.log_snr[min(2, schedule.T)])
    p = (1 - share) / schedule.T + share * steps / steps.sum() if schedule.T > 1 else np.ones(1)
    return np.append(0.0, p)


def importance_probabilities(mean_square, uniform=0.001):
    """Probabilities proportional to sqrt(E L_t^2), plus a uniform share. (Nichol & Dhariwal 2021 eq. 18; E36)

    mean_square: E L_t^2, a table of T + 1 entries; entry 0 is ignored. uniform: the share of the uniform distribution,
    which keeps every t possible. With uniform = 0 they minimise `draw_variance`. Raises ValueError unless the entries
    are finite, not negative and not all 0, and the share lies in [0, 1].
    """
    size = np.sqrt(np.append(0.0, mean_square[1:]))
    if not (0 < size.sum() < np.inf and 0 <= uniform <= 1):
        raise ValueError(f"mean_square must be finite and above 0, uniform in [0, 1], got {mean_square}, {uniform}")
    p = (1 - uniform) * size / size.sum()
    p[1:] += uniform / (len(p) - 1)
    return p


def draw_variance(mean, mean_square, probabilities):
    """The variance of weight L_t for one t drawn with the given probabilities. (E36)

    mean, mean_square: E L_t and E L_t^2. All three are tables of T + 1 entries; entry 0 is ignored.
    """
    mean, mean_square, probabilities = (np.asarray(a, dtype=np.float64) for a in (mean, mean_square, probabilities))
    T = len(probabilities) - 1
    return (mean_square[1:] / probabilities[1:]).sum() / T**2 - (mean[1:].sum() / T) ** 2  # E36
