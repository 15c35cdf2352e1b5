"""Group norm and layer norm: what they make of data, far from zero too, and fused against plain."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
from nn import Tensor, gradients, to_numpy

sides = st.integers(1, 4)


def drawn(xp, seed, *shapes, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [xp.asarray(rng.standard_normal(shape), dtype=dtype) for shape in shapes]


def value_and_gradients(op, arrays, cotangent, *args):
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    y = op(*tensors, *args)
    return y.data, *gradients(y, tensors, cotangent)


def silu_of_group_norm(*args):
    return nn.silu(nn.group_norm(*args))


@given(sides, st.integers(2, 5), sides, sides, st.integers(0, 99))
def test_group_norm_silu_is_silu_of_group_norm(xp, h, w, width, groups, seed):
    channels = groups * width
    *arrays, cotangent = drawn(xp, seed, (3, h, w, channels), (channels,), (channels,), (3, h, w, channels))
    fused = value_and_gradients(nn.group_norm_silu, arrays, cotangent, groups)
    plain = value_and_gradients(silu_of_group_norm, arrays, cotangent, groups)
    for a, b in zip(fused, plain, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=0, atol=1e-12 * float(1 + abs(b).max()))


@pytest.mark.parametrize("op", [nn.group_norm, nn.group_norm_silu])
def test_samples_do_not_see_one_another(xp, op):
    x, weight, bias = drawn(xp, 0, (5, 4, 6, 8), (8,), (8,))
    together = op(Tensor(x), Tensor(weight), Tensor(bias), 2).data
    for i in range(5):
        alone = op(Tensor(x[i : i + 1]), Tensor(weight), Tensor(bias), 2).data
        np.testing.assert_allclose(to_numpy(alone[0]), to_numpy(together[i]), rtol=1e-12, atol=1e-12)


def test_every_group_comes_out_with_mean_0_and_variance_1(xp):
    (x,) = drawn(xp, 0, (2, 7, 5, 6))
    one, zero = Tensor(xp.ones(6)), Tensor(xp.zeros(6))
    y = to_numpy(nn.group_norm(Tensor(50 * x + 9), one, zero, 3).data).reshape(2, -1, 3, 2)
    np.testing.assert_allclose(y.mean((1, 3)), 0, atol=1e-13)
    np.testing.assert_allclose(y.var((1, 3)), 1, atol=1e-5 / 40**2)  # 1e-5 beside 50^2


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_of_a_constant_image_the_bias_is_left(xp, groups):
    """The variance is 0, and only the 1e-5 beside it stands between this and a division by zero."""
    weight, bias = drawn(xp, 0, (4,), (4,))
    x, cotangent = xp.full((2, 3, 3, 4), 7.0), xp.ones((2, 3, 3, 4))
    y, gx, gw, gb = value_and_gradients(nn.group_norm, [x, weight, bias], cotangent, groups)
    np.testing.assert_allclose(to_numpy(y), np.broadcast_to(to_numpy(bias), y.shape), atol=1e-12)
    assert np.isfinite(to_numpy(gx)).all()
    assert float(abs(gw).max()) < 1e-10
    np.testing.assert_allclose(to_numpy(gb), 18)


def test_one_pixel_of_one_channel_is_its_own_mean(xp):
    x, weight, bias, cotangent = drawn(xp, 0, (3, 1, 1, 2), (2,), (2,), (3, 1, 1, 2))
    y, gx, gw, _ = value_and_gradients(nn.group_norm, [x, weight, bias], cotangent, 2)
    np.testing.assert_allclose(to_numpy(y), np.broadcast_to(to_numpy(bias), y.shape), atol=1e-12)
    assert float(abs(gx).max()) < 1e-12 / 1e-5**0.5  # rounding, over the root of the 1e-5
    assert float(abs(gw).max()) == 0


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (0, 4), (2, 0, 5, 4), (2, 3, 0, 4)], ids=str)
@pytest.mark.parametrize("name", ["group_norm", "group_norm_silu", "layer_norm"])
def test_where_there_is_nothing_to_norm_nothing_comes_out(xp, name, shape):
    x, weight, bias = xp.zeros(shape), xp.ones(4), xp.ones(4)
    groups = () if name == "layer_norm" else (2,)
    y, gx, gw, gb = value_and_gradients(getattr(nn, name), [x, weight, bias], xp.zeros(shape), *groups)
    assert y.shape == gx.shape == shape
    assert to_numpy(gw).tolist() == to_numpy(gb).tolist() == [0] * 4


@pytest.mark.parametrize(
    "name, groups", [("group_norm", 1), ("group_norm", 2), ("group_norm_silu", 1), ("layer_norm", 0)]
)
def test_a_variance_that_overflows_gives_nan_and_not_the_bias(xp, name, groups):
    """1 / infinity is 0: every pixel would be at the mean, and nobody would notice."""
    one, groups = Tensor(xp.ones(4, np.float32)), [groups] if groups else []
    small = xp.asarray(np.array([[1, 2, -3, -4]], np.float32) * np.float32(1e18))  # squares of 4e18 still fit
    assert np.isfinite(to_numpy(getattr(nn, name)(Tensor(small), one, one, *groups).data)).all()
    with np.errstate(all="ignore"):
        y = getattr(nn, name)(Tensor(small * np.float32(1e7)), one, one, *groups).data
    assert np.isnan(to_numpy(y)).all()


@pytest.mark.parametrize("number", [np.uint8, np.int64])
def test_groups_may_be_a_number_of_numpys(xp, number):
    x, weight, bias = drawn(xp, 0, (2, 3, 3, 4), (4,), (4,), dtype=np.float32)
    arrays = [Tensor(a) for a in (x, weight, bias)]
    found, expected = nn.group_norm(*arrays, number(2)), nn.group_norm(*arrays, 2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.data, expected.data)


def ones(xp, *shape):
    return Tensor(xp.ones(shape))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda one: nn.group_norm(one(2, 3, 4), one(4), one(4), 3),
            ValueError,
            "4 channels do not divide into 3 groups",
        ),
        (lambda one: nn.group_norm(one(2, 4), one(4), one(4), 0), ValueError, "4 channels do not divide into 0 groups"),
        (lambda one: nn.group_norm(one(2, 4), one(4), one(4), 2.0), TypeError, "groups must be an integer, got 2.0"),
        (
            lambda one: nn.group_norm(one(2, 4), one(3), one(4), 2),
            ValueError,
            r"must be \(4,\) for x \(2, 4\), got \(3,\)",
        ),
        (
            lambda one: nn.group_norm_silu(one(4), one(4), one(4), 2),
            ValueError,
            r"group_norm_silu needs x \(N, ..., C\)",
        ),
        (lambda one: nn.layer_norm(one(2, 0), one(0), one(0)), ValueError, r"layer_norm needs .* got \(2, 0\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(xp, call, error, words):
    with pytest.raises(error, match=words):
        call(lambda *shape: ones(xp, *shape))


# ==== far from zero ====
#
# In x = mean + u, with u of size one, u is rounded by eps * mean before anything is computed. No method does
# better. One that sums squares about 0 does worse: eps * mean^2, a tenth in float32 at a mean of 1000.

OPS = {
    "group_norm": lambda x, w, b: nn.group_norm(x, w, b, 4),
    "group_norm_silu": lambda x, w, b: nn.group_norm_silu(x, w, b, 4),
    "layer_norm": nn.layer_norm,
}


@pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
@pytest.mark.parametrize("dtype, mean", [(np.float32, 1e3), (np.float64, 1e3), (np.float64, 1e6)])
def test_data_far_from_zero_keeps_its_digits(xp, op, dtype, mean):
    u, weight, bias, cotangent = drawn(xp, 0, (4, 14, 14, 32), (32,), (32,), (4, 14, 14, 32))
    x = (u + mean).astype(dtype)
    exact = value_and_gradients(op, [x.astype(np.float64) - mean, weight, bias], cotangent)
    found = value_and_gradients(op, [x, weight.astype(dtype), bias.astype(dtype)], cotangent.astype(dtype))
    tolerance = 4 * np.finfo(dtype).eps * mean
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == dtype
        assert float(abs(a - b).max()) <= tolerance * float(abs(b).max())


@settings(max_examples=20)
@given(st.integers(0, 99), st.sampled_from([1e-3, 1, 1e3]))
def test_the_gradient_of_a_norm_is_orthogonal_to_shifts(xp, seed, scale):
    """Adding a constant to a group changes nothing, so the gradient sums to zero over each group."""
    x, weight, bias, cotangent = drawn(xp, seed, (2, 5, 3, 6), (6,), (6,), (2, 5, 3, 6))
    gx = value_and_gradients(nn.group_norm, [scale * x, weight, bias], cotangent, 3)[1]
    sums = to_numpy(gx).reshape(2, -1, 3, 2).sum((1, 3))
    np.testing.assert_allclose(sums, 0, atol=1e-12 * 30 * float(abs(gx).max()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_silu_far_below_zero_is_zero_as_is_its_slope_and_nobody_is_warned(xp, dtype):
    """e^-z overflows from z = -89 on in float32, and from -710 on in float64."""
    x, cotangent = drawn(xp, 0, (2, 3, 3, 4), (2, 3, 3, 4), dtype=dtype)
    one = xp.ones(4, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, *found = value_and_gradients(nn.group_norm_silu, [x, one, -1000 * one], cotangent, 2)
    for a in (y, *found):
        np.testing.assert_array_equal(to_numpy(a), 0)
