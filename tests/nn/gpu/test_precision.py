"""Products of matrices in TF32 and bfloat16: what is rounded, how cuBLAS is asked, and that the CPU refuses."""

import numpy as np
import pytest
from device import drawn
from device.strict_device import rounded, strict
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CONFIG, pictures

import nn
from nn import Tensor, gradients, to_numpy
from nn.conv import conv2d_im2col
from nn.gpu.precision import matrix_product
from tinyddpm.program.compute import Compute
from tinyddpm.program.model import Model
from tinyddpm.program.train import Trainer

BITS = {"tf32": 11, "bf16": 8}  # significant bits of a factor
lower = pytest.mark.parametrize("name", BITS)
sides = st.integers(1, 6)


def is_rounded(cupy, name):
    """Whether factors must have lost bits: cuBLAS is only allowed to use TF32, and may not at sizes this small."""
    return name == "bf16" or cupy is strict


def layouts(a):
    """The same matrix by rows, by columns, and as a slice of a larger one."""
    xp = nn.array_module(a)
    wide = xp.zeros((a.shape[0], 2 * a.shape[1]), a.dtype)
    wide[:, ::2] = a
    return [a, xp.ascontiguousarray(a.T).T, wide[:, ::2]]


@lower
@settings(max_examples=30)
@given(sides, sides, sides)
def test_factors_are_rounded_and_the_sum_is_float32_however_the_matrices_lie(cupy, name, i, j, k):
    a, b = drawn(cupy, 0, (i, j), (j, k), dtype=np.float32)
    expected = rounded(to_numpy(a), BITS[name]).astype(np.float64) @ rounded(to_numpy(b), BITS[name])
    scale = float(abs(to_numpy(a)).max() * abs(to_numpy(b)).max() * j)
    # a tensor core may cut TF32 where we round to nearest: a unit in the last place of each factor
    slack = 1e-6 if name == "bf16" else 4 * 2.0 ** -BITS[name]
    with nn.precision(name):
        for x in layouts(a):
            for y in layouts(b):
                found = matrix_product(x, y)
                assert found.dtype == np.float32
                np.testing.assert_allclose(to_numpy(found), expected, rtol=0, atol=slack * scale)


@lower
def test_the_stand_in_rounds_what_it_is_asked_to(cupy, name):  # or the test above would see nothing
    (a,) = drawn(cupy, 0, (1, 1), dtype=np.float32)
    one = cupy.ones((1, 1), np.float32)
    with nn.precision(name):
        found = to_numpy(matrix_product(a, one))
    assert found != to_numpy(a) or not is_rounded(cupy, name)
    assert abs(found / to_numpy(a) - 1) < 2.0 ** (1 - BITS[name])


@lower
def test_an_empty_product_is_zeros(cupy, name):
    with nn.precision(name):
        found = matrix_product(cupy.zeros((2, 0), np.float32), cupy.zeros((0, 3), np.float32))
    assert to_numpy(found).tolist() == [[0] * 3] * 2


@lower
def test_convolution_and_linear_go_through_it_forward_and_backward(cupy, name):
    x, w, b, m = drawn(cupy, 0, (2, 6, 5, 4), (3, 3, 4, 8), (8,), (8, 3), dtype=np.float32)

    def everything():
        tensors = [Tensor(a, requires_grad=True) for a in (x, w, b, m)]
        y = conv2d_im2col(*tensors[:3], 1, 1).reshape(-1, 8) @ tensors[3]
        return [y.data, *gradients(y, tensors, cupy.ones_like(y.data))]

    exact = everything()
    with nn.precision(name):
        found = everything()
    for part, (a, e) in enumerate(zip(found, exact, strict=True)):
        error, scale = float(abs(a - e).max()), float(abs(e).max())
        assert error < 4 * 2.0 ** -BITS[name] * scale
        summed = part == 3  # the gradient of the bias is a sum of float32, and no product
        assert error > 0 or summed or not is_rounded(cupy, name), "computed in fp32"


@lower
def test_float64_and_the_cpu_are_left_alone(cupy, name):
    a, b = drawn(cupy, 0, (3, 4), (4, 2))
    with nn.precision(name):
        np.testing.assert_array_equal(to_numpy(matrix_product(a, b)), to_numpy(a @ b))
        a, b = to_numpy(a).astype(np.float32), to_numpy(b).astype(np.float32)
        np.testing.assert_array_equal(matrix_product(a, b), a @ b)


def test_fp32_is_fp32_where_an_environment_variable_makes_cupy_s_own_products_tf32(cupy, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    a, b, x, w, bias = drawn(cupy, 0, (9, 40), (40, 7), (2, 6, 5, 4), (3, 3, 4, 8), (8,), dtype=np.float32)
    index = np.array([1, 1, 2])

    def everything(dtype):
        (p, q, image, filters, rest) = (Tensor(t.astype(dtype), requires_grad=True) for t in (a, b, x, w, bias))
        y, z = p @ q, conv2d_im2col(image, filters, rest, 1, 1)
        table = Tensor(a.astype(dtype), requires_grad=True)
        rows = nn.embedding(table, index)
        mixed = nn.attention(p, q.transpose(), q.transpose())
        return [
            *(y.data, *gradients(y, [p, q], cupy.ones_like(y.data))),
            *(z.data, *gradients(z, [image, filters], cupy.ones_like(z.data))),
            *gradients(rows, [table], b.astype(dtype).T[:3, :40]),
            *(mixed.data, *gradients(mixed, [p, q], cupy.ones_like(mixed.data))),
        ]

    for found, exact in zip(everything(np.float32), everything(np.float64), strict=True):
        np.testing.assert_allclose(to_numpy(found), to_numpy(exact), rtol=0, atol=2e-6 * float(abs(exact).max()))
    if cupy is strict:  # or the test would see nothing
        assert (abs(to_numpy(a @ b) - to_numpy(matrix_product(a, b))) > 1e-4).any()


def trained(precision):
    trainer = Trainer(CONFIG, pictures(), Compute("cuda", precision=precision))
    list(trainer.run(steps=5))
    return trainer


@pytest.fixture(scope="module")
def fp32_losses(cupy):
    return np.array(trained("fp32").losses)


@lower
def test_a_model_trains_in_it_and_its_weights_stay_float32(cupy, name, fp32_losses):
    trainer = trained(name)
    losses = np.array(trainer.losses)
    assert (losses != fp32_losses).any() or not is_rounded(cupy, name), "computed in fp32"
    np.testing.assert_allclose(losses, fp32_losses, rtol=0.05)
    assert {p.dtype for p in trainer.parameters} == {np.dtype(np.float32)}


@lower
def test_on_the_cpu_there_is_fp32_alone(name):
    with pytest.raises(ValueError, match=f"precision {name} needs a GPU; on the CPU there is only fp32"):
        Compute("cpu", precision=name)
    with pytest.raises(ValueError, match="precision must be one of fp32, tf32, bf16, got 'fp8'"):
        Compute("cpu", precision="fp8")


@lower
def test_a_model_predicts_in_it(cupy, name):
    (xt,) = drawn(cupy, 0, (2, 8, 8, 1), dtype=np.float32)
    outputs = []
    for precision in ("fp32", name):
        model = Model(CONFIG, Compute("cuda", precision=precision))
        for p in model.network.parameters():
            p.data += drawn(cupy, 1, p.shape, dtype=np.float32)[0] * 0.05
        outputs.append(to_numpy(model.predict(xt, np.array([3, 9]))))
    error = abs(outputs[1] - outputs[0]).max()
    assert error < 0.05 * abs(outputs[0]).max()
    assert error > 0 or not is_rounded(cupy, name), "computed in fp32"


def test_a_precision_that_there_is_not_is_refused_where_it_is_set():
    with pytest.raises(ValueError, match="precision must be one of fp32, tf32, bf16, got 'fp23'"), nn.precision("fp23"):
        pass
