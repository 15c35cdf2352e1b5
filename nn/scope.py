"""A value that holds inside a `with` block: whether ops are recorded, which precision is asked for. Next: arrays.py.

A plain context variable leaks where the block stands in a generator: between two of its values the caller runs *inside*
the block. So a block entered in a generator, or in anything that a generator called, holds only while that generator
runs. A generator under `@contextmanager` is the exception, since it exists to lend its block to others. (A generator
that lends its block in another way, such as a fixture of pytest, lends nothing.)

A new thread starts with the default. An asyncio task starts with the blocks that its maker is in, until those end.
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
        self.innermost, self.default = contextvars.ContextVar(name, default=None), default

    def get(self):
        """The value of the innermost block that holds, or the default."""
        block = self.innermost.get()
        while block is not None:  # a plain loop: this runs for every op
            if not block.left and (block.generator is None or block.generator.f_back is not None):
                return block.value
            block = block.outer
        return self.default

    def set(self, value):
        """A block for `with`, in which `get` returns `value`."""
        return _Block(self, value)


class _Block:
    """One `with` block. Blocks of one thread form a chain, innermost first; generators may leave it in any order.

    generator: the frame of the generator it belongs to, or None. Such a frame has a caller (f_back) only while it runs.
    """

    def __init__(self, scope, value):
        self.scope, self.value, self.left = scope, value, True

    def __enter__(self):
        if not self.left:
            raise RuntimeError("this block is entered already; make another one")
        self.left, self.generator = False, _generator_around(sys._getframe(1))
        self.outer = self.scope.innermost.get()
        self.scope.innermost.set(self)
        return self.value

    def __exit__(self, *error):
        self.left, self.generator = True, None
        block = _not_left(self.scope.innermost.get())
        self.scope.innermost.set(block)
        while block is not None:  # blocks that were left in the middle go too, or the chain would grow
            block.outer = _not_left(block.outer)
            block = block.outer


def _not_left(block):
    while block is not None and block.left:
        block = block.outer
    return block


def _generator_around(frame):
    """The innermost generator's frame among `frame` and its callers, without those that `@contextmanager` runs."""
    while frame is not None:
        caller = frame.f_back
        lent = caller is not None and caller.f_code.co_filename == _CONTEXTLIB
        if frame.f_code.co_flags & _GENERATOR and not lent:
            return frame
        frame = caller
    return None
