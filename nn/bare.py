"""Reverse-mode differentiation in its barest form: read this first. Nothing else in `nn` uses it.

An op computes its result and remembers two things: its inputs, and its *vjp* (vector-Jacobian product). The vjp is one
link of the chain rule: given dL/d(result), for some number L computed later, it returns dL/d(input) for each input.
`backward` starts at L with dL/dL = 1 and follows the links to every input of every op.

Gradients are added, because an input may be used more than once. Move x by a little: each use moves L by its own part,
and L moves by the sum of the parts. So before a Tensor hands its gradient on, all of its uses must have added theirs:
the walk visits a Tensor only after everything that was computed from it.

The engine of the networks is the same walk (tape.py) over the same Tensors (tensors.py). It also broadcasts, keeps
float32 float32, runs on a GPU, refuses what does not fit, and frees memory as it goes. The tests hold it to this file.
Next: backend.py.
"""

import numpy as np

__all__ = ["Tensor"]


class Tensor:
    """An array of float64, and how it was computed. grad: dL/d(data) once `backward` has reached it."""

    def __init__(self, data, inputs=(), vjp=lambda g: ()):
        self.data, self.inputs, self.vjp = np.asarray(data, np.float64), inputs, vjp
        self.grad = np.zeros_like(self.data)

    def __add__(self, other):
        return Tensor(self.data + other.data, (self, other), lambda g: (g, g))

    def __mul__(self, other):
        return Tensor(self.data * other.data, (self, other), lambda g: (g * other.data, g * self.data))

    def __matmul__(self, other):
        return Tensor(self.data @ other.data, (self, other), lambda g: (g @ other.data.T, self.data.T @ g))

    def tanh(self):
        y = np.tanh(self.data)
        return Tensor(y, (self,), lambda g: (g * (1 - y * y),))

    def sum(self):
        return Tensor(self.data.sum(), (self,), lambda g: (np.full(self.data.shape, g),))

    def backward(self):
        """Add dL/dx to the `grad` of every x that this Tensor, the number L, was computed from."""
        self.grad = np.ones_like(self.data)
        for x in reversed(_inputs_first(self)):
            for each, gradient in zip(x.inputs, x.vjp(x.grad), strict=True):
                each.grad = each.grad + gradient


def _inputs_first(last):
    """Every Tensor that `last` was computed from, and `last`, each after its inputs."""
    order, seen = [], set()

    def visit(x):
        if x not in seen:
            seen.add(x)
            for each in x.inputs:
                visit(each)
            order.append(x)

    visit(last)
    return order
