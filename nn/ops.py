"""The differentiable ops, except Tensor's operators and those that were made fast: forward and vjp in one function.

To add an op, write one such function. It computes the result and passes `node` a closure, which turns the result's
gradient `g` into one gradient per parent. `x.xp` is numpy or cupy. Next: norm.py.
"""

import numpy as np

from nn.gpu.precision import matrix_product
from nn.options import real
from nn.random import next_uniform
from nn.tensors import Tensor, is_recorded, node, taken

__all__ = ["exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "silu", "relu", "softplus", "clip", "where"]
__all__ += ["concatenate", "pad", "softmax", "log_softmax", "embedding", "dropout", "mse", "cross_entropy"]


exp, log, sqrt, clip = Tensor.exp, Tensor.log, Tensor.sqrt, Tensor.clip  # as functions too: nn.exp(x) is x.exp()


def sin(x):
    """Sine of an angle in radians, elementwise."""
    return node("sin", x.xp.sin(x.data), (x,), lambda g: (g * x.xp.cos(x.data),))


def cos(x):
    """Cosine of an angle in radians, elementwise."""
    return node("cos", x.xp.cos(x.data), (x,), lambda g: (-g * x.xp.sin(x.data),))


def tanh(x):
    """Hyperbolic tangent, elementwise."""
    y = x.xp.tanh(x.data)
    return node("tanh", y, (x,), lambda g: (g * (1 - y * y),))


def sigmoid_array(a, xp):
    """1 / (1 + e^-a) of a plain array, by tanh: fast, without overflow, right to 1e-7 but not in all digits below that."""
    return 0.5 * xp.tanh(0.5 * a) + 0.5


def sigmoid(x):
    """1 / (1 + e^-x), elementwise, to all digits also where it is small: `log` may follow."""
    e = x.xp.exp(-abs(x.data))  # at most 1
    y = x.xp.where(x.data < 0, e, e.dtype.type(1)) / (1 + e)
    return node("sigmoid", y, (x,), lambda g: (g * y * (1 - y),))


def silu(x):
    """x * sigmoid(x), elementwise."""
    s = sigmoid_array(x.data, x.xp)
    y = x.data * s
    return node("silu", y, (x,), lambda g: (g * (s + y * (1 - s)),))


def relu(x):
    """max(x, 0), elementwise; the gradient at 0 is 0."""
    xp = x.xp
    y = xp.maximum(x.data, 0)
    return node("relu", y, (x,), lambda g: (xp.where(y <= 0, g.dtype.type(0), g),))


def softplus(x):
    """log(1 + e^x), elementwise, without overflow."""
    a, xp = x.data, x.xp
    y = xp.logaddexp(a, xp.zeros((), a.dtype))
    return node("softplus", y, (x,), lambda g: (g * sigmoid_array(a, xp),))


def where(condition, x, y):
    """x where `condition` (a boolean array), else y; all three broadcast. x or y may be a number.

    The one that is not chosen gets a gradient of 0. If it was computed by an op of infinite slope there, 0 times
    infinity gives NaN. So make the argument safe and not the result: write sqrt(where(x > 0, x, 1)), and not
    where(x > 0, sqrt(x), 0).
    """
    if getattr(condition, "dtype", np.dtype(float)).kind != "b":
        raise TypeError(f"where needs a boolean array, got {getattr(condition, 'dtype', type(condition).__name__)}")
    one = x if isinstance(x, Tensor) else y
    if not isinstance(one, Tensor):
        raise TypeError(f"where needs a Tensor to choose from, got {type(x).__name__} and {type(y).__name__}")
    x, y, xp = one.operand("where", x), one.operand("where", y), one.xp
    chosen, zero = xp.where(condition, x.data, y.data), x.dtype.type(0)
    if is_recorded(x, y):
        condition = condition.copy()  # the caller may write into it before `backward`
    return node("where", chosen, (x, y), lambda g: (xp.where(condition, g, zero), xp.where(condition, zero, g)))


def concatenate(tensors, axis=-1):
    """Tensors joined along `axis`. ValueError if their other axes differ."""
    tensors = tuple(tensors)
    if not (tensors and isinstance(tensors[0], Tensor)):
        raise TypeError("concatenate needs a list of Tensors, with at least one in it")
    first = tensors[0]
    tensors = tuple(first.operand("concatenate", t) for t in tensors)
    xp, lengths = first.xp, [t.shape[axis] for t in tensors]
    joined = xp.concatenate([t.data for t in tensors], axis=axis)
    return node(
        "concatenate", joined, tensors, lambda g: tuple(xp.split(g, np.cumsum(lengths)[:-1].tolist(), axis=axis))
    )


def pad(x, widths):
    """Zeros around x; `widths` is one (before, after) pair per axis, as in numpy.pad."""
    if len(widths) != x.ndim:
        raise ValueError(f"pad needs one (before, after) pair per axis: {x.ndim} axes, {len(widths)} pairs")
    inner = tuple(slice(int(before), int(before) + n) for (before, _), n in zip(widths, x.shape, strict=True))
    return node("pad", x.xp.pad(x.data, widths), (x,), lambda g: (g[inner],))


def softmax_array(a, axis, xp):
    e = xp.exp(a - a.max(axis=axis, keepdims=True))
    e /= e.sum(axis=axis, keepdims=True)
    return e


def softmax_vjp(g, y, axis):
    """The gradient of what softmax was taken of, where y is the result."""
    gy = g * y
    gy -= y * gy.sum(axis=axis, keepdims=True)
    return gy


def softmax(x, axis=-1):
    """e^x / sum e^x along `axis`."""
    y = softmax_array(x.data, axis, x.xp)
    return node("softmax", y, (x,), lambda g: (softmax_vjp(g, y, axis),))


def log_softmax(x, axis=-1):
    """log softmax(x) along `axis`, without overflow or log of zero."""
    xp = x.xp
    shifted = x.data - x.data.max(axis=axis, keepdims=True)
    y = shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))
    return node("log_softmax", y, (x,), lambda g: (g - xp.exp(y) * g.sum(axis=axis, keepdims=True),))


def embedding(table, index):
    """Rows of `table` (K, D) at the integers `index` (any shape): index.shape + (D,). IndexError out of range.

    index: a NumPy array even if the table is on a GPU, because the host checks it.
    """
    _check_integers("embedding's index", index, table.shape[0])
    if table.xp is np:
        return taken("embedding", table, index)
    (count, width), xp, rows = table.shape, table.xp, table.xp.asarray(index).reshape(-1)

    def vjp(g):
        # Scattering would add up a row's gradients in an order that differs from run to run; a matrix product does not.
        chosen = (xp.arange(count)[:, None] == rows).astype(g.dtype)
        return (matrix_product(chosen, g.reshape(rows.size, width), "fp32"),)

    return node("embedding", table.data[rows].reshape(*index.shape, width), (table,), vjp)


def _check_integers(name, index, count):
    if getattr(index, "dtype", None) is None or index.dtype.kind not in "iu":
        raise TypeError(f"{name} must be an array of integers, got {getattr(index, 'dtype', type(index).__name__)}")
    if index.size and not (0 <= index.min() and index.max() < count):
        raise IndexError(f"{name} must be in 0..{count - 1}, got {index.min()}..{index.max()}")


def dropout(x, rate):
    """Each entry zero with probability `rate`, else divided by 1 - rate. Draws from the enclosing `random_state`."""
    rate = real("the dropout rate", rate, 0, 1)
    if rate == 0:
        return x
    kept = (next_uniform(x.shape, x.xp) >= rate).astype(x.dtype) * (1 / (1 - rate))
    return node("dropout", x.data * kept, (x,), lambda g: (g * kept,))


def mse(prediction, target):
    """Mean of (prediction - target)^2 over all entries, a scalar. ValueError where shapes differ or are empty."""
    target = prediction.operand("mse", target)
    if prediction.shape != target.shape:
        raise ValueError(f"mse needs equal shapes, got {prediction.shape} and {target.shape}")
    if not prediction.size:
        raise ValueError(f"there is no mean of no entries: shape {prediction.shape}")
    difference = prediction.data - target.data
    scale, target_needs_it = 2.0 / difference.size, target.requires_grad

    def vjp(g):
        gradient = difference * (scale * g)
        return gradient, -gradient if target_needs_it else None

    flat = difference.reshape(-1)
    return node("mse", prediction.xp.asarray(flat @ flat / difference.size), (prediction, target), vjp)


def cross_entropy(logits, labels):
    """Mean of -log softmax(logits)[label] over the batch, a scalar.

    logits: (N, K). labels: (N,) integers; IndexError unless in 0..K-1.
    """
    _check_integers("cross_entropy's labels", labels, logits.shape[-1])
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"cross_entropy needs logits (N, K) and labels (N,), got {logits.shape} and {labels.shape}")
    rows = np.arange(len(labels))  # CuPy moves indices from the host by itself
    return -log_softmax(logits)[rows, labels].mean()
