"""The probability flow: the deterministic path through the marginals, and the likelihood along it.

dx/d log_snr = (signal E[x_0 | x] - signal^2 x)/2 carries q(x at one level) to q(x at another) without noise
(Song et al. 2021 eq. 13, with the log-SNR for time), and log q grows against its divergence (their eq. 39).
A model is `denoise(x, log_snr) -> x0_hat` as in continuous.py.
"""

import math

import numpy as np

from tinyddpm.gaussian import STANDARD_NORMAL, sum_per_sample
from tinyddpm.theory.continuous import signal_and_noise

__all__ = ["probability_flow", "flow_log_prob", "flow_velocity", "divergence"]


def probability_flow(denoise, x, start, end, steps):
    """Where the flow takes x, (N, ...) floating, from log_snr = start to end, by Runge-Kutta of order 4."""
    return integrate(lambda x, level: (flow_velocity(denoise, x, level), 0.0), x, start, end, steps)[0]


def flow_log_prob(denoise, x, start, end, steps, log_prob=STANDARD_NORMAL.log_prob, probes=None):
    """log q(x at log_snr = start), in nats, by following the flow to log_snr = end: (N,).

    log_prob(x) -> (N,): the density there, N(0, I) unless given. probes: vectors for `divergence`; without
    them its exact value costs twice as many calls of the model as x has dimensions.
    """

    def rates(x, level):
        def velocity(x):
            return flow_velocity(denoise, x, level)

        return velocity(x), divergence(velocity, x, probes)

    x_end, growth = integrate(rates, x, start, end, steps)
    return log_prob(x_end) + growth


def flow_velocity(denoise, x, log_snr):
    """dx/d log_snr = (signal x0_hat - signal^2 x)/2, of x's dtype."""
    signal = x.dtype.type(signal_and_noise(log_snr)[0])
    return (signal * denoise(x, log_snr) - signal**2 * x) / 2


def divergence(f, x, probes=None):
    """sum_i df_i/dx_i of f: (N, ...) -> (N, ...), by central differences: (N,).

    probes: a list of vectors v like x, of which the mean of v . (df/dx) v is taken: for random signs an
    unbiased estimate (Hutchinson). Without them, the sum over all unit vectors.
    """
    size = np.finfo(x.dtype).eps ** (1 / 3)  # balances rounding and curvature
    total = 0.0
    for v in unit_vectors(x) if probes is None else probes:
        change = (f(x + size * v) - f(x - size * v)) / (2 * size)
        total = total + sum_per_sample(v * change)
    return total if probes is None else total / len(probes)


def unit_vectors(x):
    """Each unit vector of one sample's space, for all samples at once, like x."""
    for i in range(math.prod(x.shape[1:])):
        v = 0 * x.reshape(len(x), -1)
        v[:, i] = 1
        yield v.reshape(x.shape)


def integrate(rates, x, start, end, steps):
    """x and a sum carried from start to end: rates(x, level) -> their derivatives, the sum's by x alone."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    h, total = float(end - start) / steps, 0.0
    for i in range(steps):
        level = start + i * h
        v1, s1 = rates(x, level)
        v2, s2 = rates(x + h / 2 * v1, level + h / 2)
        v3, s3 = rates(x + h / 2 * v2, level + h / 2)
        v4, s4 = rates(x + h * v3, level + h)
        x = x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        total = total + h / 6 * (s1 + 2 * s2 + 2 * s3 + s4)
    return x, total
