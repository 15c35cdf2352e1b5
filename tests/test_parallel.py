"""Shards on threads: the same numbers on any number of threads, and the numbers of the whole batch."""

import os
import time
import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import nn
from nn import Parallel, available_cores, gradients, parallel, tape
from tinyddpm.unet import UNet, UNetConfig

SIZE = 10  # in shards of four: the last one has two


def batch(size=SIZE, dtype=np.float32, width=8, side=12):
    """The parameters of a network whose every layer is in use, and the loss of some rows of a batch."""
    config = UNetConfig(width=width, multipliers=(1, 2), groups=4, classes=3, dropout=0.1)
    network = UNet(config).astype(dtype)
    rng = np.random.default_rng(0)
    for p in network.parameters():
        p.data += 0.1 * rng.standard_normal(p.shape).astype(dtype)
    x, eps = rng.standard_normal((2, size, side, side, 1)).astype(dtype)
    t, labels = rng.integers(1, 1001, size), rng.integers(0, 4, size)

    def loss(rows):
        with nn.random_state(1, 2, np.arange(size)[rows]):
            return nn.mse(network(x[rows], t[rows], labels[rows]), eps[rows])

    return network.parameters(), loss


@pytest.mark.parametrize("size", [SIZE, 4], ids=["three shards", "one shard"])
def test_the_result_is_the_same_bit_for_bit_on_any_number_of_threads(size):
    parameters, loss = batch(size, width=32, side=28)  # so large that BLAS would use threads of its own
    expected, gradient = Parallel(threads=1).loss_and_gradient(loss, parameters, size)
    for threads in (2, 3):
        found = Parallel(threads).loss_and_gradient(loss, parameters, size)
        assert found[0] == expected
        np.testing.assert_array_equal(found[1], gradient)


@pytest.mark.parametrize("shard", [1, 3, 4, 10, 100])
def test_the_gradient_is_that_of_the_whole_batch(shard):
    parameters, loss = batch(dtype=np.float64)
    whole = loss(slice(0, SIZE))
    expected = np.concatenate([g.reshape(-1) for g in gradients(whole, parameters)])
    found, gradient = Parallel(threads=2, shard=shard).loss_and_gradient(loss, parameters, SIZE)
    assert gradient.shape == expected.shape
    assert float(found) == pytest.approx(whole.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12 * abs(expected).max())


def test_float32_stays_float32():
    parameters, loss = batch()
    value, gradient = Parallel(threads=2).loss_and_gradient(loss, parameters, SIZE)
    assert value.dtype == gradient.dtype == np.float32


def test_weights_that_changed_between_two_batches_are_seen():
    """What is computed once for all the shards of a batch must not outlive it."""
    parameters, loss = batch()
    fresh_parameters, fresh_loss = batch()
    workers = Parallel(threads=2)
    workers.loss_and_gradient(loss, parameters, SIZE)
    for p in parameters + fresh_parameters:
        p.data *= np.float32(0.5)
    found, gradient = workers.loss_and_gradient(loss, parameters, SIZE)
    expected, fresh_gradient = workers.loss_and_gradient(fresh_loss, fresh_parameters, SIZE)
    assert found == expected
    np.testing.assert_array_equal(gradient, fresh_gradient)


def test_memory_depends_on_the_shard_and_not_on_the_batch():
    def peak(size):
        parameters, loss = batch(size)
        workers = Parallel(threads=1)
        tracemalloc.start()
        workers.loss_and_gradient(loss, parameters, size)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(4)  # what is computed once and kept
    assert peak(32) < 1.2 * peak(8)


# ==== shards, order, errors ====


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 11])
def test_shards_cover_the_batch_once_and_in_order(size):
    shards = Parallel(threads=1, shard=4).shards(size)
    assert [i for s in shards for i in range(s.start, s.stop)] == list(range(size))
    assert all(s.stop - s.start == 4 for s in shards[:-1])


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_even_if_they_are_ready_out_of_order(threads):
    def slow_first(shard):
        time.sleep(0.002 * (5 - shard.start) if shard.start < 5 else 0)
        return np.arange(shard.start, shard.stop)

    found = Parallel(threads, shard=1).map(slow_first, 20)
    assert found.tolist() == list(range(20))


@pytest.mark.parametrize("threads", [1, 2])
def test_map_records_nothing_and_run_does_as_its_caller(threads):
    workers = Parallel(threads, shard=1)
    enabled = lambda shard: np.array([tape.grad_enabled()])  # noqa: E731
    assert workers.map(enabled, 4).tolist() == [False] * 4
    assert list(workers.run(enabled, workers.shards(4))) == [True] * 4
    with nn.no_grad():
        assert list(workers.run(enabled, workers.shards(4))) == [False] * 4


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_in_a_shard_reaches_the_caller_and_the_next_batch_runs(threads):
    def fail_at_seven(shard):
        if shard.start == 7:
            raise ZeroDivisionError("shard 7")
        return np.ones(1)

    workers, before = Parallel(threads, shard=1), blas_threads()
    with pytest.raises(ZeroDivisionError, match="shard 7"):
        workers.map(fail_at_seven, 20)
    assert blas_threads() == before
    assert workers.map(fail_at_seven, 5).sum() == 5


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_runs_on_one_thread_while_shards_run_on_several():
    before = blas_threads()
    inside = Parallel(threads=2, shard=1).map(lambda shard: np.array(blas_threads()), 4)
    assert set(inside.tolist()) == {1}
    assert blas_threads() == before


@pytest.mark.parametrize("threads, shard", [(0, 4), (2, 0), (-1, 4)])
def test_no_threads_or_no_shard_is_refused(threads, shard):
    with pytest.raises(ValueError, match=f"at least 1, got {threads} and {shard}"):
        Parallel(threads, shard)


# ==== how many cores ====


@pytest.mark.parametrize("quota, cores", [
    ("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 4), ("800000 100000\n", 4), (None, 4),
], ids=["1.5 cores", "half a core", "no quota", "more than the mask", "no cgroup"])  # fmt: skip
def test_cores_are_those_of_the_affinity_mask_and_the_quota(monkeypatch, quota, cores):
    def read_text(path):
        assert str(path) == "/sys/fs/cgroup/cpu.max"
        if quota is None:
            raise FileNotFoundError
        return quota

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 4, 6}, raising=False)
    monkeypatch.setattr(parallel.Path, "read_text", read_text)
    assert available_cores() == cores
    assert Parallel().threads == cores


def test_without_affinity_masks_cores_are_counted(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(parallel.Path, "read_text", lambda path: "max 100000")
    assert available_cores() == 6
