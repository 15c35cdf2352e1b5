"""Every op of nn, a line each: how to call it, what it must equal on plain arrays, and which inputs to draw.

test_ops.py makes of each line a test of the value, of the gradient, of the dtypes and of what is kept.
"""

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from device import there
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nn
from nn import Tensor
from nn.conv import conv2d_im2col, conv2d_loops, conv2d_winograd
from nn.random import uniform

# ==== values ====


def normal(rng, shape):
    return rng.standard_normal(shape)


def positive(rng, shape):
    return rng.uniform(0.5, 2.5, shape)


def apart(rng, shape):
    """Values 0.1 apart, 0.05 from any multiple of 0.1: far from kinks, from ties, from zero variance."""
    size = int(np.prod(shape, dtype=int))
    return 0.1 * (rng.permutation(size).reshape(shape) - size // 2) + 0.05


def signed(rng, shape):
    """0.5 to 2.5 in size, of either sign: what one may divide by."""
    return positive(rng, shape) * rng.choice([-1, 1], shape)


# ==== inputs: strategies that draw (list of float64 arrays, keyword arguments) ====

rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)
sides = st.integers(1, 3)


def shapes(min_dims=0, max_dims=4, min_side=0):
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=4)


@st.composite
def one(draw, values=normal, shape=None, **keywords):
    """One array. Each keyword is a strategy, or a function from the shape to one."""
    shape = draw(shapes() if shape is None else shape)
    drawn = {name: draw(found(shape) if callable(found) else found) for name, found in keywords.items()}
    return [values(draw(rngs), shape)], drawn


@st.composite
def broadcast(draw, values=normal, count=2, signature=None):
    """Arrays whose shapes broadcast; under a signature such as (i,j),(j,k)->(i,k), whose leading axes do."""
    core = {"signature": signature} if signature else {"num_shapes": count, "min_side": 0}
    drawn = draw(hnp.mutually_broadcastable_shapes(**core, max_dims=3, max_side=4))
    rng = draw(rngs)
    return [values(rng, shape) for shape in drawn.input_shapes], {}


@st.composite
def stretched(draw):
    """One array, and a shape that it can be broadcast to."""
    drawn = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_dims=3, max_side=4))
    return [normal(draw(rngs), drawn.input_shapes[0])], {"shape": drawn.result_shape}


@st.composite
def twins(draw):
    """Two arrays of one shape."""
    shape, rng = draw(shapes(min_side=1)), draw(rngs)
    return [normal(rng, shape), normal(rng, shape)], {}


@st.composite
def powers(draw):
    """Any base and a whole exponent, zeros among the bases unless it is negative; or a positive base and any exponent."""
    exponent, shape, rng = draw(st.sampled_from([-2, -1.0, -0.5, 0, 0.5, 1, 2.0, 2.5, 3])), draw(shapes()), draw(rngs)
    if exponent != int(exponent):
        return [positive(rng, shape)], {"exponent": exponent}
    base = signed(rng, shape)
    return [base if exponent < 0 else base * rng.integers(0, 2, shape)], {"exponent": exponent}


@st.composite
def masked(draw):
    (condition, x, y), _ = draw(broadcast(count=3))
    return [x, y], {"condition": np.asarray(condition > 0)}


@st.composite
def joined(draw):
    shape = list(draw(shapes(min_dims=1, max_dims=3)))
    axis, rng = draw(an_axis(shape)), draw(rngs)
    lengths = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    return [normal(rng, (*shape[:axis], n, *shape[axis:][1:])) for n in lengths], {"axis": axis}


@st.composite
def mapped(draw):
    """x with any number of axes, the last of which a matrix multiplies; the matrix; what is added."""
    rng, shape, inputs, outputs = draw(rngs), draw(shapes(max_dims=3)), draw(sides), draw(sides)
    return [normal(rng, (*shape, inputs)), normal(rng, (inputs, outputs)), normal(rng, outputs)], {}


@st.composite
def normed(draw, layer=False):
    """x with any number of axes, of which two values or more are normalised together; weight and bias."""
    rng, groups, width = draw(rngs), draw(sides), draw(st.integers(2, 3))
    shape = draw(shapes(max_dims=3, min_side=1))
    channels = width if layer else groups * width
    arrays = [apart(rng, shape + (channels,) if layer else (2, *shape, channels))]
    return arrays + [normal(rng, channels), normal(rng, channels)], {} if layer else {"groups": groups}


@st.composite
def convolved(draw, winograd=False):
    """An image, a filter that fits on it, and a bias for all samples or one for each."""
    n, kh, kw, c, o = (draw(sides) for _ in range(5))
    stride, padding = draw(sides), draw(st.integers(0, 2))
    if winograd:
        kh = kw = 3
        stride = padding = 1
    h, w = (draw(st.integers(max(1, k - 2 * padding), 9 if winograd else 6)) for k in (kh, kw))
    rng = draw(rngs)
    bias = normal(rng, draw(st.sampled_from([(o,), (n, o)])))
    arrays = [normal(rng, (n, h, w, c)), normal(rng, (kh, kw, c, o)), bias]
    return arrays, {} if winograd else {"stride": stride, "padding": padding}


@st.composite
def blocks(draw):
    """Images whose height and width a factor divides."""
    n, h, w, c, factor = (draw(sides) for _ in range(5))
    return [normal(draw(rngs), (n, factor * h, factor * w, c))], {"factor": factor}


@st.composite
def classified(draw):
    (logits,), _ = draw(one(shape=st.tuples(sides, sides)))
    n, k = logits.shape
    return [logits], {"labels": np.array(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))}


def an_axis(shape):
    return st.integers(-len(shape), len(shape) - 1)


def some_axes(shape):
    """None, one axis or several, counted from either end."""
    if not shape:
        return st.none()
    return st.none() | an_axis(shape) | hnp.valid_tuple_axes(len(shape), min_size=1)


def any_order(shape):
    """A permutation of the axes, some of them counted from the end."""
    signs = st.lists(st.booleans(), min_size=len(shape), max_size=len(shape))
    return st.builds(
        lambda order, ends: tuple(a - len(shape) if end else a for a, end in zip(order, ends, strict=True)),
        st.permutations(range(len(shape))),
        signs,
    )


def any_index(shape):
    """Slices, integers, None and ...; integer arrays, with repeats; a mask."""
    arrays = hnp.integer_array_indices(shape, result_shape=shapes(max_dims=2, min_side=1))
    return hnp.basic_indices(shape, allow_newaxis=True) | arrays | hnp.arrays(bool, shape)


def any_widths(shape):
    return st.tuples(*[st.tuples(sides, sides)] * len(shape))


def any_rows(shape):
    return hnp.arrays(np.int64, shapes(max_dims=2), elements=st.integers(0, shape[0] - 1))


# ==== references: what an op must equal, as plainly as NumPy can say it ====


def softmax(a, axis):
    return np.exp(a) / np.exp(a).sum(axis, keepdims=True)


def attention(query, key, value):
    return softmax(query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1]), -1) @ value


def dropout(x, rate):
    return x * (uniform(3, "layer 1", 5, range(len(x)), x.shape[1:]) >= rate) / (1 - rate)


def dropout_in_a_state(x, rate):
    with nn.random_state(3, 5, range(len(x))):
        return nn.dropout(x, rate)


def layer_norm(x, weight, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def group_norm(x, weight, bias, groups):
    g = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    g = (g - g.mean((1, 3), keepdims=True)) / np.sqrt(g.var((1, 3), keepdims=True) + 1e-5)
    return g.reshape(x.shape) * weight + bias


def silu(a):
    return a / (1 + np.exp(-a))


def average_pool(x, factor):
    n, h, w, c = x.shape
    return x.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))


# ==== the table ====


@dataclass(frozen=True)
class Op:
    call: Any  # on Tensors, with the drawn keywords
    reference: Any  # the same on float64 NumPy arrays
    inputs: Any


METHODS = {  # of Tensor
    "__add__": Op(operator.add, np.add, broadcast()),
    "__sub__": Op(operator.sub, np.subtract, broadcast()),
    "__mul__": Op(operator.mul, np.multiply, broadcast()),
    "__truediv__": Op(operator.truediv, np.divide, broadcast(signed)),
    "__radd__": Op(lambda x: 2 + x, lambda a: 2 + a, one()),
    "__rsub__": Op(lambda x: 2 - x, lambda a: 2 - a, one()),
    "__rmul__": Op(lambda x: 2 * x, lambda a: 2 * a, one()),
    "__rtruediv__": Op(lambda x: 2 / x, lambda a: 2 / a, one(signed)),
    "__pow__": Op(Tensor.__pow__, lambda a, exponent: a**exponent, powers()),
    "__abs__": Op(abs, np.abs, one(signed)),
    "__neg__": Op(operator.neg, np.negative, one()),
    "__matmul__": Op(operator.matmul, np.matmul, broadcast(signature="(i,j),(j,k)->(i,k)")),
    "__rmatmul__": Op(
        lambda x: there(np.full((2, len(x)), 3, x.dtype)) @ x,
        lambda a: np.full((2, len(a)), 3) @ a,
        one(shape=shapes(2, 2)),
    ),
    "exp": Op(Tensor.exp, np.exp, one()),
    "log": Op(Tensor.log, np.log, one(positive)),
    "sqrt": Op(Tensor.sqrt, np.sqrt, one(positive)),
    "abs": Op(Tensor.abs, np.abs, one(signed)),
    "clip": Op(
        Tensor.clip,
        lambda a, low, high: np.clip(a, low, high),
        one(apart, low=st.sampled_from([-np.inf, -9, -0.2, 0]), high=st.sampled_from([0.0, 0.3, 9, np.inf])),
    ),
    "sum": Op(Tensor.sum, np.sum, one(axis=some_axes, keepdims=st.booleans())),
    "mean": Op(Tensor.mean, np.mean, one(shape=shapes(min_side=1), axis=some_axes, keepdims=st.booleans())),
    "max": Op(Tensor.max, np.max, one(apart, shapes(min_side=1), axis=some_axes, keepdims=st.booleans())),
    "min": Op(Tensor.min, np.min, one(apart, shapes(min_side=1), axis=some_axes, keepdims=st.booleans())),
    "broadcast_to": Op(Tensor.broadcast_to, np.broadcast_to, stretched()),
    "reshape": Op(
        lambda x, to: x.reshape(to),
        lambda a, to: a.reshape(to),
        one(to=lambda shape: st.permutations(shape) | st.just((-1,))),
    ),
    "transpose": Op(
        lambda x, order: x.transpose(*order),
        lambda a, order: a.transpose(order or None),
        one(order=lambda shape: st.just(()) | any_order(shape)),
    ),
    "__getitem__": Op(
        lambda x, index: x[index], lambda a, index: a[index], one(shape=shapes(1, 3, min_side=1), index=any_index)
    ),
    "astype": Op(lambda x: x.astype(x.dtype), np.copy, one()),  # other dtypes: test_tensor.py
}

FUNCTIONS = {  # of nn.__all__, besides those that are methods too
    "sin": Op(nn.sin, np.sin, one()),
    "cos": Op(nn.cos, np.cos, one()),
    "tanh": Op(nn.tanh, np.tanh, one()),
    "sigmoid": Op(nn.sigmoid, lambda a: 1 / (1 + np.exp(-a)), one()),
    "silu": Op(nn.silu, silu, one()),
    "relu": Op(nn.relu, lambda a: np.maximum(a, 0), one(apart)),
    "softplus": Op(nn.softplus, lambda a: np.log1p(np.exp(a)), one()),
    "where": Op(
        lambda x, y, condition: nn.where(condition, x, y), lambda x, y, condition: np.where(condition, x, y), masked()
    ),
    "linear": Op(nn.linear, lambda x, w, b: x @ w + b, mapped()),
    "concatenate": Op(lambda *xs, axis: nn.concatenate(xs, axis), lambda *xs, axis: np.concatenate(xs, axis), joined()),
    "pad": Op(nn.pad, lambda a, widths: np.pad(a, widths), one(shape=shapes(1), widths=any_widths)),
    "softmax": Op(nn.softmax, softmax, one(shape=shapes(1, min_side=1), axis=an_axis)),
    "log_softmax": Op(
        nn.log_softmax, lambda a, axis: np.log(softmax(a, axis)), one(shape=shapes(1, min_side=1), axis=an_axis)
    ),
    "embedding": Op(nn.embedding, lambda table, index: table[index], one(shape=shapes(2, 2, 1), index=any_rows)),
    "dropout": Op(dropout_in_a_state, dropout, one(shape=shapes(1, min_side=1), rate=st.sampled_from([0, 0.1, 0.5]))),
    "attention": Op(nn.attention, attention, broadcast(signature="(l,d),(m,d),(m,e)->(l,e)")),
    "mse": Op(nn.mse, lambda a, b: ((a - b) ** 2).mean(), twins()),
    "cross_entropy": Op(
        nn.cross_entropy, lambda a, labels: -np.log(softmax(a, 1))[range(len(a)), labels].mean(), classified()
    ),
    "group_norm": Op(nn.group_norm, group_norm, normed()),
    "group_norm_silu": Op(nn.group_norm_silu, lambda *args, groups: silu(group_norm(*args, groups)), normed()),
    "layer_norm": Op(nn.layer_norm, layer_norm, normed(layer=True)),
    "conv2d": Op(nn.conv2d, conv2d_loops, convolved()),
    "upsample_nearest": Op(nn.upsample_nearest, lambda a, factor: a.repeat(factor, 1).repeat(factor, 2), blocks()),
    "average_pool": Op(nn.average_pool, average_pool, blocks()),
}

VARIANTS = {  # what conv2d chooses between
    "conv2d_im2col": Op(conv2d_im2col, conv2d_loops, convolved()),
    "conv2d_winograd": Op(conv2d_winograd, lambda x, w, b: conv2d_loops(x, w, b, 1, 1), convolved(winograd=True)),
}

OPS = METHODS | FUNCTIONS | VARIANTS
