import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, normal_arrays, numbers, schedules, schedules_and_t, seeds

from tinyddpm import (
    Gaussian,
    NoiseSchedule,
    ddim_step,
    p_mean_variance,
    p_mean_variance_eps,
    q_sample,
    sample,
)
from tinyddpm.prediction import eps_from_x0
from tinyddpm.reverse import (
    SAMPLERS,
    ddim_encode,
    learned_variance,
    predict_x0,
    reverse_process,
    reverse_variance,
    second_order_step,
    variance_table,
)

point = numbers.map(lambda x: np.array([[x]]))
LINEAR = NoiseSchedule.linear(1000)


def ideal_denoiser(schedule, v):
    """E[x_0 | x_t] for data N(0, v)."""

    def denoise(xt, t):
        alpha_bar, noise = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
        return alpha_bar**0.5 * v / (alpha_bar * v + noise) * xt

    return denoise


def no_noise(t):
    raise AssertionError(f"noise asked for at t = {t}")


def unit_noise(x, calls):
    def noise(t):
        calls.append(t)
        return np.ones_like(x)

    return noise


# ---- E29: the ancestral step ----


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
    schedule = NoiseSchedule.linear(20)
    x_T = np.random.default_rng(0).standard_normal((50, 1))

    def run(sampler, clip, v):
        rng = np.random.default_rng(1)
        noise = lambda t: rng.standard_normal(x_T.shape)  # noqa: E731
        return sample(ideal_denoiser(schedule, v), schedule, x_T, noise, sampler, clip=clip)

    algorithm_2 = run("ancestral_eps", False, v=0.05)
    assert_close(run("ancestral", (-10, 10), v=0.05), algorithm_2, scale=1.0, rtol=1e-11)
    clipped = run("ancestral", True, v=1.0)
    assert abs(clipped - run("ancestral_eps", False, v=1.0)).max() > 0.5
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
    denoise = ideal_denoiser(LINEAR, 0.25)
    x0 = sample(denoise, LINEAR, impulses[0], lambda t: impulses[t - 1], variance=variance, clip=False)
    assert round((x0**2).sum(), 4) == RECURSION[variance]


@given(schedules, st.floats(0, 4))
def test_e29_with_the_exact_reverse_step_every_marginal_is_that_of_the_forward_process(schedule, v):
    total = schedule.alpha_bar * v + schedule.one_minus_alpha_bar  # Var x_t
    denoise, found = ideal_denoiser(schedule, v), total[-1]
    for t in range(schedule.T, 0, -1):
        one = np.ones((1, 1))
        exact_variance = np.full((1, 1), total[t - 1] * schedule.beta[t] / total[t])
        p = p_mean_variance(schedule, denoise(one, t), one, t, exact_variance)
        found = (p.mean**2 * found + p.variance).item()
        assert_close(found, total[t - 1], scale=1e-3)


# ---- E30: DDIM ----


@given(schedules_and_t(), point, st.floats(0, 1))
def test_e30_every_eta_keeps_the_marginal_given_x0(case, x0, eta):
    schedule, t = case
    alpha_bar, noise = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
    moments = []
    for eps in (1.0, -1.0):
        xt = alpha_bar**0.5 * x0 + noise**0.5 * eps
        moments.append(ddim_step(schedule, x0, xt, t, eta))
    mean = (moments[0].mean + moments[1].mean) / 2
    variance = ((moments[0].mean - moments[1].mean) / 2) ** 2 + moments[0].variance
    assert_close(mean, schedule.alpha_bar[t - 1] ** 0.5 * x0, scale=1 / noise**0.5)
    before = schedule.one_minus_alpha_bar[t - 1]
    assert_close(variance, before, scale=(before / noise) ** 0.5 * (1 + abs(x0)) * before**0.5)


@given(schedules_and_t(), point, point)
def test_e30_eta_1_is_the_ancestral_step_and_eta_0_has_no_variance(case, x0, xt):
    schedule, t = case
    full, ancestral = ddim_step(schedule, x0, xt, t, 1.0), p_mean_variance(schedule, x0, xt, t)
    terms = (abs(xt) + abs(x0)) / schedule.one_minus_alpha_bar[t] ** 0.5
    assert_close(full.mean, ancestral.mean, scale=terms)
    assert full.variance == schedule.beta_tilde[t]
    assert ddim_step(schedule, x0, xt, t).variance == 0
    assert_close(ddim_step(schedule, x0, xt, t, 0.5).variance, schedule.beta_tilde[t] / 4)


@given(schedules_and_t(), point, point)
def test_e30_eta_0_keeps_the_noise_it_sees(case, x0, eps):
    schedule, t = case
    noise = schedule.one_minus_alpha_bar[t] ** 0.5
    xt = q_sample(schedule, x0, t, eps)
    x_prev = ddim_step(schedule, x0, xt, t).mean
    assert_close(x_prev, q_sample(schedule, x0, t - 1, eps), scale=(abs(x0) + abs(xt)) / noise)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_e30_eta_must_lie_in_0_1(eta):
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        ddim_step(LINEAR, np.ones((1, 1)), np.ones((1, 1)), 5, eta)


def test_e30_encoding_and_decoding_return_the_data_up_to_an_error_that_falls_with_T():
    x0, errors = np.array([[0.3], [-0.8]]), []
    for T in (50, 100, 200):
        schedule = NoiseSchedule.linear(T)
        denoise = ideal_denoiser(schedule, 0.25)
        x_T = ddim_encode(denoise, schedule, x0)
        errors.append(abs(sample(denoise, schedule, x_T, no_noise, "ddim", clip=False) - x0).max())
    ratio = np.array(errors[:-1]) / errors[1:]
    assert errors[0] < 0.1 and (1.7 < ratio).all() and (ratio < 2.3).all(), errors  # first order


def test_e30_encoding_gives_the_exact_noise_where_the_model_knows_it():
    schedule, x0 = NoiseSchedule.cosine(10), np.array([[0.3], [-0.8]])
    eps = np.array([[1.0], [2.0]])
    calls = []

    def denoise(xt, t):  # the x_0 that holds exactly this eps
        calls.append(t)
        return (xt - schedule.one_minus_alpha_bar[t] ** 0.5 * eps) / schedule.alpha_bar[t] ** 0.5

    assert_close(ddim_encode(denoise, schedule, x0), q_sample(schedule, x0, 10, eps))
    assert calls == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]


# ---- E31: the second-order step ----


def final_error(S, sampler):
    """|x_0 - that of the exact probability-flow ODE| for data N(0, 0.25), from t = 1000 to 100 in S steps."""
    v, t_end, x_T = 0.25, 100, np.array([[1.0]])
    total = LINEAR.alpha_bar * v + LINEAR.one_minus_alpha_bar  # along the flow x_t^2 / Var x_t is constant
    kept = np.rint(np.linspace(t_end, 1000, S + 1)).astype(int)
    respaced, step = LINEAR.respace(kept), ddim_step if sampler == "ddim" else second_order_step()
    chain = reverse_process(ideal_denoiser(LINEAR, v), respaced, x_T, no_noise, step)
    x = next(x for t, x, _ in chain if t == 2)  # t = 1 stands for t_end
    return abs(x.item() - (total[t_end] / total[1000]) ** 0.5)


def test_e31_second_order_steps_converge_like_one_over_S_squared_and_ddim_like_one_over_S():
    steps = np.array([30, 60, 90, 180])
    for sampler, order in (("ddim", 1), ("dpm_solver", 2)):
        errors = [final_error(S, sampler) for S in steps]
        slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
        assert abs(slope + order) < 0.2, (sampler, slope, errors)


@given(schedules_and_t(), point, point)
def test_e31_the_first_and_the_last_second_order_step_are_those_of_ddim(case, x0, xt):
    schedule, t = case
    expected = ddim_step(schedule, x0, xt, t).mean
    scale = (abs(x0) + abs(xt)) / schedule.one_minus_alpha_bar[t] ** 0.5
    step = second_order_step()
    first = step(schedule, x0, xt, t)
    assert_close(first.mean, expected, scale=scale)
    assert first.variance == 0.0
    assert_close(step(schedule, x0, xt, 1).mean, x0)  # the last of this chain
    again, T = step(schedule, x0 + 1, xt, schedule.T), schedule.T  # the first of another
    scale = (1 + abs(x0) + abs(xt)) / schedule.one_minus_alpha_bar[T] ** 0.5
    assert_close(again.mean, ddim_step(schedule, x0 + 1, xt, T).mean, scale=scale)


# ---- the chain ----


def test_the_chain_visits_every_step_once_and_adds_no_noise_at_the_last():
    schedule, x_T, asked, calls = NoiseSchedule.linear(4), np.ones((2, 1)), [], []

    def denoise(xt, t):
        asked.append((t, xt.copy()))
        return xt / 2

    steps = list(reverse_process(denoise, schedule, x_T, unit_noise(x_T, calls)))
    assert [t for t, _, _ in steps] == [t for t, _ in asked] == [4, 3, 2, 1]
    assert calls == [4, 3, 2]
    x = x_T
    for (t, x_prev, x0_hat), (_, seen) in zip(steps, asked, strict=True):
        p = p_mean_variance(schedule, x / 2, x, t)
        assert (seen == x).all() and (x0_hat == x / 2).all()
        assert (x_prev == (p.sample(np.ones_like(x)) if t > 1 else p.mean)).all()
        x = x_prev


def test_a_respaced_chain_asks_the_model_at_the_original_timesteps():
    asked = []

    def denoise(xt, t):
        asked.append(t)
        return xt

    x_T = np.ones((2, 1))
    for schedule in (LINEAR.respace(4), LINEAR.respace([1, 20, 600])):
        sample(denoise, schedule, x_T, no_noise, "ddim")
    assert asked == [1000, 750, 500, 250, 600, 20, 1]
    told = predict_x0(lambda xt, t: xt * t, LINEAR.respace(4), np.ones(2), np.array([1, 3]))
    assert told.tolist() == [250, 750]


def test_deterministic_samplers_never_ask_for_noise_and_stochastic_ones_do():
    x_T, schedule = np.ones((2, 1)), NoiseSchedule.linear(5)
    denoise = ideal_denoiser(schedule, 1.0)
    for sampler in ("ddim", "dpm_solver"):
        sample(denoise, schedule, x_T, no_noise, sampler)
    for options in ({}, {"sampler": "ddim", "eta": 0.5}, {"sampler": "ancestral_eps", "clip": False}):
        calls = []
        sample(denoise, schedule, x_T, unit_noise(x_T, calls), **options)
        assert calls == [5, 4, 3, 2]


def test_one_step_is_the_models_prediction_whatever_the_sampler():
    x_T, schedule = np.array([[0.5], [-2.0]]), NoiseSchedule.linear(1)
    for sampler in SAMPLERS:
        x0 = sample(lambda xt, t: xt / 4, schedule, x_T, no_noise, sampler, clip=False)
        assert_close(x0, x_T / 4)


def test_what_is_clipped_is_the_prediction():
    x_T, schedule = np.array([[0.5], [-2.0]]), NoiseSchedule.linear(3)
    for clip, expected in ((True, [1, -1]), ((-1.5, 0.25), [0.25, -1.5]), (False, [2, -8]), (None, [2, -8])):
        x0 = sample(lambda xt, t: 4 * x_T, schedule, x_T, no_noise, "ddim", clip=clip)
        assert_close(x0.ravel(), expected)


def test_variance_and_eta_reach_the_step():
    x_T, schedule = np.ones((1, 1)), NoiseSchedule.linear(2)
    noise = unit_noise(x_T, [])
    for options, step in (
        ({"variance": "beta"}, lambda *a: p_mean_variance(*a, "beta")),
        ({"variance": "beta", "sampler": "ancestral_eps"}, lambda *a: p_mean_variance(*a, "beta")),
        ({"sampler": "ddim", "eta": 0.5}, lambda *a: ddim_step(*a, 0.5)),
    ):
        found = sample(lambda xt, t: xt, schedule, x_T, noise, clip=False, keep=[1], **options)[1][1][0]
        assert_close(found, step(schedule, x_T, x_T, 2).sample(x_T))


def test_states_that_are_kept_come_with_the_prediction_made_from_them():
    schedule, x_T = NoiseSchedule.linear(4), np.ones((2, 1))
    noise, denoise = unit_noise(x_T, []), ideal_denoiser(schedule, 1.0)
    chain = {t - 1: x for t, x, _ in reverse_process(denoise, schedule, x_T, noise, clip=(-1, 1))}
    x0, kept = sample(denoise, schedule, x_T, noise, keep=(4, 2, 1))
    assert list(kept) == [4, 2, 1] and (kept[4][0] == x_T).all() and (x0 == chain[0]).all()
    for t, (xt, x0_hat) in kept.items():
        assert (x0_hat == denoise(xt, t).clip(-1, 1)).all()
        assert t == 4 or (xt == chain[t]).all()
    assert sample(denoise, schedule, x_T, noise, keep=[])[1] == {}


def test_progress_wraps_the_loop():
    seen = []

    def progress(steps, total):
        for step in steps:
            seen.append((step[0], total))
            yield step

    sample(lambda xt, t: xt, NoiseSchedule.linear(3), np.ones((2, 1)), no_noise, "ddim", progress=progress)
    assert seen == [(3, 3), (2, 3), (1, 3)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_keep_dtype_shape_and_module(sampler, dtype, xp):
    x_T, schedule = xp.ones((2, 3, 4, 4), dtype), NoiseSchedule.cosine(5)
    x0 = sample(lambda xt, t: xt / 2, schedule, x_T, lambda t: x_T, sampler, clip=False)
    assert isinstance(x0, xp.ndarray) and x0.dtype == dtype and x0.shape == x_T.shape


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampler": "ddpm"}, "unknown sampler 'ddpm'.*ancestral, ancestral_eps, ddim, dpm_solver"),
        ({"eta": 0.5}, "eta is an option of the sampler 'ddim' only"),
        ({"sampler": "dpm_solver", "eta": 0.5}, "eta is an option of the sampler 'ddim' only"),
        ({"sampler": "ddim", "variance": "beta"}, "variance is an option of ancestral samplers"),
        ({"sampler": "dpm_solver", "variance": "beta"}, "variance is an option of ancestral samplers"),
        ({"variance": "large"}, "unknown variance 'large'.*beta, beta_tilde"),
        ({"sampler": "ancestral_eps"}, "has no x_0 to clip"),
        ({"keep": [0]}, r"keep must hold steps in 1\.\.3"),
        ({"keep": [4]}, r"keep must hold steps in 1\.\.3"),
    ],
)
def test_options_that_are_wrong_or_contradict_each_other_raise(options, message):
    x_T = np.ones((2, 1))
    with pytest.raises(ValueError, match=message):
        sample(lambda xt, t: xt, NoiseSchedule.linear(3), x_T, lambda t: x_T, **options)


def test_no_step_starts_at_t_0():
    x = np.ones((2, 1))
    for f in (
        lambda: p_mean_variance(LINEAR, x, x, 0),
        lambda: p_mean_variance_eps(LINEAR, x, x, 0),
        lambda: reverse_variance(LINEAR, "beta", x, 0),
        lambda: learned_variance(LINEAR, x, x, 0),
        lambda: ddim_step(LINEAR, x, x, 0),
        lambda: predict_x0(lambda xt, t: xt, LINEAR, x, 0),
    ):
        with pytest.raises(ValueError, match=r"t must lie in 1\.\.1000"):
            f()


def test_a_model_or_noise_of_another_shape_or_dtype_raises():
    schedule, x_T = NoiseSchedule.linear(3), np.ones((2, 1))
    with pytest.raises(ValueError, match="what denoise returns must have the shape of xt"):
        sample(lambda xt, t: xt[:1], schedule, x_T, no_noise)
    with pytest.raises(TypeError, match="what denoise returns must have the dtype of xt"):
        sample(lambda xt, t: xt.astype(np.float32), schedule, x_T, no_noise)
    with pytest.raises(ValueError, match="noise must have the shape"):
        sample(lambda xt, t: xt, schedule, x_T, lambda t: np.ones(2))
    with pytest.raises(ValueError, match="eps_hat must have the shape of xt, "):
        p_mean_variance_eps(schedule, x_T[:1], x_T, 2)
    with pytest.raises(ValueError, match="x0 must have the shape of xt"):
        p_mean_variance(schedule, x_T[:1], x_T, 2)


@given(seeds)
def test_a_batch_of_t_is_the_samples_one_by_one(seed):
    schedule, t = NoiseSchedule.cosine(10), np.array([1, 6, 10])
    x0, xt = normal_arrays(seed, (3, 2, 2), (3, 2, 2))
    for f in (
        lambda x0, xt, t: ddim_step(schedule, x0, xt, t, 0.5),
        lambda x0, xt, t: p_mean_variance(schedule, x0, xt, t),
        lambda x0, xt, t: p_mean_variance_eps(schedule, eps_from_x0(schedule, x0, xt, t), xt, t, "beta"),
        lambda x0, xt, t: Gaussian(learned_variance(schedule, x0, xt, t), 1.0),
    ):
        together = f(x0, xt, t)
        for i in range(3):
            one = f(x0[i : i + 1], xt[i : i + 1], int(t[i]))
            assert_close(together.mean[i], one.mean[0], scale=1.0)
            assert_close(np.broadcast_to(together.variance, (3, 1, 1))[i].item(), float(one.variance))
