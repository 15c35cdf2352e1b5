"""The Tensor: an array that remembers how it was computed, and its operators. Next: tape.py, then ops.py.

An op is one function: it computes its result and hands `node` a closure, the *vjp* (vector-Jacobian product), which
turns the gradient of the result into the gradients of the inputs. What the closure names is what is kept in memory
until `backward`, so it names as little as it can, and never the result's node (that would be a reference cycle).
"""

import math
import operator

import numpy as np

from nn.backend import array_module
from nn.gpu.precision import matrix_product
from nn.tape import Node, grad_enabled, op_hooks, walk

__all__ = ["Tensor", "tensor", "node", "check_devices"]


def node(name, data, parents, vjp):
    """The Tensor that an op returns.

    name: the op's own, for errors and the profile. data: its result, an array. parents: the Tensors it was computed
    from. vjp: a function from the gradient of the result to a tuple with one gradient (or None) per parent, in order; a gradient may have the parent's shape
    or the broadcast shape, which the engine sums back. TypeError where the parents' dtypes differ.
    """
    needs_gradient = False
    for parent in parents:  # a plain loop: this runs for every op
        if parent.data.dtype != parents[0].data.dtype:
            raise TypeError(f"{name}: dtypes differ: {', '.join(str(p.dtype) for p in parents)}")
        needs_gradient = needs_gradient or parent.requires_grad
    for hook in op_hooks:
        hook("forward", name, data)
    if needs_gradient and grad_enabled():
        return Tensor(data, True, Node(name, parents, vjp, data.shape))
    return Tensor(data)


def is_recorded(*parents):
    """Whether an op on these Tensors will be asked for its gradient: what only the vjp needs may be left out if not."""
    return grad_enabled() and any(p.requires_grad for p in parents)


def tensor(values, requires_grad=False, dtype=None):
    """A Tensor of `values` (a list, number, NumPy or CuPy array); floats from lists become float32 unless `dtype` says."""
    if array_module(values) is np and not isinstance(values, np.ndarray):
        values = np.asarray(values, dtype=dtype or np.float32)
    return Tensor(values if dtype is None else values.astype(dtype, copy=False), requires_grad)


def check_devices(op, *tensors):
    """TypeError, naming the op, where NumPy's arrays meet CuPy's."""
    if any(x.xp is not tensors[0].xp for x in tensors):
        given = ", ".join(f"{x.dtype} {x.shape} of {x.xp.__name__}" for x in tensors)
        raise TypeError(f"{op}: devices differ: {given}; move all to one with nn.to_device")


class Tensor:
    """A floating-point array, NumPy's or CuPy's, that remembers how it was computed.

    data: the array. requires_grad: whether gradients flow to it. grad: after `backward`, an array like `data`
    (leaves only), added to by each further backward until it is set to None.
    Python numbers in expressions take the Tensor's dtype; arrays must have it already (TypeError otherwise).
    """

    __slots__ = ("data", "requires_grad", "node", "grad")
    __array_ufunc__ = None  # `ndarray * Tensor` then asks Tensor, and NumPy does not try elementwise
    __array_priority__ = 1000  # the same for CuPy

    def __init__(self, data, requires_grad=False, node=None):
        if getattr(data, "dtype", None) is None or data.dtype.kind != "f":
            raise TypeError(f"a Tensor holds a floating-point array, got {getattr(data, 'dtype', type(data).__name__)}")
        self.data, self.requires_grad, self.node, self.grad = data, requires_grad, node, None

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)
    xp = property(lambda self: array_module(self.data), doc="numpy or cupy: the module of `data`.")

    def __repr__(self):
        return f"Tensor({self.data}, requires_grad={self.requires_grad})"

    def __len__(self):
        return len(self.data)

    def __reduce__(self):
        """Pickled as a leaf: the data, without graph and gradient."""
        return Tensor, (self.data, self.requires_grad)

    def item(self):
        """The value of a one-element Tensor, as a Python float."""
        return self.data.item()

    def detach(self):
        """The same data, cut off from the graph."""
        return Tensor(self.data)

    def backward(self, gradient=None):
        """Add d self / d leaf to `.grad` of every leaf this Tensor depends on. See `gradients`."""
        for leaf, found in walk(self, gradient).values():
            leaf.grad = found.copy() if leaf.grad is None else leaf.grad + found  # leaves may share `found`

    def operand(self, op, other):
        """`other` as a Tensor that can meet this one in `op`, a name; TypeError for another dtype or another device."""
        if isinstance(other, Tensor):
            found = other
        elif isinstance(other, (int, float)):
            return Tensor(self.dtype.type(other))  # on the host: a GPU takes it along with the launch
        elif array_module(other) is not np or isinstance(other, (np.ndarray, np.generic)):
            found = Tensor(other)
        else:
            raise TypeError(f"{op}: cannot use {type(other).__name__} in an expression with a Tensor")
        a, b = self.data, found.data
        if a.dtype != b.dtype:
            raise TypeError(f"{op}: dtypes differ: {a.dtype} and {b.dtype}; convert one of them with .astype")
        if type(a) is not type(b) and not isinstance(a, np.generic) and not isinstance(b, np.generic):
            check_devices(op, self, found)
        return found

    # Arithmetic, with NumPy's broadcasting; the engine sums gradients back to the shape of each operand.

    def __add__(self, other):
        other = self.operand("add", other)
        return node("add", self.data + other.data, (self, other), lambda g: (g, g))

    def __sub__(self, other):
        other = self.operand("sub", other)
        return node("sub", self.data - other.data, (self, other), lambda g: (g, -g))

    def __mul__(self, other):
        other = self.operand("mul", other)
        a, b = self.data, other.data
        return node("mul", a * b, (self, other), lambda g: (g * b, g * a if other.requires_grad else None))

    def __truediv__(self, other):
        other = self.operand("truediv", other)
        b = other.data
        y = self.data / b
        return node("truediv", y, (self, other), lambda g: (g / b, -g * y / b if other.requires_grad else None))

    def __pow__(self, exponent):
        """self ** exponent, for a Python number as exponent."""
        if not isinstance(exponent, (int, float)):
            raise TypeError(f"the exponent must be a Python number, got {type(exponent).__name__}; use exp and log")
        x, exponent = self.data, float(exponent)  # a np.float64 is a float too, but would make float32 data float64
        slope = 0.0 if exponent == 0 else exponent  # x^0 is flat, at 0 too
        return node("pow", x**exponent, (self,), lambda g: (g * (slope * x ** (exponent - 1)),))

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

    def __matmul__(self, other):
        """Matrix product over the last two axes, leading axes broadcast. ValueError unless (..., i, j) @ (..., j, k)."""
        other = self.operand("matmul", other)
        a, b = self.data, other.data
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matmul needs (..., i, j) @ (..., j, k), got {a.shape} @ {b.shape}")

        product = matrix_product if a.ndim == b.ndim == 2 else operator.matmul

        def vjp(g):
            ga = product(g, b.swapaxes(-1, -2)) if self.requires_grad else None
            gb = product(a.swapaxes(-1, -2), g) if other.requires_grad else None
            return ga, gb

        return node("matmul", product(a, b), (self, other), vjp)

    # Reductions and shapes.

    def sum(self, axis=None, keepdims=False):
        """Sum over `axis` (an int, a tuple, or None for all)."""
        shape, xp = self.shape, self.xp
        return node(
            "sum",
            xp.asarray(self.data.sum(axis=axis, keepdims=keepdims)),
            (self,),
            lambda g: (xp.broadcast_to(_restore_axes(g, axis, shape, keepdims), shape),),
        )

    def mean(self, axis=None, keepdims=False):
        """Mean over `axis` (an int, a tuple, or None for all)."""
        axes = range(self.ndim) if axis is None else np.atleast_1d(axis)
        return self.sum(axis, keepdims) * (1.0 / math.prod(self.shape[a] for a in axes))

    def max(self, axis=None, keepdims=False):
        """Maximum over `axis`. Where several entries are the maximum, they share the gradient equally."""
        x, shape = self.data, self.shape
        y = x.max(axis=axis, keepdims=True)

        def vjp(g):
            chosen = x == y
            share = chosen / chosen.sum(axis=axis, keepdims=True).astype(x.dtype)
            return (share * _restore_axes(g, axis, shape, keepdims),)

        return node("max", self.xp.asarray(x.max(axis=axis, keepdims=keepdims)), (self,), vjp)

    def reshape(self, *shape):
        """The same entries in another shape; takes ints or one tuple, with -1 for one that follows from the rest."""
        before = self.shape
        return node("reshape", self.data.reshape(*shape), (self,), lambda g: (g.reshape(before),))

    def transpose(self, *axes):
        """Axes in another order (reversed if none is given), as numpy.transpose."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = tuple(order) or tuple(reversed(range(self.ndim)))
        inverse = tuple(int(i) for i in np.argsort([a % self.ndim for a in order]))
        return node("transpose", self.data.transpose(order), (self,), lambda g: (g.transpose(inverse),))

    def __getitem__(self, index):
        """Indexing and slicing as NumPy's; an entry picked twice gets both gradients."""
        xp, shape = self.xp, self.shape

        def vjp(g):
            full = xp.zeros(shape, g.dtype)
            if _picks_each_once(index):
                full[index] = g
            elif xp is np:
                np.add.at(full, index, g)
            else:
                import cupyx

                cupyx.scatter_add(full, index, g)
            return (full,)

        return node("getitem", xp.asarray(self.data[index]), (self,), vjp)

    def astype(self, dtype):
        """Converted to another floating dtype; the gradient is converted back."""
        before = self.dtype
        return node("astype", self.data.astype(dtype), (self,), lambda g: (g.astype(before),))


def _picks_each_once(index):
    """Whether `index` is made of ints, slices, None and ... only, so that no entry can be picked twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts)


def _restore_axes(g, axis, shape, keepdims):
    """The gradient of a reduction with the reduced axes put back as axes of length 1."""
    if keepdims:
        return g
    reduced = range(len(shape)) if axis is None else [a % len(shape) for a in np.atleast_1d(axis)]
    return g.reshape([1 if a in reduced else n for a, n in enumerate(shape)])
