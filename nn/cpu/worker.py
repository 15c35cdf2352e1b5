"""Worker processes for parallel.py: each is sent a job and its part of a batch, and answers with a result or an error.

A worker is a new Python process, started on first use and kept. (A forked copy of a process that has threads, as a BLAS
has, may hang; and not every system can fork.) Messages go through its stdin and stdout, as sending.py packs them.

A fork of the calling process has no workers, and starts its own. A worker keeps the environment and the current folder
that it was started in. It ends when its caller does. Next: sending.py.
"""

import atexit
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import traceback

import numpy as np
from threadpoolctl import threadpool_limits

from nn.backend import keep_freed_memory
from nn.cache import constant_weights
from nn.cpu import by_value, sending
from nn.scope import Scope

__all__ = ["run_everywhere", "new_job", "result", "sendable"]


# ==== in the process that calls ====

_workers = []  # all that run; every Parallel uses the same
_one_call = threading.Lock()
_modules, _last_job = by_value.Modules(), None
_inside = Scope("inside", False)  # whether what runs here is a function of a call


def _search_path():
    return [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]


_first_path = _search_path()  # found nn and NumPy here; folders that came later may hold files of the same names


def run_everywhere(function, model, options, tasks):
    """[function(model, *options, task) for every task]: the first is run here, each other in a worker.

    TypeError if function, model or options cannot be sent to another process, RuntimeError if a worker died; an error
    that is raised in a worker is raised here.
    """
    if _inside.get():
        raise RuntimeError("a function that runs on workers was about to use workers itself; give it one worker")
    with _one_call:
        try:
            job = _job(function, model, options)
            while len(_workers) < len(tasks) - 1:
                _workers.append(Worker())
            busy = _workers[: len(tasks) - 1]
            for worker, task in zip(busy, tasks[1:], strict=True):
                worker.send(job, task)
            with _inside.set(True):
                first = function(model, *options, tasks[0])
            return [first] + [worker.receive() for worker in busy]
        except BaseException:  # Ctrl-C too: answers may be on their way that the next call must not take for its own
            stop()
            raise


def _job(function, model, options):
    """What all workers are sent. Workers that hold what they should not are ended first."""
    global _last_job
    if _modules.look_over():
        stop()
    _last_job = new_job((function, model, options, _modules.patches), _last_job)
    return _last_job


def new_job(value, before):
    """A sending.Job. TypeError where something in it cannot be sent."""
    try:
        return sending.Job(value, before)
    except Exception as error:  # whatever an object's own way to be pickled raises
        raise TypeError(
            f"the function, the model and what they name must go to other processes, and something in there cannot: "
            f"{error}; make it inside the function, or use one worker"
        ) from error


@atexit.register
def stop():
    """End all workers; the next call starts others."""
    while _workers:
        _workers.pop().stop()


def _forget():
    """In a fork: the workers are the parent's, and so may be the lock."""
    global _one_call
    _one_call = threading.Lock()
    while _workers:
        _workers.pop().forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


_START = "import sys; sys.path[:] = sys.argv[1:]; from nn.cpu.worker import serve; serve()"


@contextlib.contextmanager
def _ctrl_c_waits():
    """A process that is started in here is not interrupted before it has a session of its own.

    It inherits the blocked signal, and lets it through when it ignores it (`serve`).
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Worker:
    """One process, and the job it was sent last: sampling needs the same one many times."""

    def __init__(self):
        self.job = None
        with _ctrl_c_waits():
            self.process = subprocess.Popen(
                [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", _START, *_first_path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pipesize=1 << 20,
                start_new_session=True,  # Ctrl-C goes to all processes of a terminal's session
                env={**os.environ, "VECLIB_MAXIMUM_THREADS": "1"},  # Accelerate, which threadpoolctl cannot limit
            )

    def send(self, job, task):
        """Start on `task`."""
        message = job.since(self.job), _search_path(), np.geterr(), task
        self.job = job
        with contextlib.suppress(OSError):  # it is dead: `receive` says how it died
            sending.write(self.process.stdin, sending.pack(message))

    def receive(self):
        """The result; or the error is raised."""
        answer = sending.read(self.process.stdout)
        if answer is None:
            raise RuntimeError(_how_it_died(self.process.wait()))
        result, error = answer
        if error is not None:
            raise error
        return result

    def stop(self):
        """End the process, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.forget()

    def forget(self):
        """Leave the process alone, and the pipes to whoever else has them."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.returncode = 0  # or Popen would look for a child


def _how_it_died(status):
    if status >= 0:
        return f"a worker process died with exit status {status}"
    memory = ": is there enough memory? A smaller batch or fewer workers need less" if status == -signal.SIGKILL else ""
    return f"a worker process was killed by {signal.Signals(-status).name}{memory}"


# ==== in a worker ====


def serve():
    """The life of a worker: answer message after message, until the caller is gone."""
    process, messages, answers = os.getpid(), os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)  # what a job reads or prints must not be part of the messages
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # a worker is ended without being asked what it still wanted to say
    for number in (signal.SIGINT, signal.SIGTERM):  # what stops the program is up to the caller
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    keep_freed_memory()
    job = sending.Received()
    with threadpool_limits(1, "blas"), _inside.set(True), contextlib.ExitStack() as weights:
        while True:
            try:
                message = sending.read(messages)
                if message is None:  # the caller is gone
                    return
                news, sys.path[:], errors, task = message
                answer = sending.pack((result(job, weights, news, errors, task), None), answering=True)
            except BaseException as error:
                answer = sending.pack((None, sendable(error, "In a worker process")), answering=True)
            if os.getpid() != process:  # the function has forked, and this is the fork
                os._exit(0)
            try:
                sending.write(answers, answer)
            except OSError:  # the caller is gone
                return


def result(job, weights, news, errors, task):
    """What the job, brought up to date by `news`, gives for a task.

    weights: an ExitStack, in which the job's weights are constant. errors: the caller's np.geterr().
    """
    if job.update(news):
        weights.close()
        weights.enter_context(constant_weights())  # until another job comes
        for space, name, value in job.value[-1]:
            setattr(space, name, value)
    function, model, options, _ = job.value
    random = by_value.random_states()
    with np.errstate(**errors):
        found = function(model, *options, task)
    if by_value.random_states() != random:
        raise RuntimeError(
            "the function draws from a random generator of which each worker has its own, so the numbers would depend on "
            "the number of workers; draw them before and pass them as rows, or draw by sample from nn.random"
        )
    return found


def sendable(error, where):
    """`error` with what led to it; where it cannot be pickled, or would end the caller, a RuntimeError that quotes it."""
    told = f"{where}:\n{traceback.format_exc()}"
    if "read-only" in str(error):
        told += "\nArrays that came with the function or the model are read-only there: what is written would be lost."
    error.add_note(told)
    try:
        sending.read(io.BytesIO(sending.pack(error, answering=True)))
    except Exception:
        return RuntimeError(told)
    return RuntimeError(told) if isinstance(error, SystemExit) else error
