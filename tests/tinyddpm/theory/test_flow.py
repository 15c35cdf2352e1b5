"""The probability flow against closed forms: Gaussian data, and quantiles of a mixture."""

import itertools

import numpy as np
import pytest
from exact import COVARIANCE, any_data, cdf, hermite, quantile
from strategies import assert_close

from tinyddpm import Gaussian, NoiseSchedule, variational_bound
from tinyddpm.decoder import discretised_log_prob, log_bin_mass
from tinyddpm.reverse import reverse_process
from tinyddpm.samplers import ddim_encode, ddim_step
from tinyddpm.theory.continuous import at_log_snr, discretise, ideal_denoiser
from tinyddpm.theory.flow import (
    dequantised_nll,
    divergence,
    divergence_estimates,
    flow_log_prob,
    flow_log_prob_estimates,
    flow_velocity,
    noised_nll,
    probability_flow,
)
from tinyddpm.theory.log_snr import LinearLogSNR, signal_and_sigma
from tinyddpm.theory.mixture import finite_data, gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle

MEAN = np.array([0.7, -0.2, 0.1])
HIGH, LOW = 6.0, -8.0


def at_level(data, log_snr):
    """The law of x at this level of noise."""
    signal, sigma = signal_and_sigma(log_snr)
    return data.diffused(signal, sigma**2)


def test_e42_the_flow_of_gaussian_data_is_the_closed_form():
    # Along each axis of the covariance the flow stretches the distance to the mean like the deviation.
    data = gaussian_data(MEAN, COVARIANCE)
    x = np.random.default_rng(0).normal(size=(5, 3))
    ends = [at_level(data, level) for level in (HIGH, LOW)]
    stretch = (ends[1].variances / ends[0].variances) ** 0.5
    from_mean = stretch * ends[0].along_axes(x[:, None] - ends[0].mean())
    expected = ends[1].mean() + ends[0].from_axes(from_mean)[:, 0]
    assert_close(probability_flow(ideal_denoiser(data), x, HIGH, LOW, 400), expected, rtol=1e-9, scale=1.0)


def test_e42_the_likelihood_of_gaussian_data_is_the_closed_form():
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


def test_e42_the_error_falls_like_the_fourth_power_of_the_step():
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


def all_signs(d, shape):
    """Every vector of d signs: (2^d, *shape)."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=d))).reshape(-1, *shape)


def test_e42_random_signs_estimate_the_trace_of_the_jacobian_without_bias_and_with_known_variance():
    rng = np.random.default_rng(4)
    matrix, x = rng.normal(size=(4, 4)), rng.normal(size=(3, 2, 2))
    x[0, 0, 0] = 0

    def f(x):
        return (x.reshape(-1, 4) @ matrix.T).reshape(x.shape) + x**2

    exact = np.trace(matrix) + 2 * x.sum((1, 2))
    assert_close(divergence(f, x), exact, rtol=1e-9, scale=1.0)
    estimates = divergence_estimates(f, x, all_signs(4, (1, 2, 2)) + 0 * x)
    assert estimates.shape == (16, 3)
    assert_close(estimates.mean(0), exact, rtol=1e-9, scale=1.0)  # the mean over all signs is the expectation
    both_ways = np.triu(matrix + matrix.T, 1)
    assert_close(estimates.var(0), np.full(3, (both_ways**2).sum()), rtol=1e-8)


def test_e42_estimates_of_the_likelihood_are_unbiased_and_their_spread_is_the_error_of_each():
    data = gaussian_data(MEAN, COVARIANCE)
    x = np.random.default_rng(5).normal(size=(4, 3))
    denoise, end = ideal_denoiser(data), at_level(data, LOW).log_prob
    exact = flow_log_prob(denoise, x, HIGH, LOW, 20, end)
    every = flow_log_prob_estimates(denoise, x, HIGH, LOW, 20, all_signs(3, (1, 3)) + 0 * x, end)
    assert every.shape == (8, 4)
    assert_close(every.mean(0), exact, rtol=1e-8, scale=1.0)
    assert every.std(0).min() > 0.05
    signs = np.random.default_rng(6).choice([-1.0, 1.0], size=(60, 4, 3))
    drawn = flow_log_prob_estimates(denoise, x, HIGH, LOW, 20, signs, end)
    assert (abs(drawn.mean(0) - exact) < 4 * drawn.std(0) / 60**0.5).all()


def test_e42_a_model_of_integer_steps_has_a_likelihood_too():
    schedule, data = NoiseSchedule.linear(1000), gaussian_data(MEAN, COVARIANCE)
    oracle, x = Oracle(data, schedule), np.random.default_rng(7).normal(size=(3, 3))
    model, ends = at_log_snr(oracle.denoise, schedule), schedule.log_snr[[1, 1000]]
    found = flow_log_prob(model, x, *ends, 60, lambda x: oracle.log_prob(x, 1000))
    np.testing.assert_allclose(found, oracle.log_prob(x, 1), atol=0.05)


# ---- 8-bit data ----

LEVELS = 4  # few, so that all is a sum


def every_bin(n=400):
    """Each level (4n, 1), each with n noises spread evenly over its bin."""
    x0 = 2 * np.arange(LEVELS) / (LEVELS - 1) - 1
    return np.repeat(x0, n)[:, None], np.tile((np.arange(n) + 0.5) / n, LEVELS)[:, None]


def test_e42_the_dequantised_bound_is_above_the_mass_in_the_bin_and_meets_it_for_a_flat_density():
    x0, uniform = every_bin()
    p = Gaussian(np.full_like(x0, 0.2), 0.3)
    means = dequantised_nll(p.log_prob, x0, uniform, LEVELS).reshape(LEVELS, -1).mean(1)
    middle, half = x0[:: len(x0) // LEVELS], np.full((LEVELS, 1), 1 / 3)
    mass = log_bin_mass((middle - 0.2) / 0.3**0.5, half / 0.3**0.5)[:, 0]
    assert (means > -mass).all() and (means < -mass + 0.3).all()
    flat = dequantised_nll(lambda x: 0 * x[:, 0] - np.log(3.0), x0, uniform, LEVELS)
    assert_close(flat, np.full(len(x0), np.log(3.0) - np.log(2 / 3)))


def test_e42_on_data_of_few_levels_both_bounds_are_above_the_entropy():
    # The flow's bound by dequantisation, and E14's, of the ideal model of the same data between the same ends.
    weights, (high, low) = np.array([0.1, 0.2, 0.3, 0.4]), (3.0, -6.0)
    points = 2 * np.arange(LEVELS)[:, None] / (LEVELS - 1) - 1
    data, entropy = finite_data(points, weights), -(weights * np.log(weights)).sum()

    def flow(x):
        return flow_log_prob(ideal_denoiser(data), x, high, low, 100, at_level(data, low).log_prob)

    by_flow = dequantised_nll(flow, *every_bin(100), LEVELS).reshape(LEVELS, -1).mean(1) @ weights

    schedule = discretise(LinearLogSNR(high, low), 100)
    denoise, (z, rule) = Oracle(data, schedule).denoise, hermite()
    by_steps = 0.0
    for x0, weight in zip(points, weights, strict=True):
        bound = variational_bound(
            schedule,
            denoise,
            np.tile(x0, (len(z), 1)),
            lambda t: z,
            "beta",
            decoder=lambda p, x0: discretised_log_prob(p, x0, LEVELS),
        )
        by_steps += weight * (rule @ bound.total)
    assert_close([entropy, by_steps, by_flow], [1.27985, 1.32850, 1.34061], rtol=1e-5)


def test_e42_with_the_exact_posterior_every_noise_dequantises_without_loss():
    weights, (high, low) = np.array([0.1, 0.2, 0.3, 0.4]), (3.0, -6.0)
    points = 2 * np.arange(LEVELS)[:, None] / (LEVELS - 1) - 1
    data, rng = finite_data(points, weights), np.random.default_rng(0)
    signal, sigma = signal_and_sigma(high)

    def flow(x):
        return flow_log_prob(ideal_denoiser(data), x, high, low, 200, at_level(data, low).log_prob)

    for _ in range(5):
        noise = rng.standard_normal((LEVELS, 1))
        z = signal * points + sigma * noise
        posterior = np.log(weights) + Gaussian(signal * points, sigma**2).log_prob(z) - at_level(data, high).log_prob(z)
        assert_close(noised_nll(flow, points, high, noise) - posterior, -np.log(weights), rtol=1e-6, scale=1.0)


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


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda f, x: probability_flow(f, x, 1.0, 0.0, 0), ValueError, "steps must be an integer of at least 1, got 0"),
        (lambda f, x: probability_flow(f, x, 1.0, 0.0, 2.5), ValueError, "steps must be an integer"),
        (lambda f, x: probability_flow(f, x, np.inf, 0.0, 1), ValueError, "must be finite, got start inf"),
        (lambda f, x: probability_flow(f, x / 0, 1.0, 0.0, 1), ValueError, "must be finite"),
        (lambda f, x: probability_flow(f, x.astype(int), 1.0, 0.0, 1), TypeError, "x must be a floating-point array"),
        (lambda f, x: probability_flow(lambda x, level: x[:, :1], x, 1.0, 0.0, 1), ValueError, "x0_hat must have"),
        (lambda f, x: divergence_estimates(f, x, x), ValueError, "a probe must have the shape of x"),
        (lambda f, x: dequantised_nll(f, x, x + 2), ValueError, r"uniform must lie in \[0, 1\), got 3.0..3.0"),
        (lambda f, x: dequantised_nll(f, x, x[:1]), ValueError, "uniform must have the shape of x0"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, error, named):
    with np.errstate(divide="ignore"), pytest.raises(error, match=named):
        call(lambda x, level: x, np.ones((2, 3)))


def test_levels_given_as_small_integers_are_numbers():
    x = np.ones((2, 3))
    found = probability_flow(lambda x, level: 0 * x, x, np.uint8(1), np.uint8(3), np.uint8(200))
    assert_close(found, probability_flow(lambda x, level: 0 * x, x, 1.0, 3.0, 200))
