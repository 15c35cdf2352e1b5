import math
from decimal import localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ExactTables, assert_close, host_arrays, normal_arrays, schedules_and_t, seeds

from tinyddpm import PREDICTIONS, NoiseSchedule, convert, l_simple, loss_weight
from tinyddpm.forward import q_posterior
from tinyddpm.loss import (
    draw_variance,
    importance_probabilities,
    importance_timesteps,
    snr_weight,
    stratified_timesteps,
    uniform_timesteps,
)
from tinyddpm.reverse import p_mean_variance

variances = st.sampled_from(["beta", "beta_tilde"])

# ---- E22, E23 ----


@given(schedules_and_t(first=2), st.sampled_from(PREDICTIONS), variances, seeds)
def test_e22_weighted_error_of_every_prediction_is_the_same_kl(case, kind, variance, seed):
    schedule, t = case
    x0, x0_hat, xt = normal_arrays(seed, (1, 3), (1, 3), (1, 3))
    p = p_mean_variance(schedule, x0_hat, xt, t, variance)
    kl_of_means = ((q_posterior(schedule, x0, xt, t).mean - p.mean) ** 2).sum() / (2 * p.variance)  # E19
    target, prediction = (convert(schedule, x, xt, t, "x0", kind) for x in (x0, x0_hat))
    error = ((target - prediction) ** 2).sum()
    weight = loss_weight(schedule, kind, t, variance)
    # where means or targets nearly agree, their difference d carries the rounding r of each: (d + r)^2 - d^2
    sizes = np.array([float(abs(p.mean).max()) / p.variance**0.5, weight**0.5 * float(abs(target).max())])
    kl_of_means = float(kl_of_means)
    assert_close(weight * error, kl_of_means, scale=(sizes * kl_of_means**0.5 + sizes**2 * 1e-15).sum())


@given(schedules_and_t(first=2))
def test_e22_weight_of_x0_is_half_the_fall_of_the_snr(case):
    schedule, t = case
    exact = ExactTables(schedule)
    with localcontext(prec=60):
        snr = [exact.alpha_bar[u] / exact.noise[u] for u in (t - 1, t)]
        expected = (snr[0] - snr[1]) / 2
    assert_close(snr_weight(schedule, t), expected)
    assert_close(loss_weight(schedule, "x0", t, "beta_tilde"), expected)


@given(schedules_and_t(first=2), variances)
def test_e22_weights_as_the_papers_print_them(case, variance):
    schedule, t = case
    sigma2 = {"beta": schedule.beta, "beta_tilde": schedule.beta_tilde}[variance][t]
    beta, alpha, noise = schedule.beta[t], schedule.alpha[t], schedule.one_minus_alpha_bar[t]
    eps_weight = beta**2 / (2 * sigma2 * alpha * noise)
    x0_weight = schedule.alpha_bar[t - 1] * beta**2 / (2 * sigma2 * noise**2)
    expected = [eps_weight, x0_weight, x0_weight * noise, eps_weight * noise, 1 / (2 * sigma2)]
    found = [loss_weight(schedule, kind, t, variance) for kind in ("eps", "x0", "v", "score", "mean")]
    assert_close(found, expected)


def test_e22_weights_take_arrays_of_t_and_refuse_t_1():
    schedule = NoiseSchedule.linear(10)
    t = np.arange(2, 11)
    for kind in PREDICTIONS:
        assert loss_weight(schedule, kind, t).tolist() == [loss_weight(schedule, kind, int(u)) for u in t]
        assert loss_weight(schedule, kind, 3) == loss_weight(schedule, kind, 3, "beta_tilde")
        with pytest.raises(ValueError, match=r"t must lie in 2\.\.10"):
            loss_weight(schedule, kind, 1)
    assert_close(snr_weight(schedule, t), loss_weight(schedule, "x0", t))
    with pytest.raises(ValueError, match=r"t must lie in 2\.\.10"):
        snr_weight(schedule, 1)
    with pytest.raises(ValueError, match="unknown prediction 'noise'.*eps, x0, v, score, mean"):
        loss_weight(schedule, "noise", 2)
    with pytest.raises(ValueError, match="unknown variance 'small'.*beta, beta_tilde"):
        loss_weight(schedule, "eps", 2, "small")


def test_e23_l_simple_is_the_mean_square_of_each_sample():
    target, prediction = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.float32)
    prediction[0, 0, 0], prediction[1] = 2, 3
    found = l_simple(target, prediction)
    assert found.tolist() == [1, 9] and found.dtype == np.float32
    assert l_simple(np.zeros(2), np.array([1.0, 2.0])).tolist() == [1, 4]
    with pytest.raises(ValueError, match="prediction must have the shape of target, "):
        l_simple(target, prediction[:1])


@given(schedules_and_t(first=2), seeds)
def test_e23_the_bound_and_l_simple_have_the_same_minimiser_at_every_t(case, seed):
    # two values of x_0 behind one x_t: both are least at the mean of the eps, whatever the weight
    schedule, t = case
    eps = host_arrays(seed, (2, 1))[0]
    weight = loss_weight(schedule, "eps", t)
    candidates = eps.mean() + np.linspace(-1, 1, 21)
    simple = [l_simple(eps, np.full((2, 1), c)).mean() for c in candidates]
    bound = [(weight * (eps - c) ** 2).mean() for c in candidates]
    assert np.argmin(simple) == np.argmin(bound) == 10


# ---- E36 ----


class Grid:
    """A random generator whose numbers go through the midpoints of a fine grid, one grid per call."""

    def __init__(self, points):
        self.points = points

    def random(self, n=None):
        u = (np.arange(self.points) + 0.5) / self.points
        return u if n is not None else u[:, None]


def losses(T, seed):
    return np.append(0.0, host_arrays(seed, T)[0] ** 2)  # L_t for t = 0..T, entry 0 unused


@given(st.integers(1, 30), seeds)
def test_e36_uniform_timesteps_have_the_mean_over_t_exactly(T, seed):
    t, weights = uniform_timesteps(T, 3 * T, Grid(3 * T))
    assert t.dtype.kind == "i" and np.bincount(t).tolist() == [0] + [3] * T
    loss = losses(T, seed)
    assert_close((weights * loss[t]).mean(), loss[1:].mean())


@given(st.integers(1, 30), st.integers(1, 8), seeds)
def test_e36_stratified_timesteps_have_the_mean_over_t_exactly(T, n, seed):
    t, weights = stratified_timesteps(T, n, Grid(n * T))  # one row for each of n T starts
    assert t.shape == (n * T, n) and weights.shape == (n,)
    loss = losses(T, seed)
    estimates = (weights * loss[t]).mean(axis=1)
    assert_close(estimates.mean(), loss[1:].mean())


@given(st.integers(1, 8), st.integers(1, 8))
def test_e36_stratified_timesteps_fall_once_in_each_stratum(n, length):
    t, _ = stratified_timesteps(n * length, n, Grid(n * length))
    assert (np.sort((t - 1) // length, axis=1) == np.arange(n)).all()


@given(st.integers(1, 30), seeds)
def test_e36_importance_sampled_timesteps_have_the_mean_over_t(T, seed):
    p = np.append(0.0, host_arrays(seed, T)[0] ** 2 + 0.01)
    p /= p.sum()
    loss, fine = losses(T, seed + 1), 20000
    t, weights = importance_timesteps(p, fine, Grid(fine))
    frequency = np.bincount(t, minlength=T + 1) / fine  # p to within one point of the grid
    assert (abs(frequency - p) < 1 / fine + 1e-12).all()
    assert_close(weights, 1 / (T * p[t]))
    assert_close((p[t] / frequency[t] * weights * loss[t]).mean(), loss[1:].mean())


def test_e36_importance_timesteps_refuse_probabilities_that_would_bias():
    for p in ([0, 1, 0], [0.5, 0.5], [0, 0.5, 0.4], [0, 1.5, -0.5], [0.0], [[0, 1.0]]):
        with pytest.raises(ValueError, match="probabilities"):
            importance_timesteps(p, 3, np.random.default_rng(0))
    t, weights = importance_timesteps([0, 1.0], 3, np.random.default_rng(0))
    assert t.tolist() == [1, 1, 1] and weights.tolist() == [1, 1, 1]


class Lowest:
    """A random generator that always draws its lowest number."""

    def random(self, n=None):
        return 0.0 if n is None else np.zeros(n)


def test_e36_no_draw_gives_t_0():
    p = np.array([0, 0.5, 0.5])
    for t, _ in (
        uniform_timesteps(2, 1, Lowest()),
        stratified_timesteps(2, 1, Lowest()),
        importance_timesteps(p, 1, Lowest()),
    ):
        assert t.tolist() == [1]


@given(st.integers(1, 30), seeds)
def test_e36_draw_variance_is_the_variance_and_the_importance_probabilities_minimise_it(T, seed):
    mean = np.append(np.nan, host_arrays(seed, T)[0])
    mean_square = mean**2 + np.append(np.nan, host_arrays(seed + 1, T)[0] ** 2)
    best = importance_probabilities(mean_square, uniform=0)
    uniform = np.append(0.0, np.full(T, 1 / T))
    second_moment = (uniform[1:] * mean_square[1:]).sum()
    assert_close(draw_variance(mean, mean_square, uniform), second_moment - mean[1:].mean() ** 2, scale=10)
    least = np.sqrt(mean_square[1:]).mean() ** 2 - mean[1:].mean() ** 2  # by Cauchy and Schwarz
    assert_close(draw_variance(mean, mean_square, best), least, scale=10)
    assert best[0] == 0 and math.isclose(best.sum(), 1)
    mixed = importance_probabilities(mean_square, uniform=0.25)
    assert_close(mixed[1:], 0.75 * best[1:] + 0.25 / T)
    assert mixed[0] == 0 and importance_probabilities(mean_square**50)[1:].min() >= 0.001 / T


def test_e36_variances_of_the_three_ways_to_draw_t_on_a_steep_loss():
    # L_t falls by orders of magnitude over t, as the bound's terms do
    T, n = 50, 10
    loss = np.append(np.nan, 1 / np.arange(1, T + 1) ** 2)
    uniform = np.append(0.0, np.full(T, 1 / T))
    best = importance_probabilities(loss**2)
    t, _ = stratified_timesteps(T, n, Grid(n * T))
    report = {
        "uniform": draw_variance(loss, loss**2, uniform) / n,
        "importance": draw_variance(loss, loss**2, best) / n,
        "stratified": loss[t].mean(axis=1).var(),
    }
    assert report["importance"] < 0.01 * report["uniform"], report
    assert report["stratified"] < report["uniform"], report
