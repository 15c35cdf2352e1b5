"""From a float64 table to a coefficient that multiplies data: the one place where t becomes an index.

The checks of arguments are here too: that t holds integers in range, that two arrays have one shape, dtype and device,
that a name is known. Next: gaussian.py.
"""

import numpy as np

__all__ = ["gather", "spread", "check_t", "as_steps", "check_like", "float_dtype", "is_integer", "named"]
__all__ += ["check_T", "one_dimensional"]


def gather(table, t, x, first=0):
    """table[t], in x's dtype, shaped to broadcast over x, on x's device.

    table: float64 NumPy, entries for t = 0..T. x: (N, ...) floating (NumPy, CuPy, or any tensor with `dtype` and
    `shape`). t in first..T: an integer (the result is a scalar) or integers (N,) (the result is (N, 1, ..., 1)).
    Raises TypeError or ValueError as `check_t` and `float_dtype` do.
    """
    float_dtype("x", x)
    return spread(table[check_t(t, len(table) - 1, x, first)], x)


def spread(values, x):
    """`values`, a scalar or one value per sample (N,), in x's dtype, on its device, shaped to broadcast over x."""
    values = np.asarray(values).astype(float_dtype("x", x))
    if values.ndim == 0:
        return values[()]  # a NumPy scalar keeps a CuPy array where it is
    values = values.reshape(values.shape + (1,) * (len(x.shape) - 1))
    if is_on_gpu(x):
        import cupy

        return cupy.asarray(values)
    return values


# ---- t ----


def check_t(t, T, x, first=0, name="t"):
    """t as `as_steps` returns it, if it is an integer or has shape (N,), N = x.shape[0], and lies in first..T."""
    steps = as_steps(name, t, first, T)
    if np.ndim(steps) > 0 and steps.shape != tuple(x.shape[:1]):
        raise ValueError(f"{name} must be an integer or have shape {tuple(x.shape[:1])}, got {steps.shape}")
    return steps


def check_T(T):
    """T as a Python int, if it is an integer of at least 1."""
    if not is_integer(T) or T < 1:
        raise ValueError(f"T must be an integer of at least 1, got {T!r}")
    return int(T)


def as_steps(name, steps, first, last):
    """`steps` as a Python int if it is one integer, else as a NumPy int64 array of the same shape.

    Converted because arithmetic in a small dtype overflows: 255 + 1 is 0 in uint8. Raises TypeError for anything but
    integers, ValueError for a step outside first..last.
    """
    if hasattr(steps, "get") and hasattr(steps, "device"):
        steps = steps.get()  # CuPy: the tables, and so the indices, live on the host
    index = np.asarray(steps)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an integer or an array of integers, got {index.dtype} ({steps!r})")
    if index.size and not first <= int(index.min()) <= int(index.max()) <= last:
        raise ValueError(f"{name} must lie in {first}..{last}, got {index.min()}..{index.max()}")
    return int(index) if index.ndim == 0 else index.astype(np.int64)


def one_dimensional(name, values):
    """A float64 copy of `values`, real numbers (n,) with n >= 1. TypeError or ValueError for anything else."""
    array = np.asarray(values)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} must be one-dimensional and not empty, got shape {array.shape}")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got {array.dtype}")
    return array.astype(np.float64)


def is_integer(value):
    """Whether value is one integer: Python's, NumPy's, or a 0-d array. A bool does not count."""
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu"


# ---- arrays and names ----


def check_like(name, value, other_name, other):
    """Raise unless value has the shape (ValueError), the dtype and the device (TypeError) of other."""
    shape, other_shape = (tuple(getattr(a, "shape", ())) for a in (value, other))
    if shape != other_shape:
        raise ValueError(f"{name} must have the shape of {other_name}, {other_shape}, got {shape}")
    dtype, other_dtype = float_dtype(name, value), float_dtype(other_name, other)
    if dtype != other_dtype:
        raise TypeError(f"{name} must have the dtype of {other_name}, {other_dtype}, got {dtype}")
    if is_on_gpu(value) != is_on_gpu(other):
        there, here = ("the GPU" if is_on_gpu(a) else "the host" for a in (other, value))
        raise TypeError(f"{name} must be where {other_name} is, on {there}, got an array on {here}")


def float_dtype(name, x):
    """The dtype of x, or TypeError if it is not floating. A Python float counts as float64."""
    dtype = getattr(x, "dtype", np.dtype(type(x)) if isinstance(x, float) else None)
    if dtype is None or np.dtype(dtype).kind != "f":
        raise TypeError(f"{name} must be a floating-point array, got {type(x).__name__} of dtype {dtype}")
    return np.dtype(dtype)


def is_on_gpu(x):
    """Whether x is a CuPy array, or a tensor that holds one in `.data`."""
    return any(hasattr(a, "__cuda_array_interface__") for a in (x, getattr(x, "data", None)))


def named(what, name, table):
    """table[name]. The ValueError for an unknown name lists the known ones."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"unknown {what} {name!r}; there are: {', '.join(table)}")
    return table[name]
