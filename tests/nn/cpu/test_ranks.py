"""Ranks of an MPI launcher: the same bits on any number of them, and an end within seconds whatever goes wrong."""

import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from subprocesses import needs_mpi, run_python, run_ranks

import nn

pytestmark = [needs_mpi, pytest.mark.cpu]
ROOT = Path(__file__).parents[3]
RESULTS = """
import sys
import numpy as np
import nn

def loss(layer, x):
    return (nn.silu(layer(nn.Tensor(x))) ** 2).mean()

def results(workers):
    layer, cores = nn.Linear(5, 7, rng=np.random.default_rng(0)), nn.Parallel(workers, shard=1)
    for size in (1, 2, 3, 5, 16, 23):
        x = np.random.default_rng(size).standard_normal((size, 5)).astype(np.float32)
        layer.weight.data *= np.float32(1.01)  # other weights for every call, to fewer or to more ranks than before
        value, gradient = cores.loss_and_gradient(loss, layer, x)
        yield b"".join(a.tobytes() for a in (value, gradient, cores.map(lambda layer, x: layer(nn.Tensor(x)), layer, x)))
"""


def program(path, *parts):
    path.write_text("\n".join(textwrap.dedent(part) for part in parts))
    return path


@pytest.mark.parametrize("ranks, workers", [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (2, 2)])
def test_the_bits_are_the_same_on_any_number_of_ranks_and_workers(ranks, workers, tmp_path):
    path = program(tmp_path / "results.py", RESULTS, "print(*[r.hex() for r in results(int(sys.argv[1]))])")
    names = {}
    exec(RESULTS, names)
    run = run_ranks(ranks, path, workers)
    assert run.stdout.split() == [r.hex() for r in names["results"](1)], run.stderr  # printed once, by rank 0


CALL = """
import os, signal, subprocess, sys, time
import numpy as np
import nn

cores = nn.Parallel(1, shard=1)

def call(function, *rows):
    return cores.map(lambda model, x: function(x[0]) * np.ones(1), None, np.array(rows)).tolist()
"""


@pytest.mark.parametrize("launched", [[], ["-m", "mpi4py"]], ids=["plain", "-m mpi4py"])
def test_an_error_on_a_rank_ends_the_job_with_its_name_and_its_reason(launched, tmp_path):
    path = program(
        tmp_path / "error.py",
        CALL,
        """
        def no_twos(x):
            if x == 2:
                raise ValueError("there is a two")
            return x

        call(no_twos, 0, 1, 2)
        """,
    )
    run = run_ranks(3, *launched, path)
    assert run.returncode == 1
    assert run.stderr.count("ValueError: there is a two (on rank 2, ") == 2  # here, and where it was raised
    assert run.stderr.count("in no_twos") == 1


def test_after_an_error_and_an_interruption_no_answer_of_before_is_taken_for_one_of_now(tmp_path):
    path = program(
        tmp_path / "errors.py",
        CALL,
        """
        def fail(x):
            if x == 0:
                raise KeyboardInterrupt
            if x == 2:
                np.zeros(1 << 45)
            if x == 3:
                sys.exit("no exit from here")
            return x

        for rows in [(1, 2, 1), (0, 1, 2), (1, 1, 3), (4, 5, 6)]:
            try:
                print(call(fail, *rows))
            except BaseException as error:
                print(type(error).__name__, *str(error).splitlines()[:1])
        """,
    )
    memory, interrupt, left, found = run_ranks(3, path).stdout.splitlines()
    assert re.fullmatch(r"MemoryError Unable to allocate 256. TiB .* \(on rank 1, .*\)", memory)
    assert (interrupt, found) == ("KeyboardInterrupt", "[4.0, 5.0, 6.0]")
    assert left.startswith("RuntimeError On rank 2, ")


def test_a_job_that_a_rank_cannot_read_is_an_error_the_second_time_too(tmp_path):
    path = program(
        tmp_path / "unreadable.py",
        CALL,
        """
        def here(number):
            if os.getpid() != number:
                raise ImportError("not on this rank")
            return Fussy()

        class Fussy:
            def __reduce__(self):
                return here, (os.getpid(),)

        call(lambda x: x, 1, 2)
        for _ in range(2):
            try:
                print(cores.map(lambda model, x: -x, Fussy(), np.arange(2.0)))
            except ImportError as error:
                print(error)
        print(call(lambda x: x, 3, 4))
        """,
    )
    run = run_ranks(2, path)
    assert [line.partition(" (")[0] for line in run.stdout.splitlines()] == ["not on this rank"] * 2 + ["[3.0, 4.0]"]


def test_an_interruption_between_two_answers_ends_the_job(tmp_path):
    path = program(
        tmp_path / "between.py",
        CALL,
        """
        def late(x):
            time.sleep(600 * x)
            return x

        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.alarm(1)
        try:
            call(late, 0, 1)
        except KeyboardInterrupt:
            call(late, 0, 0)
        """,
    )
    run = run_ranks(2, path)
    assert run.returncode and "RuntimeError: an earlier call was interrupted" in run.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job(rank, tmp_path):
    path = program(
        tmp_path / "kill.py",
        CALL,
        f"""
        def kill(x):
            if x == {rank}:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)

        call(kill, 0, 1, 2)
        """,
    )
    assert run_ranks(3, path).returncode


def test_a_function_on_a_rank_may_use_its_own_cores_and_its_children_are_no_ranks(tmp_path):
    path = program(
        tmp_path / "inside.py",
        CALL,
        """
        def inside(x):
            own = nn.Parallel(1, shard=1).map(lambda model, x: x + 1, None, np.array([x, x])).sum()
            child = subprocess.check_output([sys.executable, "-c", "import nn; print(nn.Parallel(7).workers)"])
            if (pid := os.fork()) == 0:
                os._exit(nn.Parallel(1).map(lambda model, x: x, None, np.array([3]))[0])
            return own + int(child) + os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        print(call(inside, 0, 1, 2))
        """,
    )
    assert run_ranks(3, path).stdout == "[12.0, 14.0, 16.0]\n"


def test_ranks_share_the_cores_of_a_machine(tmp_path):
    path = program(tmp_path / "cores.py", "import nn; print(nn.Parallel().workers)")
    assert int(run_ranks(2, path).stdout) == max(1, nn.available_cores() // 2)


def test_a_rank_of_another_command_or_of_other_code_ends_the_job_once_and_is_named(tmp_path):
    shutil.copytree(ROOT / "nn", tmp_path / "other" / "nn")
    (tmp_path / "other" / "nn" / "rates.py").write_text((ROOT / "nn" / "rates.py").read_text("utf-8") + "\n")
    other = ["-env", "PYTHONPATH", os.pathsep.join([str(tmp_path / "other"), *sys.path])]
    start = "-c", "import nn; nn.Parallel(1)", "--batch"
    for options, batch, why in [
        ([], 9, r"another command than rank 0: .*'9'\], not .*'8'\]"),
        (other, 8, "another code of nn than rank 0"),
    ]:
        run = run_ranks(1, *start, 8, ":", "-n", 1, *options, sys.executable, *start, batch, cwd=tmp_path)
        assert run.returncode == 1
        assert len(re.findall(rf"rank 1 on .* has {why}", run.stderr)) == 1, run.stderr


def test_an_error_on_a_rank_before_all_have_met_ends_the_job(tmp_path):
    path = program(
        tmp_path / "early.py",
        """
        import os, nn
        if os.environ["PMI_RANK"] == "1":
            raise ValueError("too early")
        nn.Parallel(1)
        """,
    )
    run = run_ranks(3, path, timeout=60)  # by itself, MPICH's launcher would wait for two minutes
    assert run.returncode and run.stderr.count("ValueError: too early") == 1
    assert len(re.findall("rank 1 on .* has not met the others", run.stderr)) == 1


def test_an_error_before_all_have_met_is_shown_by_the_hook_that_there_was():
    code = "import sys; sys.excepthook = lambda *error: print('shown by', error[0]); import nn; 1 / 0"
    run = run_python("-c", code, env={"PMI_RANK": "1", "PMI_SIZE": "2"})
    assert run.returncode and run.stdout == "shown by <class 'ZeroDivisionError'>\n"
    assert "rank 1 on" in run.stderr


def test_one_process_of_a_launcher_needs_no_mpi():
    code = "import sys; sys.modules['mpi4py'] = None; import nn; nn.Parallel(1)"
    assert run_python("-c", code, env={"PMI_RANK": "0", "PMI_SIZE": "1"}).returncode == 0


@pytest.mark.parametrize(
    "before, why",
    [
        ("pass", "the launcher started 3 processes, but MPICH, which mpi4py uses, 1"),
        ("sys.modules['mpi4py'] = None", r"needs mpi4py \(pip install 'tinyddpm\[mpi\]'\)"),
    ],
)
def test_a_rank_that_cannot_meet_the_others_says_why(before, why):
    launcher = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "3"}  # not that of mpi4py's library
    run = run_python("-W", "ignore", "-c", f"import sys; {before}; import nn; nn.Parallel(1)", env=launcher)
    assert run.returncode and len(re.findall(f"rank 0 on .*: .*{why}", run.stderr)) == 1
