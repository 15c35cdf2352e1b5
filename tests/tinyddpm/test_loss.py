import math
from decimal import localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ExactTables, assert_close, host_arrays, normal_arrays, schedules_and_t, seeds

from tinyddpm import PREDICTIONS, Gaussian, NoiseSchedule, convert, l_simple, loss_weight, training_weight
from tinyddpm.forward import q_posterior
from tinyddpm.loss import (
    TRAINING_WEIGHTS,
    draw_variance,
    importance_probabilities,
    importance_timesteps,
    log_snr_probabilities,
    snr_weight,
    stratified_timesteps,
    uniform_timesteps,
    x0_slope,
)
from tinyddpm.reverse import p_mean_variance, variance_table

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
    with pytest.raises(ValueError, match="unknown prediction 'noise'; there are: eps, x0, v"):
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


# ---- E38: the weights to train with ----


@given(schedules_and_t(), st.sampled_from(PREDICTIONS))
def test_e24_slope_is_how_far_x0_moves_when_the_prediction_does(case, kind):
    schedule, t = case
    xt, one = np.zeros((1, 1)), np.ones((1, 1))
    moved = convert(schedule, one, xt, t, kind, "x0") - convert(schedule, -one, xt, t, kind, "x0")
    assert_close(x0_slope(schedule, kind, t), moved[0, 0] / 2)


@given(schedules_and_t(), st.floats(0.1, 100))
def test_e38_min_snr_as_the_paper_prints_it(case, gamma):
    schedule, t = case
    snr, least = schedule.snr[t], min(schedule.snr[t], gamma)
    found = [training_weight(schedule, "min-snr", kind, t, gamma) for kind in ("x0", "eps", "v")]
    assert_close(found, [least, least / snr, least / (snr + 1)])


@given(schedules_and_t(), st.sampled_from(PREDICTIONS), seeds, st.floats(0.1, 100))
def test_e38_min_snr_is_one_loss_whatever_is_predicted(case, kind, seed, gamma):
    schedule, t = case
    x0, x0_hat, xt = normal_arrays(seed, (1, 3), (1, 3), (1, 3))
    target, prediction = (convert(schedule, x, xt, t, "x0", kind) for x in (x0, x0_hat))
    weight = training_weight(schedule, "min-snr", kind, t, gamma)
    expected = min(schedule.snr[t], gamma) * l_simple(x0, x0_hat)
    size = weight * float(abs(target).max()) ** 2  # where the targets nearly agree, their rounding counts
    assert_close(
        weight * l_simple(target, prediction), expected, scale=size**0.5 * float(expected[0]) ** 0.5 + size * 1e-15
    )


@given(schedules_and_t(first=2), st.sampled_from(PREDICTIONS))
def test_e22_training_on_the_bound_has_the_weight_of_the_bound(case, kind):
    schedule, t = case
    assert_close(training_weight(schedule, "bound", kind, t), loss_weight(schedule, kind, t))
    assert training_weight(schedule, "simple", kind, t) == 1.0


@given(schedules_and_t(), seeds)
def test_e22_training_on_the_bound_has_the_weight_of_the_likelihood_at_t_1(case, seed):
    schedule, _ = case
    x0, x0_hat = normal_arrays(seed, (1, 3), (1, 3))
    exact, off = (Gaussian(x, variance_table(schedule, "beta_tilde")[1]).log_prob(x0) for x in (x0, x0_hat))
    weight = training_weight(schedule, "bound", "x0", 1)
    assert_close(3 * weight * l_simple(x0, x0_hat), exact - off, scale=abs(exact) + abs(off))


@pytest.mark.parametrize("name", TRAINING_WEIGHTS)
def test_every_weight_is_a_positive_number_for_each_t_and_shaped_like_t(name):
    schedule = NoiseSchedule.cosine(255)
    for kind in PREDICTIONS:
        weight = training_weight(schedule, name, kind, np.arange(1, 256, dtype=np.uint8).reshape(5, 51))
        assert weight.shape == (5, 51) and weight.dtype == np.float64 and (weight > 0).all()
        alone = training_weight(schedule, name, kind, 255)
        assert np.shape(alone) == () and alone == weight[-1, -1]


def test_a_weight_that_cannot_be_meant_is_refused():
    schedule = NoiseSchedule.linear(10)
    for arguments, message in (
        (("snr", "eps", 1), "unknown loss weight 'snr'; there are: simple, bound, min-snr"),
        (("simple", "epsilon", 1), "unknown prediction 'epsilon'"),
        (("simple", "eps", 0), r"t must lie in 1\.\.10"),
        (("min-snr", "eps", [1, 11]), r"t must lie in 1\.\.10"),
        (("min-snr", "eps", 1, 0), "gamma must be above 0"),
        (("min-snr", "eps", 1, np.nan), "gamma must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            training_weight(schedule, *arguments)
    with pytest.raises(TypeError, match="t must be an integer"):
        training_weight(schedule, "simple", "eps", 1.0)


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


@given(st.integers(1, 30), st.integers(1, 8), seeds)
def test_e36_importance_sampled_timesteps_have_the_mean_over_t(T, n, seed):
    p = np.append(0.0, host_arrays(seed, T)[0] ** 2 + 0.01)
    p /= p.sum()
    loss, fine = losses(T, seed + 1), 20000
    t, weights = importance_timesteps(p, n, Grid(fine))  # a row for each start
    frequency = np.bincount(t.ravel(), minlength=T + 1) / t.size  # p to within one point of the grid
    assert (abs(frequency - p) < n / fine + 1e-12).all()
    assert_close(weights, 1 / (T * p[t]))
    counts = np.stack([(t == k).sum(axis=1) for k in range(1, T + 1)], axis=1)
    assert (abs(counts - n * p[1:]) < 2 - 1e-9).all(), "stratified: each t as often as it should be, to within 2"
    assert_close((p[t] / frequency[t] * weights * loss[t]).mean(), loss[1:].mean())


def test_e36_importance_timesteps_refuse_probabilities_that_would_bias():
    for p in ([0, 1, 0], [0.5, 0.5], [0, 0.5, 0.4], [0, 1.5, -0.5], [0.0], [[0, 1.0]]):
        with pytest.raises(ValueError, match="probabilities"):
            importance_timesteps(p, 3, np.random.default_rng(0))
    t, weights = importance_timesteps([0, 1.0], 3, np.random.default_rng(0))
    assert t.tolist() == [1, 1, 1] and weights.tolist() == [1, 1, 1]


@given(st.integers(2, 40), st.floats(0, 1))
def test_e35_log_snr_probabilities_are_even_in_t_and_for_their_share_even_in_log_snr(T, share):
    schedule = NoiseSchedule.cosine(T)
    p = log_snr_probabilities(schedule, share)
    assert p[0] == 0 and len(p) == T + 1
    assert_close(p.sum(), 1.0)
    steps = schedule.log_snr[1:-1] - schedule.log_snr[2:]
    extra = p[2:] - (1 - share) / T
    assert_close(extra * steps.sum(), steps * extra.sum(), scale=steps.sum())
    assert_close(p[1], p[2])
    assert_close(log_snr_probabilities(NoiseSchedule.even_log_snr(T), 1.0)[1:], np.full(T, 1 / T))
    assert log_snr_probabilities(NoiseSchedule.cosine(1), share).tolist() == [0, 1]
    with pytest.raises(ValueError, match="share must lie in"):
        log_snr_probabilities(schedule, 1.5)


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


@pytest.mark.parametrize("probabilities", [[0, 0, 1.0], [[0, 1.0]], 1.0, [0.0], [0, np.nan, 1.0], [0, -1.0, 2.0]])
def test_e36_each_t_must_be_possible(probabilities):
    with pytest.raises(ValueError, match="probabilities must be 0 at t = 0"):
        importance_timesteps(probabilities, 3, np.random.default_rng(0))


@pytest.mark.parametrize("draw", [uniform_timesteps, stratified_timesteps])
def test_e36_every_t_is_drawn_whatever_integer_counts_them(draw):
    t, weights = draw(np.uint8(255), np.uint8(200), np.random.default_rng(0))
    assert t.dtype == np.int64 and len(t) == len(weights) == 200 and t.min() < 10 and t.max() > 245
    assert len(draw(3, 0, np.random.default_rng(0))[0]) == 0
    for T in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="T must be an integer of at least 1"):
            draw(T, 3, np.random.default_rng(0))


def test_e36_probabilities_and_moments_may_be_lists_of_integers():
    t, weights = importance_timesteps(np.array([0, 1], np.uint8), 3, np.random.default_rng(0))
    assert t.tolist() == [1, 1, 1] and weights.tolist() == [1, 1, 1]
    assert draw_variance(np.array([0, 16, 16], np.uint8), [0, 256, 512], [0, 0.5, 0.5]) == (512 + 1024) / 4 - 256


@pytest.mark.parametrize(
    "mean_square, uniform",
    [([0, 0, 0], 0.1), ([0, np.inf, 1], 0.1), ([0, np.nan, 1], 0.1), ([0, 1, 1], -0.1), ([0, 1, 1], 1.1)],
)
def test_e36_moments_that_give_no_probabilities_are_refused(mean_square, uniform):
    with pytest.raises(ValueError, match="mean_square must be finite"):
        importance_probabilities(mean_square, uniform)
