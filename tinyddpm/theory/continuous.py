"""Diffusion in continuous time: schedules of the log-SNR, and a loss that knows only their end points. (E35)

Time u runs from 0, nearly data, to 1, nearly noise, and z = signal x_0 + noise eps with signal^2 =
sigmoid(log_snr(u)), noise^2 = 1 - signal^2. A model is `denoise(z, log_snr) -> x0_hat`, log_snr a number or
(N,). All is made of operators, so that a schedule may hold tensors, and learn. (Kingma et al. 2021, VDM)
Read flow.py next.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyddpm.coefficients import check_like, float_dtype, spread
from tinyddpm.gaussian import STANDARD_NORMAL, Gaussian, exp, sum_per_sample
from tinyddpm.schedule import NoiseSchedule

__all__ = ["LinearLogSNR", "CosineLogSNR", "LearnedLogSNR", "signal_and_noise", "diffusion_loss", "prior_loss"]
__all__ += ["reconstruction_loss", "discretise", "ideal_denoiser"]


# ---- schedules: log_snr(u) falls from high at u = 0 to low at u = 1; slope(u) is its derivative ----


@dataclass(frozen=True)
class LinearLogSNR:
    """A straight line from high to low."""

    high: float
    low: float

    def __post_init__(self):
        check_ends(self)

    def __call__(self, u):
        return self.high + (self.low - self.high) * check_time(u)

    def slope(self, u):
        return (self.low - self.high) * np.ones_like(check_time(u))


@dataclass(frozen=True)
class CosineLogSNR:
    """signal = cos(angle), the angle on a straight line between those of high and low."""

    high: float
    low: float

    def __post_init__(self):
        check_ends(self)

    def angle(self, u):
        start, end = (math.atan(math.exp(-level / 2)) for level in (self.high, self.low))
        return start + (end - start) * check_time(u), end - start

    def __call__(self, u):
        return -2 * np.log(np.tan(self.angle(u)[0]))

    def slope(self, u):
        angle, change = self.angle(u)
        return -4 * change / np.sin(2 * angle)


@dataclass(frozen=True, eq=False)
class LearnedLogSNR:
    """K straight pieces over equal times, of which piece k falls by weights_k^2 / sum weights^2 of the whole.

    weights: (K,), an array or a tensor of any values but all zeros; whatever they learn to be, the schedule
    is monotone and keeps its ends.
    """

    high: float
    low: float
    weights: Any

    def __post_init__(self):
        check_ends(self)
        if len(self.weights.shape) != 1:
            raise ValueError(f"weights must have shape (K,), got {tuple(self.weights.shape)}")

    def place(self, u):
        """How much of each piece lies before u, in pieces: (N, K)."""
        pieces = self.weights.shape[0]
        before = np.clip(pieces * np.asarray(check_time(u))[:, None] - np.arange(pieces), 0, 1)
        return before.astype(float_dtype("weights", self.weights))

    def shares(self):
        return self.weights**2 / (self.weights**2).sum()

    def __call__(self, u):
        return self.high + (self.low - self.high) * (self.shares() * self.place(u)).sum(axis=1)

    def slope(self, u):
        place = self.place(u)
        pieces = place.shape[1]
        current = np.arange(pieces) == np.minimum((place == 1).sum(1), pieces - 1)[:, None]
        return (self.low - self.high) * pieces * (self.shares() * current.astype(place.dtype)).sum(axis=1)


def check_ends(schedule):
    if not schedule.high > schedule.low:
        raise ValueError(f"log_snr must fall: high must be above low, got {schedule.high} and {schedule.low}")


def check_time(u):
    if not (np.min(u) >= 0 and np.max(u) <= 1):
        raise ValueError(f"u must lie in [0, 1], got {np.min(u)}..{np.max(u)}")
    return u


# ---- the bound: prior_loss + the mean of diffusion_loss over u + reconstruction_loss, in nats, (N,) ----


def signal_and_noise(log_snr):
    """sqrt(sigmoid(log_snr)) and sqrt(sigmoid(-log_snr)): z = signal x_0 + noise eps."""
    return (1 + exp(-log_snr)) ** -0.5, (1 + exp(log_snr)) ** -0.5


def diffused(x0, log_snr, noise):
    """z = signal x_0 + noise_rate noise, at one log_snr or one a sample (N,)."""
    signal, noise_rate = signal_and_noise(shaped(log_snr, x0))
    return signal * x0 + noise_rate * noise


def shaped(values, x):
    """`spread`, also for a tensor of values (N,)."""
    if isinstance(values, (int, float, np.ndarray, np.number)):
        return spread(values, x)
    return values.reshape(values.shape + (1,) * (len(x.shape) - 1))


def diffusion_loss(schedule, denoise, x0, u, noise):
    """-1/2 d log_snr/du SNR ||x_0 - x0_hat||^2 at times u, (N,) in [0, 1]: (N,). (VDM eq. 17; E35)

    Its mean over uniform u is the integral of SNR ||x_0 - x0_hat||^2 / 2 over log_snr: of the schedule, the
    mean knows the ends only, but the variance knows all. x0, noise: (N, ...) floating, alike, the noise
    standard normal.
    """
    check_like("noise", noise, "x0", x0)
    log_snr = schedule(u)
    x0_hat = denoise(diffused(x0, log_snr, noise), log_snr)
    weight = shaped(schedule.slope(u), x0) * -0.5 * exp(shaped(log_snr, x0))
    return sum_per_sample(weight * (x0 - x0_hat) ** 2)  # E35


def prior_loss(schedule, x0):
    """KL(q(z at u = 1 | x_0) || N(0, I)): (N,)."""
    signal, noise = (float(a) for a in signal_and_noise(schedule.low))
    return Gaussian(signal * x0, noise**2).kl(STANDARD_NORMAL)


def reconstruction_loss(schedule, denoise, x0, noise, decoder=Gaussian.log_prob):
    """-log p(x_0 | z at u = 0), p = N(x0_hat, 1/SNR) read by the decoder, see `variational_bound`: (N,)."""
    x0_hat = denoise(diffused(x0, schedule.high, noise), schedule.high)
    return -decoder(Gaussian(x0_hat, math.exp(-schedule.high)), x0)


# ---- to and fro ----


def discretise(schedule, T):
    """The NoiseSchedule of T >= 2 steps with log_snr_t = schedule((t - 1)/(T - 1)): ends at t = 1, T."""
    if T < 2:
        raise ValueError(f"T must be at least 2 to have two ends, got {T}")
    return NoiseSchedule.from_alpha_bar(signal_and_noise(schedule(np.linspace(0, 1, T)))[0] ** 2)


def ideal_denoiser(data):
    """The model denoise(z, log_snr) = E[x_0 | z] of an oracle's data (a Mixture), for z (N, d)."""

    def denoise(z, log_snr):
        signal, noise = signal_and_noise(np.asarray(log_snr))
        return data.given(z, signal, noise**2).mean()

    return denoise
