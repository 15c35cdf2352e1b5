"""A 3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering, F(4x4, 3x3).

From Lavin & Gray 2015, "Fast algorithms for convolutional neural networks". The image is cut into tiles. A tile of 4x4
outputs needs 6x6 inputs, its own pixels (o) and those around them (.); so the tiles of inputs overlap by two pixels:

    . . . . . .                    column  -1  0  1  2  3  4  5  6  7  8
    . o o o o .                    tile 0  [.  o  o  o  o  .]
    . o o o o .   -> o o o o       tile 1              [.  o  o  o  o  .]
    . o o o o .      o o o o
    . o o o o .      o o o o
    . . . . . .      o o o o

In one dimension, 4 outputs y of a 3-tap filter w over 6 inputs d are y = A^T [(G w) * (B^T d)], with * entry by entry:
6 products in place of 12. In two dimensions the same holds along both axes: 36 products for 16 outputs of 9 taps each,
in place of 144. The three transforms are linear. Over all tiles and channels, each is two products with a small
matrix (`_both_axes`). Each of the 36 products is one matrix product over channels. The vjp applies the transposes of
all these, in reverse order.

Names: N images, H x W pixels, C channels in, O channels out, TY x TX tiles. Next: resampling.py.
"""

import functools

import numpy as np

from nn.cache import remembered
from nn.norm import sum_pixels
from nn.tensors import node

__all__ = ["conv2d_winograd"]

# The paper's A^T, B^T and G.
_A_TRANSPOSED = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_B_TRANSPOSED = np.array(
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

# Column 1 of A^T is all ones. So a bias added to plane (1, 1) of the 36 products is added to all 16 outputs of a tile.
_ONES = 1, 1


@functools.lru_cache(maxsize=16)
def _transforms(dtype, xp):
    """To outputs (A^T, 4 x 6), to inputs (B^T, 6 x 6) and to filters (G, 6 x 3), in `dtype` on the device of `xp`."""
    return tuple(xp.asarray(matrix.astype(dtype)) for matrix in (_A_TRANSPOSED, _B_TRANSPOSED, _G))


def conv2d_winograd(x, weight, bias=None):
    """`conv2d` with 3x3 filters, stride 1 and padding 1. Keeps the transformed inputs, 9/4 of the size of x."""
    n, h, w, c = x.shape
    o = weight.shape[3]
    xp, needs_gx = x.xp, x.requires_grad  # the vjp must not name x: its data is not needed any more
    to_outputs, to_inputs, to_filters = _transforms(x.dtype, xp)
    ty, tx = -(-h // 4), -(-w // 4)  # tiles that hang over the edge are cut off in the end
    inputs = _both_axes(to_inputs, _cut(x.data, ty, tx, xp)).reshape(36, n * ty * tx, c)
    products = (inputs @ _filters(weight, to_filters)).reshape(6, 6, n, ty * tx, o)
    if bias is not None:
        products[_ONES] += bias.data.reshape(-1, 1, o)
    outputs = _both_axes(to_outputs, products).reshape(4, 4, n, ty, tx, o)

    def vjp(g):
        g_outputs = pad_image(g, 0, 4 * ty, 4 * tx, xp).reshape(n, ty, 4, tx, 4, o).transpose(2, 4, 0, 1, 3, 5)
        g_products = _both_axes(to_outputs.T, g_outputs).reshape(36, n * ty * tx, o)
        gx = gw = None
        if weight.requires_grad:
            g_filters = inputs.swapaxes(1, 2) @ g_products
            gw = _both_axes(to_filters.T, g_filters.reshape(6, 6, c * o)).reshape(weight.shape)
        if needs_gx:
            g_inputs = g_products @ _filters_transposed(weight, to_filters)
            g_tiles = _both_axes(to_inputs.T, g_inputs.reshape(6, 6, n * ty * tx * c))
            gx = _add_up(g_tiles.reshape(6, 6, n, ty, tx, c), h, w, xp)
        if bias is None:
            return gx, gw
        g_bias = sum_pixels(g_products.reshape(6, 6, n, ty * tx, o)[_ONES], xp) if bias.requires_grad else None
        return gx, gw, g_bias if bias.ndim == 2 or g_bias is None else g_bias.sum(axis=0)

    parents = (x, weight) if bias is None else (x, weight, bias)
    return node("conv2d_winograd", _join(outputs, h, w, xp), parents, vjp)


def _both_axes(matrix, planes):
    """out[i, j] = sum over k, l of matrix[i, k] planes[k, l] matrix[j, l]: (K, K, ...) -> (M, M, all other entries)."""
    k = matrix.shape[1]
    planes = planes.reshape(k, k, -1)
    # Two products, one per axis. Each is a batch of k small products, which is faster than one product k times as wide.
    return matrix @ (matrix @ planes.swapaxes(0, 1)).swapaxes(0, 1)


# ==== filters ====


def _filters(weight, to_filters):
    """The transformed filters, (36, C, O)."""
    shape = 36, *weight.shape[2:]
    return _once("filters", weight, lambda: _both_axes(to_filters, weight.data).reshape(shape))


def _filters_transposed(weight, to_filters):
    """The same as (36, O, C)."""
    return _once("transposed filters", weight, lambda: _filters(weight, to_filters).swapaxes(1, 2).copy())


def _once(what, weight, compute):
    """compute(), cached inside `constant_weights` if `weight` is a parameter.

    A weight that an op computed is a new Tensor at every call: the cache would keep it and never find it again.
    """
    return remembered(what, weight, compute) if weight.requires_grad and weight.node is None else compute()


# ==== tiles ====


def pad_image(a, before, height, width, xp):
    """a (N, H, W, C) with zeros around it: `before` above and to the left, and height x width in all."""
    n, h, w, c = a.shape
    if (h, w) == (height, width):
        return xp.ascontiguousarray(a)
    padded = xp.zeros((n, height, width, c), a.dtype)
    padded[:, before : before + h, before : before + w] = a
    return padded


def _cut(a, ty, tx, xp):
    """The tiles of inputs of a (N, H, W, C), as a view of its padded copy: (6, 6, N, TY, TX, C)."""
    n, _, _, c = a.shape
    padded = pad_image(a, 1, 4 * ty + 2, 4 * tx + 2, xp)
    sn, sh, sw, sc = padded.strides
    return xp.lib.stride_tricks.as_strided(padded, (6, 6, n, ty, tx, c), (sh, sw, sn, 4 * sh, 4 * sw, sc))


def _join(tiles, h, w, xp):
    """Tiles of outputs (4, 4, N, TY, TX, C) side by side, cut to h x w: (N, H, W, C)."""
    _, _, n, ty, tx, c = tiles.shape
    image = tiles.transpose(2, 3, 0, 4, 1, 5).reshape(n, 4 * ty, 4 * tx, c)
    return xp.ascontiguousarray(image[:, :h, :w])


def _add_up(tiles, h, w, xp):
    """The transpose of `_cut`: tiles (6, 6, N, TY, TX, C) added where they overlap: (N, H, W, C). Overwrites `tiles`.

    Rows 1 to 4 of a tile are its own. Row 0 lies on row 4 of the tile above, and row 5 on row 1 of the tile below. So
    for columns.
    """
    tiles[4, :, :, :-1] += tiles[0, :, :, 1:]
    tiles[1, :, :, 1:] += tiles[5, :, :, :-1]
    rows = tiles[1:5]
    rows[:, 4, :, :, :-1] += rows[:, 0, :, :, 1:]
    rows[:, 1, :, :, 1:] += rows[:, 5, :, :, :-1]
    return _join(rows[:, 1:5], h, w, xp)
