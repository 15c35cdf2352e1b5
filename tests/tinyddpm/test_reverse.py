"""p(x_{t-1} | x_t), the ancestral step, and the one loop of every sampler."""

from functools import partial

import numpy as np
import pytest
from exact import ideal_denoiser, no_noise, schedules
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, normal_arrays, numbers, schedules_and_t, seeds

import nn
from tinyddpm import Gaussian, NoiseSchedule, ddim_step, p_mean_variance, p_mean_variance_eps, q_sample, sample
from tinyddpm.prediction import eps_from_x0
from tinyddpm.reverse import (
    ancestral_step,
    learned_variance,
    predict_x0,
    reverse_process,
    reverse_variance,
    variance_table,
)
from tinyddpm.solvers import dynamic_threshold

point = numbers.map(lambda x: np.array([[x]]))
LINEAR = NoiseSchedule.linear(1000)


def half(xt, t):
    return xt / 2


def ones_like(x, calls):
    """A source of noise that is all ones, and notes the steps that asked for it."""

    def noise(t):
        calls.append(t)
        return np.ones_like(x)

    return noise


# ---- E29, E9: p(x_{t-1} | x_t) ----


@given(schedules_and_t(), point, point, st.sampled_from(["beta", "beta_tilde"]))
def test_e29_x0_form_equals_eps_form(case, x0_hat, eps, variance):
    schedule, t = case
    xt = q_sample(schedule, x0_hat, t, eps)
    a = p_mean_variance(schedule, x0_hat, xt, t, variance)
    b = p_mean_variance_eps(schedule, eps, xt, t, variance)
    assert_close(a.mean, b.mean, scale=(abs(xt) + abs(eps)) / schedule.alpha[t] ** 0.5)
    assert a.variance == b.variance == variance_table(schedule, variance)[t]
    by_default = p_mean_variance(schedule, x0_hat, xt, t), p_mean_variance_eps(schedule, eps, xt, t)
    assert by_default[0].variance == by_default[1].variance == variance_table(schedule, "beta_tilde")[t]


def test_e29_the_two_forms_part_as_soon_as_something_is_clipped():
    """Why two codes that look alike draw different digits: Algorithm 2 has no x_0 to clip."""
    schedule = NoiseSchedule.linear(20)
    noises = np.random.default_rng(0).standard_normal((21, 50, 1))
    x_T = noises[0]

    def in_the_x0_form(v, clip):
        return sample(ideal_denoiser(schedule, v), schedule, x_T, noises.__getitem__, ancestral_step, clip)

    def in_the_eps_form(v):
        def algorithm_2(denoise, schedule, xt, t):
            return p_mean_variance_eps(schedule, eps_from_x0(schedule, denoise(xt, t), xt, t), xt, t)

        return sample(ideal_denoiser(schedule, v), schedule, x_T, noises.__getitem__, algorithm_2)

    assert_close(in_the_x0_form(0.05, clip=(-10, 10)), in_the_eps_form(0.05), scale=1.0, rtol=1e-11)
    clipped = in_the_x0_form(1.0, clip=(-1, 1))
    assert abs(clipped - in_the_eps_form(1.0)).max() > 0.5
    assert abs(clipped).max() == 1


@given(schedules_and_t())
def test_e09_fixed_variances_and_the_one_taken_at_t_1(case):
    schedule, t = case
    assert (variance_table(schedule, "beta") == schedule.beta).all()
    small = variance_table(schedule, "beta_tilde")
    assert small[t] == (schedule.beta_tilde[t] if t > 1 else small[1])
    assert small[1] == (schedule.beta_tilde[2] if schedule.T > 1 else schedule.beta[1]) > 0
    assert schedule.beta_tilde[1] == 0  # the schedule's own table is as it was
    for name in ("beta", "beta_tilde"):
        assert reverse_variance(schedule, name, np.ones((1, 1)), t) == variance_table(schedule, name)[t]
    assert reverse_variance(schedule, 0.3, np.ones((1, 1)), t) == 0.3


@pytest.mark.parametrize("number", [np.float64(0.25), np.float32(0.25), np.float16(0.25), 0.25])
def test_a_variance_that_is_a_number_leaves_the_dtype_of_the_data(number):
    xt = np.ones((2, 3), np.float32)
    p = p_mean_variance(LINEAR, xt, xt, 5, number)
    assert p.variance == 0.25 and p.sample(xt).dtype == np.float32


@given(schedules_and_t(), st.floats(0, 1))
def test_e19_learned_variance_is_the_geometric_mean_of_the_fixed_ones(case, fraction):
    schedule, t = case
    low, high = (variance_table(schedule, name)[t] for name in ("beta_tilde", "beta"))
    found = learned_variance(schedule, np.array([[fraction]]), np.ones((1, 1)), t)
    assert_close(found, high**fraction * low ** (1 - fraction), rtol=1e-13)
    p = p_mean_variance(schedule, np.ones((1, 1)), np.ones((1, 1)), t, found)
    assert (p.variance == found).all()


RECURSION = {"beta_tilde": 0.2461, "beta": 0.2508}


@pytest.mark.parametrize("variance", RECURSION)
def test_e29_variance_of_the_whole_chain_for_gaussian_data(variance):
    # linear in the noises, so that the squares of what each of them contributes to x_0 add up to the variance
    impulses = np.eye(1001)[:, :, None]
    step = partial(ancestral_step, variance=variance)
    x0 = sample(ideal_denoiser(LINEAR, 0.25), LINEAR, impulses[0], lambda t: impulses[t - 1], step)
    assert round((x0**2).sum(), 4) == RECURSION[variance]


@given(schedules(64), st.floats(0, 4))
def test_e29_with_the_exact_reverse_step_every_marginal_is_that_of_the_forward_process(schedule, v):
    total = schedule.alpha_bar * v + schedule.one_minus_alpha_bar  # Var x_t
    denoise, found = ideal_denoiser(schedule, v), total[-1]
    for t in range(schedule.T, 0, -1):
        one = np.ones((1, 1))
        exact_variance = np.full((1, 1), total[t - 1] * schedule.beta[t] / total[t])
        p = p_mean_variance(schedule, denoise(one, t), one, t, exact_variance)
        found = (p.mean**2 * found + p.variance).item()
        assert_close(found, total[t - 1], scale=1e-3)


# ---- the chain ----


def test_the_chain_visits_every_step_once_and_adds_no_noise_at_the_last():
    schedule, x_T, asked, calls = NoiseSchedule.linear(4), np.ones((2, 1)), [], []

    def denoise(xt, t):
        asked.append((t, xt.copy()))
        return xt / 2

    steps = list(reverse_process(denoise, schedule, x_T, ones_like(x_T, calls)))
    assert [t for t, _, _ in steps] == [t for t, _ in asked] == [4, 3, 2, 1]
    assert calls == [4, 3, 2]
    x = x_T
    for (t, x_prev, x0_hat), (_, seen) in zip(steps, asked, strict=True):
        p = p_mean_variance(schedule, x / 2, x, t)
        assert (seen == x).all() and (x0_hat == x / 2).all()
        assert (x_prev == (p.sample(np.ones_like(x)) if t > 1 else p.mean)).all()
        x = x_prev
    assert (sample(denoise, schedule, x_T, ones_like(x_T, [])) == x).all()


def test_a_respaced_chain_asks_the_model_at_the_original_timesteps():
    asked = []

    def denoise(xt, t):
        asked.append(t)
        return xt

    x_T = np.ones((2, 1))
    for schedule in (LINEAR.respace(4), LINEAR.respace([1, 20, 600])):
        sample(denoise, schedule, x_T, no_noise, ddim_step)
    assert asked == [1000, 750, 500, 250, 600, 20, 1]
    told = predict_x0(lambda xt, t: xt * t, LINEAR.respace(4), np.ones(2), np.array([1, 3]))
    assert told.tolist() == [250, 750]


def test_a_step_may_ask_the_model_twice_or_not_at_all_and_the_latest_answer_is_told():
    def step(denoise, schedule, xt, t):
        if t == 3:
            denoise(xt, 3)
            x0_hat = denoise(xt, 2)
        return Gaussian(xt if t != 3 else x0_hat, 0.0)

    chain = reverse_process(lambda xt, t: t * xt, NoiseSchedule.linear(3), np.ones((2, 1)), no_noise, step)
    assert [(t, x[0, 0], x0_hat[0, 0]) for t, x, x0_hat in chain] == [(3, 2, 2), (2, 2, 2), (1, 2, 2)]


def test_the_chain_takes_variances_that_differ_within_a_sample():
    schedule, x_T = NoiseSchedule.linear(4), np.array([[0.5], [-1.0]])
    step = partial(ancestral_step, variance=np.array([[0.0], [4.0]]))
    means = [x for _, x, _ in reverse_process(half, schedule, x_T, lambda t: 0 * x_T, step)]
    _, first, _ = next(reverse_process(half, schedule, x_T, lambda t: np.ones_like(x_T), step))
    assert_close(first, means[0] + np.array([[0.0], [2.0]]), scale=1.0)


def test_progress_wraps_the_loop():
    seen = []

    def progress(steps, total):
        for step in steps:
            seen.append((step[0], total))
            yield step

    x_T = np.ones((2, 1))
    x0 = sample(half, NoiseSchedule.linear(3), x_T, no_noise, ddim_step, progress=progress)
    assert seen == [(3, 3), (2, 3), (1, 3)]
    assert (x0 == sample(half, NoiseSchedule.linear(3), x_T, no_noise, ddim_step)).all()


# ---- clip: a pair, a function, or None ----


def test_what_is_clipped_is_the_prediction_and_none_is_unless_it_is_asked_for():
    x_T, schedule = np.array([[0.5], [-2.0]]), NoiseSchedule.linear(3)
    for clip, expected in (((-1, 1), [1, -1]), ((-1.5, 0.25), [0.25, -1.5]), (None, [2, -8])):
        x0 = sample(lambda xt, t: 4 * x_T, schedule, x_T, no_noise, ddim_step, clip)
        assert_close(x0.ravel(), expected)
    assert_close(sample(lambda xt, t: 4 * x_T, schedule, x_T, no_noise, ddim_step).ravel(), [2, -8])


def test_a_dynamic_threshold_brings_each_sample_back_to_the_range_and_keeps_its_contrast(xp):
    clip = dynamic_threshold(0.5)  # the median of |x0_hat|: 2, 0.5 and 1.5
    x0_hat = xp.asarray([[1.0, -2.0, 4.0], [0.5, -0.25, 3.0], [0.0, 1.5, -6.0]], np.float32)
    found = nn.to_numpy(predict_x0(lambda xt, t: x0_hat, LINEAR, x0_hat, 1, clip))
    assert found.dtype == np.float32
    assert_close(found, [[0.5, -1.0, 1.0], [0.5, -0.25, 1.0], [0.0, 1.0, -1.0]])
    x = np.ones((1, 2, 2, 1)) * 0.5
    assert (dynamic_threshold()(x) == x).all()


@pytest.mark.parametrize("quantile", [-0.1, 1.1, np.nan])
def test_a_quantile_that_is_none_is_refused(quantile):
    with pytest.raises(ValueError, match=r"a quantile must lie in \[0, 1\]"):
        dynamic_threshold(quantile)


@pytest.mark.parametrize("clip", [[-2, 2], np.array([-2.0, 2.0]), (np.float64(-2), np.float64(2)), (-2, 2)])
def test_a_range_to_clip_to_does_not_change_the_dtype(clip):
    x_T = np.float32([[0.5], [-2.0]])
    found = predict_x0(lambda xt, t: 4 * xt, LINEAR, x_T, 1, clip)
    assert found.dtype == np.float32 and found.tolist() == [[2], [-2]]


@pytest.mark.parametrize(
    "clip", [True, False, 1, (1, -1), (1, 1), (-1, 0, 1), (1,), (), "01", (np.nan, 1), (0, np.nan)]
)
def test_what_is_no_range_to_clip_to_is_refused_before_the_model_is_asked(clip):
    def denoise(xt, t):
        raise AssertionError("asked")

    with pytest.raises(ValueError, match="clip must be a pair"):
        sample(denoise, LINEAR, np.ones((2, 1)), no_noise, clip=clip)
    with pytest.raises(ValueError, match="clip must be a pair"):
        predict_x0(denoise, LINEAR, np.ones((2, 1)), 3, clip)


# ---- shapes, dtypes, errors ----


def test_no_step_starts_at_t_0():
    x = np.ones((2, 1))
    for f in (
        lambda: p_mean_variance(LINEAR, x, x, 0),
        lambda: p_mean_variance_eps(LINEAR, x, x, 0),
        lambda: reverse_variance(LINEAR, "beta", x, 0),
        lambda: learned_variance(LINEAR, x, x, 0),
        lambda: ancestral_step(half, LINEAR, x, 0),
        lambda: predict_x0(half, LINEAR, x, 0),
    ):
        with pytest.raises(ValueError, match=r"t must lie in 1\.\.1000"):
            f()


def test_a_model_or_noise_of_another_shape_or_dtype_raises():
    schedule, x_T = NoiseSchedule.linear(3), np.ones((2, 1))
    with pytest.raises(ValueError, match="what denoise returns must have the shape of xt"):
        sample(lambda xt, t: xt[:1], schedule, x_T, no_noise)
    with pytest.raises(ValueError, match="what denoise returns must have the shape of xt"):
        sample(lambda xt, t: None, schedule, x_T, no_noise)
    with pytest.raises(TypeError, match="what denoise returns must have the dtype of xt"):
        sample(lambda xt, t: xt.astype(np.float32), schedule, x_T, no_noise)
    with pytest.raises(ValueError, match="noise must have the shape"):
        sample(half, schedule, x_T, lambda t: np.ones(2))
    with pytest.raises(TypeError, match="noise must have the dtype"):
        sample(half, schedule, x_T, lambda t: np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match="eps_hat must have the shape of xt, "):
        p_mean_variance_eps(schedule, x_T[:1], x_T, 2)
    with pytest.raises(ValueError, match="x0 must have the shape of xt"):
        p_mean_variance(schedule, x_T[:1], x_T, 2)


@pytest.mark.parametrize("x_T", [np.ones((2, 1), int), [[1.0]], np.ones((2, 1), complex), np.ones((2, 1), bool), None])
def test_a_chain_starts_from_floating_numbers(x_T):
    with pytest.raises(TypeError, match="x_T must be a floating-point array"):
        sample(half, NoiseSchedule.linear(3), x_T, no_noise)


def test_a_chain_of_arrays_does_not_become_one_of_tensors():
    """A graph would grow behind it, over the whole chain."""
    x_T = np.ones((2, 1))
    for denoise, noise in ((lambda xt, t: nn.Tensor(xt / 2), ones_like(x_T, [])), (half, lambda t: nn.Tensor(x_T))):
        with pytest.raises(TypeError, match="must return a ndarray; x became a Tensor"):
            sample(denoise, NoiseSchedule.linear(3), x_T, noise)


@pytest.mark.parametrize(
    "step, error, message",
    [
        (lambda d, schedule, xt, t: Gaussian(schedule.alpha[t] * xt, 0.0), TypeError, "dtype of x_T, float32"),
        (lambda d, schedule, xt, t: Gaussian(xt[:1], 0.0), ValueError, "shape of x_T"),
        (lambda d, schedule, xt, t: Gaussian(xt, np.full((2, 1), -1.0, np.float32)), ValueError, "not be negative"),
        (lambda d, schedule, xt, t: Gaussian(xt, np.ones((3, 1), np.float32)), ValueError, "does not broadcast"),
    ],
)
def test_a_step_of_ones_own_that_changes_dtype_or_shape_is_told_so(step, error, message):
    with pytest.raises(error, match=message):
        sample(half, NoiseSchedule.linear(3), np.ones((2, 1), np.float32), no_noise, step)


def test_an_empty_batch_is_a_batch():
    x_T = np.ones((0, 3, 3, 1), np.float32)
    assert sample(half, NoiseSchedule.linear(3), x_T, lambda t: x_T).shape == x_T.shape


def test_what_is_not_a_number_stays_so():
    x0 = sample(half, NoiseSchedule.linear(3), np.array([[np.nan], [1.0]]), lambda t: np.ones((2, 1)), clip=(-1, 1))
    assert np.isnan(x0[0, 0]) and np.isfinite(x0[1, 0])


@given(seeds)
def test_a_batch_of_t_is_the_samples_one_by_one(seed):
    schedule, t = NoiseSchedule.cosine(10), np.array([1, 6, 10])
    x0, xt = normal_arrays(seed, (3, 2, 2), (3, 2, 2))
    for f in (
        lambda x0, xt, t: ddim_step(lambda xt, t: x0, schedule, xt, t, 0.5),
        lambda x0, xt, t: p_mean_variance(schedule, x0, xt, t),
        lambda x0, xt, t: p_mean_variance_eps(schedule, eps_from_x0(schedule, x0, xt, t), xt, t, "beta"),
        lambda x0, xt, t: Gaussian(learned_variance(schedule, x0, xt, t), 1.0),
    ):
        together = f(x0, xt, t)
        for i in range(3):
            one = f(x0[i : i + 1], xt[i : i + 1], int(t[i]))
            assert_close(together.mean[i], one.mean[0], scale=1.0)
            assert_close(np.broadcast_to(together.variance, (3, 1, 1))[i].item(), float(one.variance))
