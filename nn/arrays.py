"""The array side of a Tensor: what data it accepts, which operands, and which protocols of Python and NumPy.

In each case a Tensor either does what a NumPy array does, or raises an error. Next: tape.py.
"""

import copy
import operator

import numpy as np

from nn.backend import array_module

__all__ = ["NUMBERS", "PLAIN", "DtypesDiffer", "is_array", "described", "held", "check_devices", "fixed", "scattered"]
__all__ += ["ArrayProtocols"]

NUMBERS = (int, float, np.integer, np.floating, np.bool_)  # operands that are converted to the Tensor's dtype
PLAIN = {np.ndarray, np.float16, np.float32, np.float64}  # floating types that need no conversion in `held`


class DtypesDiffer(TypeError):
    """Two arrays of different dtypes met in one op."""


def is_array(value):
    """Whether `value` is an array or scalar of NumPy's, or an array of CuPy's."""
    return isinstance(value, (np.ndarray, np.generic)) or array_module(value) is not np


def described(value):
    """`value` described for an error message: "float32 (2, 3) of numpy", or the name of its type."""
    return f"{value.dtype} {value.shape} of {array_module(value).__name__}" if is_array(value) else type(value).__name__


def held(data):
    """`data` as a plain array of floating-point numbers, which a Tensor can hold. TypeError for anything else."""
    if isinstance(data, np.ndarray):
        data = data if isinstance(data, np.ma.MaskedArray) else np.asarray(data)  # a memmap or a matrix becomes plain
    if not is_array(data) or isinstance(data, np.ma.MaskedArray) or data.dtype.kind != "f":
        given = type(data).__name__ if not is_array(data) or data.dtype.kind == "f" else data.dtype
        raise TypeError(f"a Tensor holds a floating-point array, got {given}")
    return data


def check_devices(op, *tensors):
    """Raise TypeError, naming the op, if NumPy arrays and CuPy arrays are mixed. NumPy scalars go with both."""
    if len({type(x.data) for x in tensors}) == 1:
        return
    modules = [x.xp for x in tensors if not isinstance(x.data, np.generic)]
    if any(xp is not modules[0] for xp in modules):
        given = ", ".join(described(x.data) for x in tensors)
        raise TypeError(f"{op}: devices differ: {given}; move all to one with nn.to_device")


def fixed(index):
    """`index` with its arrays and lists copied, so that it stays the same when the caller writes into them."""
    if isinstance(index, tuple):
        return tuple(map(fixed, index))
    return index.copy() if is_array(index) else copy.deepcopy(index)  # a list may hold lists


def scattered(values, index, shape, xp):
    """An array of `shape`, zero but for `values` added at `index`: the transpose of `array[index]`."""
    full = xp.zeros(shape, values.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice)) for part in parts):
        full[index] = values  # no entry is picked twice
    elif xp is np:
        np.add.at(full, index, values)
    else:
        import cupyx

        cupyx.scatter_add(full, index, values)
    return full


class ArrayProtocols:
    """The base class of Tensor, without arithmetic and gradients. Tensor adds `data` (an array) and `requires_grad`."""

    __slots__ = ()
    __array_ufunc__ = None  # `ndarray * Tensor` then asks Tensor, and NumPy does not try elementwise
    __array_priority__ = 1000  # the same for CuPy
    __hash__ = object.__hash__  # by identity, though == compares entries: a Tensor can be the key of a dict

    shape = property(operator.attrgetter("data.shape"))  # in C: these are asked for at every op
    ndim = property(operator.attrgetter("data.ndim"))
    size = property(operator.attrgetter("data.size"))
    dtype = property(operator.attrgetter("data.dtype"))
    xp = property(lambda self: array_module(self.data), doc="numpy or cupy: the module of `data`.")

    def __repr__(self):
        return f"Tensor({self.data}, requires_grad={self.requires_grad})"

    def item(self):
        """The value of a one-element Tensor, as a Python float."""
        return self.data.item()

    def operand(self, op, other):
        """`other`, a number, array or Tensor, as a Tensor. TypeError, naming `op`, if it has another dtype or device."""
        if not isinstance(other, ArrayProtocols):
            if isinstance(other, NUMBERS):
                return type(self)(self.data.dtype.type(other))  # on the host: CuPy hands it to the kernel by value
            if not is_array(other):
                raise TypeError(f"{op}: cannot use {type(other).__name__} in an expression with a Tensor")
            other = type(self)(other)
        a, b = self.data, other.data
        if a.dtype is not b.dtype and a.dtype != b.dtype:
            raise DtypesDiffer(f"{op}: dtypes differ: {a.dtype} and {b.dtype}; convert one of them with .astype")
        if type(a) is not type(b):
            check_devices(op, self, other)
        return other

    # Questions of Python and NumPy.

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        if self.data.ndim == 0:
            raise TypeError("iteration over a Tensor of no axes")
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        return bool(self.data)

    def __float__(self):
        return float(self.data.item())

    def __int__(self):
        return int(self.data.item())

    def __format__(self, spec):
        return format(self.data.item(), spec) if spec else str(self)

    def __copy__(self):
        return copy.deepcopy(self)

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise TypeError("a Tensor that requires a gradient does not turn into an array; use .data or .detach()")
        array = np.asarray(self.data, dtype)
        return array.copy() if copy else array

    def __array_function__(self, function, types, arguments, options):
        raise TypeError(f"numpy.{function.__name__} does not take a Tensor; use .data, or a method or function of nn")

    # Comparisons, entry by entry: arrays of booleans.

    def __eq__(self, other):
        return self.data == self.operand("==", other).data

    def __ne__(self, other):
        return self.data != self.operand("!=", other).data

    def __lt__(self, other):
        return self.data < self.operand("<", other).data

    def __le__(self, other):
        return self.data <= self.operand("<=", other).data

    def __gt__(self, other):
        return self.data > self.operand(">", other).data

    def __ge__(self, other):
        return self.data >= self.operand(">=", other).data

    def __contains__(self, value):
        return bool((self == value).any())

    def __iadd__(self, other):
        raise TypeError("a Tensor does not change in place; write `x = x + y`, or change the array `x.data`")

    __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = __iadd__
