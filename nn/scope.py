"""A value that holds inside a `with` block: whether ops are recorded, which precision is asked for.

A plain context variable leaks if the block is in a generator: after a `yield` inside the block, the caller runs with
the block's value. So a block entered in a generator, or in a function that a generator called, holds only while that
generator runs. A generator under `@contextmanager` is the exception: its block holds for the caller, as it should.
(Any other generator that yields inside a block, such as a pytest fixture, leaves its caller unaffected.)

A new thread starts with the default. An asyncio task starts with the blocks in which it was created, until they end.
Next: arrays.py.
"""

import contextlib
import contextvars
import inspect
import sys

__all__ = ["Scope"]

_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_CONTEXTLIB = contextlib.contextmanager.__code__.co_filename


class Scope:
    """A variable with a default; `with scope.set(value):` changes it inside the block, `scope.get()` reads it."""

    def __init__(self, name, default):
        # The open blocks: first those entered in generators, then the others. In both parts the latest is first.
        self.blocks, self.default = contextvars.ContextVar(name, default=()), default

    def get(self):
        """The value of the innermost block that holds, or the default."""
        blocks = self.blocks.get()
        if not blocks:  # the fast path: this runs for every op
            return self.default
        running = None
        for block in blocks:
            if block.left:
                continue
            generator = block.generator
            if generator is None:
                return block.value if running is None else running.value
            if generator.f_back is not None and (running is None or _is_called_from(generator, running.generator)):
                running = block
        return self.default if running is None else running.value

    def set(self, value):
        """A block for `with`, in which `get` returns `value`."""
        return _Block(self, value)


class _Block:
    """One `with` block. generator: the frame of the generator that it was entered in, or None.

    The frame of a generator has a caller (f_back) only while the generator runs.
    """

    __slots__ = ("scope", "value", "left", "generator")

    def __init__(self, scope, value):
        self.scope, self.value, self.left, self.generator = scope, value, True, None

    def __enter__(self):
        if not self.left:
            raise RuntimeError("this block is entered already; make another one")
        blocks = [b for b in self.scope.blocks.get() if not b.left]
        self.left, self.generator = False, _generator_around(sys._getframe(1))
        of_generators = 0 if self.generator else sum(b.generator is not None for b in blocks)
        blocks.insert(of_generators, self)
        self.scope.blocks.set(tuple(blocks))
        return self.value

    def __exit__(self, *error):
        self.left, self.generator = True, None
        self.scope.blocks.set(tuple(b for b in self.scope.blocks.get() if not b.left))


def _is_called_from(frame, other):
    """Whether `other` is among the callers of `frame`."""
    while frame is not None and (frame := frame.f_back) is not other:
        pass
    return frame is not None


def _generator_around(frame):
    """The innermost generator frame of `frame` and its callers, skipping those that `@contextmanager` runs; or None."""
    while frame is not None:
        caller = frame.f_back
        lent = caller is not None and caller.f_code.co_filename == _CONTEXTLIB
        if frame.f_code.co_flags & _GENERATOR and not lent:
            return frame
        frame = caller
    return None
