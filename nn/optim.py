"""Optimisers, the moving average of the weights, and gradient clipping, each over one flat array. Next: muon.py.

An update goes block by block over the flat array (see flat.py), so that a block stays in the cache of a core.
"""

import math

import numpy as np

from nn.backend import array_module, to_device, to_numpy
from nn.cache import forget_weights
from nn.flat import flattened
from nn.gpu import kernels
from nn.options import real, whole

__all__ = ["SGD", "Adam", "AdamW", "EMA", "clip_by_global_norm"]

_BLOCK = 1 << 15  # entries updated at a time: five float32 blocks of 128 KiB fit in a core's cache


def _blocks(flat):
    """Slices of a flat array: one block at a time on a CPU, for the cache; all at once on a GPU, for fewer launches."""
    if not isinstance(flat, np.ndarray):
        return [slice(None)]
    return [slice(start, start + _BLOCK) for start in range(0, flat.size, _BLOCK)]


class _OverParameters:
    """What optimisers and averages share: the parameters, and a state of flat arrays and one count.

    moments: the names of the arrays. count: the name of the count.
    """

    moments, count = (), "steps"

    def __init__(self, parameters):
        self._flat = flattened(parameters)
        self.parameters = self._flat.tensors

    @property
    def flat(self):
        """The parameters as one flat array, in their order: to write into it is to change them. See `nn.flat`."""
        return self._flat.array

    def state_dict(self):
        """{name: NumPy array}: a copy of the moments, and the count."""
        moments = {name: np.array(to_numpy(getattr(self, name))) for name in self.moments}
        return {self.count: np.asarray(getattr(self, self.count)), **moments}

    def load_state_dict(self, state):
        """Continue from a `state_dict`. ValueError, changing nothing, unless names, sizes and dtypes all agree."""
        if state.keys() != {self.count, *self.moments}:
            raise ValueError(f"state does not fit: expected {[self.count, *self.moments]}, got {list(state)}")
        for name in self.moments:
            own, given = getattr(self, name), state[name]
            if given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(f"{name}: expected {own.dtype} {own.shape}, got {given.dtype} {given.shape}")
        setattr(self, self.count, whole(self.count, state[self.count]))
        for name in self.moments:
            getattr(self, name)[...] = to_device(state[name], array_module(self.flat))


class _Optimiser(_OverParameters):
    """A learning rate, a step count, and the loop over the blocks. A subclass says in `update` how a block changes.

    learning_rate: a number, or a function of the step number 1, 2, ... (see `nn.rates`).
    """

    def __init__(self, parameters, learning_rate):
        super().__init__(parameters)
        if not all(p.requires_grad for p in self.parameters):
            raise ValueError("an optimiser changes Tensors with requires_grad=True only; leave the others out")
        self.learning_rate = learning_rate if callable(learning_rate) else real("the learning rate", learning_rate)
        self.steps = 0

    def step(self, gradient=None):
        """One update. gradient: a flat array in the order of the parameters, by default collected from `.grad`.

        ValueError where the gradient or the learning rate does not fit, RuntimeError where a parameter was frozen (its
        moments would go on moving it): nothing is changed then.
        """
        flat, gradient = self.flat, self.gradient() if gradient is None else gradient
        if (array_module(gradient), gradient.shape, gradient.dtype) != (array_module(flat), flat.shape, flat.dtype):
            raise ValueError(
                f"gradient has shape {gradient.shape} {gradient.dtype}, the parameters {flat.shape} {flat.dtype}"
            )
        if not all(p.requires_grad for p in self.parameters):
            raise RuntimeError("a parameter was frozen since the optimiser was made: make one for the others")
        rate = self.learning_rate
        rate = real("the learning rate", rate(self.steps + 1) if callable(rate) else rate)
        self.steps += 1
        forget_weights(self.parameters)
        for block in self.blocks():
            self.update(flat[block], gradient[block], rate, block)

    def blocks(self):
        """Slices of the flat array that `update` is called with, one after another."""
        return _blocks(self.flat)

    def gradient(self):
        """The `.grad` of all parameters as one flat array. RuntimeError if none has one.

        A parameter without gets zeros, the gradient of what the loss does not depend on, and its moments move it on.
        (PyTorch leaves it out of the step.)
        """
        if all(p.grad is None for p in self.parameters):
            raise RuntimeError("no parameter has a gradient: call backward on a loss before step")
        for i, p in enumerate(self.parameters):
            if p.grad is not None and p.grad.shape != p.shape:
                raise ValueError(f"parameter {i}, of shape {p.shape}, has a gradient of shape {p.grad.shape}")
        xp = self.parameters[0].xp
        return xp.concatenate(
            [xp.zeros(p.size, p.dtype) if p.grad is None else p.grad.reshape(-1) for p in self.parameters]
        )

    def zero_grad(self):
        """Forget every `.grad`."""
        for p in self.parameters:
            p.grad = None


class SGD(_Optimiser):
    """Stochastic gradient descent: v <- momentum v + g, p <- p - rate v."""

    moments = ("velocity",)

    def __init__(self, parameters, learning_rate=0.01, momentum=0.0):
        super().__init__(parameters, learning_rate)
        self.momentum = real("momentum", momentum, below=1)
        self.velocity = array_module(self.flat).zeros_like(self.flat)

    def update(self, p, gradient, rate, block):
        velocity = self.velocity[block]
        velocity *= self.momentum
        velocity += gradient
        p -= rate * velocity


class Adam(_Optimiser):
    """Kingma & Ba 2015: steps along the mean gradient over the root of the mean squared gradient, both debiased.

    weight_decay is decoupled, as in AdamW (Loshchilov & Hutter 2019): p <- p - rate weight_decay p.
    """

    moments = ("mean", "square")

    def __init__(self, parameters, learning_rate=1e-3, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0):
        super().__init__(parameters, learning_rate)
        self.betas = tuple(real("each beta", beta, below=1) for beta in betas)
        self.epsilon, self.weight_decay = real("epsilon", epsilon), real("weight_decay", weight_decay)
        flat = self.flat
        # The smallest epsilon that `update` adds, at step 1. Where a gradient is zero it is the whole denominator.
        if not flat.dtype.type(self.epsilon * math.sqrt(1 - self.betas[1])) > 0:
            raise ValueError(f"epsilon = {epsilon} is too small: in {flat.dtype} the first step would divide by zero")
        self.mean, self.square = (array_module(flat).zeros_like(flat) for _ in self.moments)

    def update(self, p, gradient, rate, block):
        mean, square = self.mean[block], self.square[block]
        beta1, beta2 = self.betas
        # rate * (mean / c1) / (sqrt(square / c2) + epsilon), with both corrections moved to scalars
        root_c2 = math.sqrt(1 - beta2**self.steps)
        epsilon, corrected_rate = self.epsilon * root_c2, rate * root_c2 / (1 - beta1**self.steps)
        xp = array_module(p)
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


class EMA(_OverParameters):
    """An exponential moving average of parameters, the weights to sample with.

    After k updates the decay in use is min(decay, (1 + k) / (10 + k)): early on the average is over the last few
    steps, so that it does not drag the initial weights along. `average` is a flat array in the parameters' order.
    """

    moments, count = ("average",), "updates"

    def __init__(self, parameters, decay=0.999):
        super().__init__(parameters)
        self.decay, self.updates = real("the EMA decay", decay, below=1), 0
        self.average = self.flat.copy()

    def update(self):
        """average <- decay average + (1 - decay) parameters."""
        flat = self.flat
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        if kernels.used_for(array_module(flat), flat.dtype):
            kernels.moving_average(self.average, flat, share)
            return
        for block in _blocks(flat):
            self.average[block] += share * (flat[block] - self.average[block])

    def swap(self):
        """Exchange the parameters and their average: once to sample with the average, once more to train on."""
        flat = self.flat
        forget_weights(self.parameters)
        kept = flat.copy()
        flat[...] = self.average
        self.average[...] = kept


def clip_by_global_norm(gradient, limit):
    """Scale the flat `gradient`, in place, to a Euclidean norm of at most `limit`. Returns the norm it had, a scalar.

    limit: a positive number; infinity leaves every gradient as it is. On the CPU a norm that is not finite raises
    FloatingPointError, because the step would destroy the weights. On a GPU the norm is a 0-d array and is not checked,
    because reading it would make the host wait. A NaN then shows in the next loss.
    """
    if gradient.ndim != 1 or not limit > 0:
        raise ValueError(f"needs a flat gradient and a limit above 0, got {gradient.ndim} axes and {limit}")
    limit = min(float(limit), np.finfo(np.float64).max)  # infinity over infinity would be NaN
    xp = array_module(gradient)
    size = _norm(gradient, xp)
    if xp is np and not math.isfinite(size):
        raise FloatingPointError(
            f"the gradient's norm is {size}; lower the learning rate or look for a division by zero"
        )
    gradient *= (limit / xp.maximum(size, limit)).astype(gradient.dtype)  # times 1 where it is short enough: no branch
    return size


def _norm(gradient, xp):
    """The Euclidean norm in float64, also of numbers whose squares are too large or too small for their dtype."""
    if xp is not np:
        gradient = gradient.astype(np.float64)
        return xp.sqrt(gradient @ gradient)
    with np.errstate(over="ignore"):
        square = float(gradient @ gradient)
    if 1e-30 < square < math.inf:
        return np.float64(math.sqrt(square))
    largest = np.float64(abs(gradient).max(initial=0))
    if largest == 0 or not math.isfinite(largest):
        return largest
    unit = gradient / largest  # in float64, and at most 1
    return largest * math.sqrt(unit @ unit)
