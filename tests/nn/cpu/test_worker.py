"""Worker processes: kept, replaced when they die, and never mistaken in what they answer."""

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from subprocesses import run_python

from nn import Parallel, Tensor
from nn.cpu import worker


@pytest.fixture(autouse=True)
def no_workers():
    worker.stop()
    yield
    worker.stop()


def process_number(network, x):
    return Tensor(np.full(len(x), os.getpid(), np.float64))


def die(network, x):
    if os.getpid() != int(x[0]):
        os._exit(7)
    return Tensor(x)


def test_the_calling_process_works_too_and_workers_are_kept():
    cores = Parallel(3, shard=1)
    first = cores.map(process_number, None, np.zeros(3))
    assert len(set(first)) == 3
    assert first[0] == os.getpid()
    np.testing.assert_array_equal(cores.map(process_number, None, np.zeros(3)), first)
    np.testing.assert_array_equal(Parallel(2, shard=1).map(process_number, None, np.zeros(2)), first[:2])


def test_a_batch_of_one_shard_starts_no_process():
    Parallel(3, shard=4).map(process_number, None, np.zeros(4))
    assert not worker._workers


def test_a_worker_that_dies_is_an_error_that_says_so_and_the_next_call_has_a_new_one():
    cores = Parallel(2, shard=1)
    with pytest.raises(RuntimeError, match="a worker process died with exit status 7$"):
        cores.map(die, None, np.full(2, float(os.getpid())))
    assert len(set(cores.map(process_number, None, np.zeros(2)))) == 2


def test_a_worker_that_died_between_two_calls_is_an_error_too():
    cores = Parallel(2, shard=1)
    cores.map(process_number, None, np.zeros(2))
    worker._workers[0].process.kill()
    worker._workers[0].process.wait()
    with pytest.raises(RuntimeError, match="was killed by SIGKILL: is there enough memory"):
        cores.map(process_number, None, np.zeros(2))
    assert len(set(cores.map(process_number, None, np.zeros(2)))) == 2


def interrupt(network, x):
    if x[0] == 0:
        raise KeyboardInterrupt
    return Tensor(x)


def test_after_an_interruption_no_answer_of_before_is_taken_for_one_of_now():
    cores = Parallel(2, shard=1)
    with pytest.raises(KeyboardInterrupt):
        cores.map(interrupt, None, np.array([0.0, 1.0]))
    np.testing.assert_array_equal(cores.map(interrupt, None, np.array([2.0, 3.0])), [2.0, 3.0])


def nested(network, x):
    return Tensor(Parallel(2, shard=1).map(process_number, None, x))


def test_a_function_on_workers_that_uses_workers_itself_is_an_error_and_does_not_hang():
    with pytest.raises(RuntimeError, match="was about to use workers itself; give it one worker"):
        Parallel(2, shard=2).map(nested, None, np.zeros(4))


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def refuse(network, x):
    if x[0] == 1:
        raise Unpicklable("no", "way")
    if x[0] == 2:
        sys.exit(3)
    return Tensor(x)


@pytest.mark.parametrize("number, words", [(1, "Unpicklable: no"), (2, "SystemExit: 3")])
def test_what_cannot_be_sent_back_or_would_end_the_caller_is_quoted(number, words):
    with pytest.raises(RuntimeError, match=f"(?s)In a worker process:.*in refuse.*{words}"):
        Parallel(2, shard=1).map(refuse, None, np.array([0.0, number]))


def loud(network, x):
    print("printed in a worker")
    return Tensor(x)


def test_what_a_function_prints_does_not_garble_the_answers():
    np.testing.assert_array_equal(Parallel(2, shard=1).map(loud, None, np.arange(2.0)), [0, 1])


def read_a_line(network, x):
    return Tensor(x + len(sys.stdin.read()))


def test_what_a_function_reads_is_not_the_next_message():
    cores = Parallel(2, shard=1)
    sys.stdin, before = io.StringIO(""), sys.stdin
    try:
        for _ in range(2):
            np.testing.assert_array_equal(cores.map(read_a_line, None, np.arange(2.0)), [0, 1])
    finally:
        sys.stdin = before


def out_of_memory(network, x):
    return Tensor(np.zeros((1, 1 << 58) if x[0] else 1))


def test_a_worker_without_memory_is_a_memory_error_and_the_next_call_runs():
    cores = Parallel(2, shard=1)
    with pytest.raises(MemoryError, match="Unable to allocate"):
        cores.map(out_of_memory, None, np.arange(2.0))
    assert len(set(cores.map(process_number, None, np.zeros(2)))) == 2


def fork_and_exit(network, x):
    if x[0] == 1 and os.fork() == 0:
        sys.exit(3)
    return Tensor(x)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_inside_a_worker_answers_nothing():
    cores = Parallel(2, shard=1)
    for _ in range(2):
        np.testing.assert_array_equal(cores.map(fork_and_exit, None, np.arange(2.0)), [0, 1])


# ==== how programs are started ====

DOUBLE = """
import os, sys
import numpy as np
from nn import Parallel, Tensor

def double(network, x):
    return Tensor(x * 0 + os.getpid()) if SHOW else Tensor(2 * x)

SHOW = False
print(Parallel(2, shard=1).map(double, None, np.arange(3.0)).tolist())
SHOW = True
print(len(set(Parallel(2, shard=1).map(double, None, np.arange(2.0)))), flush=True)
"""
TWICE = "[0.0, 2.0, 4.0]\n2\n"


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


STARTS = {
    "a script without a guard": lambda folder: run_python(written(folder / "script.py", DOUBLE)),
    "a script whose name is no module's": lambda folder: run_python(written(folder / "my script", DOUBLE)),
    "-c": lambda folder: run_python("-c", DOUBLE),
    "standard input": lambda folder: run_python("-", input=DOUBLE),
    "python -i": lambda folder: run_python(
        "-i", "-q", input=DOUBLE.replace("\n\n", "\n").replace(" else Tensor(2 * x)", " else Tensor(2 * x)\n")
    ),
    "python -O": lambda folder: run_python("-O", "-c", DOUBLE),
    "a folder with a colon": lambda folder: run_python(
        written(folder / "a:b" / "script.py", "from beside import *\n" + DOUBLE),
        cwd=written(folder / "a:b" / "beside.py", "").parent,
    ),
    "python -m package.train": lambda folder: run_python(
        "-m",
        "package.train",
        cwd=written(
            written(folder / "package" / "parts.py", "FACTOR = 2").with_name("train.py"),
            DOUBLE.replace("(2 * x)", "(FACTOR * x)").replace("import os", "from .parts import FACTOR\nimport os"),
        ).parents[1],
    ),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS.keys())
def test_what_a_program_defines_runs_on_two_workers_however_the_program_was_started(tmp_path, start):
    done = start(tmp_path)
    assert (done.stdout, done.returncode) == (TWICE, 0), done.stderr


def test_a_program_without_standard_error_has_workers_too(tmp_path):
    script = written(tmp_path / "script.py", DOUBLE.replace("def double", "os.close(2)\n\ndef double"))
    assert run_python(script).stdout == TWICE


def test_files_in_the_current_folder_are_not_imported_in_place_of_modules_of_the_same_name(tmp_path):
    for name in ("numpy", "nn", "signal", "cloudpickle", "random"):
        written(tmp_path / f"{name}.py", "raise ImportError('the wrong one')")
    done = run_python("-c", f"import nn, os, sys; os.chdir({str(tmp_path)!r}); sys.path.insert(0, '')" + DOUBLE)
    assert done.stdout == TWICE, done.stderr


def test_an_exception_of_a_script_s_own_class_comes_back_as_it_is(tmp_path):
    done = run_python(
        "-c",
        """
import numpy as np
from nn import Parallel

WORD = "so"

class Mine(Exception):
    def __str__(self):
        return WORD

def fail(network, x):
    if x[0] == 1:
        raise Mine("said", "so")
    return x

try:
    Parallel(2, shard=1).map(fail, None, np.arange(2.0))
except Mine as error:
    WORD = "otherwise"  # the class is still the one defined here
    print(error, error.args, "In a worker process" in error.__notes__[0])
""",
    )
    assert done.stdout == "otherwise ('said', 'so') True\n", done.stderr


# ==== signals and deaths ====

ENDLESS = """
import os, signal, time
import numpy as np
from nn import Parallel, Tensor

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background are born deaf to it

def slow(network, x):
    time.sleep(0.05)
    return Tensor(x)

cores = Parallel(2, shard=1)
cores.map(slow, None, np.arange(2.0))
try:
    print("started", flush=True)
    while True:
        cores.map(slow, None, np.arange(2.0))
except KeyboardInterrupt:
    print("interrupted", cores.map(slow, None, np.arange(2.0)).tolist(), flush=True)
"""


@pytest.fixture
def endless():
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "started\n", process.stderr.read()
    yield process
    process.kill()
    process.communicate()


def children(process):
    text = Path(f"/proc/{process}/task/{process}/children")
    if not text.exists():
        pytest.skip("this system does not tell the children of a process")
    return [int(child) for child in text.read_text().split()]


def test_ctrl_c_interrupts_the_caller_alone_and_the_next_call_runs(endless):
    os.killpg(endless.pid, signal.SIGINT)
    out, err = endless.communicate(timeout=300)
    assert (out, err) == ("interrupted [0.0, 1.0]\n", "")


STARTING = """
import os, signal, threading, time
import numpy as np
from nn import Parallel

def interrupt():
    while not done.wait(0.005):
        os.killpg(0, signal.SIGINT)

done, interrupting = threading.Event(), threading.Thread(target=interrupt)
signal.signal(signal.SIGINT, lambda number, frame: None)  # a caller that has its own way to stop
interrupting.start()
try:
    print(Parallel(2, shard=1).map(lambda network, x: 2 * x, None, np.arange(2.0)).tolist())
finally:
    done.set()
"""


def test_a_worker_that_is_still_importing_does_not_mind_ctrl_c():
    done = run_python("-c", STARTING, start_new_session=True)
    assert (done.stdout, done.stderr) == ("[0.0, 2.0]\n", "")


def test_workers_end_with_a_caller_that_is_killed(endless):
    (worker_process,) = children(endless.pid)
    endless.kill()
    endless.wait()
    for _ in range(6000):
        if not Path(f"/proc/{worker_process}").exists() or is_zombie(worker_process):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the worker lives on")


def is_zombie(process):
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_worker_killed_at_random_is_an_error_that_says_so(endless):
    os.kill(children(endless.pid)[0], signal.SIGKILL)
    _, err = endless.communicate(timeout=300)
    assert "RuntimeError: a worker process was killed by SIGKILL: is there enough memory?" in err
