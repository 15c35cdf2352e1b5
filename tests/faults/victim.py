"""What campaign.py does harm to: one command of a user, in a process of its own. It says "ready" when it begins.

python tests/faults/victim.py '{"task": "train", ...}'
"""

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def jumping_clock(kind):
    """A clock that goes wrong, for `time.monotonic` and its like. Readings count from the first."""
    read, readings = time.monotonic, 0

    def clock():
        nonlocal readings
        readings += 1
        jump = {"ahead": 1e7, "back": -1e7, "stopped": 0.0, "to and fro": 1e5 * (-1) ** readings}[kind]
        return jump if kind == "stopped" else read() + (jump if readings > 20 else 0.0)

    return clock


def train(data, out, steps, workers=1, save_seconds=0.0, picture_seconds=1e9, **options):
    """Train as `tinyddpm train` does, on a small network; go on where a checkpoint is there."""
    from small import OPTIONS

    from tinyddpm import load_data
    from tinyddpm.program import cli, run
    from tinyddpm.program.checkpoint import RUN_FILE
    from tinyddpm.program.compute import Compute

    options = {**OPTIONS, **options, "save_seconds": save_seconds, "picture_seconds": picture_seconds}
    options["resume"] = (Path(out) / RUN_FILE).exists()
    data, compute = load_data(data), Compute(workers=workers)

    def go():
        run.train_run(data, compute, out, steps, **options)

    print("ready", flush=True)
    return cli.answered(go)


def command(arguments):
    """The command `tinyddpm`."""
    from tinyddpm.program import cli, evaluate, figures, plots, train  # noqa: F401  imported before it is ready

    print("ready", flush=True)
    return cli.main(arguments)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    kind = options.pop("clock", None)
    if kind:
        time.monotonic = time.time = time.perf_counter = jumping_clock(kind)
    sys.exit({"train": train, "command": command}[options.pop("task")](**options))
