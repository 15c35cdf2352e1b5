"""Convolution, norms and batches as a first NumPy version has them: the second peer of the benchmark."""

import nn
from nn.conv import _sum_windows, _windows
from nn.tensors import node

__all__ = ["WholeBatch", "conv2d", "group_norm", "group_norm_silu"]


def conv2d(x, weight, bias, stride=1, padding=0):
    """im2col over the whole batch, kept for backward."""
    kh, kw, c, o = weight.shape
    matrix, shape, xp = weight.data.reshape(-1, o), x.shape, x.xp
    windows = _windows(x.data, kh, kw, stride, padding, xp)
    out = windows.shape[:3]
    columns = windows.reshape(-1, kh * kw * c)
    y = (columns @ matrix).reshape(*out, o) + bias.data.reshape(-1, 1, 1, o)

    def vjp(g):
        rows = g.reshape(-1, o)
        gx = _sum_windows((rows @ matrix.T).reshape(*out, kh, kw, c), shape, stride, padding, xp)
        g_bias = g.sum(axis=(1, 2)) if bias.ndim == 2 else g.sum(axis=(0, 1, 2))
        return gx, (columns.T @ rows).reshape(weight.shape), g_bias

    return node("conv2d", y, (x, weight, bias), vjp)


def group_norm(x, weight, bias, groups):
    """From the elementary ops."""
    n, c = x.shape[0], x.shape[-1]
    grouped = x.reshape(n, -1, groups, c // groups)
    centred = grouped - grouped.mean(axis=(1, 3), keepdims=True)
    variance = (centred * centred).mean(axis=(1, 3), keepdims=True)
    return (centred / nn.sqrt(variance + 1e-5)).reshape(x.shape) * weight + bias


def group_norm_silu(x, weight, bias, groups):
    """Two ops."""
    return nn.silu(group_norm(x, weight, bias, groups))


class WholeBatch:
    """In place of `nn.Parallel`: the batch at once, and BLAS on as many threads as it likes."""

    def loss_and_gradient(self, loss, model, *batch):
        value = loss(model, *batch)
        found = nn.gradients(value, model.parameters())
        return value.data, nn.array_module(value.data).concatenate([g.reshape(-1) for g in found])

    def map(self, function, model, *batch):
        with nn.no_grad():
            return function(model, *batch).data
