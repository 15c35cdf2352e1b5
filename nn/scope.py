"""A value that holds inside a `with` block: whether ops are recorded, which precision is asked for. Next: tape.py.

A plain context variable leaks where the block stands in a generator: between two of its values the caller runs *inside*
the block. So a block that a generator entered holds only while that generator runs. In a thread or an asyncio task of
its own the value is the default, as with every context variable.
"""

import contextlib
import contextvars
import inspect
import sys

__all__ = ["Scope"]


class Scope:
    """A variable with a default; `with scope.set(value):` changes it inside the block, `scope.get()` reads it."""

    def __init__(self, name, default):
        self.innermost, self.default = contextvars.ContextVar(name, default=None), default

    def get(self):
        """The value of the innermost block that is running, or the default."""
        block = self.innermost.get()
        while block is not None and not block.holds():
            block = block.outer
        return self.default if block is None else block.value

    def set(self, value):
        """A block for `with`, in which `get` returns `value`."""
        return _Block(self, value)


class _Block:
    """One `with` block. Blocks of one thread form a chain, innermost first; generators may leave it in any order."""

    def __init__(self, scope, value):
        self.scope, self.value, self.left = scope, value, True

    def __enter__(self):
        if not self.left:
            raise RuntimeError("this block is entered already; make another one")
        self.left = False
        self.generator = _generator_of(sys._getframe(1))
        self.outer = self.scope.innermost.get()
        self.scope.innermost.set(self)
        return self.value

    def __exit__(self, *error):
        self.left, self.generator = True, None
        block = self.scope.innermost.get()
        while block is not None and block.left:
            block = block.outer
        self.scope.innermost.set(block)

    def holds(self):
        """Whether the block is entered, and the generator that entered it, if any, is running and not suspended."""
        return not self.left and (self.generator is None or self.generator.f_back is not None)


def _generator_of(frame):
    """The frame that a block belongs to, if it is a generator's; None for a function's.

    A generator under `@contextmanager` is suspended while its block runs: the block belongs to the frame that uses it.
    """
    while frame.f_back and contextlib.__file__ in (frame.f_code.co_filename, frame.f_back.f_code.co_filename):
        frame = frame.f_back
    return frame if frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR) else None
