"""Every op of op_table.py: its value, its gradient, its dtypes, what it keeps. And what ops refuse."""

import gc
import inspect

import numpy as np
import pytest
from device import there
from hypothesis import given, settings
from hypothesis import strategies as st
from op_table import FUNCTIONS, METHODS, OPS

import nn
from nn import Tensor, to_numpy

NOT_OPS = {"__init__", "__repr__", "__len__", "__reduce__", "item", "detach", "backward", "operand"}

every_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())


def drawn_inputs(data, op, dtype=np.float64):
    arrays, keywords = data.draw(op.inputs)
    move = lambda a: there(a) if isinstance(a, np.ndarray) else a  # noqa: E731
    return [move(a.astype(dtype)) for a in arrays], {name: move(value) for name, value in keywords.items()}


def test_every_op_is_in_the_table():
    modules = {nn.ops, nn.norm, nn.conv, nn.resampling}
    public = {name for module in modules for name in module.__all__} - {
        "conv2d_im2col",
        "conv2d_winograd",
        "conv2d_loops",
    }
    methods = {name for name, value in vars(Tensor).items() if inspect.isfunction(value)}
    assert public == FUNCTIONS.keys()
    assert methods - NOT_OPS == METHODS.keys()


@every_op
@settings(max_examples=25)
@given(data=st.data())
def test_the_value_is_what_numpy_says(op, data):
    arrays, keywords = data.draw(op.inputs)
    expected = op.reference(*arrays, **keywords)
    moved = {name: there(value) if isinstance(value, np.ndarray) else value for name, value in keywords.items()}
    found = op.call(*(Tensor(there(a)) for a in arrays), **moved)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(to_numpy(found.data), expected, rtol=1e-12, atol=1e-12)


@every_op
@settings(max_examples=30)
@given(data=st.data())
def test_the_gradient_is_that_of_central_differences(op, data):
    arrays, keywords = drawn_inputs(data, op)
    seed = data.draw(st.integers(0, 2**32 - 1))
    nn.gradcheck(lambda *tensors: op.call(*tensors, **keywords), *arrays, seed=seed)


@every_op
@settings(max_examples=10)
@given(data=st.data())
def test_float32_stays_float32_forward_and_backward(op, xp, data):
    arrays, keywords = drawn_inputs(data, op, np.float32)
    inputs = [Tensor(a, requires_grad=True) for a in arrays]
    output = op.call(*inputs, **keywords)
    assert output.dtype == np.float32
    cotangent = xp.asarray(np.random.default_rng(0).standard_normal(output.shape), dtype=np.float32)
    for x, gradient in zip(inputs, nn.gradients(output, inputs, cotangent), strict=True):
        assert gradient.dtype == np.float32
        assert gradient.shape == x.shape


@every_op
@settings(max_examples=5)
@given(data=st.data())
def test_mixed_dtypes_are_refused(op, data):
    arrays, keywords = drawn_inputs(data, op)
    for index in range(len(arrays) if len(arrays) > 1 else 0):
        mixed = [Tensor(a.astype(np.float32) if i == index else a) for i, a in enumerate(arrays)]
        with pytest.raises(TypeError, match="dtypes differ: .*float"):
            op.call(*mixed, **keywords)


@every_op
@settings(max_examples=3)
@given(data=st.data())
def test_no_op_makes_a_reference_cycle(op, data):
    arrays, keywords = drawn_inputs(data, op)
    gc.disable()
    gc.freeze()  # look at new objects alone
    try:
        inputs = [Tensor(a, requires_grad=True) for a in arrays]
        output = op.call(*inputs, **keywords)
        del output  # never walked: all that the closures keep must go by counting references alone
        output = op.call(*inputs, **keywords)
        nn.gradients(output, inputs, output.xp.ones_like(output.data))
        del output, inputs
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()


# ==== what an op refuses ====


def zeros(*shape, dtype=np.float32):
    return Tensor(there(np.zeros(shape, dtype)))


x, images, row = zeros(2, 3), zeros(1, 4, 6, 2), zeros(2)
labels = np.array([0, 1])

REFUSED = {
    "add": (lambda: x + zeros(2), ValueError, "broadcast"),
    "add: integers": (lambda: x + np.arange(3), TypeError, "floating-point array, got int64"),
    "add: a list": (lambda: x + [1, 2, 3], TypeError, "cannot use list"),
    "pow: an array": (lambda: x ** np.ones(3), TypeError, "must be a Python number, got ndarray"),
    "matmul: one axis": (lambda: x @ zeros(3), ValueError, r"matmul needs .*, got \(2, 3\) @ \(3,\)"),
    "matmul: inner sizes": (lambda: x @ x, ValueError, r"matmul needs .*, got \(2, 3\) @ \(2, 3\)"),
    "sum": (lambda: x.sum(axis=2), ValueError, "axis 2 is out of bounds"),
    "mean": (lambda: x.mean(axis=-3), ValueError, "axis -3 is out of bounds"),
    "max": (lambda: x.max(axis=2), ValueError, "axis 2 is out of bounds"),
    "reshape": (lambda: x.reshape(4, 2), ValueError, "cannot reshape"),
    "transpose": (lambda: x.transpose(0, 2), ValueError, "axis 2 is out of bounds"),
    "transpose: too few": (lambda: x.transpose(0), ValueError, "axes don't match"),
    "index": (lambda: x[2], IndexError, "out of bounds"),
    "astype": (lambda: x.astype(int), TypeError, "floating-point array, got int64"),
    "clip": (lambda: nn.clip(x, 1, 0), ValueError, "low <= high, got 1 and 0"),
    "where: not a mask": (lambda: nn.where(x, x, x), TypeError, "boolean array, got float32"),
    "where: a list": (lambda: nn.where([True], x, x), TypeError, "boolean array, got list"),
    "where: shapes": (lambda: nn.where(there(np.ones(4, bool)), x, x), ValueError, "broadcast"),
    "where: no Tensor": (lambda: nn.where(np.ones(4, bool), 1, 2), TypeError, "a Tensor .* got int and int"),
    "concatenate": (lambda: nn.concatenate([x, zeros(3, 3)], axis=1), ValueError, "match"),
    "concatenate: nothing": (lambda: nn.concatenate([]), TypeError, "at least one"),
    "pad": (lambda: nn.pad(x, [(1, 1)]), ValueError, "2 axes, 1 pairs"),
    "pad: negative": (lambda: nn.pad(x, [(1, 1), (-1, 0)]), ValueError, "negative"),
    "softmax": (lambda: nn.softmax(x, 2), ValueError, "axis 2 is out of bounds"),
    "log_softmax": (lambda: nn.log_softmax(x, 2), ValueError, "axis 2 is out of bounds"),
    "embedding: a float": (lambda: nn.embedding(x, np.ones(2)), TypeError, "integers, got float64"),
    "embedding: a list": (lambda: nn.embedding(x, [0]), TypeError, "integers, got list"),
    "embedding: too large": (lambda: nn.embedding(x, np.array([0, 2])), IndexError, r"0\.\.1, got 0\.\.2"),
    "embedding: negative": (lambda: nn.embedding(x, np.array([-1])), IndexError, r"got -1\.\.-1"),
    "dropout: all": (lambda: nn.dropout(x, 1.0), ValueError, r"rate must be in \[0, 1\), got 1"),
    "dropout: negative": (lambda: nn.dropout(x, -0.1), ValueError, r"rate must be in \[0, 1\), got -0.1"),
    "dropout: no state": (lambda: nn.dropout(x, 0.5), RuntimeError, "random_state"),
    "attention: widths": (lambda: nn.attention(x, zeros(2, 4), x), ValueError, r"got .* \(2, 4\), \(2, 3\)"),
    "attention: lengths": (lambda: nn.attention(x, x, zeros(3, 3)), ValueError, r"got .* \(3, 3\)"),
    "mse": (lambda: nn.mse(x, zeros(3)), ValueError, r"got \(2, 3\) and \(3,\)"),
    "cross_entropy: logits": (lambda: nn.cross_entropy(zeros(2), labels), ValueError, r"\(N, K\)"),
    "cross_entropy: labels": (lambda: nn.cross_entropy(x, labels[:1]), ValueError, r"\(2, 3\) and \(1,\)"),
    "cross_entropy: floats": (lambda: nn.cross_entropy(x, np.ones(2)), TypeError, "integers, got float64"),
    "cross_entropy: too large": (lambda: nn.cross_entropy(x, labels + 2), IndexError, r"0\.\.2, got 2\.\.3"),
    "cross_entropy: negative": (lambda: nn.cross_entropy(x, labels - 1), IndexError, r"0\.\.2, got -1\.\.0"),
    "group_norm": (lambda: nn.group_norm(images, row, row, 3), ValueError, "do not divide into 3 groups"),
    "group_norm: no group": (lambda: nn.group_norm(images, row, row, 0), ValueError, "into 0 groups"),
    "group_norm: weight": (lambda: nn.group_norm(images, zeros(3), row, 1), ValueError, r"\(2,\) .*\(3,\)"),
    "group_norm_silu": (lambda: nn.group_norm_silu(images, row, row, 3), ValueError, "into 3 groups"),
    "layer_norm": (lambda: nn.layer_norm(images, row, zeros(1)), ValueError, r"must be \(2,\) .*\(1,\)"),
}


@pytest.mark.parametrize("call, error, words", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_with_a_reason(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_every_op_that_joins_or_shapes_has_a_refusal():
    elementwise = {"exp", "log", "sqrt", "tanh", "sigmoid", "silu", "relu", "softplus"}
    tested_in_conv = {"conv2d", "upsample_nearest", "average_pool"}
    refused = {name.split(":")[0] for name in REFUSED} & FUNCTIONS.keys()
    assert refused == FUNCTIONS.keys() - elementwise - tested_in_conv


# ==== far from zero ====


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturating_ops_are_finite_and_right_at_a_thousand(xp, dtype):
    far = xp.asarray([-1e3, 1e3], dtype=dtype)
    expected = {
        nn.sigmoid: [0, 1],
        nn.softplus: [0, 1e3],
        nn.silu: [0, 1e3],
        nn.tanh: [-1, 1],
        nn.softmax: [0, 1],
        nn.log_softmax: [-2e3, 0],
    }
    slopes = {
        nn.sigmoid: [0, 0],
        nn.softplus: [0, 1],
        nn.silu: [0, 1],
        nn.tanh: [0, 0],
        nn.softmax: [0, 0],
        nn.log_softmax: [1, -1],
    }
    with np.errstate(all="raise", under="ignore"):
        for op in expected:
            z = Tensor(far, requires_grad=True)
            y = op(z)
            assert to_numpy(y.data).tolist() == expected[op], op
            cotangent = xp.asarray([1, 0] if op is nn.log_softmax else [1, 1], dtype=dtype)
            assert to_numpy(nn.gradients(y, [z], cotangent)[0]).tolist() == slopes[op], op


def test_cross_entropy_of_a_hopeless_logit_is_finite(xp):
    logits = Tensor(xp.asarray([[-1e3, 1e3]], dtype=np.float32), requires_grad=True)
    loss = nn.cross_entropy(logits, np.array([0]))
    assert loss.item() == 2000
    assert to_numpy(nn.gradients(loss, [logits])[0]).tolist() == [[-1, 1]]


# ==== choices an op makes ====


def test_relu_has_slope_zero_at_zero_and_clip_slope_one_at_its_ends():
    z = Tensor(there([-1.0, 0.0, 1.0]), requires_grad=True)
    assert nn.gradients(nn.relu(z).sum(), [z])[0].tolist() == [0, 0, 1]
    assert nn.gradients(nn.clip(z, -1, 0).sum(), [z])[0].tolist() == [1, 1, 0]


def test_equal_maxima_share_the_gradient():
    z = Tensor(there([[1.0, 2.0, 2.0], [3.0, 0.0, 0.0]]), requires_grad=True)
    assert nn.gradients(z.max(axis=1).sum(), [z])[0].tolist() == [[0, 0.5, 0.5], [1, 0, 0]]


def test_where_takes_a_number_on_either_side():
    z = Tensor(there([1.0, 2.0]), requires_grad=True)
    mask = there([True, False])
    assert nn.where(mask, z, 7).data.tolist() == [1, 7]
    assert nn.where(mask, 7, z).data.tolist() == [7, 2]
    assert nn.gradients(nn.where(mask, 7, z).sum(), [z])[0].tolist() == [0, 1]


def test_bounds_of_numpy_type_leave_float32_alone():
    assert nn.clip(x, np.float64(0), np.float64(1)).dtype == np.float32


def test_dropout_keeps_the_mean_and_drops_the_rate():
    ones = Tensor(there(np.ones((100, 1000), np.float32)))
    with nn.random_state(1, 2, range(100)):
        y, again = nn.dropout(ones, 0.25), nn.dropout(ones, 0.25)
    y, again = to_numpy(y.data), to_numpy(again.data)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 6 * np.sqrt(0.25 * 0.75 / 1e5)
    assert (y != again).any(), "two layers of one network drew the same numbers"


# ==== gradcheck itself ====


def scaled(factor):
    """x * w with a gradient for w that is wrong by `factor`."""
    return lambda x, w: nn.node("scaled", x.data * w.data, (x, w), lambda g: (g * w.data, factor * g * x.data))


def test_gradcheck_sees_two_parts_in_a_million_and_names_the_input():
    a, b = there(np.random.default_rng(0).standard_normal((2, 5, 3)))
    nn.gradcheck(scaled(1), a, b)
    with pytest.raises(AssertionError, match="gradient of input 1"):
        nn.gradcheck(scaled(1 + 2e-6), a, b)


def test_gradcheck_sees_a_norm_whose_gradient_is_wrong_in_a_way_that_sums_to_zero():
    """Under a cotangent of ones a norm's outputs sum to a constant: any multiple of its gradient passes."""

    def wrong(z):
        y = nn.layer_norm(z, Tensor(there(np.ones(4))), Tensor(there(np.zeros(4))))
        return nn.node("wrong", y.data, (z,), lambda g: (1.001 * nn.gradients(y, [z], g)[0],))

    with pytest.raises(AssertionError, match="gradient of input 0"):
        nn.gradcheck(wrong, there(np.random.default_rng(0).standard_normal((3, 4))))


def test_gradcheck_refuses_float32():
    with pytest.raises(TypeError, match="input 1 is float32"):
        nn.gradcheck(lambda a, b: a, np.ones(2), np.ones(2, np.float32))
