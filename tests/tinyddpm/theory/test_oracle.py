"""The oracles are right: the same numbers by other routes. (E6, E9, E26-E29 on data of every kind)"""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from exact import COVARIANCE, KINDS, any_data, kinds, line, schedules
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import assert_close, seeds

import nn
from tinyddpm import Gaussian, NoiseSchedule, q_jump, q_marginal, q_sample, q_step
from tinyddpm.prediction import score_from_x0, x0_from_score
from tinyddpm.theory.mixture import finite_data, gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle

# ---- the distributions ----


def log_normal(x, mean, covariance):
    """log N(x; mean, covariance) by numpy.linalg, without an eigenvalue in sight."""
    step = x - mean
    square = (step * np.linalg.solve(covariance, step.T).T).sum(-1)
    return -(square + np.linalg.slogdet(2 * np.pi * covariance)[1]) / 2


def test_log_prob_of_x0_and_xt_of_a_full_mixture_is_that_of_linear_algebra():
    rng = np.random.default_rng(0)
    weights, means = np.array([0.2, 0.8]), rng.normal(size=(2, 3))
    covariances = np.stack([COVARIANCE, COVARIANCE[::-1, ::-1] * 0.1])
    schedule = NoiseSchedule.linear(10)
    oracle = Oracle(mixture_data(weights, means, covariances), schedule)
    x = rng.normal(size=(7, 3))
    for t in range(11):
        a, b = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
        parts = [
            np.log(w) + log_normal(x, a**0.5 * m, a * c + b * np.eye(3))
            for w, m, c in zip(weights, means, covariances, strict=True)
        ]
        assert_close(oracle.log_prob(x, t), np.logaddexp(*parts), scale=1.0)
        mean, covariance = oracle.marginal(t).mean(), oracle.marginal(t).covariance()
        assert_close(mean, a**0.5 * (weights @ means), scale=1.0)
        within = np.einsum("k,kij->ij", weights, covariances)
        between = np.einsum("k,ki,kj->ij", weights, means, means) - np.outer(weights @ means, weights @ means)
        assert_close(covariance, a * (within + between) + b * np.eye(3), scale=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_moments_of_the_distribution(kind):
    data = any_data(np.random.default_rng(1), kind)
    n = 100_000
    x = data.sample(np.random.default_rng(2), n)
    covariance = data.covariance()
    standard_error = (np.diag(covariance) / n) ** 0.5
    assert (abs(x.mean(0) - data.mean()) < 5 * standard_error).all()
    fourth = ((x - data.mean())[:, :, None] * (x - data.mean())[:, None, :]).std(0) / n**0.5
    assert (abs(np.cov(x.T) - covariance) < 5 * fourth).all()


def test_samples_of_an_oracle_are_of_the_step_asked_for_and_of_the_data_unless_asked():
    oracle = Oracle(finite_data([[1.0], [-1.0]]), NoiseSchedule.linear(10))
    assert set(oracle.sample(np.random.default_rng(0), 20).ravel()) == {-1.0, 1.0}
    x1 = oracle.sample(np.random.default_rng(0), 1000, 1)
    assert abs((x1**2).mean() - 1) < 0.1 and 0 < abs(abs(x1) - 1).min()


def test_a_batch_of_mixtures_gives_one_sample_of_each():
    data = mixture_data([0.5, 0.5], [[-1.0], [1.0]], [[0.0], [0.0]])
    far = np.repeat([[-9.0], [9.0]], 50, axis=0)
    x0 = Oracle(data, NoiseSchedule.linear(10)).posterior(far, 3, s=0).sample(np.random.default_rng(0), 100)
    np.testing.assert_array_equal(x0, np.sign(far))


@given(kinds, schedules(12), seeds)
def test_e06_bayes_holds_for_data_of_any_kind_pointwise(kind, schedule, seed):
    rng = np.random.default_rng(seed)
    oracle = Oracle(any_data(rng, kind), schedule)
    first = 1 if kind == "finite" else 0  # points have no density at s = 0
    assume(schedule.T > first)
    t = rng.integers(first + 1, schedule.T + 1, 5)
    s = rng.integers(first, t)
    xt, xs = rng.normal(size=(2, 5, 3))
    forward = q_jump(schedule, xs, s, t).log_prob(xt)
    left = oracle.posterior(xt, t, s).log_prob(xs) + oracle.log_prob(xt, t)
    right = forward + oracle.log_prob(xs, s)
    assert_close(left, right, rtol=1e-11, scale=abs(forward) + 1)


# ---- E26, E27, E28: scores ----


@given(kinds, schedules(64), seeds)
def test_e26_marginal_score_is_the_posterior_mean_of_conditional_scores(kind, schedule, seed):
    rng = np.random.default_rng(seed)
    oracle = Oracle(any_data(rng, kind), schedule)
    t = rng.integers(1, schedule.T + 1, 4)
    xt = oracle.sample(rng, 4, t)
    conditional = score_from_x0(schedule, oracle.posterior(xt, t, s=0).mean(), xt, t)  # linear in x_0
    size = (abs(xt).max() + 3) / schedule.one_minus_alpha_bar[t].min()
    assert_close(oracle.score(xt, t), conditional, scale=size)


@given(schedules(64), seeds)
def test_e26_for_a_finite_set_by_summing_over_its_points(schedule, seed):
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(5, 2)), rng.dirichlet(np.ones(5))
    t = int(rng.integers(1, schedule.T + 1))
    xt = q_sample(schedule, points, t, rng.normal(size=(5, 2)))
    likelihood = np.stack([q_marginal(schedule, np.tile(p, (5, 1)), t).log_prob(xt) for p in points], 1)
    posterior = np.log(weights) + likelihood
    posterior = np.exp(posterior - np.logaddexp.reduce(posterior, 1)[:, None])
    scores = np.stack([score_from_x0(schedule, np.tile(p, (5, 1)), xt, t) for p in points], 1)
    oracle = Oracle(finite_data(points, weights), schedule)
    size = (abs(xt).max() + 3) / schedule.one_minus_alpha_bar[t]
    assert_close(oracle.score(xt, t), (posterior[..., None] * scores).sum(1), rtol=1e-11, scale=size)
    assert_close(oracle.denoise(xt, t), posterior @ points, rtol=1e-11 * max(1, size), scale=1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [1, 5, 10])
def test_e26_score_is_the_gradient_of_log_prob(kind, t):
    rng = np.random.default_rng(3)
    oracle = Oracle(any_data(rng, kind), NoiseSchedule.linear(10))
    x, h = oracle.sample(rng, 6, t), 1e-5
    for i, step in enumerate(h * np.eye(3)):
        slope = (oracle.log_prob(x + step, t) - oracle.log_prob(x - step, t)) / (2 * h)
        np.testing.assert_allclose(oracle.score(x, t)[:, i], slope, rtol=1e-6, atol=1e-6)


@given(kinds, schedules(64), seeds)
def test_e27_tweedie_gives_the_ideal_denoiser_from_the_score(kind, schedule, seed):
    rng = np.random.default_rng(seed)
    oracle = Oracle(any_data(rng, kind), schedule)
    t = rng.integers(1, schedule.T + 1, 4)
    xt = oracle.sample(rng, 4, t)
    tweedie = x0_from_score(schedule, oracle.score(xt, t), xt, t)
    size = (abs(xt).max() + 3) / schedule.alpha_bar[t].min() ** 0.5  # x_t cancels where little signal is left
    assert_close(tweedie, oracle.denoise(xt, t), scale=size)


@given(schedules(16), seeds)
def test_e28_error_to_conditional_scores_is_a_constant_plus_the_error_to_the_marginal_score(schedule, seed):
    rng = np.random.default_rng(seed)
    points, weights = rng.normal(size=(3, 1)), rng.dirichlet(np.ones(3))
    oracle = Oracle(finite_data(points, weights), schedule)
    t = int(rng.integers(1, schedule.T + 1))
    a, b, c = rng.normal(size=3) / schedule.one_minus_alpha_bar[t] ** 0.5
    z, width = line()
    rule = width * np.exp(Gaussian(0 * z, 1.0).log_prob(z))

    to_conditional = constant = to_marginal = 0.0
    for point, weight in zip(points, weights, strict=True):
        x0 = np.full_like(z, point)
        xt = q_sample(schedule, x0, t, z)
        s_cond, s_t = score_from_x0(schedule, x0, xt, t), oracle.score(xt, t)
        s_theta = a + b * xt + c * np.sin(xt)  # any model at all
        to_conditional += weight * rule @ (s_cond - s_theta) ** 2
        constant += weight * rule @ (s_cond - s_t) ** 2
        to_marginal += weight * rule @ (s_t - s_theta) ** 2
    assert_close(to_conditional, constant + to_marginal, rtol=1e-11, scale=1.0)


def test_e28_the_weight_of_t_cannot_leave_an_expectation_over_t():
    # Errors of the noise (early, late) of two models; the score's error is that over 1 - alpha_bar_t.
    schedule = NoiseSchedule.linear(1000)
    early, late = np.array([0.1, 0.0]), np.array([0.0, 0.2])
    weight = schedule.one_minus_alpha_bar[[10, 900]]
    assert (early**2).mean() < (late**2).mean()  # by L_simple the first is the better model
    assert (early**2 / weight).mean() > (late**2 / weight).mean()  # by the score's error it is the worse


# ---- E29, E9: the exact reverse step ----


@given(kinds, schedules(16), seeds)
def test_e29_the_exact_reverse_step_carries_mean_and_covariance_along_the_chain(kind, schedule, seed):
    rng = np.random.default_rng(seed)
    data = any_data(rng, kind)
    if kind != "gaussian":
        data = gaussian_data(data.mean(), np.diag(rng.uniform(0, 1, 3)))
    oracle = Oracle(data, schedule)
    probes = np.concatenate([np.zeros((1, 3)), np.eye(3)])
    for t in range(schedule.T, 0, -1):
        step = oracle.posterior(probes, t)
        offset, means = step.mean()[0], step.mean()
        factor = (means[1:] - offset).T  # the mean of the step is offset + factor x_t
        before, after = oracle.marginal(t), oracle.marginal(t - 1)
        assert_close(offset + factor @ before.mean(), after.mean(), scale=1.0)
        carried = factor @ before.covariance() @ factor.T
        assert_close(carried + step.covariance()[0], after.covariance(), scale=1.0)


@given(schedules(10), seeds)
def test_e29_the_exact_reverse_step_of_a_mixture_carries_the_whole_density(schedule, seed):
    rng = np.random.default_rng(seed)
    data = mixture_data([0.3, 0.7], rng.normal(size=(2, 1)), rng.uniform(0.05, 1, (2, 1)))
    oracle = Oracle(data, schedule)
    t = int(rng.integers(1, schedule.T + 1))
    z, width = line()
    for x in rng.normal(size=(3, 1, 1)):  # q(x_{t-1}) is the mean of q(x_{t-1} | x_t) over q(x_t)
        xt = q_step(schedule, x + 0 * z, t, z)  # where that x_t has any weight
        step = oracle.posterior(xt, t).log_prob(x + 0 * z)
        density = width * schedule.beta[t] ** 0.5 * np.exp(oracle.log_prob(xt, t) + step).sum()
        assert_close(density, np.exp(oracle.log_prob(x, t - 1)), rtol=1e-10, scale=1.0)


@given(st.floats(0, 1), schedules(64))
def test_e09_exact_reverse_variance_lies_between_beta_tilde_and_beta(data_variance, schedule):
    t = np.arange(1, schedule.T + 1)
    oracle = Oracle(gaussian_data([0.3], data_variance), schedule)
    exact = oracle.reverse_step(np.ones((len(t), 1)), t).variance[:, 0]
    total = schedule.alpha_bar * data_variance + schedule.one_minus_alpha_bar
    assert_close(exact, schedule.beta[1:] * total[:-1] / total[1:])
    assert (schedule.beta_tilde[t] <= exact * (1 + 1e-12)).all()
    assert (exact <= schedule.beta[t] * (1 + 1e-12)).all()
    for edge, table in ((0.0, schedule.beta_tilde), (1.0, schedule.beta)):
        step = Oracle(gaussian_data([0.3], edge), schedule).reverse_step(np.ones((len(t), 1)), t)
        assert_close(step.variance[:, 0], table[t])


def test_the_reverse_step_of_a_mixture_has_its_exact_moments():
    rng = np.random.default_rng(4)
    oracle = Oracle(any_data(rng, "mixture", d=1), NoiseSchedule.linear(10))
    x, width = line()
    for xt in rng.normal(size=(4, 1, 1)):
        posterior, step = oracle.posterior(xt, 6), oracle.reverse_step(xt, 6)
        density = width * np.exp(posterior.log_prob(x))
        assert_close(density.sum(), 1.0, scale=1.0)
        assert_close(density @ x, step.mean[0], scale=1.0)
        assert_close(density @ (x - step.mean) ** 2, step.variance[0], scale=1.0)


# ---- accepted wherever a model is ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("t", [3, np.array([1, 3, 10])])
def test_an_oracle_answers_in_the_dtype_and_shape_and_on_the_device_it_is_asked_in(xp, dtype, t):
    rng = np.random.default_rng(7)
    schedule = NoiseSchedule.linear(10)
    oracle = Oracle(mixture_data([0.4, 0.6], rng.normal(size=(2, 8)), 0.1), schedule)
    xt = xp.asarray(rng.normal(size=(3, 2, 2, 2)), dtype=dtype)
    step = oracle.reverse_step(xt, t)
    for answer in (oracle.denoise(xt, t), oracle.score(xt, t), step.mean, step.variance):
        assert isinstance(answer, xp.ndarray) and answer.dtype == dtype and answer.shape == xt.shape
    assert oracle.log_prob(xt, t).dtype == dtype and oracle.log_prob(xt, t).shape == (3,)
    each = [oracle.denoise(xt[i : i + 1], int(s)) for i, s in enumerate(np.broadcast_to(t, 3))]
    xp.testing.assert_allclose(oracle.denoise(xt, t), xp.concatenate(each), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda o: o.denoise(np.zeros((2, 3)), 1), ValueError, "2 elements a sample, got shape"),
        (lambda o: o.denoise(np.zeros((2, 2)), 0), ValueError, "t must lie in 1..5"),
        (lambda o: o.log_prob(np.zeros((2, 2)), 6), ValueError, "t must lie in 0..5"),
        (lambda o: o.denoise(np.zeros((2, 2), int), 1), TypeError, "xt must be a floating-point array"),
        (lambda o: o.denoise(nn.tensor(np.zeros((2, 2))), 1), TypeError, "NumPy and CuPy arrays, got Tensor"),
        (lambda o: o.posterior(np.zeros((2, 2)), 3, 3), ValueError, "s must be before t"),
        (lambda o: o.log_prob(np.zeros((2, 2)), 0), ValueError, "no density"),
        (lambda o: o.score(np.zeros((2, 2)), 0), ValueError, "no density"),
        (lambda o: mixture_data([0.5, 0.6], np.zeros((2, 1)), 1.0), ValueError, "sum 1"),
        (lambda o: mixture_data([0.5, 0.4], np.zeros((2, 1)), 1.0), ValueError, "sum 1"),
        (lambda o: mixture_data([1.0, 0.0], np.zeros((2, 1)), 1.0), ValueError, "positive"),
        (lambda o: mixture_data([1.5, -0.5], np.zeros((2, 1)), 1.0), ValueError, "positive"),
        (lambda o: mixture_data([1.0], np.zeros((2, 1)), 1.0), ValueError, r"means must have shape \(1, d\)"),
        (lambda o: mixture_data([1.0], np.zeros((1, 2)), -1.0), ValueError, "not be negative"),
        (lambda o: gaussian_data(np.zeros(2), [[1.0, 2.0], [2.0, 1.0]]), ValueError, "not be negative"),
        (lambda o: gaussian_data(np.zeros(2), [[1.0, 0.5], [0.5 + 1e-9, 1.0]]), ValueError, "symmetric"),
        (lambda o: gaussian_data(np.zeros(2), [[1.0, 0.0], [1e-9, 1.0]]), ValueError, "symmetric"),
        (lambda o: gaussian_data(np.zeros(2), np.eye(3)), ValueError, "covariances must fit"),
        (lambda o: gaussian_data(np.zeros(3), np.zeros((3, 2))), ValueError, "covariances must fit"),
        (lambda o: mixture_data([1.0], np.zeros((1, 2)), np.ones(2)), ValueError, "covariances must fit"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, error, named):
    oracle = Oracle(finite_data([[0.0, 1.0], [1.0, 0.0]]), NoiseSchedule.linear(5))
    with pytest.raises(error, match=named):
        call(oracle)


def test_a_mixture_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        gaussian_data([0.0], 1.0).means = np.ones((1, 1))


def test_data_given_as_integers_or_float32_are_computed_with_in_float64():
    third = np.float32(1 / 3)
    for data in (gaussian_data(np.array([third]), third), gaussian_data([1], 2), finite_data([[1], [2]])):
        posterior = data.diffused(0.5, 0.25).given(np.array([[0.3]]), 0.5, 0.1)
        assert posterior.mean().dtype == posterior.covariance().dtype == np.float64
    data = mixture_data(np.array([0.5, 0.5], np.float32), np.array([[0.0], [third]], np.float32), third)
    assert data.log_weights.dtype == data.means.dtype == data.variances.dtype == np.float64
    assert abs(data.mean()[0] / (np.float64(third) / 2) - 1) < 1e-15


def test_a_covariance_without_full_rank_is_a_distribution_all_the_same():
    data = gaussian_data(np.zeros(2), [[1.0, 1.0], [1.0, 1.0]])
    x = data.sample(np.random.default_rng(0), 50)
    np.testing.assert_allclose(x[:, 0], x[:, 1], atol=1e-12)
    oracle = Oracle(data, NoiseSchedule.linear(10))
    np.testing.assert_allclose(oracle.denoise(np.array([[1.0, -1.0]]), 5), 0.0, atol=1e-12)
    for scale in (1e-6, 1.0, 1e6):  # where an eigenvalue comes out as minus rounding
        for direction in np.random.default_rng(1).normal(size=(20, 6)):
            variances = gaussian_data(np.zeros(6), scale * np.outer(direction, direction)).variances
            assert (variances >= 0).all()
            assert abs(variances.sum() / (scale * direction @ direction) - 1) < 1e-12


# ---- data of any type and shape ----


def test_points_that_are_integers_or_float32_become_float64_data():
    for points in ([[0], [1]], np.array([[0], [1]], np.float32)):
        assert finite_data(points).means.dtype == np.float64


def test_a_mixture_takes_one_variance_for_each_component():
    means, x = np.zeros((2, 3)), np.ones((4, 3))
    each, all_alike = (mixture_data([0.5, 0.5], means, v) for v in ([[0.3], [2.0]], [[0.3] * 3, [2.0] * 3]))
    assert_close(each.log_prob(x), all_alike.log_prob(x))


def test_what_is_rounding_beside_one_component_is_a_variance_of_another():
    covariances = np.array([1e-16, 1.0])[:, None, None] * np.eye(2)
    assert_close(mixture_data([0.5, 0.5], np.zeros((2, 2)), covariances).variances[0], np.full(2, 1e-16))


def test_the_last_step_of_a_small_integer_type_is_a_step_like_any_other():
    schedule = NoiseSchedule.linear(255)
    oracle, rng = Oracle(any_data(np.random.default_rng(0), "mixture"), schedule), np.random.default_rng
    x, t, s = rng(1).normal(size=(2, 3)), np.array([255, 255], np.uint8), np.array([254, 0], np.uint8)
    for small, plain in ((np.uint8(255), 255), (t, t.astype(int))):
        np.testing.assert_array_equal(oracle.log_prob(x, small), oracle.log_prob(x, plain))
        np.testing.assert_array_equal(oracle.denoise(x, small), oracle.denoise(x, plain))
        np.testing.assert_array_equal(oracle.reverse_step(x, small).mean, oracle.reverse_step(x, plain).mean)
        np.testing.assert_array_equal(oracle.marginal(small).means, oracle.marginal(plain).means)
    found, expected = oracle.posterior(x, t, s), oracle.posterior(x, t.astype(int), s.astype(int))
    np.testing.assert_array_equal(found.means, expected.means)
    assert oracle.sample(rng(0), np.uint8(200), np.uint8(255)).shape == (200, 3)
    with pytest.raises(ValueError, match="t must lie in 0..255, got -1..-1"):
        oracle.marginal(-1)
    with pytest.raises(TypeError, match="t must be an integer"):
        oracle.sample(rng(0), 3, 1.0)
