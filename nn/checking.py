"""Is this vjp right? The gradient an op claims against central differences, in float64, with a random cotangent."""

import numpy as np

from nn.tape import gradients, no_grad
from nn.tensors import Tensor

__all__ = ["gradcheck"]


def gradcheck(op, *arrays, seed=0, step=1e-6, rtol=1e-6):
    """Raise AssertionError, naming the input, where a gradient of `op` is wrong.

    op: a function of Tensors, one for each of `arrays` (float64), returning a Tensor of any shape. The output is
    contracted with a *random* cotangent: under a cotangent of ones a wrong vjp of a norm passes, since the outputs of
    a norm sum to a constant. Each gradient is compared along random directions and along single entries, so the cost
    does not grow with the square of the size.
    """
    rng = np.random.default_rng(seed)
    inputs = [Tensor(a, requires_grad=True) for a in arrays]
    for index, x in enumerate(inputs):
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck needs float64 inputs, input {index} is {x.dtype}")
    output = op(*inputs)
    xp = output.xp
    cotangent = xp.asarray(rng.standard_normal(output.shape))
    claimed = gradients(output, inputs, cotangent)

    for index, x in enumerate(inputs):
        for direction in _directions(x.shape, rng):
            direction = xp.asarray(direction)
            original = x.data

            def value(scale, x=x, original=original, direction=direction):
                x.data = original + scale * direction
                with no_grad():
                    y = op(*inputs).data
                x.data = original
                return float((y * cotangent).sum())

            measured = (value(step) - value(-step)) / (2 * step)
            expected = float((claimed[index] * direction).sum())
            scale = max(abs(measured), abs(expected), _noise(value(0), step) / rtol)
            assert abs(measured - expected) <= rtol * scale, (
                f"gradient of input {index} (shape {x.shape}): claimed {expected!r}, measured {measured!r}"
            )


def _directions(shape, rng):
    """Three dense random directions, and up to four single entries."""
    yield from (rng.standard_normal(shape) for _ in range(3))
    size = int(np.prod(shape, dtype=int))
    for entry in rng.choice(size, min(size, 4), replace=False):
        direction = np.zeros(size)
        direction[entry] = 1
        yield direction.reshape(shape)


def _noise(value, step):
    """What rounding alone can do to a central difference of this function."""
    return 64 * np.finfo(np.float64).eps * max(abs(value), 1) / step
