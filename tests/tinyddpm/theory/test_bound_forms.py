import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, drawn_schedules, host_arrays, normal_arrays, schedules_and_t, seeds

from tinyddpm import Gaussian, NoiseSchedule, p_mean_variance
from tinyddpm.theory.bound_forms import (
    consistency_form,
    denoising_form,
    entropy_edge,
    entropy_form,
    gaussian_diffusion,
    misprint_excess,
    misprinted_form,
    path_form,
    q_path,
    reverse_model,
)

FORMS = {"denoising": denoising_form, "consistency": consistency_form, "path": path_form}
small_schedules = drawn_schedules.filter(lambda schedule: schedule.T <= 12)


def linear_model(schedule, seed):
    """p(x_{t-1} | x_t) = N(c_t x_t + e_t, s2_t I) with everything drawn; and c, s2."""
    c, e, log_s2 = host_arrays(seed, *[schedule.T + 1] * 3)
    s2 = np.exp(log_s2)
    return (lambda xt, t: Gaussian(c[t] * xt + e[t], s2[t])), c, s2


def every_path(schedule, x0):
    """Paths from x_0 (d,) over which the mean of anything quadratic in the noises is its exact expectation.

    The noises of all steps are one vector z of n = T d entries; the 2n points +-sqrt(n) e_i have the mean and
    the covariance of a standard normal z.
    """
    d = len(x0)
    n = schedule.T * d
    z = np.concatenate([np.eye(n), -np.eye(n)]) * math.sqrt(n)
    return q_path(gaussian_diffusion(schedule), np.tile(x0, (2 * n, 1)), lambda t: z[:, (t - 1) * d : t * d])


def random_paths(schedule, x0, N, seed):
    rng = np.random.default_rng(seed)
    return q_path(gaussian_diffusion(schedule), np.tile(x0, (N, 1)), lambda t: rng.standard_normal((N, len(x0))))


def assert_same_expectation(a, b):
    size = abs(a).mean() + abs(b).mean() + a.std() + b.std()
    assert_close(a.mean(), b.mean(), scale=size, rtol=1e-9)


@given(small_schedules, seeds)
def test_e14_e15_e17_forms_are_the_same_bound_for_every_model(schedule, seed):
    reverse, _, _ = linear_model(schedule, seed)
    path = every_path(schedule, np.array([0.3, -0.8]))
    values = {name: form(gaussian_diffusion(schedule), reverse, path) for name, form in FORMS.items()}
    assert all(value.shape == (len(path[0]),) for value in values.values())
    assert_same_expectation(values["denoising"], values["consistency"])
    assert_same_expectation(values["denoising"], values["path"])


@given(small_schedules, seeds)
def test_e15_misprinted_form_exceeds_the_bound_by_its_exact_excess(schedule, seed):
    reverse, c, s2 = linear_model(schedule, seed)
    x0 = np.array([0.3, -0.8])
    path = every_path(schedule, x0)
    wrong, right = (form(gaussian_diffusion(schedule), reverse, path) for form in (misprinted_form, consistency_form))
    excess = len(x0) * misprint_excess(schedule, c, s2)
    assert_same_expectation(wrong, right + excess)


def test_e15_excess_is_large_for_the_denoiser_of_a_point_and_zero_only_where_nothing_depends_on_x_next():
    schedule, x0 = NoiseSchedule.linear(6), np.array([0.3])
    c, s2 = np.full(7, 0.7), np.full(7, 0.2)
    path = every_path(schedule, x0)
    wrong, right = (
        f(gaussian_diffusion(schedule), lambda xt, t: Gaussian(c[t] * xt, s2[t]), path).mean()
        for f in (misprinted_form, consistency_form)
    )
    by_hand = sum(0.7 * math.sqrt(schedule.alpha[t + 1]) * schedule.beta[t] / 0.2 for t in range(1, 6))
    assert_close(misprint_excess(schedule, c, s2), by_hand)
    assert_close(wrong - right, by_hand, scale=wrong)
    assert misprint_excess(schedule, 0 * c, s2) == 0


@given(small_schedules, seeds)
def test_e16_entropy_form_is_minus_the_bound_but_for_the_edges(schedule, seed):
    reverse, _, _ = linear_model(schedule, seed)
    path = every_path(schedule, np.array([0.3, -0.8]))
    bound, entropy = (
        denoising_form(gaussian_diffusion(schedule), reverse, path),
        entropy_form(gaussian_diffusion(schedule), reverse, path),
    )
    edge = entropy_edge(gaussian_diffusion(schedule), reverse, path)
    assert_close(-bound - entropy, edge, scale=abs(bound) + abs(entropy) + 10)


@given(small_schedules, seeds)
def test_e16_edges_are_the_first_step_and_the_size_of_x_T(schedule, seed):
    reverse, _, _ = linear_model(schedule, seed)
    path = every_path(schedule, np.array([0.3, -0.8]))
    last = -((path[-1] ** 2).sum(axis=1).mean() - 2) / 2
    first = reverse(path[1], 1).log_prob(path[0]).mean() + math.log(2 * math.pi * math.e * schedule.beta[1])
    edge = entropy_edge(gaussian_diffusion(schedule), reverse, path)
    assert_close(edge.mean(), first + last, scale=abs(edge).mean() + 20, rtol=1e-9)


@given(small_schedules, seeds)
def test_e16_entropies_are_those_of_the_first_and_the_last_marginal(schedule, seed):
    reverse, _, _ = linear_model(schedule, seed)
    x0 = np.array([0.3, -0.8])
    path = every_path(schedule, x0)
    noise = schedule.one_minus_alpha_bar
    entropies = math.log(noise[-1]) - math.log(noise[1]) - math.log(2 * math.pi * math.e)  # d/2 = 1 of each
    kls = denoising_form(gaussian_diffusion(schedule), reverse, path) + reverse(path[1], 1).log_prob(path[0])
    prior = (x0**2 * schedule.alpha_bar[-1] + noise[-1] - 1 - math.log(noise[-1])).sum() / 2
    found = entropy_form(gaussian_diffusion(schedule), reverse, path)
    assert_close(found, entropies - (kls - prior), scale=abs(kls) + abs(found) + 20)


def test_e17_which_form_varies_least_is_for_each_model_to_show():
    schedule, x0, v, N = NoiseSchedule.linear(6), np.array([0.4]), 0.25, 20000
    path, exact_path = random_paths(schedule, x0, N, seed=0), every_path(schedule, x0)
    total = schedule.alpha_bar * v + schedule.one_minus_alpha_bar  # Var x_t of N(0, v) data

    def exact_reverse(xt, t):
        x0_hat = schedule.alpha_bar[t] ** 0.5 * v / total[t] * xt
        exact_variance = np.full_like(xt, total[t - 1] * schedule.beta[t] / total[t])
        return p_mean_variance(schedule, x0_hat, xt, t, exact_variance)

    def variances(reverse):
        values = {name: form(gaussian_diffusion(schedule), reverse, path) for name, form in FORMS.items()}
        for name, form in FORMS.items():
            error = values[name].std() / math.sqrt(N) + 1e-12
            assert abs(values[name].mean() - form(gaussian_diffusion(schedule), reverse, exact_path).mean()) < 5 * error
        return [values[name].var() for name in ("denoising", "consistency", "path")]

    rough = variances(lambda xt, t: Gaussian(0.7 * xt, 0.5))
    assert 0.5 < rough[0] < 0.6 < rough[1] < 0.9 < 3 < rough[2] < 6, rough  # the path form varies most
    halved = variances(reverse_model(schedule, lambda xt, t: xt / 2, "beta"))
    assert halved[1] < halved[0] < halved[2], halved  # the consistency form varies least
    # Under the exact reverse, q(x_{1:T}|x_0)/p(x_{0:T}) = q(x_T)/(p(x_T) q(x_0)): the path form hardly varies
    exact = variances(exact_reverse)
    assert exact[2] < 1e-8 < 0.5 < min(exact[:2]), exact


def test_a_path_of_another_length_is_refused_by_every_form():
    diffusion, x = gaussian_diffusion(NoiseSchedule.linear(3)), np.zeros((2, 1))
    for path in ([x] * 3, [x] * 5):
        for form in (*FORMS.values(), misprinted_form, entropy_form):
            with pytest.raises(ValueError, match=f"T = 3 steps has 4 states, got {len(path)}"):
                form(diffusion, lambda xt, t: Gaussian(xt, 1.0), path)


@given(schedules_and_t(), seeds)
def test_a_denoiser_makes_a_reverse_model(case, seed):
    schedule, t = case
    (xt,) = normal_arrays(seed, (2, 3))
    denoise = lambda xt, t: xt * t  # noqa: E731
    respaced = schedule.respace([schedule.T])
    p = reverse_model(respaced, denoise, "beta")(xt, 1)
    assert (p.mean == p_mean_variance(respaced, xt * schedule.T, xt, 1, "beta").mean).all()
    assert p.variance == respaced.beta[1]
    p = reverse_model(schedule, denoise, clip=(-1, 1))(xt, t)
    expected = p_mean_variance(schedule, (xt * t).clip(-1, 1), xt, t)
    assert (p.mean == expected.mean).all() and p.variance == expected.variance


@given(small_schedules, st.integers(0, 3))
def test_e01_a_path_starts_at_the_data_and_has_the_marginals(schedule, which):
    x0 = np.array([0.3, -0.8])
    path = every_path(schedule, x0)
    t = min(which, schedule.T)
    assert len(path) == schedule.T + 1 and (path[0] == x0).all()
    assert_close(path[t].mean(axis=0), schedule.alpha_bar[t] ** 0.5 * x0, scale=5.0)
    assert_close(path[t].var(axis=0), np.full(2, schedule.one_minus_alpha_bar[t]), scale=5.0)


def test_the_forms_of_the_bound_use_the_variance_that_was_asked_for():
    schedule, x = NoiseSchedule.linear(4), np.array([[0.5], [-1.0]])
    found = reverse_model(schedule, lambda xt, t: xt / 2, "beta")(x, 3)
    assert found.variance == p_mean_variance(schedule, x, x, 3, variance="beta").variance
