"""Schedules of continuous time: the log-SNR as a function that falls while time u runs from 0 to 1. (E35)

u = 0 is nearly data, u = 1 nearly noise. Kingma et al. (2021, VDM) write gamma for minus the log-SNR. A schedule is
called with u in [0, 1], numbers or an array, and `slope(u)` is its derivative. Next: continuous.py.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyddpm.coefficients import float_dtype
from tinyddpm.gaussian import exp

__all__ = ["LinearLogSNR", "CosineLogSNR", "LearnedLogSNR", "signal_and_sigma"]


def signal_and_sigma(log_snr):
    """sqrt(sigmoid(log_snr)) and sqrt(sigmoid(-log_snr)): z = signal x_0 + sigma eps."""
    return (1 + exp(-log_snr)) ** -0.5, (1 + exp(log_snr)) ** -0.5


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
        return self.low - self.high + 0 * check_time(u)


@dataclass(frozen=True)
class CosineLogSNR:
    """signal = cos(angle), where the angle grows evenly from its value at high to its value at low. (NumPy only)"""

    high: float
    low: float

    def __post_init__(self):
        check_ends(self)

    def angle(self, u):
        """The angle at u, and its derivative."""
        start, end = (math.atan(math.exp(-level / 2)) for level in (self.high, self.low))
        return start + (end - start) * check_time(u), end - start

    def __call__(self, u):
        return -2 * np.log(np.tan(self.angle(u)[0]))

    def slope(self, u):
        angle, change = self.angle(u)
        return -4 * change / np.sin(2 * angle)


@dataclass(frozen=True, eq=False)
class LearnedLogSNR:
    """K straight pieces over equal times; piece k covers the fraction weights_k^2 / sum weights^2 of the fall.

    weights: (K,), an array or a tensor, not all zero. Whatever values they learn, the schedule falls from high to
    low. u: (N,), an array; for the value also a float64 tensor.
    """

    high: float
    low: float
    weights: Any

    def __post_init__(self):
        check_ends(self)
        if len(self.weights.shape) != 1:
            raise ValueError(f"weights must have shape (K,), got {tuple(self.weights.shape)}")
        total = (self.weights**2).sum().item()
        if not 0 < total < math.inf:
            raise ValueError(f"weights must be finite and not all zero, got {self.weights}")

    def fractions(self):
        """The fraction of the fall that each piece covers: (K,)."""
        return self.weights**2 / (self.weights**2).sum()

    def __call__(self, u):
        K = self.weights.shape[0]
        passed = (K * check_time(u).reshape(-1, 1) - np.arange(K, dtype=float)).clip(
            0, 1
        )  # how much of piece k is before u: (N, K)
        passed = passed.astype(float_dtype("weights", self.weights))
        return self.high - (self.high - self.low) * (self.fractions() * passed).sum(axis=1)

    def slope(self, u):
        K = self.weights.shape[0]
        piece = np.minimum((K * check_time(u)).astype(int), K - 1)  # the piece that u lies in
        return -(self.high - self.low) * K * self.fractions()[piece]


def check_ends(schedule):
    if not math.inf > schedule.high > schedule.low > -math.inf:
        raise ValueError(f"log_snr must fall: high must be above low, got {schedule.high} and {schedule.low}")


def check_time(u):
    """u, a list or number as an array; ValueError unless all of it lies in [0, 1]."""
    u = u if hasattr(u, "min") else np.asarray(u, dtype=np.float64)
    low, high = u.min().item(), u.max().item()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"u must lie in [0, 1], got {low}..{high}")
    return u
