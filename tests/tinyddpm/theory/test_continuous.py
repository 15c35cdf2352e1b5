"""The loss in continuous time knows the ends of its schedule only; its variance knows the rest. (E35)"""

import numpy as np
import pytest
from exact import cubature, hermite
from strategies import assert_close

import nn
from tinyddpm import Gaussian, NoiseSchedule, q_posterior, sample
from tinyddpm.bound import denoising_term, prior_term, reconstruction_term
from tinyddpm.theory.continuous import (
    at_log_snr,
    at_step,
    diffusion_loss,
    discretise,
    eps_denoiser,
    eps_loss,
    ideal_denoiser,
    network_time,
    prior_loss,
    q_sample,
    reconstruction_loss,
    reverse_step,
    stratified_times,
    vdm_bound,
)
from tinyddpm.theory.log_snr import CosineLogSNR, LearnedLogSNR, LinearLogSNR, signal_and_sigma
from tinyddpm.theory.mixture import finite_data, gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle

HIGH, LOW = 6.0, -7.0
PIECES = LearnedLogSNR(HIGH, LOW, np.array([1.0, -3.0, 0.5, 2.0]))
SCHEDULES = [LinearLogSNR(HIGH, LOW), CosineLogSNR(HIGH, LOW), PIECES]


# ---- the loss: its mean over u by Gauss-Legendre, piece by piece ----


def times(pieces=4, n=20):
    points, rule = np.polynomial.legendre.leggauss(n)
    u = ((points + 1) / 2 + np.arange(pieces)[:, None]) / pieces
    return u.reshape(-1), np.tile(rule / 2 / pieces, pieces)


def mean_loss(schedule, denoise, x0, noise, weight):
    """The mean of diffusion_loss over u, and over x_0 and noise (M, d) with weights (M,)."""
    return sum(
        rule * (weight @ diffusion_loss(schedule, denoise, x0, np.full(len(x0), u), noise))
        for u, rule in zip(*times(), strict=True)
    )


def mixture_nodes(data):
    """x_0, noise and weights of a quadrature over a one-dimensional mixture and the noise."""
    z, rule = hermite(48)
    x0 = (data.means[:, 0] + data.variances[:, 0] ** 0.5 * z).reshape(-1)
    share = (np.exp(data.log_weights) * rule[:, None]).reshape(-1)
    return np.repeat(x0, len(z))[:, None], np.tile(z, (len(x0), 1)), np.outer(share, rule).reshape(-1)


def guess(z, log_snr):
    """Some model that is far from ideal."""
    return np.tanh(z) * (0.5 + 0.1 * np.sin(log_snr))[:, None]


@pytest.mark.parametrize("model", ["ideal", "guess"])
def test_e35_the_mean_is_the_same_for_all_schedules_between_the_same_ends(model):
    data = mixture_data([0.3, 0.7], [[-0.6], [0.4]], [[0.1], [0.2]])
    denoise = ideal_denoiser(data) if model == "ideal" else guess
    means = [mean_loss(schedule, denoise, *mixture_nodes(data)) for schedule in SCHEDULES]
    assert_close(means, np.full(3, means[0]), rtol=1e-9)
    other_end = mean_loss(LinearLogSNR(HIGH + 0.1, LOW), denoise, *mixture_nodes(data))
    assert abs(other_end - means[0]) > 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("data_variance", [0.04, 1.0, 3.0])
def test_e35_on_gaussian_data_the_mean_is_half_a_log_ratio_a_dimension(schedule, data_variance):
    # SNR E||x_0 - x0_hat||^2 = sigmoid(log_snr + log s^2) a dimension, which integrates to a softplus.
    x0, noise = np.split(cubature(6), 2, axis=1)
    denoise = ideal_denoiser(gaussian_data(np.zeros(3), data_variance))
    found = mean_loss(schedule, denoise, x0 * data_variance**0.5, noise, np.full(12, 1 / 12))
    expected = 1.5 * np.log((1 + data_variance * np.exp(HIGH)) / (1 + data_variance * np.exp(LOW)))
    assert_close(found, expected, rtol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_e35_the_whole_bound_is_entropy_plus_prior_term_plus_the_excess_of_the_last_step(schedule):
    s2 = 0.25
    x0, noise = np.split(cubature(2), 2, axis=1)
    x0, denoise = x0 * s2**0.5, ideal_denoiser(gaussian_data([0.0], s2))
    total = mean_loss(schedule, denoise, x0, noise, np.full(4, 1 / 4)) + prior_loss(schedule, x0).mean()
    total += reconstruction_loss(schedule, denoise, x0, noise).mean()
    signal, sigma = signal_and_sigma(LOW)
    last = Gaussian(0.0, signal**2 * s2 + sigma**2)
    ratio = s2 * np.exp(HIGH) / (1 + s2 * np.exp(HIGH))  # exact variance of x_0 given z over the decoder's
    expected = (np.log(2 * np.pi * np.e * s2) + ratio - 1 - np.log(ratio)) / 2 + last.kl(Gaussian(0.0, 1.0))
    assert_close(total, expected, rtol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_e35_the_vdm_bound_is_the_sum_of_its_three_terms_each_with_its_own_noise(schedule):
    rng = np.random.default_rng(3)
    x0, noise, noise_0 = rng.normal(size=(3, 4, 2))
    u, denoise = rng.uniform(size=4), ideal_denoiser(gaussian_data(np.zeros(2), 0.5))
    found = vdm_bound(schedule, denoise, x0, u, noise, noise_0)
    terms = diffusion_loss(schedule, denoise, x0, u, noise), prior_loss(schedule, x0)
    assert_close(found, terms[0] + terms[1] + reconstruction_loss(schedule, denoise, x0, noise_0))
    unit = vdm_bound(schedule, denoise, x0, u, noise, noise_0, decoder=lambda p, x0: np.full(4, 7.0))
    assert_close(unit, terms[0] + terms[1] - 7.0, scale=10.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_e35_in_eps_the_loss_has_no_snr_in_its_weight(schedule):
    rng = np.random.default_rng(4)
    x0, noise, eps_hat = rng.normal(size=(3, 5, 2, 2))
    u = rng.uniform(size=5)

    def network(z, time):
        assert_close(z, q_sample(x0, schedule(u), noise))
        assert_close(time, network_time(schedule(u), HIGH, LOW))
        return eps_hat

    in_x0 = diffusion_loss(schedule, eps_denoiser(network, HIGH, LOW), x0, u, noise)
    in_eps = eps_loss(schedule, u, noise, eps_hat)
    assert_close(in_x0, in_eps, rtol=1e-9)
    by_hand = -schedule.slope(u) / 2 * ((noise - eps_hat) ** 2).sum((1, 2))
    assert_close(in_eps, by_hand)


def test_a_network_is_told_0_at_the_cleanest_and_1_at_the_noisiest_level_each_sample_its_own():
    times = []

    def network(z, time):
        times.append(time)
        return 0 * z

    denoise = eps_denoiser(network, HIGH, LOW)
    z = np.ones((3, 2), np.float32)
    for log_snr in (HIGH, LOW, np.array([HIGH, 0.0, LOW])):
        assert denoise(z, log_snr).dtype == np.float32
    np.testing.assert_array_equal(times[0], [0, 0, 0])
    np.testing.assert_array_equal(times[1], [1, 1, 1])
    assert_close(times[2], [0, HIGH / (HIGH - LOW), 1])


def test_e36_stratified_times_are_uniform_and_one_in_each_part():
    u = np.stack([stratified_times(8, np.random.default_rng(seed)) for seed in range(2000)])
    assert (np.sort(u, axis=1) * 8 // 1 == np.arange(8)).all()
    assert abs(u[:, 3].mean() - 0.5) < 0.03 and abs(u[:, 3].var() - 1 / 12) < 0.01


# ---- a step back ----


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_e10_a_reverse_step_is_the_posterior_of_the_discretised_schedule(schedule):
    rng = np.random.default_rng(5)
    discrete = discretise(schedule, 9)
    x0_hat, z = rng.normal(size=(2, 4, 3))
    t, s = np.array([2, 5, 9, 9]), np.array([1, 3, 8, 1])
    found = reverse_step(x0_hat, z, discrete.log_snr[t], discrete.log_snr[s])
    expected = q_posterior(discrete, x0_hat, z, t, s)
    assert_close(found.mean, expected.mean, rtol=1e-10, scale=1.0)
    assert_close(found.variance, expected.variance, rtol=1e-10)


def test_e29_reverse_steps_of_a_single_point_carry_every_marginal():
    # The mean of z' is signal' x_0 and its variance sigma'^2, whatever the steps: exact for a point.
    point, level, steps = np.array([[0.7, -0.3]]), LOW, [-3.0, 0.5, 2.0, HIGH]
    mean, variance = (a * b for a, b in zip(signal_and_sigma(level), (point, 1.0), strict=True))
    variance = variance**2
    for next_level in steps:
        offset, one = (reverse_step(point, z, level, next_level) for z in (0 * point, 0 * point + 1))
        factor = one.mean - offset.mean
        mean, variance = offset.mean + factor * mean, factor**2 * variance + offset.variance
        signal, sigma = signal_and_sigma(next_level)
        assert_close(mean, signal * point)
        assert_close(variance, np.full((1, 2), sigma**2))
        level = next_level


def test_a_model_of_the_log_snr_goes_through_the_samplers_step_by_step():
    rng = np.random.default_rng(6)
    points = rng.choice([-1.0, 1.0], size=(4, 3))
    schedule, data = LinearLogSNR(9.0, LOW), finite_data(points)
    discrete = discretise(schedule, 60)
    noises = rng.normal(size=(61, 20, 3))
    denoise = at_step(ideal_denoiser(data), discrete)
    x0 = sample(denoise, discrete, noises[60], lambda t: noises[t - 1])
    by_hand = noises[60]
    for t in range(60, 1, -1):
        p = reverse_step(denoise(by_hand, t), by_hand, discrete.log_snr[t], discrete.log_snr[t - 1])
        by_hand = p.sample(noises[t - 1])
    assert_close(x0, denoise(by_hand, 1), rtol=1e-9, scale=1.0)
    assert (abs(x0[:, None] - points).max(2).min(1) < 1e-3).all()


def test_a_model_of_steps_is_asked_at_the_step_of_nearest_log_snr():
    schedule, asked = NoiseSchedule.linear(10), []

    def denoise(xt, t):
        asked.append(t)
        return xt

    model, levels = at_log_snr(denoise, schedule), schedule.log_snr
    model(np.ones((2, 1)), levels[3])
    model(np.ones((3, 1)), np.array([levels[10], 0.9 * levels[7] + 0.1 * levels[8], levels[1]]))
    assert asked[0] == 3 and asked[1].tolist() == [10, 7, 1]
    for outside in (levels[1] + 0.1, levels[10] - 0.1, np.nan):
        with pytest.raises(ValueError, match="log_snr must lie in"):
            model(np.ones((2, 1)), outside)


# ---- and in discrete time ----


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_discretised_schedule_has_the_levels_and_the_ends(schedule):
    for T in (2, 9):
        discrete = discretise(schedule, T)
        assert isinstance(discrete, NoiseSchedule) and discrete.T == T
        assert_close(discrete.log_snr[1:], schedule(np.linspace(0, 1, T)), rtol=1e-11)


def test_a_number_of_steps_may_be_of_any_integer_type():
    assert_close(discretise(SCHEDULES[0], np.uint8(200)).beta, discretise(SCHEDULES[0], 200).beta)
    with pytest.raises(ValueError, match="T must be"):
        discretise(SCHEDULES[0], 10.5)


def test_prior_and_reconstruction_are_those_of_the_discrete_bound():
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 5, 3))
    schedule, data = SCHEDULES[1], gaussian_data(np.zeros(3), 0.5)
    discrete = discretise(schedule, 4)
    assert_close(prior_loss(schedule, x0), prior_term(discrete, x0), rtol=1e-10)
    at_end = np.exp(-HIGH)
    oracle = Oracle(data, discrete)
    expected = reconstruction_term(discrete, oracle.denoise, x0, noise, at_end, decoder=Gaussian.log_prob)
    found = reconstruction_loss(schedule, ideal_denoiser(data), x0, noise)
    assert_close(found, expected, rtol=1e-8, scale=1.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_e35_is_the_limit_of_the_discrete_bound(schedule):
    x0, noise = np.split(cubature(2), 2, axis=1)
    data = gaussian_data([0.0], 1.0)
    limit = mean_loss(schedule, ideal_denoiser(data), x0, noise, np.full(4, 1 / 4))
    away = []
    for T in (201, 401):  # a knot of PIECES is never between two steps
        discrete = discretise(schedule, T)
        denoise = Oracle(data, discrete).denoise
        terms = [denoising_term(discrete, denoise, x0, t, noise).mean() for t in range(2, T + 1)]
        away.append(sum(terms) - limit)
    assert 0 < away[1] < 0.1
    assert abs(away[0] / away[1] - 2) < 0.1


def test_the_ideal_denoiser_is_the_oracle_at_the_level_of_t():
    rng = np.random.default_rng(1)
    data, schedule = mixture_data([0.3, 0.7], rng.normal(size=(2, 3)), 0.2), NoiseSchedule.linear(20)
    z, t = rng.normal(size=(4, 3)), np.array([1, 5, 9, 20])
    found = ideal_denoiser(data)(z, schedule.log_snr[t])
    assert_close(found, Oracle(data, schedule).denoise(z, t), rtol=1e-11, scale=1.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_float32_images_stay_float32(schedule):
    rng = np.random.default_rng(2)
    x0, noise = rng.normal(size=(2, 4, 2, 2, 1)).astype(np.float32)
    u = rng.uniform(size=4)

    def denoise(z, log_snr):
        assert z.shape == x0.shape and z.dtype == np.float32
        return 0.5 * z

    for loss in (
        diffusion_loss(schedule, denoise, x0, u, noise),
        prior_loss(schedule, x0),
        reconstruction_loss(schedule, denoise, x0, noise),
    ):
        assert loss.dtype == np.float32 and loss.shape == (4,)


# ---- a learned schedule ----


def second_moment(schedule, data_variance):
    """E loss^2 for one-dimensional Gaussian data and the ideal model.

    The error is normal with SNR times its variance f = sigmoid(log_snr + log s^2), so it is 3/4 slope^2 f^2.
    """
    knots = schedule(np.linspace(0, 1, 1001)) + np.log(data_variance)
    integral = np.logaddexp(0, knots) - 1 / (1 + np.exp(-knots))  # of f^2
    slopes = np.diff(knots) * 1000
    return (0.75 * -slopes * -np.diff(integral)).sum()


def learn(schedule, data_variance, steps, batch, seed):
    """Train the weights of a LearnedLogSNR to lower E loss^2, from draws of u, x_0 and noise alone."""
    rng = np.random.default_rng(seed)
    weights = nn.tensor(schedule.weights.copy(), requires_grad=True, dtype=np.float64)
    optimiser = nn.Adam([weights], nn.rates.cosine(0.1, steps))

    def denoise(z, log_snr):
        signal, sigma = signal_and_sigma(log_snr.reshape(-1, 1))
        return signal * data_variance / (signal**2 * data_variance + sigma**2) * z

    for _ in range(steps):
        u = (rng.uniform() + np.arange(batch) / batch) % 1
        x0, noise = rng.normal(size=(2, batch, 1))
        learned = LearnedLogSNR(schedule.high, schedule.low, weights)
        loss = (diffusion_loss(learned, denoise, x0 * data_variance**0.5, u, noise) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return LearnedLogSNR(schedule.high, schedule.low, weights.data)


def test_e35_a_learned_schedule_lowers_the_variance_of_the_estimate_and_leaves_its_mean():
    data_variance, start = 1.0, LearnedLogSNR(HIGH, LOW, np.ones(20))
    learned = learn(start, data_variance, steps=600, batch=256, seed=0)
    mean = np.log((1 + data_variance * np.exp(HIGH)) / (1 + data_variance * np.exp(LOW))) / 2
    before, after = (second_moment(schedule, data_variance) - mean**2 for schedule in (start, learned))
    best = 3 * mean**2 - mean**2  # of all schedules: Cauchy-Schwarz, reached by a slope inverse to f
    assert best < after < 1.1 * best < 0.6 * before

    denoise = ideal_denoiser(gaussian_data([0.0], data_variance))
    x0, noise = np.split(cubature(2), 2, axis=1)
    u, rule = times(pieces=20)
    found = sum(
        r * diffusion_loss(learned, denoise, x0, np.full(4, v), noise).mean() for v, r in zip(u, rule, strict=True)
    )
    assert_close(found, mean, rtol=1e-9)

    rng, n = np.random.default_rng(1), 100_000  # and as drawn
    x0, noise = rng.normal(size=(2, n, 1))
    for schedule, variance in ((start, before), (learned, after)):
        loss = diffusion_loss(schedule, denoise, x0, rng.uniform(size=n), noise)
        assert abs(loss.mean() - mean) < 4 * (variance / n) ** 0.5
        assert abs(loss.var() / variance - 1) < 0.1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x: discretise(SCHEDULES[0], 1), "T must be at least 2"),
        (lambda x: diffusion_loss(SCHEDULES[0], None, x, np.ones(2), np.ones(2)), "shape of x0"),
        (lambda x: eps_loss(SCHEDULES[0], np.ones(2), x, x[:1]), "shape of eps"),
        (lambda x: reverse_step(x, x, 1.0, 1.0), "must raise the log-SNR, got 1.0 and then 1.0"),
        (lambda x: reverse_step(x, x, 1.0, np.array([2.0, np.nan])), "must raise the log-SNR"),
        (lambda x: reverse_step(x[:1], x, 1.0, 2.0), "shape of z"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, named):
    with pytest.raises(ValueError, match=named):
        call(np.ones((2, 3)))
