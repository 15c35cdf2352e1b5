"""The exercises of lesson 1: for each a check, an answer, and the mistake most often made."""

import numpy as np

import tinyddpm as td

SCHEDULE = td.NoiseSchedule.linear(20)
X, NOISE = np.random.default_rng(1).standard_normal((2, 4, 3))


# ---- 1: x_t from x_0, by the table beta ----


def check_1(jump):
    for t in (1, 7, 20):
        found, expected = jump(SCHEDULE.beta, X, t, NOISE), td.q_sample(SCHEDULE, X, t, NOISE)
        assert np.allclose(found, expected), f"x_{t} is not that of q_sample: are the factors roots of variances?"


def answer_1(beta, x0, t, noise):
    alpha_bar = np.prod(1 - beta[: t + 1])
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise


def mistake_1(beta, x0, t, noise):
    alpha_bar = np.prod(1 - beta[:t])  # one step too few
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise


# ---- 2: x_t from x_s ----


def check_2(between):
    for s, t in ((0, 5), (6, 7), (3, 20)):
        expected = td.q_jump(SCHEDULE, X, s, t).sample(NOISE)
        found = between(SCHEDULE, X, s, t, NOISE)
        assert np.allclose(found, expected), f"from {s} to {t}: how much noise is in x_{s} already?"


def answer_2(schedule, x_s, s, t, noise):
    alpha = schedule.alpha_bar[t] / schedule.alpha_bar[s]
    return alpha**0.5 * x_s + (1 - alpha) ** 0.5 * noise


def mistake_2(schedule, x_s, s, t, noise):
    alpha = schedule.alpha_bar[t] / schedule.alpha_bar[s]
    return alpha**0.5 * x_s + (1 - schedule.alpha_bar[t]) ** 0.5 * noise  # counts the noise in x_s twice


# ---- 3: the one noise that stands for all ----


def check_3(total):
    noises = np.random.default_rng(2).standard_normal((21, *X.shape))
    x = X
    for t in range(1, 21):
        x = td.q_step(SCHEDULE, x, t, noises[t])
        found = td.q_sample(SCHEDULE, X, t, total(SCHEDULE, noises, t))
        assert np.allclose(found, x), (
            f"a jump to {t} with your noise is not the walk: later steps shrink earlier noises"
        )


def answer_3(schedule, noises, t):
    total = 0 * noises[0]
    for s in range(1, t + 1):
        total = schedule.alpha[s] ** 0.5 * total + schedule.beta[s] ** 0.5 * noises[s]
    return total / schedule.one_minus_alpha_bar[t] ** 0.5


def mistake_3(schedule, noises, t):
    return noises[1 : t + 1].sum(axis=0) / t**0.5  # as if all noises weighed the same
