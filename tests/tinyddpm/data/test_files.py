"""A file is whole or not there, a link stays a link, one run at a time: whatever happens to disk and processes."""

import errno
import os
import platform
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from tinyddpm.data.files import exclusive, write_atomically

posix = pytest.mark.skipif(os.name != "posix", reason="modes and links as on POSIX")
not_root = pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anything")


def write(path, content):
    with write_atomically(path) as file:
        file.write(content)


def names(directory):
    return sorted(entry.name for entry in directory.iterdir())


# ---- write_atomically ----


@posix
def test_a_symbolic_link_stays_one_and_its_target_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "real", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to("there/real")
    write(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert names(tmp_path) == ["link", "there"] and names(tmp_path / "there") == ["real"]


def test_an_error_names_the_file_and_nothing_else_and_keeps_its_words(tmp_path, monkeypatch):
    def fails(source, target):
        raise OSError(errno.EIO, "Input/output error", str(source), None, str(target))

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError) as caught:
        write(tmp_path / "f", b"new")
    assert str(caught.value) == f"[Errno {errno.EIO}] Input/output error: {str(tmp_path / 'f')!r}"
    with pytest.raises(OSError, match="^no such picture$"), write_atomically(tmp_path / "f"):
        raise OSError("no such picture")


@posix
def test_a_link_to_nothing_gets_its_target(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "later" / "real")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "later" / "real").read_bytes() == b"new"


@posix
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_file_keeps_its_mode(tmp_path, mode):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(mode)
    write(tmp_path / "f", b"new")
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode


@posix
def test_a_new_file_has_the_mode_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write(tmp_path / "f", b"new")
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "plain").stat().st_mode


@not_root
def test_a_read_only_file_is_not_replaced(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(0o444)
    with pytest.raises(PermissionError, match=str(tmp_path / "f")):
        write(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old" and names(tmp_path) == ["f"]


@not_root
def test_a_directory_that_cannot_be_written_is_said_at_once_with_the_files_name(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError) as error, write_atomically(tmp_path / "f"):
            pytest.fail("the block must not run")
    finally:
        tmp_path.chmod(0o755)
    assert error.value.filename == str(tmp_path / "f")


@posix
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_plain_file_is_not_replaced(tmp_path, make):
    make(tmp_path / "f")
    before = (tmp_path / "f").stat().st_ino
    with pytest.raises(OSError, match="Not a plain file"), write_atomically(tmp_path / "f"):
        pytest.fail("the block must not run")
    assert (tmp_path / "f").stat().st_ino == before and names(tmp_path) == ["f"]


def test_a_file_where_a_directory_should_be_is_said(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(OSError) as error, write_atomically(tmp_path / "f" / "g"):
        pytest.fail("the block must not run")
    assert error.value.filename == str(tmp_path / "f")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_after_an_error_in_the_block_the_old_file_stands_and_nothing_is_beside_it(tmp_path, error):
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(type(error)) as raised, write_atomically(tmp_path / "f") as file:
        file.write(b"half of the n")
        raise error
    assert (tmp_path / "f").read_bytes() == b"old" and names(tmp_path) == ["f"]
    assert not isinstance(error, OSError) or str(tmp_path / "f") in str(raised.value)


FULL_DISK = """
import resource, signal, sys
from tinyddpm.data.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
with write_atomically(sys.argv[1]) as file:
    for _ in range(100):
        file.write(bytes(10_000))
"""


@posix
@pytest.mark.parametrize("room", [0, 1, 8192, 500_000, 999_999])
def test_a_disk_that_fills_at_any_byte_leaves_the_old_file_alone(tmp_path, room):
    (tmp_path / "f").write_bytes(b"old")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "f"), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and f"File too large: '{tmp_path / 'f'}'" in done.stderr
    assert (tmp_path / "f").read_bytes() == b"old" and names(tmp_path) == ["f"]


def test_two_threads_that_write_the_same_file_both_finish_and_the_last_one_stands(tmp_path):
    with write_atomically(tmp_path / "f") as file:
        file.write(b"first, ")
        other = threading.Thread(target=write, args=(tmp_path / "f", b"second"))
        other.start()
        other.join()
        assert (tmp_path / "f").read_bytes() == b"second"
        file.write(b"and whole")
    assert (tmp_path / "f").read_bytes() == b"first, and whole" and names(tmp_path) == ["f"]


WRITE = """
import sys
from tinyddpm.data.files import write_atomically
for i in range(30):
    with write_atomically(sys.argv[1]) as file:
        file.write(sys.argv[2].encode() * 100_000)
"""


def test_processes_that_write_the_same_file_leave_one_of_their_files_whole(tmp_path):
    commands = [[sys.executable, "-c", WRITE, str(tmp_path / "f"), letter] for letter in "abc"]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    content = (tmp_path / "f").read_bytes()
    assert len(content) == 100_000 and len(set(content)) == 1 and names(tmp_path) == ["f"]


# ---- exclusive ----


HOLD = """
import sys, time
from tinyddpm.data.files import exclusive
with exclusive(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "f")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_another_process_is_refused_and_told_which_one_holds_the_file(tmp_path, holder):
    with pytest.raises(BlockingIOError, match=f"f is being written by another run: process {holder.pid} on "):
        with exclusive(tmp_path / "f"):
            pytest.fail("the block must not run")
    assert holder.poll() is None


def test_a_process_that_is_killed_holds_nothing(tmp_path, holder):
    holder.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    holder.wait()
    with exclusive(tmp_path / "f"):
        pass


def test_two_blocks_of_one_process_are_refused_too_and_then_the_next_goes_on(tmp_path):
    for _ in range(2):  # the second time, the lock holds the name of the first
        with exclusive(tmp_path / "f"), pytest.raises(BlockingIOError) as error, exclusive(tmp_path / "f"):
            pytest.fail("the block must not run")
        assert str(error.value).endswith(f"run: process {os.getpid()} on {platform.node()}")
    with exclusive(tmp_path / "f"), exclusive(tmp_path / "g"):
        pass


def test_the_lock_is_open_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "f"):
            raise ZeroDivisionError


@posix
def test_a_link_and_its_target_are_one_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "f")
    with exclusive(tmp_path / "link"):
        with pytest.raises(BlockingIOError), exclusive(tmp_path / "f"):
            pytest.fail("the block must not run")


def test_a_folder_that_is_not_there_is_made_and_the_file_itself_is_not_touched(tmp_path):
    with exclusive(tmp_path / "run" / "f"):
        assert names(tmp_path / "run") == [".f.lock"]
    write(tmp_path / "run" / "f", b"content")
    with exclusive(tmp_path / "run" / "f"):
        write(tmp_path / "run" / "f", b"more")
    assert (tmp_path / "run" / "f").read_bytes() == b"more"


KILLED = """
import sys, time
from tinyddpm.data.files import write_atomically
with write_atomically(sys.argv[1]) as file:
    file.write(bytes(100))
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_others_write_is_not(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "f")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(names(tmp_path)) == 1
    with write_atomically(tmp_path / "picture") as other, exclusive(tmp_path / "f"):
        assert len(names(tmp_path)) == 2  # the lock, and the other's temporary file
        other.write(b"content")
    assert names(tmp_path) == [".f.lock", "picture"]


def test_processes_that_come_at_once_go_one_after_the_other(tmp_path):
    """Each waits its turn, reads a number and writes the next: none is lost."""
    (tmp_path / "f").write_text("0")
    commands = [[sys.executable, "-c", COUNT, str(tmp_path / "f")] for _ in range(4)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(300) for process in processes] == [0] * 4
    assert (tmp_path / "f").read_text() == "40"


COUNT = """
import sys, time
from pathlib import Path
from tinyddpm.data.files import exclusive
path = Path(sys.argv[1])
for _ in range(10):
    while True:
        try:
            with exclusive(path):
                number = int(path.read_text())
                time.sleep(0.001)
                path.write_text(str(number + 1))
                break
        except BlockingIOError:
            time.sleep(0.001)
"""


def test_locking_takes_no_time(tmp_path):
    start = time.monotonic()
    with exclusive(tmp_path / "f"):
        pass
    assert time.monotonic() - start < 1
