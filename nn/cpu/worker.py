"""Worker processes for parallel.py: each is sent a job and its part of a batch, and answers with what came out.

A worker is a new Python process that imports what it needs, started on first use and kept. (A forked copy of a process
that has threads, as a BLAS has, may hang; and not every system can fork.) Messages are pickles on its stdin and stdout.
"""

import atexit
import contextlib
import contextvars
import importlib.machinery
import importlib.util
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback

from threadpoolctl import threadpool_limits

from nn.backend import keep_freed_memory
from nn.cache import constant_weights, remembered

__all__ = ["run_everywhere"]


# ==== in the process that calls ====

_SCRIPT = "__script__"  # the caller's "__main__", in a worker
_workers = []  # all that run; every Parallel uses the same
_one_call = threading.Lock()
_inside = contextvars.ContextVar("inside", default=False)  # whether what runs here is a function of a call


def run_everywhere(function, model, options, tasks):
    """[function(model, *options, task) for every task]: the first is run here, each other in a worker.

    TypeError if function, model or options cannot be sent to another process, RuntimeError if a worker died; what is
    raised in a worker is raised here.
    """
    if _inside.get():
        raise RuntimeError("a function that runs on workers was about to use workers itself; give it one worker")
    job = function, model, options
    message = remembered(("job", function, options), model, lambda: _pickled(job))
    with _one_call:
        try:
            while len(_workers) < len(tasks) - 1:
                _workers.append(Worker())
            busy = _workers[: len(tasks) - 1]
            for worker, task in zip(busy, tasks[1:], strict=True):
                worker.send(message, task)
            return [_call(*job, tasks[0])] + [worker.receive() for worker in busy]
        except BaseException:  # Ctrl-C too: answers may be on their way that the next call must not take for its own
            stop()
            raise


def _call(function, model, options, task):
    token = _inside.set(True)
    try:
        return function(model, *options, task)
    finally:
        _inside.reset(token)


@atexit.register
def stop():
    """End all workers; the next call starts others."""
    while _workers:
        _workers.pop().stop()


# Ctrl-C reaches all processes of a terminal, also one that is still importing.
_START = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); from nn.cpu.worker import serve; serve()"


class Worker:
    """One process, and the job it was sent last: sampling needs the same one many times."""

    def __init__(self):
        if _is_worker:
            raise RuntimeError(
                "a worker process was about to start workers of its own: what a script does when it is run must stand "
                "under `if __name__ == '__main__':`"
            )
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        script = getattr(sys.modules["__main__"], "__file__", None) or ""
        sys.modules.setdefault(
            _SCRIPT, sys.modules["__main__"]
        )  # an exception of a script's class comes back by this name
        self.job = None
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                _START,
                script,
            ],  # -P: what lies in the current directory stays out of its imports
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )

    def send(self, job, task):
        """Start on `task` with a job, pickled."""
        try:
            pickle.dump((None if job == self.job else job, task), self.process.stdin, pickle.HIGHEST_PROTOCOL)
            self.process.stdin.flush()
        except OSError:
            self._died()
        self.job = job

    def receive(self):
        """What came out of it."""
        try:
            results, error = pickle.load(self.process.stdout)
        except (EOFError, pickle.UnpicklingError):  # the second where it died while it answered
            self._died()
        if error is not None:
            raise error
        return results

    def _died(self):
        raise RuntimeError(
            f"a worker process died with exit status {self.process.wait()}: is there enough memory? "
            "A smaller batch or fewer workers need less"
        ) from None

    def stop(self):
        """End the process, whatever it does."""
        self.process.kill()
        self.process.communicate()


def _pickled(job):
    try:
        return pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"what runs on several workers must be a function of a module or a script, and a model of such a class, no "
            f"lambda and nothing inside a function ({error}); or use one worker"
        ) from error


# ==== in a worker ====

_is_worker = False


def serve():
    """The life of a worker: answer message after message, until the caller is gone."""
    global _is_worker
    _is_worker = True
    answers = os.fdopen(os.dup(1), "wb")
    sys.stdout.reconfigure(line_buffering=True)  # a worker is ended without being asked what it still wanted to say
    os.dup2(2, 1)  # what a job prints must not end up among the answers
    for number in (signal.SIGINT, signal.SIGTERM):  # which reach all processes of a terminal: the caller decides
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    with threadpool_limits(1, "blas"), contextlib.ExitStack() as weights:
        for message, task in _messages(sys.stdin.buffer):
            try:
                if message is not None:
                    function, model, options = _Unpickler(io.BytesIO(message)).load()
                    weights.close()
                    weights.enter_context(constant_weights())  # until another job comes
                answer = _call(function, model, options, task), None
            except (Exception, SystemExit) as error:  # a script without a guard may exit as it is imported
                answer = None, _sendable(error)
            try:
                pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
                answers.flush()
            except OSError:  # the caller is gone
                return


def _sendable(error):
    """`error` with what led to it; where it cannot be pickled, or would end the caller, a RuntimeError that quotes it."""
    told = "In a worker process:\n" + traceback.format_exc()
    error.add_note(told)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(told)
    return RuntimeError(told) if isinstance(error, SystemExit) else error


def _messages(stream):
    while True:
        try:
            yield pickle.load(stream)
        except EOFError:
            return


class _Unpickler(pickle.Unpickler):
    """Finds what the caller's script defines by importing that script, under a name that is not "__main__"."""

    def find_class(self, module, name):
        return super().find_class(_import_script() if module == "__main__" else module, name)


def _import_script():
    path = sys.argv[1]
    if not path:
        raise TypeError(
            "a function typed at a prompt or in a notebook cannot be sent to a worker: put it in a file, "
            "or use one worker"
        )
    if _SCRIPT not in sys.modules:
        loader = importlib.machinery.SourceFileLoader(_SCRIPT, path)  # the file's name may end in anything
        spec = importlib.util.spec_from_file_location(_SCRIPT, path, loader=loader)
        sys.modules[_SCRIPT] = importlib.util.module_from_spec(spec)
        loader.exec_module(sys.modules[_SCRIPT])
    return _SCRIPT
