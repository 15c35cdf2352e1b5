"""Optimisers, EMA, gradient clipping and learning-rate schedules, each over one flat buffer. Next: parallel.py.

All parameters live in one flat array, of which each Tensor's data is a view; so an update is a handful of passes over
one array, however many layers there are, and it goes block by block so that a block stays in cache.
"""

import math

import numpy as np

from nn.backend import array_module, to_numpy
from nn.cache import forget_weights
from nn.gpu import kernels

__all__ = ["flatten", "SGD", "Adam", "AdamW", "EMA", "clip_by_global_norm"]

_BLOCK = 1 << 15  # entries updated at a time: five float32 blocks of 128 KiB fit in a core's cache


def flatten(parameters):
    """One flat array that holds all `parameters`; their data become views into it. Calling it again returns the same.

    parameters: a list of Tensors of one dtype on one device (ValueError otherwise).
    """
    if not parameters:
        raise ValueError("there are no parameters to optimise")
    kinds = {(p.xp.__name__, str(p.dtype)) for p in parameters}
    if len(kinds) > 1:
        raise ValueError(f"parameters must share one device and one dtype, got {sorted(kinds)}")
    base = parameters[0].data.base
    views = _split(base, parameters) if _fits(base, parameters) else None
    if views and all(_same_memory(v, p.data) for v, p in zip(views, parameters, strict=True)):
        return base
    flat = parameters[0].xp.concatenate([p.data.reshape(-1) for p in parameters])
    for p, view in zip(parameters, _split(flat, parameters), strict=True):
        p.data = view
    return flat


def _fits(base, parameters):
    return base is not None and base.ndim == 1 and base.size == sum(p.size for p in parameters)


def _split(flat, parameters):
    """Views into `flat`, one in the shape of each parameter."""
    ends = np.cumsum([p.size for p in parameters]).tolist()
    return [flat[end - p.size : end].reshape(p.shape) for p, end in zip(parameters, ends, strict=True)]


def _same_memory(a, b):
    if hasattr(a, "__array_interface__"):
        return a.__array_interface__["data"] == b.__array_interface__["data"]
    return a.data.ptr == b.data.ptr


def _check_still_flat(parameters, flat):
    if any(p.data.base is not flat for p in parameters):
        raise RuntimeError(
            "a parameter's data has left the flat array: move or convert a network before it is optimised"
        )


def _blocks(size):
    return [slice(start, start + _BLOCK) for start in range(0, size, _BLOCK)]


class _Optimiser:
    """What all share: the flat parameters, a flat gradient buffer, the step count, and state that can be saved.

    `learning_rate` is a number, or a function of the step number 1, 2, ... (see `warmup`, `cosine`).
    """

    def __init__(self, parameters, learning_rate):
        self.parameters = list(parameters)
        self.flat = flatten(self.parameters)
        self.learning_rate = learning_rate
        self.steps = 0

    def step(self, gradient=None):
        """One update. gradient: a flat array in the order of the parameters, by default collected from `.grad`."""
        if gradient is None:
            gradient = self.gradient()
        if gradient.shape != self.flat.shape or gradient.dtype != self.flat.dtype:
            raise ValueError(
                f"gradient has shape {gradient.shape} {gradient.dtype}, the parameters {self.flat.shape} {self.flat.dtype}"
            )
        _check_still_flat(self.parameters, self.flat)
        self.steps += 1
        forget_weights()
        rate = self.learning_rate(self.steps) if callable(self.learning_rate) else self.learning_rate
        # One block at a time on a CPU, for the cache; all at once on a GPU, where each call costs a launch.
        blocks = _blocks(self.flat.size) if isinstance(self.flat, np.ndarray) else [slice(None)]
        for block in blocks:
            self.update(block, gradient[block], rate)

    def gradient(self):
        """The `.grad` of all parameters as one flat array; zeros for a parameter without."""
        xp = self.parameters[0].xp
        return xp.concatenate(
            [xp.zeros(p.size, p.dtype) if p.grad is None else p.grad.reshape(-1) for p in self.parameters]
        )

    def zero_grad(self):
        """Forget every `.grad`."""
        for p in self.parameters:
            p.grad = None

    def state_dict(self):
        """{name: NumPy array}: a copy of the moments, and the number of steps taken."""
        moments = {name: np.array(to_numpy(getattr(self, name))) for name in self.moments}
        return {"steps": np.asarray(self.steps), **moments}

    def load_state_dict(self, state):
        """Continue from a `state_dict`. ValueError, changing nothing, unless names, sizes and dtypes all agree."""
        if state.keys() != {"steps", *self.moments}:
            raise ValueError(f"state does not fit: expected {['steps', *self.moments]}, got {list(state)}")
        for name in self.moments:
            if state[name].shape != self.flat.shape or state[name].dtype != self.flat.dtype:
                expected = f"{self.flat.dtype} {self.flat.shape}"
                raise ValueError(f"{name}: expected {expected}, got {state[name].dtype} {state[name].shape}")
        for name in self.moments:
            getattr(self, name)[...] = self.parameters[0].xp.asarray(state[name])
        self.steps = int(state["steps"])


class SGD(_Optimiser):
    """Stochastic gradient descent: v <- momentum v + g, p <- p - rate v."""

    def __init__(self, parameters, learning_rate=0.01, momentum=0.0):
        super().__init__(parameters, learning_rate)
        self.momentum = momentum
        self.velocity = self.parameters[0].xp.zeros_like(self.flat)
        self.moments = ("velocity",)

    def update(self, block, gradient, rate):
        velocity = self.velocity[block]
        velocity *= self.momentum
        velocity += gradient
        self.flat[block] -= rate * velocity


class Adam(_Optimiser):
    """Kingma & Ba 2015: steps along the mean gradient over the root of the mean squared gradient, both debiased.

    weight_decay is decoupled, as in AdamW (Loshchilov & Hutter 2019): p <- p - rate weight_decay p.
    """

    def __init__(self, parameters, learning_rate=1e-3, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0):
        super().__init__(parameters, learning_rate)
        self.betas, self.epsilon, self.weight_decay = betas, epsilon, weight_decay
        xp = self.parameters[0].xp
        self.mean, self.square = xp.zeros_like(self.flat), xp.zeros_like(self.flat)
        self.moments = ("mean", "square")

    def update(self, block, gradient, rate):
        p, mean, square = self.flat[block], self.mean[block], self.square[block]
        beta1, beta2 = self.betas
        xp = self.parameters[0].xp
        # rate * (mean / c1) / (sqrt(square / c2) + epsilon), with both corrections moved to scalars
        root_c2 = math.sqrt(1 - beta2**self.steps)
        epsilon, corrected_rate = self.epsilon * root_c2, rate * root_c2 / (1 - beta1**self.steps)
        if kernels.used_for(xp, p.dtype):
            kernels.adam(p, mean, square, gradient, beta1, beta2, epsilon, corrected_rate, 1 - rate * self.weight_decay)
            return
        mean *= beta1
        mean += (1 - beta1) * gradient
        square *= beta2
        square += (1 - beta2) * (gradient * gradient)
        denominator = xp.sqrt(square)
        denominator += epsilon
        xp.divide(mean, denominator, out=denominator)
        denominator *= corrected_rate
        if self.weight_decay:
            p *= 1 - rate * self.weight_decay
        p -= denominator


class AdamW(Adam):
    """`Adam` with the weight decay its authors used by default, 0.01."""

    def __init__(self, parameters, learning_rate=1e-3, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.01):
        super().__init__(parameters, learning_rate, betas, epsilon, weight_decay)


class EMA:
    """An exponential moving average of parameters, the weights to sample with.

    After k updates the decay in use is min(decay, (1 + k) / (10 + k)): early on the average is over the last few
    steps, so that it does not drag the initial weights along. `average` is a flat array in the parameters' order.
    """

    def __init__(self, parameters, decay=0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"the EMA decay must be in [0, 1), got {decay}")
        self.parameters, self.decay, self.updates = list(parameters), decay, 0
        self.flat = flatten(self.parameters)
        self.average = self.flat.copy()

    def update(self):
        """average <- decay average + (1 - decay) parameters."""
        _check_still_flat(self.parameters, self.flat)
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        if kernels.used_for(array_module(self.flat), self.flat.dtype):
            kernels.moving_average(self.average, self.flat, share)
            return
        blocks = _blocks(self.flat.size) if isinstance(self.flat, np.ndarray) else [slice(None)]
        for block in blocks:
            self.average[block] += share * (self.flat[block] - self.average[block])

    def state_dict(self):
        """{name: NumPy array}: the average, and the number of updates made."""
        return {"average": np.array(to_numpy(self.average)), "updates": np.asarray(self.updates)}

    def load_state_dict(self, state):
        """Continue from a `state_dict`. ValueError, changing nothing, where the size or dtype differs."""
        given = state["average"]
        if given.shape != self.average.shape or given.dtype != self.average.dtype:
            raise ValueError(
                f"the average is {given.dtype} {given.shape}, the parameters {self.average.dtype} {self.average.shape}"
            )
        self.average[...] = self.parameters[0].xp.asarray(given)
        self.updates = int(state["updates"])

    def swap(self):
        """Exchange the parameters and their average: once to sample with the average, once more to train on."""
        _check_still_flat(self.parameters, self.flat)
        forget_weights()
        kept = self.flat.copy()
        self.flat[...] = self.average
        self.average[...] = kept


def clip_by_global_norm(gradient, limit):
    """Scale the flat `gradient`, in place, to a Euclidean norm of at most `limit`. Returns the norm it had, a scalar.

    On the CPU a norm that is not finite raises FloatingPointError: the step would destroy the weights. On a GPU nothing
    waits for the norm, which is an array of no axes there; what is not finite spreads to the next loss.
    """
    if not limit > 0:
        raise ValueError(f"the limit of the norm must be positive, got {limit}")
    xp = array_module(gradient)
    size = xp.sqrt((gradient @ gradient).astype(np.float64))
    if xp is np and not math.isfinite(size):
        raise FloatingPointError(
            f"the gradient's norm is {size}; lower the learning rate or look for a division by zero"
        )
    gradient *= (limit / xp.maximum(size, limit)).astype(gradient.dtype)  # times 1 where it is short enough: no branch
    return size
