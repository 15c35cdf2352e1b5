"""Programs that tests run in a Python of their own, or in several: the ranks of an MPI launcher."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest

__all__ = ["run_python", "run_ranks", "ranks_command", "needs_mpi"]

_MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
needs_mpi = pytest.mark.skipif(
    not (_MPIEXEC and find_spec("mpi4py")), reason="needs mpi4py and an mpiexec: pip install 'tinyddpm[mpi]'"
)


def run_python(*arguments, **options):
    """The finished process of `python *arguments`, which finds what the tests find; options: of subprocess.run."""
    return _run([sys.executable, *map(str, arguments)], options)


def run_ranks(count, *arguments, **options):
    """As `run_python`, on so many ranks."""
    return _run(ranks_command(count, *arguments), {"timeout": 120, **options})


def ranks_command(count, *arguments):
    """The words of the command that starts `python *arguments` on so many ranks."""
    return list(map(str, [_MPIEXEC, "-n", count, sys.executable, *arguments]))


def _run(command, options):
    search = os.pathsep.join(entry for entry in sys.path if entry)
    environ = {**os.environ, "PYTHONPATH": search, **options.pop("env", {})}
    defaults = {"capture_output": True, "text": True, "timeout": 300, "env": environ}
    return subprocess.run(command, **{**defaults, **options})
