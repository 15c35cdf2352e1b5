"""The project's samplers and bounds held against the truth: an oracle in place of the network."""

from functools import partial

import numpy as np
import pytest
from exact import any_data, cubature, kinds, quantile, schedules
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import assert_close, seeds

from tinyddpm import Gaussian, NoiseSchedule, sample
from tinyddpm.bound import denoising_term, prior_term, reconstruction_term, variational_bound
from tinyddpm.prediction import eps_from_x0
from tinyddpm.reverse import ancestral_step, p_mean_variance_eps, reverse_process
from tinyddpm.samplers import SAMPLERS, ddim_step, dpm_solver, heun_step, named_sampler
from tinyddpm.solvers import dpm_solver_2s, dpm_solver_3m
from tinyddpm.theory.bound_forms import gaussian_diffusion, path_form, q_path
from tinyddpm.theory.mixture import finite_data, gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle, chain_variance, fixed_variance_excess

# ---- E29: sampling chains ----


@given(st.floats(0, 2), schedules(64))
def test_e29_with_the_exact_variance_the_sampler_has_every_marginal(data_variance, schedule):
    oracle = Oracle(gaussian_data([0.0], data_variance), schedule)
    start = oracle.marginal(schedule.T).covariance()[0]

    def step(denoise, schedule, xt, t):
        return Gaussian(ancestral_step(denoise, schedule, xt, t).mean, oracle.reverse_step(xt, t).variance)

    # x_0 itself is drawn without noise: its variance is what the last mean carries
    expected = schedule.alpha_bar * data_variance + schedule.one_minus_alpha_bar
    expected[0] = data_variance - oracle.reverse_step(np.ones((1, 1)), 1).variance[0, 0]
    assert_close(chain_variance(schedule, data_variance, step, start)[:, 0], expected, scale=0.1)


FINAL_VARIANCE = {"beta_tilde": 0.2461, "beta": 0.2508}  # data variance 0.25, linear, T = 1000


@pytest.mark.parametrize("variance", FINAL_VARIANCE)
def test_e29_final_variance_by_recursion(variance):
    step = partial(ancestral_step, variance=variance)
    final = chain_variance(NoiseSchedule.linear(1000), 0.25, step)[0, 0]
    assert round(final, 4) == FINAL_VARIANCE[variance]


@pytest.mark.parametrize("variance", FINAL_VARIANCE)
@pytest.mark.parametrize("form", ["x0", "eps"])
def test_e29_final_variance_of_the_sampler_itself(form, variance):
    # The chain is linear in its noises. Sample number t is given noise at step t alone, and comes out as what
    # that noise contributes to x_0: the sum of the squares is the variance, without sampling error.
    schedule = NoiseSchedule.linear(1000)
    impulses = np.eye(1001)[:, :, None]
    oracle = Oracle(gaussian_data([0.0], 0.25), schedule)

    def algorithm_2(denoise, schedule, xt, t):
        return p_mean_variance_eps(schedule, eps_from_x0(schedule, denoise(xt, t), xt, t), xt, t, variance)

    step = partial(ancestral_step, variance=variance)
    chosen = step if form == "x0" else algorithm_2
    x0 = sample(oracle.denoise, schedule, impulses[1000], lambda t: impulses[t - 1], chosen)
    assert_close((x0**2).sum(), chain_variance(schedule, 0.25, step)[0, 0], rtol=1e-9, scale=1.0)
    assert round((x0**2).sum(), 4) == FINAL_VARIANCE[variance]


def test_e29_drawn_samples_have_the_variance_of_the_recursion():
    schedule, n = NoiseSchedule.linear(50), 40_000
    rng = np.random.default_rng(5)
    oracle = Oracle(gaussian_data([0.0], 0.25), schedule)
    x_T = rng.normal(size=(n, 1))
    x0 = sample(oracle.denoise, schedule, x_T, lambda t: rng.normal(size=(n, 1)))
    expected = chain_variance(schedule, 0.25)[0, 0]
    assert abs(x0.var() / expected - 1) < 4 * (2 / n) ** 0.5


@given(schedules(64))
def test_e43_the_ancestral_step_is_exact_with_beta_for_standard_normal_data_and_with_beta_tilde_for_a_point(schedule):
    exact = chain_variance(schedule, 1.0, partial(ancestral_step, variance="beta"))
    assert_close(exact[1:, 0], np.ones(schedule.T))
    point = chain_variance(schedule, 0.0, ancestral_step, start=schedule.one_minus_alpha_bar[-1])
    assert_close(point[:, 0], schedule.one_minus_alpha_bar, rtol=1e-9)


@given(st.floats(0.01, 2), st.floats(0, 1), schedules(16))
def test_chain_variance_of_a_sampler_is_what_the_sampler_does(data_variance, eta, schedule):
    oracle = Oracle(gaussian_data([0.0], data_variance), schedule)
    impulses = np.eye(schedule.T + 1)[:, :, None]
    for step in (partial(ddim_step, eta=eta), ancestral_step, heun_step):
        x_T, variances = 3**0.5 * impulses[-1], chain_variance(schedule, data_variance, step, start=3.0)
        for t, x, _ in reverse_process(oracle.denoise, schedule, x_T, lambda t: impulses[t - 1], step):
            assert_close(variances[t - 1, 0], (x**2).sum(), rtol=1e-9, scale=1.0)


def test_a_chain_of_several_dimensions_is_several_chains():
    schedule = NoiseSchedule.cosine(10)
    both = chain_variance(schedule, [0.25, 0.04])
    np.testing.assert_allclose(both[:, 1], chain_variance(schedule, 0.04)[:, 0], rtol=1e-12)
    assert both.shape == (11, 2) and both[0, 0] != both[0, 1]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("S", [25, 100])
def test_with_the_ideal_model_of_a_finite_set_every_sampler_ends_on_its_points(sampler, S):
    rng = np.random.default_rng(6)
    images = rng.choice([-1.0, 1.0], size=(6, 4, 4, 1)).astype(np.float32)
    schedule = NoiseSchedule.linear(100)
    oracle = Oracle(finite_data(images), schedule)
    x_T = rng.normal(size=(20, 4, 4, 1)).astype(np.float32)
    noise = lambda t: rng.normal(size=x_T.shape).astype(np.float32)  # noqa: E731
    x0 = sample(oracle.denoise, schedule.respace(S), x_T, noise, named_sampler(sampler), clip=(-1, 1))
    assert x0.dtype == np.float32 and x0.shape == x_T.shape
    distance = abs(x0[:, None] - images).max(axis=(2, 3, 4))
    assert (distance.min(1) < 1e-3).all()
    assert len(set(distance.argmin(1))) > 1


# ---- E31: orders of convergence ----


def flow_errors(make_step, steps):
    """The error at x_1 against the probability flow, on a mixture, for chains of S steps even in log-SNR.

    In one dimension the flow keeps the order of points, so it maps quantiles to quantiles.
    """
    data = mixture_data([0.3, 0.7], [[-1.0], [0.5]], [[0.1], [0.2]])
    errors = []
    for S in steps:
        schedule = NoiseSchedule.from_alpha_bar(1 / (1 + np.exp(np.linspace(-8, 8, S + 1))))
        oracle = Oracle(data, schedule)
        p = np.linspace(0.05, 0.95, 19)
        x_T, truth = quantile(oracle.marginal(S + 1), p)[:, None], quantile(oracle.marginal(1), p)
        steps_down = reverse_process(oracle.denoise, schedule, x_T, None, make_step())
        x1 = next(x for t, x, _ in steps_down if t == 2)
        errors.append(np.sqrt(np.mean((x1[:, 0] - truth) ** 2)))
    return errors


def slope(steps, errors):
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize(
    ("make_step", "order", "steps"),
    [
        (lambda: ddim_step, 1, [256, 512, 1024]),
        (dpm_solver, 2, [64, 128, 256]),
        (dpm_solver_2s, 2, [64, 128, 256]),
        (dpm_solver_3m, 3, [64, 128, 256]),
        (lambda: heun_step, 2, [64, 128, 256]),
    ],
)
def test_e31_order_of_convergence_to_the_probability_flow(make_step, order, steps):
    errors = flow_errors(make_step, steps)
    assert abs(slope(steps, errors) + order) < 0.05
    assert errors[-1] < 0.01


def test_e31_ddim_over_respaced_steps_down_to_the_data_has_order_one():
    data = mixture_data([0.3, 0.7], [[-1.0], [0.5]], [[0.1], [0.2]])
    schedule, p = NoiseSchedule.linear(2048), np.linspace(0.05, 0.95, 19)
    oracle = Oracle(data, schedule)
    x_T, truth = quantile(oracle.marginal(2048), p)[:, None], quantile(data, p)
    steps = [512, 1024, 2048]
    errors = []
    for S in steps:
        x0 = sample(oracle.denoise, schedule.respace(S), x_T, None, ddim_step)
        errors.append(np.sqrt(np.mean((x0[:, 0] - truth) ** 2)))
    assert abs(slope(steps, errors) + 1) < 0.05


# ---- E18: the bound on Gaussian data ----


def averaged_bound(schedule, oracle, variance):
    """The mean of the denoising form over data and noise, in d = 2: quadratic, so the cubature is exact."""
    mean, covariance = oracle.data.mean(), oracle.data.covariance()
    points = cubature(4)  # two for x_0, two for the noise of the term at hand
    x0, noise = mean + points[:, :2] * covariance[0, 0] ** 0.5, np.ascontiguousarray(points[:, 2:])
    total = prior_term(schedule, x0).mean()
    for t in range(2, schedule.T + 1):
        total += denoising_term(schedule, oracle.denoise, x0, t, noise, variance(t)).mean()
    return (
        total + reconstruction_term(schedule, oracle.denoise, x0, noise, variance(1), decoder=Gaussian.log_prob).mean()
    )


def entropy_and_prior(oracle):
    """H(X_0) + KL(q(x_T) || N(0, I)), of isotropic Gaussian data in d = 2."""
    marginals = oracle.marginal(0), oracle.marginal(oracle.schedule.T)
    start, end = (Gaussian(m.mean()[None], m.covariance()[0, 0]) for m in marginals)
    return (start.entropy() + end.kl(Gaussian(0.0, 1.0)))[0]


@given(st.floats(0.01, 2), schedules(32))
def test_e18_with_the_exact_reverse_step_the_bound_is_entropy_plus_prior_term(data_variance, schedule):
    oracle = Oracle(gaussian_data([0.7, -0.2], data_variance), schedule)
    exact = oracle.reverse_step(np.ones((schedule.T, 2)), np.arange(1, schedule.T + 1)).variance[:, 0]
    bound = averaged_bound(schedule, oracle, lambda t: float(exact[t - 1]))
    assert_close(bound, entropy_and_prior(oracle), rtol=1e-9, scale=1.0)


@given(st.floats(0.01, 2), schedules(32), st.sampled_from(["beta", "beta_tilde"]))
def test_e18_fixed_variances_exceed_it_by_the_closed_form(data_variance, schedule, variance):
    oracle = Oracle(gaussian_data([0.7, -0.2], data_variance), schedule)
    bound = averaged_bound(schedule, oracle, lambda t: variance)
    excess = 2 * fixed_variance_excess(schedule, data_variance, variance).sum()
    assert_close(bound, entropy_and_prior(oracle) + excess, rtol=1e-9, scale=1.0)


@given(kinds, schedules(16), seeds)
def test_e18_for_data_of_any_kind_on_every_single_path(kind, schedule, seed):
    # The exact reverse steps multiply to q(x_{0:T}) / q(x_T): the path form telescopes before any average.
    assume(kind != "finite")
    rng = np.random.default_rng(seed)
    oracle = Oracle(any_data(rng, kind), schedule)
    path = q_path(gaussian_diffusion(schedule), oracle.sample(rng, 5), lambda t: rng.normal(size=(5, 3)))
    x0, x_T = path[0], path[-1]
    at_end = oracle.log_prob(x_T, schedule.T) - Gaussian(0 * x_T, 1.0).log_prob(x_T)
    expected = at_end - oracle.log_prob(x0, 0)
    assert_close(path_form(gaussian_diffusion(schedule), oracle.posterior, path), expected, rtol=1e-9, scale=1.0)


def test_e18_excess_of_beta_vanishes_like_one_over_T():
    excess = [fixed_variance_excess(NoiseSchedule.linear(T), 0.25, "beta").sum() for T in (500, 1000, 2000)]
    assert excess[-1] < 6e-4
    assert abs(excess[0] / excess[1] - 2) < 0.02 and abs(excess[1] / excess[2] - 2) < 0.02


def test_e18_excess_of_beta_tilde_does_not_vanish_but_tends_to_a_constant():
    # At the clean end beta_t/beta_tilde_t tends to t/(t-1) for t >= 2 (and 2 at t = 1, by the convention for
    # L_0), however many steps there are: KL terms that sum to (Euler's gamma + 1 - log 2)/2 a dimension.
    limit = (np.euler_gamma + 1 - np.log(2)) / 2
    schedules = [NoiseSchedule.constant(T) for T in (1000, 4000, 16000)]
    excess = [fixed_variance_excess(schedule, 0.25, "beta_tilde") for schedule in schedules]
    away = abs(np.array([e.sum() for e in excess]) - limit)
    assert (away[1:] < 0.4 * away[:-1]).all() and away[-1] < 0.01
    assert abs(excess[-1][1] - (1 - np.log(2)) / 2) < 0.01
    for e, schedule in zip(excess, schedules, strict=True):
        assert len(e) == schedule.T + 1 and e[0] == 0
        np.testing.assert_array_equal(e, fixed_variance_excess(schedule, 0.25))


def test_an_oracle_stands_in_for_a_network_in_the_bound():
    schedule, rng = NoiseSchedule.linear(20), np.random.default_rng(8)
    x0 = rng.integers(0, 256, size=(4, 3)) / 127.5 - 1
    denoise = Oracle(finite_data(x0), schedule).denoise
    bound = variational_bound(schedule, denoise, x0, lambda t: rng.normal(size=(4, 3)))
    assert np.isfinite(bound.total).all() and bound.total.mean() < 3 * np.log(256)
