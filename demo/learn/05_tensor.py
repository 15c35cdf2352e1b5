# %% [markdown]
"""
# 5. How does a tensor differentiate itself?

A network has a loss and a million weights. To train it we need the slope of the loss along each of them. This lesson
writes the machine that finds all of them in one walk, in sixty lines, and then reads the same machine in `nn`.
"""

# %%
import inspect

import matplotlib.pyplot as plt
import numpy as np
from lesson import show, small

import nn
from nn import bare

# %% [markdown]
# ## An operation remembers
#
# An operation computes its result and remembers two things: its inputs, and its *vjp* (vector-Jacobian product). The vjp
# is one link of the chain rule. Given dL/d(result) it returns dL/d(input) for every input. For y = a b:
#
#     dL/da = dL/dy b,      dL/db = dL/dy a
#
# *Why a function, and not the Jacobian matrix?* For 1000 numbers in and 1000 out, tanh has a Jacobian of a million entries,
# of which a thousand are not 0. The vjp is one product of 1000 numbers.


# %%
class Tensor:
    def __init__(self, data, inputs=(), vjp=None):
        self.data, self.inputs, self.vjp = np.asarray(data, float), inputs, vjp
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


# %% [markdown]
# ## The walk back, at first wrong
#
# Start at L with dL/dL = 1, and hand gradients from each result to its inputs. A value that was used twice moves L in two
# ways, so its gradients are added. This walk adds them, and is wrong all the same:


# %%
def walk_at_once(x):
    for each, gradient in zip(x.inputs, x.vjp(x.grad) if x.vjp else (), strict=True):
        each.grad = each.grad + gradient
        walk_at_once(each)


def slope(walk):
    """dL/dx of L = x^2 + x^3, with y = x^2 used twice, at x = 3."""
    x = Tensor(3.0)
    y = x * x
    L = y + y * x
    L.grad = np.ones(())  # dL/dL
    walk(L)
    return float(x.grad)


print(f"dL/dx should be {2 * 3 + 3 * 9}, and is {slope(walk_at_once):g}")

# %% [markdown]
# y is used twice. After its first use it handed on a part, and after its second that part *again*. So before a Tensor
# hands its gradient on, all of its uses must have added theirs. The cure is an order: each Tensor after its inputs, and
# the walk goes through it from the end.


# %%
def inputs_first(last, order=()):
    """`order`, then every Tensor that `last` was computed from and that is not yet in it, each after its inputs."""
    for x in last.inputs:
        order = order if x in order else inputs_first(x, order)
    return (*order, last)


def walk(last):
    last.grad = np.ones_like(last.data)
    for x in reversed(inputs_first(last)):
        for each, gradient in zip(x.inputs, x.vjp(x.grad) if x.vjp else (), strict=True):
            each.grad = each.grad + gradient


print(f"dL/dx is {slope(walk):g}")
assert slope(walk) == 33 != slope(walk_at_once)

# %% [markdown]
# ## A network learns with it
#
# One hidden layer of 20 tanh units, a loss, and steps against the slope. Nothing else is needed.

# %%
rng, outputs, losses = np.random.default_rng(0), [], []
x = Tensor(np.stack([np.linspace(-1, 1, 64), np.ones(64)], 1))  # the column of ones is the bias
target = np.sin(4 * x.data[:, :1]) * x.data[:, :1]
first, last = rng.normal(size=(2, 20)) * 2, rng.normal(size=(20, 1)) * 0.2
for _ in range(small(3000, 1000)):
    W1, W2 = Tensor(first), Tensor(last)  # new Tensors, so their gradients start from 0
    y = (x @ W1).tanh() @ W2
    error = y + Tensor(-target)
    loss = (error * error).sum() * Tensor(1 / 64)
    walk(loss)
    first, last = first - 0.1 * W1.grad, last - 0.1 * W2.grad
    losses.append(float(loss.data))
    outputs.append(y.data[:, 0])
print(f"mean squared error {losses[0]:.3f}, after {len(losses)} steps {losses[-1]:.5f}")
assert losses[-1] < losses[0] / 20

fig, ax = plt.subplots(figsize=(7, 3.6))
ax.plot(x.data[:, 0], target[:, 0], lw=6, alpha=0.2, label="target")
for step in (0, 30, 300, len(losses) - 1):
    ax.plot(x.data[:, 0], outputs[step], lw=1.5, label=f"step {step}, mean squared error {losses[step]:.4f}")
ax.legend(fontsize=8)
show(fig)

# %% [markdown]
# *Why do other codes call `zero_grad`?* Because gradients are added, also to those of the step before. Here each step makes
# new Tensors. In `nn` a training step asks `nn.gradients` for them, which touches no `.grad`.
#
# ## The same machine in `nn`
#
# `nn/bare.py` is the class above, and `nn` is held to it. The walk of `nn` goes by the time at which each op was made, so it
# needs no recursion. It frees memory on the way back. It refuses a second walk, and float64 beside float32. A wrong vjp trains
# for a while as well as a right one. So ask `nn.gradcheck`: it compares a vjp with differences of the values.

# %%
print(inspect.getsource(nn.walk))
a = bare.Tensor(rng.normal(size=(3, 3)))
(a @ a.tanh() + a * a).sum().backward()
b = nn.Tensor(a.data, requires_grad=True)
loss = (b @ nn.tanh(b) + b * b).sum()
loss.backward()
assert np.allclose(a.grad, b.grad, rtol=1e-12)

try:  # a square whose vjp lacks the factor 2
    nn.gradcheck(lambda x: nn.node("square", x.data**2, (x,), lambda g: (g * x.data,)), b.data)
    raise SystemExit("a wrong gradient was not found")
except AssertionError as error:
    print(str(error).splitlines()[0])

# %% [markdown]
# ## Exercises
#
# Write a function, then `from lesson import check` and ask. (The answers are in `solutions/05.py`.)
#
# 1. `exp(x)`: the exponential of a `bare.Tensor`, a `bare.Tensor` with its vjp. Then `check(5, 1, exp)`.
# 2. `softmax_vjp(y, g)`: dL/dx where y = softmax(x) over the last axis and g = dL/dy. Make no matrix.
#    Then `check(5, 2, softmax_vjp)`.
# 3. `inputs_first(last)`: a list as above, without recursion and without a search through all of it for each Tensor, so that
#    a chain of 5000 ops has an order. Then `check(5, 3, inputs_first)`.
