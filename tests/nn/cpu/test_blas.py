"""BLAS on one thread while a batch is computed, and on as many as before when it is done, whoever else computes."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from subprocesses import run_python
from threadpoolctl import threadpool_info, threadpool_limits

from nn import Parallel, Tensor


@pytest.fixture(autouse=True)
def two_threads():
    """Of BLAS, which the environment may have given one."""
    with threadpool_limits(2, "blas"):
        yield


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def blas_threads_inside(network, x):
    return Tensor(np.full(len(x), max(blas_threads()), np.float32))


@pytest.mark.parametrize("workers", [1, 2])
def test_blas_runs_on_one_thread_inside_and_on_as_many_as_before_after_it(workers):
    before = blas_threads()
    assert set(Parallel(workers, shard=1).map(blas_threads_inside, None, np.zeros(4))) == {1}
    assert blas_threads() == before


def test_threads_that_overlap_leave_blas_as_it_was():
    before, together = blas_threads(), threading.Barrier(2)

    def wait(network, x):
        together.wait(timeout=300)  # the first to enter is the first to leave
        time.sleep(0.05 * float(x[0]))
        return Tensor(np.array([max(blas_threads())], np.float32))

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda number: Parallel(1).map(wait, None, np.array([number])), (0.0, 1.0)))
    assert found == [1, 1]
    assert blas_threads() == before


def test_many_threads_that_share_the_workers_get_each_its_own_result():
    before, cores = blas_threads(), Parallel(2, shard=1)
    with ThreadPoolExecutor(4) as threads:
        found = list(
            threads.map(lambda number: cores.map(lambda network, x: 2 * x, None, np.full(3, float(number))), range(20))
        )
    np.testing.assert_array_equal(found, np.repeat(2.0 * np.arange(20)[:, None], 3, axis=1))
    assert blas_threads() == before


def test_a_number_of_threads_set_by_another_thread_does_not_keep_blas_from_one():
    threadpool_limits(2, "blas")  # from now on, threadpoolctl listens to this thread alone
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(Parallel(1).map, blas_threads_inside, None, np.zeros(1)).result() == 1
    assert set(blas_threads()) <= {2}


FORK = """
import os, threading
import numpy as np
from threadpoolctl import threadpool_info
from nn import Parallel

def threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

def wait(network, x):
    inside.set()
    assert forked.wait(300)
    return x

before, inside, forked = threads(), threading.Event(), threading.Event()
calling = threading.Thread(target=Parallel(1).map, args=(wait, None, np.zeros(1)))
calling.start()
assert inside.wait(300)
process = os.fork()
if process == 0:
    again = Parallel(1).map(lambda network, x: x + max(threads()), None, np.zeros(1))
    os._exit(0 if threads() == before and again == 1 else 1)
print(os.waitpid(process, 0)[1])
forked.set()
calling.join()
print(threads() == before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_made_while_another_thread_is_inside_has_all_of_blas_s_threads():
    done = run_python("-W", "ignore", "-c", FORK, env={"OMP_NUM_THREADS": "2"})
    assert done.stdout == "0\nTrue\n", done.stderr


def test_an_exception_leaves_blas_as_it_was():
    before = blas_threads()
    with pytest.raises(ZeroDivisionError):
        Parallel(1).map(lambda network, x: 1 // 0, None, np.zeros(1))
    assert blas_threads() == before


ACCELERATE = """
import sys, types, warnings
import threadpoolctl
threadpoolctl.ThreadpoolController = lambda: types.SimpleNamespace(
    select=lambda user_api: types.SimpleNamespace(lib_controllers=[])
)
import numpy as np
import nn
sys.platform = "darwin"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cores = nn.Parallel(2, shard=1)
    nn.Parallel(1)
print([str(warning.message).partition(",")[0] for warning in caught])
import os
print(cores.map(lambda network, x: x + float(os.environ["VECLIB_MAXIMUM_THREADS"] or 7), None, np.zeros(2))[1])
"""


@pytest.mark.parametrize("threads, warned", [("", ["NumPy's BLAS cannot be kept to one thread here"]), ("1", [])])
def test_a_blas_that_nothing_can_limit_is_told_once_and_is_limited_in_workers(threads, warned):
    """A stand-in for NumPy on Apple's Accelerate, which threadpoolctl does not find."""
    done = run_python("-c", ACCELERATE, env={"VECLIB_MAXIMUM_THREADS": threads})
    assert done.stdout == f"{warned}\n1.0\n", done.stderr
