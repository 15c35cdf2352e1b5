"""The exercises of lesson 4: for each a check, an answer, and the mistake most often made."""

from math import erf

import numpy as np

import tinyddpm as td
from tinyddpm.bound import prior_term
from tinyddpm.decoder import discretised_log_prob
from tinyddpm.loss import loss_weight

SCHEDULE = td.NoiseSchedule.linear(20, 1e-4, 0.2)


# ---- 1: the term at the noisy end ----


def check_1(prior):
    x0 = np.random.default_rng(1).uniform(-1, 1, (4, 3))
    found, expected = prior(SCHEDULE.alpha_bar[20], x0), prior_term(SCHEDULE, x0)
    assert np.shape(found) == (4,), "one number a sample: sum over its dimensions"
    assert np.allclose(found, expected), "not the KL from N(sqrt(alpha_bar) x_0, 1 - alpha_bar) to N(0, 1)"


def answer_1(alpha_bar_T, x0):
    variance = 1 - alpha_bar_T
    return ((variance - 1 - np.log(variance) + alpha_bar_T * x0**2) / 2).sum(axis=1)


def mistake_1(alpha_bar_T, x0):
    variance = 1 - alpha_bar_T  # the KL the other way round
    return ((1 / variance - 1 + np.log(variance) + alpha_bar_T * x0**2 / variance) / 2).sum(axis=1)


# ---- 2: the weight of the noise's error ----


def check_2(eps_weight):
    for t in (2, 10, 20):
        for name, sigma2 in (("beta", SCHEDULE.beta[t]), ("beta_tilde", SCHEDULE.beta_tilde[t])):
            found, expected = eps_weight(SCHEDULE, t, sigma2), loss_weight(SCHEDULE, "eps", t, name)
            assert np.isclose(found, expected), f"{found} at t = {t}, sigma_t^2 = {name}, where it is {expected}"


def answer_2(schedule, t, sigma2):
    return schedule.beta[t] ** 2 / (2 * sigma2 * schedule.alpha[t] * schedule.one_minus_alpha_bar[t])


def mistake_2(schedule, t, sigma2):
    return schedule.beta[t] ** 2 / (2 * sigma2 * schedule.alpha_bar[t] * schedule.one_minus_alpha_bar[t])


# ---- 3: the probability of a level ----


def check_3(level_probability):
    for mean, deviation in ((0.3, 0.2), (-1.0, 0.01)):
        total = sum(level_probability(mean, deviation, k) for k in range(256))
        assert np.isclose(total, 1), f"the levels together have the probability {total}: where are the tails?"
        for k in (0, 1, 130, 255):
            p = td.Gaussian(np.full((1, 1), mean), deviation**2)
            expected = np.exp(discretised_log_prob(p, np.full((1, 1), 2 * k / 255 - 1)))[0]
            found = level_probability(mean, deviation, k)
            assert np.isclose(found, expected, atol=1e-9), f"level {k} has {expected:.3g}, not {found:.3g}"


def answer_3(mean, deviation, k):
    def below(x):
        return (1 + erf((x - mean) / deviation / 2**0.5)) / 2

    level, half = 2 * k / 255 - 1, 1 / 255
    return (1.0 if k == 255 else below(level + half)) - (0.0 if k == 0 else below(level - half))


def mistake_3(mean, deviation, k):
    def below(x):
        return (1 + erf((x - mean) / deviation / 2**0.5)) / 2

    level, half = 2 * k / 255 - 1, 1 / 255
    return below(level + half) - below(level - half)  # the outer bins end where the others do
