"""gradcheck: what it must see, what it must let pass, and that it leaves everything as it was."""

import subprocess
import sys

import numpy as np
import pytest
from device import there

import nn
from nn import Tensor


def scaled(factor):
    """x * w with a gradient for w that is wrong by `factor`."""
    return lambda x, w: nn.node("scaled", x.data * w.data, (x, w), lambda g: (g * w.data, factor * g * x.data))


def drawn(*shape):
    return there(np.random.default_rng(0).standard_normal(shape))


def test_two_parts_in_a_million_are_seen_and_the_input_is_named():
    a, b = drawn(2, 5, 3)
    nn.gradcheck(scaled(1), a, b)
    with pytest.raises(AssertionError, match="gradient of input 1"):
        nn.gradcheck(scaled(1 + 2e-6), a, b)


def test_a_norm_whose_gradient_is_wrong_in_a_way_that_sums_to_zero_is_seen():
    """Under a cotangent of ones a norm's outputs sum to a constant: any multiple of its gradient passes."""

    def wrong(z):
        y = nn.layer_norm(z, Tensor(there(np.ones(4))), Tensor(there(np.zeros(4))))
        return nn.node("wrong", y.data, (z,), lambda g: (1.001 * nn.gradients(y, [z], g)[0],))

    with pytest.raises(AssertionError, match="gradient of input 0"):
        nn.gradcheck(wrong, drawn(3, 4))


def test_a_gradient_that_is_not_a_number_is_wrong():
    with pytest.raises(AssertionError, match="claimed nan"):
        nn.gradcheck(lambda x: nn.node("nan", x.data, (x,), lambda g: (g * np.nan,)), drawn(3))


def test_float32_inputs_are_refused():
    with pytest.raises(TypeError, match="input 1 is float32"):
        nn.gradcheck(lambda a, b: a, np.ones(2), np.ones(2, np.float32))
    with pytest.raises(TypeError, match="input 0 is list"):
        nn.gradcheck(lambda a: a, [1.0])


def test_a_gradient_that_is_float64_for_float32_is_seen():
    """In float64 a NumPy number changes nothing."""
    two = np.float64(2)
    with pytest.raises(TypeError, match="double: the vjp gave float64 .* of an input of float32"):
        nn.gradcheck(lambda x: nn.node("double", 2 * x.data, (x,), lambda g: (two * g,)), drawn(3))
    with pytest.raises(TypeError, match="double: the result is float64, computed from float32"):
        nn.gradcheck(lambda x: nn.node("double", two * x.data, (x,), lambda g: (2 * g,)), drawn(3))


def test_an_op_that_holds_float64_arrays_is_checked_in_float64_alone():
    constant = drawn(3)
    nn.gradcheck(lambda x: x * constant, constant)
    with pytest.raises(AssertionError, match="gradient of input 0"):
        nn.gradcheck(lambda x: nn.node("off", (x * constant).data, (x,), lambda g: (g,)), constant)


def test_a_gradient_of_the_wrong_shape_is_named_before_any_value_is_compared():
    with pytest.raises(ValueError, match=r"flat: the vjp gave shape \(6,\) for the gradient of an input \(2, 3\)"):
        nn.gradcheck(lambda x: nn.node("flat", x.data, (x,), lambda g: (g.reshape(-1),)), drawn(2, 3))


def test_the_arrays_are_as_before_when_the_op_raises_or_writes_into_its_input():
    a = drawn(3)
    before, calls = a.copy(), []

    def fails_at_the_third_call(x):
        calls.append(x)
        x.data[...] += 1  # what it gets is a copy
        if len(calls) == 3:
            raise ZeroDivisionError
        return x * 1.0

    with pytest.raises(ZeroDivisionError):
        nn.gradcheck(fails_at_the_third_call, a)
    assert a.tolist() == before.tolist()


def test_a_kink_within_reach_is_no_derivative():
    with pytest.raises(AssertionError):
        nn.gradcheck(nn.relu, there(np.zeros(1)))


@pytest.mark.cpu
def test_without_asserts_gradcheck_still_checks():
    """`python -O` removes every assert statement."""
    code = "import nn, numpy as np; nn.gradcheck(lambda x: nn.node('f', x.data, (x,), lambda g: (2 * g,)), np.ones(2))"
    ran = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1 and "AssertionError: gradient of input 0" in ran.stderr
