"""Layers: plain objects that hold Tensors. Tensors are found by walking attributes, lists and dicts, in order.

A layer is anything with attributes and `__call__`; `Module` adds what can be said of all of them. Next: flat.py.
"""

import inspect
import math

import numpy as np

from nn import conv, norm, ops, products
from nn.backend import to_device, to_numpy
from nn.cache import forget_weights
from nn.options import real, whole
from nn.tensors import Tensor

__all__ = ["Module", "Linear", "Conv2d", "GroupNorm", "LayerNorm", "Embedding", "Dropout", "Attention", "Sequential"]


class Module:
    """The base of every layer and network: names its Tensors, saves and restores them, moves between devices.

    Tensors are found in the attributes of an object and in lists, tuples, dicts and Modules inside them. The *state* is
    all of them. The *parameters* are those with requires_grad=True, which an optimiser changes; to freeze one is to set
    that to False, and it stays in the state.
    """

    training = True

    def named_tensors(self):
        """{name: Tensor} of the state, in the order of attributes: "down.0.conv.weight". Shared ones once.

        ValueError where two would have one name, or where an op computed one: it could be neither trained nor loaded.
        """
        found, seen = {}, set()
        for name, value in _walk(self):
            if not isinstance(value, Tensor) or id(value) in seen:
                continue
            if name in found:
                raise ValueError(
                    f"two tensors of {type(self).__name__} are named {name!r}; rename an attribute or a key"
                )
            if value.node is not None:
                raise ValueError(
                    f"{name} was computed by an op, so it is no parameter; keep its data in a Tensor of its own"
                )
            seen.add(id(value))
            found[name] = value
        return found

    def named_parameters(self):
        """{name: Tensor} of the parameters: those of `named_tensors` with requires_grad=True."""
        return {name: value for name, value in self.named_tensors().items() if value.requires_grad}

    def parameters(self):
        """The Tensors of `named_parameters`, as a list."""
        return list(self.named_parameters().values())

    def train(self, training=True):
        """Set the mode of this layer and all inside it: in training, dropout drops. Returns self."""
        for _, value in _walk(self):
            if isinstance(value, Module):
                value.training = training
        return self

    def eval(self):
        """`train(False)`."""
        return self.train(False)

    def state_dict(self):
        """{name: NumPy array}, a copy of the whole state, frozen Tensors too."""
        return {name: np.array(to_numpy(p.data)) for name, p in self.named_tensors().items()}

    def load_state_dict(self, state):
        """Give the Tensors copies of the arrays of `state`. Returns self.

        ValueError, changing nothing, unless names, shapes and dtypes all agree.
        """
        own = self.named_tensors()
        if own.keys() != state.keys():
            missing, unknown = (
                sorted(map(str, names)) for names in (own.keys() - state.keys(), state.keys() - own.keys())
            )
            raise ValueError(f"state does not fit: missing {missing}, unknown {unknown}")
        for name, p in own.items():
            if p.shape != state[name].shape or p.dtype != state[name].dtype:
                raise ValueError(f"{name}: expected {p.dtype} {p.shape}, got {state[name].dtype} {state[name].shape}")
        arrays = [p.xp.array(to_device(state[name], p.xp)) for name, p in own.items()]
        forget_weights(own.values())
        for p, array in zip(own.values(), arrays, strict=True):
            p.data = array
        return self

    def to(self, xp):
        """Move every Tensor to `xp` (numpy or cupy). Do it before an optimiser is made. Returns self."""
        if not inspect.ismodule(xp):
            raise TypeError(f"a network moves to a module, numpy or cupy (see nn.choose_device), got {xp!r}")
        return self._convert(lambda array: to_device(array, xp))

    def astype(self, dtype):
        """Convert every Tensor to a floating `dtype`. Do it before an optimiser is made. Returns self."""
        if np.dtype(dtype).kind != "f":
            raise TypeError(f"a network is of a floating dtype, got {np.dtype(dtype)}")
        return self._convert(lambda array: array.astype(dtype))

    def _convert(self, change):
        tensors = self.named_tensors().values()
        forget_weights(tensors)
        for p in tensors:
            p.data, p.grad = change(p.data), None if p.grad is None else change(p.grad)
        return self


def _walk(root):
    """[(name, object)] of `root` and everything inside its attributes, lists, tuples and dicts, in order.

    A container is entered once: a layer may refer to its parent. TypeError for a set of Tensors or layers, which has
    no order.
    """
    found, entered = [], set()

    def visit(name, value):
        found.append((name, value))
        if isinstance(value, (Module, dict, list, tuple)):
            if id(value) in entered:
                return
            entered.add(id(value))
            children = vars(value) if isinstance(value, Module) else value
            for key, child in children.items() if isinstance(children, dict) else enumerate(children):
                visit(f"{name}.{key}" if name else str(key), child)
        elif isinstance(value, (set, frozenset)) and any(isinstance(child, (Tensor, Module)) for child in value):
            raise TypeError(f"{name} is a set, whose order changes from run to run: keep Tensors and layers in a list")

    visit("", root)
    return found


def _parameter(array):
    return Tensor(np.ascontiguousarray(array, dtype=np.float32), requires_grad=True)


def _lecun_normal(rng, shape, fan_in):
    """Normal with variance 1 / fan_in: keeps the variance of what passes through (LeCun et al. 1998)."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, such as np.random.default_rng(0), got {rng!r}")
    return _parameter(rng.standard_normal(shape) / math.sqrt(fan_in))


class Linear(Module):
    """y = x weight + bias, for x (..., inputs). zero=True starts at zero. rng: a numpy.random.Generator."""

    def __init__(self, inputs, outputs, *, rng, zero=False):
        shape = whole("inputs", inputs, 1), whole("outputs", outputs, 1)
        self.weight = _parameter(np.zeros(shape)) if zero else _lecun_normal(rng, shape, inputs)
        self.bias = _parameter(np.zeros(outputs))

    def __call__(self, x):
        return products.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """Convolution of (N, H, W, inputs) with filters size x size; see `nn.conv2d`. zero=True starts at zero.

    The padding keeps the size at stride 1, as padding="same" does in PyTorch: an even filter has one zero more below
    and to the right than above and to the left. bias=False makes a convolution without bias. A call may give each
    sample a bias of its own, (N, outputs), in place of the layer's.
    """

    def __init__(self, inputs, outputs, size=3, stride=1, *, rng, zero=False, bias=True):
        inputs, outputs, size = whole("inputs", inputs, 1), whole("outputs", outputs, 1), whole("size", size, 1)
        shape = (size, size, inputs, outputs)
        self.weight = _parameter(np.zeros(shape)) if zero else _lecun_normal(rng, shape, size * size * inputs)
        self.bias = _parameter(np.zeros(outputs)) if bias else None
        self.stride, self.padding = whole("stride", stride, 1), (size - 1) // 2

    def __call__(self, x, bias=None):
        if self.weight.shape[0] % 2 == 0:
            x = ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
        return conv.conv2d(x, self.weight, self.bias if bias is None else bias, self.stride, self.padding)


class GroupNorm(Module):
    """Group norm over (N, ..., channels); silu=True applies silu to the result, in the same pass."""

    def __init__(self, channels, groups=8, silu=False):
        self.groups = norm.check_groups(channels, groups)
        self.weight, self.bias = _parameter(np.ones(channels)), _parameter(np.zeros(channels))
        self.groups, self.silu = groups, silu

    def __call__(self, x):
        op = norm.group_norm_silu if self.silu else norm.group_norm
        return op(x, self.weight, self.bias, self.groups)


class LayerNorm(Module):
    """Layer norm over the last axis of (..., channels)."""

    def __init__(self, channels):
        self.weight, self.bias = _parameter(np.ones(channels)), _parameter(np.zeros(channels))

    def __call__(self, x):
        return norm.layer_norm(x, self.weight, self.bias)


class Embedding(Module):
    """A table of `count` rows of width `channels`, looked up by integers; rows start standard normal."""

    def __init__(self, count, channels, *, rng):
        self.weight = _lecun_normal(rng, (whole("count", count, 1), whole("channels", channels, 1)), 1)

    def __call__(self, index):
        return ops.embedding(self.weight, index)


class Dropout(Module):
    """Dropout with probability `rate` in training, nothing in evaluation. Call it inside `nn.random_state`."""

    def __init__(self, rate):
        self.rate = real("the dropout rate", rate, below=1)

    def __call__(self, x):
        return ops.dropout(x, self.rate) if self.training else x


class Attention(Module):
    """Multi-head self-attention over tokens (N, L, channels); the output projection starts at zero if zero=True."""

    def __init__(self, channels, heads=4, *, rng, zero=False):
        channels, self.heads = whole("channels", channels, 1), whole("heads", heads, 1)
        if channels % self.heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.to_qkv = Linear(channels, 3 * channels, rng=rng)
        self.to_out = Linear(channels, channels, rng=rng, zero=zero)

    def __call__(self, x):
        if x.ndim != 3:
            raise ValueError(f"attention needs tokens (N, L, channels), got {x.shape}")
        n, length, channels = x.shape
        qkv = self.to_qkv(x).reshape(n, length, 3, self.heads, channels // self.heads).transpose(2, 0, 3, 1, 4)
        mixed = products.attention(qkv[0], qkv[1], qkv[2])
        return self.to_out(mixed.transpose(0, 2, 1, 3).reshape(n, length, channels))


class Sequential(Module):
    """Layers (or functions) one after another."""

    def __init__(self, *layers):
        self.layers = list(layers)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
