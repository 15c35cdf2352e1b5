"""Programs that tests run in a Python of their own."""

import os
import subprocess
import sys

__all__ = ["run_python"]


def run_python(*arguments, **options):
    """The finished process of `python *arguments`, which finds what the tests find; options: of subprocess.run."""
    search = os.pathsep.join(entry for entry in sys.path if entry)
    environ = {**os.environ, "PYTHONPATH": search, **options.pop("env", {})}
    defaults = {"capture_output": True, "text": True, "timeout": 60, "env": environ}
    return subprocess.run([sys.executable, *map(str, arguments)], **{**defaults, **options})
