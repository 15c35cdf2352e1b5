"""The chain and the bound of bits: each step and each term has noise of its own."""

import numpy as np
from strategies import assert_close

from tinyddpm import NoiseSchedule
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
