"""Learning rates: functions that return a function of the step number 1, 2, ... Next: random.py.

Every rate here is continuous in the step and never above the rate asked for, for any numbers that are accepted.
"""

import math

from nn.options import real

__all__ = ["constant", "linear", "cosine", "warmup"]


def constant(rate):
    """The same rate at every step."""
    rate = real("the learning rate", rate)
    return lambda step: rate


def linear(rate, steps, final=0.0):
    """On a line from `rate` at step 0 to `final` at step `steps`, and `final` after it. 0 <= final <= rate."""
    return _fall(rate, steps, final, lambda done: 1 - done)


def cosine(rate, steps, final=0.0):
    """Half a cosine from `rate` at step 0 to `final` at step `steps`, and `final` after it. 0 <= final <= rate."""
    return _fall(rate, steps, final, lambda done: 0.5 * (1 + math.cos(math.pi * done)))


def warmup(rate, steps):
    """`rate`, a number or one of the functions above, times step / steps in the first `steps` steps.

    The factor does not move the rest: warmup(cosine(1e-3, 5000), 100) ends at step 5000.
    """
    rate, steps = rate if callable(rate) else constant(rate), real("the steps of a warm-up", steps)
    return lambda step: rate(step) * _done(step, steps)


def _fall(rate, steps, final, shape):
    """From `rate` to `final` as `shape`, a function of the share of the steps done, falls from 1 to 0."""
    rate, final, steps = real("the learning rate", rate), real("the final rate", final), real("the steps", steps)
    if final > rate or steps == 0:
        raise ValueError(f"a falling rate needs final <= rate and steps > 0, got {rate:g}, {final:g} and {steps:g}")
    # `min`: rounding may put final + (rate - final) above the rate.
    return lambda step: min(rate, final + (rate - final) * shape(_done(step, steps)))


def _done(step, steps):
    """Which share of `steps` is done at `step`, from 0 to 1."""
    return min(max(step, 0) / steps, 1.0) if steps else 1.0
