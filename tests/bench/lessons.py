"""How long each lesson takes at full size: prints a table of Markdown, and fails if one is too slow. `make lessons`

python tests/bench/lessons.py            # about five minutes on two quiet cores
python tests/bench/lessons.py 03 11      # these two
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINS = "07_digits", "12_own_data"
LIMIT, LIMIT_IF_IT_TRAINS = 60, 180  # seconds


def main():
    lessons = sorted((ROOT / "demo" / "learn").glob("[0-9]*.py"))
    wanted = [path for path in lessons if path.name.startswith(tuple(sys.argv[1:] or "01"))]
    slow = []
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| lesson | seconds by the clock | of the processors |\n|---|---|---|", flush=True)
    for path in wanted:
        clock, processors = seconds(path)
        print(f"| {path.stem} | {clock:.0f} | {processors:.0f} |", flush=True)
        # On a busy machine the clock counts others' work, and on a quiet one the processors count work side by side.
        if min(clock, processors) > (LIMIT_IF_IT_TRAINS if path.stem in TRAINS else LIMIT):
            slow.append(path.stem)
    if slow:
        sys.exit(f"too slow: {', '.join(slow)}; a lesson has {LIMIT} s, one that trains {LIMIT_IF_IT_TRAINS}")


def seconds(path):
    """The seconds that a lesson takes, by the clock and of all processors together. Its error ends this program."""
    with tempfile.TemporaryDirectory() as out:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TINYDDPM_OUT": os.environ.get("TINYDDPM_OUT", out)}
        environment.pop("TINYDDPM_SMALL", None)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        result = subprocess.run([sys.executable, str(path)], cwd=out, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{path.name} failed:\n{result.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
