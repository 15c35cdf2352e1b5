"""Ranks: one batch over the processes that an MPI launcher has started, on one machine or on many.

`mpiexec -n 4 python script.py` starts four processes of one program. Rank 0 runs it. Every other rank stays in `join`,
where it computes what rank 0 sends it, as a worker does (worker.py), and ends when rank 0 does.

A call goes down a binary tree and comes back up it. A rank that is sent n tasks passes the latter half on, then half of
what is left, and so on. It computes the task that remains and adds the answers in the opposite order. So no rank
receives or sends more than log2(n) messages up and as many down, and the sum is added as `Parallel` says.
Next: gpu/kernels.py.
"""

import atexit
import contextlib
import faulthandler
import functools
import io
import os
import platform
import signal
import sys
import threading
import time
import traceback
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from nn.backend import keep_freed_memory
from nn.cpu import by_value, sending, worker
from nn.scope import Scope

__all__ = ["join", "size", "on_these_cores", "run_everywhere"]

_LAUNCHERS = "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"  # a launcher sets one of these, and of the next
_SIZES = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"
_PATIENCE = 120  # seconds in which all ranks must have joined

_world = None  # MPI's communicator, in a process that has joined others
_on_these_cores = 1
_inside = Scope("inside", False)  # whether what runs here is a function of a call
# In rank 0. _calling stays True where a call was interrupted; the first _holders ranks have the last job.
_one_call, _calling = threading.Lock(), False
_modules, _last_job, _holders = by_value.Modules(), None, 0


def size():
    """How many ranks share a batch: 1 without a launcher, and inside a function that is called on ranks."""
    return 1 if _world is None or _inside.get() else _world.size


def on_these_cores():
    """How many ranks run on the cores that this process may use."""
    return _on_these_cores


# ==== the start and the end ====


def join():
    """Meet the other ranks, if an MPI launcher started this process. Only rank 0 returns; the others serve it and exit.

    Where a rank was started by another command, or has other versions or other code, all exit, and rank 0 says so.
    """
    global _world, _on_these_cores
    if _world is not None or not _launched():
        return
    world = _met()
    for name in _LAUNCHERS:
        os.environ.pop(name, None)  # a process that this one starts is no rank
    if world.size == 1:
        return
    host, _world = platform.node(), world
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    every = world.allgather((host, cores, os.getpid(), _identity()))
    _on_these_cores = sum(other[:2] == (host, cores) for other in every)
    wrong = _difference([(host, identity) for host, _, _, identity in every])
    if world.rank > 0:
        if not wrong:
            _serve_or_abort()
        sys.exit()
    if wrong:
        sys.exit(wrong)
    atexit.register(_end)
    processes = ", ".join(f"{rank} is process {number} on {host}" for rank, (host, _, number, _) in enumerate(every))
    print(f"ranks: {processes}", file=sys.stderr, flush=True)


def _started():
    """How many ranks there should be, or None."""
    return next((int(os.environ[name]) for name in _SIZES if name in os.environ), None)


def _launched():
    """Whether this process is one of several ranks, which have yet to meet."""
    return _started() != 1 and any(name in os.environ for name in _LAUNCHERS)


def _show_error(show, *error):
    """A `sys.excepthook`, after the one before it, `show`.

    After an error on a rank that has not met the others, MPICH's launcher would let them wait.
    """
    show(*error)
    if _launched():
        _give_up("this rank has not met the others, and ends the job")


if _launched():
    sys.excepthook = functools.partial(_show_error, sys.excepthook)


def _met():
    """MPI's communicator of all ranks, once all are there."""
    # A rank that ended before this leaves the others waiting in MPI, which holds Python's lock: a timer in C ends them.
    faulthandler.dump_traceback_later(_PATIENCE, exit=True)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: no MPI library can be loaded
        _give_up(f"a rank of an MPI launcher needs mpi4py (pip install 'tinyddpm[mpi]'): {error}")
    faulthandler.cancel_dump_traceback_later()
    world, started = MPI.COMM_WORLD, _started()
    if world.size != (started or world.size):
        library = f"{MPI.get_vendor()[0]}, which mpi4py uses"
        _give_up(f"the launcher started {started} processes, but {library}, {world.size}")
    return world


def _give_up(why):
    """End the job from a process that MPI cannot end it for: a launcher ends all when one is killed."""
    rank = next(os.environ[name] for name in _LAUNCHERS if name in os.environ)
    print(f"rank {rank} on {platform.node()}: {why}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _identity():
    """What must be the same on every rank: {what: a value}."""
    code = 0
    for package in sorted(by_value.BY_REFERENCE):
        for path in sorted(Path(find_spec(package).origin).parent.rglob("*.py")):
            code = zlib.crc32(path.read_bytes(), code)
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        f"code of {' and '.join(sorted(by_value.BY_REFERENCE))}": f"{code:08x}",
    }


def _difference(every):
    """Which rank has another identity than rank 0, and in what; None if none has. every: (host, identity) of each."""
    (_, first), *_ = every
    for rank, (host, identity) in enumerate(every):
        for what in first:
            if identity[what] != first[what]:
                return f"rank {rank} on {host} has another {what} than rank 0: {identity[what]}, not {first[what]}"
    return None


def _abort():
    """End all ranks, after a moment in which the launcher can pass on what was printed: it drops the rest."""
    time.sleep(0.2)
    _world.Abort(1)


def _serve_or_abort():
    try:
        _serve()
    except BaseException:
        print(f"rank {_world.rank} on {platform.node()}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        _abort()


def _end():
    """The end of rank 0: the others end too."""
    if _world is None:  # a fork
        return
    if _calling:  # they are in the middle of a call
        _abort()
    for rank in range(1, _world.size):
        _send(None, rank)


def _forget():
    """In a fork, which is no rank."""
    global _world, _on_these_cores
    _world, _on_these_cores = None, 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# ==== a call ====


def run_everywhere(function, combine, model, options, tasks):
    """function(model, *options, task) for every task, combined as a binary tree: on this rank and those after it.

    combine(a, b): the result of two branches. An error that is raised on another rank is raised here, and names it.
    """
    global _last_job, _holders, _calling
    with _one_call:
        if _calling:
            raise RuntimeError("an earlier call was interrupted, and its answers are lost: start the program again")
        if _modules.look_over():
            raise RuntimeError("a module was reloaded, and the other ranks hold what it was: start the program again")
        job = worker.new_job((function, model, options, _modules.patches), _last_job)
        news = job.since(_last_job if len(tasks) <= _holders else None)
        _last_job, _holders, _calling = job, 0, True
        with _inside.set(True):
            answers = _answers(lambda task: function(model, *options, task), (news, np.geterr(), combine), tasks)
        _calling = False
        found = _combined(combine, answers)
        _holders = len(tasks)  # a rank that raised an error may lack the job
        return found


def _answers(own, message, tasks):
    """own(the first task), and what other ranks answer for the rest: a list of (result, error), in the tree's order.

    message: what they need beside their tasks. All answers are received, also after an error.
    """
    children = []
    while len(tasks) > 1:
        half = len(tasks) // 2
        children.append(_world.rank + half)
        _send((_world.rank, message, tasks[half:]), children[-1])
        tasks = tasks[:half]
    try:
        answer = own(tasks[0]), None
    except BaseException as error:
        answer = None, _told(error)
    return [answer] + [_received(child) for child in reversed(children)]


def _combined(combine, answers):
    """The combined results. The first error is raised."""
    for _, error in answers:
        if error is not None:
            raise error
    return functools.reduce(combine, [result for result, _ in answers])


def _told(error):
    """`error`, which names this rank if it is not rank 0, and can be sent."""
    if _world.rank == 0:
        return error
    where = f"rank {_world.rank}, {platform.node()}"
    if isinstance(error, MemoryError):
        error = MemoryError(str(error))  # NumPy's has no message
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} (on {where})",)
    return worker.sendable(error, f"On {where}")


def _serve():
    """The life of every rank but 0: answer call after call, until rank 0 ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # what stops the program is up to rank 0
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    job = sending.Received()
    with threadpool_limits(1, "blas"), _inside.set(True), contextlib.ExitStack() as weights:
        while (call := _received()) is not None:
            caller, (news, errors, combine), tasks = call
            own = functools.partial(worker.result, job, weights, news, errors)
            answers = _answers(own, (news, errors, combine), tasks)
            try:
                answer = _combined(combine, answers), None
            except BaseException as error:
                answer = None, error
            _send(answer, caller, answering=True)


# ==== messages ====


def _send(value, rank, answering=False):
    request = _world.isend(sending.pack(value, answering), rank)
    _wait_until(lambda: request.test()[0])


def _received(*sender):
    """The next message from a rank, or from any."""
    _wait_until(lambda: _world.iprobe(*sender))
    return sending.read(io.BytesIO(_world.recv(None, *sender)))


def _wait_until(done):
    """Look again and again, with pauses of a hundredth of the time so far.

    MPI itself waits by spinning, which takes a core, and would not let Ctrl-C through.
    """
    start = time.monotonic()
    while not done():
        time.sleep(min(1e-3, (time.monotonic() - start) / 100))
