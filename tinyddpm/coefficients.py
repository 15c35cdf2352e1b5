"""From a float64 table to a coefficient that multiplies data: the one place where t becomes an index."""

import numpy as np

__all__ = ["gather", "spread", "check_t", "check_like", "is_integer", "float_dtype"]


def gather(table, t, x, first=0):
    """table[t], in x's dtype, shaped to broadcast over x, on x's device.

    table: float64 NumPy, entries for t = 0..T. x: (N, ...) floating (NumPy, CuPy, or any tensor with `dtype`
    and `shape`). t: an integer, giving a scalar, or integers (N,), giving (N, 1, ..., 1); each in first..T.
    Raises TypeError or ValueError as `check_t` and `float_dtype` do.
    """
    return spread(table[check_t(t, len(table) - 1, x, first)], x)


def spread(values, x):
    """Values, one for all of x or one a sample, in x's dtype, on its device, shaped to broadcast over x."""
    values = np.asarray(values).astype(float_dtype("x", x))
    if values.ndim == 0:
        return values[()]  # a NumPy scalar keeps a CuPy array where it is
    values = values.reshape(values.shape + (1,) * (len(x.shape) - 1))
    if is_on_gpu(x):
        import cupy

        return cupy.asarray(values)
    return values


def check_t(t, T, x, first=0):
    """t as an int or a NumPy integer array (N,), N = x.shape[0], if every t lies in first..T.

    Raises TypeError unless t holds integers, ValueError when its shape or range is wrong.
    """
    if hasattr(t, "get") and hasattr(t, "device"):
        t = t.get()  # CuPy: the tables, and so the indices, live on the host
    index = np.asarray(t)
    if index.dtype.kind not in "iu":
        raise TypeError(f"t must be an integer or an array of integers, got {index.dtype} ({t!r})")
    if index.ndim > 0 and index.shape != tuple(x.shape[:1]):
        raise ValueError(f"t must be an integer or have shape {tuple(x.shape[:1])}, got {index.shape}")
    if index.size and (index.min() < first or index.max() > T):
        raise ValueError(f"t must lie in {first}..{T}, got {index.min()}..{index.max()}")
    return int(index) if index.ndim == 0 else index


def check_like(name, value, other_name, other):
    """Raise unless value has the shape (ValueError) and the dtype (TypeError) of other."""
    shape, other_shape = (tuple(getattr(a, "shape", ())) for a in (value, other))
    if shape != other_shape:
        raise ValueError(f"{name} must have the shape of {other_name}, {other_shape}, got {shape}")
    if float_dtype(name, value) != float_dtype(other_name, other):
        raise TypeError(
            f"{name} must have the dtype of {other_name}, {float_dtype(other_name, other)}, "
            f"got {float_dtype(name, value)}"
        )


def float_dtype(name, x):
    """The dtype of x, or TypeError if it is not floating. A Python float counts as float64."""
    dtype = getattr(x, "dtype", np.dtype(type(x)) if isinstance(x, float) else None)
    if dtype is None or np.dtype(dtype).kind != "f":
        raise TypeError(f"{name} must be a floating-point array, got {type(x).__name__} of dtype {dtype}")
    return np.dtype(dtype)


def is_integer(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_on_gpu(x):
    """Whether x is a CuPy array, or a tensor that holds one in `.data`."""
    return any(hasattr(a, "__cuda_array_interface__") for a in (x, getattr(x, "data", None)))
