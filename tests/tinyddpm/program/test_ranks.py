"""The program on the ranks of an MPI launcher: the same files and pictures, written once."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import command
from subprocesses import needs_mpi, ranks_command, run_ranks

from tinyddpm.program.checkpoint import RUN_FILE, load

pytestmark = [needs_mpi, pytest.mark.cpu]
TRAIN = ["train", "--data", "squares.npz", "--out", "run", "--preset", "tiny", "--batch", 12, "--shard", 1]


@pytest.fixture
def folder(squares, monkeypatch):
    """A folder of the name that is current, so that all runs are started by the same words; with squares.npz in it."""
    monkeypatch.chdir(squares.parent)
    return squares.parent


SCRIPT = """
import hashlib
import tinyddpm as td

data = td.load_data("squares.npz")
print("only once")
model = td.train(data, steps=2, out="run", resume=True)
drawn = model.sample(9, labels=range(4), steps=3, progress=None)
bound = model.evaluate(data.test, draws=2, progress=lambda batches, **_: batches).total
print(hashlib.sha256(drawn).hexdigest(), bound)
"""


def test_a_run_its_samples_and_its_bound_are_the_same_on_any_number_of_ranks(folder, capsys):
    assert command(*TRAIN, "--steps", 1, "--workers", 1) == 0
    exec(SCRIPT)
    checkpoint, said = (folder / "run" / RUN_FILE).read_bytes(), capsys.readouterr().out.splitlines()[-1]
    (folder / "run").rename(folder / "one")

    (folder / "no data").mkdir()
    words = ["-m", "tinyddpm", *TRAIN, "--steps", 1, "--workers", 1]
    run = run_ranks(1, *words, ":", "-n", 2, "-wdir", folder / "no data", sys.executable, *words)
    assert run.stdout.count("1 workers on each of 3 ranks; from step 0") == 1, run.stderr
    (folder / "script.py").write_text(SCRIPT)
    run = run_ranks(5, "script.py")
    assert run.stdout.count("only once") == 1, run.stderr
    assert run.stdout.splitlines()[-1] == said
    assert (folder / "run" / RUN_FILE).read_bytes() == checkpoint


@pytest.fixture
def started(folder):
    """A training on three ranks that goes on for long, once it has its first checkpoint; and the processes' numbers."""
    words = [*TRAIN, "--steps", 100000, "--workers", 1]
    process = subprocess.Popen(
        ranks_command(3, "-m", "tinyddpm", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    numbers = list(map(int, re.findall(r"is process (\d+)", process.stderr.readline())))
    while not (folder / "run" / RUN_FILE).exists():
        time.sleep(0.05)
    time.sleep(0.5)
    yield process, numbers
    process.kill()
    process.communicate()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_rank_ends_a_run_within_seconds_and_the_last_checkpoint_stands(rank, started, folder):
    process, numbers = started
    os.kill(numbers[rank], signal.SIGKILL)
    process.communicate(timeout=20)
    assert process.returncode
    assert load(folder / "run")[0]["losses"].size == 0


def test_ctrl_c_at_the_launcher_saves_the_step_it_is_in(started, folder):
    process, _ = started
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.count("stopped; go on with") == 1
    assert load(folder / "run")[0]["losses"].size > 0


def test_an_error_of_the_command_is_said_once(folder):
    run = run_ranks(3, "-m", "tinyddpm", "train", "--out", "run", "--data", "no such file.npz")
    assert run.returncode and run.stderr.count("tinyddpm: error: ") == 1


def test_a_gpu_is_refused_on_several_ranks():
    code = "from device.strict_device import installed; import tinyddpm as td\nwith installed(): td.Compute('cuda')"
    run = run_ranks(2, "-c", code)
    assert run.returncode and run.stderr.count("RuntimeError: a GPU is for one process") == 1
