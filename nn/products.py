"""Linear maps and attention: matrix products and what stands between them, as one op each. Next: layers.py."""

import math

from nn.gpu.precision import matrix_product
from nn.norm import sum_pixels
from nn.ops import softmax_array, softmax_vjp
from nn.tensors import node

__all__ = ["linear", "attention"]


def linear(x, weight, bias):
    """x weight + bias, for x (..., I), weight (I, O) and bias (O,): (..., O). ValueError where shapes do not fit."""
    x, bias = weight.operand("linear", x), weight.operand("linear", bias)
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[0] or bias.shape != weight.shape[1:]:
        given = f"{x.shape}, {weight.shape} and {bias.shape}"
        raise ValueError(f"linear needs x (..., I), weight (I, O) and bias (O,), got {given}")
    xp, shape, (inputs, outputs) = x.xp, x.shape, weight.shape
    count = math.prod(shape[:-1])  # a -1 would not do where there are no channels
    rows, matrix = x.data.reshape(count, inputs), weight.data
    y = matrix_product(rows, matrix)
    y += bias.data
    needs_gx, kept = x.requires_grad, rows if weight.requires_grad else None

    def vjp(g):
        g = g.reshape(count, outputs)
        gx = matrix_product(g, matrix.T).reshape(shape) if needs_gx else None
        gw = None if kept is None else matrix_product(kept.T, g)
        return gx, gw, sum_pixels(g[None], xp)[0]

    return node("linear", y.reshape(*shape[:-1], outputs), (x, weight, bias), vjp)


def attention(query, key, value):
    """Scaled dot-product attention (Vaswani et al. 2017): softmax(query key^T / sqrt(D)) value.

    query, key, value: (..., L, D), (..., M, D) and (..., M, E); returns (..., L, E).
    """
    matrices = min(query.ndim, key.ndim, value.ndim) > 1
    if not matrices or query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        raise ValueError(
            f"attention needs (..., L, D), (..., M, D), (..., M, E), got {query.shape}, {key.shape}, {value.shape}"
        )
    key, value = query.operand("attention", key), query.operand("attention", value)
    q, k, v, scale = query.data, key.data, value.data, query.shape[-1] ** -0.5
    y = softmax_array(matrix_product(q * scale, k.swapaxes(-1, -2)), -1, query.xp)

    def vjp(g):
        g_scores = softmax_vjp(matrix_product(g, v.swapaxes(-1, -2)), y, -1)
        g_scores *= scale
        gq, gk = matrix_product(g_scores, k), matrix_product(g_scores.swapaxes(-1, -2), q)
        return gq, gk, matrix_product(y.swapaxes(-1, -2), g)

    return node("attention", matrix_product(y, v), (query, key, value), vjp)
