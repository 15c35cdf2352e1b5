"""Forks of the calling process: os.fork, and what forks by it."""

import os
import textwrap

import pytest
from subprocesses import run_python

FORKS = {
    "os.fork and sys.exit": """
        process = os.fork()
        if process == 0:
            sys.exit(0)
        assert os.waitpid(process, 0)[1] == 0
        """,
    "os.fork and a call": """
        process = os.fork()
        if process == 0:
            sys.exit(0 if double(2) == [0, 1, 2, 3] else 1)
        assert os.waitpid(process, 0)[1] == 0
        """,
    "Pool": """
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(double, range(4)) == [[0, 0, 0, 0], [0, 0.5, 1, 1.5], [0, 1, 2, 3], [0, 1.5, 3, 4.5]]
        """,
    "ProcessPoolExecutor": """
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
            assert list(pool.map(double, range(3))) == [[0, 0, 0, 0], [0, 0.5, 1, 1.5], [0, 1, 2, 3]]
        """,
    "a thread calls while another forks": """
        calling = threading.Thread(target=lambda: [double(2) for _ in range(20)])
        calling.start()
        for _ in range(3):
            process = os.fork()
            if process == 0:
                os._exit(0 if double(1) == [0, 0.5, 1, 1.5] else 1)
            assert os.waitpid(process, 0)[1] == 0
        calling.join()
        """,
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("act", FORKS.values(), ids=FORKS.keys())
def test_a_fork_has_workers_of_its_own_and_leaves_those_of_its_parent_alone(act):
    done = run_python(
        "-c",
        """
import multiprocessing, os, sys, threading
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from nn import Parallel

def double(number):
    return Parallel(2, shard=1).map(lambda network, x: x * number / 2, None, np.arange(4.0)).tolist()

assert double(2) == [0, 1, 2, 3]
"""
        + textwrap.dedent(act)
        + "assert double(2) == [0, 1, 2, 3]\nprint('right')\n",
    )
    assert done.stdout == "right\n", done.stderr
