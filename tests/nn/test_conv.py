"""Convolution and resampling: each way of convolving against the definition, and which way is taken when."""

import itertools
import tracemalloc

import numpy as np
import pytest
from device import there
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
from nn import Tensor, gradients, tape, to_numpy
from nn.conv import conv2d_im2col, conv2d_loops, conv2d_winograd

sides = st.integers(1, 9)


def drawn(seed, *shapes, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def same_up_to_rounding(found, expected, terms):
    """For sums of `terms` products of numbers of size one; Winograd's constants multiply rounding by 100."""
    atol = 100 * np.finfo(np.float64).eps * np.sqrt(terms)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=0, atol=atol)


def test_the_definition_is_the_sum_of_the_books():
    """y[i, j, o] = bias[o] + sum of x[stride i + u - padding, stride j + v - padding, c] w[u, v, c, o]."""
    x, weight, bias = drawn(0, (2, 4, 5, 2), (3, 2, 2, 3), (3,))
    stride, padding = 2, 1
    y = conv2d_loops(x, weight, bias, stride, padding)
    assert y.shape == (2, 2, 3, 3)
    for n, i, j, o in itertools.product(*map(range, y.shape)):
        expected = bias[o]
        for u, v, c in itertools.product(range(3), range(2), range(2)):
            row, column = i * stride + u - padding, j * stride + v - padding
            if 0 <= row < 4 and 0 <= column < 5:
                expected += x[n, row, column, c] * weight[u, v, c, o]
        assert y[n, i, j, o] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30)
@given(sides, sides, st.sampled_from([1, 8, 11]), st.sampled_from([1, 8, 9]), st.integers(0, 99))
def test_conv2d_equals_the_definition_whichever_way_it_takes(xp, h, w, c, o, seed):
    arrays = drawn(seed, (2, h, w, c), (3, 3, c, o), (o,))
    tensors = [Tensor(xp.asarray(a)) for a in arrays]
    expected = conv2d_loops(*arrays, 1, 1)
    for found in (nn.conv2d(*tensors, padding=1), conv2d_winograd(*tensors), conv2d_im2col(*tensors, 1, 1)):
        same_up_to_rounding(found.data, expected, terms=9 * c)


WAYS = {"winograd": conv2d_winograd, "im2col": lambda *tensors: conv2d_im2col(*tensors, 1, 1)}


def value_and_gradients(way, arrays):
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    y = way(*tensors)
    return y.data, *gradients(y, tensors, y.xp.cos(y.data))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_in_float32_a_wide_convolution_is_right_to_five_digits(xp, way):
    arrays = [xp.asarray(a) for a in drawn(0, (2, 14, 14, 64), (3, 3, 64, 64), (64,))]
    weights = [arrays[0], arrays[1] / 24, arrays[2]]  # 24 is the root of 9 * 64: a result of size one
    exact = value_and_gradients(WAYS["im2col"], weights)
    found = value_and_gradients(way, [a.astype(np.float32) for a in weights])
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == np.float32
        assert float(abs(a - b).max()) < 1e-5 * float(abs(b).max())


@pytest.mark.parametrize(
    "channels, size, stride, padding, name",
    [
        (16, 3, 1, 1, "conv2d_winograd"),
        (1, 3, 1, 1, "conv2d_im2col"),
        (16, 3, 2, 1, "conv2d_im2col"),
        (16, 1, 1, 0, "conv2d_im2col"),
        (16, 3, 1, 0, "conv2d_im2col"),
        (16, 5, 1, 2, "conv2d_im2col"),
    ],
)
def test_which_way_is_taken(xp, channels, size, stride, padding, name):
    x, weight, bias = drawn(0, (1, 8, 8, channels), (size, size, channels, 16), (16,))
    seen = []
    tape.op_hooks.append(lambda event, op, array: seen.append(op))
    try:
        nn.conv2d(*(Tensor(there(a)) for a in (x, weight, bias)), stride, padding)
    finally:
        tape.op_hooks.pop()
    assert seen == [name if xp is np else "conv2d_im2col"]


@pytest.mark.parametrize("channels", [2, 8], ids=["im2col", "winograd"])
def test_a_bias_for_each_sample_is_a_bias_added_afterwards(xp, channels):
    arrays = [xp.asarray(a) for a in drawn(0, (3, 5, 6, channels), (3, 3, channels, 8), (3, 8))]
    x, weight, bias = (Tensor(a, requires_grad=True) for a in arrays)
    cotangent = xp.asarray(drawn(1, (3, 5, 6, 8))[0])
    none = Tensor(xp.zeros(8))
    inside = nn.conv2d(x, weight, bias, padding=1)
    after = nn.conv2d(x, weight, none, padding=1) + bias.reshape(3, 1, 1, 8)
    same_up_to_rounding(inside.data, to_numpy(after.data), terms=9 * channels)
    for a, b in zip(*(gradients(y, [x, weight, bias], cotangent) for y in (inside, after)), strict=True):
        same_up_to_rounding(a, to_numpy(b), terms=9 * channels * 90)


@pytest.mark.parametrize("channels", [2, 8], ids=["im2col", "winograd"])
def test_no_bias_is_a_bias_of_zeros(xp, channels):
    arrays = [xp.asarray(a) for a in drawn(0, (2, 5, 6, channels), (3, 3, channels, 8))]
    x, weight = (Tensor(a, requires_grad=True) for a in arrays)
    cotangent = xp.asarray(drawn(1, (2, 5, 6, 8))[0])
    without, zeros = nn.conv2d(x, weight, padding=1), nn.conv2d(x, weight, Tensor(xp.zeros(8)), padding=1)
    np.testing.assert_array_equal(without.data, zeros.data)
    for a, b in zip(*(gradients(y, [x, weight], cotangent) for y in (without, zeros)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("channels", [2, 8], ids=["im2col", "winograd"])
@pytest.mark.parametrize("shape", [(8,), (0, 8)], ids=["one bias", "a bias each"])
def test_an_empty_batch_is_convolved_to_an_empty_batch(channels, shape):
    x, weight, bias = (
        Tensor(there(np.ones(s)), requires_grad=True) for s in ((0, 5, 6, channels), (3, 3, channels, 8), shape)
    )
    y = nn.conv2d(x, weight, bias, padding=1)
    assert y.shape == (0, 5, 6, 8)
    gx, gw, gb = gradients(y, [x, weight, bias], y.data)
    assert (gx.shape, gw.shape, gb.shape) == (x.shape, weight.shape, bias.shape)
    assert not gw.any() and not gb.any()


@pytest.mark.parametrize("integer", [np.uint8, np.int64, lambda value: np.array(value)])
def test_numbers_of_numpys_give_what_pythons_give(integer):
    x, weight, bias = (Tensor(there(a)) for a in drawn(0, (1, 200, 5, 2), (3, 3, 2, 3), (3,), dtype=np.float32))
    expected = nn.conv2d(x, weight, bias, 2, 30)
    found = nn.conv2d(x, weight, bias, integer(2), integer(30))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.data, expected.data)
    with pytest.raises(TypeError, match="stride must be an integer, got 2.0"):
        nn.conv2d(x, weight, bias, stride=2.0)


@pytest.mark.parametrize("channels", [2, 8], ids=["im2col", "winograd"])
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_each_gradient_alone_is_what_it_is_in_company(channels, wanted):
    """A first layer needs no gradient for its image; what is left out must not change the rest."""
    arrays = [there(a) for a in drawn(0, (2, 5, 6, channels), (3, 3, channels, 8), (8,))]
    cotangent = there(drawn(1, (2, 5, 6, 8))[0])
    everything = [Tensor(a, requires_grad=True) for a in arrays]
    one = [Tensor(a, requires_grad=i == wanted) for i, a in enumerate(arrays)]
    expected = gradients(nn.conv2d(*everything, padding=1), everything, cotangent)[wanted]
    (found,) = gradients(nn.conv2d(*one, padding=1), [one[wanted]], cotangent)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [2, 8])
def test_the_layout_of_memory_does_not_matter(xp, channels, stride):
    """Images and gradients arrive as transposed, sliced or broadcast views."""
    x, weight, bias = (there(a) for a in drawn(0, (2, 7, 6, channels), (3, 3, channels, 8), (8,)))
    views = [xp.asfortranarray(x), xp.asfortranarray(weight), xp.repeat(bias, 2)[::2]]
    results = []
    for arrays in ([x, weight, bias], views):
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        y = nn.conv2d(*tensors, stride, padding=1)
        cotangent = xp.broadcast_to(there(drawn(1, (8,))[0]), y.shape)
        results.append([y.data, *gradients(y, tensors, cotangent if arrays is views else cotangent.copy())])
    for found, expected in zip(*results, strict=True):
        same_up_to_rounding(found, to_numpy(expected), terms=9 * channels * 84)


@pytest.mark.cpu
def test_im2col_does_not_keep_its_columns():
    """The copy of every window is nine times the image; it is made again on the way back."""
    arrays = drawn(0, (4, 32, 32, 16), (3, 3, 16, 16), (16,))
    x, weight, bias = (Tensor(a, requires_grad=True) for a in arrays)
    tracemalloc.start()
    y = conv2d_im2col(x, weight, bias, 1, 1)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1.1 * y.data.nbytes


# ==== resampling ====


@given(sides, sides, st.integers(1, 3), st.integers(0, 99))
def test_pooling_undoes_upsampling_and_is_its_transpose_over_factor_squared(xp, h, w, factor, seed):
    small, large = (xp.asarray(a) for a in drawn(seed, (2, h, w, 3), (2, factor * h, factor * w, 3)))
    up, pool = nn.upsample_nearest(Tensor(small), factor).data, nn.average_pool(Tensor(large), factor).data
    again = nn.average_pool(Tensor(up), factor).data
    np.testing.assert_allclose(to_numpy(again), to_numpy(small), rtol=1e-12)
    products = float((up * large).sum()), factor**2 * float((small * pool).sum())
    assert products[0] == pytest.approx(products[1], rel=1e-9, abs=1e-9)


# ==== what is refused ====


def zeros(*shape, dtype=np.float32):
    return Tensor(there(np.zeros(shape, dtype)))


def convolve(x=(2, 6, 4, 3), weight=(3, 3, 3, 5), bias=(5,), **keywords):
    return nn.conv2d(zeros(*x), zeros(*weight), zeros(*bias), **keywords)


REFUSED = {
    "an image without batch": (lambda: convolve(x=(6, 4, 3)), r"needs x \(N, H, W, C\) .* \(6, 4, 3\)"),
    "channels first": (lambda: convolve(x=(2, 3, 6, 4)), r"got \(2, 3, 6, 4\) and \(3, 3, 3, 5\)"),
    "a filter of two axes": (lambda: convolve(weight=(3, 5)), r"weight \(KH, KW, C, O\), got .* \(3, 5\)"),
    "a bias of other width": (lambda: convolve(bias=(4,)), r"must be \(5,\) or \(2, 5\), got \(4,\)"),
    "a bias of other batch": (lambda: convolve(bias=(3, 5)), r"must be \(5,\) or \(2, 5\), got \(3, 5\)"),
    "a filter of no size": (lambda: convolve(weight=(0, 3, 3, 5)), r"got .* \(0, 3, 3, 5\)"),
    "stride 0": (lambda: convolve(stride=0), "stride must be at least 1, got 0"),
    "padding -1": (lambda: convolve(padding=-1), "padding must be at least 0, got -1"),
    "a filter too large": (lambda: convolve(weight=(5, 5, 3, 5)), "larger than the padded image"),
    "pooling by 4": (lambda: nn.average_pool(zeros(2, 6, 4, 3), 4), "by 4 needs .* got 6 x 4"),
}


@pytest.mark.parametrize("call, words", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_with_a_reason(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("wrong", [0, 1, 2])
@pytest.mark.parametrize("channels", [3, 8], ids=["im2col", "winograd"])
def test_dtypes_do_not_mix(wrong, channels):
    shapes = [(2, 6, 4, channels), (3, 3, channels, 8), (8,)]
    tensors = [zeros(*s, dtype=np.float64 if i == wrong else np.float32) for i, s in enumerate(shapes)]
    with pytest.raises(TypeError, match="conv2d.*: dtypes differ: .*float64"):
        nn.conv2d(*tensors, padding=1)


# ==== what is remembered of the weights ====


def test_inside_constant_weights_the_filters_of_a_parameter_are_made_once_and_of_computed_weights_each_time():
    """Whoever writes into the data all the same gets the filters made before, until `forget_weights` is told."""
    x, weight, none = (Tensor(a, requires_grad=True) for a in drawn(0, (1, 4, 4, 8), (3, 3, 8, 8), (8,)))
    none.data[...] = 0

    def values():
        return [float(conv2d_winograd(x, w, none).data[0, 0, 0, 0]) for w in (weight, weight * 1.0)]

    first = values()[0]
    with nn.constant_weights():
        assert values() == [first, first]
        weight.data *= 2
        assert values() == [first, 2 * first]
        nn.forget_weights([weight])
        assert values() == [2 * first, 2 * first]
    weight.data *= 2
    assert values() == [4 * first, 4 * first]
