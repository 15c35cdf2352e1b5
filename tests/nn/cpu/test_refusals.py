"""Losses, results, models and batches that cannot be meant are refused by name, on one worker as on two."""

import numpy as np
import pytest

import nn
from nn import Parallel, Tensor


def number_of_rows(network, x):
    return nn.tensor(float(len(x)))


def loss_per_row(network, x):
    return (network(x) ** 2).sum(axis=1)


def loss_as_an_array(network, x):
    return (network(x) ** 2).mean().data


def loss_in_a_dtype_of_its_shard(network, x):
    return (network(x) ** 2).mean().astype(np.float64 if 7 in x else np.float32)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "loss, error, words",
    [
        (loss_per_row, TypeError, r"loss_per_row must return .* a Tensor of shape \(\), got a Tensor, float32 \(2,\)"),
        (loss_as_an_array, TypeError, r"loss_as_an_array must return .* got float32 \(\) of numpy"),
        (lambda network, x: 0.0, TypeError, "<lambda> must return .* got float"),
        (number_of_rows, ValueError, "number_of_rows returned a loss that depends on no parameter"),
        (loss_in_a_dtype_of_its_shard, TypeError, "different dtypes: float32 and float64"),
    ],
)
def test_a_loss_that_is_no_scalar_tensor_of_the_parameters_is_refused_by_name(workers, loss, error, words):
    layer = nn.Linear(3, 2, rng=np.random.default_rng(0))
    with pytest.raises(error, match=words):
        Parallel(workers, shard=2).loss_and_gradient(loss, layer, np.arange(12, dtype=np.float32).reshape(4, 3))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "result, words",
    [
        (lambda network, x: Tensor(x[1:]), r"one entry for each of its 2 rows, got float32 \(1,\)"),
        (lambda network, x: x[:, None].sum(), r"for each of its 2 rows, got float32 \(\)"),
        (lambda network, x: x.tolist(), "for each of its 2 rows, got list"),
        (lambda network, x: None, "for each of its 2 rows, got NoneType"),
        (lambda network, x: x.astype(np.float64) if 3 in x else x, "different dtypes: float32 and float64"),
    ],
    ids=["too few", "one number", "a list", "nothing", "dtypes that differ"],
)
def test_a_result_of_map_that_is_not_an_entry_for_every_row_is_refused(workers, result, words):
    with pytest.raises(TypeError, match=words):
        Parallel(workers, shard=2).map(result, None, np.arange(4, dtype=np.float32))


@pytest.mark.parametrize("workers", [1, 2])
def test_map_takes_arrays_too_such_as_labels(workers):
    x = np.random.default_rng(0).standard_normal((5, 3))
    found = Parallel(workers, shard=2).map(lambda network, x: x.argmax(axis=1), None, x)
    np.testing.assert_array_equal(found, x.argmax(axis=1))


@pytest.mark.parametrize("model", [None, (layer for layer in ()), [1, 2]], ids=["None", "generator", "list"])
def test_a_model_without_parameters_is_refused(model):
    with pytest.raises(TypeError, match=f"must have a method `parameters`.* got {type(model).__name__}"):
        Parallel(1).loss_and_gradient(number_of_rows, model, np.ones(2))


class Yields:
    """A model whose `parameters` is a generator, as PyTorch's is."""

    def __init__(self):
        self.weight = Tensor(np.ones(3), requires_grad=True)

    def parameters(self):
        yield self.weight


@pytest.mark.parametrize("workers", [1, 2])
def test_parameters_may_be_a_generator(workers):
    x = np.arange(12.0).reshape(4, 3)
    _, gradient = Parallel(workers, 1).loss_and_gradient(lambda m, x: (m.weight * x).sum(), Yields(), x)
    np.testing.assert_allclose(gradient, x.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_in_float64_of_a_network_in_float32_keeps_both(workers):
    layer, x = nn.Linear(3, 2, rng=np.random.default_rng(0)), np.ones((4, 3), np.float32)
    value, gradient = Parallel(workers, 1).loss_and_gradient(
        lambda network, x: network(x).astype(np.float64).sum(), layer, x
    )
    assert (value.dtype, gradient.dtype) == (np.float64, np.float32)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_that_is_nan_in_one_shard_is_nan(workers):
    layer, x = nn.Linear(3, 2, rng=np.random.default_rng(0)), np.ones((4, 3), np.float32)
    x[3] = np.nan
    value, gradient = Parallel(workers, 1).loss_and_gradient(lambda network, x: (network(x) ** 2).mean(), layer, x)
    assert np.isnan(value) and np.isnan(gradient).any()


def test_a_number_or_an_iterator_in_a_batch_is_refused():
    with pytest.raises(TypeError, match="a batch is arrays of one length, or None, got ndarray, int"):
        Parallel(1).map(lambda network, x, y: x, None, np.ones(2), 3)
    with pytest.raises(TypeError, match="got generator"):
        Parallel(1).map(lambda network, x: x, None, (row for row in np.ones(2)))
