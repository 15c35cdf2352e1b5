import math

import numpy as np
import pytest
from device import there
from exact import cubature, ideal_denoiser
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, normal_arrays, numbers, schedules, schedules_and_t, seeds

from tinyddpm import Gaussian, NoiseSchedule, bits_per_dim, l_simple, loss_weight, variational_bound
from tinyddpm.bound import Bound, denoising_term, distortion, l_hybrid, prior_term, reconstruction_term, step_kl
from tinyddpm.decoder import discretised_log_prob
from tinyddpm.forward import q_marginal, q_posterior, q_sample
from tinyddpm.gaussian import STANDARD_NORMAL
from tinyddpm.reverse import p_mean_variance, variance_table

point = numbers.map(lambda x: np.array([[x]]))
variances = st.sampled_from(["beta", "beta_tilde"])


def half(xt, t):
    return xt / 2


# ---- E20 ----


@given(schedules, seeds)
def test_e20_prior_term_is_the_kl_of_the_last_marginal(schedule, seed):
    (x0,) = normal_arrays(seed, (3, 4))
    expected = q_marginal(schedule, x0, schedule.T).kl(STANDARD_NORMAL)
    found = prior_term(schedule, x0)
    assert found.shape == (3,) and (found > 0).all()
    # the KL's sum cancels down to about alpha_bar; its terms are of size 1, and log(1 - alpha_bar)
    assert_close(found, expected, scale=4 - 4 * math.log(schedule.one_minus_alpha_bar[-1]))


@given(schedules, point)
def test_e20_prior_term_as_printed_and_without_cancellation(schedule, x0):
    a, noise = schedule.alpha_bar[-1], schedule.one_minus_alpha_bar[-1]
    log_noise = math.log1p(-a) if a < 0.5 else math.log(noise)
    terms = a * x0[0] ** 2, -a, -log_noise
    assert_close(prior_term(schedule, x0), sum(terms) / 2, scale=(a * x0[0] ** 2 + a))


def test_e20_prior_term_of_the_linear_schedule_is_small_but_not_zero():
    bits = bits_per_dim(prior_term(NoiseSchedule.linear(1000), np.ones((1, 7))), 7)
    assert_close(bits, [2.911e-05], rtol=2e-4)


# ---- E19 ----


@given(schedules_and_t(first=2), variances, seeds)
def test_e19_denoising_term_is_the_kl_of_posterior_and_model(case, variance, seed):
    schedule, t = case
    x0, noise = normal_arrays(seed, (2, 3), (2, 3))
    xt = q_sample(schedule, x0, t, noise)
    q, p = q_posterior(schedule, x0, xt, t), p_mean_variance(schedule, xt / 2, xt, t, variance)
    found, expected = denoising_term(schedule, half, x0, t, noise, variance), q.kl(p)
    # the means may nearly agree; then each brings its rounding into their difference
    size = (abs(p.mean) / p.variance**0.5).sum(axis=1)
    assert_close(found, expected, scale=1 + size * expected**0.5 + size**2 * 1e-15)


@given(schedules_and_t(first=2), variances, seeds)
def test_e19_term_is_the_weighted_error_plus_the_kl_of_the_variances(case, variance, seed):
    schedule, t = case
    x0, x0_hat = normal_arrays(seed, (2, 3), (2, 3))
    ratio = schedule.beta_tilde[t] / variance_table(schedule, variance)[t]
    c_t = (ratio - 1 - math.log(ratio)) / 2
    error = ((x0 - x0_hat) ** 2).sum(axis=1)
    expected = loss_weight(schedule, "x0", t, variance) * error + 3 * c_t
    assert_close(step_kl(schedule, x0, x0_hat, t, variance), expected, scale=1.0)
    if variance == "beta_tilde":
        assert c_t == 0


@given(schedules_and_t(first=2), seeds)
def test_e19_variance_may_be_learned_per_element(case, seed):
    schedule, t = case
    x0, x0_hat, xt, log_factor = normal_arrays(seed, (2, 3), (2, 3), (2, 3), (2, 3))
    variance = schedule.beta[t] * np.exp(log_factor)
    q, p = q_posterior(schedule, x0, xt, t), p_mean_variance(schedule, x0_hat, xt, t, variance)
    size = (abs(p.mean) / variance**0.5).sum(axis=1)
    expected = q.kl(p)
    found = step_kl(schedule, x0, x0_hat, t, variance)
    assert_close(found, expected, scale=10 + size * expected**0.5 + size**2 * 1e-15)


@given(schedules_and_t(first=2), seeds, st.floats(0, 1))
def test_e19_hybrid_objective_adds_the_term_at_the_learned_variance(case, seed, fraction):
    schedule, t = case
    eps, eps_hat, x0, x0_hat = normal_arrays(seed, *[(2, 3)] * 4)
    low, high = variance_table(schedule, "beta_tilde")[t], schedule.beta[t]
    variance = there(np.full((2, 3), high**fraction * low ** (1 - fraction)))
    term = step_kl(schedule, x0, x0_hat, t, variance)
    fractions = there(np.full((2, 3), fraction))
    for options, weight in (({}, 0.001), ({"weight": 0.5}, 0.5)):
        found = l_hybrid(schedule, eps, eps_hat, x0, x0_hat, t, fractions, **options)
        assert_close(found, l_simple(eps, eps_hat) + weight * schedule.T * term)


# ---- E21: the reconstruction ----


@given(schedules, variances, seeds)
def test_e21_reconstruction_is_the_decoder_around_the_prediction(schedule, variance, seed):
    (noise,) = normal_arrays(seed, (2, 3))
    x0 = there([[-1.0, 1 / 255, 1.0], [-1 / 255, -1.0, 1.0]])
    x1 = q_sample(schedule, x0, 1, noise)
    p = Gaussian(x1 / 2, variance_table(schedule, variance)[1])
    assert_close(reconstruction_term(schedule, half, x0, noise, variance), -discretised_log_prob(p, x0))
    found = reconstruction_term(schedule, half, x0, noise, variance, decoder=Gaussian.log_prob)
    assert_close(found, -p.log_prob(x0), scale=100)
    clipped = Gaussian((x1 / 2).clip(-0.3, 0.2), p.variance)
    found = reconstruction_term(schedule, half, x0, noise, variance, clip=(-0.3, 0.2))
    assert_close(found, -discretised_log_prob(clipped, x0))


# ---- E14: the whole ----


@pytest.mark.parametrize("T", [1, 2, 7])
@pytest.mark.parametrize("options", [{}, {"variance": "beta"}, {"clip": (-0.3, 0.3)}])
def test_e14_bound_is_made_of_its_terms_each_with_its_own_noise(T, options):
    schedule = NoiseSchedule.linear(T)
    x0 = there([[-1.0, 1 / 255, 1.0], [-1 / 255, -1.0, 1.0]])
    noise = dict(enumerate(normal_arrays(0, *[(2, 3)] * (T + 1))))
    bound = variational_bound(schedule, half, x0, noise.get, **options)
    assert bound.denoising.shape == (T + 1, 2) and (bound.denoising[:2] == 0).all()
    for t in range(2, T + 1):
        assert (bound.denoising[t] == denoising_term(schedule, half, x0, t, noise[t], **options)).all()
    assert (bound.reconstruction == reconstruction_term(schedule, half, x0, noise[1], **options)).all()
    assert (bound.prior == prior_term(schedule, x0)).all()
    assert_close(bound.total, bound.prior + bound.denoising.sum(axis=0) + bound.reconstruction)


def test_e14_total_adds_every_term():
    bound = Bound(np.float64([1, 2]), np.float64([[0, 0], [0, 0], [3, 4], [5, 6]]), np.float64([7, 8]))
    assert bound.total.tolist() == [16, 20]
    with pytest.raises(AttributeError):
        bound.prior = 0.0


def test_e14_respaced_bound_tells_the_model_the_original_timesteps():
    asked = []

    def denoise(xt, t):
        asked.append(int(t))
        return xt

    x0 = np.full((2, 3), -1.0)
    variational_bound(NoiseSchedule.linear(100).respace(4), denoise, x0, lambda t: 0 * x0)
    assert sorted(asked) == [25, 50, 75, 100]


def test_e14_continuous_data_progress_dtype_and_module(xp):
    schedule, x0, seen = NoiseSchedule.linear(4), xp.ones((2, 3), np.float32), []

    def progress(steps):
        seen.extend(steps)
        return steps

    bound = variational_bound(schedule, half, x0, lambda t: x0, decoder=Gaussian.log_prob, progress=progress)
    assert seen == [2, 3, 4]
    assert bound.total.dtype == bound.denoising.dtype == np.float32 and bound.total.shape == (2,)
    bound = variational_bound(schedule, half, x0, lambda t: x0)
    assert isinstance(bound.total, xp.ndarray) and bound.total.dtype == np.float32


@given(seeds)
def test_a_batch_of_t_is_the_samples_one_by_one(seed):
    schedule, t = NoiseSchedule.cosine(10), np.array([2, 6, 10])
    x0, noise = normal_arrays(seed, (3, 2, 2), (3, 2, 2))
    for variance in ("beta", "beta_tilde"):
        together = denoising_term(schedule, half, x0, t, noise, variance)
        for i in range(3):
            one = denoising_term(schedule, half, x0[i : i + 1], int(t[i]), noise[i : i + 1], variance)
            assert_close(together[i], one[0])


def test_denoising_terms_clip_and_start_at_t_2():
    schedule, x0 = NoiseSchedule.linear(4), np.full((2, 3), 0.5)
    noise = np.ones_like(x0)
    clipped = denoising_term(schedule, half, x0, 3, noise, clip=(0.0, 0.1))
    assert_close(clipped, step_kl(schedule, x0, np.full_like(x0, 0.1), 3))
    with pytest.raises(ValueError, match=r"t must lie in 2\.\.4"):
        denoising_term(schedule, half, x0, 1, noise)
    with pytest.raises(ValueError, match=r"t must lie in 2\.\.4"):
        step_kl(schedule, x0, x0, 1)
    with pytest.raises(ValueError, match="x0_hat must have the shape of x0, "):
        step_kl(schedule, x0, x0[:1], 2)


def test_bits_per_dim():
    assert_close(bits_per_dim(np.array([784 * math.log(2)]), 784), [1.0])
    assert_close(bits_per_dim(6 * math.log(2), 3), 2.0)


@pytest.mark.parametrize("d", [255, np.uint8(255), np.int64(255), np.prod([15, 17])])
def test_the_number_of_dimensions_may_be_of_any_type_and_changes_no_dtype(d):
    found = bits_per_dim(np.float32([1.0]), d)
    assert found.dtype == np.float32
    assert_close(found, [1 / (255 * math.log(2))], rtol=1e-6)


@pytest.mark.parametrize("d", [0, -1, 2.5, True, None])
def test_there_is_at_least_one_dimension(d):
    with pytest.raises(ValueError, match="d must be an integer of at least 1"):
        bits_per_dim(1.0, d)


def test_e19_a_data_point_at_0_has_a_kl():
    zero = np.zeros((2, 1))
    assert (step_kl(NoiseSchedule.linear(4), zero, zero, 2) == 0).all()


def test_e14_the_bound_passes_its_decoder_on():
    schedule, x0 = NoiseSchedule.linear(4), np.array([[0.5], [-1.0]])
    bound = variational_bound(schedule, half, x0, lambda t: 0 * x0, decoder=Gaussian.log_prob)
    assert_close(bound.reconstruction, reconstruction_term(schedule, half, x0, 0 * x0, decoder=Gaussian.log_prob))


@pytest.mark.parametrize("clip", [True, (1, -1), (0, 1, 2)])
def test_what_is_no_range_to_clip_to_is_refused(clip):
    schedule, x0 = NoiseSchedule.linear(4), np.ones((2, 3))
    for term in (
        lambda: denoising_term(schedule, half, x0, 2, x0, clip=clip),
        lambda: reconstruction_term(schedule, half, x0, x0, clip=clip),
        lambda: distortion(schedule, half, x0, 2, x0, clip=clip),
    ):
        with pytest.raises(ValueError, match="clip must be a pair"):
            term()


def test_an_empty_batch_has_an_empty_bound():
    x0 = np.zeros((0, 3), np.float32)
    bound = variational_bound(NoiseSchedule.linear(4), half, x0, lambda t: x0)
    assert bound.total.shape == (0,) and bound.rate.shape == (5, 0)


# ---- E41 ----


def test_e41_the_rate_adds_up_what_was_sent_from_x_T_down_to_x_t():
    bound = Bound(np.float64([1, 2]), np.float64([[0, 0], [0, 0], [3, 4], [5, 6]]), np.float64([7, 8]))
    assert bound.rate.tolist() == [[16, 20], [9, 12], [6, 8], [1, 2]]
    assert (bound.rate[0] == bound.total).all()
    single = Bound(np.float64([1]), np.zeros((2, 1)), np.float64([2]))
    assert single.rate.tolist() == [[3], [1]]


def test_e41_for_the_ideal_model_the_distortion_falls_as_the_rate_rises():
    schedule, v = NoiseSchedule.linear(30), 0.25
    x0, noise = (np.ascontiguousarray(column[:, None]) for column in cubature(2).T)  # exact for squares
    bound = variational_bound(
        schedule, ideal_denoiser(schedule, v), v**0.5 * x0, lambda t: noise, decoder=Gaussian.log_prob
    )
    lost = [
        distortion(schedule, ideal_denoiser(schedule, v), v**0.5 * x0, t, noise).mean()
        for t in range(1, schedule.T + 1)
    ]
    signal, var_t = schedule.alpha_bar[1:], schedule.one_minus_alpha_bar[1:]
    assert_close(lost, v * var_t / (signal * v + var_t))  # the variance of x_0 given x_t
    assert (np.diff(lost) > 0).all() and (np.diff(bound.rate[1:].mean(axis=1)) < 0).all()


def test_e41_distortion_is_of_the_clipped_prediction():
    x0 = np.full((2, 3), 0.5)
    assert_close(distortion(NoiseSchedule.linear(4), half, x0, 3, 9 * x0, clip=(0.0, 0.1)), [0.16, 0.16])
