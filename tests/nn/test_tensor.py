"""The engine: what is recorded, how gradients flow through any graph, what is released, what is refused."""

import operator
import sys
import threading
import weakref

import device
import numpy as np
import pytest
from device import there
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nn
from nn import Tensor, gradients, no_grad, tape, to_numpy


def leaf(*values, dtype=np.float64):
    return Tensor(there(np.array(values, dtype)), requires_grad=True)


# ==== graphs ====


def test_a_tensor_used_twice_gets_both_gradients():
    x = leaf(3.0)
    (x * x + x).backward()
    assert x.grad.tolist() == [7]


def test_a_shared_expression_is_walked_once():
    x, seen = leaf(1.0), []

    def vjp(g):
        seen.append(g.tolist())
        return (g,)

    shared = nn.node("same", x.data, (x,), vjp)
    (shared * 2 + shared * 3 + shared).backward()
    assert seen == [[6]]
    assert x.grad.tolist() == [6]


def test_sixty_diamonds_in_a_row_take_sixty_steps_and_not_two_to_the_sixty():
    x = y = leaf(1.0)
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad.tolist() == [2.0**60]


OPERATORS = st.sampled_from([operator.add, operator.sub, operator.mul])


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), OPERATORS), min_size=1, max_size=12))
def test_gradients_of_any_graph_are_those_of_central_differences(steps):
    def graph(*inputs):
        nodes = list(inputs)
        for i, j, op in steps:
            nodes.append(nn.tanh(op(nodes[i % len(nodes)], nodes[j % len(nodes)])))
        return nodes[-1]

    nn.gradcheck(graph, *there(np.random.default_rng(0).standard_normal((3, 2))))


def test_ten_thousand_nodes_deep_without_recursion():
    assert sys.getrecursionlimit() < 10_000
    x = y = leaf(1.0)
    for _ in range(10_000):
        y = y * 1.0 + 0.5
    y.backward()
    assert x.grad.tolist() == [1]


def test_a_deep_graph_that_is_never_walked_can_be_dropped():
    y = leaf(1.0)
    for _ in range(100_000):
        y = -y
    last = weakref.ref(y.data)
    del y
    assert last() is None


@given(hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3, 4), max_dims=3))
def test_a_gradient_is_summed_over_exactly_the_axes_that_were_broadcast(drawn):
    (shape,), full = drawn.input_shapes, drawn.result_shape
    x = Tensor(there(np.zeros(shape)), requires_grad=True)
    g = np.random.default_rng(0).standard_normal(full)
    source = np.broadcast_to(np.arange(x.size).reshape(shape), full)  # which entry of x each entry came from
    expected = np.bincount(source.reshape(-1), g.reshape(-1), minlength=x.size).reshape(shape)
    (found,) = gradients(x + there(np.zeros(full)), [x], there(g))
    assert found.shape == shape
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


# ==== backward and gradients ====


def test_backward_adds_to_grad_until_it_is_set_to_none():
    x = leaf(2.0)
    (x * 3).backward()
    (x * 4).backward()
    assert x.grad.tolist() == [7]
    x.grad = None
    (x * 4).backward()
    assert x.grad.tolist() == [4]


def test_grad_belongs_to_its_leaf_alone():
    x, y, g = leaf(1.0, 2.0), leaf(3.0, 4.0), there(np.ones(2))
    (x + y).backward(g)
    x.grad *= 5  # neither y's gradient nor the caller's array
    assert (y.grad.tolist(), g.tolist()) == ([1, 1], [1, 1])
    z = leaf(1.0, 2.0)
    z.sum().backward()
    z.grad *= 2  # not a read-only broadcast view
    assert z.grad.tolist() == [2, 2]


def test_an_array_handed_to_two_parents_is_not_added_to():
    """+ hands one array to both parents; what x gets on top of it must not reach y."""
    x, y, g = leaf(1.0), leaf(1.0), there(np.ones(1))
    first = x + y
    found = gradients(first + x + x, [x, y], g)
    assert [f.tolist() for f in found] == [[3], [1]]
    assert g.tolist() == [1]


def test_a_second_walk_of_a_graph_is_refused():
    x = leaf(1.0)
    y = x * 2
    z, other = y * 3, y * 4
    z.backward()
    for again in (z, other):
        with pytest.raises(RuntimeError, match="released; run the forward pass again"):
            again.backward()
    assert x.grad.tolist() == [6]


def test_gradients_of_a_leaf_that_is_not_used_are_zeros_and_grad_is_not_touched():
    x, unused = leaf(1.0), leaf(1.0, 2.0, dtype=np.float32)
    found = gradients(x * 2, [unused, x])
    assert [f.tolist() for f in found] == [[0, 0], [2]]
    assert found[0].dtype == np.float32
    assert x.grad is None


def test_what_gradients_cannot_answer_is_refused():
    x = leaf(1.0, 2.0)
    inner = x * 2
    with pytest.raises(ValueError, match="input 1 is not a leaf"):
        gradients((inner * 3).sum(), [x, inner])
    with pytest.raises(ValueError, match="input 0 is not a leaf with requires_grad"):
        gradients(x.sum(), [x.detach()])
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        (x.detach() * 2).sum().backward()


def test_the_gradient_of_the_output_is_checked():
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=r"not a scalar .*\(2,\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"\(2,\) of float64, got shape \(3,\)"):
        (x * 2).backward(there(np.ones(3)))
    with pytest.raises(ValueError, match="of float64, got .*float32"):
        (x * 2).backward(there(np.ones(2, np.float32)))
    with pytest.raises(ValueError, match="got 1.0"):
        (x * 2).backward(1.0)


def wrong_op(x):
    return nn.node("wrong_op", x.data.reshape(3, 2), (x,), lambda g: (g,))


def test_a_vjp_of_the_wrong_shape_is_named():
    x = Tensor(there(np.ones((2, 3))), requires_grad=True)
    with pytest.raises(ValueError, match=r"wrong_op: the vjp gave shape \(3, 2\) for .* \(2, 3\)"):
        wrong_op(x).sum().backward()


# ==== what is recorded, and for how long ====


def test_no_grad_keeps_nothing():
    x = leaf(1.0, 2.0)
    inner = nn.exp(x)
    alive = weakref.ref(inner.data)
    with no_grad():
        y = inner * inner
    assert not y.requires_grad
    del inner
    assert alive() is None
    assert nn.exp(x).requires_grad


def test_no_grad_ends_with_its_block_even_by_an_exception():
    with pytest.raises(ZeroDivisionError), no_grad(), no_grad():
        raise ZeroDivisionError
    assert tape.grad_enabled()


def test_no_grad_holds_in_its_own_thread_only():
    seen = []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(tape.grad_enabled()))
        thread.start()
        thread.join()
        assert not tape.grad_enabled()
    assert seen == [True]


def test_what_needs_no_gradient_is_not_recorded():
    x = Tensor(there(np.ones(2)))
    alive, y = weakref.ref(x.data), x * x
    assert not y.requires_grad
    del x
    assert alive() is None


def test_the_walk_frees_as_it_goes():
    x = leaf(1.0, 2.0)
    inner = nn.exp(x)
    alive = weakref.ref(inner.data)
    output = nn.exp(inner).sum()
    del inner
    assert alive() is not None  # exp keeps its output for the way back
    output.backward()
    assert alive() is None  # though the output is still here


def test_hooks_are_told_every_op_by_name_in_both_directions():
    seen = []
    tape.op_hooks.append(lambda event, name, array: seen.append((event, name)))
    try:
        (nn.silu(leaf(1.0)) + 1).backward()
    finally:
        tape.op_hooks.pop()
    assert seen == [("forward", "silu"), ("forward", "add"), ("backward", "add"), ("backward", "silu")]


# ==== numbers, arrays, dtypes ====

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv]


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("number", [2, 2.5, True, np.float64(2.5)], ids=lambda n: type(n).__name__)
def test_a_python_number_takes_the_dtype_of_what_it_meets(xp, op, dtype, number):
    x = Tensor(xp.asarray([1.0, 3.0], dtype=dtype))
    a = np.array([1.0, 3.0])
    for found, expected in ((op(x, number), op(a, number)), (op(number, x), op(number, a))):
        assert found.dtype == dtype
        np.testing.assert_allclose(to_numpy(found.data), expected, rtol=np.finfo(dtype).eps)


@pytest.mark.parametrize("op", [*BINARY, operator.matmul], ids=lambda op: op.__name__)
def test_an_array_may_stand_on_either_side(xp, op):
    a = xp.asarray([[1.0, 2.0], [4.0, 5.0]])
    x = Tensor(a * a + 1, requires_grad=True)
    for left, right in ((a, x), (x, a)):
        found = op(left, right)
        assert isinstance(found, Tensor)
        data = [side.data if isinstance(side, Tensor) else side for side in (left, right)]
        np.testing.assert_array_equal(to_numpy(found.data), to_numpy(op(*data)))
        assert gradients(found.sum(), [x])[0].shape == (2, 2)


@pytest.mark.parametrize("op", [*BINARY, operator.matmul], ids=lambda op: op.__name__)
def test_dtypes_do_not_mix(op):
    single, double = there(np.ones((2, 2), np.float32)), there(np.ones((2, 2)))
    x, y = Tensor(single), Tensor(double)
    for left, right in ((x, y), (x, double), (double, x)):
        with pytest.raises(TypeError, match="dtypes differ: float.* and float.*astype"):
            op(left, right)


def test_a_numpy_exponent_leaves_float32_alone():
    x = leaf(2.0, dtype=np.float32)
    assert (x ** np.float64(3)).dtype == np.float32
    assert (x ** np.float64(3)).data.tolist() == [8]


def test_astype_converts_forward_and_the_gradient_back():
    x = leaf(1.0, 2.0, dtype=np.float32)
    y = x.astype(np.float64)
    assert y.dtype == np.float64
    (found,) = gradients(y * 3, [x], there(np.ones(2)))
    assert (found.dtype, found.tolist()) == (np.float32, [3, 3])


def test_a_tensor_holds_floating_point_arrays_only():
    for wrong in (there(np.arange(3)), there(np.ones(2, bool)), np.ones(2, complex), [1.0], 1.0):
        with pytest.raises(TypeError, match="floating-point array, got"):
            Tensor(wrong)


@pytest.mark.cpu
def test_tensor_makes_float32_of_lists_and_keeps_the_dtype_of_arrays():
    assert nn.tensor([1, 2]).dtype == nn.tensor(3).dtype == np.float32
    assert nn.tensor(np.ones(2)).dtype == np.float64
    assert nn.tensor(np.arange(2), dtype=np.float32).data.tolist() == [0, 1]
    assert nn.tensor([1.0], requires_grad=True, dtype=np.float64).requires_grad


def test_numpy_functions_refuse_a_tensor():
    """np.exp(x) would otherwise work entry by entry and lose the graph."""
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(leaf(1.0))


def test_what_a_tensor_says_of_itself():
    x = leaf(1.0, 2.0)
    assert (x.shape, x.ndim, x.size, len(x), x.dtype, x.xp) == ((2,), 1, 2, 2, np.float64, device.xp)
    assert repr(x) == f"Tensor({x.data}, requires_grad=True)"
    assert [row.item() for row in x] == [1, 2]
    assert x.detach().data is x.data
    assert not x.detach().requires_grad
