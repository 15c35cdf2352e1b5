"""The probability flow: a path without noise through the marginals q(x), and the likelihood along it. (E42)

The velocity dx/d log_snr = (signal E[x_0 | x] - signal^2 x)/2 carries q(x) at one log-SNR to q(x) at another (Song et
al. 2021 eq. 13, with the log-SNR for time). Along the path, d log q / d log_snr is minus the divergence of the
velocity (their eq. 39). A model is `denoise(x, log_snr) -> x0_hat`, as in continuous.py; x is a NumPy or CuPy array
(N, ...), floating. Next: hierarchy.py.
"""

import math

import numpy as np

from tinyddpm.coefficients import check_like, float_dtype, is_integer
from tinyddpm.gaussian import STANDARD_NORMAL, sum_per_sample
from tinyddpm.theory.log_snr import signal_and_sigma

__all__ = ["probability_flow", "flow_log_prob", "flow_log_prob_estimates", "flow_velocity", "divergence"]
__all__ += ["divergence_estimates", "dequantised_nll", "noised_nll"]


def probability_flow(denoise, x, start, end, steps):
    """The point to which the flow takes x from log_snr = start to end, by Runge-Kutta of order 4 in equal steps.

    Raises ValueError for an x, start or end that is not finite, TypeError for an x that is not floating.
    """
    return integrate(lambda x, level: (flow_velocity(denoise, x, level), 0.0), x, start, end, steps)[0]


def flow_log_prob(denoise, x, start, end, steps, log_prob=STANDARD_NORMAL.log_prob):
    """log q(x) at log_snr = start, in nats, by following the flow to log_snr = end: (N,). (E42)

    log_prob(x) -> (N,): the density at the end, N(0, I) unless given. The exact divergence costs twice as many calls of
    the model as x has dimensions; `flow_log_prob_estimates` costs two a probe.
    """
    x_end, growth = integrate(log_prob_rates(denoise, divergence), x, start, end, steps)
    return log_prob(x_end) + growth  # E42


def flow_log_prob_estimates(denoise, x, start, end, steps, probes, log_prob=STANDARD_NORMAL.log_prob):
    """One estimate of `flow_log_prob` for each of P probes: (P, N). (Grathwohl et al. 2019, FFJORD; E42)

    probes: (P, N, ...), random signs of x's dtype, or a function draw() of such. The path does not depend on them. So
    each estimate is unbiased, and the mean over probes is, with the standard error std / sqrt(P). With new ones at every
    point of the path the errors average out along it.
    """
    draw = probes if callable(probes) else lambda: probes
    rates = log_prob_rates(denoise, lambda velocity, x: divergence_estimates(velocity, x, draw()))
    x_end, growth = integrate(rates, x, start, end, steps)
    return log_prob(x_end) + growth


def log_prob_rates(denoise, divergence):
    """The two derivatives that are integrated: rates(x, level) -> the velocity, and its divergence."""

    def rates(x, level):
        def velocity(x):
            return flow_velocity(denoise, x, level)

        return velocity(x), divergence(velocity, x)

    return rates


def flow_velocity(denoise, x, log_snr):
    """dx/d log_snr = (signal x0_hat - signal^2 x)/2, of x's dtype."""
    signal = x.dtype.type(signal_and_sigma(log_snr)[0])
    x0_hat = denoise(x, log_snr)
    check_like("x0_hat", x0_hat, "x", x)
    return (signal * x0_hat - signal**2 * x) / 2


def divergence(f, x):
    """sum_i df_i/dx_i of f: (N, ...) -> (N, ...), by central differences along every axis: (N,)."""
    return sum(divergence_estimates(f, x, [v])[0] for v in unit_vectors(x))


def divergence_estimates(f, x, probes):
    """v . (df/dx) v for each probe v like x, by central differences: (P, N). (Hutchinson 1990; E42)

    For random signs each is an unbiased estimate of the divergence, with the variance sum_{i<j} (J_ij + J_ji)^2,
    where J = df/dx.
    """
    size = np.finfo(x.dtype).eps ** (1 / 3)  # balances rounding and curvature
    products = []
    for v in probes:
        check_like("a probe", v, "x", x)
        products.append(sum_per_sample(v * (f(x + size * v) - f(x - size * v)) / (2 * size)))
    return np.stack(products)  # E42


def unit_vectors(x):
    """Each unit vector of one sample's space, for all samples at once, like x."""
    for i in range(math.prod(x.shape[1:])):
        v = 0 * x.reshape(len(x), -1)
        v[:, i] = 1
        yield v.reshape(x.shape)


def dequantised_nll(log_prob, x0, uniform, levels=256):
    """An upper bound on -log P(x_0) for x_0 on a grid of levels, in the mean over `uniform`: (N,), in nats. (E42)

    log_prob(x) -> (N,): a density, such as that of the flow. P(x_0) is its mass in the bin of x_0, 2/(levels - 1)
    wide, so log P(x_0) is at least the mean of log p over the bin plus the log of the bin's volume (Theis et al. 2016).
    uniform: noise in [0, 1) like x0; it places x in the bin. Raises ValueError for other noise.
    """
    check_like("uniform", uniform, "x0", x0)
    if not ((uniform >= 0) & (uniform < 1)).all():
        raise ValueError(f"uniform must lie in [0, 1), got {uniform.min()}..{uniform.max()}")
    width = 2 / (levels - 1)
    return -log_prob(x0 + width * (uniform - 0.5)) - math.prod(x0.shape[1:]) * math.log(width)  # E42


def noised_nll(log_prob, x0, log_snr, noise):
    """log q(z | x_0) - log p(z) at z = signal x_0 + sigma noise: (N,) or, of P estimates log_prob, (P, N). (E42)

    With -log P(x_0 | z), such as L_0, it is in the mean over noise at least -log P(x_0), and for each z equal to it where
    P(x_0 | z) is the model's posterior. So the noise dequantises, in the place of `dequantised_nll`: a model that has
    seen less noise than a bin is wide has its density at the levels, and not between them. (Ho et al. 2019, Flow++)
    """
    check_like("noise", noise, "x0", x0)
    signal, sigma = (x0.dtype.type(part) for part in signal_and_sigma(log_snr))
    return (
        STANDARD_NORMAL.log_prob(noise)
        - math.prod(x0.shape[1:]) * math.log(sigma)
        - log_prob(signal * x0 + sigma * noise)
    )


def integrate(rates, x, start, end, steps):
    """x and a sum carried from start to end. rates(x, level) -> the derivatives of both by the level."""
    float_dtype("x", x)
    start, end = float(start), float(end)
    if not (math.isfinite(start) and math.isfinite(end) and (abs(x) < math.inf).all()):
        raise ValueError(f"x, start and end must be finite, got start {start}, end {end}, x in {x.min()}..{x.max()}")
    if not is_integer(steps) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, got {steps}")
    h, total = (end - start) / int(steps), 0.0
    for i in range(int(steps)):
        level = start + i * h
        v1, s1 = rates(x, level)
        v2, s2 = rates(x + h / 2 * v1, level + h / 2)
        v3, s3 = rates(x + h / 2 * v2, level + h / 2)
        v4, s4 = rates(x + h * v3, level + h)
        x = x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        total = total + h / 6 * (s1 + 2 * s2 + 2 * s3 + s4)
    return x, total
