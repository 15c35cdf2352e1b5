"""What a person wrote runs on workers as it is at the moment of the call."""

import abc
import dataclasses
import enum
import functools
import importlib
import sys
import textwrap
import typing

import numpy as np
import pytest
from subprocesses import run_python

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


@functools.cache
def recursive(n):
    return n + recursive(n - 1) if n else 0


def test_cached_functions_and_properties_and_every_kind_of_class_run_on_workers():
    class Colour(enum.Enum):
        RED = 3

    class Pair(typing.NamedTuple):
        first: int

    class Base(abc.ABC):
        @abc.abstractmethod
        def factor(self): ...

    class Derived(Base, nn.Module):
        __slots__ = ()

        @staticmethod
        def one():
            return 1

        @classmethod
        def two(cls):
            return 2 * cls.one()

        @functools.cached_property
        def three(self):
            return self.two() + 1

        @property
        def four(self):
            return self.three + 1

        def factor(self):
            return super().__class__.__name__ and self.four

    derived = Derived()
    assert same(lambda network, x: recursive(3) * x) == [0, 6, 12, 18]
    assert same(lambda network, x: Colour.RED.value * Pair(2).first * network.factor() * x, derived) == [0, 24, 48, 72]


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


def test_a_package_goes_along_as_far_as_it_is_named(tmp_path, monkeypatch):
    """Its modules import each other, and hold what cannot be sent and what would be slow to send."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text(
        "import threading\nLOCK = threading.Lock()\nfrom parts import one\n"
    )
    (tmp_path / "parts" / "one.py").write_text(
        "import parts, numpy\nfrom parts import two\nLARGE = numpy.ones(10**6)\n"
    )
    (tmp_path / "parts" / "two.py").write_text(
        "import parts\nFACTOR = 5\ndef f(x):\n    return parts.two.FACTOR * g(x)\ndef g(x):\n    return parts.one.two and x\n"
    )
    parts = importlib.import_module("parts")
    try:
        function = lambda network, x: parts.one.two.f(x)  # noqa: E731
        for parts.two.FACTOR in (5, 6):
            assert same(function) == [0, parts.two.FACTOR, 2 * parts.two.FACTOR, 3 * parts.two.FACTOR]
        job = sending.Job(function)
        assert len(job.stream) < 5000 and not job.arrays
    finally:
        for name in ("parts", "parts.one", "parts.two"):
            sys.modules.pop(name, None)


PATCHED = """
import sys, types
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

sys.modules["mine"] = types.ModuleType("mine")
nn.silu = lambda x: 0 * x
nn.silu.__module__ = "mine"
show()
nn.silu = plain
del sys.modules["mine"]
show()
print(results[4] == results[0], results[1] != results[0], results[2:4])
"""


def test_a_function_or_method_of_nn_that_a_person_replaces_is_replaced_on_workers_until_it_is_put_back():
    """In a program of its own, which may do to nn what a test may not."""
    done = run_python("-c", PATCHED)
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
