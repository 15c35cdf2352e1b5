"""p(x_0 | x_1) for data of discrete levels: a Gaussian's exact mass in each value's bin, and its gradient.

Everything is computed in float64 from m = (x_0 - mean)/sigma and w = (half a bin)/sigma. The mass is a difference of
two values of the normal CDF, written so that it does not cancel in the far tails, nor for tiny bins. (E21)
Next: theory/mixture.py.
"""

import math

import numpy as np

from tinyddpm.coefficients import check_like, is_integer
from tinyddpm.gaussian import sum_per_sample

__all__ = ["discretised_log_prob", "discretised_log_prob_gradient", "log_bin_mass", "log_ndtr"]

LOG_SQRT_2PI = math.log(2 * math.pi) / 2


def discretised_log_prob(p, x0, levels=256):
    """log of the mass that the Gaussian p has in the bins of x_0, in nats: (N,), in x_0's dtype. (E21)

    x0: (N, ...) floating, on the grid 2k/(levels - 1) - 1 for k = 0..levels-1; a bin reaches half way to the
    next level, the outermost bins to infinity (Ho et al. 2020 eq. 13). p: a Gaussian like x0, of positive variance;
    where its mean is NaN, the result is NaN. Raises ValueError for a value off the grid, a variance of 0 and fewer than
    2 levels, ValueError or TypeError where x0 and p.mean are not alike.
    """
    m, w, edge = standardise(p, x0, levels)
    inner, outer = edge == 0, edge != 0
    log_mass = np.empty_like(m)
    log_mass[inner] = log_bin_mass(m[inner], w[inner])
    log_mass[outer] = log_ndtr((w - edge * m)[outer])
    return sum_per_sample(log_mass).astype(x0.dtype)


def discretised_log_prob_gradient(p, x0, levels=256):
    """The derivatives of `discretised_log_prob` by p's mean and by its log variance, like x_0. (E21)"""
    m, w, edge = standardise(p, x0, levels)
    by_m, by_w = np.empty_like(m), np.empty_like(m)
    inner, outer = edge == 0, edge != 0
    by_m[inner], by_w[inner] = log_bin_mass_gradient(m[inner], w[inner])
    z = (w - edge * m)[outer]
    by_w[outer] = np.exp(-(z**2) / 2 - LOG_SQRT_2PI - log_ndtr(z))
    by_m[outer] = -edge[outer] * by_w[outer]
    by_mean = -by_m * w * (levels - 1)  # w (levels - 1) = 1/sigma
    by_log_variance = -(m * by_m + w * by_w) / 2
    return by_mean.astype(x0.dtype), by_log_variance.astype(x0.dtype)


def standardise(p, x0, levels):
    """(m, w, edge) in float64, shaped like x_0. edge: -1 in the lowest bin, 1 in the highest, 0 in the others."""
    check_like("x0", x0, "the mean", p.mean)
    if not is_integer(levels) or levels < 2:
        raise ValueError(f"levels must be an integer of at least 2, got {levels!r}")
    k = np.rint((float64(x0) + 1) * (levels - 1) / 2)
    grid = 2 * k / (levels - 1) - 1
    if not ((abs(grid - x0) <= 0.01 / levels) & (abs(grid) <= 1)).all():
        raise ValueError(f"x0 must lie on the grid 2k/{levels - 1} - 1 for k = 0..{levels - 1}")
    variance = float64(p.variance)
    if not np.all(variance > 0):
        raise ValueError("the variance must be above 0 everywhere: a point has no mass in a bin beside it")
    precision = 1 / variance**0.5
    m = (grid - float64(p.mean)) * precision
    edge = (k == levels - 1) * 1.0 - (k == 0)
    return m, precision / (levels - 1) + 0 * m, edge


def float64(x):
    return x.astype(np.float64) if hasattr(x, "astype") else float(x)


# ---- the normal distribution ----


def log_bin_mass(m, w):
    """log P(|Z - m| < w) for standard normal Z, float64 arrays alike, w > 0. NaN where m is NaN."""
    m = abs(m)
    log_mass = np.empty_like(m)
    narrow = (w <= 2) & (m * w <= 10)
    far = ~narrow & (m > w)
    wide = ~narrow & ~far  # NaN too: every element of log_mass must be written
    log_mass[narrow] = log_narrow_mass(m[narrow], w[narrow])
    log_mass[far] = log_far_mass(m[far], w[far])
    log_mass[wide] = np.log1p(-normal_tail(w[wide] - m[wide]) - normal_tail(w[wide] + m[wide]))
    return log_mass


NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)


def log_narrow_mass(m, w):
    """The density at m times the width times the mean of exp(-m w u - (w u)^2/2) over u in [-1, 1]."""
    mean = 0.0
    for u, weight in zip(NODES, WEIGHTS, strict=True):
        mean = mean + weight / 2 * np.exp(-w * u * (m + w * u / 2))
    return -(m**2) / 2 - LOG_SQRT_2PI + np.log(2 * w * mean)


def log_far_mass(m, w):
    """log(P(Z > m - w) - P(Z > m + w)), for m > w > 0, with exp(-(m - w)^2/2) factored out."""
    near, far = m - w, m + w
    return -(near**2) / 2 - LOG_SQRT_2PI + np.log(mills_ratio(near) - np.exp(-2 * m * w) * mills_ratio(far))


def log_bin_mass_gradient(m, w):
    """The derivatives of `log_bin_mass` by m and by w."""
    near = abs(m) - w
    density = np.exp(-(near**2) / 2 - LOG_SQRT_2PI - log_bin_mass(m, w))  # at the edge nearer to 0, over the mass
    by_m = np.sign(m) * np.expm1(-2 * abs(m) * w) * density
    return by_m, (1 + np.exp(-2 * abs(m) * w)) * density


def log_ndtr(z):
    """log P(Z < z) for standard normal Z, float64."""
    log_tail = -(z**2) / 2 - LOG_SQRT_2PI + np.log(mills_ratio(abs(z)))  # log P(Z > |z|)
    return np.where(z <= 0, log_tail, np.log1p(-np.exp(log_tail)))


def normal_tail(x):
    """P(Z > x) for x >= 0."""
    return np.exp(-(x**2) / 2 - LOG_SQRT_2PI) * mills_ratio(x)


def mills_ratio(x):
    """P(Z > x) over the density at x, for x >= 0, float64, to 1e-15 relative.

    The integral 1/pi int exp(-t^2) z/(t^2 + z^2) dt = exp(z^2) erfc(z), z = x/sqrt(2), by the midpoint rule,
    whose error falls like exp(-(pi/h)^2), with the residue of the pole at t = iz added while it matters.
    (Hunter & Regan 1972, Math. Comp. 26, 539)
    """
    h = 0.5
    z = x / math.sqrt(2)
    total = 0.0
    for t in (np.arange(13) + 0.5) * h:
        total = total + math.exp(-t * t) / (t * t + z**2)
    pole = np.minimum(z, math.pi / h)
    residue = np.where(z < math.pi / h, 2 * np.exp(pole**2) / (1 + np.exp(2 * math.pi / h * pole)), 0.0)
    return math.sqrt(math.pi / 2) * (2 * h * z / math.pi * total + residue)
