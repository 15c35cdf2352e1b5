"""The counter-based generator: known answers, what its numbers depend on, how they are distributed."""

import math
import statistics
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nn
from nn import random, to_numpy
from nn.random import normal, philox, uniform

KNOWN = [  # kat_vectors of Random123 1.14: philox4x32, 10 rounds: counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("counter, key, result", KNOWN)
def test_philox_gives_the_known_answers(xp, counter, key, result):
    assert [int(word) for word in philox(words(counter), words(key), xp)] == words(result)


def test_philox_takes_arrays_of_counters_that_broadcast(xp):
    single, columns = np.array([0, 5]), np.array([[1], [2], [3]])
    table = philox((single, columns, 7, 8), (9, 10), xp)
    assert [int(word[2, 1]) for word in table] == [int(word) for word in philox((5, 3, 7, 8), (9, 10), xp)]


# ==== what the numbers depend on ====

draws = pytest.mark.parametrize("draw", [uniform, normal])
word = st.integers(0, 2**32 - 1)


@draws
@given(st.lists(word, min_size=1, max_size=5), word, st.integers(0, 2**64 - 1))
def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(draw, samples, seed, step):
    together = draw(seed, "noise", step, samples, (3, 5))
    for row, sample in zip(together, samples, strict=True):
        np.testing.assert_array_equal(draw(seed, "noise", step, [sample], (3, 5))[0], row)


@draws
def test_seed_stream_step_and_sample_each_make_other_numbers(draw):
    base = (1, "noise", 2, [3], (8,))
    others = [
        (2, *base[1:]),
        (1, "other", *base[2:]),
        (*base[:2], 3, *base[3:]),
        (*base[:3], [4], (8,)),
        (*base[:2], 2 + 2**32, *base[3:]),
    ]
    drawn = [draw(*arguments) for arguments in (base, *others)]
    assert len({float(x) for numbers in drawn for x in numbers.reshape(-1)}) == 6 * 8


@draws
@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 3), (0,), (2, 0)])
@pytest.mark.parametrize("count", [0, 4])
def test_shapes_and_dtype(xp, draw, shape, count):
    numbers = draw(0, "noise", 0, range(count), shape, xp)
    assert (numbers.shape, numbers.dtype) == ((count, *shape), np.float32)


@draws
@pytest.mark.parametrize("integer", [np.uint8, np.uint32, np.int64, lambda value: np.array(value)])
def test_numbers_of_numpys_give_what_pythons_give(xp, draw, integer):
    """The key and the counter are words of 32 bits, which a seed of 8 bits must not wrap around in."""
    expected = draw(200, "noise", 250, [7, 255], (5,), xp)
    for samples in (np.array([7, 255], np.uint8), xp.asarray(np.array([7, 255], np.int16))):
        np.testing.assert_array_equal(draw(integer(200), "noise", integer(250), samples, (5,), xp), expected)


# ==== how they are distributed ====


def test_uniform_is_23_bits_and_a_half_exactly(xp):
    """Never 0, never 1: with 24 bits the largest would round to 1."""
    chosen = np.array([0, 2**9 - 1, 2**9, 2**31, 2**32 - 2**9, 2**32 - 1], dtype=np.uint64)
    drawn = to_numpy(random._unit_interval(xp.asarray(chosen), xp))
    assert drawn.dtype == np.float32
    assert drawn.astype(np.float64).tolist() == [((int(word) >> 9) + 0.5) / 2**23 for word in chosen]
    assert drawn.min() > 0
    assert drawn.max() < 1


def test_uniform_numbers_are_the_words_of_philox_in_order(xp):
    """Block 0 gives the first of each four words, then the second of each, and so on."""
    key = 3, zlib.crc32(b"noise")
    blocks = [philox((block, 9, 5, 1), key) for block in range(2)]
    expected = [random._unit_interval(blocks[block][i], np) for i in range(4) for block in range(2)]
    found = uniform(3, "noise", 5 + 2**32, [9], (7,), xp)
    np.testing.assert_array_equal(found[0], np.array(expected[:7]))


def test_normal_is_the_transform_of_box_and_muller(xp):
    u, angle = to_numpy(uniform(5, "noise", 6, range(7), (2, 9), xp)).astype(np.float64).transpose(1, 0, 2)
    expected = np.sqrt(-2 * np.log(u)) * np.array([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)])
    drawn = to_numpy(normal(5, "noise", 6, range(7), (18,), xp))
    np.testing.assert_allclose(drawn, np.concatenate(expected, axis=1), rtol=0, atol=2e-6)


# The numbers are fixed, so these hold or do not. Each bound would fail for about one seed in a million.
COUNT = 1 << 20
SIGMAS = 5  # two-sided: 6e-7


def largest_distance(numbers, cdf):
    """Kolmogorov's distance between the numbers and a distribution."""
    expected, steps = np.array([cdf(x) for x in np.sort(numbers)]), np.arange(numbers.size + 1) / numbers.size
    return max(abs(expected - steps[1:]).max(), abs(expected - steps[:-1]).max())


@pytest.mark.parametrize("draw, cdf", [(uniform, lambda x: x), (normal, statistics.NormalDist().cdf)])
def test_quantiles(draw, cdf):
    """Dvoretzky, Kiefer, Wolfowitz and Massart: P(distance > d) <= 2 exp(-2 n d^2)."""
    numbers = draw(0, "quantiles", 0, range(128), (1024,)).reshape(-1).astype(np.float64)
    assert largest_distance(numbers, cdf) < math.sqrt(math.log(2 / 1e-6) / (2 * numbers.size))


def test_moments_of_the_normal():
    z = normal(0, "moments", 0, range(1024), (1024,)).astype(np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # E z^2k - (E z^k)^2
        assert abs((z**power).mean() - moment) < SIGMAS * math.sqrt(variance / COUNT)


def test_neighbours_are_uncorrelated():
    """Neighbours in a sample, the two halves of Box and Muller, samples, steps and streams."""
    z = normal(0, "noise", 0, range(1024), (1024,)).astype(np.float64)
    later, apart = (normal(0, *key, range(1024), (1024,)) for key in (("noise", 1), ("other", 0)))
    for other in (np.roll(z, 1, axis=1), np.roll(z, 512, axis=1), np.roll(z, 1, axis=0), later, apart):
        assert abs((z * other).mean()) < SIGMAS / math.sqrt(COUNT)
        assert abs((z**2 * other**2).mean() - 1) < SIGMAS * math.sqrt(8 / COUNT)


# ==== what is refused ====


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, "got 4294967296 and 0"),
        ({"step": -1}, "step must be at least 0, got -1"),
        ({"step": 2**64}, "step in 0"),
        ({"samples": [-1]}, "got int64 -1..-1"),
        ({"samples": [2**32]}, "samples must be"),
        ({"samples": [0.5]}, "got float64 0.5..0.5"),
        ({"samples": [[1, 2]]}, r"in a list or an array, got shape \(1, 2\)"),
        ({"samples": 5}, r"in a list or an array, got shape \(\)"),
    ],
)
def test_numbers_out_of_range_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        uniform(**{"seed": 0, "stream": "noise", "step": 0, "samples": [0], **change})


def test_a_seed_that_is_no_integer_is_refused():
    with pytest.raises(TypeError, match="seed must be an integer, got 1.0"):
        uniform(1.0, "noise", 0, [0])


# ==== the state that layers draw from ====


def test_a_random_state_that_cannot_be_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="samples must be integers in"):
        nn.random_state(0, 0, [-1])


def test_the_same_state_gives_the_same_numbers_and_each_layer_its_own():
    def two_layers():
        with nn.random_state(1, 2, [5, 6]):
            return random.next_uniform((2, 3)), random.next_uniform((2, 3))

    (a, b), (c, d) = two_layers(), two_layers()
    np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, d)
    assert not (a == b).any()


def test_a_shard_draws_what_its_rows_draw_in_the_batch():
    with nn.random_state(1, 2, range(10)):
        batch = random.next_uniform((10, 3))
    with nn.random_state(1, 2, range(4, 7)):
        np.testing.assert_array_equal(random.next_uniform((3, 3)), batch[4:7])


def test_threads_do_not_draw_from_one_another():
    def draw(sample):
        with nn.random_state(1, 2, [sample]):
            return [random.next_uniform((1, 2)) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(draw, range(16)), map(draw, range(16)), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_drawing_outside_a_state_or_for_another_batch_is_refused():
    with pytest.raises(RuntimeError, match="enter `with nn.random_state.* or call network.eval"):
        random.next_uniform((2, 3))
    for shape in ((3, 3), ()):
        with nn.random_state(1, 2, [5, 6]), pytest.raises(ValueError, match="names 2 samples, the batch has the shape"):
            random.next_uniform(shape)
    with pytest.raises(RuntimeError, match="outside"):
        random.next_uniform((2, 3))
