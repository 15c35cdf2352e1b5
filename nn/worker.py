"""Worker processes for parallel.py: each is sent a job and its part of a batch, and answers with what came out.

A worker is a new Python process that imports what it needs, started on first use and kept. (A forked copy of a process
that has threads, as a BLAS has, may hang; and not every system can fork.) Messages are pickles on its stdin and stdout.
"""

import atexit
import contextlib
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
from nn.constant import constant_weights, remembered

__all__ = ["run_everywhere"]


# ==== in the process that calls ====

_workers = []  # all that run; every Parallel uses the same
_one_call = threading.Lock()


def run_everywhere(function, model, options, tasks):
    """[function(model, *options, task) for every task]: the first is run here, each other in a worker.

    TypeError if function, model or options cannot be sent to another process, RuntimeError if a worker died; what is
    raised in a worker is raised here.
    """
    job = function, model, options
    message = remembered(("job", function, options), model, lambda: _pickled(job))
    with _one_call:
        try:
            while len(_workers) < len(tasks) - 1:
                _workers.append(Worker())
            busy = _workers[: len(tasks) - 1]
            for worker, task in zip(busy, tasks[1:], strict=True):
                worker.send(message, task)
            return [function(model, *options, tasks[0])] + [worker.receive() for worker in busy]
        except BaseException:  # Ctrl-C too: answers may be on their way that the next call must not take for its own
            stop()
            raise


@atexit.register
def stop():
    """End all workers; the next call starts others."""
    while _workers:
        _workers.pop().stop()


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
        self.job = None
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from nn.worker import serve; serve()", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip

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
        except EOFError:
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
                answer = function(model, *options, task), None
            except Exception as error:
                error.add_note("In a worker process:\n" + traceback.format_exc())
                answer = None, error
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


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
    name = "__script__"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, sys.argv[1])
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return name
