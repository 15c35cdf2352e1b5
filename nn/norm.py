"""Group norm and layer norm: plain, and group norm with silu in as few passes over memory as they need.

Normalisation is bound by memory, not by arithmetic: on a CPU it costs as much as a convolution when it is written as
ten elementwise expressions. So sums over pixels are matrix products with a row of ones (BLAS reads at full speed), the
per-channel scale and shift are one multiply and one add, and silu is joined on where it follows. Next: conv.py.
"""

from nn.tensor import node

__all__ = ["group_norm", "group_norm_silu", "layer_norm"]

EPSILON = 1e-5  # added to the variance, as in Wu & He 2018 and PyTorch


def group_norm(x, weight, bias, groups):
    """Wu & He 2018: each sample's channels, in `groups` groups, to mean 0 and variance 1; then weight and bias.

    x: (N, ..., C), channels last. weight, bias: (C,). ValueError unless `groups` divides C.
    """
    scale, shift, rows, normalise_vjp = _normalise(x, weight, bias, groups)
    y = (rows * scale + shift).reshape(x.shape)
    return node(y, (x, weight, bias), normalise_vjp)


def group_norm_silu(x, weight, bias, groups):
    """silu(group_norm(x, weight, bias, groups)) in one op: keeps x alone, and makes the rest again in backward."""
    xp, shape = x.xp, x.shape
    scale, shift, rows, normalise_vjp = _normalise(x, weight, bias, groups)
    half_scale, half_shift = 0.5 * scale, 0.5 * shift

    def half_and_tanh():
        """h = z / 2 and tanh(h), where z is the normalised value: silu(z) = z sigmoid(z) = h + h tanh(h)."""
        h = rows * half_scale
        h += half_shift
        return h, xp.tanh(h)

    def vjp(g):
        h, t = half_and_tanh()
        # silu'(z) = (1 + t) / 2 + h (1 - t^2) / 2 = (1 + t) (1 + h (1 - t)) / 2
        h -= h * t
        h += 1
        t += 1
        h *= t
        h *= g.reshape(rows.shape)
        h *= 0.5
        return normalise_vjp(h.reshape(shape))

    y, t = half_and_tanh()
    t *= y
    y += t
    return node(y.reshape(shape), (x, weight, bias), vjp)


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

    return node(normalised * w + bias.data, (x, weight, bias), vjp)


def _normalise(x, weight, bias, groups):
    """Group norm as y = rows * scale + shift, and its vjp.

    rows: x as (N, H, W C), long rows so that NumPy's inner loop is long. scale, shift: (N, 1, W C), equal for all
    pixels of a sample and channel. The vjp needs x and those, and nothing that was made on the way.
    """
    _check(x, weight, bias, groups)
    xp, a, w = x.xp, x.data, weight.data
    n, channels = x.shape[0], x.shape[-1]
    pixels = a.reshape(n, -1, channels)
    rows = a.reshape(n, x.shape[1] if x.ndim > 3 else 1, -1)
    repeat = rows.shape[2] // channels
    count = pixels.shape[1] * (channels // groups)

    def over_group(per_channel):
        """Sum (N, C) over each group's channels, and hand every channel its group's sum: (N, C)."""
        sums = per_channel.reshape(n, groups, -1).sum(axis=2, keepdims=True)
        return xp.broadcast_to(sums, (n, groups, channels // groups)).reshape(n, channels)

    def row(per_channel):
        """(N, C) -> (N, 1, W C): one value per channel, repeated along a row of pixels."""
        return xp.tile(per_channel, (1, repeat))[:, None]

    # Sums about the first pixel's mean, not about 0: the variance of data far from 0 would be lost to cancellation.
    pivot = over_group(pixels[:, 0]) / (channels // groups)
    centred = rows - row(pivot)
    first = sum_pixels(centred.reshape(pixels.shape), xp)
    centred *= centred
    second = over_group(sum_pixels(centred.reshape(pixels.shape), xp)) / count
    offset = over_group(first) / count
    mean = pivot + offset
    inverse_std = 1 / xp.sqrt(second - offset * offset + EPSILON)
    scale = inverse_std * w

    def vjp(g):
        g_sum = sum_pixels(g.reshape(pixels.shape), xp)
        product = g * a
        gx_sum = sum_pixels(product.reshape(pixels.shape), xp)
        g_normalised = (gx_sum - mean * g_sum) * inverse_std  # sum over pixels of g * (x - mean) / std
        along = over_group(g_normalised * w) / count * inverse_std * inverse_std
        centre = over_group(g_sum * w) / count * inverse_std - along * mean
        # gx = g scale - (mean of g w + normalised x * mean of g w normalised x) / std
        gx = xp.multiply(g.reshape(rows.shape), row(scale), out=product.reshape(rows.shape))
        gx -= rows * row(along)
        gx -= row(centre)
        return gx.reshape(a.shape), g_normalised.sum(axis=0), g_sum.sum(axis=0)

    return row(scale), row(bias.data - mean * scale), rows, vjp


def sum_pixels(a, xp):
    """Sum (N, P, C) over P as a matrix product with ones, several times faster than NumPy's own sum: (N, C)."""
    return (xp.ones((1, a.shape[1]), a.dtype) @ a)[:, 0]


def _check(x, weight, bias, groups):
    channels = x.shape[-1]
    if weight.shape != (channels,) or bias.shape != (channels,):
        raise ValueError(f"weight and bias must be ({channels},) for x {x.shape}, got {weight.shape} and {bias.shape}")
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels do not divide into {groups} groups")
