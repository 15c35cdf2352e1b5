"""What hypothesis draws: schedules, timesteps, arrays. And the exact tables they are compared with."""

from decimal import Decimal, localcontext
from functools import cache

import numpy as np
from device import there
from hypothesis import strategies as st

import nn
from tinyddpm import SCHEDULES, named_schedule
from tinyddpm.properties import checks as properties

named_schedule = cache(named_schedule)
NAMED_CASES = [(name, T) for name in SCHEDULES for T in (1, 2, 10, 1000)]

betas = properties.betas()
drawn_schedules = properties.drawn_schedules()
named_schedules = st.sampled_from(NAMED_CASES).map(lambda case: named_schedule(*case))
schedules = drawn_schedules | named_schedules
numbers = st.floats(-3, 3, allow_subnormal=False)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def schedules_and_t(draw, first=1, count=1):
    """A schedule of at least `first` steps and `count` timesteps in first..T, in order, perhaps equal."""
    schedule = draw(schedules.filter(lambda schedule: schedule.T >= first))
    return schedule, *sorted(draw(st.integers(first, schedule.T)) for _ in range(count))


def host_arrays(seed, *shapes):
    """Standard normal float64 NumPy arrays of the given shapes: for tables, and for what is computed by hand."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def normal_arrays(seed, *shapes):
    """The same on the device that the tests run on."""
    return [there(array) for array in host_arrays(seed, *shapes)]


class ExactTables:
    """The tables of a schedule with the same betas, as Decimals of 60 digits."""

    def __init__(self, schedule):
        with localcontext(prec=60):
            self.beta = [Decimal(float(b)) for b in schedule.beta]
            self.alpha = [1 - b for b in self.beta]
            self.alpha_bar = [Decimal(1)]
            for alpha in self.alpha[1:]:
                self.alpha_bar.append(self.alpha_bar[-1] * alpha)
            self.noise = [1 - a for a in self.alpha_bar]


def assert_close(actual, expected, scale=0.0, rtol=1e-12):
    """|actual - expected| <= rtol (|expected| + scale), elementwise.

    scale: the size of the terms that were added up, where a sum may be far smaller than they are.
    """
    actual, expected, scale = (np.asarray(nn.to_numpy(a), np.float64) for a in (actual, expected, scale))
    error, bound = abs(actual - expected), rtol * (abs(expected) + scale)
    assert error.shape == actual.shape, f"shapes differ: {actual.shape} and {expected.shape}"
    if not (error <= bound).all():
        i = np.unravel_index(np.argmax(np.where(error <= bound, -1, error)), error.shape)
        expected = np.broadcast_to(expected, error.shape)
        raise AssertionError(f"{actual[i]!r} != {expected[i]!r} at {i}; {(~(error <= bound)).sum()} differ")
