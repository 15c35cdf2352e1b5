"""Convolution, the hottest op. Images are channels-last: (N, H, W, C).

Notation: N images, H x W pixels, C channels in, O channels out, KH x KW the filter, OH x OW the output.
`conv2d` computes the same in one of two ways, each with a vjp of its own:
- `conv2d_im2col`: copies every window to a row, then takes one matrix product; any filter, stride and padding;
- `conv2d_winograd`, in winograd.py: 3x3 filters at stride 1, with a quarter of the multiplications.
`conv2d_loops` is the definition, to which the tests hold both. Next: winograd.py.
"""

import numpy as np

from nn.gpu import kernels
from nn.gpu.precision import matrix_product, products_in
from nn.norm import sum_pixels
from nn.options import whole
from nn.tensors import check_devices, node
from nn.winograd import conv2d_winograd

__all__ = ["conv2d", "conv2d_im2col", "conv2d_loops"]


def conv2d(x, weight, bias=None, stride=1, padding=0):
    """Cross-correlation of x (N, H, W, C) with weight (KH, KW, C, O), plus bias: (N, OH, OW, O).

    bias: (O,); or (N, O), one bias per sample, by which a U-Net adds its timestep without another pass; or None.
    padding: zeros on each side. OH = (H + 2 padding - KH) // stride + 1. ValueError where shapes do not fit.
    """
    stride, padding = whole("stride", stride, 1), whole("padding", padding)
    _check(x, weight, bias, padding)
    # Below 8 channels Winograd's transforms cost more than they save. On a GPU they need too many kernel launches.
    worth_it = weight.shape[2] >= 8 and x.xp is np
    if worth_it and weight.shape[:2] == (3, 3) and stride == 1 and padding == 1:
        return conv2d_winograd(x, weight, bias)
    return conv2d_im2col(x, weight, bias, stride, padding)


def _check(x, weight, bias, padding):
    check_devices("conv2d", x, weight, *([] if bias is None else [bias]))
    shape, filters = x.shape, weight.shape
    if len(shape) != 4 or len(filters) != 4 or shape[3] != filters[2] or 0 in filters:
        raise ValueError(f"conv2d needs x (N, H, W, C) and weight (KH, KW, C, O), got {shape} and {filters}")
    (n, h, w, _), (kh, kw, _, o) = shape, filters
    if bias is not None and bias.shape not in ((o,), (n, o)):
        raise ValueError(f"the bias must be ({o},) or ({n}, {o}), got {bias.shape}")
    if kh > h + 2 * padding or kw > w + 2 * padding:
        raise ValueError(f"the filter {[kh, kw]} is larger than the padded image {[h, w]} + 2 * {padding}")


def conv2d_loops(x, weight, bias=0, stride=1, padding=0):
    """The definition, by loops over plain NumPy arrays. bias: (O,), or a number."""
    n, h, w, _ = x.shape
    kh, kw, _, o = weight.shape
    oh, ow = (h + 2 * padding - kh) // stride + 1, (w + 2 * padding - kw) // stride + 1
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    y = np.empty((n, oh, ow, o), x.dtype)
    for i in range(oh):
        for j in range(ow):
            window = x[:, i * stride : i * stride + kh, j * stride : j * stride + kw]
            y[:, i, j] = np.tensordot(window, weight, 3) + bias
    return y


# ==== by im2col ====


def conv2d_im2col(x, weight, bias=None, stride=1, padding=0):
    """`conv2d` as one matrix product: (N OH OW, KH KW C) @ (KH KW C, O). Keeps x, not the KH KW times larger copy."""
    kh, kw, c, o = weight.shape
    matrix = weight.data.reshape(kh * kw * c, o)
    a, xp, needs_gx = x.data, x.xp, x.requires_grad
    columns = _windows(a, kh, kw, stride, padding, xp)
    y = matrix_product(columns.reshape(-1, kh * kw * c), matrix).reshape(*columns.shape[:3], o)
    if bias is not None:
        y += bias.data.reshape(-1, 1, 1, o)

    def vjp(g):
        rows = g.reshape(-1, o)
        gx = gw = None
        if weight.requires_grad:
            columns = _windows(a, kh, kw, stride, padding, xp).reshape(-1, kh * kw * c)
            gw = matrix_product(columns.T, rows).reshape(weight.shape)
        if needs_gx:  # the transposed convolution of g: each of its pixels adds a multiple of the filter to gx
            columns = matrix_product(rows, matrix.T).reshape(*g.shape[:3], kh, kw, c)
            gx = _sum_windows(columns, a.shape, stride, padding, xp)
        return (gx, gw) if bias is None else (gx, gw, _bias_gradient(g, bias, xp))

    return node("conv2d_im2col", y, (x, weight) if bias is None else (x, weight, bias), vjp)


def _padded(a, padding, xp):
    """a (N, H, W, C) with `padding` rows and columns of zeros on each side."""
    if not padding:
        return xp.ascontiguousarray(a)
    n, h, w, c = a.shape
    padded = xp.zeros((n, h + 2 * padding, w + 2 * padding, c), a.dtype)
    padded[:, padding:-padding, padding:-padding] = a
    return padded


def _windows(a, kh, kw, stride, padding, xp):
    """Every window of a (N, H, W, C), as a view of its padded copy (a copy on a GPU): (N, OH, OW, KH, KW, C)."""
    if kernels.used_for(xp, a.dtype):
        return kernels.windows(a, kh, kw, stride, padding, bfloat16=products_in("bf16", a.dtype))
    a = _padded(a, padding, xp)
    n, h, w, c = a.shape
    sn, sh, sw, sc = a.strides
    shape = (n, (h - kh) // stride + 1, (w - kw) // stride + 1, kh, kw, c)
    return xp.lib.stride_tricks.as_strided(a, shape, (sn, stride * sh, stride * sw, sh, sw, sc))


def _sum_windows(columns, shape, stride, padding, xp):
    """The transpose of `_windows`: add every window back to where it was cut. columns: (N, OH, OW, KH, KW, C)."""
    if kernels.used_for(xp, columns.dtype):
        return kernels.sum_windows(columns, shape, stride, padding)
    n, h, w, c = shape
    _, oh, ow, kh, kw, _ = columns.shape
    padded = xp.zeros((n, h + 2 * padding, w + 2 * padding, c), columns.dtype)
    for i in range(kh):
        for j in range(kw):
            padded[:, i : i + stride * oh : stride, j : j + stride * ow : stride] += columns[:, :, :, i, j]
    return padded[:, padding : padding + h, padding : padding + w]


def _bias_gradient(g, bias, xp):
    """Sum of g (N, OH, OW, O) over pixels, and over the batch where the bias is (O,)."""
    if not bias.requires_grad:
        return None
    n, oh, ow, o = g.shape
    per_sample = sum_pixels(g.reshape(n, oh * ow, o), xp)
    return per_sample if bias.ndim == 2 else per_sample.sum(axis=0)
