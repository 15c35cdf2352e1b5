"""Files that are never half there, and a lock on them. Next: progress.py."""

import contextlib
import errno
import glob
import os
import platform
import stat
import tempfile
import threading
from pathlib import Path

from tinyddpm.data.progress import say

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

__all__ = ["write_atomically", "check_folder", "exclusive"]


@contextlib.contextmanager
def write_atomically(path):
    """Open a binary file that appears at `path`, whole, when the block ends.

    The bytes go to a temporary file in the same directory, which is flushed to the disk and then renamed: a reader sees
    the old file or the new one. If the block raises, the old file stays and the temporary one is removed. A symbolic
    link stays one: its target is written. A file that was there keeps its mode. Missing parent directories are made.
    Raises OSError, naming `path`, at once where it cannot be written, is read-only, or is no plain file.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = _mode(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(temporary, "wb") as file:
            if mode is not None:
                with contextlib.suppress(OSError):  # a file system without modes
                    os.chmod(temporary, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # A full disk names no file, another fault the temporary one. Without a number the message is all there is.
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
            del error.filename2
        raise
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # Windows cannot open a directory
        directory = os.open(path.parent, os.O_RDONLY)
        stack.callback(os.close, directory)
        os.fsync(directory)  # so that the rename survives a power cut


def check_folder(path):
    """Make the folder `path` if there is none. OSError, naming it, where no file can be written into it."""
    Path(path).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path).close()


def _mode(path):
    """The permissions of the file at `path`, or None if there is none. OSError if it must not be replaced."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a plain file", str(path))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return stat.S_IMODE(mode)


@contextlib.contextmanager
def exclusive(path):
    """Hold `path`, which this process alone will write until the block ends.

    BlockingIOError, naming the process, if another one holds it (or another block of this one). The lock is on
    `.NAME.lock` beside it, and the operating system opens it when its process ends, however that ends; a network file
    system may not lock between machines. Temporary files of `path` that a killed process left are removed.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "a+", encoding="utf-8") as file:
        if not _lock(file):
            file.seek(0)
            raise BlockingIOError(f"{path} is being written by another run: process {file.read()}")
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            left.unlink(missing_ok=True)
        yield


def _lock(file):
    """Lock an open file; False if it is locked already. Closing the file unlocks it."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(file.fileno(), 1 << 30, os.SEEK_SET)  # far from what is written, which others then can read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        say(f"{file.name} cannot be locked ({error}): take care that no two runs write there at once.")
    return True
