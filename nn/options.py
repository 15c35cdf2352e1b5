"""Numbers given as options, such as a stride or a rate: checked where they enter, and made Python's own.

A NumPy number has a dtype: np.float64(0.1) makes float32 data float64, and np.uint8(200) + 100 overflows. A Python
number takes the dtype of the array that it meets. Next: cache.py.
"""

import math
import operator

__all__ = ["whole", "real"]


def whole(name, value, least=0):
    """`value` as an int. TypeError unless it is an integer (Python's or NumPy's), ValueError if it is below `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def real(name, value, low=0.0, below=math.inf):
    """`value` as a float. TypeError unless it is a number, ValueError unless low <= value < below (so for NaN too)."""
    if not hasattr(value, "__float__"):  # float() would read a string
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not low <= number < below:
        raise ValueError(f"{name} must be in [{low:g}, {below:g}), got {number:g}")
    return number
