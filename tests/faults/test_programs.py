"""The short form of programs.py and networks.py: some hundred drawn programs and networks, the same ones every time."""

import networks
import numpy as np
import programs
import pytest
from drawing import draw
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.cpu
needs_torch = pytest.mark.skipif(programs.peer is None, reason="PyTorch is not installed (extra 'bench')")


@needs_torch
def test_drawn_programs_have_the_values_and_gradients_of_pytorch():
    assert programs.find_difference(300, 1, programs.compare_with_torch) is None


def test_drawn_programs_have_the_values_of_float64_and_the_gradients_of_central_differences():
    assert programs.find_difference(100, 2, programs.compare_with_differences) is None


@needs_torch
@settings(max_examples=50)
@given(data=st.data())
def test_programs_that_hypothesis_draws_agree_with_pytorch_too(data):
    """It varies a program that it has drawn: several times the same but for one op, which chance does not."""
    program = draw(lambda low, high: data.draw(st.integers(low, high)))
    with np.errstate(all="ignore"):
        programs.compare_with_torch(program)


@needs_torch
def test_drawn_networks_train_to_the_weights_of_pytorch():
    assert [found for found in map(networks.difference, range(40)) if found] == []


# ==== the tools themselves ====


def test_a_difference_is_reduced_to_lines_that_can_be_pasted():
    def compare(program):
        if any("nn.tanh" in line for line in program.lines):
            raise programs.Difference("planted")

    report = programs.find_difference(400, 3, compare)
    assert report.endswith("# planted")
    assert report.count("nn.tanh") == 1
    assert len(report.splitlines()) <= 8, report
    exec(report)


@needs_torch
def test_an_op_that_is_off_by_a_thousandth_is_a_difference():
    class Peer:
        def silu(self, x):
            return programs.peer.silu(x) * 1.001

        def __getattr__(self, name):
            return getattr(programs.peer, name)

    report = programs.find_difference(400, 4, lambda program: programs.compare_with_torch(program, Peer()))
    assert "nn.silu(" in report


def test_a_wrong_dtype_shape_or_value_is_a_difference_and_rounding_is_none():
    right = np.array([1.0, np.nan, np.inf])
    programs.compare("x", right * (1 + 1e-12), right, 1e-9, lambda: right)
    for wrong in (right.astype(np.float32), right[None], right * (1 + 1e-7), np.array([1.0, 0.0, np.inf])):
        with pytest.raises(programs.Difference):
            programs.compare("x", wrong, right, 1e-9, lambda: right)
