"""What Python and NumPy ask of a Tensor: it answers as an array does, or refuses."""

import copy
import math
import operator
import pickle

import numpy as np
import pytest
from device import there

import nn
from nn import Tensor, to_numpy


def tensor(values, requires_grad=False):
    return Tensor(there(np.array(values, float)), requires_grad)


x = tensor([1.0, 2.0, 3.0])
number = tensor(2.5)

# ==== truth, length, iteration ====


def test_a_zero_is_false():
    assert not tensor([0.0]) and not tensor(0.0) and tensor(-1.0)


def test_many_entries_have_no_truth():
    for many in (x, tensor([0.0, 0.0]), tensor([])):
        with pytest.raises(ValueError, match="truth value"):
            bool(many)


def test_the_sum_of_a_number_is_not_zero():
    """Python iterates by indexing until an IndexError: a Tensor of no axes would look empty."""
    for question in (sum, list, iter, max, len, enumerate, lambda t: [*t], lambda t: 2.5 in list(t)):
        with pytest.raises(TypeError, match="Tensor of no axes|unsized object"):
            question(number)


def test_iterating_goes_over_the_first_axis_and_keeps_the_graph():
    z = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert sum(z).data.tolist() == [4, 6]
    assert [row.data.tolist() for row in reversed(z)] == [[3, 4], [1, 2]]
    first, second = z
    (first * second).sum().backward()
    assert z.grad.tolist() == [[3, 4], [1, 2]]
    assert sum(tensor([])) == 0


# ==== comparisons ====


@pytest.mark.parametrize("compare", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_comparisons_are_made_entry_by_entry_with_what_could_be_added(compare):
    expected = compare(np.array([1.0, 2.0, 3.0]), 2).tolist()
    for other in (2, 2.0, np.float32(2), np.int64(2), tensor(2.0), tensor([2.0] * 3), there(np.array([2.0] * 3))):
        found = compare(x, other)
        assert not isinstance(found, Tensor) and found.dtype == bool
        assert found.tolist() == expected
    swapped = compare(there(np.array([2.0] * 3)), x)
    assert to_numpy(swapped).tolist() == compare(2, np.array([1.0, 2.0, 3.0])).tolist()


def test_a_number_of_numpys_is_rounded_as_pythons_is_before_it_is_compared():
    single = Tensor(there(np.array([0.1], np.float32)))
    assert bool(single == 0.1) and bool(single == np.float64(0.1))


def test_what_could_not_be_added_is_not_compared():
    for other in (None, "2", [1.0, 2.0, 3.0], there(np.ones(3, np.float32)), there(np.ones(3, int))):
        with pytest.raises(TypeError):
            _ = x == other
    with pytest.raises(ValueError, match="broadcast"):
        _ = x == tensor([1.0, 2.0])


def test_two_tensors_of_equal_entries_are_two_keys():
    twin = tensor([1.0, 2.0, 3.0])
    assert {x: "x", twin: "twin"}[x] == "x" and len({x, twin, x}) == 2


def test_an_entry_is_in_a_tensor():
    assert 2 in x and 5 not in x and number not in x and 2.5 in number


# ==== numbers ====


def test_a_tensor_of_one_entry_is_a_number():
    assert (float(number), int(number), int(tensor([-2.5])), math.floor(number)) == (2.5, 2, -2, 2)
    assert f"{number:.3f} {tensor([1.0]):g}" == "2.500 1"
    assert f"{x}" == str(x)


def test_a_tensor_of_more_is_none():
    for question in (float, int, "{:.3f}".format, math.sqrt):
        with pytest.raises((ValueError, TypeError)):
            question(x)


def test_a_tensor_is_no_integer():
    for question in (operator.index, range, lambda t: [1, 2, 3][t], lambda t: "ab" * t):
        with pytest.raises(TypeError):
            question(tensor(1.0))


# ==== changes in place ====


@pytest.mark.parametrize("change", ["iadd", "isub", "imul", "itruediv", "ipow", "imatmul"])
def test_a_tensor_does_not_change_in_place(change):
    """`w -= rate * g` would leave the parameter as it is and give its name to another Tensor."""
    with pytest.raises(TypeError, match="does not change in place"):
        getattr(operator, change)(x, 2)
    with pytest.raises(TypeError):
        x[0] = 5.0
    assert x.data.tolist() == [1, 2, 3]


# ==== NumPy ====


@pytest.mark.cpu
def test_an_array_is_made_of_a_tensor_that_has_no_graph_to_lose():
    plain = tensor([1.0, 2.0])
    assert np.asarray(plain) is plain.data
    assert np.array(plain) is not plain.data
    assert np.asarray(plain, np.float32).dtype == np.float32
    assert np.array([plain, plain]).dtype == np.float64
    leaf = tensor([1.0, 2.0], requires_grad=True)
    for lost in (leaf, leaf * 2):
        with pytest.raises(TypeError, match=r"requires a gradient .* use \.data or \.detach"):
            np.asarray(lost)


@pytest.mark.parametrize("function", [np.sum, np.mean, np.concatenate, np.clip, np.where, np.dot, np.linalg.norm])
def test_functions_of_numpys_refuse_a_tensor_by_name(function):
    with pytest.raises(TypeError, match=f"numpy.{function.__name__} does not take a Tensor; use .data"):
        function(x, 1, 2) if function in (np.clip, np.where, np.dot) else function(
            [x, x] if "conc" in str(function) else x
        )


def test_ufuncs_of_numpys_refuse_a_tensor():
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(x)


# ==== copies ====


def test_a_copy_has_memory_of_its_own_and_keeps_requires_grad():
    leaf = tensor([1.0, 2.0], requires_grad=True)
    for made in (copy.copy(leaf), copy.deepcopy(leaf), pickle.loads(pickle.dumps(leaf)), copy.deepcopy([leaf])[0]):
        made.data[0] = 9
        assert leaf.data.tolist() == [1, 2]
        assert made.requires_grad and made.grad is None


def test_a_copy_would_lose_the_graph_of_what_an_op_computed():
    inner = tensor([1.0], requires_grad=True) * 2
    for lose in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="graph would be lost; detach it"):
            lose(inner)
    assert copy.deepcopy(inner.detach()).data.tolist() == [2]


# ==== what a Tensor holds ====


def test_a_tensor_holds_no_tensor():
    with pytest.raises(TypeError, match="floating-point array, got Tensor"):
        Tensor(x)
    with pytest.raises(TypeError, match="is a Tensor already"):
        nn.tensor(x)


@pytest.mark.cpu
def test_a_matrix_becomes_an_array_and_a_mask_is_not_lost():
    """A matrix multiplies by *, and the sums of a masked array leave entries out."""
    m = np.matrix([[1.0, 2.0], [3.0, 4.0]])
    assert (Tensor(m) * Tensor(m)).data.tolist() == [[1, 4], [9, 16]]
    assert (tensor([[1.0, 2.0]]) * m).data.tolist() == [[1, 4], [3, 8]]
    with pytest.raises(TypeError, match="got MaskedArray"):
        Tensor(np.ma.masked_array([1.0, 2.0], [True, False]))


@pytest.mark.cpu
def test_a_file_in_memory_is_an_array(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3.0))
    mapped = Tensor(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert type(mapped.data) is np.ndarray and (mapped * 2).data.tolist() == [0, 2, 4]


def test_numbers_of_every_kind_take_the_dtype_of_what_they_meet():
    for n in (2, 2.0, True, np.int8(2), np.uint64(2), np.float16(2), np.float64(2), np.bool_(True)):
        single = Tensor(there(np.ones(2, np.float32)))
        for found in (single + n, n - single, n * single, single / n, n / single):
            assert isinstance(found, Tensor) and found.dtype == np.float32
    for n in (1j, np.complex64(1), "2", None, [2.0]):
        with pytest.raises(TypeError):
            x + n
