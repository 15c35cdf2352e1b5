"""The samplers beside the ancestral one: DDIM, Heun, DPM-Solver++, the family with two numbers, and their table."""

import math
from functools import partial

import numpy as np
import pytest
from exact import ideal_denoiser, no_noise, steps_of
from exact import schedules as short_schedules
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, numbers, schedules_and_t

from tinyddpm import Gaussian, NoiseSchedule, p_mean_variance, q_sample, sample
from tinyddpm.reverse import along_flow, ancestral_step, reverse_process
from tinyddpm.samplers import (
    SAMPLERS,
    ddim_encode,
    ddim_step,
    dpm_solver,
    gradient_estimation,
    heun_step,
    named_sampler,
)
from tinyddpm.solvers import dpm_solver_2s, dpm_solver_3m

point = numbers.map(lambda x: np.array([[x]]))
LINEAR = NoiseSchedule.linear(1000)
samplers = pytest.mark.parametrize("name", SAMPLERS)


def knows(x0):
    """A model that answers x0 whatever it is asked."""
    return lambda xt, t: x0


# ---- every sampler in the table ----


@samplers
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_keep_dtype_shape_and_module(name, dtype, xp):
    x_T, schedule = xp.ones((2, 3, 4, 4), dtype), NoiseSchedule.cosine(5)
    x0 = sample(lambda xt, t: xt / 2, schedule, x_T, lambda t: x_T, named_sampler(name))
    assert isinstance(x0, xp.ndarray) and x0.dtype == dtype and x0.shape == x_T.shape


@samplers
def test_one_step_is_the_models_prediction(name):
    x_T = np.array([[0.5], [-2.0]])
    x0 = sample(lambda xt, t: xt / 4, NoiseSchedule.cosine(1), x_T, no_noise, named_sampler(name))
    assert_close(x0, x_T / 4)


@samplers
@given(short_schedules(16), point, point)
def test_e43_every_sampler_is_exact_for_data_of_a_single_point(name, schedule, x0, x_T):
    # There x0_hat never changes: each step leads to q(x_{t-1} | x_0), and at the end to the point.
    noise = lambda t: np.ones((1, 1))  # noqa: E731
    *_, (_, end, _) = reverse_process(knows(x0), schedule, x_T, noise, named_sampler(name))
    scale = 1 / schedule.one_minus_alpha_bar[1] ** 0.5  # of eps_hat, whose rounding gamma multiplies in each step
    assert_close(end, x0, scale=scale, rtol=1e-11)


@samplers
def test_a_chain_begins_without_memory_of_another(name):
    schedule, x_T = NoiseSchedule.linear(4), np.array([[0.5], [-2.0]])
    step = named_sampler(name)
    first, second, fresh = (
        sample(lambda xt, t: xt / 4, schedule, x, lambda t: 0 * x_T, s)
        for x, s in ((9 * x_T, step), (x_T, step), (x_T, named_sampler(name)))
    )
    assert (second == fresh).all() and not (first == fresh).all()


def test_a_name_that_is_none_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="unknown sampler 'ddpm'; there are: ancestral, ddim"):
        named_sampler("ddpm")
    for no_name in (None, ["ddim"], 3):
        with pytest.raises(ValueError, match="unknown sampler"):
            named_sampler(no_name)


def test_deterministic_samplers_never_ask_for_noise_and_stochastic_ones_do():
    x_T, schedule = np.ones((2, 1)), NoiseSchedule.linear(5)
    denoise = ideal_denoiser(schedule, 1.0)
    for step in (ddim_step, heun_step, dpm_solver(), dpm_solver_2s(), dpm_solver_3m(), gradient_estimation()):
        sample(denoise, schedule, x_T, no_noise, step)
    for step in (ancestral_step, partial(ddim_step, eta=0.5), gradient_estimation(1.0, 0.5), dpm_solver(noise=0.5)):
        calls = []
        sample(denoise, schedule, x_T, lambda t, calls=calls: calls.append(t) or np.ones_like(x_T), step)
        assert calls == [5, 4, 3, 2]


def test_a_sampler_of_ones_own_is_one_function():
    """The midpoint method asks the model twice, at x_t and halfway along the flow."""

    def midpoint_step(denoise, schedule, xt, t):
        if t == 1:
            return Gaussian(denoise(xt, t), 0.0)
        x_mid = along_flow(schedule, denoise(xt, t), xt, t)
        return Gaussian(along_flow(schedule, denoise(x_mid, t - 1), xt, t), 0.0)

    x0 = sample(ideal_denoiser(LINEAR, 0.25), LINEAR.respace(50), np.ones((1, 1)), no_noise, midpoint_step)
    assert abs(x0 - 0.5 / (LINEAR.alpha_bar[-1] * 0.25 + LINEAR.one_minus_alpha_bar[-1]) ** 0.5) < 0.02


# ---- E30: DDIM ----


@given(schedules_and_t(), point, st.floats(0, 1))
def test_e30_every_eta_keeps_the_marginal_given_x0(case, x0, eta):
    schedule, t = case
    alpha_bar, noise = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
    moments = []
    for eps in (1.0, -1.0):
        xt = alpha_bar**0.5 * x0 + noise**0.5 * eps
        moments.append(ddim_step(knows(x0), schedule, xt, t, eta))
    mean = (moments[0].mean + moments[1].mean) / 2
    variance = ((moments[0].mean - moments[1].mean) / 2) ** 2 + moments[0].variance
    assert_close(mean, schedule.alpha_bar[t - 1] ** 0.5 * x0, scale=1 / noise**0.5)
    before = schedule.one_minus_alpha_bar[t - 1]
    assert_close(variance, before, scale=(before / noise) ** 0.5 * (1 + abs(x0)) * before**0.5)


@given(schedules_and_t(), point, point)
def test_e30_eta_1_is_the_ancestral_step_and_eta_0_has_no_variance(case, x0, xt):
    schedule, t = case
    full, ancestral = ddim_step(knows(x0), schedule, xt, t, 1.0), p_mean_variance(schedule, x0, xt, t)
    terms = (abs(xt) + abs(x0)) / schedule.one_minus_alpha_bar[t] ** 0.5
    assert_close(full.mean, ancestral.mean, scale=terms)
    assert full.variance == schedule.beta_tilde[t]
    assert ddim_step(knows(x0), schedule, xt, t).variance == 0
    assert_close(ddim_step(knows(x0), schedule, xt, t, 0.5).variance, schedule.beta_tilde[t] / 4)


@given(schedules_and_t(), st.floats(0, 1))
def test_e30_what_ddim_keeps_of_the_noise_is_the_rest_of_its_variance(case, eta):
    schedule, t = case
    xt = np.full((1, 1), schedule.one_minus_alpha_bar[t] ** 0.5)  # x_0 = 0 and eps = 1: the mean is sqrt(kept)
    p = ddim_step(knows(0 * xt), schedule, xt, t, eta)
    before = schedule.one_minus_alpha_bar[t - 1]
    assert_close(p.mean**2 + eta**2 * schedule.beta_tilde[t], before + 0 * xt, scale=before)


@given(schedules_and_t(), point, point)
def test_e30_eta_0_keeps_the_noise_it_sees(case, x0, eps):
    schedule, t = case
    noise = schedule.one_minus_alpha_bar[t] ** 0.5
    xt = q_sample(schedule, x0, t, eps)
    x_prev = ddim_step(knows(x0), schedule, xt, t).mean
    scale = (abs(x0) + abs(xt)) / noise
    assert_close(x_prev, q_sample(schedule, x0, t - 1, eps), scale=scale)
    assert_close(along_flow(schedule, x0, xt, t), x_prev, scale=scale)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_e30_eta_must_lie_in_0_1(eta):
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        ddim_step(knows(np.ones((1, 1))), LINEAR, np.ones((1, 1)), 5, eta)


@pytest.mark.parametrize("step", [ddim_step, heun_step, dpm_solver(), dpm_solver_3m(), gradient_estimation()])
def test_no_step_starts_at_t_0(step):
    with pytest.raises(ValueError, match=r"t must lie in 1\.\.1000"):
        step(lambda xt, t: xt, LINEAR, np.ones((2, 1)), 0)


def test_e30_encoding_and_decoding_return_the_data_up_to_an_error_that_falls_with_T():
    x0, errors = np.array([[0.3], [-0.8]]), []
    for T in (50, 100, 200):
        schedule = NoiseSchedule.linear(T)
        denoise = ideal_denoiser(schedule, 0.25)
        x_T = ddim_encode(denoise, schedule, x0)
        errors.append(abs(sample(denoise, schedule, x_T, no_noise, ddim_step) - x0).max())
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


# ---- E31, E43: second order ----


def final_error(S, step):
    """|x_0 - that of the exact probability-flow ODE| for data N(0, 0.25), from t = 1000 to 100 in S steps."""
    v, t_end, x_T = 0.25, 100, np.array([[1.0]])
    total = LINEAR.alpha_bar * v + LINEAR.one_minus_alpha_bar  # along the flow x_t^2 / Var x_t is constant
    kept = np.rint(np.linspace(t_end, 1000, S + 1)).astype(int)
    chain = reverse_process(ideal_denoiser(LINEAR, v), LINEAR.respace(kept), x_T, no_noise, step)
    x = next(x for t, x, _ in chain if t == 2)  # t = 1 stands for t_end
    return abs(x.item() - (total[t_end] / total[1000]) ** 0.5)


@pytest.mark.parametrize("name, order", [("ddim", 1), ("heun", 2), ("dpm_solver", 2)])
def test_e31_the_error_falls_like_a_power_of_the_number_of_steps(name, order):
    steps = np.array([30, 60, 90, 180])
    errors = [final_error(S, named_sampler(name)) for S in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope + order) < 0.2, (slope, errors)


def test_e43_heun_is_exact_where_x0_hat_is_linear_in_signal_over_noise_and_ddim_is_not():
    # d(x/noise) = x0_hat d(signal/noise): from x0_hat = a + b rho follows x/noise = const + a rho + b rho^2/2
    schedule, a, b = NoiseSchedule.cosine(12), 0.3, -0.2
    rho, noise = schedule.snr[1:] ** 0.5, schedule.one_minus_alpha_bar[1:] ** 0.5
    flow = np.append(np.nan, noise * (0.7 + a * rho + b * rho**2 / 2))[:, None, None]

    def denoise(xt, t):
        return 0 * xt + a + b * schedule.snr[t] ** 0.5

    for t in range(2, 13):
        assert_close(
            heun_step(denoise, schedule, flow[t], t).mean,
            flow[t - 1],
            scale=abs(flow).max(initial=0, where=flow == flow),
        )
        assert abs(ddim_step(denoise, schedule, flow[t], t).mean - flow[t - 1]) > 1e-4
    assert_close(heun_step(denoise, schedule, flow[1], 1).mean, denoise(flow[1], 1))


def test_heun_asks_at_both_ends_of_a_step_and_never_about_the_data():
    asked = []

    def denoise(xt, t):
        asked.append(t)
        return xt / 2

    sample(denoise, LINEAR.respace(3), np.ones((1, 1)), no_noise, heun_step)
    assert asked == [1000, 667, 667, 334, 334]


# ---- the family with two numbers ----


@given(short_schedules(16), point)
def test_e30_gamma_1_and_mu_0_is_ddim_and_mu_one_half_the_ancestral_step(schedule, x_T):
    for mu, other in ((0, ddim_step), (0.5, ancestral_step)):
        family, known = steps_of(gradient_estimation(1, mu), schedule, x_T), steps_of(other, schedule, x_T)
        for t, p, q in zip(range(schedule.T, 0, -1), family, known, strict=True):
            assert_close(p.mean, q.mean, scale=1 / schedule.one_minus_alpha_bar[t] ** 0.5, rtol=1e-11)
            if t > 1:  # at t = 1 the ancestral step has the variance that L_0 needs, and no sampler sees it
                assert_close(p.variance, q.variance, scale=schedule.one_minus_alpha_bar[t - 1])
    assert family[-1].variance == 0


@pytest.mark.parametrize("gamma, mu", [(2.0, 0.0), (1.0, 0.5), (1.5, 0.3), (1.0, 0.0)])
def test_e43_the_family_is_the_two_number_loop_in_noise_over_signal(gamma, mu):
    """As its authors write it, for y = x/signal: y <- y - (sigma_t - sigma_kept) eps_bar + eta noise."""
    schedule, x_T = NoiseSchedule.linear(10), np.array([[0.8], [-1.3]])
    denoise, noise = ideal_denoiser(schedule, 0.25), np.random.default_rng(0).standard_normal((11, 2, 1))
    signal, sigma = schedule.alpha_bar**0.5, np.append(0, schedule.snr[1:] ** -0.5)
    y, before = x_T / signal[10], None
    chain = reverse_process(denoise, schedule, x_T, noise.__getitem__, gradient_estimation(gamma, mu))
    for t, x, _ in chain:
        eps = (y - denoise(signal[t] * y, t)) / sigma[t]
        eps_bar, before = eps if before is None else gamma * eps + (1 - gamma) * before, eps
        kept = (sigma[t - 1] / sigma[t] ** mu) ** (1 / (1 - mu))
        y = y - (sigma[t] - kept) * eps_bar + (sigma[t - 1] ** 2 - kept**2) ** 0.5 * noise[t]
        assert_close(x, signal[t - 1] * y, scale=1.0, rtol=1e-10)


def test_the_accelerated_sampler_comes_closer_to_the_flow_than_ddim_at_few_steps():
    for S in (5, 10, 20):
        assert final_error(S, gradient_estimation()) < 0.5 * final_error(S, ddim_step)


@pytest.mark.parametrize("gamma, mu", [(np.float64(2), np.float64(0.25)), (2, 0)])
def test_numbers_of_numpy_do_not_change_the_dtype(gamma, mu):
    x_T = np.ones((2, 1), np.float32)
    assert (
        sample(lambda xt, t: xt / 2, LINEAR.respace(4), x_T, lambda t: x_T, gradient_estimation(gamma, mu)).dtype
        == np.float32
    )
    assert ddim_step(lambda xt, t: xt / 2, LINEAR, x_T, 3, np.float64(0.5)).sample(x_T).dtype == np.float32


@pytest.mark.parametrize("gamma, mu", [(2, -0.1), (2, 1.0), (2, math.nan), (math.nan, 0), (math.inf, 0)])
def test_numbers_that_cannot_be_meant_are_refused(gamma, mu):
    with pytest.raises(ValueError, match=r"gamma must be finite and mu lie in \[0, 1\)"):
        gradient_estimation(gamma, mu)
