"""The variational bound of a model `denoise(xt, t) -> x0_hat`, term by term, per sample. (E14, E19-E21)

-log p(x_0) <= L_T + sum_{t=2..T} L_{t-1} + L_0, in nats. Each term but L_T is estimated from one draw of x_t. The
terms are also the lengths of a code for x_0: L_T nats send x_T, then L_{t-1} nats send x_{t-1} to a receiver who knows
x_t, and L_0 nats send x_0.
Next: decoder.py.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyddpm.coefficients import check_like, check_t, gather, is_integer, spread
from tinyddpm.decoder import discretised_log_prob
from tinyddpm.forward import posterior_coefficients, q_sample
from tinyddpm.gaussian import Gaussian, sum_per_sample
from tinyddpm.loss import l_simple
from tinyddpm.reverse import learned_variance, p_mean_variance, predict_x0, reverse_variance

__all__ = ["Bound", "variational_bound", "prior_term", "denoising_term", "step_kl", "reconstruction_term"]
__all__ += ["distortion", "l_hybrid", "bits_per_dim"]


@dataclass(frozen=True, eq=False)
class Bound:
    """The bound's terms in nats. prior: L_T (N,). reconstruction: L_0 (N,).

    denoising: (T + 1, N), with L_{t-1} in row t = 2..T, and zeros in rows 0 and 1.
    """

    prior: Any
    denoising: Any
    reconstruction: Any

    @property
    def total(self):
        """The sum of the terms, (N,): an estimate of an upper bound on -log p(x_0). (E14)"""
        return self.prior + self.denoising.sum(axis=0) + self.reconstruction  # E14

    @property
    def rate(self):
        """Nats to send x_T down to x_t, in row t = 0..T: (T + 1, N). Row 0 is the total. (Ho et al. 2020, 4.3; E41)"""
        rows = [self.prior]
        for row in self.denoising[:1:-1]:  # L_{t-1} for t = T..2
            rows.append(rows[-1] + row)
        return np.stack([self.total, *rows[::-1]])  # E41


def variational_bound(
    schedule, denoise, x0, noise, variance="beta_tilde", clip=None, decoder=discretised_log_prob, progress=None
):
    """The whole bound, from one draw of each x_t: a `Bound`. (Ho et al. 2020 eq. 5; E14)

    x0: (N, ...) floating; noise(t) -> standard normal like x0, for t = 1..T. variance: as in
    `p_mean_variance`. clip: the range (low, high) that x0_hat is clipped to, or None. decoder(p, x0) -> log
    p(x_0 | x_1) from the Gaussian p of the last step; for continuous data pass `Gaussian.log_prob`. progress:
    wraps the loop as `tqdm` does.
    """
    prior = prior_term(schedule, x0)
    rows = [0 * prior, 0 * prior]
    steps = range(2, schedule.T + 1)
    for t in steps if progress is None else progress(steps):
        rows.append(denoising_term(schedule, denoise, x0, t, noise(t), variance, clip))
    last = reconstruction_term(schedule, denoise, x0, noise(1), variance, clip, decoder)
    return Bound(prior, np.stack(rows), last)


def prior_term(schedule, x0):
    """L_T = KL(q(x_T | x_0) || N(0, I)): (N,). It has no parameters, and is small but not zero. (E20)"""
    alpha_bar = gather(schedule.alpha_bar, schedule.T, x0)
    log_noise = gather(schedule.log_one_minus_alpha_bar, schedule.T, x0)
    return sum_per_sample((alpha_bar * (x0**2 - 1) - log_noise) / 2)  # E20


def denoising_term(schedule, denoise, x0, t, noise, variance="beta_tilde", clip=None):
    """L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) at x_t drawn with `noise`: (N,). (E14, E19)

    t: an integer in 2..T, or such integers (N,).
    """
    xt = q_sample(schedule, x0, t, noise)
    return step_kl(schedule, x0, predict_x0(denoise, schedule, xt, t, clip), t, variance)


def step_kl(schedule, x0, x0_hat, t, variance="beta_tilde"):
    """KL(q(x_{t-1} | x_t, x_0) || p) where p has the mean of q(x_{t-1} | x_t, x0_hat), t in 2..T: (N,). (E19)

    Both means contain the same multiple of x_t, and the KL needs their difference only, so x_t drops out.
    """
    check_like("x0_hat", x0_hat, "x0", x0)
    t = check_t(t, schedule.T, x0, first=2)
    from_x0, _, beta_tilde = posterior_coefficients(schedule, t - 1, t)
    q = Gaussian(spread(from_x0, x0) * (x0 - x0_hat), spread(beta_tilde, x0))
    return q.kl(Gaussian(0.0 * x0, reverse_variance(schedule, variance, x0, t)))  # E19


def reconstruction_term(schedule, denoise, x0, noise, variance="beta_tilde", clip=None, decoder=discretised_log_prob):
    """L_0 = -log p(x_0 | x_1) at x_1 drawn with `noise`: (N,). Arguments as in `variational_bound`. (E21)

    The variance is entry 1 of `variance_table`, which is above 0, unlike beta_tilde_1.
    """
    x1 = q_sample(schedule, x0, 1, noise)
    x0_hat = predict_x0(denoise, schedule, x1, 1, clip)
    return -decoder(p_mean_variance(schedule, x0_hat, x1, 1, variance), x0)  # E21


def distortion(schedule, denoise, x0, t, noise, clip=None):
    """The mean square of x_0 - x0_hat at x_t drawn with `noise`: (N,). The error if sending stops at x_t. (E41)"""
    xt = q_sample(schedule, x0, t, noise)
    return l_simple(x0, predict_x0(denoise, schedule, xt, t, clip))  # E41


def l_hybrid(schedule, target, prediction, x0, x0_hat, t, fraction, weight=0.001):
    """L_simple + weight T L_{t-1}, t in 2..T: (N,). (Nichol & Dhariwal 2021 eq. 16; E19, E23)

    Only the variance should learn from the second term, so pass an x0_hat that is cut off from the gradient. fraction:
    like x0, see `learned_variance`. For uniform t, the mean of T L_{t-1} is the sum over t, hence the factor T.
    """
    variance = learned_variance(schedule, fraction, x0, t)
    return l_simple(target, prediction) + weight * schedule.T * step_kl(schedule, x0, x0_hat, t, variance)


def bits_per_dim(nats, d):
    """nats / (d ln 2), where d >= 1 is the number of dimensions of one sample. ValueError for another d."""
    if not (is_integer(d) and d >= 1):
        raise ValueError(f"d must be an integer of at least 1, got {d!r}")
    return nats / (int(d) * math.log(2))  # Python's number keeps the dtype of nats
