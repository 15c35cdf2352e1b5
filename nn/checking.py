"""`gradcheck`: compares the gradient that an op computes with central differences, for a random cotangent.

Next: profiling.py.
"""

import numpy as np

from nn.arrays import DtypesDiffer
from nn.tape import gradients, no_grad
from nn.tensors import Tensor

__all__ = ["gradcheck"]


def gradcheck(op, *arrays, seed=0, step=1e-6, rtol=1e-6):
    """Raise AssertionError, naming the input, where a gradient of `op` is wrong.

    op: a function of Tensors, one for each of `arrays` (float64), returning a Tensor of any shape. The output is
    contracted with a *random* cotangent: under a cotangent of ones a wrong vjp of a norm passes, since the outputs of
    a norm sum to a constant. Each gradient is compared along random directions and along single entries, so the cost
    does not grow with the square of the size.

    A gradient of another dtype or shape than its input's is refused by the walk itself: TypeError or ValueError, naming
    the op. Some errors of dtype show in float32 only, so `op` also runs once in float32. (That run is skipped
    if `op` uses float64 arrays of its own, which cannot meet float32.)
    """
    for index, a in enumerate(arrays):
        if getattr(a, "dtype", None) != np.float64:
            raise TypeError(f"gradcheck needs float64 inputs, input {index} is {getattr(a, 'dtype', type(a).__name__)}")
    rng = np.random.default_rng(seed)
    inputs = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    output = op(*inputs)
    cotangent = output.xp.asarray(rng.standard_normal(output.shape))
    claimed = gradients(output, inputs, cotangent)

    for index, a in enumerate(arrays):
        for direction in _directions(a.shape, rng):
            direction = output.xp.asarray(direction)

            def terms(distance, index=index, a=a, direction=direction):
                moved = [Tensor(b + distance * direction if i == index else b.copy()) for i, b in enumerate(arrays)]
                with no_grad():
                    return op(*moved).data * cotangent

            above, below = terms(step), terms(-step)
            measured = float((above - below).sum()) / (2 * step)
            expected = float((claimed[index] * direction).sum())
            tolerance = max(rtol * max(abs(measured), abs(expected)), _rounding(above, step))
            if not abs(measured - expected) <= tolerance:  # `not <=`, so that NaN is an error too
                raise AssertionError(
                    f"gradient of input {index} (shape {a.shape}): claimed {expected!r}, measured {measured!r}"
                )
    _check_float32(op, arrays, cotangent)


def _directions(shape, rng):
    """Three dense random directions, and up to four single entries."""
    yield from (rng.standard_normal(shape) for _ in range(3))
    size = int(np.prod(shape, dtype=int))
    for entry in rng.choice(size, min(size, 4), replace=False):
        direction = np.zeros(size)
        direction[entry] = 1
        yield direction.reshape(shape)


def _rounding(terms, step):
    """An allowance for rounding in a central difference of a sum of `terms`.

    A term computed in k operations has a relative error of about k eps, of random sign. So the sum has an error of
    about k eps times the terms' Euclidean norm, and the difference that over `step`. 64 leaves room for dozens of
    operations.
    """
    return 64 * np.finfo(np.float64).eps * max(float((terms * terms).sum()) ** 0.5, 1) / step


def _check_float32(op, arrays, cotangent):
    inputs = [Tensor(a.astype(np.float32), requires_grad=True) for a in arrays]
    try:
        output = op(*inputs)
    except DtypesDiffer:  # the op holds float64 arrays of its own, which cannot meet these
        return
    gradients(output, inputs, cotangent.astype(output.dtype))
