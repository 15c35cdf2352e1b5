"""The exercises of lesson 11: for each a check, an answer, and the mistake most often made."""

import numpy as np

import tinyddpm as td

SCHEDULE = td.NoiseSchedule.linear(20)


# ---- 1: what is seen ----


def check_1(replaced):
    x0, x_prev, noise = np.random.default_rng(1).standard_normal((3, 4, 3))
    seen = np.array([True, False, True])
    for t in (1, 2, 20):
        found = replaced(SCHEDULE, x0, x_prev, seen, t, noise)
        assert np.allclose(found[:, ~seen], x_prev[:, ~seen]), "what is missing stays as the model drew it"
        expected = td.q_sample(SCHEDULE, x0, t - 1, noise)
        assert np.allclose(found[:, seen], expected[:, seen]), f"at t = {t}: the result is x_{t - 1}"


def answer_1(schedule, x0, x_prev, seen, t, noise):
    return np.where(seen, td.q_sample(schedule, x0, t - 1, noise), x_prev)


def mistake_1(schedule, x0, x_prev, seen, t, noise):
    return np.where(seen, td.q_sample(schedule, x0, t, noise), x_prev)  # as noisy as before the step


# ---- 2: between two codes ----


def check_2(great_circle):
    a, b = np.array([2.0, 0.0]), np.array([1.0, 3**0.5])  # both of length 2, 60 degrees apart
    for weight in (0, 0.5, 1):
        angle = weight * np.pi / 3
        expected = [2 * np.cos(angle), 2 * np.sin(angle)]
        found = great_circle(a, b, weight)
        assert np.allclose(found, expected), f"at {weight} it is {found}, of length {np.linalg.norm(found):.2f}"


def answer_2(a, b, weight):
    angle = np.arccos(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return (np.sin((1 - weight) * angle) * a + np.sin(weight * angle) * b) / np.sin(angle)


def mistake_2(a, b, weight):
    return (1 - weight) * a + weight * b  # on the chord, which is shorter


# ---- 3: a guided density ----


def check_3(guided_variance):
    assert np.isclose(guided_variance(1.0, 0.1, 0), 1.0), "s = 0 is the model without a label"
    assert np.isclose(guided_variance(1.0, 0.1, 1), 0.1), "s = 1 is that with one"
    found = guided_variance(1.0, 0.1, 3)
    assert np.isclose(found, 1 / 28), f"{found} where it is 1/28: the score of N(0, V) is -x/V, so precisions are mixed"


def answer_3(V, V_c, s):
    return 1 / (s / V_c + (1 - s) / V)


def mistake_3(V, V_c, s):
    return V + s * (V_c - V)  # negative at s = 3
