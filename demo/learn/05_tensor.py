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
    """Hand on what has arrived at x so far."""
    for each, gradient in zip(x.inputs, x.vjp(x.grad) if x.vjp else (), strict=True):
        each.grad = each.grad + gradient
        walk_at_once(each)


def slope(walk):
    """dL/dx of L = y + y x with y = x^2, that is x^2 + x^3, at x = 3."""
    x = Tensor(3.0)
    y = x * x
    L = y + y * x
    L.grad = np.ones(())
    walk(L)
    return float(x.grad)


print(f"dL/dx should be {2 * 3 + 3 * 9}, and is {slope(walk_at_once):g}")
assert slope(walk_at_once) != 33

# %% [markdown]
# y is used twice. After its first use it handed on a part, and after its second that part *again*. So before a Tensor
# hands its gradient on, all of its uses must have added theirs. The cure is an order: each Tensor after its inputs, and
# the walk goes through it from the end.


# %%
def inputs_first(last):
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


def walk(last):
    last.grad = np.ones_like(last.data)
    for x in reversed(inputs_first(last)):
        for each, gradient in zip(x.inputs, x.vjp(x.grad) if x.vjp else (), strict=True):
            each.grad = each.grad + gradient


print(f"dL/dx is {slope(walk):g}")
assert slope(walk) == 33

# %% [markdown]
# ## A network learns with it
#
# One hidden layer of 20 tanh units, a loss, and steps against the slope. Nothing else is needed.

# %%
rng = np.random.default_rng(0)
x = Tensor(np.stack([np.linspace(-1, 1, 64), np.ones(64)], 1))  # the column of ones is the bias
target = np.sin(4 * x.data[:, :1]) * x.data[:, :1]
first, last = rng.normal(size=(2, 20)) * 2, rng.normal(size=(20, 1)) * 0.2

losses, outputs = [], []
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

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.plot(x.data[:, 0], target[:, 0], lw=3, alpha=0.3, label="target")
for step in (0, 30, 300, len(losses) - 1):
    left.plot(x.data[:, 0], outputs[step], lw=1.2, label=f"step {step}")
left.legend(fontsize=8)
right.semilogy(losses)
right.set(xlabel="step", title="mean squared error")
show(fig)

# %% [markdown]
# *Why do other codes call `zero_grad`?* Because gradients are added, also to those of the step before. Here each step makes
# new Tensors. In `nn` a training step asks `nn.gradients` for them, which touches no `.grad`.
#
# ## The same machine in `nn`
#
# `nn/bare.py` is the class above. Everything in the project's networks is checked against it.

# %%
print(inspect.getsource(bare._inputs_first))
a = bare.Tensor(rng.normal(size=(3, 3)))
(a @ a.tanh() + a * a).sum().backward()
b = nn.Tensor(a.data, requires_grad=True)
(b @ nn.tanh(b) + b * b).sum().backward()
assert np.allclose(a.grad, b.grad, rtol=1e-12)

# %% [markdown]
# `nn/tape.py` walks in the same way, by the time at which each op was made, so that no recursion is needed. What it and
# `nn/tensors.py` add is what networks need:

# %%
print(inspect.getsource(nn.walk))

deep, shallow = nn.tensor([1.0], requires_grad=True), bare.Tensor([1.0])
y, z = deep, shallow
for _ in range(5000):  # a graph as deep as a long program
    y, z = y + deep, z + shallow
y.sum().backward()
assert deep.grad == 5001  # no stack to exhaust
try:
    z.sum().backward()
except RecursionError:
    print("5000 additions are too deep for bare.py, and not for tape.py")

bias = nn.tensor(np.zeros(3, np.float32), requires_grad=True)
loss = (nn.tensor(np.ones((4, 3), np.float32)) + bias).sum()  # one row for four: NumPy broadcasts
loss.backward()
assert bias.grad.tolist() == [4, 4, 4] and bias.grad.dtype == np.float32  # summed back, and float32 stays

for mistake in (
    lambda: loss.backward(),  # its memory was freed on the way back
    lambda: bias + np.ones(3),  # float64 beside float32 would double every array from here on
    lambda: nn.tensor(np.ones((2, 3))) @ nn.tensor(np.ones((2, 3))),
):
    try:
        mistake()
        raise SystemExit("this should have been refused")
    except (RuntimeError, TypeError, ValueError) as error:
        print(f"refused: {error}")

# %% [markdown]
# An op of one's own is one function, as above, and `nn.gradcheck` compares its vjp with differences of its values. A wrong
# vjp trains as well as a right one for a while, so ask before you train.


# %%
def cube(x, factor=3):
    a = x.data
    return nn.node("cube", a**3, (x,), lambda g: (factor * g * a**2,))


nn.gradcheck(cube, rng.normal(size=(2, 3)))
try:
    nn.gradcheck(lambda x: cube(x, factor=2), rng.normal(size=(2, 3)))
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
# 3. `inputs_first(last)`: as above, without recursion, so that a chain of 5000 ops has an order.
#    Then `check(5, 3, inputs_first)`.
