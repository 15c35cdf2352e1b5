"""BLAS on one thread while a batch is computed: the cores are taken by processes. Next: worker.py.

On several threads BLAS adds up the same products in another order, so the last bits would depend on how many there are.
"""

import functools
import os
import sys
import threading
import warnings

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread", "blas_libraries"]


class _OneBlasThread:
    """A block in which BLAS runs on one thread. Blocks of several threads overlap: the last to be left restores."""

    def __init__(self):
        self.lock, self.inside, self.before = threading.Lock(), [], []

    def __enter__(self):
        with self.lock:
            if not self.inside:
                self.before = [(library, library.num_threads) for library in blas_libraries()]
            self.inside.append(threading.get_ident())
            for library, _ in self.before:
                _set_threads(library, 1)

    def __exit__(self, *error):
        with self.lock:
            self.inside.remove(threading.get_ident())
            self.restore()

    def restore(self):
        for library, threads in self.before:
            of_each_thread = getattr(library, "threading_layer", None) == "openmp"  # has a number of its own
            if not self.inside or of_each_thread and threading.get_ident() not in self.inside:
                _set_threads(library, threads)

    def after_fork(self):
        """In a fork, which has but the thread that made it: no other is inside any more."""
        self.lock, before = threading.Lock(), self.inside
        self.inside = [thread for thread in before if thread == threading.get_ident()]
        if before:
            self.restore()


def _set_threads(library, threads):
    if hasattr(library, "clear_controlling_thread"):  # threadpoolctl 3.8 would listen to one thread alone
        library.clear_controlling_thread(force=True)
    library.set_num_threads(threads)


one_blas_thread = _OneBlasThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_blas_thread.after_fork)


@functools.cache
def blas_libraries():
    """threadpoolctl's controllers of NumPy's BLAS. Warns of Accelerate, which nothing can limit once it is loaded."""
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    if sys.platform == "darwin" and not libraries and os.environ.get("VECLIB_MAXIMUM_THREADS") != "1":
        warnings.warn(
            "NumPy's BLAS cannot be kept to one thread here, so results may depend on the number of workers in their last "
            "bits; set VECLIB_MAXIMUM_THREADS=1 before Python starts",
            stacklevel=3,
        )
    return libraries
