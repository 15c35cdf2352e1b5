"""Every op of op_table.py: its value, its gradient, its dtypes, what it keeps. And what ops refuse."""

import gc
import inspect

import numpy as np
import pytest
from device import there
from hypothesis import given, settings
from hypothesis import strategies as st
from op_table import OPS

import nn
from nn import Tensor, to_numpy

every_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())


def drawn_inputs(data, op, dtype=np.float64):
    arrays, keywords = data.draw(op.inputs)
    keywords = {name: there(value) if isinstance(value, np.ndarray) else value for name, value in keywords.items()}
    return [there(np.asarray(a, dtype)) for a in arrays], keywords


def test_every_op_has_a_line_in_the_table():
    """A new op is right without one, and tested with one: so this skips and does not fail."""
    ways_of_conv2d = {"conv2d_im2col", "conv2d_winograd", "conv2d_loops"}
    functions = {name for module in (nn.ops, nn.norm, nn.conv, nn.resampling, nn.products) for name in module.__all__}
    source = inspect.getsource(nn.tensors)
    methods = {name for name in vars(Tensor) if f'return node("{name.strip("_")}"' in source}
    assert methods
    if missing := (functions | methods) - ways_of_conv2d - OPS.keys():
        pytest.skip(f"no line in op_table.py for {sorted(missing)}")


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
    "mean: of nothing": (lambda: zeros(0, 3).mean(), ValueError, r"no entries: shape \(0, 3\), axis None"),
    "mean: of no rows": (lambda: zeros(0, 3).mean(axis=0), ValueError, r"no entries: shape \(0, 3\), axis 0"),
    "max: of nothing": (lambda: zeros(0, 3).max(axis=0), ValueError, "zero-size array"),
    "broadcast_to": (lambda: x.broadcast_to((3, 3)), ValueError, "could not be broadcast"),
    "clip": (lambda: nn.clip(x, 1, 0), ValueError, "low <= high, got 1 and 0"),
    "clip: NaN": (lambda: nn.clip(x, np.nan, 0), ValueError, "low <= high, got nan and 0"),
    "clip: an array": (lambda: nn.clip(x, np.zeros(3), 1), TypeError, "two numbers, got ndarray and int"),
    "pow: a Tensor": (lambda: x**x, TypeError, "must be a Python number, got Tensor; use exp and log"),
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
    "dropout: a word": (lambda: nn.dropout(x, "0.5"), TypeError, "rate must be a number, got '0.5'"),
    "upsample: a fraction": (lambda: nn.upsample_nearest(images, 1.5), TypeError, "must be an integer, got 1.5"),
    "average_pool: nothing": (lambda: nn.average_pool(images, 0), ValueError, "factor must be at least 1, got 0"),
    "average_pool: a row": (lambda: nn.average_pool(row, 2), ValueError, r"\(N, H, W, C\), got \(2,\)"),
    "linear: widths": (lambda: nn.linear(x, zeros(2, 4), zeros(4)), ValueError, r"got \(2, 3\), \(2, 4\) and \(4,\)"),
    "linear: bias": (lambda: nn.linear(x, zeros(3, 4), zeros(1)), ValueError, r"got \(2, 3\), \(3, 4\) and \(1,\)"),
    "attention: widths": (lambda: nn.attention(x, zeros(2, 4), x), ValueError, r"got .* \(2, 4\), \(2, 3\)"),
    "attention: one axis": (lambda: nn.attention(x, zeros(3), x), ValueError, r"got \(2, 3\), \(3,\), \(2, 3\)"),
    "attention: lengths": (lambda: nn.attention(x, x, zeros(3, 3)), ValueError, r"got .* \(3, 3\)"),
    "mse": (lambda: nn.mse(x, zeros(3)), ValueError, r"got \(2, 3\) and \(3,\)"),
    "mse: of nothing": (lambda: nn.mse(zeros(0, 3), zeros(0, 3)), ValueError, r"no entries: shape \(0, 3\)"),
    "cross_entropy: of nothing": (lambda: nn.cross_entropy(zeros(0, 3), labels[:0]), ValueError, "no entries"),
    "cross_entropy: logits": (lambda: nn.cross_entropy(zeros(2), labels), ValueError, r"\(N, K\)"),
    "cross_entropy: labels": (lambda: nn.cross_entropy(x, labels[:1]), ValueError, r"\(2, 3\) and \(1,\)"),
    "cross_entropy: floats": (lambda: nn.cross_entropy(x, np.ones(2)), TypeError, "integers, got float64"),
    "cross_entropy: too large": (lambda: nn.cross_entropy(x, labels + 2), IndexError, r"0\.\.2, got 2\.\.3"),
    "cross_entropy: negative": (lambda: nn.cross_entropy(x, labels - 1), IndexError, r"0\.\.2, got -1\.\.0"),
    "group_norm": (lambda: nn.group_norm(images, row, row, 3), ValueError, "do not divide into 3 groups"),
    "group_norm: no group": (lambda: nn.group_norm(images, row, row, 0), ValueError, "0 groups|at least 1, got 0"),
    "group_norm: weight": (lambda: nn.group_norm(images, zeros(3), row, 1), ValueError, r"\(2,\) .*\(3,\)"),
    "group_norm_silu": (lambda: nn.group_norm_silu(images, row, row, 3), ValueError, "into 3 groups"),
    "layer_norm": (lambda: nn.layer_norm(images, row, zeros(1)), ValueError, r"must be \(2,\) .*\(1,\)"),
}


@pytest.mark.parametrize("call, error, words", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_with_a_reason(call, error, words):
    with pytest.raises(error, match=words):
        call()


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


def test_a_small_sigmoid_keeps_its_digits_in_float32(xp):
    """By tanh it would be 0 below -17, and its logarithm minus infinity."""
    z = Tensor(xp.asarray(np.linspace(-80, 0, 100), dtype=np.float32), requires_grad=True)
    y = nn.sigmoid(z)
    exact = 1 / (1 + np.exp(-to_numpy(z.data).astype(np.float64)))
    np.testing.assert_allclose(to_numpy(y.data), exact, rtol=1e-6)
    slope = to_numpy(nn.gradients(nn.log(y).sum(), [z])[0])
    np.testing.assert_allclose(slope, 1 - exact, rtol=1e-5)


def test_cross_entropy_of_a_hopeless_logit_is_finite(xp):
    logits = Tensor(xp.asarray([[-1e3, 1e3]], dtype=np.float32), requires_grad=True)
    loss = nn.cross_entropy(logits, np.array([0]))
    assert loss.item() == 2000
    assert to_numpy(nn.gradients(loss, [logits])[0]).tolist() == [[-1, 1]]


# ==== choices an op makes ====


def test_where_takes_a_number_on_either_side():
    z = Tensor(there([1.0, 2.0]), requires_grad=True)
    mask = there([True, False])
    assert nn.where(mask, z, 7).data.tolist() == [1, 7]
    assert nn.where(mask, 7, z).data.tolist() == [7, 2]
    assert nn.gradients(nn.where(mask, 7, z).sum(), [z])[0].tolist() == [0, 1]


BY_NUMBER = {  # every op with an option or an operand that is a number
    "add": lambda z, n: z + n,
    "sub": lambda z, n: n - z,
    "mul": lambda z, n: n * z,
    "truediv": lambda z, n: z / n,
    "rtruediv": lambda z, n: n / z,
    "pow": lambda z, n: z**n,
    "clip": lambda z, n: nn.clip(z, -n, n),
    "where": lambda z, n: nn.where(z > 0, z, n),
    "comparison": lambda z, n: nn.where(z > n, z, z * 2),
    "dropout": lambda z, n: dropped(z, n / 4),
    "sum": lambda z, n: z.sum(axis=whole(n)),
    "mean": lambda z, n: z.mean(axis=whole(n)),
    "max": lambda z, n: z.max(axis=(0, whole(n))),
    "reshape": lambda z, n: z.reshape(whole(n), -1),
    "transpose": lambda z, n: z.transpose(whole(n), 0, 2, 3),
    "index": lambda z, n: z[whole(n) - whole(n), whole(n) :],
    "concatenate": lambda z, n: nn.concatenate([z, z], axis=whole(n)),
    "pad": lambda z, n: nn.pad(z, [(whole(n), whole(n))] * 4),
    "softmax": lambda z, n: nn.softmax(z, whole(n)),
    "upsample_nearest": lambda z, n: nn.upsample_nearest(z, 2 * whole(n)),
    "average_pool": lambda z, n: nn.average_pool(z, 2 * whole(n)),
    "group_norm": lambda z, n: nn.group_norm(z, Tensor(z.data[0, 0, 0]), Tensor(z.data[0, 0, 0]), 2 * whole(n)),
}


def whole(n):
    return n if isinstance(n, (int, np.integer)) else int(n)


def dropped(z, rate):
    with nn.random_state(1, 2, range(len(z))):
        return nn.dropout(z, rate)


@pytest.mark.parametrize("call", BY_NUMBER.values(), ids=BY_NUMBER.keys())
def test_a_number_of_numpys_does_what_pythons_does(xp, call):
    """np.float64(0.5) would make float32 data float64, and np.uint8(2) would overflow."""
    values = np.random.default_rng(0).uniform(0.5, 2, (2, 4, 4, 4)).astype(np.float32)
    found = []
    for number in (1, np.int64(1), np.int8(1), np.float64(1), np.float32(1), np.float16(1)):
        z = Tensor(xp.asarray(values), requires_grad=True)
        y = call(z, number)
        (gradient,) = nn.gradients(y, [z], xp.ones_like(y.data))
        assert y.dtype == gradient.dtype == np.float32, repr(number)
        found.append((to_numpy(y.data).tobytes(), to_numpy(gradient).tobytes()))
    assert len(set(found)) == 1


def test_dropout_keeps_the_mean_and_drops_the_rate():
    ones = Tensor(there(np.ones((100, 1000), np.float32)))
    with nn.random_state(1, 2, range(100)):
        y, again = nn.dropout(ones, 0.25), nn.dropout(ones, 0.25)
    y, again = to_numpy(y.data), to_numpy(again.data)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((y == 0).mean() - 0.25) < 6 * np.sqrt(0.25 * 0.75 / 1e5)
    assert (y != again).any(), "two layers of one network drew the same numbers"


@pytest.mark.parametrize("inputs, outputs", [(0, 2), (4, 0)])
def test_linear_without_inputs_is_the_bias_and_without_outputs_is_empty(inputs, outputs):
    x, weight, bias = (
        nn.tensor(there(np.ones(s)), requires_grad=True) for s in ((3, inputs), (inputs, outputs), outputs)
    )
    y = nn.linear(x, weight, bias)
    assert y.shape == (3, outputs) and (y.data == 1).all()
    gx, gw, gb = nn.gradients(y, [x, weight, bias], y.data)
    assert not gx.any() and not gw.any() and (gb == 3).all()
