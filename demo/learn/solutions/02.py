"""The exercises of lesson 2: for each a check, an answer, and the mistake most often made."""

import numpy as np

import tinyddpm as td

SCHEDULE = td.NoiseSchedule.linear(40)


# ---- 1: the cosine schedule ----


def check_1(cosine):
    for T, s in ((10, 0.008), (100, 0.02)):
        alpha_bar = np.asarray(cosine(T, s))
        assert len(alpha_bar) == T + 1 and alpha_bar[0] == 1, "alpha_bar_0 is 1: the data have no noise"
        expected = td.NoiseSchedule.cosine(T, s).alpha_bar
        assert np.allclose(alpha_bar[:T], expected[:T]), f"not the cosine schedule of {T} steps"


def answer_1(T, s):
    cos2 = np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
    return cos2 / cos2[0]


def mistake_1(T, s):
    return np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2  # starts below 1


# ---- 2: betas of fewer steps ----


def check_2(respaced_beta):
    for kept in ([40], [5, 6, 30], list(range(1, 41))):
        found, expected = respaced_beta(SCHEDULE, kept), SCHEDULE.respace(kept).beta[1:]
        assert np.allclose(found, expected), f"of the steps {kept}: one step must add the noise of all between"


def answer_2(schedule, kept):
    alpha_bar = schedule.alpha_bar[[0, *kept]]
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


def mistake_2(schedule, kept):
    return schedule.beta[kept]


# ---- 3: a log-SNR on a line ----


def check_3(on_a_line):
    schedule = td.NoiseSchedule.from_alpha_bar(on_a_line(6.0, -9.0, 31))
    found = schedule.log_snr[[1, 16, 31]]
    assert np.allclose(found, [6.0, -1.5, -9.0]), f"the log-SNR is {found} at t = 1, 16 and 31, not 6, -1.5 and -9"


def answer_3(high, low, T):
    return 1 / (1 + np.exp(-np.linspace(high, low, T)))


def mistake_3(high, low, T):
    return 1 / (1 + np.exp(-np.linspace(high, low, T) / 2))  # SNR is a ratio of variances, not of amplitudes
