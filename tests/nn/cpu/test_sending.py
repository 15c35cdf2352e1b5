"""What is sent is no more than has changed; and what cannot be the same on every worker is refused."""

import os
import random
import threading

import numpy as np
import pytest

import nn
from nn import Parallel
from nn.cpu import sending


def same(function, model=None, rows=4):
    """The result of `function` on one worker and on two, which must be equal."""
    x = np.arange(rows, dtype=np.float64)
    one, two = (Parallel(workers, shard=1).map(function, model, x) for workers in (1, 2))
    np.testing.assert_array_equal(one, two)
    return two.tolist()


def double(network, x):
    return 2 * x


# ==== no more than has changed ====


def test_a_large_array_that_a_function_names_is_sent_once():
    images, weights = np.zeros((100, 28, 28)), np.ones(5)

    def function(network, x):
        return images[x.astype(int)].sum(axis=(1, 2)) + weights.sum()

    first = sending.Job(function)
    assert sum(len(array.raw()) for array in first.since(None)[2].values()) == images.nbytes + weights.nbytes
    again = sending.Job(function, first)
    assert again.since(first) == (None, 2, {})
    weights[0] = 2
    third = sending.Job(function, again)
    (new,) = third.since(again)[2].values()
    assert len(new.raw()) == weights.nbytes
    images[99] = 1  # in place
    (new,) = sending.Job(function, third).since(third)[2].values()
    assert len(new.raw()) == images.nbytes
    assert same(function) == [6, 6, 6, 6]
    images[2] = 1
    assert same(function) == [6, 6, 6 + 28 * 28, 6]


def bytes_written():
    with open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file)["wchar"])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="this system does not count what a process writes")
def test_a_step_of_training_sends_the_weights_and_the_rows_and_little_else():
    images = np.zeros((100, 1000), np.float32)
    network = nn.Linear(1000, 10, rng=np.random.default_rng(0))
    optimiser, cores, index = nn.SGD(network.parameters(), 0.1), Parallel(2, shard=2), np.arange(4)

    def step():
        _, gradient = cores.loss_and_gradient(lambda model, i: (model(images[i]) ** 2).mean(), network, index)
        optimiser.step(gradient + np.float32(1))

    step()
    before = bytes_written()
    step()
    assert 40_040 < bytes_written() - before < 40_040 + 10_000


def test_a_job_is_kept_while_nothing_in_it_changes():
    """Or what a worker computed once from the weights, such as transformed filters, would be computed at every step."""
    layer = nn.Linear(3, 1, rng=np.random.default_rng(0))
    everything = double, layer, lambda x: double(layer, x)
    job = sending.Job(everything, before := sending.Job(everything))
    assert job.since(before)[0] is None and job.since(before)[2] == {}
    received = sending.Received()
    assert received.update(before.since(None)) and not received.update(job.since(before))


# ==== what is refused ====


@pytest.mark.parametrize("name", ["default_rng", "numpy.random", "random"])
def test_a_function_that_draws_from_a_generator_of_each_process_is_refused(name):
    generator = np.random.default_rng(0)
    draw = {
        "default_rng": lambda network, x: x + generator.standard_normal(1),
        "numpy.random": lambda network, x: x + np.random.randn(1),
        "random": lambda network, x: x + random.random(),
    }[name]
    with pytest.raises(RuntimeError, match="draws from a random generator of which each worker has its own"):
        Parallel(2, shard=1).map(draw, None, np.arange(2.0))
    assert Parallel(1).map(draw, None, np.arange(2.0)).shape == (2,)


def test_a_generator_that_is_not_drawn_from_may_come_along():
    layer = nn.Linear(2, 2, rng=np.random.default_rng(0))
    layer.rng, layer.other = np.random.default_rng(0), random.Random(0)
    assert same(lambda network, x: x + 0 * network.rng.bit_generator.state["uinteger"], layer) == [0, 1, 2, 3]


def test_a_function_that_writes_into_an_array_that_came_along_is_refused():
    count = np.zeros(1)

    def counting(network, x):
        count[...] += 1
        return x

    with pytest.raises(ValueError, match="read-only") as caught:
        Parallel(2, shard=1).map(counting, None, np.arange(2.0))
    assert "what is written would be lost" in caught.value.__notes__[0]


def test_a_tensor_computed_before_the_call_has_its_graph_in_the_caller():
    layer, x = nn.Linear(3, 1, rng=np.random.default_rng(0)), np.ones((2, 3), np.float32)
    outside = (layer.weight * layer.weight).sum()
    assert same(lambda network, x: x + outside.item()) == [outside.item() + i for i in range(4)]
    with pytest.raises(RuntimeError, match="computed before the call"):
        Parallel(2, shard=1).loss_and_gradient(lambda network, x: network(x).mean() * outside, layer, x)


def test_what_cannot_go_to_a_worker_is_refused_with_the_reason_and_the_next_call_runs():
    lock = threading.Lock()

    def locked(network, x):
        with lock:
            return x

    with pytest.raises(TypeError, match="something in there cannot: cannot pickle '_thread.lock' object"):
        Parallel(2, shard=1).map(locked, None, np.arange(2.0))
    assert Parallel(1, shard=1).map(locked, None, np.arange(2.0)).tolist() == [0, 1]
    assert same(lambda network, x: x) == [0, 1, 2, 3]
