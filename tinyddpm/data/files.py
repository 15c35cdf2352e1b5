"""Files that are never half there. Next: checkpoint.py and mnist.py, which write with it."""

import os
from contextlib import contextmanager
from pathlib import Path

__all__ = ["write_atomically"]


@contextmanager
def write_atomically(path):
    """Open a binary file that appears at `path`, whole, when the block ends.

    The bytes go to a temporary file in the same directory, which is flushed to the disk and then renamed: a
    reader sees the old file or the new one. If the block raises, the old file stays and the temporary one is
    removed. Missing parent directories are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(directory):
    """Make a rename in `directory` survive a power cut. Windows can neither open a directory nor needs to."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
