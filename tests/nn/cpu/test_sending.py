"""What goes to workers: what a person wrote, as it is at the moment of the call, and no more than has changed."""

import dataclasses
import functools
import importlib
import os
import random
import subprocess
import sys
import textwrap
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


# ==== everything that can be called ====


@dataclasses.dataclass
class Scaled:
    """A function that is a dataclass: without a hash, and changed by its user."""

    factor: float
    parts: list = dataclasses.field(default_factory=list)

    def __call__(self, network, x):
        assert [field.name for field in dataclasses.fields(self)] == ["factor", "parts"]
        return self.factor * x

    def method(self, network, x):
        return dataclasses.replace(self, factor=1 + self.factor)(network, x)


def scaled(factor, network, x):
    return factor * x


def test_lambdas_closures_partials_methods_and_objects_run_on_workers():
    factor = 3

    def closure(network, x):
        return factor * x

    class Local(nn.Module):
        def __call__(self, x):
            return super().__repr__() and factor * x

    for function in (
        lambda network, x: 3 * x,
        closure,
        functools.partial(scaled, 3),
        Scaled(3),
        Scaled(2).method,
        functools.wraps(np.sin)(lambda network, x: 3 * x),
    ):
        assert same(function) == [0, 3, 6, 9]
    assert same(lambda network, x: network(x), Local()) == [0, 3, 6, 9]


def test_an_object_that_holds_a_parallel_can_be_sent():
    class Trainer:
        def __init__(self):
            self.cores = Parallel(2, shard=1)

        def double(self, network, x):
            return 2 * x

        def run(self):
            return self.cores.map(self.double, None, np.arange(3.0)).tolist()

    assert Trainer().run() == [0, 2, 4]


def test_the_model_that_a_loss_names_is_the_model_that_it_is_given():
    network, x = nn.Linear(3, 2, rng=np.random.default_rng(0)), np.ones((4, 3), np.float32)

    def loss(_, x):
        return (network(x) ** 2).mean()

    (_, one), (_, two) = (Parallel(n, shard=1).loss_and_gradient(loss, network, x) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    assert abs(two).max() > 0


# ==== as it is at the moment of the call ====

FACTOR = 1


def times_the_global(network, x):
    return FACTOR * x


def test_a_global_that_changes_between_two_calls_is_seen():
    global FACTOR
    for FACTOR in (2, 3):
        assert same(times_the_global) == [0, FACTOR, 2 * FACTOR, 3 * FACTOR]


def test_attributes_closures_defaults_and_contents_that_change_between_two_calls_are_seen():
    loss, table, array, factor = Scaled(1), {"factor": 1}, np.ones(1), 1

    class Layer(nn.Module):
        factor = 1

    layer = Layer()
    functions = {
        "an attribute": lambda network, x: loss.factor * x,
        "a dict": lambda network, x: table["factor"] * x,
        "an array": lambda network, x: array * x,
        "a closure": lambda network, x: factor * x,
        "a default": (default := lambda network, x, factor=1: factor * x),
        "a class": lambda network, x: network.factor * x,
    }
    for factor in (1, 2):  # noqa: B007  the closure sees it
        loss.factor = table["factor"] = array[0] = Layer.factor = factor
        default.__defaults__ = (factor,)
        for name, function in functions.items():
            assert same(function, layer) == [0, factor, 2 * factor, 3 * factor], name


@pytest.fixture
def written(tmp_path, monkeypatch):
    """written(text) writes the module `helpers`, which can be imported; another size each time, so that it is read again."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        path = tmp_path / "helpers.py"
        path.write_text(textwrap.dedent(text) + "#" * (path.stat().st_size if path.exists() else 0))
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("helpers", None)


HELPERS = """
import threading

SCALE = 1
LOCK = threading.Lock()

def scaled(network, x):
    return SCALE * x

def through_the_module(network, x):
    import helpers
    return helpers.SCALE * helpers.scaled(network, x)
"""


def test_a_module_that_is_reloaded_changed_or_edited_gives_what_it_gives_here(written):
    written(HELPERS)
    helpers = importlib.import_module("helpers")

    def by_name(network, x):
        return helpers.scaled(network, x)

    functions = helpers.scaled, by_name, lambda network, x: __import__("helpers").scaled(network, x)
    for function in functions:
        assert same(function) == [0, 1, 2, 3]
    written(HELPERS.replace("SCALE = 1", "SCALE = 7"))  # edited, but not loaded again: here it is the former
    for function in functions[:2]:
        assert same(function) == [0, 1, 2, 3]
    importlib.reload(helpers)
    for function in (helpers.scaled, *functions[1:]):
        assert same(function) == [0, 7, 14, 21]
    assert same(helpers.through_the_module) == [0, 49, 98, 147]
    helpers.SCALE = 100
    for function in (helpers.scaled, by_name):
        assert same(function) == [0, 100, 200, 300]
    helpers.scaled = lambda network, x: -x
    assert same(by_name) == [0, -1, -2, -3]


def test_a_module_imported_anew_replaces_the_former(written):
    for number in (1, 2):
        written(f"def scaled(network, x):\n    return {number} * x\n")
        sys.modules.pop("helpers", None)
        helpers = importlib.import_module("helpers")
        assert same(lambda network, x, helpers=helpers: helpers.scaled(network, x)) == [
            0,
            number,
            2 * number,
            3 * number,
        ]


PATCHED = """
import numpy as np
import nn
from nn import Parallel

x = np.ones(2, np.float32)

def loss(layer, x):
    return (nn.silu(layer(x)) + nn.ops.silu(layer(x))).sum(axis=1)

def show():
    layer, x = nn.Linear(3, 2, rng=np.random.default_rng(0)), np.ones((2, 3), np.float32)
    one, two = (Parallel(n, shard=1).map(loss, layer, x) for n in (1, 2))
    assert (one == two).all(), (one, two)
    return one.tolist()

results = [show()]
plain, nn.silu = nn.silu, lambda x: 0 * x
results.append(show())
nn.ops.silu = nn.silu
results.append(show())
call, nn.Linear.__call__ = nn.Linear.__call__, lambda self, x: call(self, x) * 0 + 2
results.append(show())
nn.silu = nn.ops.silu = plain
nn.Linear.__call__ = call
results.append(show())
print(results[4] == results[0], results[1] != results[0], results[2:4])
"""


def test_a_function_or_method_of_nn_that_a_person_replaces_is_replaced_on_workers_until_it_is_put_back(tmp_path):
    """In a program of its own, which may do to nn what a test may not."""
    done = subprocess.run([sys.executable, "-c", PATCHED], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True True [[0.0, 0.0], [0.0, 0.0]]\n", done.stderr


def test_floating_point_errors_are_treated_as_in_the_caller():
    def divided(network, x):
        return 1 / (x - 3)

    for workers in (1, 2):
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError, match="divide by zero"):
            Parallel(workers, shard=1).map(divided, None, np.arange(4.0))
        with np.errstate(divide="ignore"):
            assert np.isinf(Parallel(workers, shard=1).map(divided, None, np.arange(4.0))[3])


def test_a_path_that_is_added_after_workers_were_started_is_searched_by_them(written):
    same(lambda network, x: x)
    written("FACTOR = 4")
    assert same(lambda network, x: __import__("helpers").FACTOR * x) == [0, 4, 8, 12]


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
    job = sending.Job((scaled, layer, times_the_global), before := sending.Job((scaled, layer, times_the_global)))
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
