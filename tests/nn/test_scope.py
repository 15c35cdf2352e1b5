"""Scopes: a block holds inside itself and nowhere else, whoever enters it, in whatever order blocks end."""

import asyncio
import contextlib
import gc
import threading
import weakref

import numpy as np
import pytest

import nn
from nn import tape
from nn.cache import remembered
from nn.gpu.precision import products_in
from nn.random import next_uniform
from nn.scope import Scope

scope = Scope("test", "outside")


@contextlib.contextmanager
def by_contextmanager(value="inside"):
    with scope.set(value):
        yield value


@contextlib.contextmanager
def by_two_contextmanagers(value="inside"):
    with by_contextmanager(value):
        yield value


class ByClass:
    def __init__(self, value="inside"):
        self.value = value

    def __enter__(self):
        self.block = scope.set(self.value)
        return self.block.__enter__()

    def __exit__(self, *error):
        self.block.__exit__(*error)


@contextlib.contextmanager
def by_exit_stack(value="inside"):
    with contextlib.ExitStack() as stack:
        help_to_enter(stack, value)
        yield value


def help_to_enter(stack, value):
    stack.enter_context(scope.set(value))


def plainly(value="inside"):
    return scope.set(value)


every_way = pytest.mark.parametrize(
    "enter", [plainly, by_contextmanager, by_two_contextmanagers, ByClass, by_exit_stack], ids=lambda way: way.__name__
)

# ==== blocks ====


@every_way
def test_a_block_holds_inside_itself_and_ends_by_an_exception_too(enter):
    with pytest.raises(ZeroDivisionError), enter("a") as value:
        assert scope.get() == value == "a"
        with enter("b"):
            assert scope.get() == "b"
        assert scope.get() == "a"
        raise ZeroDivisionError
    assert scope.get() == "outside"


def test_a_block_is_entered_once_at_a_time():
    block = scope.set("a")
    with block, pytest.raises(RuntimeError, match="entered already"), block:
        pass
    with block:
        assert scope.get() == "a"
    assert scope.get() == "outside"


def test_what_is_called_inside_a_block_is_inside():
    with scope.set("inside"):
        assert list(scope.get() for _ in range(2)) == ["inside", "inside"]
        assert list(map(lambda _: scope.get(), [0])) == ["inside"]


# ==== generators ====


@every_way
def test_a_generator_that_yields_in_a_block_does_not_put_its_caller_in_it(enter):
    def generator():
        with enter():
            while True:
                yield scope.get()

    values = generator()
    for _ in range(3):
        assert next(values) == "inside"
        assert scope.get() == "outside"
    with scope.set("the caller's"):
        assert next(values) == "inside"
        assert scope.get() == "the caller's"
    values.close()
    assert scope.get() == "outside"


@every_way
def test_a_block_that_a_helper_enters_for_a_generator_is_the_generators(enter):
    def generator():
        with contextlib.ExitStack() as stack:
            (lambda: stack.enter_context(enter()))()
            yield scope.get()
            yield scope.get()

    values = generator()
    assert (next(values), scope.get(), next(values), scope.get()) == ("inside", "outside", "inside", "outside")


@every_way
def test_generators_in_step_may_end_in_any_order(enter):
    def generator(value):
        with enter(value):
            yield scope.get()
            yield scope.get()

    one, two = generator("one"), generator("two")
    assert [*zip(one, two, strict=True)] == [("one", "two")] * 2
    assert scope.get() == "outside"
    one, two = generator("one"), generator("two")
    assert (next(one), next(two)) == ("one", "two")
    one.close()
    assert (next(two), scope.get()) == ("two", "outside")
    del two
    assert scope.get() == "outside"


def test_the_innermost_block_is_that_of_the_generator_that_runs_whichever_began_first():
    def source():
        with scope.set("source"):
            while True:
                yield scope.get()

    def pipeline(source):
        with scope.set("pipeline"):
            while True:
                yield scope.get(), next(source), scope.get()

    for started_first in (0, 1):
        first = source()
        second = pipeline(first)
        next((first, second)[started_first])
        with scope.set("the caller's"):
            next((second, first)[started_first])
            assert next(second) == ("pipeline", "source", "pipeline")
            assert scope.get() == "the caller's"


def test_a_generator_hands_its_block_on_to_the_one_it_delegates_to():
    def inner():
        yield scope.get()

    def outer():
        with scope.set("outer's"):
            yield from inner()
            yield from (scope.get() for _ in range(1))

    assert [*outer()] == ["outer's", "outer's"]


def test_a_generator_under_contextmanager_lends_its_block_and_one_around_it_does_not():
    def generator():
        with by_two_contextmanagers():
            yield scope.get()

    with by_two_contextmanagers("mine"):
        assert scope.get() == "mine"
        assert [(value, scope.get()) for value in generator()] == [("inside", "mine")]


def test_a_context_manager_as_a_decorator():
    @by_contextmanager("decorated")
    def function():
        return scope.get()

    assert (function(), scope.get()) == ("decorated", "outside")


def test_a_generator_that_is_dropped_leaves_its_block_and_no_cycle():
    def generator(alive):
        with scope.set("inside"):
            yield alive

    class Thing:
        pass

    thing = Thing()
    alive = weakref.ref(thing)
    values = generator(thing)
    gc.disable()
    try:
        next(values)
        del values, thing
        assert scope.get() == "outside" and alive() is None
    finally:
        gc.enable()


def test_blocks_that_were_left_are_forgotten_though_one_above_them_never_ends():
    """One generator is started before the one before it ends, for ever, as a prefetch does."""

    def generator():
        with scope.set("inside"):
            yield

    running = generator()
    next(running)
    for _ in range(5):
        following = generator()
        next(following)
        running.close()
        running = following
        assert len(scope.blocks.get()) == 1


# ==== threads and tasks ====


def test_a_thread_starts_with_the_default():
    seen = []
    with scope.set("inside"):
        thread = threading.Thread(target=lambda: seen.append(scope.get()))
        thread.start()
        thread.join()
        assert scope.get() == "inside"
    assert seen == ["outside"]


def test_tasks_do_not_see_each_others_blocks_and_see_that_of_their_maker_until_it_ends():
    seen = {}

    async def task(name):
        seen[name, "at the start"] = scope.get()
        with scope.set(name):
            await asyncio.sleep(0)
            seen[name, "inside"] = scope.get()
        await asyncio.sleep(0.01)
        seen[name, "when the maker's block has ended"] = scope.get()

    async def main():
        with scope.set("maker's"):
            tasks = [asyncio.ensure_future(task(name)) for name in ("one", "two")]
            await asyncio.sleep(0.001)
            assert scope.get() == "maker's"
        await asyncio.gather(*tasks)
        return scope.get()

    assert asyncio.run(main()) == "outside"
    for name in ("one", "two"):
        assert [seen[name, when] for when in ("at the start", "inside")] == ["maker's", name]
        assert seen[name, "when the maker's block has ended"] == "outside"


def test_an_async_generator_and_an_async_context_manager():
    async def generator():
        with scope.set("inside"):
            yield scope.get()
            yield scope.get()

    @contextlib.asynccontextmanager
    async def lent():
        with scope.set("lent"):
            yield

    async def main():
        seen = [(value, scope.get()) async for value in generator()]
        async with lent():
            seen.append(scope.get())
        return [*seen, scope.get()]

    assert asyncio.run(main()) == [("inside", "outside")] * 2 + ["lent", "outside"]


# ==== the scopes of nn ====


def test_zipped_generators_under_no_grad_leave_gradients_on():
    def batches():
        with nn.no_grad():
            for _ in range(2):
                assert not tape.grad_enabled()
                yield

    for _ in zip(batches(), batches(), strict=True):
        assert tape.grad_enabled()
    assert tape.grad_enabled()


def test_a_generator_in_constant_weights_leaves_its_caller_without_a_cache():
    weight, calls = nn.tensor([1.0]), []

    def samples():
        with nn.constant_weights():
            for _ in range(2):
                yield remembered("sum", weight, lambda: calls.append("inside") or 1)

    for _ in samples():
        remembered("sum", weight, lambda: calls.append("outside"))
    assert calls == ["inside", "outside", "outside"]


def test_a_generator_in_random_state_does_not_seed_its_caller():
    def drawn():
        with nn.random_state(1, 2, range(3)):
            yield next_uniform((3,))
            yield next_uniform((3,))

    values = drawn()
    first = next(values)
    with pytest.raises(RuntimeError, match="random_state"):
        next_uniform((3,))
    with nn.random_state(1, 2, range(3)):
        np.testing.assert_array_equal(next_uniform((3,)), first)
        second = next(values)
        np.testing.assert_array_equal(next_uniform((3,)), second)


def test_a_generator_in_a_precision_leaves_its_callers_as_it_was():
    def products():
        with nn.precision("bf16"):
            yield products_in("bf16", np.dtype(np.float32))

    assert [(inside, products_in("fp32", np.dtype(np.float32))) for inside in products()] == [(True, True)]


def test_a_generator_in_a_profile_counts_its_own_ops_alone():
    x = nn.tensor([1.0])

    def counted():
        with nn.profile() as table:
            for _ in range(2):
                nn.silu(x)
                yield table

    with nn.profile() as outer:
        for table in counted():  # noqa: B007  read after the loop
            nn.tanh(x)
    nn.tanh(x)
    assert {event: calls for event, (_, calls, _) in table.items()} == {("forward", "silu"): 2}
    assert {event: calls for event, (_, calls, _) in outer.items()} == {("forward", "silu"): 2, ("forward", "tanh"): 2}
    assert not tape.op_hooks
