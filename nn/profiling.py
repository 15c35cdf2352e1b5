"""Where the time of a step goes: seconds, calls and bytes of every op, from one hook. Next: cpu/parallel.py."""

import contextlib
import time
from collections import defaultdict

from nn.scope import Scope
from nn.tape import op_hooks

__all__ = ["profile"]

_tables = Scope("profile", ())  # of the blocks that hold here: one may stand in another


@contextlib.contextmanager
def profile():
    """Collect, inside this block, {(event, op): [seconds, calls, bytes of what the op returned or was sent]}.

    event: "forward" or "backward". An op's time runs from the end of the op before it, so it holds the Python between
    the two as well. On a GPU, where ops only queue work, times mean little. Ops of other threads are not collected.
    """
    table = defaultdict(lambda: [0.0, 0, 0])
    before = time.perf_counter()

    def hook(event, name, array):
        nonlocal before
        if any(held is table for held in _tables.get()):
            entry = table[event, name]
            entry[0] += time.perf_counter() - before
            entry[1] += 1
            entry[2] += array.nbytes
            before = time.perf_counter()

    op_hooks.append(hook)
    try:
        with _tables.set((*_tables.get(), table)):
            yield table
    finally:
        op_hooks.remove(hook)
