"""Shards on worker processes: the same numbers on any number of them, and the numbers of the whole batch."""

import os
import pickle
import tracemalloc

import numpy as np
import pytest
from subprocesses import run_python

import nn
from nn import Parallel, Tensor, available_cores, gradients, tape
from nn.cpu import parallel
from tinyddpm.program.unet import UNet, UNetConfig

SIZE = 10  # in shards of four: three lanes, of 3, 3 and 4 rows


def model(dtype=np.float32, width=8):
    """A network whose every layer is in use."""
    config = UNetConfig(width=width, multipliers=(1, 2), groups=4, classes=3, dropout=0.1)
    network = UNet(config).astype(dtype)
    rng = np.random.default_rng(0)
    for p in network.parameters():
        p.data += 0.1 * rng.standard_normal(p.shape).astype(dtype)
    return network


def batch(size=SIZE, dtype=np.float32, side=12):
    rng = np.random.default_rng(1)
    x, eps = rng.standard_normal((2, size, side, side, 1)).astype(dtype)
    return np.arange(size), x, rng.integers(1, 1001, size), rng.integers(0, 4, size), eps


def loss(network, samples, x, t, labels, eps):
    with nn.random_state(1, 2, samples):
        return nn.mse(network(x, t, labels), eps)


@pytest.mark.parametrize("size", [SIZE, 4], ids=["three lanes", "one lane"])
def test_the_result_is_the_same_bit_for_bit_on_any_number_of_workers(size):
    network, rows = model(width=32), batch(size, side=28)  # so large that BLAS would use threads of its own
    expected, gradient = Parallel(workers=1).loss_and_gradient(loss, network, *rows)
    for workers in (2, 3):
        found = Parallel(workers).loss_and_gradient(loss, network, *rows)
        assert found[0] == expected
        np.testing.assert_array_equal(found[1], gradient)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("shard", [1, 3, 4, 10, 100])
def test_the_gradient_is_that_of_the_whole_batch(shard, workers):
    network, rows = model(np.float64), batch(dtype=np.float64)
    whole = loss(network, *rows)
    expected = np.concatenate([g.reshape(-1) for g in gradients(whole, network.parameters())])
    found, gradient = Parallel(workers, shard).loss_and_gradient(loss, network, *rows)
    assert gradient.shape == expected.shape
    assert float(found) == pytest.approx(whole.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize("workers", [1, 2])
def test_float32_stays_float32(workers):
    value, gradient = Parallel(workers).loss_and_gradient(loss, model(), *batch())
    assert value.dtype == gradient.dtype == np.float32


@pytest.mark.parametrize("workers", [1, 2])
def test_weights_that_changed_between_two_batches_are_seen(workers):
    """What is computed once for all the shards of a batch must not outlive it."""
    network, cores = model(), Parallel(workers)
    cores.loss_and_gradient(loss, network, *batch())
    for p in network.parameters():
        p.data *= np.float32(0.5)
    found, gradient = cores.loss_and_gradient(loss, network, *batch())
    expected, fresh_gradient = Parallel(1).loss_and_gradient(loss, pickle.loads(pickle.dumps(network)), *batch())
    assert found == expected
    np.testing.assert_array_equal(gradient, fresh_gradient)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_generator_that_yields_while_weights_are_constant_keeps_nothing_for_its_caller(workers):
    network, x = nn.Conv2d(4, 4, rng=np.random.default_rng(0)), batch(4)[1].repeat(4, axis=3)
    optimiser, cores = nn.SGD(network.parameters(), 0.1), Parallel(workers, shard=2)

    def predict(network, x):
        return network(Tensor(x))

    def predictions():
        with nn.constant_weights():
            while True:
                yield cores.map(predict, network, x)

    first, second = predictions(), predictions()
    for found in zip(first, second, strict=True):
        fresh = pickle.loads(pickle.dumps(network))
        expected = Parallel(1, shard=2).map(predict, fresh, x)
        for output in (*found, cores.map(predict, network, x)):
            np.testing.assert_array_equal(output, expected)
        if optimiser.steps == 2:
            break
        optimiser.step(np.ones_like(optimiser.flat))


def test_memory_depends_on_the_shard_and_not_on_the_batch():
    def peak(size):
        network, rows = model(), batch(size)
        tracemalloc.start()
        Parallel(workers=1).loss_and_gradient(loss, network, *rows)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(4)  # what is computed once and kept
    assert peak(64) < 1.2 * peak(16)


# ==== lanes and shards ====


def rows_at_once(network, index):
    """For each row, how many rows came with it."""
    return Tensor(np.full(len(index), len(index), np.float32))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 11, 100])
def test_every_row_comes_back_in_its_place_from_shards_of_at_most_the_size_asked_for(size, workers):
    x = np.arange(size, dtype=np.float32)
    cores = Parallel(workers, shard=4)
    np.testing.assert_array_equal(cores.map(twice, None, x), 2 * x)
    together = cores.map(rows_at_once, None, x)
    assert together.max() <= 4
    assert together.max() - together.min() <= 1 or size > 32  # as even as can be


def twice(network, x):
    return Tensor(2 * x)


def tape_is_on(network, x):
    return Tensor(np.full(len(x), tape.grad_enabled(), np.float32))


@pytest.mark.parametrize("workers", [1, 2])
def test_map_records_nothing(workers):
    assert not Parallel(workers, shard=1).map(tape_is_on, None, np.zeros(4)).any()


def absent(network, x, nothing):
    assert nothing is None
    return Tensor(x)


def test_none_in_place_of_an_array_is_passed_on():
    np.testing.assert_array_equal(Parallel(2, shard=2).map(absent, None, np.ones(4), None), np.ones(4))


# ==== errors ====


def fail_at_seven(network, x):
    if 7 in x:
        raise ZeroDivisionError("row 7")
    return Tensor(x)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_in_a_shard_reaches_the_caller_and_the_next_batch_runs(workers):
    cores = Parallel(workers, shard=1)
    with pytest.raises(ZeroDivisionError, match="row 7") as caught:
        cores.map(fail_at_seven, None, np.arange(9.0))
    if workers > 1:
        assert 'test_parallel.py", line ' in caught.value.__notes__[0]  # where it happened
        assert "in fail_at_seven" in caught.value.__notes__[0]
    assert cores.map(fail_at_seven, None, np.arange(5.0)).sum() == 10


def test_a_batch_of_no_rows_or_of_arrays_that_differ_in_length_is_refused():
    with pytest.raises(ValueError, match=r"lengths \[0\]"):
        Parallel(1).map(twice, None, np.zeros(0))
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]"):
        Parallel(1).map(absent, None, np.zeros(2), np.zeros(3))


@pytest.mark.parametrize(
    "workers, shard, words",
    [(0, 4, "workers .* at least 1, got 0"), (2, 0, "shard .* got 0"), (-1, 4, "workers .* -1")],
)
def test_no_workers_or_no_shard_is_refused(workers, shard, words):
    with pytest.raises(ValueError, match=words):
        Parallel(workers, shard)


# ==== what a function does to its rows, and with its memory, changes nothing ====


def centre_in_place(network, x):
    x -= x.mean(axis=1, keepdims=True)
    return Tensor(x)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_may_write_into_its_rows_and_the_batch_stays(workers):
    x = np.random.default_rng(0).standard_normal((4, 3))
    before = x.copy()
    found = Parallel(workers, shard=1).map(centre_in_place, None, x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(found, before - before.mean(axis=1, keepdims=True))


def test_a_result_may_be_written_over_at_the_next_shard():
    buffer = np.empty((1, 3))
    x = np.arange(12.0).reshape(4, 3)
    found = Parallel(1, shard=1).map(lambda network, x: np.multiply(x, 2, out=buffer), None, x)
    np.testing.assert_array_equal(found, 2 * x)


def test_how_a_batch_lies_in_memory_changes_no_bit():
    x = np.random.default_rng(0).standard_normal((1000, 12)).astype(np.float32).T  # rows that are far apart
    one, two = (Parallel(n, shard=2).map(lambda network, x: x.sum(axis=1), None, x) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, Parallel(1, shard=2).map(lambda network, x: x.sum(axis=1), None, x.copy()))


# ==== where there are no processes ====

BROWSER = """
import sys
sys.platform = "emscripten"
import numpy as np
import nn
print(nn.available_cores(), nn.Parallel().workers, nn.Parallel(shard=1).map(lambda network, x: x, None, np.ones(3)))
try:
    nn.Parallel(2)
except ValueError as error:
    print(error)
"""


def test_in_a_browser_there_is_one_worker_and_more_are_refused():
    done = run_python("-c", BROWSER)
    assert done.stdout.splitlines() == [
        "1 1 [1. 1. 1.]",
        "Python in a browser is one process: workers must be 1 here, got 2",
    ], done.stderr


# ==== how many cores ====


@pytest.mark.parametrize(
    "quota, cores",
    [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 4), ("800000 100000\n", 4), (None, 4)],
    ids=["1.5 cores", "half a core", "no quota", "more than the mask", "no cgroup"],
)
def test_cores_are_those_of_the_affinity_mask_and_the_quota(monkeypatch, quota, cores):
    def read_text(path):
        assert str(path) == "/sys/fs/cgroup/cpu.max"
        if quota is None:
            raise FileNotFoundError
        return quota

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 4, 6}, raising=False)
    monkeypatch.setattr(parallel.Path, "read_text", read_text)
    assert available_cores() == cores
    assert Parallel().workers == cores


def test_without_affinity_masks_cores_are_counted(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(parallel.Path, "read_text", lambda path: "max 100000")
    assert available_cores() == 6
