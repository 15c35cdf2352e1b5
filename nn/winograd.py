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
_ONES = 6 * 1 + 1


@functools.lru_cache(maxsize=16)
def _transforms(dtype, xp):
    """To outputs (A^T, 4 x 6), to inputs (B^T, 6 x 6) and to filters (G, 6 x 3), in `dtype` on the device of `xp`."""
    return tuple(xp.asarray(matrix.astype(dtype)) for matrix in (_A_TRANSPOSED, _B_TRANSPOSED, _G))


def conv2d_winograd(x, weight, bias=None):
    """`conv2d` with 3x3 filters, stride 1 and padding 1. Keeps the transformed inputs, 9/4 of the size of x."""
    n, h, w, c = x.shape
    o, tiles = weight.shape[3], -(-h // 4) * -(-w // 4)
    xp, needs_gx = x.xp, x.requires_grad  # the vjp must not name x: its data is not needed any more
    to_outputs, to_inputs, to_filters = _transforms(x.dtype, xp)
    inputs = _both_axes(to_inputs, _cut(x.data, 6, xp))
    products = inputs @ _filters(weight, to_filters)
    if bias is not None:
        plane = products[_ONES].reshape(n, tiles, o)
        plane += bias.data.reshape(-1, 1, o)
    outputs = _both_axes(to_outputs, products)

    def vjp(g):
        g_products = _both_axes(to_outputs.T, _cut(g, 4, xp))
        gx = gw = None
        if weight.requires_grad:
            gw = _both_axes(to_filters.T, inputs.swapaxes(1, 2) @ g_products).reshape(weight.shape)
        if needs_gx:
            g_tiles = _both_axes(to_inputs.T, g_products @ _filters_transposed(weight, to_filters))
            gx = _add_up(g_tiles, n, h, w, xp)
        if bias is None:
            return gx, gw
        g_bias = sum_pixels(g_products[_ONES].reshape(n, tiles, o), xp) if bias.requires_grad else None
        return gx, gw, g_bias if bias.ndim == 2 or g_bias is None else g_bias.sum(axis=0)

    parents = (x, weight) if bias is None else (x, weight, bias)
    return node("conv2d_winograd", _join(outputs, n, h, w, xp), parents, vjp)


def _both_axes(matrix, planes):
    """out[i, j] = sum over k, l of matrix[i, k] planes[k, l] matrix[j, l]: (K^2, A, B) -> (M^2, A, B)."""
    (m, k), (_, *others) = matrix.shape, planes.shape
    # Two products, one per axis. One with the Kronecker product takes as long with BLAS, and twice as long without.
    along_one = (matrix @ planes.reshape(k, k, -1).swapaxes(0, 1)).swapaxes(0, 1)
    return (matrix @ along_one).reshape(m * m, *others)


# ==== filters ====


def _filters(weight, to_filters):
    """The transformed filters, (36, C, O)."""
    shape = 9, *weight.shape[2:]
    return _once("filters", weight, lambda: _both_axes(to_filters, weight.data.reshape(shape)))


def _filters_transposed(weight, to_filters):
    """The same as (36, O, C)."""
    return _once("transposed filters", weight, lambda: _filters(weight, to_filters).swapaxes(1, 2).copy())


def _once(what, weight, compute):
    """compute(), cached inside `constant_weights` if `weight` is a parameter.

    A weight that an op computed is a new Tensor at every call: the cache would keep it and never find it again.
    """
    return remembered(what, weight, compute) if weight.requires_grad and weight.node is None else compute()


# ==== tiles ====


@functools.lru_cache(maxsize=32)
def _places(n, h, w, size, xp):
    """Where the pixels of n images lie in their tiles of size x size pixels, 4 apart; size is 4 or 6.

    Returns for each place in the tiles its pixel, (size^2, N TY TX) of numbers in 0..N H W - 1; the places outside of
    the images; and for each pixel its place in the tile that it is an output of, (N, H, W).
    """
    edge, ty, tx = (size - 4) // 2, -(-h // 4), -(-w // 4)  # tiles that hang over the edge are cut off in the end
    pixels = np.full((n, 4 * ty + 2 * edge, 4 * tx + 2 * edge), -1)
    pixels[:, edge : edge + h, edge : edge + w] = np.arange(n * h * w).reshape(n, h, w)
    tiles = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))[:, ::4, ::4]
    tiles = tiles.transpose(3, 4, 0, 1, 2).reshape(size * size, n * ty * tx)
    places = np.arange(tiles.size).reshape(size, size, n, ty, tx)[edge : size - edge, edge : size - edge]
    places = places.transpose(2, 3, 0, 4, 1).reshape(n, 4 * ty, 4 * tx)[:, :h, :w]
    outside = np.flatnonzero(tiles < 0)
    return xp.asarray(np.maximum(tiles, 0)), xp.asarray(outside), xp.asarray(np.ascontiguousarray(places))


def _cut(a, size, xp):
    """The tiles of a (N, H, W, C), with zeros outside of the images: (size^2, N TY TX, C)."""
    pixels, outside, _ = _places(*a.shape[:3], size, xp)
    tiles = a.reshape(-1, a.shape[3]).take(pixels, axis=0)
    tiles.reshape(-1, a.shape[3])[outside] = 0
    return tiles


def _join(tiles, n, h, w, xp):
    """The images of which `tiles` (size^2, N TY TX, C) are the tiles: (N, H, W, C)."""
    _, _, places = _places(n, h, w, int(len(tiles) ** 0.5), xp)
    return tiles.reshape(-1, tiles.shape[2]).take(places, axis=0)


def _add_up(tiles, n, h, w, xp):
    """The transpose of `_cut`: tiles (36, N TY TX, C) added where they overlap: (N, H, W, C). Overwrites `tiles`.

    Rows 1 to 4 of a tile are its own. Row 0 lies on row 4 of the tile above, and row 5 on row 1 of the tile below. So
    for columns.
    """
    t = tiles.reshape(6, 6, n, -(-h // 4), -(-w // 4), tiles.shape[2])
    t[4, :, :, :-1] += t[0, :, :, 1:]
    t[1, :, :, 1:] += t[5, :, :, :-1]
    t = t[1:5]
    t[:, 4, :, :, :-1] += t[:, 0, :, :, 1:]
    t[:, 1, :, :, 1:] += t[:, 5, :, :, :-1]
    return _join(tiles, n, h, w, xp)
