"""The walk back: what it refuses, and data that change between an op and `backward`."""

import numpy as np
import pytest
from device import there

import nn
from nn import Tensor, gradients


def leaf(*values, dtype=np.float64):
    return Tensor(there(np.array(values, dtype)), requires_grad=True)


# ==== what an op or a vjp may not give ====

WRONG = {
    "an array and no tuple": (lambda g: g, TypeError, "must return a tuple .* got ndarray"),
    "two for one": (lambda g: (g, g), TypeError, "one per input, got 2 of them"),
    "none for one": (lambda g: (), TypeError, "got 0 of them"),
    "a number": (lambda g: (1.0,), TypeError, "gave float for the gradient of an input of float32"),
    "a list": (lambda g: ([1.0, 2.0],), TypeError, "gave list"),
    "a Tensor": (lambda g: (Tensor(g),), TypeError, "gave Tensor"),
    "float64": (
        lambda g: (g.astype(np.float64),),
        TypeError,
        "gave float64 .* for the gradient of an input of float32",
    ),
    "integers": (lambda g: (g.astype(int),), TypeError, "gave int64"),
    "too many entries": (lambda g: (g.reshape(2, 1)[:, :, None].repeat(3, 2),), ValueError, r"gave shape \(2, 1, 3\)"),
}


@pytest.mark.parametrize("vjp, error, words", WRONG.values(), ids=WRONG.keys())
def test_a_vjp_that_gives_what_is_no_gradient_is_named(vjp, error, words):
    x = leaf(1.0, 2.0, dtype=np.float32)
    y = nn.node("the op", x.data * 1, (x,), vjp)
    with pytest.raises(error, match=f"the op: the vjp .*{words}"):
        y.sum().backward()
    assert x.grad is None


def test_an_op_whose_result_has_another_dtype_is_named():
    x = leaf(1.0, dtype=np.float32)
    with pytest.raises(TypeError, match="the op: the result is float64, computed from float32"):
        nn.node("the op", x.data.astype(np.float64), (x,), lambda g: (g,))
    with pytest.raises(TypeError, match="the op: the result is float, computed from float32"):
        nn.node("the op", 1.0, (x,), lambda g: (g,))
    with pytest.raises(TypeError, match="floating-point array, got Tensor"):
        nn.node("the op", x, (x,), lambda g: (g,))


def test_an_output_gradient_that_is_a_tensor_is_refused():
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"must be an array \(2,\) of float64, got Tensor"):
        (x * 2).backward(Tensor(x.data))


def test_a_use_that_gives_no_gradient_adds_nothing():
    x = leaf(1.0, 2.0)
    cut = nn.node("cut", x.data, (x,), lambda g: (None,))
    assert gradients((cut * 3 + x).sum(), [x])[0].tolist() == [1, 1]
    assert gradients(nn.node("cut", x.data, (x,), lambda g: (None,)).sum(), [x])[0].tolist() == [0, 0]


# ==== data that change between an op and backward ====


def stepped(w):
    nn.SGD([w], 0.1).step(there(np.ones(w.size)))


def swapped(w):
    average = nn.EMA([w])
    average.average[...] = 5
    average.swap()


class Net(nn.Module):
    def __init__(self, w):
        self.w = w


CHANGES = {
    "an optimiser's step": stepped,
    "a swap with the average": swapped,
    "a load": lambda w: Net(w).load_state_dict({"w": np.zeros(w.shape)}),
    "by hand, told": lambda w: nn.forget_weights([w]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("through", [lambda w: w, lambda w: w.reshape(1, 2)[0]], ids=["itself", "a view"])
def test_a_gradient_that_needs_weights_that_have_changed_is_refused(change, through):
    w = leaf(2.0, 3.0)
    first, second = ((through(w) ** 3).sum() for _ in range(2))
    first.backward()
    assert w.grad.tolist() == [12, 27]
    change(w)
    with pytest.raises(RuntimeError, match="data of an input .* have changed since.*run the forward pass again"):
        second.backward()
    assert w.grad.tolist() == [12, 27]
    w.data[...] = [2, 3]
    w.grad = None
    (through(w) ** 3).sum().backward()
    assert w.grad.tolist() == [12, 27]


def test_a_step_of_one_network_leaves_graphs_of_another_alone():
    one, two = leaf(2.0), leaf(3.0)
    loss = two * two
    (one * one).backward()
    stepped(one)
    loss.backward()
    assert two.grad.tolist() == [6]


def test_a_step_between_forward_and_backward_of_the_next_batch_is_no_error():
    w = leaf(1.0)
    for _ in range(3):
        w.grad = None
        (w * w).backward()
        stepped(w)


def test_a_buffer_of_indices_may_be_used_again_before_backward():
    table, index = leaf(1.0, 2.0, 3.0), np.array([0, 1])
    rows = Tensor(there(np.eye(3)), requires_grad=True)
    several = [table[index], table[[0, 1]], table[(index,)], nn.embedding(rows, index)]
    index[...] = 2
    for y in several[:3]:
        assert gradients(y.sum(), [table])[0].tolist() == [1, 1, 0]
    assert gradients(several[3].sum(), [rows])[0].tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]


def test_a_list_of_indices_may_be_changed_before_backward():
    table, index = leaf(1.0, 2.0, 3.0), [0, 1]
    y = table[index]
    index[0] = 2
    assert gradients(y.sum(), [table])[0].tolist() == [1, 1, 0]
    inner = [[0, 1], [1, 0]]
    y = table[inner]
    inner[0][0] = 2
    assert gradients(y.sum(), [table])[0].tolist() == [2, 2, 0]


def test_a_buffer_of_a_mask_may_be_used_again_before_backward():
    x, mask = leaf(1.0, 2.0), there(np.array([True, False]))
    chosen, picked = nn.where(mask, x, 0), x[mask]
    mask[...] = ~mask
    assert gradients(chosen.sum(), [x])[0].tolist() == [1, 0]
    assert gradients(picked.sum(), [x])[0].tolist() == [1, 0]


def test_a_buffer_of_labels_may_be_used_again_before_backward():
    logits, labels = Tensor(there(np.zeros((1, 2))), requires_grad=True), np.array([0])
    loss = nn.cross_entropy(logits, labels)
    labels[...] = 1
    assert gradients(loss, [logits])[0].tolist() == [[-0.5, 0.5]]


def test_a_buffer_of_inputs_may_be_used_again_where_tensor_has_copied_it():
    w, buffer = leaf(1.0, 2.0), there(np.array([3.0, 4.0]))
    y = nn.tensor(buffer) * w
    buffer[...] = 0
    assert gradients(y.sum(), [w])[0].tolist() == [3, 4]


# ==== what is kept ====


@pytest.mark.parametrize("op", [lambda a, b: a * b, lambda a, b: a / b, lambda a, b: a @ b, nn.mse])
def test_an_operand_that_needs_no_gradient_keeps_nothing_for_one(op):
    """What the closure of the vjp holds: the array that the one gradient needs, and no Tensor."""
    a, b = Tensor(there(np.ones((2, 2))), requires_grad=True), Tensor(there(np.ones((2, 2))))
    kept = [cell.cell_contents for cell in op(a, b).node.vjp.__closure__]
    assert not any(isinstance(value, Tensor) or value is a.data for value in kept)


def test_adding_keeps_nothing():
    a, b = leaf(1.0), leaf(2.0)
    assert (a + b).node.vjp.__closure__ is None and (a - b).node.vjp.__closure__ is None
