"""A value that holds inside a `with` block: whether ops are recorded, which precision is asked for.

A plain context variable leaks where the block stands in a generator: between two of its values the caller runs *inside*
the block. So a block entered in a generator, or in anything that a generator called, holds only while that generator
runs. A generator under `@contextmanager` is the exception, since it exists to lend its block to others. (A generator
that lends its block in another way, such as a fixture of pytest, lends nothing.)

A new thread starts with the default. An asyncio task starts with the blocks that its maker is in, until those end.
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
        # The blocks entered and not left: first those of generators, then the others, in each the latest first.
        self.blocks, self.default = contextvars.ContextVar(name, default=()), default

    def get(self):
        """The value of the innermost block that holds, or the default."""
        blocks = self.blocks.get()
        if not blocks:  # first, as this runs for every op
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
    """One `with` block. generator: the frame of the generator it belongs to; None for one that no generator is around.

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
    """The innermost generator's frame among `frame` and its callers, without those that `@contextmanager` runs."""
    while frame is not None:
        caller = frame.f_back
        lent = caller is not None and caller.f_code.co_filename == _CONTEXTLIB
        if frame.f_code.co_flags & _GENERATOR and not lent:
            return frame
        frame = caller
    return None
