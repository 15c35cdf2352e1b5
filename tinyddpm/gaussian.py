"""The Gaussian with independent elements. Every distribution of the model is one. Next: forward.py."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyddpm.coefficients import check_like, float_dtype

__all__ = ["Gaussian", "STANDARD_NORMAL", "gaussian_kl", "sum_per_sample"]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, variance), independent over elements. The first axis of mean counts samples.

    mean: (N, ...) floating, or a Python float. variance: at least 0, a number, or an array of mean's dtype that
    broadcasts to mean's shape. A number takes the dtype of the mean. If mean and variance are both numbers, the
    other argument of the method gives the shape. Raises ValueError for a variance that is negative, NaN or does not
    broadcast, TypeError for an array of another dtype or a value that is no number. A variance on a GPU is not
    compared with 0, because reading it would make the host wait.
    """

    mean: Any
    variance: Any

    def __post_init__(self):
        mean_shape, shape = (tuple(getattr(a, "shape", ())) for a in (self.mean, self.variance))
        mean_dtype = float_dtype("mean", self.mean)
        fits = all(n in (1, m) for n, m in zip(shape[::-1], mean_shape[::-1], strict=False))
        if not fits or len(shape) > len(mean_shape):
            raise ValueError(f"variance of shape {shape} does not broadcast to the mean's shape {mean_shape}")
        if isinstance(self.variance, np.generic) and self.variance.dtype.kind in "fiu":
            # Unlike a NumPy scalar, a Python float takes the dtype of the array that it meets.
            object.__setattr__(self, "variance", float(self.variance))
        elif type(self.variance) not in (int, float) and float_dtype("variance", self.variance) != mean_dtype:
            raise TypeError(f"variance must have the mean's dtype {mean_dtype}, got {self.variance.dtype}")
        if is_on_host(self.variance) and not np.all(self.variance >= 0):
            raise ValueError(f"variance must not be negative, got {np.min(self.variance)}")

    def sample(self, noise):
        """mean + sqrt(variance) noise, for standard normal noise of the mean's shape and dtype."""
        check_like("noise", noise, "the mean", self.mean)
        return self.mean + self.variance**0.5 * noise

    def log_prob(self, x):
        """log N(x; mean, variance), in nats: (N,). ValueError where the variance is 0: a point has no density. (E12)"""
        check_density(self)
        check_meets("x", x, self.mean)
        square = (x - self.mean) ** 2
        log_scale = log(self.variance) + math.log(2 * math.pi)
        return sum_per_sample(-(square / self.variance + log_scale) / 2)  # E12

    def entropy(self):
        """Entropy in nats: (N,). ValueError where the variance is 0. (E13)"""
        check_density(self)
        everywhere = 0 * self.mean  # broadcasts the variance to the mean's shape, so that each element counts
        return sum_per_sample((log(self.variance) + math.log(2 * math.pi * math.e)) / 2 + everywhere)  # E13

    def kl(self, other):
        """KL(self || other) in nats: (N,). ValueError where a variance is 0. (E11)"""
        check_density(self)
        check_density(other)
        check_meets("the other mean", other.mean, self.mean)
        ratio = self.variance / other.variance
        square = (other.mean - self.mean) ** 2
        return sum_per_sample((ratio - 1 - log(ratio) + square / other.variance) / 2)  # E11

    def cross_entropy(self, other):
        """-E log other(x) over x from self, in nats: (N,). (E13)"""
        return self.entropy() + self.kl(other)  # E13


def is_on_host(variance):
    return isinstance(variance, (int, float, np.ndarray, np.floating))


STANDARD_NORMAL = Gaussian(0.0, 1.0)


def check_meets(name, x, mean):
    """Raise as `check_like`, unless x or mean is a number, which fits any shape."""
    if getattr(x, "shape", ()) and getattr(mean, "shape", ()):
        check_like(name, x, "the mean", mean)


def check_density(p):
    """Raise ValueError if the Gaussian p has a variance of 0 somewhere, unless p is on a GPU."""
    if is_on_host(p.variance) and not np.all(p.variance > 0):
        raise ValueError("a Gaussian with a variance of 0 is a point: it has no density, no entropy and no KL")


def gaussian_kl(mean1, covariance1, mean2, covariance2):
    """KL(N(mean1, covariance1) || N(mean2, covariance2)) in nats, for full covariances. (E11)

    means: (..., d), covariances: (..., d, d) symmetric positive definite; returns (...).
    Raises ValueError for a covariance that is not symmetric, numpy.linalg.LinAlgError for one that is not positive
    definite.
    """
    for covariance in (covariance1, covariance2):
        if not np.allclose(covariance, covariance.swapaxes(-1, -2), rtol=1e-9, atol=0):
            raise ValueError("a covariance must be symmetric")  # Cholesky reads one triangle only
    root1, root2 = np.linalg.cholesky(covariance1), np.linalg.cholesky(covariance2)
    whitened_root = np.linalg.solve(root2, root1)
    whitened_step = np.linalg.solve(root2, (mean2 - mean1)[..., None])[..., 0]
    log_ratio = -2 * np.log(np.diagonal(whitened_root, axis1=-2, axis2=-1)).sum(-1)  # log |S2|/|S1|
    trace = (whitened_root**2).sum((-2, -1))  # tr(S2^-1 S1)
    return (log_ratio - mean1.shape[-1] + trace + (whitened_step**2).sum(-1)) / 2  # E11


def sum_per_sample(x):
    """x summed over all axes but the first: (N,). Arrays (N,) and numbers are returned as they are."""
    if len(getattr(x, "shape", ())) < 2:  # not np.ndim: a Tensor refuses NumPy's functions
        return x
    return x.reshape(x.shape[0], math.prod(x.shape[1:])).sum(axis=1)


def log(x):
    """Natural logarithm of a number, an array or a tensor, in its own dtype."""
    if hasattr(x, "log"):
        return x.log()
    return np.log(x) if hasattr(x, "dtype") else math.log(x)


def exp(x):
    """Exponential of an array or a tensor, in its own dtype."""
    return x.exp() if hasattr(x, "exp") else np.exp(x)
