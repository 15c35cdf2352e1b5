"""The Tensor: an array that remembers how it was computed, and its operators.

An op is one function: it computes its result and hands `node` a closure, the *vjp* (vector-Jacobian product), which
turns the gradient of the result into the gradients of the inputs. What the closure names is what is kept in memory
until `backward`, so it names as little as it can, and never the result's node (that would be a reference cycle).
Next: ops.py.
"""

import numpy as np

from nn.arrays import NUMBERS, PLAIN, ArrayProtocols, DtypesDiffer, check_devices, fixed, held, scattered
from nn.backend import array_module
from nn.gpu.precision import matrix_product
from nn.tape import Node, grad_enabled, op_hooks, walk

__all__ = ["Tensor", "tensor", "node", "is_recorded", "check_devices"]


def node(name, data, parents, vjp):
    """The Tensor that an op returns.

    name: the op's own, for errors and the profile. data: its result, an array. parents: the Tensors it was computed
    from. vjp: a function from the gradient of the result to a tuple with one gradient (or None) per parent, in order; a
    gradient may have the parent's shape or the broadcast shape, which the engine sums back. TypeError unless parents,
    result and, in `backward`, gradients have one dtype. The vjp does not write into the gradient that it is given.
    """
    dtype, needs_gradient = getattr(data, "dtype", None), False
    for parent in parents:  # a plain loop: this runs for every op
        given = parent.data.dtype
        if given is not dtype and given != dtype and name != "astype":
            _refuse_dtypes(name, data, parents)
        needs_gradient = needs_gradient or parent.requires_grad
    for hook in op_hooks:
        hook("forward", name, data)
    if needs_gradient and grad_enabled():
        return Tensor(data, True, Node(name, parents, vjp, data))
    return Tensor(data)


def _refuse_dtypes(name, data, parents):
    given = ", ".join(str(p.dtype) for p in parents)
    if any(p.dtype != parents[0].dtype for p in parents):
        raise DtypesDiffer(f"{name}: dtypes differ: {given}; convert one of them with .astype")
    raise TypeError(f"{name}: the result is {getattr(data, 'dtype', type(data).__name__)}, computed from {given}")


def is_recorded(*parents):
    """Whether an op on these Tensors will be recorded. If not, it need not compute what only its vjp uses."""
    return any([p.requires_grad for p in parents]) and grad_enabled()


def tensor(values, requires_grad=False, dtype=None):
    """A Tensor of a copy of `values`, a list, number, NumPy or CuPy array.

    dtype: by default an array keeps its own, and numbers and lists become float32.
    """
    if isinstance(values, Tensor):
        raise TypeError("this is a Tensor already; x.detach() is one of the same data, x.astype one of another dtype")
    is_array = array_module(values) is not np or isinstance(values, np.ndarray)
    values = values if is_array else np.asarray(values, dtype or np.float32)
    return Tensor(values.astype(dtype or values.dtype), requires_grad)


class Tensor(ArrayProtocols):
    """A floating-point array, NumPy's or CuPy's, that remembers how it was computed.

    data: the array itself, not a copy (`nn.tensor` copies). Ops keep their operands' arrays until `backward`. If you
    write into one before that, gradients are wrong without an error. After an optimiser's step there is one: `backward`
    through an older graph raises RuntimeError. To get the same when you write into `x.data` by hand, call
    `nn.forget_weights([x])`.
    requires_grad: whether gradients flow to it. grad: after `backward`, an array like `data` (leaves only), added to by
    each further backward until it is set to None.
    Python and NumPy numbers in expressions take the Tensor's dtype; arrays must have it already (TypeError otherwise).
    """

    __slots__ = ("data", "requires_grad", "node", "grad", "changed")

    def __init__(self, data, requires_grad=False, node=None):
        self.data = data if type(data) in PLAIN and data.dtype.kind == "f" else held(data)
        self.requires_grad, self.node, self.grad = requires_grad, node, None
        self.changed = 0  # when `nn` last wrote into `data`, by the tape's clock

    def __reduce__(self):
        """Pickle and copy as a leaf: the data, without the gradient. TypeError for the result of an op."""
        if self.node is not None:
            raise TypeError(
                "a Tensor that an op computed is not copied or pickled, as its graph would be lost; detach it"
            )
        return Tensor, (self.data, self.requires_grad)

    def detach(self):
        """The same data, cut off from the graph."""
        return Tensor(self.data)

    def backward(self, gradient=None):
        """Add d self / d leaf to `.grad` of every leaf this Tensor depends on. See `gradients`."""
        for leaf, found in walk(self, gradient).items():
            leaf.grad = found.copy() if leaf.grad is None else leaf.grad + found  # leaves may share `found`

    # Arithmetic, with NumPy's broadcasting; the engine sums gradients back to the shape of each operand.

    def __add__(self, other):
        other = self.operand("add", other)
        return node("add", self.data + other.data, (self, other), lambda g: (g, g))

    def __sub__(self, other):
        other = self.operand("sub", other)
        return node("sub", self.data - other.data, (self, other), lambda g: (g, -g))

    def __mul__(self, other):
        other = self.operand("mul", other)
        a, b = _kept_for_each_other(self, other)

        def vjp(g):
            return None if b is None else g * b, None if a is None else g * a

        return node("mul", self.data * other.data, (self, other), vjp)

    def __truediv__(self, other):
        other = self.operand("truediv", other)
        b = other.data
        y = self.data / b
        kept = y if other.requires_grad else None

        def vjp(g):
            ga = g / b
            return ga, None if kept is None else -ga * kept

        return node("truediv", y, (self, other), vjp)

    def __matmul__(self, other):
        """Matrix product over the last two axes, leading axes broadcast. ValueError unless (..., i, j) @ (..., j, k)."""
        other = self.operand("matmul", other)
        if self.ndim < 2 or other.ndim < 2 or self.shape[-1] != other.shape[-2]:
            raise ValueError(f"matmul needs (..., i, j) @ (..., j, k), got {self.shape} @ {other.shape}")
        a, b = _kept_for_each_other(self, other)

        def vjp(g):
            ga = None if b is None else matrix_product(g, b.swapaxes(-1, -2))
            gb = None if a is None else matrix_product(a.swapaxes(-1, -2), g)
            return ga, gb

        return node("matmul", matrix_product(self.data, other.data), (self, other), vjp)

    def __pow__(self, exponent):
        """self ** exponent, for a number as exponent. x ** 0 is 1 with slope 0, also at 0."""
        if not isinstance(exponent, NUMBERS):
            raise TypeError(f"the exponent must be a Python number, got {type(exponent).__name__}; use exp and log")
        x, xp, exponent = self.data, self.xp, float(exponent)  # a np.float64 would turn float32 data into float64
        if exponent == 0:
            return node("pow", x**exponent, (self,), lambda g: (xp.zeros_like(g),))
        return node("pow", x**exponent, (self,), lambda g: (g * (exponent * x ** (exponent - 1)),))

    def __neg__(self):
        return node("neg", -self.data, (self,), lambda g: (-g,))

    def __radd__(self, other):
        return self + other

    def __rsub__(self, other):
        return self.operand("sub", other) - self

    def __rmul__(self, other):
        return self * other

    def __rtruediv__(self, other):
        return self.operand("truediv", other) / self

    def __rmatmul__(self, other):
        return self.operand("matmul", other) @ self

    # Elementwise.

    def exp(self):
        """e^x."""
        y = self.xp.exp(self.data)
        return node("exp", y, (self,), lambda g: (g * y,))

    def log(self):
        """Natural logarithm, of positive numbers; the gradient at 0 is infinite."""
        x = self.data
        return node("log", self.xp.log(x), (self,), lambda g: (g / x,))

    def sqrt(self):
        """Square root; the gradient at 0 is infinite."""
        y = self.xp.sqrt(self.data)
        return node("sqrt", y, (self,), lambda g: (g / (2 * y),))

    def abs(self):
        """Absolute value; the gradient at 0 is 0."""
        x, xp = self.data, self.xp
        return node("abs", abs(x), (self,), lambda g: (g * xp.sign(x),))

    __abs__ = abs

    def clip(self, low, high):
        """x limited to [low, high], two numbers; the gradient passes where low <= x <= high."""
        if not (isinstance(low, NUMBERS) and isinstance(high, NUMBERS)):
            raise TypeError(f"clip needs two numbers, got {type(low).__name__} and {type(high).__name__}")
        if not low <= high:
            raise ValueError(f"clip needs low <= high, got {low} and {high}")
        x, xp, low, high = self.data, self.xp, float(low), float(high)  # a np.float64 would make float32 data float64
        inside = (x >= low) & (x <= high)
        return node("clip", xp.clip(x, low, high), (self,), lambda g: (xp.where(inside, g, g.dtype.type(0)),))

    # Reductions. Sums are made with axes of length 1, so that the gradient broadcasts over x.

    def sum(self, axis=None, keepdims=False):
        """Sum over `axis` (an int, a tuple, or None for all)."""
        xp, shape = self.xp, self.shape
        y = self.data.sum(axis=axis, keepdims=True)
        wide = y.shape
        return node(
            "sum", y if keepdims else y.squeeze(axis), (self,), lambda g: (xp.broadcast_to(g.reshape(wide), shape),)
        )

    def mean(self, axis=None, keepdims=False):
        """Mean over `axis` (an int, a tuple, or None for all). ValueError for a mean of no entries."""
        total = self.sum(axis, keepdims)
        if total.size and not self.size:
            raise ValueError(f"there is no mean of no entries: shape {self.shape}, axis {axis}")
        return total * (total.size / max(self.size, 1))

    def max(self, axis=None, keepdims=False):
        """Maximum over `axis`. Where several entries are the maximum, they share the gradient equally."""
        return _extremum("max", self, axis, keepdims)

    def min(self, axis=None, keepdims=False):
        """Minimum over `axis`. Where several entries are the minimum, they share the gradient equally."""
        return _extremum("min", self, axis, keepdims)

    # Shapes.

    def reshape(self, *shape):
        """The same entries in another shape; takes ints or one tuple; one of them may be -1, as in numpy.reshape."""
        before = self.shape
        return node("reshape", self.data.reshape(*shape), (self,), lambda g: (g.reshape(before),))

    def transpose(self, *axes):
        """Axes in another order (reversed if none is given), as numpy.transpose."""
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        order = tuple(order) or tuple(reversed(range(self.ndim)))
        ndim = self.ndim

        def vjp(g):
            return (g.transpose(*(int(i) for i in np.argsort([a % ndim for a in order]))),)

        return node("transpose", self.data.transpose(order), (self,), vjp)

    def broadcast_to(self, shape):
        """The same entries repeated along new axes and axes of length 1, as numpy.broadcast_to."""
        return node("broadcast_to", self.xp.broadcast_to(self.data, shape), (self,), lambda g: (g,))

    def __getitem__(self, index):
        """Indexing and slicing as NumPy's; an entry picked twice gets both gradients."""
        return taken("getitem", self, index)

    def astype(self, dtype):
        """Converted to another floating dtype; the gradient is converted back."""
        before = self.dtype
        return node("astype", self.data.astype(dtype), (self,), lambda g: (g.astype(before),))


def taken(name, x, index):
    """x[index], as the op `name`."""
    xp, shape, data = x.xp, x.shape, x.xp.asarray(x.data[index])
    index = fixed(index) if x.requires_grad and grad_enabled() else None
    return node(name, data, (x,), lambda g: (scattered(g, index, shape, xp),))


def _kept_for_each_other(x, other):
    """(x.data, other.data) as a product's vjp needs them: each is None unless the *other* operand needs a gradient."""
    return x.data if other.requires_grad else None, other.data if x.requires_grad else None


def _extremum(name, x, axis, keepdims):
    """x.max() if `name` is "max", x.min() if it is "min"."""
    a = x.data
    y = getattr(a, name)(axis=axis, keepdims=True)

    def vjp(g):
        chosen = a == y
        return (chosen * (g.reshape(y.shape) / chosen.sum(axis=axis, keepdims=True).astype(g.dtype)),)

    return node(name, y if keepdims else y.squeeze(axis), (x,), vjp)
