"""The exercises of lesson 13: for each a check, an answer, and the mistake most often made."""

import numpy as np

import tinyddpm as td
from tinyddpm.theory import bound_forms as forms

SCHEDULE = td.NoiseSchedule.linear(10)


# ---- 1: the path form ----


def check_1(path_bound):
    rng = np.random.default_rng(1)
    diffusion = forms.gaussian_diffusion(SCHEDULE)
    path = forms.q_path(diffusion, rng.standard_normal((4, 3)), lambda t: rng.standard_normal((4, 3)))
    reverse = forms.reverse_model(SCHEDULE, lambda xt, t: 0.5 * xt, "beta")
    found, expected = path_bound(SCHEDULE, reverse, path), forms.path_form(diffusion, reverse, path)
    assert np.allclose(found, expected), "not log q - log p of the path: every step has both, and x_T has a prior"


def answer_1(schedule, reverse, path):
    total = -td.Gaussian(0.0, 1.0).log_prob(path[-1])
    for t in range(1, schedule.T + 1):
        total += td.q_transition(schedule, path[t - 1], t).log_prob(path[t]) - reverse(path[t], t).log_prob(path[t - 1])
    return total


def mistake_1(schedule, reverse, path):
    total = 0.0  # without the prior
    for t in range(1, schedule.T + 1):
        total += td.q_transition(schedule, path[t - 1], t).log_prob(path[t]) - reverse(path[t], t).log_prob(path[t - 1])
    return total


# ---- 2: timesteps evenly spaced ----


def check_2(stratified):
    for T, n in ((10, 5), (7, 3)):
        found = np.array([stratified(T, n, u) for u in (np.arange(2100) + 0.5) / 2100])
        assert found.min() == 1 and found.max() == T, f"the steps are 1..{T}, not {found.min()}..{found.max()}"
        counts = np.bincount(found.ravel(), minlength=T + 1)[1:] / found.size
        assert np.allclose(counts, 1 / T, atol=2e-3), "some steps are drawn more often than others"
        rows = found[:, :, None] == np.arange(1, T + 1)
        assert rows.sum(axis=1).max() <= -(-n // T) + 1 and (np.diff(np.sort(found, axis=1)) > 0).all(), (
            "not spread evenly"
        )


def answer_2(T, n, u):
    return 1 + np.floor(T * ((u + np.arange(n) / n) % 1)).astype(int)


def mistake_2(T, n, u):
    return np.floor(T * ((u + np.arange(n) / n) % 1)).astype(int)  # 0..T-1


# ---- 3: importance ----


def check_3(importance_mean):
    values, p = np.array([0.0, 1.0, 2.0, 9.0]), np.array([0.0, 0.2, 0.3, 0.5])
    mean = sum(p[t] * importance_mean(values, p, np.array([t])) for t in (1, 2, 3))
    assert np.isclose(mean, 4.0), f"the estimate has the mean {mean}, the table 4: a step drawn often counts for less"
    both = importance_mean(values, p, np.array([1, 3]))
    alone = [importance_mean(values, p, np.array([t])) for t in (1, 3)]
    assert np.isclose(both, np.mean(alone)), "several draws are averaged"


def answer_3(values, p, t):
    return np.mean(values[t] / ((len(p) - 1) * p[t]))


def mistake_3(values, p, t):
    return np.mean(values[t])  # biased to what is drawn often
