"""DPM-Solver++: one step or more of memory, pairs of steps, noise drawn anew; and the weights of a step."""

import math
from functools import partial

import numpy as np
import pytest
from exact import ideal_denoiser, steps_of
from exact import schedules as short_schedules
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, numbers, schedules_and_t

from tinyddpm import NoiseSchedule, p_mean_variance, q_sample
from tinyddpm.reverse import ancestral_step, partly_renewed, reverse_process
from tinyddpm.samplers import ddim_step, dpm_solver
from tinyddpm.solvers import dpm_solver_2s, dpm_solver_3m, step_weights

point = numbers.map(lambda x: np.array([[x]]))


def knows(x0):
    """A model that answers x0 whatever it is asked."""
    return lambda xt, t: x0


# ---- E31, E43: the steps without noise ----


@given(schedules_and_t(), point, point)
def test_e31_the_first_and_the_last_step_of_dpm_solver_are_those_of_ddim(case, x0, xt):
    schedule, t = case
    expected = ddim_step(knows(x0), schedule, xt, t).mean
    scale = (abs(x0) + abs(xt)) / schedule.one_minus_alpha_bar[t] ** 0.5
    step = dpm_solver()
    first = step(knows(x0), schedule, xt, t)
    assert_close(first.mean, expected, scale=scale)
    assert first.variance == 0.0
    assert_close(step(knows(x0), schedule, xt, 1).mean, x0)  # the last of this chain
    again, T = step(knows(x0 + 1), schedule, xt, schedule.T), schedule.T  # the first of another
    scale = (1 + abs(x0) + abs(xt)) / schedule.one_minus_alpha_bar[T] ** 0.5
    assert_close(again.mean, ddim_step(knows(x0 + 1), schedule, xt, T).mean, scale=scale)


def test_e31_the_steps_of_dpm_solver_in_between_extrapolate_along_the_log_snr():
    schedule, x = NoiseSchedule.linear(4), np.array([[0.5], [-1.0]])
    step, log_snr = dpm_solver(), schedule.log_snr
    for t in (4, 3, 2, 1):
        found, ahead = step(knows(t * x), schedule, x, t).mean, t * x
        if t in (3, 2):  # from log-SNR t + 1 and t to the middle of t and t - 1
            ahead = t * x - x * (log_snr[t - 1] - log_snr[t]) / 2 / (log_snr[t] - log_snr[t + 1])
        assert_close(found, ddim_step(knows(ahead), schedule, x, t).mean, scale=1.0)


def test_e31_the_second_step_of_a_pair_of_2s_starts_where_the_first_did():
    schedule, x = NoiseSchedule.linear(5), np.array([[0.5], [-1.0]])
    log_snr, step = schedule.log_snr, dpm_solver_2s()
    between = {t: step(knows(t * x), schedule, t + x, t).mean for t in (5, 4, 3, 2, 1)}
    for t in (5, 3, 1):  # 1 is alone: five steps are two pairs and one
        assert_close(between[t], ddim_step(knows(t * x), schedule, t + x, t).mean, scale=1.0)
    for t in (4, 2):  # from t + 1 to t - 1 at once, which is one step of the schedule without t
        jump = NoiseSchedule.from_alpha_bar([*schedule.alpha_bar[1:t], *schedule.alpha_bar[t + 1 :]])
        begin, middle, end = log_snr[[t + 1, t, t - 1]]
        at, density = np.polynomial.legendre.leggauss(30)
        at = begin + (end - begin) * (at + 1) / 2
        mean = (density * np.exp(at / 2) * at).sum() / (density * np.exp(at / 2)).sum()  # where the line is met
        ahead = (t + 1 - (mean - begin) / (middle - begin)) * x
        assert_close(between[t], ddim_step(knows(ahead), jump, t + 1 + x, t).mean, scale=1.0)


def test_e43_3m_is_exact_where_x0_hat_is_a_parabola_in_the_log_snr():
    # d(x/noise) = x0_hat d(e^(log_snr/2)), so x/noise = e^(l/2) (P - 2P' + 4P'') + const for P of second degree
    schedule, (a, b, c) = NoiseSchedule.cosine(12), (0.3, -0.2, 0.05)
    ratio, noise = schedule.log_snr[1:], schedule.one_minus_alpha_bar[1:] ** 0.5
    flow = noise * (0.7 + np.exp(ratio / 2) * (a + b * ratio + c * ratio**2 - 2 * (b + 2 * c * ratio) + 8 * c))
    flow, step = np.append(np.nan, flow)[:, None, None], dpm_solver_3m()

    def denoise(xt, t):
        return 0 * xt + a + b * schedule.log_snr[t] + c * schedule.log_snr[t] ** 2

    for t in range(12, 0, -1):
        found = step(denoise, schedule, flow[t], t).mean
        if 2 <= t <= 10:  # the first two steps have too few before them
            assert_close(found, flow[t - 1], scale=abs(flow[1:]).max())
    assert_close(found, denoise(found, 1))


@given(st.floats(0.01, 20), st.lists(st.floats(0.05, 3), max_size=3))
def test_e31_the_weights_of_a_step_are_exact_for_polynomials(h, gaps):
    nodes = -np.cumsum([0, *gaps])
    u, at = np.polynomial.legendre.leggauss(40)
    u, density = h * (u + 1) / 2, at * np.exp(h * (u - 1) / 4)
    weights = step_weights(nodes, h)
    for power in range(len(nodes)):
        mean = (density * u**power).sum() / density.sum()
        scale = (abs(weights) * abs(nodes) ** power).sum() / h**power + 1 / h**2  # moments cancel where h is small
        assert_close(weights @ nodes**power, mean, scale=scale * h**power, rtol=1e-9)


# ---- E30: noise drawn anew ----


@given(schedules_and_t(), point, point)
def test_e30_noise_1_is_the_ancestral_step_noise_0_the_flow_and_all_keep_the_marginal(case, x0, xt):
    schedule, t = case
    scale = (abs(x0) + abs(xt)) / schedule.one_minus_alpha_bar[t] ** 0.5
    ancestral = p_mean_variance(schedule, x0, xt, t)
    drawn = partly_renewed(schedule, x0, xt, t, t - 1, 1.0)
    assert_close(drawn.mean, ancestral.mean, scale=scale)
    assert_close(drawn.variance, schedule.beta_tilde[t], scale=schedule.one_minus_alpha_bar[t - 1])
    flow = partly_renewed(schedule, x0, xt, t, t - 1, 0.0)
    assert_close(flow.mean, ddim_step(knows(x0), schedule, xt, t).mean, scale=scale)
    assert flow.variance == 0
    for noise in (0.0, 0.3, 1.0):  # x_t with the noise eps = 1, and then with its mean
        centre, far = (
            partly_renewed(schedule, x0, q_sample(schedule, x0, t, e + 0 * x0), t, t - 1, noise) for e in (0.0, 1.0)
        )
        before = schedule.one_minus_alpha_bar[t - 1]
        assert_close(centre.mean, schedule.alpha_bar[t - 1] ** 0.5 * x0, scale=scale + 1)
        assert_close((far.mean - centre.mean) ** 2 + far.variance, before + 0 * x0, scale=(1 + scale) ** 2 * before)


@given(short_schedules(16), point)
def test_e30_the_sde_solver_starts_and_ends_as_the_ancestral_sampler(schedule, x_T):
    solver, ancestral = (steps_of(step, schedule, x_T) for step in (dpm_solver(noise=1.0), ancestral_step))
    assert_close(solver[0].mean, ancestral[0].mean, scale=1 / schedule.one_minus_alpha_bar[-1] ** 0.5)
    assert_close(solver[0].variance, schedule.beta_tilde[-1], scale=schedule.one_minus_alpha_bar[-2])
    assert solver[-1].variance == 0


def variance_error(S, step, v=0.25):
    """Var x_1 of a chain with noise on data N(0, v), less the true one, for S steps even in the log-SNR from -8 to 8."""
    schedule = NoiseSchedule.from_alpha_bar(1 / (1 + np.exp(np.linspace(-8, 8, S + 1))))
    total = schedule.alpha_bar * v + schedule.one_minus_alpha_bar
    impulses = np.eye(S + 2)[:, :, None]  # sample t has the noise of step t alone: the sum of squares is the variance
    chain = reverse_process(
        ideal_denoiser(schedule, v), schedule, total[-1] ** 0.5 * impulses[0], lambda t: impulses[t - 1], step
    )
    x_1 = next(x for t, x, _ in chain if t == 2)
    return (x_1**2).sum() - total[1]


@pytest.mark.parametrize(
    "make, order", [(lambda: ancestral_step, 1), (partial(dpm_solver, 1.0), 2), (partial(dpm_solver, 0.5), 2)]
)
def test_e31_the_variance_of_the_chain_comes_to_the_datas_like_a_power_of_the_number_of_steps(make, order):
    errors = [variance_error(S, make()) for S in (64, 128, 256)]
    assert errors[0] * errors[2] > 0
    assert np.allclose(np.log2(np.divide(errors[:-1], errors[1:])), order, atol=0.15), errors


@pytest.mark.parametrize("noise", [-0.1, 1.1, math.nan])
def test_e30_the_share_of_noise_must_lie_in_0_1(noise):
    with pytest.raises(ValueError, match=r"noise must lie in \[0, 1\]"):
        dpm_solver(noise)
