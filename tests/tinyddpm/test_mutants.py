"""What mutmut changed in the mathematics and no other test noticed: see `make mutation`."""

import numpy as np
import pytest
from strategies import assert_close

from tinyddpm import (
    Gaussian,
    NoiseSchedule,
    ddim_step,
    from_x0,
    p_mean_variance,
    p_mean_variance_eps,
    sample,
    variational_bound,
    x0_from,
)
from tinyddpm.bound import reconstruction_term, step_kl
from tinyddpm.decoder import log_bin_mass
from tinyddpm.forward import q_bridge
from tinyddpm.loss import importance_timesteps
from tinyddpm.reverse import learned_variance, predict_x0, reverse_process, reverse_variance, second_order_step
from tinyddpm.theory import binomial
from tinyddpm.theory.bound_forms import reverse_model
from tinyddpm.theory.flow import flow_log_prob, flow_log_prob_estimates
from tinyddpm.theory.log_snr import LearnedLogSNR
from tinyddpm.theory.mixture import finite_data, mixture_data

SCHEDULE = NoiseSchedule.linear(4)
X = np.array([[0.5], [-1.0]])


def half(xt, t):
    return xt / 2


def zeros(t):
    return 0 * X


@pytest.mark.parametrize("timesteps", [[1, 5], np.array([], int)])
def test_respacing_looks_at_the_last_step_of_several_and_refuses_none(timesteps):
    with pytest.raises(ValueError, match="timesteps must be increasing integers in 1..4"):
        SCHEDULE.respace(timesteps)


@pytest.mark.parametrize("alpha_bar", [[0.5, 0.5], [0.5, 0.6], [0.5, 0.0], [1.1, 0.5]])
def test_what_is_wrong_with_an_alpha_bar_is_said_of_alpha_bar(alpha_bar):
    with pytest.raises(ValueError, match="alpha_bar must strictly decrease within"):
        NoiseSchedule.from_alpha_bar(alpha_bar)
    with pytest.raises(ValueError, match="^alpha_bar must be one-dimensional"):
        NoiseSchedule.from_alpha_bar([alpha_bar])


def test_a_schedule_refuses_an_alpha_bar_of_which_only_the_last_is_lost_and_keeps_float64():
    NoiseSchedule.from_beta([0.999] * 102)
    with pytest.raises(ValueError, match="stay above 0 in float64"):
        NoiseSchedule.from_beta([0.999] * 103)
    assert NoiseSchedule(np.array([0, 0.5], np.float32), np.arange(2)).beta.dtype == np.float64
    single = np.array([1, 0.7, 0.1], np.float32)
    assert_close(NoiseSchedule.from_alpha_bar(single).beta, NoiseSchedule.from_alpha_bar(single.tolist()).beta)


def test_e03_a_jump_between_two_integers_is_two_numbers():
    assert np.shape(SCHEDULE.jump(1, 3)[0]) == np.shape(SCHEDULE.jump(1, 3)[1]) == ()


def test_e21_a_bin_that_ends_at_the_mean_is_in_one_branch():
    assert_close(log_bin_mass(np.array([4.0]), np.array([4.0])), np.log(0.5))


def test_errors_name_the_argument_and_what_was_given():
    with pytest.raises(ValueError, match="^beta must be one-dimensional"):
        NoiseSchedule.from_beta([[0.5]])
    with pytest.raises(ValueError, match="variance must not be negative, got -2.0"):
        Gaussian(X, np.array([[1.0], [-2.0]]))
    with pytest.raises(ValueError, match="^prediction must have the shape of xt,"):
        x0_from(SCHEDULE, "eps", X[:1], X, 1)
    with pytest.raises(ValueError, match="^x0 must have the shape of xt,"):
        from_x0(SCHEDULE, "eps", X[:1], X, 1)
    with pytest.raises(ValueError, match="^x_next must have the shape of x_prev,"):
        q_bridge(SCHEDULE, X, X[:1], 1)


def test_the_eps_form_has_the_variance_of_the_x0_form_when_none_is_named():
    assert p_mean_variance_eps(SCHEDULE, X, X, 3).variance == p_mean_variance(SCHEDULE, X, X, 3).variance


def test_there_is_no_prediction_at_t_0_and_no_variance():
    with pytest.raises(ValueError, match="t must lie in 1..4"):
        learned_variance(SCHEDULE, X, X, 0)
    with pytest.raises(ValueError, match="t must lie in 1..4"):
        predict_x0(half, SCHEDULE, X, 0)
    with pytest.raises(ValueError, match="t must lie in 1..4"):
        reverse_variance(SCHEDULE, "beta", X, 0)


def test_e19_a_data_point_at_0_has_a_kl():
    assert (step_kl(SCHEDULE, 0 * X, 0 * X, 2) == 0).all()


def test_the_chain_takes_variances_that_differ_within_a_sample():
    def step(schedule, x0_hat, xt, t):
        return p_mean_variance(schedule, x0_hat, xt, t, variance=np.array([[0.0], [4.0]]))

    means = [x for _, x, _ in reverse_process(half, SCHEDULE, X, zeros, step)]
    _, first, _ = next(reverse_process(half, SCHEDULE, X, lambda t: np.ones_like(X), step))
    assert_close(first, means[0] + np.array([[0.0], [2.0]]), scale=1.0)


def test_e31_only_the_first_and_the_last_second_order_step_are_those_of_ddim():
    step = second_order_step()
    for t, differs in ((4, False), (3, True), (2, True), (1, False)):
        found, x0_hat = step(SCHEDULE, X * t, X, t).mean, X * t
        assert (abs(found - ddim_step(SCHEDULE, x0_hat, X, t).mean) > 1e-3).all() == differs, t


def test_the_second_order_sampler_is_not_ddim_by_another_name():
    found = [sample(half, SCHEDULE, X, zeros, sampler, clip=False) for sampler in ("ddim", "dpm_solver")]
    assert (abs(found[0] - found[1]) > 1e-3).all()


def test_every_step_can_be_kept():
    _, kept = sample(half, SCHEDULE, X, zeros, keep=range(1, 5))
    assert sorted(kept) == [1, 2, 3, 4]


def test_e14_the_bound_passes_its_decoder_on():
    decoder = Gaussian.log_prob
    bound = variational_bound(SCHEDULE, half, X, zeros, decoder=decoder)
    assert_close(bound.reconstruction, reconstruction_term(SCHEDULE, half, X, 0 * X, decoder=decoder))


@pytest.mark.parametrize("probabilities", [[0, 0, 1.0], [[0, 1.0]], 1.0, [0.0]])
def test_e36_each_t_must_be_possible(probabilities):
    with pytest.raises(ValueError, match="probabilities must be 0 at t = 0"):
        importance_timesteps(probabilities, 3, np.random.default_rng(0))


def test_e36_a_random_number_that_is_exactly_0_is_t_1_and_not_t_0():
    class Zero:
        def random(self, n):
            return np.zeros(n)

    t, weights = importance_timesteps([0, 0.5, 0.5], 2, Zero())
    assert t.tolist() == [1, 1] and weights.tolist() == [1.0, 1.0]


# ==== bits ====

BITS = np.array([[[0.0, 1.0], [1.0, 1.0]]] * 2)  # two samples, 2 x 2 bits each


def unsure(xt, t):
    return 0 * xt + 0.25


class Asked:
    """A source of noise, or a wrapper of a loop, that notes what it was asked for."""

    def __init__(self):
        self.steps = []

    def noise(self, t):
        self.steps.append(t)
        return np.random.default_rng(t).random(BITS.shape)

    def progress(self, steps, **options):
        self.steps += list(steps)
        return self.steps


def test_e33_every_step_of_a_chain_of_bits_has_noise_of_its_own():
    asked = Asked()
    binomial.sample(unsure, SCHEDULE, BITS, asked.noise)
    assert asked.steps == [4, 3, 2, 1]


def test_e33_every_term_of_the_bound_of_bits_has_noise_of_its_own_and_progress_sees_each():
    asked, shown = Asked(), Asked()
    found = binomial.variational_bound(SCHEDULE, unsure, BITS, asked.noise, shown.progress)
    assert asked.steps == shown.steps == [1, 2, 3, 4]
    for t in (2, 3, 4):
        term = binomial.denoising_term(SCHEDULE, unsure, BITS, t, asked.noise(t))
        assert_close(found.denoising[t], term)


def test_e33_a_model_that_knows_has_a_finite_bound():
    bound = binomial.variational_bound(SCHEDULE, lambda xt, t: BITS, BITS, Asked().noise)
    assert np.isfinite(bound.denoising).all() and (bound.reconstruction == 0).all()


def test_e23_the_cross_entropy_is_of_a_pixel_whatever_the_shape_of_an_image():
    each = -np.log(np.where(BITS == 1, 0.25, 0.75))
    assert_close(binomial.bit_cross_entropy(BITS, 0 * BITS + 0.25), each.mean(axis=(1, 2)))


# ==== oracles, forms of the bound, continuous time ====


def test_points_that_are_integers_or_float32_become_float64_data():
    for points in ([[0], [1]], np.array([[0], [1]], np.float32)):
        assert finite_data(points).means.dtype == np.float64


def test_a_mixture_takes_one_variance_for_each_component():
    means, x = np.zeros((2, 3)), np.ones((4, 3))
    each, all_alike = (mixture_data([0.5, 0.5], means, v) for v in ([[0.3], [2.0]], [[0.3] * 3, [2.0] * 3]))
    assert_close(each.log_prob(x), all_alike.log_prob(x))


def test_what_is_rounding_beside_one_component_is_a_variance_of_another():
    covariances = np.array([1e-16, 1.0])[:, None, None] * np.eye(2)
    assert_close(mixture_data([0.5, 0.5], np.zeros((2, 2)), covariances).variances[0], np.full(2, 1e-16))


def test_the_forms_of_the_bound_use_the_variance_that_was_asked_for():
    found = reverse_model(SCHEDULE, half, "beta")(X, 3)
    assert found.variance == p_mean_variance(SCHEDULE, X, X, 3, variance="beta").variance


def test_a_learned_schedule_still_falls_at_the_end_of_time():
    schedule = LearnedLogSNR(5.0, -5.0, np.ones(3))
    assert_close(schedule.slope(np.array([1.0])), np.array([-10.0]))


def test_the_probes_that_were_given_are_those_that_are_used():
    exact, none = flow_log_prob(half, X, 0.0, 1.0, 3), flow_log_prob_estimates(half, X, 0.0, 1.0, 3, [0 * X])[0]
    assert (abs(exact - none) > 1e-3).all()
