"""The exercises of lesson 6: for each a check, an answer, and the mistake most often made."""

import numpy as np

import tinyddpm as td

SCHEDULE = td.NoiseSchedule.cosine(20)
X, NOISE = np.random.default_rng(1).standard_normal((2, 5, 2))


# ---- 1: the target ----


def check_1(v_target):
    t = np.array([1, 3, 10, 19, 20])
    xt = td.q_sample(SCHEDULE, X, t, NOISE)
    found = v_target(SCHEDULE.alpha_bar, X, NOISE, t)
    assert np.shape(found) == X.shape, f"v is like x_0, {X.shape}, and yours is {np.shape(found)}"
    expected = td.convert(SCHEDULE, NOISE, xt, t, "eps", "v")
    assert np.allclose(found, expected), "not v = signal eps - noise x_0: are signal and noise roots of variances?"


def answer_1(alpha_bar, x0, noise, t):
    alpha_bar = alpha_bar[t][:, None]
    return alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * x0


def mistake_1(alpha_bar, x0, noise, t):
    alpha_bar = alpha_bar[t][:, None]
    return alpha_bar**0.5 * x0 - (1 - alpha_bar) ** 0.5 * noise  # x_0 and noise exchanged


# ---- 2: which t ----


def check_2(timesteps):
    t = timesteps(np.random.default_rng(2), 40_000, 4)
    assert t.shape == (40_000,) and t.dtype.kind in "iu", "n integers"
    assert t.min() == 1 and t.max() == 4, f"t is in 1..T, and yours in {t.min()}..{t.max()}: t = 0 is the data"
    assert abs(np.bincount(t)[1:] / 10_000 - 1).max() < 0.05, "each t equally often"


def answer_2(rng, n, T):
    return rng.integers(1, T + 1, size=n)


def mistake_2(rng, n, T):
    return rng.integers(0, T, size=n)  # as in codes whose t starts at 0


# ---- 3: how far apart are two sets of points ----


def check_3(energy_distance):
    x, y = np.array([[0.0, 0.0], [0.0, 2.0]]), np.array([[3.0, 0.0]])
    assert np.isclose(energy_distance(x, x), 0), "a set is at the distance 0 from itself"
    expected = 2 * (3 + 13**0.5) / 2 - 2 / 2 - 0
    found = energy_distance(x, y)
    assert np.isclose(found, expected), (
        f"{found} where it is {expected}: |x - y| is a Euclidean distance, all pairs count"
    )


def answer_3(x, y):
    def mean_distance(a, b):
        return np.linalg.norm(a[:, None] - b, axis=-1).mean()

    return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)


def mistake_3(x, y):
    def mean_distance(a, b):
        return ((a[:, None] - b) ** 2).sum(-1).mean()  # squares: they see the two means and nothing else

    return 2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)
