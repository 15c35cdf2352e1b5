"""The kernels of nn/gpu/kernels.cu against their plain versions: on a GPU, and without one as C++; and through NVRTC.

With --device cpu the arrays are those of strict_device.py, whose kernels are the same source compiled as C++.
"""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from device import drawn
from device.kernel_host import KERNEL, compile_for_gpu, nvrtc
from device.strict_device import rounded
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
from nn import Tensor, gradients, to_numpy
from nn.conv import _sum_windows, _windows
from nn.gpu import kernels
from nn.random import normal, uniform

CODE = kernels.SOURCE.read_text("utf-8")
sides = st.integers(1, 5)


def both(function):
    """What `function` gives with kernels and without: pairs of NumPy arrays."""
    results = []
    for way in (contextlib.nullcontext, kernels.plain_versions):
        with way():
            found = function()
        results.append([to_numpy(a) for a in (found if isinstance(found, (list, tuple)) else [found])])
    return list(zip(*results, strict=True))


# ==== the compilers ====

with_nvrtc = pytest.mark.skipif(nvrtc()[0] is None, reason=nvrtc()[1])


@with_nvrtc
@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("architecture", ["compute_75", "compute_90"])
def test_nvrtc_compiles_every_kernel(real, architecture):
    ptx = compile_for_gpu(CODE, (f"-DREAL={real}", f"--gpu-architecture={architecture}", "--std=c++14"))  # CuPy 13's
    assert set(re.findall(r"\.entry (\w+)", ptx)) == {name for name, _ in KERNEL.findall(CODE)}


@with_nvrtc
def test_a_kernel_that_does_not_compile_is_noticed_with_the_log():
    with pytest.raises(AssertionError, match="no_such_name"):
        compile_for_gpu(
            CODE.replace("square[i] = square;", "square[i] = no_such_name;").replace("THREAD;", "no_such_name;"),
            ("-DREAL=float",),
        )


def test_every_kernel_is_launched_and_nothing_else_is():
    launched = set(re.findall(r'_launch\(\s*"(\w+)"', Path(kernels.__file__).read_text("utf-8")))
    launched |= {"windows_bfloat16", "windows", "uniform", "normal"}  # chosen by name
    assert launched == {name for name, _ in KERNEL.findall(CODE)}


def test_a_kernel_is_used_on_the_device_alone_and_not_where_plain_versions_are_asked_for(cupy):
    assert kernels.used_for(cupy, np.dtype(np.float32)) and kernels.used_for(cupy, np.dtype(np.float64))
    assert not kernels.used_for(np, np.dtype(np.float32)) and not kernels.used_for(cupy, np.dtype(np.float16))
    with kernels.plain_versions():
        assert not kernels.used_for(cupy, np.dtype(np.float32))


# ==== each against its plain version ====


@settings(max_examples=40)
@given(sides, sides, sides, sides, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
def test_windows_and_their_transpose_are_those_of_the_plain_version_exactly(cupy, n, h, w, c, kh, kw, stride, padding):
    h, w = max(h, kh), max(w, kw)
    (a,) = drawn(cupy, 0, (n, h, w, c))
    for columns, plain in both(lambda: _windows(a, kh, kw, stride, padding, cupy)):
        np.testing.assert_array_equal(columns, plain)
    (columns,) = drawn(cupy, 1, columns.shape)
    for image, plain in both(lambda: _sum_windows(columns, a.shape, stride, padding, cupy)):
        np.testing.assert_array_equal(image, plain)


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 2e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("op", [nn.group_norm, nn.group_norm_silu])
@pytest.mark.parametrize("shape, groups", [((3, 5, 4, 12), 3), ((2, 7, 8), 8), ((4, 6), 1), ((300, 1, 1, 4), 2)])
def test_group_norm_and_its_gradients_are_those_of_the_plain_version(cupy, dtype, rtol, op, shape, groups):
    arrays = drawn(cupy, 0, shape, shape[-1:], shape[-1:], dtype=dtype)
    (cotangent,) = drawn(cupy, 1, shape, dtype=dtype)

    def everything():
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        y = op(*tensors, groups)
        return [y.data, *gradients(y, tensors, cotangent)]

    for found, plain in both(everything):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, plain, rtol=rtol, atol=rtol * abs(plain).max())


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: nn.Adam(ps, 0.1),
        lambda ps: nn.Adam(ps, lambda step: np.float64(0.1)),
        lambda ps: nn.Adam(ps, 0.1, betas=(0.5, 0.9), epsilon=0.1, weight_decay=0.3),
    ],
    ids=["Adam", "a rate of NumPy's", "Adam, all changed"],
)
def test_adam_and_the_average_take_the_steps_of_the_plain_version(cupy, make):
    gs = drawn(cupy, 1, *[(1000,)] * 5, dtype=np.float32)

    def train():
        parameter = Tensor(drawn(cupy, 0, (1000,), dtype=np.float32)[0], requires_grad=True)
        optimiser, ema = make([parameter]), nn.EMA([parameter], 0.9)
        for g in gs:
            optimiser.step(g)
            ema.update()
        return [optimiser.flat, optimiser.mean, optimiser.square, ema.average]

    for found, plain in both(train):
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), st.integers(0, 30), st.integers(0, 2**64 - 1))
def test_uniform_numbers_are_those_of_the_plain_version_exactly_and_normal_ones_to_rounding(cupy, samples, count, step):
    samples = np.array(samples, np.int64)
    for found, plain in both(lambda: uniform(7, "noise", step, samples, (count,), cupy)):
        np.testing.assert_array_equal(found, plain)
    for found, plain in both(lambda: normal(7, "noise", step, samples, (count,), cupy)):
        assert found.shape == plain.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, plain, rtol=0, atol=2e-6)


def test_the_noise_of_an_image_is_that_of_the_cpu(cupy):
    for draw, atol in ((uniform, 0), (normal, 2e-6)):
        there, here = (draw(5, "noise", 9, range(3), (28, 28, 1), xp) for xp in (cupy, np))
        np.testing.assert_allclose(to_numpy(there), here, rtol=0, atol=atol)


# ==== bfloat16 ====


def widened(bits):
    return (to_numpy(bits).astype(np.uint32) << 16).view(np.float32)


def test_bfloat16_is_the_nearest_number_of_eight_bits_ties_to_even(cupy):
    a = np.concatenate(
        [
            np.float32([0, -0.0, 1, -1, 1 + 2**-8, 1 + 3 * 2**-8, 3e38, np.inf, -np.inf, 1e-30]),
            np.random.default_rng(0).standard_normal(1000, dtype=np.float32),
        ]
    )
    found = widened(kernels.to_bfloat16(cupy.asarray(a)))
    np.testing.assert_array_equal(found[np.isfinite(a)], rounded(a[np.isfinite(a)], 8))
    np.testing.assert_array_equal(found[~np.isfinite(a)], a[~np.isfinite(a)])
    assert np.isnan(widened(kernels.to_bfloat16(cupy.asarray(np.float32([np.nan]))))).all()


def test_windows_in_bfloat16_are_the_windows_rounded(cupy):
    (a,) = drawn(cupy, 0, (2, 5, 4, 3), dtype=np.float32)
    exact = to_numpy(kernels.windows(a, 3, 2, 2, 1))
    np.testing.assert_array_equal(widened(kernels.windows(a, 3, 2, 2, 1, bfloat16=True)), rounded(exact, 8))
