import numpy as np
import pytest

import nn
from tinyddpm.coefficients import as_steps, check_like, check_t, float_dtype, gather, is_integer, named, spread

TABLE = np.array([0.0, 0.1, 0.2, 0.3])
X = np.zeros((2, 3, 4))


def test_an_integer_gives_a_scalar_and_an_array_one_entry_per_sample():
    assert gather(TABLE, 2, X) == 0.2 and np.ndim(gather(TABLE, 2, X)) == 0
    found = gather(TABLE, np.array([3, 1]), X)
    assert found.shape == (2, 1, 1) and found.ravel().tolist() == [0.3, 0.1]
    assert gather(TABLE, np.array([3, 1]), np.zeros(2)).shape == (2,)
    assert gather(TABLE, np.uint8(3), np.zeros(())) == gather(TABLE, np.array(3), 0.5) == 0.3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("t", [2, np.array([2, 2])])
def test_coefficients_take_the_dtype_of_the_data_and_leave_it(dtype, t):
    coefficient = gather(TABLE, t, X.astype(dtype))
    assert coefficient.dtype == dtype
    assert (coefficient * X.astype(dtype)).dtype == dtype


@pytest.mark.parametrize("t", [-1, 4, np.array([0, 4]), np.array([-1, 0])])
def test_t_outside_the_table_raises_and_does_not_wrap_around(t):
    with pytest.raises(ValueError, match=r"t must lie in 0\.\.3"):
        gather(TABLE, t, X)


def test_the_first_t_may_be_raised():
    assert check_t(1, 3, X, first=1) == 1
    with pytest.raises(ValueError, match=r"1\.\.3, got 0\.\.2"):
        check_t(np.array([0, 2]), 3, X, first=1)


INTEGERS = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_type_that_integers_came_in_is_left_behind(dtype):
    """255 + 1 is 0 in uint8, 0 - 1 is 255, and int64 with uint64 makes floats."""
    one, several = as_steps("t", dtype(100), 0, 1000), as_steps("t", np.array([[1, 100]], dtype), 0, 1000)
    assert type(one) is int and one == 100 and type(as_steps("t", np.array(100, dtype), 0, 1000)) is int
    assert several.dtype == np.int64 and several.shape == (1, 2) and several.tolist() == [[1, 100]]
    assert check_t([1, 2], 3, X).dtype == np.int64


@pytest.mark.parametrize("t", [np.int8(-1), np.array([1, -1], np.int8), np.uint64(2**63), 2**62, np.uint8(255)])
def test_t_out_of_range_is_refused_in_every_type(t):
    with pytest.raises(ValueError, match=r"t must lie in 0\.\.3"):
        gather(TABLE, t, X)


def test_one_integer_is_told_from_everything_else():
    assert all(is_integer(n) for n in (3, np.uint8(3), np.array(3), -1))
    assert not any(is_integer(n) for n in (True, np.bool_(True), 3.0, np.float64(3), "3", None, [3], np.array([3])))


@pytest.mark.parametrize(
    "t", [1.0, True, "1", None, np.array([1.0, 2.0]), np.array([True, False]), [], [1.0, 2.0], nn.Tensor(np.ones(2))]
)
def test_t_that_is_not_an_integer_raises(t):
    with pytest.raises(TypeError, match="t must be an integer"):
        gather(TABLE, t, X)


@pytest.mark.parametrize("t", [np.array([1]), np.array([1, 2, 3]), np.array([[1], [2]])])
def test_t_of_another_length_than_the_batch_raises(t):
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        gather(TABLE, t, X)


def test_an_empty_batch_is_a_batch():
    assert gather(TABLE, np.zeros(0, int), np.zeros((0, 3))).shape == (0, 1)


@pytest.mark.parametrize("x", [np.zeros(2, int), [0.0, 1.0], 1, np.zeros(2, complex)])
def test_data_that_is_not_floating_raises(x):
    with pytest.raises(TypeError, match="x must be a floating-point array"):
        spread(0.5, x)


def test_a_python_float_counts_as_float64():
    assert float_dtype("x", 0.5) == np.float64
    assert spread(0.5, 0.5).dtype == np.float64


def test_check_like_names_both_arguments():
    check_like("noise", X, "x0", X)
    with pytest.raises(ValueError, match=r"noise must have the shape of x0, \(2, 3, 4\), got \(2, 3\)"):
        check_like("noise", X[..., 0], "x0", X)
    with pytest.raises(TypeError, match="noise must have the dtype of x0, float64, got float32"):
        check_like("noise", X.astype(np.float32), "x0", X)
    for other in (X.astype(int), X.tolist(), None):
        with pytest.raises((TypeError, ValueError), match="noise must"):
            check_like("noise", other, "x0", X)


def test_arrays_of_two_devices_are_named_and_do_not_meet(cupy):
    here, there = np.zeros((2, 3)), cupy.asarray(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="noise must be where x0 is, on the GPU, got an array on the host"):
        check_like("noise", here, "x0", there)
    with pytest.raises(TypeError, match="noise must be where x0 is, on the host, got an array on the GPU"):
        check_like("noise", nn.Tensor(there), "x0", here)
    check_like("noise", nn.Tensor(there), "x0", there)


@pytest.mark.parametrize("name", ["c", None, ["a"], 3])
def test_a_name_that_is_none_is_answered_with_those_there_are(name):
    assert named("letter", "b", {"a": 1, "b": 2}) == 2
    with pytest.raises(ValueError, match="unknown letter .*; there are: a, b"):
        named("letter", name, {"a": 1, "b": 2})


@pytest.mark.parametrize("x", [[0.0, 1.0], np.zeros(2, int)])
def test_data_is_looked_at_before_its_t(x):
    with pytest.raises(TypeError, match="x must be a floating-point array"):
        gather(TABLE, np.array([1, 2]), x)


def test_coefficients_live_where_the_data_lives_and_t_on_either_side(xp):
    x = xp.zeros((2, 3), np.float32)
    for t in (np.array([3, 1]), xp.array([3, 1])):
        found = gather(TABLE, t, x)
        assert isinstance(found, xp.ndarray) and found.dtype == np.float32
        assert (nn.to_numpy(found) == np.float32([[0.3], [0.1]])).all()
    assert isinstance(gather(TABLE, 2, x) * x, xp.ndarray)
