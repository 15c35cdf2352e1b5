"""The exercises of lesson 3: for each a check, an answer, and the mistake most often made."""

import numpy as np

import tinyddpm as td
from tinyddpm.theory.mixture import gaussian_data
from tinyddpm.theory.oracle import Oracle

SCHEDULE = td.NoiseSchedule.linear(20)


# ---- 1: two opinions ----


def check_1(combine):
    mean, variance = combine(0.0, 1.0, 3.0, 0.5)
    assert np.isclose(variance, 1 / 3), f"precisions add: the variance is 1/3, not {variance}"
    assert np.isclose(mean, 2.0), f"the surer opinion weighs more: the mean is 2, not {mean}"


def answer_1(mean1, variance1, mean2, variance2):
    variance = 1 / (1 / variance1 + 1 / variance2)
    return variance * (mean1 / variance1 + mean2 / variance2), variance


def mistake_1(mean1, variance1, mean2, variance2):
    total = variance1 + variance2
    return (variance1 * mean1 + variance2 * mean2) / total, variance1 * variance2 / total


# ---- 2: the mean of the posterior ----


def check_2(posterior_mean):
    x0, xt = np.random.default_rng(1).standard_normal((2, 4, 3))
    for t in (1, 2, 20):
        found = posterior_mean(SCHEDULE.alpha_bar, x0, xt, t)
        expected = td.q_posterior(SCHEDULE, x0, xt, t).mean
        assert np.allclose(found, expected), f"not the mean at t = {t}: which factor has t, and which t - 1?"


def answer_2(alpha_bar, x0, xt, t):
    alpha = alpha_bar[t] / alpha_bar[t - 1]
    from_xt = alpha**0.5 * (1 - alpha_bar[t - 1])
    from_x0 = alpha_bar[t - 1] ** 0.5 * (1 - alpha)
    return (from_xt * xt + from_x0 * x0) / (1 - alpha_bar[t])


def mistake_2(alpha_bar, x0, xt, t):
    alpha = alpha_bar[t] / alpha_bar[t - 1]
    from_xt = alpha**0.5 * (1 - alpha_bar[t - 1])
    from_x0 = alpha_bar[t] ** 0.5 * (1 - alpha)  # alpha_bar_t for alpha_bar_{t-1}
    return (from_xt * xt + from_x0 * x0) / (1 - alpha_bar[t])


# ---- 3: the exact reverse variance of Gaussian data ----


def check_3(reverse_variance):
    for V in (0.0, 0.25, 1.0, 2.0):
        oracle = Oracle(gaussian_data([0.0], V), SCHEDULE)
        for t in (1, 2, 20):
            expected = oracle.reverse_step(np.ones((1, 1)), t).variance[0, 0]
            found = reverse_variance(SCHEDULE, V, t)
            assert np.isclose(found, expected, atol=1e-12), f"V = {V}, t = {t}: {found} where Bayes has {expected}"


def answer_3(schedule, V, t):
    of_xt = schedule.alpha_bar * V + schedule.one_minus_alpha_bar
    return schedule.beta[t] * of_xt[t - 1] / of_xt[t]


def mistake_3(schedule, V, t):
    return (1 - V) * schedule.beta_tilde[t] + V * schedule.beta[t]  # between, but not on a line
