"""Group norm and layer norm: plain, and group norm with silu in as few passes over memory as they need.

Normalisation is bound by memory, not by arithmetic: written as ten elementwise expressions it costs a CPU as much as a
convolution. So sums over pixels are matrix products with a row of ones (BLAS reads at full speed), arrays are updated
in place, and silu is joined on where it follows. Next: conv.py.
"""

import functools
import math

import numpy as np

from nn.gpu import kernels
from nn.options import whole
from nn.tensors import check_devices, is_recorded, node

__all__ = ["group_norm", "group_norm_silu", "layer_norm"]

EPSILON = 1e-5  # added to the variance, as in Wu & He 2018 and PyTorch


def group_norm(x, weight, bias, groups):
    """Wu & He 2018: each sample's channels, in `groups` groups, to mean 0 and variance 1; then weight and bias.

    x: (N, ..., C), channels last. weight, bias: (C,). ValueError unless `groups` divides C. Where the variance of a
    group overflows, as in float32 from about 1e19 on, the sample's result is NaN.
    """
    groups = _checked("group_norm", x, weight, bias, groups)
    if kernels.used_for(x.xp, x.dtype):
        return _by_kernels("group_norm", x, weight, bias, groups, silu=False)
    centred, scale, vjp = _normalise(x, weight, bias, groups)
    y = centred * _row(scale, centred)
    y += _row(bias.data[None], centred)
    return node("group_norm", y.reshape(x.shape), (x, weight, bias), vjp)


def group_norm_silu(x, weight, bias, groups):
    """silu(group_norm(x, weight, bias, groups)) in one op."""
    groups = _checked("group_norm_silu", x, weight, bias, groups)
    if kernels.used_for(x.xp, x.dtype):
        return _by_kernels("group_norm_silu", x, weight, bias, groups, silu=True)
    centred, scale, normalise_vjp = _normalise(x, weight, bias, groups)
    # For z, the result of group norm, and m = -z: silu(z) = z / (1 + e^-z) = m / (-1 - e^m).
    m = centred * _row(-scale, centred)
    m -= _row(bias.data[None], centred)
    with np.errstate(over="ignore"):  # where e^m is infinite, silu is 0
        d = x.xp.exp(m)
    x.xp.subtract(-1, d, out=d)
    y = m / d

    slope = None
    if is_recorded(x, weight, bias):  # silu'(z) = (1 + z - y) / (1 + e^-z) = (m + y - 1) / d, in place
        m += y
        m -= 1
        m /= d
        slope = m

    def vjp(g):
        return normalise_vjp(slope * g.reshape(slope.shape))

    return node("group_norm_silu", y.reshape(x.shape), (x, weight, bias), vjp)


def _by_kernels(name, x, weight, bias, groups, silu):
    """Both of the above on a GPU: seven launches, forward and backward, not some fifty. Keeps x, mean and std."""
    a, w, b = x.data, weight.data, bias.data
    y, mean, inverse_std = kernels.group_norm(a, w, b, groups, EPSILON, silu)
    vjp = lambda g: kernels.group_norm_gradients(g, a, w, b, mean, inverse_std, silu)  # noqa: E731
    return node(name, y, (x, weight, bias), vjp)


def layer_norm(x, weight, bias):
    """Ba et al. 2016: the last axis of x (..., C) to mean 0 and variance 1, then weight and bias, both (C,)."""
    _checked("layer_norm", x, weight, bias)
    a, w, xp = x.data, weight.data, x.xp
    centred = a - a.mean(axis=-1, keepdims=True)
    inverse_std = _inverse_std((centred * centred).mean(axis=-1, keepdims=True), xp)
    normalised = centred * inverse_std

    def vjp(g):
        gn = g * w
        along = (gn * normalised).mean(axis=-1, keepdims=True)
        return (gn - gn.mean(axis=-1, keepdims=True) - normalised * along) * inverse_std, g * normalised, g

    return node("layer_norm", normalised * w + bias.data, (x, weight, bias), vjp)


def _normalise(x, weight, bias, groups):
    """The parts of group norm: centred (N, H, W C), which is x less its group's mean; scale (N, C); and the vjp.

    The result of group norm is centred * scale + bias, with scale = weight / std. Pixels lie in long rows of W C
    entries, because NumPy is fast along long rows.
    """
    xp, shape, w = x.xp, x.shape, weight.data
    n, channels = shape[0], shape[-1]
    height = shape[1] if x.ndim > 3 else 1
    pixels = (n, math.prod(shape[1:-1]), channels)
    rows = x.data.reshape(n, height, math.prod(shape[1:]) // max(height, 1))
    average = _group_average(channels, groups, pixels[1], x.dtype, xp)  # sums over pixels -> group means

    centred = rows - _row(sum_pixels(x.data.reshape(pixels), xp) @ average, rows)
    inverse_std = _inverse_std(sum_pixels((centred * centred).reshape(pixels), xp) @ average, xp)

    def vjp(g):
        g = g.reshape(rows.shape)
        g_sum = sum_pixels(g.reshape(pixels), xp)
        product = g * centred
        g_weight = sum_pixels(product.reshape(pixels), xp) * inverse_std  # sum of g * (centred / std)
        # gx = (g w - mean of (g w) - (centred / std) * mean of (g w centred / std)) / std, means over the group
        gx = xp.multiply(g, _row(inverse_std * w, rows), out=product)
        gx -= centred * _row(inverse_std**2 * ((g_weight * w) @ average), rows)
        gx -= _row(inverse_std * ((g_sum * w) @ average), rows)
        return gx.reshape(shape), g_weight.sum(axis=0), g_sum.sum(axis=0)

    return centred, inverse_std * w, vjp


def _inverse_std(variance, xp):
    """1 / std. It is NaN where the variance has overflowed: a 0 would give the bias, and nobody would notice."""
    return 1 / xp.sqrt(variance + EPSILON) + 0 * variance


@functools.lru_cache(maxsize=64)
def _group_average(channels, groups, pixels, dtype, xp):
    """The (C, C) matrix that takes a sample's sums over pixels to the mean over each channel's group."""
    size = channels // groups
    blocks = np.kron(np.eye(groups), np.ones((size, size)))
    return xp.asarray((blocks / max(size * pixels, 1)).astype(dtype))


def _row(per_channel, rows):
    """(N, C) or (1, C) -> (N, 1, W C): one value per channel, repeated along the rows (N, H, W C)."""
    n, channels = per_channel.shape
    repeated = per_channel[:, None].repeat(rows.shape[2] // channels, axis=1)
    return repeated.reshape(n, 1, rows.shape[2])


def sum_pixels(a, xp):
    """Sum (N, P, C) over P: (N, C). By a matrix product with ones, several times faster than NumPy's own sum."""
    if xp is not np:
        return a.sum(axis=1)  # one launch, where a product of many small matrices takes several
    return (_ones(a.shape[1], a.dtype) @ a)[:, 0]


@functools.lru_cache(maxsize=64)
def _ones(count, dtype):
    return np.ones((1, count), dtype)


def _checked(op, x, weight, bias, groups=1):
    """`groups`, after `check_groups`. ValueError where shapes do not fit, TypeError where devices differ."""
    check_devices(op, x, weight, bias)
    if x.ndim < (1 if op == "layer_norm" else 2) or not x.shape[-1]:
        raise ValueError(f"{op} needs x (N, ..., C) with at least one channel, got {x.shape}")
    channels = x.shape[-1]
    if weight.shape != (channels,) or bias.shape != (channels,):
        raise ValueError(f"weight and bias must be ({channels},) for x {x.shape}, got {weight.shape} and {bias.shape}")
    return check_groups(channels, groups)


def check_groups(channels, groups):
    """`groups` as an int. ValueError unless it divides the number of channels."""
    groups = whole("groups", groups)
    if groups == 0 or channels % groups:
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
    return groups
