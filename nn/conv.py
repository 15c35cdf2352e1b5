"""Convolution, the hottest op. Images are channels-last: (N, H, W, C).

Notation: N images, H x W pixels, C channels in, O channels out, KH x KW the filter, OH x OW the output.
`conv2d` computes one thing in one of two ways, each with the same signature and its own vjp:
- `conv2d_im2col`: every window copied to a row, then one matrix product; any filter, stride and padding;
- `conv2d_winograd`: 3x3 filters at stride 1 with a quarter of the multiplications.
`conv2d_loops` is the definition, which tests hold both against. Next: resampling.py.
"""

import functools

import numpy as np

from nn.cache import remembered
from nn.gpu import kernels
from nn.gpu.precision import matrix_product, products_in
from nn.norm import sum_pixels
from nn.tensors import check_devices, node

__all__ = ["conv2d", "conv2d_im2col", "conv2d_winograd", "conv2d_loops"]


def conv2d(x, weight, bias, stride=1, padding=0):
    """Cross-correlation of x (N, H, W, C) with weight (KH, KW, C, O), plus bias: (N, OH, OW, O).

    bias: (O,), or (N, O) for a bias of each sample's own (the way a U-Net is told its timestep without another pass).
    padding: zeros on each side. OH = (H + 2 padding - KH) // stride + 1. ValueError where the shapes do not fit.
    """
    _check(x, weight, bias, stride, padding)
    # With fewer channels Winograd's transforms cost more than they save, and on a GPU they are too many launches.
    worth_it = weight.shape[2] >= 8 and x.xp is np
    if worth_it and weight.shape[:2] == (3, 3) and stride == 1 and padding == 1:
        return conv2d_winograd(x, weight, bias)
    return conv2d_im2col(x, weight, bias, stride, padding)


def _check(x, weight, bias, stride, padding):
    check_devices("conv2d", x, weight, *([] if bias is None else [bias]))
    if x.ndim != 4 or weight.ndim != 4 or x.shape[3] != weight.shape[2]:
        raise ValueError(f"conv2d needs x (N, H, W, C) and weight (KH, KW, C, O), got {x.shape} and {weight.shape}")
    if bias is None:
        raise ValueError("conv2d needs a bias, (O,) or (N, O); this layer was made without one, so pass it in the call")
    if bias.shape not in ((weight.shape[3],), (x.shape[0], weight.shape[3])):
        raise ValueError(
            f"the bias must be ({weight.shape[3]},) or ({x.shape[0]}, {weight.shape[3]}), got {bias.shape}"
        )
    if stride < 1 or padding < 0:
        raise ValueError(f"conv2d needs stride >= 1 and padding >= 0, got {stride} and {padding}")
    if min(n + 2 * padding - k for n, k in zip(x.shape[1:3], weight.shape[:2], strict=True)) < 0:
        raise ValueError(
            f"the filter {weight.shape[:2]} is larger than the padded image {x.shape[1:3]} + 2 * {padding}"
        )


def conv2d_loops(x, weight, bias, stride=1, padding=0):
    """The definition, on plain NumPy arrays and by loops: what the fast ones must equal."""
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


def conv2d_im2col(x, weight, bias, stride=1, padding=0):
    """`conv2d` as one matrix product: (N OH OW, KH KW C) @ (KH KW C, O). Keeps x, not the KH KW times larger copy."""
    kh, kw, c, o = weight.shape
    matrix = weight.data.reshape(-1, o)
    a, xp, needs_gx = x.data, x.xp, x.requires_grad
    columns = _windows(a, kh, kw, stride, padding, xp)
    y = matrix_product(columns.reshape(-1, kh * kw * c), matrix).reshape(*columns.shape[:3], o)
    y += _per_pixel(bias.data)

    def vjp(g):
        rows = g.reshape(-1, o)
        gx = gw = None
        if weight.requires_grad:
            columns = _windows(a, kh, kw, stride, padding, xp).reshape(-1, kh * kw * c)
            gw = matrix_product(columns.T, rows).reshape(weight.shape)
        if needs_gx:
            columns = matrix_product(rows, matrix.T).reshape(*g.shape[:3], kh, kw, c)
            gx = _sum_windows(columns, a.shape, stride, padding, xp)
        return gx, gw, _bias_gradient(g, bias, xp)

    return node("conv2d_im2col", y, (x, weight, bias), vjp)


def _windows(a, kh, kw, stride, padding, xp):
    """Every window of a (N, H, W, C), as a view of its padded copy (a copy on a GPU): (N, OH, OW, KH, KW, C)."""
    if kernels.used_for(xp, a.dtype):
        return kernels.windows(a, kh, kw, stride, padding, bfloat16=products_in("bf16", a.dtype))
    a = _pad_image(a, padding, a.shape[1] + 2 * padding, a.shape[2] + 2 * padding, xp)
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


# ==== by Winograd's minimal filtering, F(4x4, 3x3) (Lavin & Gray 2015) ====
#
# In one dimension, 4 outputs of a 3-tap filter w over 6 inputs d are  A^T [(G w) * (B^T d)]:  6 products, not 12.
# In two dimensions it holds along both axes: 36 products for 16 outputs of 9 taps, not 144. All three transforms are
# linear, so over all tiles and channels each is two small matrix products, and each of the 36 products is one over
# channels. The vjp is the chain of their transposes, in reverse.

_A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


@functools.lru_cache(maxsize=16)
def _winograd_matrices(dtype, xp):
    """A^T (4, 6), B^T (6, 6) and G (6, 3) in `dtype` on the device of `xp`."""
    return tuple(xp.asarray(m.astype(dtype)) for m in (_A, _B, _G))


def _both_axes(matrix, planes):
    """matrix @ P @ matrix.T for every P along the first two axes of planes (K, K, ...), as (M, M, everything else)."""
    k = matrix.shape[1]
    planes = planes.reshape(k, k, -1)
    # Each product is a batch of k small ones on rows that lie apart: faster than one product k times as wide.
    return matrix @ (matrix @ planes.swapaxes(0, 1)).swapaxes(0, 1)


def conv2d_winograd(x, weight, bias):
    """`conv2d` for 3x3 filters, stride 1 and padding 1, by Winograd's minimal filtering. Keeps the transformed input."""
    n, h, w, c = x.shape
    o = weight.shape[3]
    xp, needs_gx = x.xp, x.requires_grad  # the vjp must not name x: its data is not needed any more
    output_map, input_map, filter_map = _winograd_matrices(x.dtype, xp)
    ty, tx = -(-h // 4), -(-w // 4)  # tiles of 4 x 4 outputs; those that hang over the edge are cut off
    filters = _transform_filters(weight, filter_map)
    inputs = _both_axes(input_map, _tiles(x.data, ty, tx, xp)).reshape(36, -1, c)
    products = inputs @ filters
    # Column 1 of A^T is all ones: what is added to plane (1, 1) of the products reaches all 16 outputs of a tile.
    products[7].reshape(n, ty * tx, o)[...] += bias.data.reshape(-1, 1, o)
    y = _both_axes(output_map, products.reshape(6, 6, -1))
    y = _join_tiles(y.reshape(4, 4, n, ty, tx, o), h, w, xp)

    def vjp(g):
        g_tiles = _pad_image(g, 0, 4 * ty, 4 * tx, xp).reshape(n, ty, 4, tx, 4, o).transpose(2, 4, 0, 1, 3, 5)
        g_products = _both_axes(output_map.T, g_tiles).reshape(36, -1, o)
        gx = gw = g_bias = None
        if weight.requires_grad:
            g_filters = inputs.swapaxes(1, 2) @ g_products
            gw = _both_axes(filter_map.T, g_filters.reshape(6, 6, -1)).reshape(weight.shape)
        if needs_gx:
            g_inputs = g_products @ _transposed_filters(weight, filter_map)
            gx = _both_axes(input_map.T, g_inputs.reshape(6, 6, -1))
            gx = _sum_tiles(gx.reshape(6, 6, n, ty, tx, c), h, w, xp)
        if bias.requires_grad:
            g_bias = sum_pixels(g_products[7].reshape(n, ty * tx, o), xp)
        return gx, gw, g_bias if bias.ndim == 2 or g_bias is None else g_bias.sum(axis=0)

    return node("conv2d_winograd", y, (x, weight, bias), vjp)


def _transform_filters(weight, filter_map):
    """G w G^T of every filter: (36, C, O)."""
    return _kept("filters", weight, lambda: _both_axes(filter_map, weight.data).reshape(36, *weight.shape[2:]))


def _transposed_filters(weight, filter_map):
    """The same as (36, O, C)."""
    return _kept("transposed", weight, lambda: _transform_filters(weight, filter_map).swapaxes(1, 2).copy())


def _kept(what, weight, compute):
    """What is made of a parameter is `remembered`; of weights that were computed it is not, as they do not come again."""
    is_parameter = weight.requires_grad and weight.node is None
    return remembered(what, weight, compute) if is_parameter else compute()


def _tiles(a, ty, tx, xp):
    """The 6 x 6 input tiles of a (N, H, W, C), which overlap by two, as a view: (6, 6, N, TY, TX, C)."""
    n, _, _, c = a.shape
    padded = _pad_image(a, 1, 4 * ty + 2, 4 * tx + 2, xp)
    sn, sh, sw, sc = padded.strides
    return xp.lib.stride_tricks.as_strided(padded, (6, 6, n, ty, tx, c), (sh, sw, sn, 4 * sh, 4 * sw, sc))


def _join_tiles(tiles, h, w, xp):
    """Tiles of 4 x 4 pixels (4, 4, N, TY, TX, C) side by side, cut to h x w: (N, H, W, C)."""
    _, _, n, ty, tx, c = tiles.shape
    image = tiles.transpose(2, 3, 0, 4, 1, 5).reshape(n, 4 * ty, 4 * tx, c)
    return xp.ascontiguousarray(image[:, :h, :w])


def _sum_tiles(tiles, h, w, xp):
    """The transpose of `_tiles`: (6, 6, N, TY, TX, C), overlapping by two, added up: (N, H, W, C). Overwrites `tiles`.

    Pixels 1..4 of a tile are its own; pixel 0 lies on pixel 4 of the tile before, and pixel 5 on pixel 1 of the next.
    """
    tiles[4, :, :, :-1] += tiles[0, :, :, 1:]
    tiles[1, :, :, 1:] += tiles[5, :, :, :-1]
    rows = tiles[1:5]
    rows[:, 4, :, :, :-1] += rows[:, 0, :, :, 1:]
    rows[:, 1, :, :, 1:] += rows[:, 5, :, :, :-1]
    return _join_tiles(rows[:, 1:5], h, w, xp)


# ==== shared ====


def _pad_image(a, before, height, width, xp):
    """a (N, H, W, C) with zeros around it: `before` above and to the left, and height x width in all."""
    n, h, w, c = a.shape
    if (h, w) == (height, width):
        return xp.ascontiguousarray(a)
    padded = xp.zeros((n, height, width, c), a.dtype)
    padded[:, before : before + h, before : before + w] = a
    return padded


def _per_pixel(bias):
    """A bias (O,) or (N, O) as an array that broadcasts on (N, OH, OW, O)."""
    return bias.reshape(-1, 1, 1, bias.shape[-1])


def _bias_gradient(g, bias, xp):
    """Sum of g (N, OH, OW, O) over pixels, and over the batch where the bias is (O,)."""
    if not bias.requires_grad:
        return None
    per_sample = sum_pixels(g.reshape(g.shape[0], -1, g.shape[3]), xp)
    return per_sample if bias.ndim == 2 else per_sample.sum(axis=0)
