"""Where the tests' arrays live: conftest.py sets `xp` from --device before any test is collected."""

import functools

import numpy as np

import nn

__all__ = ["drawn", "there", "use"]

xp = np


def there(array):
    """A NumPy array on the device that the tests run on."""
    return nn.to_device(np.asarray(array), xp)


def drawn(cupy, seed, *shapes, dtype=np.float64):
    """Standard normal arrays of the module `cupy`, one for each shape."""
    rng = np.random.default_rng(seed)
    return [cupy.asarray(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


def use(module):
    """Run the tests on `module`'s arrays, which numpy.testing then compares by what they hold."""
    global xp
    xp = module
    for name in ("assert_allclose", "assert_array_equal"):
        setattr(np.testing, name, _on_the_host(getattr(np.testing, name)))


def _on_the_host(check):
    @functools.wraps(check)
    def wrapped(actual, expected, **options):
        move = lambda a: nn.to_numpy(a) if nn.array_module(a) is not np else a  # noqa: E731  lists stay lists
        return check(move(actual), move(expected), **options)

    return wrapped
