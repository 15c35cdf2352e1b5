"""Learning rates: their values at chosen steps, and that none jumps or rises above the rate asked for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nn.rates import constant, cosine, linear, warmup

RATES = {
    "constant": (constant(3.0), {1: 3, 1000: 3}),
    "warmup": (warmup(8.0, 4), {0: 0, 1: 2, 2: 4, 4: 8, 5: 8, 1000: 8}),
    "warmup of no steps": (warmup(8.0, 0), {0: 8, 1: 8}),
    "warmup of a line": (warmup(linear(8.0, 8), 4), {1: 1.75, 2: 3, 4: 4, 6: 2, 8: 0, 9: 0}),
    "warmup of a cosine": (warmup(cosine(8.0, 12), 4), {2: 2 + 3**0.5, 4: 6, 6: 4, 12: 0}),
    "warmup longer than the fall": (warmup(linear(8.0, 8), 16), {4: 1, 8: 0, 12: 0, 16: 0}),
    "linear": (linear(8.0, 4, final=2), {1: 6.5, 2: 5, 4: 2, 9: 2}),
    "cosine": (cosine(8.0, 12), {4: 6, 6: 4, 8: 2, 12: 0, 13: 0}),
    "cosine to a floor": (cosine(8.0, 12, final=2), {4: 6.5, 6: 5, 12: 2, 99: 2}),
}


@pytest.mark.parametrize("rate, expected", RATES.values(), ids=RATES.keys())
def test_rates_at_chosen_steps(rate, expected):
    assert [rate(step) for step in expected] == pytest.approx(list(expected.values()), rel=1e-12, abs=1e-12)


numbers = st.floats(0, 1e3)
steps = st.integers(1, 50) | st.floats(0.5, 50)


@given(st.sampled_from([linear, cosine, constant]), numbers, steps, st.floats(0, 1), st.integers(0, 60))
def test_no_rate_jumps_or_is_above_the_rate_asked_for(fall, rate, steps, share, warm):
    falling = constant(rate) if fall is constant else fall(rate, steps, final=share * rate)
    schedule = warmup(falling, warm)
    at = np.linspace(-1, 70, 71 * 64 + 1)
    found = np.array([schedule(step) for step in at])
    assert (found >= 0).all()
    assert (found <= rate).all()
    steepest = rate * (math.pi / 2 / steps + (1 / warm if warm else 0)) / 64  # how far it can go in 1/64 of a step
    assert abs(np.diff(found)).max() <= steepest * (1 + 1e-9) + 1e-12 * rate


@pytest.mark.parametrize("integer", [np.uint8, np.int16, np.int64])
@pytest.mark.parametrize("real", [np.float32, np.float64, np.float16])
def test_numbers_of_numpys_give_what_pythons_give(integer, real):
    for make in (linear, cosine):
        ours = warmup(make(real(0.5), integer(200), final=real(0.25)), integer(100))
        for step in (1, 99, 100, 101, 127):
            assert ours(integer(step)) == warmup(make(0.5, 200, final=0.25), 100)(step)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: linear(1.0, 0), "steps > 0, got 1, 0 and 0"),
        (lambda: cosine(1.0, -3), r"the steps must be in \[0, inf\), got -3"),
        (lambda: linear(1.0, math.nan), "the steps .* got nan"),
        (lambda: linear(1.0, math.inf), "the steps .* got inf"),
        (lambda: linear(1.0, 10, final=2.0), "final <= rate .* got 1, 2 and 10"),
        (lambda: cosine(1.0, 10, final=-1.0), "the final rate must be in"),
        (lambda: constant(-1.0), "the learning rate must be in"),
        (lambda: constant(math.inf), "the learning rate .* got inf"),
        (lambda: warmup(math.nan, 3), "the learning rate .* got nan"),
        (lambda: warmup(1.0, -3), "the steps of a warm-up must be in"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("rate", ["0.1", None, [0.1]])
def test_what_is_no_number_is_refused(rate):
    with pytest.raises(TypeError, match="the learning rate must be a number, got"):
        warmup(rate, 3)
