"""Where the time of a step goes: seconds, calls and bytes of every op, forward and backward, from one hook."""

import contextlib
import threading
import time
from collections import defaultdict

from nn.tape import op_hooks

__all__ = ["profile"]


@contextlib.contextmanager
def profile():
    """Collect, inside this block, {(event, op): [seconds, calls, bytes of what the op returned or was sent]}.

    event: "forward" or "backward". An op's time runs from the end of the op before it on the same thread, so it holds
    the Python between the two as well. On a GPU, where ops only queue work, times mean little.
    """
    table = defaultdict(lambda: [0.0, 0, 0])
    before = threading.local()

    def hook(event, name, array):
        now = time.perf_counter()
        entry = table[event, name]
        entry[0] += now - getattr(before, "time", now)
        entry[1] += 1
        entry[2] += array.nbytes
        before.time = time.perf_counter()

    op_hooks.append(hook)
    try:
        yield table
    finally:
        op_hooks.remove(hook)
