"""Messages between a process and its workers: a pickle, and beside it the arrays as they lie in memory.

A worker keeps the arrays of a job and is sent only those that have changed, so a large array that a function names
travels once. They arrive read-only, since what a function wrote into one would stay in its worker. Next: by_value.py.
"""

import pickle
import struct

from nn.cpu import by_value
from nn.cpu.by_value import pickled, unpickled

__all__ = ["Job", "Received", "pack", "write", "read"]


class Job:
    """What all tasks of a call have in common, pickled. Arrays that `before`, another Job, has too are the same objects."""

    def __init__(self, value, before=None):
        self.stream, arrays = pickled(value)
        kept = before.arrays if before else []
        self.arrays = [
            kept[i] if i < len(kept) and kept[i] == array else bytearray(array) for i, array in enumerate(arrays)
        ]

    def since(self, before):
        """(pickle or None, the number of arrays, {i: array}): what a worker lacks that has the Job `before`, or None."""
        kept = before.arrays if before else []
        new = {i: pickle.PickleBuffer(a) for i, a in enumerate(self.arrays) if i >= len(kept) or a is not kept[i]}
        return None if before and before.stream == self.stream else self.stream, len(self.arrays), new


class Received:
    """A Job where it is received: `value`, made anew whenever anything in it has changed."""

    def __init__(self):
        self.stream, self.arrays, self.value = None, [], None

    def update(self, news):
        """Take what `Job.since` returned. Returns whether `value` is another."""
        stream, count, new = news
        if stream is None and not new and count == len(self.arrays):
            return False
        self.stream = stream or self.stream
        self.arrays = [memoryview(new[i]).toreadonly() if i in new else self.arrays[i] for i in range(count)]
        by_value.generators.clear()
        self.value = unpickled(self.stream, self.arrays)
        return True


# ==== messages on a pipe ====


def pack(message, answering=False):
    """`message` as bytes: how many parts, how long each is, the pickle, the arrays. answering: to whom sent the job."""
    stream, arrays = pickled(message, answering)
    parts = [stream, *arrays]
    return b"".join([struct.pack(f"<{1 + len(parts)}Q", len(parts), *map(len, parts)), *parts])


def write(pipe, packed):
    """Write bytes to an unbuffered pipe, which may take a part at a time."""
    rest = memoryview(packed)
    while rest:
        rest = rest[pipe.write(rest) :]


def read(pipe):
    """The next message of a pipe, or None where it has ended."""
    try:
        (count,) = struct.unpack("<Q", _exactly(pipe, 8))
        sizes = struct.unpack(f"<{count}Q", _exactly(pipe, 8 * count))
        stream, *arrays = [_exactly(pipe, size) for size in sizes]
    except EOFError:
        return None
    return unpickled(stream, arrays)


def _exactly(pipe, size):
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = pipe.readinto(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return data
