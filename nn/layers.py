"""Layers: plain objects that hold Tensors. Parameters are found by walking attributes, lists and dicts, in order.

A layer is anything with attributes and `__call__`; `Module` adds what can be said of all of them. Next: optim.py.
"""

import math

import numpy as np

from nn import conv, norm, ops
from nn.backend import to_device, to_numpy
from nn.cache import forget_weights
from nn.tensors import Tensor

__all__ = ["Module", "Linear", "Conv2d", "GroupNorm", "LayerNorm", "Embedding", "Dropout", "Attention", "Sequential"]


class Module:
    """The base of every layer and network: names its parameters, saves and restores them, moves between devices."""

    training = True

    def named_parameters(self):
        """{name: Tensor} of every parameter, in the order of attributes: "down.0.conv.weight". Shared ones once."""
        found, seen = {}, set()
        for name, value in _walk(self):
            if isinstance(value, Tensor) and value.requires_grad and id(value) not in seen:
                seen.add(id(value))
                found[name] = value
        return found

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
        """{name: NumPy array}, a copy of every parameter."""
        return {name: np.array(to_numpy(p.data)) for name, p in self.named_parameters().items()}

    def load_state_dict(self, state):
        """Copy `state` into the parameters. ValueError, changing nothing, unless names, shapes and dtypes all agree."""
        own = self.named_parameters()
        if own.keys() != state.keys():
            missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
            raise ValueError(f"state does not fit: missing {missing}, unknown {unknown}")
        for name, p in own.items():
            if p.shape != state[name].shape or p.dtype != state[name].dtype:
                raise ValueError(f"{name}: expected {p.dtype} {p.shape}, got {state[name].dtype} {state[name].shape}")
        forget_weights()
        for name, p in own.items():
            p.data[...] = to_device(state[name], p.xp)
        return self

    def to(self, xp):
        """Move every parameter to `xp` (numpy or cupy). Do it before an optimiser is made. Returns self."""
        for p in self.parameters():
            p.data = to_device(p.data, xp)
        return self

    def astype(self, dtype):
        """Convert every parameter to `dtype`. Do it before an optimiser is made. Returns self."""
        for p in self.parameters():
            p.data = p.data.astype(dtype)
        return self


def _walk(value, name=""):
    """(name, object) for `value` and everything inside its attributes, lists, tuples and dicts, in order."""
    yield name, value
    if isinstance(value, Module):
        children = vars(value).items()
    elif isinstance(value, dict):
        children = value.items()
    elif isinstance(value, (list, tuple)):
        children = enumerate(value)
    else:
        return
    for key, child in children:
        yield from _walk(child, f"{name}.{key}" if name else str(key))


def _parameter(array):
    return Tensor(np.ascontiguousarray(array, dtype=np.float32), requires_grad=True)


def _lecun_normal(rng, shape, fan_in):
    """Normal with variance 1 / fan_in: keeps the variance of what passes through (LeCun et al. 1998)."""
    return _parameter(rng.standard_normal(shape) / math.sqrt(fan_in))


class Linear(Module):
    """y = x weight + bias, for x (..., inputs). zero=True starts at zero. rng: a numpy.random.Generator."""

    def __init__(self, inputs, outputs, *, rng, zero=False):
        self.weight = _parameter(np.zeros((inputs, outputs))) if zero else _lecun_normal(rng, (inputs, outputs), inputs)
        self.bias = _parameter(np.zeros(outputs))

    def __call__(self, x):
        rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
        y = rows @ self.weight + self.bias
        return y if x.ndim == 2 else y.reshape(*x.shape[:-1], -1)


class Conv2d(Module):
    """Convolution of (N, H, W, inputs) with filters size x size; see `nn.conv2d`. zero=True starts at zero.

    The padding keeps the size at stride 1. A call may give each sample a bias of its own, (N, outputs), in place of
    the layer's; a layer that is always called so is made with bias=False.
    """

    def __init__(self, inputs, outputs, size=3, stride=1, *, rng, zero=False, bias=True):
        shape = (size, size, inputs, outputs)
        self.weight = _parameter(np.zeros(shape)) if zero else _lecun_normal(rng, shape, size * size * inputs)
        self.bias = _parameter(np.zeros(outputs)) if bias else None
        self.stride, self.padding = stride, size // 2

    def __call__(self, x, bias=None):
        return conv.conv2d(x, self.weight, self.bias if bias is None else bias, self.stride, self.padding)


class GroupNorm(Module):
    """Group norm over (N, ..., channels); silu=True applies silu to the result, in the same pass."""

    def __init__(self, channels, groups=8, silu=False):
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
        self.weight = _parameter(rng.standard_normal((count, channels)))

    def __call__(self, index):
        return ops.embedding(self.weight, index)


class Dropout(Module):
    """Dropout with probability `rate` in training, nothing in evaluation. Call it inside `nn.random_state`."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, x):
        return ops.dropout(x, self.rate) if self.training else x


class Attention(Module):
    """Multi-head self-attention over tokens (N, L, channels); the output projection starts at zero if zero=True."""

    def __init__(self, channels, heads=4, *, rng, zero=False):
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        self.heads = heads
        self.to_qkv = Linear(channels, 3 * channels, rng=rng)
        self.to_out = Linear(channels, channels, rng=rng, zero=zero)

    def __call__(self, x):
        n, length, channels = x.shape
        qkv = self.to_qkv(x).reshape(n, length, 3, self.heads, channels // self.heads).transpose(2, 0, 3, 1, 4)
        mixed = ops.attention(qkv[0], qkv[1], qkv[2])
        return self.to_out(mixed.transpose(0, 2, 1, 3).reshape(n, length, channels))


class Sequential(Module):
    """Layers (or functions) one after another."""

    def __init__(self, *layers):
        self.layers = list(layers)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
