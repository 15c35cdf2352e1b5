"""Guidance on data whose scores are known: the score of a density at each t, but not the diffusion of any data. (E39)"""

import numpy as np
import pytest
from exact import line, schedules
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import assert_close, seeds

from tinyddpm import NoiseSchedule
from tinyddpm.prediction import guided
from tinyddpm.theory.mixture import gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle, fixed_variance_excess, guided_variances

scales = st.floats(-0.5, 4)


def two_oracles(schedule, rng):
    """Of a mixture of two classes, and of its first class alone; in one dimension."""
    means, variances = rng.normal(size=(2, 1)), rng.uniform(0.05, 0.5, (2, 1))
    both = mixture_data([0.4, 0.6], means, variances)
    return Oracle(both, schedule), Oracle(gaussian_data(means[0], variances[0]), schedule)


@given(schedules(16), seeds, scales)
def test_e39_the_guided_score_is_the_gradient_of_the_guided_density(schedule, seed, w):
    rng = np.random.default_rng(seed)
    null, conditional = two_oracles(schedule, rng)
    t, x, h = int(rng.integers(1, schedule.T + 1)), rng.normal(size=(5, 1)), 1e-5
    assume(schedule.one_minus_alpha_bar[t] > 1e-4)

    def log_density(x):
        return guided(null.log_prob(x, t), conditional.log_prob(x, t), w)  # log q_t(x) (q_t(x|c)/q_t(x))^w

    slope = (log_density(x + h) - log_density(x - h)) / (2 * h)
    found = guided(null.score(x, t), conditional.score(x, t), w)[:, 0]
    np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-4)


@given(schedules(16), st.floats(0.1, 2), st.floats(0.05, 1), scales)
def test_e39_the_guided_variance_is_that_of_the_guided_density(schedule, variance, share, w):
    class_variance = share * variance
    assume(w / class_variance + (1 - w) / variance > 0.1)
    found, _ = guided_variances(schedule, variance, class_variance, w)
    t = schedule.T
    null, conditional = (Oracle(gaussian_data([0.0], v), schedule) for v in (variance, class_variance))
    x, _ = line()
    x = x * found[t] ** 0.5
    density = np.exp(guided(null.log_prob(x, t), conditional.log_prob(x, t), w))
    assert_close(density @ x[:, 0] ** 2 / density.sum(), found[t], rtol=1e-9)


def test_e39_guided_densities_are_the_diffusion_of_data_for_no_other_scale_than_0_and_1():
    schedule = NoiseSchedule.linear(1000)
    for w, data_variance in ((0.0, 1.0), (1.0, 0.1)):
        found, diffused = guided_variances(schedule, 1.0, 0.1, w)
        assert_close(found, diffused)
        assert_close(found, schedule.alpha_bar * data_variance + schedule.one_minus_alpha_bar)
    found, diffused = guided_variances(schedule, 1.0, 0.1, 3.0)
    assert_close(found[0], diffused[0])
    assert abs(found[0] - 1 / 28) < 1e-12  # 3 times the precision of 0.1, less twice that of 1
    assert_close([found[300], diffused[300]], [0.375373, 0.617738], rtol=1e-5)
    # Data whose diffusion has the guided density at t would need this variance: it even becomes negative.
    needed = (found - schedule.one_minus_alpha_bar) / schedule.alpha_bar
    assert_close(needed[[0, 300]], [1 / 28, -0.575671], rtol=1e-5)


def test_e39_guidance_that_leaves_no_density_is_refused():
    with pytest.raises(ValueError, match="w = -0.5 leaves no density"):
        guided_variances(NoiseSchedule.linear(10), 1.0, 0.1, -0.5)


@pytest.mark.parametrize("variance", [-0.1, np.nan, np.inf, [0.1, 0.2]])
def test_data_without_a_variance_are_refused(variance):
    for call in (lambda s: guided_variances(s, 1.0, variance, 2.0), lambda s: fixed_variance_excess(s, variance)):
        with pytest.raises(ValueError, match="variance of the data must be a number of at least 0"):
            call(NoiseSchedule.linear(10))
