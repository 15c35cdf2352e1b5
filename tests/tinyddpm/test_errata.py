"""Misprints of the study notes that no other test tells from the truth; docs/errata.md has them all."""

import numpy as np
from exact import cubature
from hypothesis import given
from strategies import drawn_schedules, normal_arrays, schedules_and_t, seeds

from tinyddpm import Gaussian, NoiseSchedule, q_marginal, q_posterior, q_transition
from tinyddpm.bound import reconstruction_term
from tinyddpm.theory.bound_forms import consistency_form, gaussian_diffusion, misprinted_form, q_path
from tinyddpm.theory.mixture import gaussian_data
from tinyddpm.theory.oracle import Oracle


def bayes_gap(schedule, posterior, x0, x_prev, xt, t):
    """How far log q(x_{t-1}|x_t,x_0) + log q(x_t|x_0) is from log q(x_t|x_{t-1}) + log q(x_{t-1}|x_0)."""
    left = posterior.log_prob(x_prev) + q_marginal(schedule, x0, t).log_prob(xt)
    right = q_transition(schedule, x_prev, t).log_prob(xt) + q_marginal(schedule, x0, t - 1).log_prob(x_prev)
    return abs(left - right).max() / (1 + abs(left).max())


def coefficients(schedule, t):
    """A and the parts of B by x_t and by x_0 of the exponent -A x_{t-1}^2/2 + B x_{t-1} of the posterior."""
    beta, before = schedule.beta[t], schedule.one_minus_alpha_bar[t - 1]
    by_xt, by_x0 = schedule.alpha[t] ** 0.5 / beta, schedule.alpha_bar[t - 1] ** 0.5 / before
    return schedule.alpha[t] / beta + 1 / before, by_xt, by_x0


CASE = NoiseSchedule.from_beta([0.1, 0.2, 0.3]), 2


def test_e06_the_lost_minus_of_1_5_18_and_the_factor_minus_one_half_break_bayes():
    schedule, t = CASE
    x0, x_prev, xt = normal_arrays(0, *[(4, 2)] * 3)
    A, by_xt, by_x0 = coefficients(schedule, t)
    right = Gaussian((by_xt * xt + by_x0 * x0) / A, 1 / A)
    lost_minus = Gaussian((by_xt * xt - by_x0 * x0) / A, 1 / A)  # -(.. + 2 sqrt(alpha_bar) x_{t-1} x_0)/2
    minus_half = Gaussian(-(by_xt * xt + by_x0 * x0) / (2 * A), 1 / A)  # B = -1/2 (..)
    assert bayes_gap(schedule, right, x0, x_prev, xt, t) < 1e-14
    assert bayes_gap(schedule, lost_minus, x0, x_prev, xt, t) > 0.1
    assert bayes_gap(schedule, minus_half, x0, x_prev, xt, t) > 0.1


@given(schedules_and_t(first=2), seeds)
def test_e06_the_completed_square_is_the_posterior_of_the_code(case, seed):
    schedule, t = case
    x0, xt = normal_arrays(seed, (3, 2), (3, 2))
    A, by_xt, by_x0 = coefficients(schedule, t)
    q = q_posterior(schedule, x0, xt, t)
    np.testing.assert_allclose(q.mean, (by_xt * xt + by_x0 * x0) / A, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(q.variance, 1 / A, rtol=1e-9)


def test_e06_without_x0_the_reverse_step_is_another_distribution():
    schedule, t = CASE
    oracle = Oracle(gaussian_data([0.0], 1.0), schedule)
    xt = np.array([[0.5]])
    given_xt = oracle.reverse_step(xt, t)
    given_both = q_posterior(schedule, np.array([[0.9]]), xt, t)
    assert abs(given_xt.mean - given_both.mean) > 0.1
    assert given_xt.variance > given_both.variance * 1.2


@given(drawn_schedules.filter(lambda schedule: 3 <= schedule.T <= 12))
def test_e15_neighbours_of_a_step_are_not_independent_given_x0_nor_are_x1_and_x2(schedule):
    # Impulses: the path of row k holds what the noise of step k contributes, so products sum to covariances.
    T = schedule.T
    path = q_path(gaussian_diffusion(schedule), np.zeros((T, 1)), lambda t: np.eye(T)[:, t - 1 : t])

    def covariance(s, t):
        return (path[s] * path[t]).sum()

    for t in range(2, T):
        expected = (schedule.alpha[t] * schedule.alpha[t + 1]) ** 0.5 * schedule.one_minus_alpha_bar[t - 1]
        np.testing.assert_allclose(covariance(t - 1, t + 1), expected, rtol=1e-12)
        assert expected > 0  # the notes call x_{t-1} and x_{t+1} independent
    # 1.5.10 has q(x_1|x_0) q(x_2|x_0): under it this were 0. The chain has the covariance of the excess.
    np.testing.assert_allclose(covariance(1, 2), schedule.alpha[2] ** 0.5 * schedule.beta[1], rtol=1e-12)


def test_e15_the_minimiser_of_the_printed_form_has_three_times_the_variance():
    # Data N(0, 1); the best linear model of x_1 given x_2 under each form (by a grid over both).
    schedule = NoiseSchedule.from_beta([0.01, 0.01])
    points = cubature(3)
    noise = np.ascontiguousarray(points[:, 1:, None])
    path = q_path(gaussian_diffusion(schedule), points[:, :1], lambda t: noise[:, t - 1])
    factors, variances = np.linspace(0.95, 1, 11), np.geomspace(0.005, 0.05, 61)

    def best_variance(form):
        def reverse(c, s2):
            return lambda xt, t: Gaussian(c * xt, s2 if t == 2 else 1.0)

        loss = [[form(gaussian_diffusion(schedule), reverse(c, s2), path).mean() for c in factors] for s2 in variances]
        return variances[np.argmin(np.min(loss, axis=1))]

    np.testing.assert_allclose(best_variance(consistency_form), 0.01, rtol=0.03)
    np.testing.assert_allclose(best_variance(misprinted_form), 0.03, rtol=0.05)


def test_e05_one_factor_is_not_the_density_of_a_path():
    # 1.5.5 drops the product sign: over a grid the product has total mass 1, the last factor alone has not.
    schedule = NoiseSchedule.from_beta([0.4, 0.5])
    grid = np.linspace(-8, 8, 401)
    x1, x2 = (g.reshape(-1, 1) for g in np.meshgrid(grid, grid))
    first = q_transition(schedule, 0 * x1 + 0.3, 1).log_prob(x1)
    last = q_transition(schedule, x1, 2).log_prob(x2)
    cell = (grid[1] - grid[0]) ** 2
    assert abs(np.exp(first + last).sum() * cell - 1) < 1e-10
    assert np.exp(last).sum() * cell > 10


def test_e22_the_weight_is_one_over_the_variance_not_over_the_norm_of_sigma_squared():
    schedule, t = CASE
    mean1, mean2 = normal_arrays(0, (3, 4), (3, 4))
    variance = schedule.beta_tilde[t]
    kl = Gaussian(mean1, variance).kl(Gaussian(mean2, variance))
    square = ((mean1 - mean2) ** 2).sum(1)
    np.testing.assert_allclose(kl, square / (2 * variance), rtol=1e-12)
    Sigma = variance * np.eye(4)
    for norm in (np.linalg.norm(Sigma, 2), np.linalg.norm(Sigma)):  # spectral, Frobenius
        assert (abs(square / (2 * norm**2) / kl - 1) > 0.5).all()


def test_e14_the_reconstruction_term_depends_on_the_model():
    schedule, x0 = CASE[0], np.ones((1, 2))
    noise = np.zeros((1, 2))
    good, bad = (reconstruction_term(schedule, lambda xt, t, b=b: xt + b, x0, noise) for b in (0.0, -0.5))
    assert bad > good + 0.1
