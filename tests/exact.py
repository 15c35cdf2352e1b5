"""What the tests of exact answers share: schedules and data to draw, expectations without sampling error."""

import numpy as np
from hypothesis import strategies as st
from strategies import betas

from tinyddpm import NoiseSchedule
from tinyddpm.decoder import log_ndtr
from tinyddpm.theory.mixture import finite_data, gaussian_data, mixture_data

COVARIANCE = np.array([[1.0, 0.5, -0.1], [0.5, 0.6, 0.2], [-0.1, 0.2, 0.4]])


def any_data(rng, kind, d=3, K=4):
    """Data of the kind named, with everything about it drawn."""
    means, weights = rng.normal(size=(K, d)), rng.dirichlet(np.ones(K) * 3)
    if kind == "gaussian":
        return gaussian_data(means[0], COVARIANCE[:d, :d] * rng.uniform(0.1, 2))
    if kind == "diagonal":
        return mixture_data(weights, means, rng.uniform(0.01, 1, (K, d)))
    if kind == "mixture":
        roots = rng.normal(size=(K, d, d)) * 0.5
        return mixture_data(weights, means, roots @ roots.swapaxes(1, 2) + 0.01 * np.eye(d))
    return finite_data(means, weights)


KINDS = ("gaussian", "diagonal", "mixture", "finite")
kinds = st.sampled_from(KINDS)


def schedules(max_T):
    """Any schedule of 1..max_T steps with each beta in (1e-6, 0.999)."""
    return st.lists(betas, min_size=1, max_size=max_T).map(NoiseSchedule.from_beta)


def cubature(n):
    """2n points (2n, n), alike in weight, whose mean of any quadratic (even cubic) is that over N(0, I_n)."""
    return np.concatenate([np.eye(n), -np.eye(n)]) * n**0.5


def path_noise(T, d):
    """noise(t) -> (2Td, d): the cubature over all the noise of a path of T steps in d dimensions."""
    points = cubature(T * d).reshape(-1, T, d)
    return lambda t: np.ascontiguousarray(points[:, t - 1])


def hermite(n=80):
    """Points (n, 1) and weights (n,) of the Gauss-Hermite rule: E f(Z) = weights @ f(points)."""
    points, weights = np.polynomial.hermite_e.hermegauss(n)
    return points[:, None], weights / weights.sum()


def line(low=-12.0, high=12.0, n=4001):
    """Points (n, 1) and weights of the trapezoidal rule, which is exact to rounding for smooth densities."""
    points = np.linspace(low, high, n)
    return points[:, None], np.full(n, points[1] - points[0])


def cdf(mixture, x):
    """P(X <= x) for a one-dimensional mixture, x: (n,)."""
    z = (x[:, None] - mixture.means[:, 0]) / mixture.variances[:, 0] ** 0.5
    return (np.exp(mixture.log_weights + log_ndtr(z))).sum(-1)


def quantile(mixture, p):
    """The x with P(X <= x) = p, by bisection, p: (n,)."""
    low, high = np.full(len(p), -30.0), np.full(len(p), 30.0)
    for _ in range(100):
        middle = (low + high) / 2
        below = cdf(mixture, middle) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def ideal_denoiser(schedule, v):
    """E[x_0 | x_t] for data N(0, v)."""

    def denoise(xt, t):
        alpha_bar, noise = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
        return alpha_bar**0.5 * v / (alpha_bar * v + noise) * xt

    return denoise


def no_noise(t):
    raise AssertionError(f"noise asked for at t = {t}")


def steps_of(step, schedule, x_T, v=0.25):
    """The Gaussian of each step of a chain on data N(0, v), whose states are those of the step's own means."""
    denoise, x, found = ideal_denoiser(schedule, v), x_T, []
    for t in range(schedule.T, 0, -1):
        found.append(step(denoise, schedule, x, t))
        x = found[-1].mean
    return found
