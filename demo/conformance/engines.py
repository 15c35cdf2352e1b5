"""`nn.gradcheck` and the properties of an op on other engines that teach: mygrad and autograd.

    pip install mygrad autograd
    python demo/conformance/engines.py

To check an op of your own engine, write a function as `mygrad_op` is one: it makes an op of nn from a function that
returns a value and from what takes a gradient back.
"""

import sys

import numpy as np

import nn

__all__ = ["ENGINES", "OPS", "problems", "mygrad_op", "autograd_op"]


def mygrad_op(function):
    """function, on mygrad's tensors, as an op of nn."""
    import mygrad

    def op(*inputs):
        theirs = [mygrad.tensor(x.data.copy()) for x in inputs]
        y = function(mygrad, *theirs)

        def back(g):
            y.backward(g)
            return tuple(np.asarray(x.grad) for x in theirs)

        return nn.node("mygrad", np.array(y.data), inputs, back)

    return op


def autograd_op(function):
    """function, on arrays that autograd traces, as an op of nn."""
    import autograd
    import autograd.numpy

    def op(*inputs):
        arrays = tuple(x.data for x in inputs)
        back, y = autograd.make_vjp(lambda given: function(autograd.numpy, *given))(arrays)
        return nn.node("autograd", np.array(y), inputs, lambda g: tuple(back(g)))

    return op


ENGINES = {"mygrad": mygrad_op, "autograd": autograd_op}
OPS = {  # a function of (NumPy or what stands for it, *arrays), and the shapes of its inputs
    "add": (lambda xp, a, b: a + b, [(3, 1), (2,)]),
    "multiply": (lambda xp, a, b: a * b, [(3, 1), (2,)]),
    "divide": (lambda xp, a, b: a / (1 + b * b), [(2, 3), (3,)]),
    "exp": (lambda xp, a: xp.exp(a), [(2, 3)]),
    "tanh": (lambda xp, a: xp.tanh(a), [(2, 3)]),
    "matmul": (lambda xp, a, b: xp.matmul(a, b), [(2, 3), (3, 4)]),
    "sum": (lambda xp, a: xp.sum(a, axis=1), [(2, 3)]),
    "mean": (lambda xp, a: xp.mean(a, axis=0), [(2, 3)]),
    "square root": (lambda xp, a: xp.sqrt(1 + a * a), [(2, 3)]),
    "maximum": (lambda xp, a, b: xp.maximum(a, b), [(2, 3), (2, 3)]),
    "reshape": (lambda xp, a: xp.reshape(a, (3, 2)), [(2, 3)]),
    "used twice": (lambda xp, a: a * xp.exp(a) + a, [(2, 3)]),
}


def problems(make, function, shapes, seed=0):
    """What is wrong with an op, in words: its value, gradient and dtypes, on drawn, transposed and empty arrays."""
    op, rng, found = make(function), np.random.default_rng(seed), []
    drawn = [rng.standard_normal(shape) for shape in shapes]
    layouts = {"": drawn, "transposed: ": [a.T.copy().T for a in drawn]}
    layouts["empty: "] = [np.zeros((0, *shape[1:])) if len(shape) == 2 else np.zeros(shape) for shape in shapes]
    for name, arrays in layouts.items():
        try:
            with np.errstate(invalid="ignore"):
                expected = function(np, *arrays)
        except ValueError:  # such shapes do not fit this op
            continue
        if not np.isfinite(expected).all():  # the mean of nothing
            continue
        try:
            value = op(*map(nn.Tensor, arrays)).data
            if value.shape != expected.shape or not np.allclose(value, expected, rtol=1e-12):
                found.append(f"{name}value {value.tolist()}, expected {expected.tolist()}")
            nn.gradcheck(op, *arrays)
        except Exception as error:
            found.append(f"{name}{type(error).__name__}: {error}")
    return found


def main():
    for name, make in ENGINES.items():
        try:
            __import__(name)
        except ImportError as error:
            print(f"{name}: not checked, {error}", file=sys.stderr)
            continue
        for op, (function, shapes) in OPS.items():
            print(f"{name} {op}: {'; '.join(problems(make, function, shapes)) or 'holds'}")


if __name__ == "__main__":
    main()
