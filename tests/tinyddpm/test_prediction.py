import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, numbers, schedules_and_t

from tinyddpm import (
    PREDICTIONS,
    NoiseSchedule,
    convert,
    from_x0,
    prediction,
    q_marginal,
    q_posterior,
    q_sample,
    x0_from,
)
from tinyddpm.prediction import guided

point = numbers.map(lambda x: np.array([[x]]))
kinds = st.sampled_from(PREDICTIONS)


def conditioning(schedule, kind, t):
    """|d x_0 / d prediction|: how much of an error in the prediction arrives in x_0."""
    signal, noise = schedule.alpha_bar[t] ** 0.5, schedule.one_minus_alpha_bar[t] ** 0.5
    from_x0 = schedule.alpha_bar[t - 1] ** 0.5 * schedule.beta[t] / noise**2
    to_x0 = {"eps": noise / signal, "x0": 1.0, "v": noise, "score": noise**2 / signal, "mean": 1 / from_x0}
    return {**to_x0, "velocity": noise / (signal + noise)}[kind]


@given(schedules_and_t(), point, point)
def test_e24_each_prediction_is_what_its_name_says(case, x0, eps):
    schedule, t = case
    signal, noise = schedule.alpha_bar[t] ** 0.5, schedule.one_minus_alpha_bar[t] ** 0.5
    xt = q_sample(schedule, x0, t, eps)
    found = {kind: from_x0(schedule, kind, x0, xt, t) for kind in PREDICTIONS}
    scale = 1 + 1 / noise  # eps is found as (x_t - signal x_0)/noise
    assert_close(found["eps"], eps, scale=scale)
    assert_close(found["x0"], x0)
    assert_close(found["v"], signal * eps - noise * x0, scale=scale)
    assert_close(found["score"], -eps / noise, scale=scale / noise)
    assert_close(found["mean"], q_posterior(schedule, x0, xt, t).mean)
    assert_close(found["velocity"], eps - x0, scale=scale)


@given(schedules_and_t(), kinds, kinds, point, point)
def test_e24_every_conversion_and_back_is_the_identity(case, source, target, value, xt):
    schedule, t = case
    there = convert(schedule, value, xt, t, source, target)
    back = convert(schedule, there, xt, t, target, source)
    x0 = x0_from(schedule, source, value, xt, t)
    # rounding of x_0, of x_t and of `there`, each carried into `back`
    to_x0, to_target = (conditioning(schedule, kind, t) for kind in (source, target))
    x0_error = abs(x0) + abs(xt) * max(1, 1 / schedule.alpha_bar[t] ** 0.5) + to_target * abs(there)
    assert_close(back, value, scale=abs(value) + x0_error / to_x0)


@given(schedules_and_t(), kinds, point, point, point)
def test_e24_predictions_are_linear_with_the_slope_of_their_bijection(case, kind, x0, xt, step):
    schedule, t = case
    moved = from_x0(schedule, kind, x0 + step, xt, t) - from_x0(schedule, kind, x0, xt, t)
    sign = -1 if kind in ("eps", "v", "velocity") else 1
    slope = sign / conditioning(schedule, kind, t)
    terms = (abs(xt) + abs(x0) + 1) * (1 + 1 / schedule.one_minus_alpha_bar[t])
    assert_close(moved, slope * step, scale=terms)


@given(schedules_and_t(), point, point)
def test_e08_mean_from_the_noise_is_the_posterior_mean(case, x0, eps):
    schedule, t = case
    xt = q_sample(schedule, x0, t, eps)
    mean, terms = prediction.mean_from_eps(schedule, eps, xt, t), abs(xt) + abs(eps)
    assert_close(mean, q_posterior(schedule, x0, xt, t).mean, scale=terms / schedule.alpha[t] ** 0.5)


@given(schedules_and_t(), point, point)
def test_e08_misprint_alpha_bar_in_place_of_alpha_is_caught(case, x0, eps):
    schedule, t = case
    ratio = (schedule.alpha[t] / schedule.alpha_bar[t]) ** 0.5  # the misprinted mean over the right one
    xt = q_sample(schedule, x0, t, eps)
    right = q_posterior(schedule, x0, xt, t).mean
    misprinted = prediction.mean_from_eps(schedule, eps, xt, t) * ratio
    if t > 1 and abs(right) > 0.1:
        assert abs(misprinted - right) > 1e-8


@given(schedules_and_t(), point, point)
def test_e25_score_is_the_gradient_of_the_conditional_log_density(case, x0, xt):
    schedule, t = case
    q, h = q_marginal(schedule, x0, t), 0.1 * schedule.one_minus_alpha_bar[t] ** 0.5
    plus, minus = q.log_prob(xt + h), q.log_prob(xt - h)  # of a parabola: the central difference is exact
    score = prediction.score_from_x0(schedule, x0, xt, t)
    assert_close((plus - minus) / (2 * h), score[0], scale=(abs(plus) + abs(minus)) / h, rtol=1e-11)


@given(schedules_and_t(), point, st.floats(0, 4))
def test_e27_tweedie_gives_the_posterior_mean_of_gaussian_data(case, xt, v):
    schedule, t = case
    alpha_bar = schedule.alpha_bar[t]
    total = alpha_bar * v + schedule.one_minus_alpha_bar[t]  # the variance of x_t for data N(0, v)
    posterior_mean = alpha_bar**0.5 * v / total * xt
    found = prediction.x0_from_score(schedule, -xt / total, xt, t)
    assert_close(found, posterior_mean, scale=abs(xt) / alpha_bar**0.5)


@given(schedules_and_t(), point, point)
def test_e27_conditional_score_gives_back_x0(case, x0, xt):
    schedule, t = case
    score = prediction.score_from_x0(schedule, x0, xt, t)
    found = prediction.x0_from_score(schedule, score, xt, t)
    assert_close(found, x0, scale=abs(xt) / schedule.alpha_bar[t] ** 0.5)


# ---- E37: other papers' coordinates ----


@given(schedules_and_t(), point, point)
def test_e37_karras_preconditioned_network_is_v_prediction_with_its_sign_turned(case, x0, eps):
    schedule, t = case
    xt = q_sample(schedule, x0, t, eps)
    x, sigma = prediction.karras_input(schedule, xt, t)
    c_skip, c_out, c_in = prediction.preconditioning(sigma)
    assert_close(sigma**2, 1 / schedule.snr[t])
    assert_close(x, x0 + sigma * eps, scale=abs(x0) + sigma * abs(eps))
    assert_close(c_in * x, xt)
    v = from_x0(schedule, "v", x0, xt, t)
    assert_close(c_skip * x + c_out * -v, x0, scale=abs(xt) + abs(v))


@given(schedules_and_t(), point, point)
def test_e37_flow_matching_walks_the_same_path_on_a_line(case, x0, eps):
    schedule, t = case
    xt = q_sample(schedule, x0, t, eps)
    xu, u = prediction.flow_input(schedule, xt, t)
    sigma = schedule.snr[t] ** -0.5
    assert_close(u, sigma / (1 + sigma))
    assert_close(xu, (1 - u) * x0 + u * eps, scale=abs(x0) + abs(eps))
    velocity = from_x0(schedule, "velocity", x0, xt, t)
    assert_close(velocity, eps - x0, scale=1 + 1 / schedule.one_minus_alpha_bar[t] ** 0.5)
    assert_close(xu - u * velocity, x0, scale=abs(xu) + abs(u * velocity))  # along the line, back to its start


# ---- E39: guidance ----


@given(schedules_and_t(), kinds, point, point, point, st.floats(0, 4))
def test_e39_guidance_means_the_same_x0_whatever_is_combined(case, kind, null, conditional, xt, scale):
    schedule, t = case
    found = guided(*(from_x0(schedule, kind, x0, xt, t) for x0 in (null, conditional)), scale)
    expected = guided(null, conditional, scale)
    assert_close(expected, null + scale * (conditional - null), scale=10 * (abs(null) + abs(conditional)))
    size = abs(expected) + 10 * (abs(null) + abs(conditional)) + conditioning(schedule, kind, t) * abs(found)
    amplified = (abs(xt) + abs(null) + abs(conditional)) * (1 + 1 / schedule.alpha_bar[t] ** 0.5)
    assert_close(x0_from(schedule, kind, found, xt, t), expected, scale=10 * (size + amplified))


def test_e39_a_scale_of_0_or_1_is_one_of_the_two_models_to_the_last_bit():
    null, conditional = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    assert (guided(null, conditional, 0) == null).all() and (guided(null, conditional, 1.0) == conditional).all()
    assert guided(null, conditional, np.float64(1.5)).dtype == np.float32
    assert (guided(null, conditional, np.uint8(2)) == guided(null, conditional, 2)).all()  # 1 - np.uint8(2) is 255
    with pytest.raises(ValueError, match="conditional must have the shape of null"):
        guided(null, conditional[:1], 2)
    for scale in (np.nan, np.inf):
        with pytest.raises(ValueError, match="the guidance scale must be finite"):
            guided(null, conditional, scale)


# ---- shapes, dtypes, errors ----


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("t", [3, np.array([3, 7])])
def test_dtype_shape_and_module_are_those_of_the_data(kind, t, xp):
    schedule, x = NoiseSchedule.linear(10), xp.ones((2, 3, 3), np.float32)
    for found in (from_x0(schedule, kind, x, x, t), x0_from(schedule, kind, x, x, t)):
        assert isinstance(found, xp.ndarray) and found.dtype == np.float32 and found.shape == x.shape


@pytest.mark.parametrize("source", PREDICTIONS)
@pytest.mark.parametrize("target", PREDICTIONS)
def test_a_batch_of_t_is_the_samples_one_by_one(source, target):
    schedule, t = NoiseSchedule.cosine(10), np.array([1, 6, 10])
    value, xt = np.random.default_rng(0).standard_normal((2, 3, 2, 2))
    together = convert(schedule, value, xt, t, source, target)
    for i in range(3):
        one = convert(schedule, value[i : i + 1], xt[i : i + 1], int(t[i]), source, target)
        assert (together[i] == one[0]).all()


def test_predictions_may_be_tensors_that_differentiate_themselves():
    nn = pytest.importorskip("nn")
    schedule, t = NoiseSchedule.cosine(10), np.array([1, 6, 10])
    value, xt = np.random.default_rng(0).standard_normal((2, 3, 2))
    for source in PREDICTIONS:
        for target in PREDICTIONS:
            found = convert(schedule, nn.Tensor(value), nn.Tensor(xt), t, source, target)
            assert_close(found.data, convert(schedule, value, xt, t, source, target))


def test_errors_name_the_kind_the_range_and_the_argument():
    schedule, x = NoiseSchedule.linear(10), np.ones((2, 3))
    for f in (x0_from, from_x0):
        with pytest.raises(ValueError, match="unknown prediction 'epsilon'; there are: eps, x0, v"):
            f(schedule, "epsilon", x, x, 1)
        name = {x0_from: "prediction", from_x0: "x0"}[f]
        with pytest.raises(ValueError, match=f"^{name} must have the shape of xt, "):
            f(schedule, "eps", x[:1], x, 1)
        with pytest.raises(TypeError, match=f"^{name} must have the dtype of xt, "):
            f(schedule, "eps", x.astype(np.float32), x, 1)
        for kind in PREDICTIONS:
            for t in (0, 11, -1):
                with pytest.raises(ValueError, match=r"t must lie in 1\.\.10"):
                    f(schedule, kind, x, x, t)
    with pytest.raises(ValueError, match=r"t must lie in 1\.\.10"):
        prediction.mean_from_eps(schedule, x, x, 0)
