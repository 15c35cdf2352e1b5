"""Learning rates: functions that return a function of the step number 1, 2, ... Next: random.py."""

import math

__all__ = ["constant", "warmup", "linear", "cosine"]


def constant(rate):
    """The same rate at every step."""
    return lambda step: rate


def warmup(rate, steps, then=None):
    """Linearly up to `rate` over the first `steps` steps, then `then(step)` (by default `rate` for good)."""
    then = then or constant(rate)
    return lambda step: rate * step / steps if step <= steps else then(step)


def linear(rate, steps, final=0.0):
    """On a line from `rate` at step 0 to `final` at step `steps`, and `final` after it."""
    return lambda step: final + (rate - final) * max(1 - step / steps, 0)


def cosine(rate, steps, final=0.0):
    """Half a cosine from `rate` at step 0 to `final` at step `steps`, and `final` after it."""
    return lambda step: final + (rate - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))
