"""The probability flow against closed forms: Gaussian data, and quantiles of a mixture."""

import numpy as np
import pytest
from exact import COVARIANCE, any_data, cdf, quantile
from strategies import assert_close

from tinyddpm import Gaussian, NoiseSchedule
from tinyddpm.reverse import ddim_encode, ddim_step, reverse_process
from tinyddpm.theory.continuous import ideal_denoiser
from tinyddpm.theory.flow import divergence, flow_log_prob, flow_velocity, probability_flow
from tinyddpm.theory.log_snr import signal_and_sigma
from tinyddpm.theory.mixture import gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle

MEAN = np.array([0.7, -0.2, 0.1])
HIGH, LOW = 6.0, -8.0


def at_level(data, log_snr):
    """The law of x at this level of noise."""
    signal, sigma = signal_and_sigma(log_snr)
    return data.diffused(signal, sigma**2)


def test_the_flow_of_gaussian_data_is_the_closed_form():
    # Along each axis of the covariance the flow stretches the distance to the mean like the deviation.
    data = gaussian_data(MEAN, COVARIANCE)
    x = np.random.default_rng(0).normal(size=(5, 3))
    ends = [at_level(data, level) for level in (HIGH, LOW)]
    stretch = (ends[1].variances / ends[0].variances) ** 0.5
    from_mean = stretch * ends[0].along_axes(x[:, None] - ends[0].mean())
    expected = ends[1].mean() + ends[0].from_axes(from_mean)[:, 0]
    assert_close(probability_flow(ideal_denoiser(data), x, HIGH, LOW, 400), expected, rtol=1e-9, scale=1.0)


def test_the_likelihood_of_gaussian_data_is_the_closed_form():
    data = gaussian_data(MEAN, COVARIANCE)
    x = np.random.default_rng(1).normal(size=(5, 3))
    denoise, end = ideal_denoiser(data), at_level(data, LOW)
    found = flow_log_prob(denoise, x, HIGH, LOW, 400, log_prob=end.log_prob)
    assert_close(found, at_level(data, HIGH).log_prob(x), rtol=1e-9, scale=1.0)


def test_by_default_the_flow_ends_in_the_standard_normal():
    data = gaussian_data(MEAN, COVARIANCE)
    x = np.random.default_rng(2).normal(size=(5, 3))
    denoise, end = ideal_denoiser(data), at_level(data, LOW)
    x_end = probability_flow(denoise, x, HIGH, LOW, 50)
    difference = Gaussian(0 * x_end, 1.0).log_prob(x_end) - end.log_prob(x_end)
    found = [flow_log_prob(denoise, x, HIGH, LOW, 50, *log_prob) for log_prob in ((), (end.log_prob,))]
    assert_close(found[0] - found[1], difference, rtol=1e-9, scale=1.0)
    assert 1e-4 < abs(difference).max() < 0.1  # the prior term: small, not zero


def test_the_error_falls_like_the_fourth_power_of_the_step():
    data = mixture_data([0.3, 0.7], [[-1.0], [0.5]], [[0.1], [0.2]])
    x = np.linspace(-1.5, 1.5, 9)[:, None]
    truth, end = at_level(data, HIGH).log_prob(x), at_level(data, LOW).log_prob
    found = [flow_log_prob(ideal_denoiser(data), x, HIGH, LOW, steps, end) for steps in (50, 100, 200)]
    errors = [abs(f - truth).max() for f in found]
    assert errors[-1] < 1e-7
    assert 12 < errors[0] / errors[1] < 20 and 12 < errors[1] / errors[2] < 20


def test_on_a_mixture_the_flow_carries_quantiles_to_quantiles_there_and_back():
    data = mixture_data([0.3, 0.7], [[-1.0], [0.5]], [[0.1], [0.2]])
    x = quantile(at_level(data, HIGH), np.linspace(0.05, 0.95, 7))[:, None]
    x_end = probability_flow(ideal_denoiser(data), x, HIGH, LOW, 400)
    assert_close(cdf(at_level(data, LOW), x_end[:, 0]), np.linspace(0.05, 0.95, 7), rtol=1e-7)
    assert_close(probability_flow(ideal_denoiser(data), x_end, LOW, HIGH, 400), x, rtol=1e-7, scale=1.0)


def test_e30_ddim_encoding_follows_the_flow():
    data = mixture_data([0.3, 0.7], [[-1.0], [0.5]], [[0.1], [0.2]])
    schedule = NoiseSchedule.from_alpha_bar(1 / (1 + np.exp(np.linspace(-HIGH, -LOW, 801))))
    oracle = Oracle(data, schedule)
    x = np.linspace(-1.5, 1.5, 7)[:, None]
    x_T = probability_flow(ideal_denoiser(data), x, HIGH, LOW, 100)
    walk = reverse_process(oracle.denoise, schedule, x_T, None, ddim_step)
    x1 = next(x for t, x, _ in walk if t == 2)
    assert abs(x1 - x).max() < 0.02
    assert abs(ddim_encode(oracle.denoise, schedule, x) - x_T).max() < 0.05


def test_the_velocity_moves_the_marginal_density_as_the_continuity_equation_says():
    # d log q/dt + v . score + div v = 0, by finite differences in the level.
    rng = np.random.default_rng(3)
    data = any_data(rng, "mixture")
    x, level, h = rng.normal(size=(6, 3)), 0.3, 1e-5
    here, later, earlier = (at_level(data, level + step) for step in (0, h, -h))
    change = (later.log_prob(x) - earlier.log_prob(x)) / (2 * h)

    def velocity(x):
        return flow_velocity(ideal_denoiser(data), x, level)

    flux = (velocity(x) * here.score(x)).sum(1) + divergence(velocity, x)
    assert_close(change, -flux, rtol=1e-7, scale=1.0)


def test_divergence_is_the_trace_of_the_jacobian_and_random_probes_estimate_it():
    rng = np.random.default_rng(4)
    matrix, x = rng.normal(size=(4, 4)), rng.normal(size=(3, 2, 2))
    x[0, 0, 0] = 0

    def f(x):
        return (x.reshape(-1, 4) @ matrix.T).reshape(x.shape) + x**2

    exact = np.trace(matrix) + 2 * x.sum((1, 2))
    assert_close(divergence(f, x), exact, rtol=1e-9, scale=1.0)
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, 16).T.reshape(16, 1, 2, 2)
    assert_close(divergence(f, x, signs), exact, rtol=1e-9, scale=1.0)  # the mean over all signs is exact
    assert abs(divergence(f, x, signs[:1]) - exact).max() > 0.1


def test_float32_stays_float32():
    x = np.ones((2, 3), np.float32)
    denoise = ideal_denoiser(gaussian_data(MEAN, COVARIANCE))

    def model(x, log_snr):
        return denoise(x.astype(float), log_snr).astype(np.float32)

    assert probability_flow(model, x, 2.0, -2.0, 3).dtype == np.float32
    found = flow_log_prob(model, x, np.float64(2.0), np.float64(-2.0), 20)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, flow_log_prob(denoise, x.astype(float), 2.0, -2.0, 20), rtol=1e-3)


def test_one_step_is_a_step():
    x = np.ones((2, 3))
    halved = probability_flow(lambda x, level: 0 * x, x, 0.0, -1e-3, 1)
    assert_close(halved, x * np.exp(0.25e-3), rtol=1e-6)  # dx/dl = -x/4 at l = 0


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        probability_flow(lambda x, level: x, np.ones((1, 1)), 1.0, 0.0, 0)
