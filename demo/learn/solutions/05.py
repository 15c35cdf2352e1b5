"""The exercises of lesson 5: for each a check, an answer, and the mistake most often made."""

import numpy as np

from nn.bare import Tensor

X, G = np.random.default_rng(1).standard_normal((2, 3, 4))


# ---- 1: an op ----


def check_1(exp):
    x = Tensor(X)
    y = exp(x)
    assert np.allclose(y.data, np.exp(X)), "the values are not those of np.exp"
    (y * Tensor(G)).sum().backward()
    assert np.allclose(x.grad, G * np.exp(X)), "the slope is exp(x) *times* the gradient that arrives"


def answer_1(x):
    y = np.exp(x.data)
    return Tensor(y, (x,), lambda g: (g * y,))


def mistake_1(x):
    y = np.exp(x.data)
    return Tensor(y, (x,), lambda g: (y,))  # right only if dL/dy is 1


# ---- 2: a vjp without a Jacobian ----


def check_2(softmax_vjp):
    y = np.exp(X) / np.exp(X).sum(-1, keepdims=True)
    jacobians = np.stack([np.diag(row) - np.outer(row, row) for row in y])
    expected = (G[:, None, :] @ jacobians)[:, 0]
    found = softmax_vjp(y, G)
    assert np.allclose(found, expected), "every y depends on every x of its row: is there a sum in your vjp?"


def answer_2(y, g):
    return y * (g - (g * y).sum(-1, keepdims=True))


def mistake_2(y, g):
    return g * y * (1 - y)  # the diagonal alone, which is the sigmoid's


# ---- 3: an order, without recursion ----


def check_3(inputs_first):
    x = Tensor(1.0)
    y = x * x
    chain = y + y * x
    for _ in range(5000):
        chain = chain + y
    try:
        order = inputs_first(chain)
    except RecursionError:
        raise AssertionError("5000 ops are too deep for recursion: keep a list of what is to be visited") from None
    place = {tensor: i for i, tensor in enumerate(order)}
    assert order[-1] is chain and len(place) == len(order), "each Tensor once, the last one last"
    assert all(place[i] < place[tensor] for tensor in order for i in tensor.inputs), (
        "an input after what was made of it"
    )


def answer_3(last):
    order, seen, todo = [], set(), [(last, False)]
    while todo:
        x, inputs_done = todo.pop()
        if inputs_done:
            order.append(x)
        elif x not in seen:
            seen.add(x)
            todo.append((x, True))
            todo.extend((each, False) for each in x.inputs)
    return order


def mistake_3(last):
    order, seen, todo = [], set(), [last]
    while todo:  # a list of all of them, with y before or after its uses as it comes
        x = todo.pop()
        if x not in seen:
            seen.add(x)
            order.append(x)
            todo.extend(x.inputs)
    return order[::-1]
