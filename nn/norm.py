"""Group norm and layer norm: plain, and group norm with silu in as few passes over memory as they need.

Normalisation is bound by memory, not by arithmetic: written as ten elementwise expressions it costs a CPU as much as a
convolution. So sums over pixels are matrix products with a row of ones (BLAS reads at full speed), arrays are updated
in place, and silu is joined on where it follows. Next: conv.py.
"""

import functools

import numpy as np

from nn.gpu import kernels
from nn.tensors import check_devices, is_recorded, node

__all__ = ["group_norm", "group_norm_silu", "layer_norm"]

EPSILON = 1e-5  # added to the variance, as in Wu & He 2018 and PyTorch


def group_norm(x, weight, bias, groups):
    """Wu & He 2018: each sample's channels, in `groups` groups, to mean 0 and variance 1; then weight and bias.

    x: (N, ..., C), channels last. weight, bias: (C,). ValueError unless `groups` divides C.
    """
    _check(x, weight, bias, groups)
    if kernels.used_for(x.xp, x.dtype):
        return _by_kernels(x, weight, bias, groups, silu=False)
    centred, scale, vjp = _normalise(x, weight, bias, groups)
    y = centred * _row(scale, centred)
    y += _row(bias.data[None], centred)
    return node("group_norm", y.reshape(x.shape), (x, weight, bias), vjp)


def group_norm_silu(x, weight, bias, groups):
    """silu(group_norm(x, weight, bias, groups)) in one op."""
    _check(x, weight, bias, groups)
    if kernels.used_for(x.xp, x.dtype):
        return _by_kernels(x, weight, bias, groups, silu=True)
    centred, scale, normalise_vjp = _normalise(x, weight, bias, groups)
    h = centred * _row(0.5 * scale, centred)  # half of the normalised value z: silu(z) = z sigmoid(z) = h + h tanh(h)
    h += _row(0.5 * bias.data[None], centred)
    t = x.xp.tanh(h)
    y = h * t
    y += h

    slope = None
    if is_recorded(x, weight, bias):  # 2 silu'(z) = (1 + t) + h (1 - t^2) = (1 + t) (1 + 2 h - y), made in the cache
        t += 1
        h += h
        h -= y
        h += 1
        h *= t
        slope = h

    def vjp(g):
        return normalise_vjp(slope * g.reshape(slope.shape), 0.5)  # the 2 is taken out with the scale

    return node("group_norm_silu", y.reshape(x.shape), (x, weight, bias), vjp)


def _by_kernels(x, weight, bias, groups, silu):
    """Both of the above on a GPU: seven launches, forward and backward, not some fifty. Keeps x, mean and std."""
    a, w, b = x.data, weight.data, bias.data
    y, mean, inverse_std = kernels.group_norm(a, w, b, groups, EPSILON, silu)
    return node(
        "group_norm_silu" if silu else "group_norm",
        y,
        (x, weight, bias),
        lambda g: kernels.group_norm_gradients(g, a, w, b, mean, inverse_std, silu),
    )


def layer_norm(x, weight, bias):
    """Ba et al. 2016: the last axis of x (..., C) to mean 0 and variance 1, then weight and bias, both (C,)."""
    _check(x, weight, bias, 1)
    a, w, xp = x.data, weight.data, x.xp
    centred = a - a.mean(axis=-1, keepdims=True)
    inverse_std = 1 / xp.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)
    normalised = centred * inverse_std

    def vjp(g):
        gn = g * w
        along = (gn * normalised).mean(axis=-1, keepdims=True)
        return (gn - gn.mean(axis=-1, keepdims=True) - normalised * along) * inverse_std, g * normalised, g

    return node("layer_norm", normalised * w + bias.data, (x, weight, bias), vjp)


def _normalise(x, weight, bias, groups):
    """The parts of group norm: centred (N, H, W C), which is x less its group's mean; scale (N, C); and the vjp.

    The result is centred * scale + bias, with scale = weight / std. Pixels lie in long rows of W C entries, so that
    NumPy's inner loops are long. vjp(g, factor) is the vjp at factor * g.
    """
    xp, shape, w = x.xp, x.shape, weight.data
    channels = shape[-1]
    pixels = (shape[0], -1, channels)
    rows = x.data.reshape(shape[0], shape[1] if x.ndim > 3 else 1, -1)
    average = _group_average(channels, groups, rows.size // shape[0], x.dtype, xp)  # sums over pixels -> group means

    centred = rows - _row(sum_pixels(x.data.reshape(pixels), xp) @ average, rows)
    variance = sum_pixels((centred * centred).reshape(pixels), xp) @ average
    inverse_std = 1 / xp.sqrt(variance + EPSILON)

    def vjp(g, factor=1):
        g = g.reshape(rows.shape)
        g_sum = sum_pixels(g.reshape(pixels), xp) * factor
        product = g * centred
        g_weight = sum_pixels(product.reshape(pixels), xp) * (inverse_std * factor)  # sum of g * (centred / std)
        # gx = (g w - mean of (g w) - (centred / std) * mean of (g w centred / std)) / std, means over the group
        gx = xp.multiply(g, _row(inverse_std * (w * factor), rows), out=product)
        gx -= centred * _row(inverse_std**2 * ((g_weight * w) @ average), rows)
        gx -= _row(inverse_std * ((g_sum * w) @ average), rows)
        return gx.reshape(shape), g_weight.sum(axis=0), g_sum.sum(axis=0)

    return centred, inverse_std * w, vjp


@functools.lru_cache(maxsize=64)
def _group_average(channels, groups, entries, dtype, xp):
    """The (C, C) matrix that takes a sample's sums over pixels to the mean over each channel's group."""
    blocks = np.kron(np.eye(groups), np.ones((channels // groups, channels // groups)))
    return xp.asarray((blocks * (groups / entries)).astype(dtype))


def _row(per_channel, rows):
    """(N, C) or (1, C) -> (N, 1, W C): one value per channel, repeated along the rows (N, H, W C)."""
    n, channels = per_channel.shape
    repeated = per_channel[:, None].repeat(rows.shape[2] // channels, axis=1)
    return repeated.reshape(n, 1, -1)


def sum_pixels(a, xp):
    """Sum (N, P, C) over P: (N, C). By a matrix product with ones, several times faster than NumPy's own sum."""
    if xp is not np:
        return a.sum(axis=1)  # one launch, where a product of many small matrices takes several
    return (_ones(a.shape[1], a.dtype) @ a)[:, 0]


@functools.lru_cache(maxsize=64)
def _ones(count, dtype):
    return np.ones((1, count), dtype)


def _check(x, weight, bias, groups):
    check_devices("a norm", x, weight, bias)
    channels = x.shape[-1]
    if weight.shape != (channels,) or bias.shape != (channels,):
        raise ValueError(f"weight and bias must be ({channels},) for x {x.shape}, got {weight.shape} and {bias.shape}")
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
