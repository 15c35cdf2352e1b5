"""The exercises of lesson 9: for each a check, an answer, and the mistake most often made."""

import numpy as np

from tinyddpm.theory.mixture import finite_data

RNG = np.random.default_rng(1)
POINTS, X = RNG.standard_normal((4, 2)), RNG.standard_normal((5, 2))


# ---- 1: the score of a finite set in noise ----


def check_1(score_of_points):
    for signal, sigma in ((0.8, 0.6), (0.995, 0.02)):
        expected = finite_data(POINTS).diffused(signal, sigma**2).score(X)
        found = score_of_points(POINTS, X, signal, sigma)
        assert np.isfinite(found).all(), "not finite: subtract the largest logarithm before exp"
        assert np.allclose(found, expected), "not the score: how likely is each point, given x?"


def answer_1(points, x, signal, sigma):
    step = x[:, None] - signal * points  # (N, K, d)
    logs = -(step**2).sum(axis=2) / (2 * sigma**2)
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return -(weights[:, :, None] * step).sum(axis=1) / sigma**2


def mistake_1(points, x, signal, sigma):
    return -(x[:, None] - signal * points).mean(axis=1) / sigma**2  # as if x said nothing about x_0


# ---- 2: Tweedie's formula ----


def check_2(tweedie):
    for alpha_bar in (0.9, 0.1):
        signal, variance = alpha_bar**0.5, 1 - alpha_bar
        score = finite_data(POINTS).diffused(signal, variance).score(X)
        expected = finite_data(POINTS).given(X, signal, variance).mean()
        assert np.allclose(tweedie(score, X, alpha_bar), expected), f"not E[x_0 | x_t] at alpha_bar = {alpha_bar}"


def answer_2(score, x, alpha_bar):
    return (x + (1 - alpha_bar) * score) / alpha_bar**0.5


def mistake_2(score, x, alpha_bar):
    return (x + (1 - alpha_bar) ** 0.5 * score) / alpha_bar**0.5  # as if the score were the noise


# ---- 3: a step along the flow ----


def check_3(flow_step):
    def score(y, sigma):
        return -y / (0.5 + sigma**2)  # of data N(0, 0.5), whose flow is known: y ~ sqrt(0.5 + sigma^2)

    sigmas, errors = [2.0, 1.0, 0.5, 0.0], []
    for finer in (8, 16):
        y, levels = np.ones((1, 1)), np.interp(np.arange(3 * finer + 1) / finer, np.arange(4), sigmas)
        for sigma, next_sigma in zip(levels[:-1], levels[1:], strict=True):
            y = flow_step(score, y, sigma, next_sigma)
        errors.append(abs(y[0, 0] - (0.5 / 4.5) ** 0.5))
    assert errors[1] < 1e-3, f"ends {errors[1]:.4f} away from where the flow does"
    assert errors[0] / errors[1] > 3, "of first order: is the second slope taken at the end of Euler's step?"


def answer_3(score, y, sigma, next_sigma):
    slope = -sigma * score(y, sigma)
    ahead = y + (next_sigma - sigma) * slope
    return y + (next_sigma - sigma) * (slope - next_sigma * score(ahead, next_sigma)) / 2


def mistake_3(score, y, sigma, next_sigma):
    return y + (next_sigma - sigma) * -sigma * score(y, sigma)  # Euler's step alone
