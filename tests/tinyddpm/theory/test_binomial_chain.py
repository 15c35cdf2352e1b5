"""The chain and the bound of bits: each step and each term has noise of its own."""

import numpy as np
from strategies import assert_close

from tinyddpm import NoiseSchedule
from tinyddpm.reverse import reverse_process
from tinyddpm.theory import binomial

SCHEDULE = NoiseSchedule.linear(4)
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


def test_the_sampler_walks_a_respaced_chain_with_progress_and_tells_the_model_the_true_time():
    schedule, told, bars = NoiseSchedule.linear(20), [], []

    def denoise(xt, t):
        told.append(t)
        return np.full_like(xt, 0.5)

    def progress(steps, total):
        bars.append(total)
        return steps

    x_T = np.ones((3, 2, 2), np.float32)
    x0 = binomial.sample(denoise, schedule.respace(4), x_T, lambda t: np.zeros_like(x_T), progress)
    assert x0.dtype == np.float32 and (x0 == 1).all()
    assert told == [20, 15, 10, 5] and bars == [4]


def test_the_states_on_the_way_are_those_of_the_reverse_process():
    schedule, x_T = NoiseSchedule.linear(6), np.ones((2, 3))
    noise = np.random.default_rng(5).random((7, 2, 3))

    def denoise(xt, t):
        return 0.3 + 0.4 * xt

    x, states = x_T, reverse_process(denoise, schedule, x_T, lambda t: noise[t], binomial.ancestral_step)
    for t, x_prev, x0_hat in states:
        np.testing.assert_array_equal(x0_hat, denoise(x, t))
        p = binomial.p_transition(schedule, x0_hat, x, t)
        np.testing.assert_array_equal(x_prev, p.mean if t == 1 else p.sample(noise[t]))
        x = x_prev
    x0 = binomial.sample(denoise, schedule, x_T, lambda t: noise[t])
    np.testing.assert_array_equal(x0, noise[1] < x)


def test_the_ideal_model_of_a_finite_set_samples_the_set():
    rng = np.random.default_rng(3)
    points = rng.integers(0, 2, (4, 12)).astype(float)
    schedule = NoiseSchedule.linear(100)

    def denoise(xt, t):
        like = [binomial.q_marginal(schedule, np.tile(p, (len(xt), 1)), int(t)).log_prob(xt) for p in points]
        share = np.exp(like - np.logaddexp.reduce(like))
        return share.T @ points

    x_T = rng.integers(0, 2, (50, 12)).astype(float)
    drawn = binomial.sample(denoise, schedule, x_T, lambda t: rng.random((50, 12)))
    matches = (drawn[:, None] == points).all(-1)
    assert matches.any(1).mean() > 0.9 and matches.any(0).all()
