"""What a GPU does in one pass where the plain version takes many: the launches of the kernels in kernels.cu.

On a GPU each call of the plain version is a launch and a pass over memory. These functions take and give plain arrays
and are called by the functions they speed up (`conv2d`, `group_norm`, `Adam`, `random.normal`, ...), which are the
ones to read first: each has its plain version beside it, and `plain_versions` runs that. Next: precision.py.
"""

import functools
from pathlib import Path

import numpy as np

from nn.backend import array_module
from nn.scope import Scope

__all__ = ["used_for", "plain_versions", "SOURCE", "to_bfloat16", "windows", "sum_windows", "group_norm"]
__all__ += ["group_norm_gradients", "adam", "moving_average", "random_numbers"]

SOURCE = Path(__file__).with_name("kernels.cu")
_THREADS = 256  # in a block
_REAL = {"float32": "float", "float64": "double"}
_plain = Scope("plain", False)


def used_for(xp, dtype=np.float32):
    """Whether arrays of the module `xp` with this dtype go through the kernels."""
    return xp is not np and str(dtype) in _REAL and not _plain.get()


def plain_versions():
    """A `with` block in which no kernel is used, on no device: what the kernels must equal."""
    return _plain.set(True)


@functools.cache
def _kernel(cupy, name, real):
    return _module(cupy, real).get_function(name)


@functools.cache
def _module(cupy, real):
    return cupy.RawModule(code=SOURCE.read_text("utf-8"), options=(f"-DREAL={real}",))


def _launch(name, count, inputs, outputs, *numbers, dtype=np.float32):
    """Run a kernel with a thread for each of `count` entries; returns the outputs.

    The arguments of the kernel are the arrays, the count, and `numbers`: ints as int, floats as `dtype`.
    """
    if max(array.size for array in (*inputs, *outputs)) >= 2**31:
        raise ValueError(f"{name}: an array of 2^31 entries or more; use a smaller batch")
    if count:
        xp, real = array_module(outputs[0]), np.dtype(dtype)
        inputs = [xp.ascontiguousarray(array) for array in inputs]
        arguments = (*inputs, *outputs, *(_as_c_takes_it(number, real) for number in (count, *numbers)))
        _kernel(xp, name, _REAL[real.name])((-(-count // _THREADS),), (_THREADS,), arguments)
    return outputs


def _as_c_takes_it(number, real):
    if isinstance(number, (float, np.floating)):
        return real.type(number)
    return number if isinstance(number, np.uint32) else np.int32(number)


def to_bfloat16(a):
    """A float array rounded to bfloat16, whose bits a uint16 array holds."""
    return _launch("to_bfloat16", a.size, [a], [array_module(a).empty(a.shape, np.uint16)], dtype=a.dtype)[0]


# ==== convolution ====


def windows(a, kh, kw, stride, padding, bfloat16=False):
    """`conv._windows`: every window of a (N, H, W, C), as a copy: (N, OH, OW, KH, KW, C), in bfloat16 if so asked."""
    n, h, w, c = a.shape
    oh, ow = (h + 2 * padding - kh) // stride + 1, (w + 2 * padding - kw) // stride + 1
    columns = array_module(a).empty((n, oh, ow, kh, kw, c), np.uint16 if bfloat16 else a.dtype)
    sizes = h, w, c, oh, ow, kh, kw, stride, padding
    _launch("windows_bfloat16" if bfloat16 else "windows", columns.size, [a], [columns], *sizes, dtype=a.dtype)
    return columns


def sum_windows(columns, shape, stride, padding):
    """`conv._sum_windows`: windows (N, OH, OW, KH, KW, C) added back to where they were cut: `shape`, (N, H, W, C)."""
    _, h, w, c = shape
    _, oh, ow, kh, kw, _ = columns.shape
    image = array_module(columns).empty(shape, columns.dtype)
    sizes = h, w, c, oh, ow, kh, kw, stride, padding
    return _launch("sum_windows", image.size, [columns], [image], *sizes, dtype=image.dtype)[0]


# ==== group norm ====


def group_norm(x, weight, bias, groups, epsilon, silu):
    """Group norm of x (N, ..., C), and silu of it if so asked: (y, mean (N, groups), 1 / std (N, groups))."""
    n, h, w, c = _image(x.shape)
    rows = _empty(x, 2, n * h * c)
    _launch("row_moments", n * h * c, [x], rows, w, c, dtype=x.dtype)
    moments = _empty(x, 2, n, groups)
    _launch("group_moments", n * groups, rows, moments, h, w, c, groups, float(epsilon), dtype=x.dtype)
    inputs, sizes = [x, *moments, weight, bias], (h * w, c, groups, int(silu))
    (y,) = _launch("normalise", x.size, inputs, _empty(x, 1, *x.shape), *sizes, dtype=x.dtype)
    return y, *moments


def group_norm_gradients(g, x, weight, bias, mean, inverse_std, silu):
    """The gradients of x, weight and bias, from that of y and what `group_norm` was given and gave."""
    n, h, w, c = _image(x.shape)
    groups, silu = mean.shape[1], int(silu)
    rows, inputs = _empty(x, 2, n * h * c), [g, x, mean, inverse_std, weight, bias]
    _launch("row_gradients", n * h * c, inputs, rows, h, w, c, groups, silu, dtype=x.dtype)
    per_sample, means = array_module(x).empty((2, n, c), x.dtype), _empty(x, 2, n, groups)
    _launch("group_gradients", n * groups, [*rows, weight], [*per_sample, *means], h, w, c, groups, dtype=x.dtype)
    outputs = _empty(x, 1, *x.shape)
    (gx,) = _launch("normalise_gradient", x.size, inputs + means, outputs, h * w, c, groups, silu, dtype=x.dtype)
    g_bias, g_weight = per_sample.sum(axis=1)
    return gx, g_weight, g_bias


def _image(shape):
    """(N, ..., C) as (N, H, W, C): which axes are the rows matters to speed alone."""
    n, c = shape[0], shape[-1]
    h = shape[1] if len(shape) > 3 else 1
    w = int(np.prod(shape[1:-1], dtype=int)) // max(h, 1)
    return n, h, w, c


def _empty(like, count, *shape):
    return [array_module(like).empty(shape, like.dtype) for _ in range(count)]


# ==== optimisers ====


def adam(p, mean, square, gradient, beta1, beta2, epsilon, rate, kept):
    """`optim.Adam.update` in one pass; p, mean and square are overwritten."""
    numbers = beta1, 1 - beta1, beta2, 1 - beta2, epsilon, rate, kept
    _launch("adam", p.size, [], [p, mean, square, gradient], *numbers, dtype=p.dtype)


def moving_average(average, p, share):
    """average += share (p - average), in one pass."""
    _launch("moving_average", p.size, [], [average, p], share, dtype=p.dtype)


# ==== random numbers ====


def random_numbers(name, samples, each, step, key, xp):
    """`each` numbers for every sample, (N, each) float32. name: "uniform" or "normal". samples: N uint32 of `xp`."""
    words = [np.uint32(word) for word in (step & 0xFFFFFFFF, step >> 32, *key)]
    numbers = xp.empty((samples.size, each), np.float32)
    threads = numbers.size if name == "uniform" else samples.size * -(-each // 2)
    return _launch(name, threads, [samples], [numbers], each, *words)[0]
