"""The loss in continuous time knows the ends of its schedule only; its variance knows the rest. (E35)"""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from exact import cubature, exp_and_log_of_tensors, hermite
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import assert_close, seeds

import nn
from tinyddpm import Gaussian, NoiseSchedule
from tinyddpm.bound import denoising_term, prior_term, reconstruction_term
from tinyddpm.theory.continuous import (
    CosineLogSNR,
    LearnedLogSNR,
    LinearLogSNR,
    diffusion_loss,
    discretise,
    ideal_denoiser,
    prior_loss,
    reconstruction_loss,
    signal_and_noise,
)
from tinyddpm.theory.mixture import gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle

HIGH, LOW = 6.0, -7.0
PIECES = LearnedLogSNR(HIGH, LOW, np.array([1.0, -3.0, 0.5, 2.0]))
SCHEDULES = [LinearLogSNR(HIGH, LOW), CosineLogSNR(HIGH, LOW), PIECES]
weights = hnp.arrays(float, st.integers(1, 9), elements=st.floats(0.1, 3))
any_schedule = st.sampled_from(SCHEDULES) | weights.map(lambda w: LearnedLogSNR(HIGH, LOW, w))


# ---- schedules ----


@given(any_schedule, seeds)
def test_a_schedule_falls_from_high_to_low_with_the_slope_it_says(schedule, seed):
    u = np.sort(np.random.default_rng(seed).uniform(size=50))
    ends = schedule(np.array([0.0, 1.0]))
    assert_close(ends, [HIGH, LOW])
    assert (np.diff(schedule(u)) < 0).all()
    h = 1e-7
    u = u[(u > h) & (u < 1 - h)]
    if isinstance(schedule, LearnedLogSNR):
        u = u[abs(u * len(schedule.weights) - np.round(u * len(schedule.weights))) > 1e-5]  # off the knots
    slope = (schedule(u + h) - schedule(u - h)) / (2 * h)
    assert schedule.slope(u).shape == u.shape
    np.testing.assert_allclose(schedule.slope(u), slope, rtol=1e-5)
    assert np.isfinite(schedule.slope(np.array([0.0, 1.0]))).all()


def test_cosine_is_the_schedule_whose_signal_is_the_cosine_of_a_steady_angle():
    angle = np.arccos(signal_and_noise(CosineLogSNR(HIGH, LOW)(np.linspace(0, 1, 9)))[0])
    assert_close(np.diff(angle), np.full(8, (angle[-1] - angle[0]) / 8), rtol=1e-11)


def test_pieces_fall_by_their_share_of_squares():
    levels = LearnedLogSNR(9.0, 0.0, np.array([1.0, -2.0, 2.0]))(np.array([0.0, 1 / 3, 2 / 3, 1.0]))
    assert_close(levels, [9.0, 8.0, 4.0, 0.0], scale=1.0)


@pytest.mark.parametrize("log_snr", [-800.0, -700.0, 0.3, 700.0])
def test_signal_and_noise_have_the_snr_and_unit_power(log_snr):
    with np.errstate(over="ignore"):
        signal, noise = signal_and_noise(np.array(log_snr))
    assert abs(signal**2 + noise**2 - 1) < 1e-15
    if abs(log_snr) < 1:
        assert_close(np.log(signal**2 / noise**2), log_snr)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: LinearLogSNR(1.0, 1.0), "high must be above low, got 1.0 and 1.0"),
        (lambda: CosineLogSNR(-1.0, 1.0), "high must be above low"),
        (lambda: LearnedLogSNR(-1.0, 1.0, np.ones(2)), "high must be above low"),
        (lambda: LearnedLogSNR(1.0, 0.0, np.ones((2, 2))), r"weights must have shape \(K,\), got \(2, 2\)"),
        (lambda: SCHEDULES[0](np.array([0.5, 1.1])), r"u must lie in \[0, 1\], got 0.5..1.1"),
        (lambda: SCHEDULES[1](np.array([-0.1])), "u must lie"),
        (lambda: SCHEDULES[2].slope(np.array([np.nan])), "u must lie"),
        (lambda: discretise(SCHEDULES[0], 1), "T must be at least 2"),
        (lambda: diffusion_loss(SCHEDULES[0], None, np.ones((2, 3)), np.ones(2), np.ones(2)), "shape of x0"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_cannot_be_changed(schedule):
    with pytest.raises(FrozenInstanceError):
        schedule.high = 9.0


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
    signal, rate = signal_and_noise(LOW)
    last = Gaussian(0.0, signal**2 * s2 + rate**2)
    ratio = s2 * np.exp(HIGH) / (1 + s2 * np.exp(HIGH))  # exact variance of x_0 given z over the decoder's
    expected = (np.log(2 * np.pi * np.e * s2) + ratio - 1 - np.log(ratio)) / 2 + last.kl(Gaussian(0.0, 1.0))
    assert_close(total, expected, rtol=1e-9)


# ---- and in discrete time ----


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_discretised_schedule_has_the_levels_and_the_ends(schedule):
    for T in (2, 9):
        discrete = discretise(schedule, T)
        assert isinstance(discrete, NoiseSchedule) and discrete.T == T
        assert_close(discrete.log_snr[1:], schedule(np.linspace(0, 1, T)), rtol=1e-11)


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
        signal, noise = signal_and_noise(log_snr.reshape(-1, 1))
        return signal * data_variance / (signal**2 * data_variance + noise**2) * z

    for _ in range(steps):
        u = (rng.uniform() + np.arange(batch) / batch) % 1
        x0, noise = rng.normal(size=(2, batch, 1))
        learned = LearnedLogSNR(schedule.high, schedule.low, weights)
        loss = (diffusion_loss(learned, denoise, x0 * data_variance**0.5, u, noise) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return LearnedLogSNR(schedule.high, schedule.low, weights.data)


@exp_and_log_of_tensors()
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
