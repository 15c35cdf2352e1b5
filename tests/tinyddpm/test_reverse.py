import math

import numpy as np
import pytest
from exact import ideal_denoiser, no_noise
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, numbers, schedules, schedules_and_t

from tinyddpm import NoiseSchedule, ddim_step, p_mean_variance, p_mean_variance_eps, q_sample, sample
from tinyddpm.reverse import (
    ddim_encode,
    learned_variance,
    reverse_process,
    reverse_variance,
    second_order_step,
    variance_table,
)

point = numbers.map(lambda x: np.array([[x]]))
LINEAR = NoiseSchedule.linear(1000)


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
