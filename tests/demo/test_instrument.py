"""The instruments of lesson 11 against what is known exactly on Gaussian data."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

import nn
import tinyddpm as td
from tinyddpm.prediction import x0_from_score
from tinyddpm.samplers import ddim_encode
from tinyddpm.theory.mixture import gaussian_data
from tinyddpm.theory.oracle import Oracle, guided_variances

LEARN = Path(__file__).resolve().parents[2] / "demo" / "learn"
COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])
SEEN = np.array([True, False])


@pytest.fixture(scope="module")
def instrument():
    sys.path.insert(0, str(LEARN))
    try:
        import instrument
    finally:
        sys.path.remove(str(LEARN))
    return instrument


def inpainted(instrument, schedule, repeats, value=1.5):
    """The exact mean and variance of the missing element, and those of the exact conditional."""
    data = gaussian_data([0.0, 0.0], COVARIANCE)
    oracle = Oracle(data, schedule)

    def method(draw):
        x_T = draw()
        step = instrument.inpainting(np.full_like(x_T, value), SEEN, draw, repeats, "beta")
        return td.sample(oracle.denoise, schedule, x_T, lambda t: None, step)

    mean, covariance = instrument.law_of(method, 2)
    exact = data.given_part(SEEN, [value])
    assert mean[0] == value and covariance[0, 0] == 0  # what was seen stays
    return mean[1], covariance[1, 1], exact.mean()[0], exact.covariance()[0, 0]


def test_e40_resampling_brings_inpainting_near_the_exact_conditional(instrument):
    schedule = td.NoiseSchedule.cosine(20)
    once, often = (inpainted(instrument, schedule, repeats) for repeats in (1, 20))
    mean, variance = often[2:]
    assert (mean, variance) == (pytest.approx(0.8 * 1.5), pytest.approx(1 - 0.8**2))
    assert once[:2] == (
        pytest.approx(0.708, abs=1e-3),
        pytest.approx(0.529, abs=1e-3),
    )  # the seen value is felt too little
    assert often[:2] == (pytest.approx(mean, rel=0.05), pytest.approx(variance, rel=0.06))


def test_the_law_of_a_method_is_read_off_exactly(instrument):
    matrix = np.array([[1.0, 2.0], [0.0, 3.0]])
    mean, covariance = instrument.law_of(lambda draw: draw() @ matrix + 2 * draw() + 5.0, 2)
    np.testing.assert_allclose(mean, 5.0)
    np.testing.assert_allclose(covariance, matrix.T @ matrix + 4 * np.eye(2))


def test_a_great_circle_keeps_lengths_and_divides_the_angle(instrument):
    a, b = np.array([[3.0, 0.0]]), np.array([[0.0, 3.0]])
    for weight in (0, 0.25, 0.5, 1):
        angle = weight * np.pi / 2
        np.testing.assert_allclose(instrument.slerp(a, b, weight), [[3 * np.cos(angle), 3 * np.sin(angle)]], atol=1e-12)
    np.testing.assert_allclose(instrument.slerp(a, a, 0.3), a, rtol=1e-6)


def test_e30_an_interpolation_of_gaussian_data_is_the_great_circle_of_the_data(instrument):
    """The flow of N(0, V) scales: so codes are the data scaled, and what is decoded is on the circle of the data."""
    schedule = td.NoiseSchedule.cosine(250)
    oracle = Oracle(gaussian_data(np.zeros(3), 0.25), schedule)
    a, b = np.random.default_rng(0).standard_normal((2, 4, 3)) / 2
    found = instrument.interpolate(oracle.denoise, schedule, a, b, (0, 0.3, 1))
    for x, weight in zip(found, (0, 0.3, 1), strict=True):
        np.testing.assert_allclose(x, instrument.slerp(a, b, weight), rtol=0.02, atol=0.01)
    np.testing.assert_allclose(ddim_encode(oracle.denoise, schedule, a), 2 * a, rtol=0.02)  # of variance 1


def test_e2_a_mixture_at_t_is_the_mixture_noised_to_t(instrument):
    schedule = td.NoiseSchedule.cosine(50)
    oracle = Oracle(gaussian_data(np.zeros(2), 0.25), schedule)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 2))
    noises = rng.standard_normal((52, 3, 2))
    found = instrument.interpolate_at(oracle.denoise, schedule, a, b, (0.3,), 20, noises.__getitem__)[0]
    x = td.q_sample(schedule, 0.7 * a + 0.3 * b, 20, noises[51])  # the variance of its noise is that of the schedule
    for t in range(20, 0, -1):
        p = td.ancestral_step(oracle.denoise, schedule, x, t)
        x = p.sample(noises[t]) if t > 1 else p.mean
    np.testing.assert_allclose(found, x, rtol=1e-12)


def test_e39_inside_the_interval_the_density_is_guided_and_outside_it_is_the_class(instrument):
    schedule, scale = td.NoiseSchedule.linear(100), 3.0
    null, conditional = (Oracle(gaussian_data([0.0], V), schedule) for V in (1.0, 0.1))
    guided, _ = guided_variances(schedule, 1.0, 0.1, scale)
    of_class, _ = guided_variances(schedule, 1.0, 0.1, 1.0)
    x = np.array([[0.5], [-2.0]])

    def inside(xt, t):
        return td.prediction.guided(null.denoise(xt, t), conditional.denoise(xt, t), scale)

    model = td.prediction.between(inside, conditional.denoise, 30, 60)
    for t in (1, 29, 30, 45, 60, 61, 100):
        variance = (guided if 30 <= t <= 60 else of_class)[t]
        np.testing.assert_allclose(model(x, t), x0_from_score(schedule, -x / variance, x, t), rtol=1e-9, atol=1e-12)


def test_a_narrow_model_is_precise_and_recalls_little(instrument):
    rng = np.random.default_rng(0)
    real, like_it = rng.standard_normal((2, 500, 2))
    precision, recall = instrument.precision_recall(real, like_it)
    assert precision > 0.9 and recall > 0.9
    precision, recall = instrument.precision_recall(real, like_it / 4)
    assert precision > 0.95 and recall < 0.4
    assert instrument.precision_recall(real, like_it + 20) == (0, 0)


def test_e41_progressive_coding_of_gaussian_data_has_the_rate_and_distortion_of_the_closed_form(instrument):
    schedule, V, n = td.NoiseSchedule.cosine(30), 0.25, 20_000
    oracle = Oracle(gaussian_data([0.0], V), schedule)
    rng = np.random.default_rng(0)
    x0 = V**0.5 * rng.standard_normal((n, 1))
    left = V * schedule.one_minus_alpha_bar / (schedule.alpha_bar * V + schedule.one_minus_alpha_bar)  # Var x_0 | x_t
    rate = (schedule.alpha_bar[-1] * (V - 1) - schedule.log_one_minus_alpha_bar[-1]) / 2
    steps = []
    parts = instrument.progressive(
        oracle.denoise, schedule, x0, lambda t: rng.standard_normal((n, 1)), decoder=td.Gaussian.log_prob
    )
    for t, nats, x0_hat in itertools.takewhile(lambda part: part[0] > 0, parts):
        assert nats.mean() == pytest.approx(rate, rel=0.05, abs=1e-4)
        assert ((x0 - x0_hat) ** 2).mean() == pytest.approx(left[t], rel=0.05)
        rate += (schedule.snr[t - 1] - schedule.snr[t]) / 2 * left[t] if t > 1 else 0
        steps.append(t)
    assert steps == list(range(30, 0, -1))


class Affine(nn.Module):
    """What the best model of Gaussian data is at one t: an affine function of all it sees."""

    def __init__(self):
        self.linear = nn.Linear(3, 3, rng=np.random.default_rng(0))

    def __call__(self, x, t):
        return self.linear(x)


def test_e40_what_is_learned_with_a_condition_is_the_exact_conditional_mean(instrument):
    """x_0 of two elements, the condition their mean, as of a small image: E[x_0 | x_1, condition] is affine."""
    schedule = td.NoiseSchedule.constant(1, 0.5)
    root = np.linalg.cholesky(COVARIANCE)

    def pairs(rng, n):
        x0 = (rng.standard_normal((n, 2)) @ root.T).astype(np.float32)
        return x0, x0.mean(axis=1, keepdims=True)

    network = instrument.Conditioned(Affine())
    losses = instrument.learn(network, schedule, pairs, 400, batch=64, learning_rate=0.05, workers=1)
    assert np.mean(losses[-50:]) < losses[0]

    x0, condition = pairs(np.random.default_rng(1), 5)
    xt = td.q_sample(schedule, x0, 1, np.random.default_rng(2).standard_normal(x0.shape, dtype=np.float32))
    seen = np.array([[0.5**0.5, 0], [0, 0.5**0.5], [0.5, 0.5]])  # x_1 and the condition, from x_0
    noise = np.diag([0.5, 0.5, 0.0])
    gain = COVARIANCE @ seen.T @ np.linalg.inv(seen @ COVARIANCE @ seen.T + noise)
    expected = np.concatenate([xt, condition], axis=1) @ gain.T
    found = instrument.conditioned_denoiser(network, schedule, condition)(xt, 1)
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_a_small_image_is_shown_at_the_size_of_the_large_one(instrument):
    x = np.arange(4.0).reshape(1, 2, 2, 1)
    assert instrument.enlarged(x)[0, :, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_e41_all_that_is_sent_is_the_bound(instrument):
    """Its last part is L_0, by the decoder; the mean of x_0 given x_1 is x0_hat. (E14, E21)"""
    schedule, rng = td.NoiseSchedule.cosine(30), np.random.default_rng(0)
    oracle, x0 = Oracle(gaussian_data([0.0], 0.25), schedule), rng.standard_normal((5, 1)) / 2
    send = instrument.progressive
    *_, (_, nats, x0_hat), (t, total, received) = send(
        oracle.denoise, schedule, x0, lambda t: rng.standard_normal((5, 1)), decoder=td.Gaussian.log_prob
    )
    L_0 = ((x0 - x0_hat)[:, 0] ** 2 / schedule.beta_tilde[2] + np.log(2 * np.pi * schedule.beta_tilde[2])) / 2
    np.testing.assert_allclose(total, nats + L_0, rtol=1e-12)
    assert t == 0 and received is x0
