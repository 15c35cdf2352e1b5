"""What becomes of a training on three ranks of which one is killed, raises an error, or is another program. Prints a table.

    python tests/faults/ranks.py --kills 20 --errors 20 --mismatches 5 --seed 0

ended: seconds until the launcher ends, the median and the most, from the blow on, or for a mismatch from the start on.
named: in how many trials what was printed names the rank or its process. lost: steps that were saved before the blow,
as every step is here, and are not in the checkpoint after it. whole: in how many trials a single process, going on from
the checkpoint, writes the bytes of an undisturbed run. Needs the extra `mpi`.
"""

import argparse
import contextlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from small import OPTIONS, SQUARES  # noqa: E402
from subprocesses import ranks_command  # noqa: E402

import tinyddpm as td  # noqa: E402
from tinyddpm.program import run  # noqa: E402
from tinyddpm.program.checkpoint import RUN_FILE, load  # noqa: E402
from tinyddpm.program.unet import UNet  # noqa: E402

RANKS, PATIENCE = 3, 60.0
VICTIM = [__file__, "--victim"]


class Fragile(UNet):
    """A network that raises where there is a file of the number of its process."""

    def __call__(self, x, t, labels=None):
        if os.path.exists(f"hit-{os.getpid()}"):
            raise ArithmeticError("a blow")
        return super().__call__(x, t, labels)


def train(steps, resume=False):
    """The training, saved after every step; prints how many are done."""
    options = {**OPTIONS, "network": Fragile(td.Config.of(SQUARES, **OPTIONS).unet_config()), "batch": 12, "shard": 1}
    compute = td.Compute(workers=1)
    return run.train_run(SQUARES, compute, "run", steps, resume=resume, save_seconds=0, picture_seconds=1e9, **options)


def start(command, folder):
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def struck(kind, rng, folder):
    """One training that is struck: (seconds to the end, is the rank named, steps lost, is the run whole)."""
    process, rank = start(ranks_command(RANKS, *VICTIM), folder), rng.randrange(RANKS)
    said = process.stdout.readline()
    number = int(re.search(rf"\b{rank} is process (\d+)", said)[1])
    checkpoint = folder / "run" / RUN_FILE
    while not checkpoint.exists():
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 2))
    before, blow = len(load(checkpoint)[0]["losses"]), time.monotonic()
    if kind == "killed":
        os.kill(number, signal.SIGKILL)
    else:
        (folder / f"hit-{number}").touch()
    said += process.communicate(timeout=PATIENCE)[0]
    seconds = time.monotonic() - blow
    assert process.returncode, said
    named = f"PID {number} " in said if kind == "killed" else rank == 0 or f"(on rank {rank}, " in said
    after = len(load(checkpoint)[0]["losses"])
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        train(after + 1, resume=True)
        found = checkpoint.read_bytes()
        shutil.rmtree("run")
        train(after + 1)
    return seconds, named, max(0, before - after), checkpoint.read_bytes() == found


def mismatched(number, folder):
    """One start of which rank 1 is another program: (seconds to the end, is the rank named)."""
    other = list(VICTIM)
    if number % 3 == 0:
        other += ["--seed", "1"]
    else:
        package = ("nn", "tinyddpm")[number % 3 - 1]
        shutil.copytree(ROOT, folder / "other", ignore=shutil.ignore_patterns(".*", "docs", "out"))
        with open(folder / "other" / package / "__init__.py", "a") as file:
            file.write("# another version\n")
        other[0] = str(folder / "other" / Path(__file__).relative_to(ROOT))
    command = [*ranks_command(1, *VICTIM), ":", "-n", "2", sys.executable, *other]
    began, process = time.monotonic(), start(command, folder)
    said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 1, said
    return time.monotonic() - began, said.count("rank 1 on ") == 1


def table_row(kind, trials):
    seconds, *counts = zip(*trials, strict=True)
    seconds = sorted(seconds)
    line = f"{kind:10} {len(trials):6} {seconds[len(seconds) // 2]:8.2f} {seconds[-1]:8.2f} {sum(counts[0]):8}"
    return line + (f" {max(counts[1]):8} {sum(counts[2]):8}" if len(counts) > 1 else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, count in (("kills", 20), ("errors", 20), ("mismatches", 5), ("seed", 0)):
        parser.add_argument(f"--{kind}", type=int, default=count)
    parser.add_argument("--victim", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.victim:
        return train(10**6)
    rng, rows = random.Random(arguments.seed), []
    for kind, count in (("killed", arguments.kills), ("raises", arguments.errors), ("differs", arguments.mismatches)):
        trials = []
        for number in range(count):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                trials.append(mismatched(number, folder) if kind == "differs" else struck(kind, rng, folder))
                os.chdir(ROOT)
        rows += [table_row(kind, trials)] if trials else []
    print(f"{'a rank':10} trials    ended  at most    named     lost    whole   (of a job of {RANKS} ranks)")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
