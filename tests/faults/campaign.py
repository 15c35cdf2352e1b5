"""The fault campaign: what is done to a run, and what became of it. Prints a table; `make faults` runs it.

    python tests/faults/campaign.py --scale 1 --seed 0 [--only killed]

Each trial ends in one of these:
- refused: an error said so, and what was there before is still there and whole;
- recovered: the end is, to the byte, that of a run which nothing happened to;
- silent: the end is another one, and nothing said so;
- lost: more work is gone than since the last save was due;
- crashed: a traceback or a signal of its own, where a message is due.
Everything is drawn from (--seed, the fault's name, the trial's number), except when a process is hit: that depends on
how fast the machine is.
"""

import argparse
import contextlib
import functools
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]

from damage import damaged  # noqa: E402
from small import CONFIG, OPTIONS, SQUARES  # noqa: E402

import tinyddpm as td  # noqa: E402
from tinyddpm.data.images import DataError  # noqa: E402
from tinyddpm.program.checkpoint import RUN_FILE, CheckpointError  # noqa: E402
from tinyddpm.program.config import Config  # noqa: E402
from tinyddpm.program.train import Trainer, read  # noqa: E402

VICTIM = Path(__file__).with_name("victim.py")
ENDS = ("refused", "recovered", "silent", "lost", "crashed")
STEPS = 20  # of a run
PATIENCE = 300.0  # seconds until a victim counts as hanging
SAMPLES = ("x.npz", "x.png")
GOOD = ("refused", "recovered")
KILL = signal.SIGKILL


class Trial:
    """One trial: its random numbers, its folder and its victims. hits: how often something was done to one."""

    def __init__(self, base, folder, rng, times=4):
        self.base, self.folder, self.rng, self.times, self.hits = base, folder, rng, times, 0
        self.out, self.options, self.expected = (
            folder / "run",
            {"data": str(base.data), "steps": STEPS},
            base.checkpoint,
        )

    def train(self, **options):
        return Victim(self, **{"task": "train", "out": str(self.out), **self.options, **options})

    def command(self, *arguments):
        return Victim(self, task="command", arguments=[str(a) for a in arguments])

    @property
    def checkpoint(self):
        return self.out / RUN_FILE

    def moment(self, task="train", share=1.0):
        """A random time within a share of what this task takes, in seconds."""
        return share * self.rng.uniform(0, self.base.seconds[task])

    def steps_saved(self):
        """How many steps the checkpoint holds, -1 where there is none. Raises CheckpointError where it is not whole."""
        return len(read(self.checkpoint)[1]["losses"]) if self.checkpoint.exists() else -1

    def finish(self, end="recovered"):
        """Go on to the last step, undisturbed: `end` if the bytes are those of an undisturbed run."""
        victim = self.train()
        if victim.wait() != 0:
            return "crashed", f"does not go on: {victim.said}"
        same = self.checkpoint.read_bytes() == self.expected
        return (end, "") if same else ("silent", "another checkpoint at the end")


class Victim:
    """A process of victim.py that has said "ready"."""

    def __init__(self, trial, **options):
        homes = {"HOME": str(trial.folder / "home"), "TMPDIR": str(trial.folder / "tmp")}
        for home in homes.values():
            Path(home).mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, VICTIM, json.dumps(options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **homes, "MPLBACKEND": "agg", "MPLCONFIGDIR": str(trial.base.folder / "mpl")},
        )
        self.trial, self.said, self.start = trial, self.process.stdout.readline(), time.monotonic()

    def later(self, seconds):
        """Wait, at most until it ends. Whether it still runs."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def wait(self):
        """Its exit status, once it has ended; `said` is then all it printed. RuntimeError where it hangs."""
        try:
            self.said += self.process.communicate(timeout=PATIENCE)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f"hangs: {self.said}{self.process.communicate()[0]}") from None
        self.seconds = time.monotonic() - self.start
        return self.process.returncode

    def hit(self, function, *arguments):
        """Do it, to the process or one of its own, unless that has ended meanwhile. Whether it was done."""
        try:
            function(*arguments)
        except ProcessLookupError:
            return False
        self.trial.hits += 1
        return True

    def signal(self, number):
        return self.hit(os.kill, self.process.pid, number)

    def limit(self, what, value):
        return self.hit(resource.prlimit, self.process.pid, what, (value, resource.RLIM_INFINITY))

    def children(self):
        """The ids of the processes it started."""
        found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def ended_well(self, *statuses):
        """Whether it ended with status 0, 1, 130 for Ctrl-C, or one of `statuses`, and without a traceback."""
        return "Traceback" not in self.said and self.process.returncode in (0, 1, 130, *statuses)


@dataclass
class Base:
    """What an undisturbed run makes, and how long it takes."""

    folder: Path
    data: Path  # squares.npz
    shared: dict = None  # the options of a run whose batches several workers share
    checkpoint: bytes = b""
    shared_checkpoint: bytes = b""
    samples: dict = None  # of `sample`: {name: bytes}
    figures: dict = None  # of `plot`: {name: bytes}; None if they were not prepared
    seconds: dict = None  # {task: how long it works}

    @property
    def run(self):
        return self.folder / "run"


def prepare(folder, figures=True):
    """The Base, in a new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    base = Base(folder, folder / "squares.npz", shared={"shard": 2}, seconds={})
    train, test = SQUARES.train, SQUARES.test
    np.savez(base.data, images=train.images, labels=train.labels, test_images=test.images, test_labels=test.labels)
    trial = Trial(base, folder, None)
    tasks = {"train": trial.train, "shared": lambda: trial.train(out=str(folder / "shared"), **base.shared)}
    for name in SAMPLES:
        tasks["sample"] = tasks[name] = lambda name=name: trial.command(*sampling(base, folder / "samples" / name))
    if figures:
        tasks["plot"] = lambda: trial.command(*plotting(base, folder / "figures"))
    for task, start in tasks.items():
        victim = start()
        if victim.wait() != 0:
            raise RuntimeError(f"an undisturbed {task} fails: {victim.said}")
        base.seconds[task] = victim.seconds
    base.checkpoint = (base.run / RUN_FILE).read_bytes()
    base.shared_checkpoint = (folder / "shared" / RUN_FILE).read_bytes()
    base.samples, base.figures = contents(folder / "samples"), contents(folder / "figures")
    return base


def sampling(base, out):
    return "sample", base.run, "--out", out, "--n", 6, "--steps", 20, "--workers", 1


def plotting(base, out):
    return "plot", base.run, "--out", out, "--images", 4, "--workers", 1


def contents(folder):
    """{name: bytes} of the files in a folder, but for hidden ones."""
    return {p.name: p.read_bytes() for p in sorted(folder.glob("[!.]*"))} if folder.exists() else {}


# ==== faults: functions of a Trial that return (how it ended, a note) ====


def interrupted_training(trial, number):
    """A signal at a random moment, and gone on with, some times; then undisturbed to the end."""
    save_seconds, seen = float(trial.rng.choice([0.0, 0.1])), -1
    for _ in range(trial.times):
        victim = trial.train(save_seconds=save_seconds, picture_seconds=float(trial.rng.choice([0.2, 1e9])))
        hit = victim.later(trial.moment(share=1 - max(seen, 0) / STEPS)) and victim.signal(number)
        status, steps = victim.wait(), trial.steps_saved()
        if steps < seen:
            return "lost", f"{seen} steps were saved, now {steps}"
        seen = steps
        if number == KILL and status not in (0, -KILL) or number != KILL and not victim.ended_well(-number):
            return "crashed", victim.said
        if hit and status == 0 and number != KILL and f"step {steps}:" not in victim.said:
            return "lost", f"{steps} steps saved, and it says: {victim.said}"
    return trial.finish()


def killed_between_saves(trial):
    """Killed in a long run, some time after it saved by itself: no more is lost than one interval."""
    interval, slack = 1.0, 1.0 + trial.base.seconds["train"]  # in which STEPS steps and as many saves are made
    victim = trial.train(steps=10**6, save_seconds=interval)
    while trial.steps_saved() < 1 and victim.later(0.1):
        pass
    running = victim.later(trial.rng.uniform(0, 3 * slack))
    late = time.time() - trial.checkpoint.stat().st_mtime
    running and victim.signal(KILL)
    if victim.wait() != -KILL:
        return "crashed", victim.said
    if late > interval + slack:
        return "lost", f"the last save was {late:.1f} s ago"
    trial.steps_saved()
    return "recovered", ""


def interrupted_drawing(trial, number, task):
    """A signal while samples or figures are drawn: a file is that from before, or whole; then all are drawn."""
    if task == "sample":
        name = str(trial.rng.choice(SAMPLES))
        arguments, expected = sampling(trial.base, trial.out / name), {name: trial.base.samples[name]}
    else:
        arguments, expected = plotting(trial.base, trial.out), trial.base.figures
    trial.out.mkdir()
    old = {name: b"from before" for name in expected if trial.rng.integers(2)}
    for name, data in old.items():
        (trial.out / name).write_bytes(data)
    for _ in range(trial.times):
        victim = trial.command(*arguments)
        victim.later(trial.moment(task)) and victim.signal(number)
        victim.wait()
        if not victim.ended_well(-number):
            return "crashed", victim.said
        now = contents(trial.out)
        if any(data not in (expected[name], old.get(name)) for name, data in now.items()) or old.keys() - now.keys():
            return "silent", f"half of a file, in {trial.out}"
    victim = trial.command(*arguments)
    if victim.wait() != 0:
        return "crashed", victim.said
    return ("recovered", "") if contents(trial.out) == expected else ("silent", f"other pictures, in {trial.out}")


def full_disk(trial):
    """No file may grow beyond a random size, from a random moment on: for good, or for a while."""
    victim = trial.train(save_seconds=0.05)
    victim.later(trial.moment())
    victim.limit(resource.RLIMIT_FSIZE, int(trial.rng.integers(len(trial.base.checkpoint))))
    if trial.rng.integers(2):
        victim.later(trial.rng.uniform(0, 1.0))
        trial.hits -= victim.limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    status, saved = victim.wait(), trial.steps_saved()
    if not victim.ended_well():
        return "crashed", victim.said
    if status == 0 and saved != STEPS or status and "error" not in victim.said:
        return "silent", f"status {status}, {saved} steps saved: {victim.said}"
    return trial.finish("refused" if status else "recovered")


def full_disk_for_samples(trial):
    """Samples that do not fit: an error, and no half of a file."""
    name = str(trial.rng.choice(SAMPLES))
    expected, out = trial.base.samples[name], trial.folder / name
    victim = trial.command(*sampling(trial.base, out))
    victim.limit(resource.RLIMIT_FSIZE, int(trial.rng.integers(len(expected))))
    status = victim.wait()
    if not victim.ended_well() or (status and "error" not in victim.said):
        return "crashed", victim.said
    if status:
        return ("silent", "half a file") if out.exists() else ("refused", "")
    return ("recovered", "") if out.read_bytes() == expected else ("silent", "half a file, status 0")


def folder_gone(trial):
    """A file takes the place of the run's folder: the run is saved elsewhere, and goes on from there."""
    victim = trial.train(save_seconds=1e9)
    victim.later(trial.moment())
    moved = trial.folder / "moved"
    victim.hit(trial.out.rename, moved)
    trial.out.write_text("in the way")
    status = victim.wait()
    elsewhere = [path for home in ("home", "tmp") for path in (trial.folder / home).glob("tinyddpm-step-*.npz")]
    if not victim.ended_well():
        return "crashed", victim.said
    if elsewhere and (status == 0 or str(elsewhere[0]) not in victim.said):
        return "silent", f"saved as {elsewhere}, and not said: {victim.said}"
    found = elsewhere[0] if elsewhere else moved / RUN_FILE
    trial.out.unlink()
    trial.out.mkdir()
    if found.exists():
        shutil.copy(found, trial.checkpoint)
    if not elsewhere and status == 0 and trial.steps_saved() != STEPS:
        return "silent", victim.said
    return trial.finish("recovered" if elsewhere else "refused")


def worker_killed(trial):
    """One of the processes of nn.Parallel is killed, perhaps twice."""
    trial.options, trial.expected = {**trial.options, **trial.base.shared}, trial.base.shared_checkpoint
    victim = trial.train(workers=int(trial.rng.integers(2, 4)))
    for _ in range(trial.rng.integers(1, 3)):
        victim.later(trial.moment("shared"))
        children = victim.children()
        if children:
            victim.hit(os.kill, children[trial.rng.integers(len(children))], KILL)
    status = victim.wait()
    if not victim.ended_well():
        return "crashed", victim.said
    return trial.finish("refused" if status else "recovered")


def little_memory(trial):
    """From a random moment on, the process may hold little more memory than it does."""
    victim = trial.train(save_seconds=0.05)
    victim.later(trial.moment())
    try:
        held = int(Path(f"/proc/{victim.process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, IndexError):  # it was faster; or there is no /proc
        held = 1 << 30
    victim.limit(resource.RLIMIT_AS, held + int(trial.rng.integers(0, 1 << 22)))
    status = victim.wait()
    if status == 0 and trial.steps_saved() != STEPS:
        return "silent", victim.said
    if not victim.ended_well():
        return "crashed", victim.said
    return trial.finish("refused" if status else "recovered")


def wrong_clock(trial):
    """The clock jumps ahead by months, back, to and fro, or stands still."""
    kind = str(trial.rng.choice(["ahead", "back", "to and fro", "stopped"]))
    victim = trial.train(clock=kind, save_seconds=0.1, picture_seconds=0.5)
    trial.hits += 1
    if victim.wait() != 0:
        return "crashed", f"{kind}: {victim.said}"
    return trial.finish()


def two_runs(trial):
    """Two runs in one folder: one is told so, the other is as if it were alone."""
    first = trial.train()
    first.later(trial.moment()) if trial.rng.integers(2) else None
    second = trial.train()
    trial.hits += 1
    refused = [victim for victim in (first, second) if victim.wait()]
    for victim in refused:
        if not victim.ended_well() or not ("another run" in victim.said or "holds a run" in victim.said):
            return "crashed", victim.said
    if len(refused) == 2:
        return "lost", "both were refused"
    return trial.finish("refused" if refused else "recovered")


def damaged_checkpoint(trial):
    """Loaded, it is refused, or holds the same."""
    path, trial.hits = trial.folder / "damaged.npz", 1
    path.write_bytes(damaged(trial.base.checkpoint, trial.rng))
    try:
        config, arrays = read(path)
        td.load(path)
    except CheckpointError:
        return "refused", ""
    right_config, right = read(trial.base.run)
    same = config == right_config and arrays.keys() == right.keys()
    same = same and all(np.array_equal(arrays[name], array) for name, array in right.items())
    return ("recovered", "") if same else ("silent", "other contents")


def damaged_data(trial):
    """A file of images: refused, or the same images. A .npy has no checksum: but a run that is resumed knows its data."""
    kind, trial.hits = str(trial.rng.choice([".npz", ".npz, compressed", ".npy", "folder"])), 1
    path, target = data_file(trial.folder, kind, trial.rng)
    right = td.load_data(path)
    target.write_bytes(damaged(target.read_bytes(), trial.rng))
    try:
        found = td.load_data(path)
    except DataError:
        return "refused", ""
    if all(map(same_images, (found.train, found.test), (right.train, right.test))):
        return "recovered", ""
    changed = Config.of(found, **OPTIONS).differences(Config.of(right, **OPTIONS))
    if kind == ".npy" and changed or same_images(found.train, right.train):
        return "refused", ""
    return "silent", f"other images in a {kind}"


def same_images(some, others):
    return np.array_equal(some.images, others.images) and np.array_equal(some.labels, others.labels)


def data_file(folder, kind, rng):
    """(a path to load, the file of it to damage)."""
    train, test = SQUARES.train, SQUARES.test
    if kind == ".npy":
        np.save(folder / "data.npy", train.images)
        return folder / "data.npy", folder / "data.npy"
    if kind != "folder":
        save = np.savez if kind == ".npz" else np.savez_compressed
        arrays = {
            "images": train.images,
            "labels": train.labels,
            "test_images": test.images,
            "test_labels": test.labels,
        }
        save(folder / "data.npz", **arrays)
        return folder / "data.npz", folder / "data.npz"
    from PIL import Image

    images = folder / "images"
    images.mkdir()
    for i, image in enumerate(train.images):
        Image.fromarray(image).save(images / f"{i:03d}.png")
    return images, images / f"{rng.integers(len(train)):03d}.png"


def not_a_number(trial):
    """A weight, an average, a moment becomes NaN or infinite: training ends, and no checkpoint holds it. Or a pixel."""
    trainer, trial.hits = Trainer(CONFIG, SQUARES.train), 1
    path, at, bad = trial.folder / "c.npz", int(trial.rng.integers(1, 6)), trial.rng.choice([np.nan, np.inf, -np.inf])
    optimiser, place = trainer.optimiser, str(trial.rng.choice(["weight", "average", "mean", "square", "pixel"]))
    if place == "pixel":
        images = SQUARES.train.images / np.float32(255)
        images.flat[trial.rng.integers(images.size)] = bad
        np.savez(path, images=images)
        try:
            td.load_data(path)
        except DataError:
            return "refused", ""
        return "silent", f"{bad} in a pixel"
    arrays = {"weight": optimiser.flat, "average": trainer.ema.average}
    arrays |= {"mean": optimiser.mean, "square": optimiser.square}
    try:
        for step, _ in trainer.run(12):
            trainer.save(path)
            if step == at:
                arrays[place][trial.rng.integers(arrays[place].size)] = bad
    except FloatingPointError:
        if all(np.isfinite(array).all() for array in read(path)[1].values()):
            return "refused", ""
    return "silent", f"{bad} in a {place} after step {at}"


def interrupted(task, number):
    if task == "train":
        return functools.partial(interrupted_training, number=number)
    return functools.partial(interrupted_drawing, number=number, task=task)


FAULTS = {  # name: (trials, what happens in each)
    "kill -9 in training": (40, interrupted("train", KILL)),
    "kill -9 in sampling": (30, interrupted("sample", KILL)),
    "kill -9 in drawing": (10, interrupted("plot", KILL)),
    "kill -9 between saves": (10, killed_between_saves),
    "SIGINT in training": (25, interrupted("train", signal.SIGINT)),
    "SIGTERM in training": (25, interrupted("train", signal.SIGTERM)),
    "SIGINT in sampling": (30, interrupted("sample", signal.SIGINT)),
    "SIGTERM in sampling": (30, interrupted("sample", signal.SIGTERM)),
    "SIGINT in drawing": (5, interrupted("plot", signal.SIGINT)),
    "SIGTERM in drawing": (5, interrupted("plot", signal.SIGTERM)),
    "disk full at a random byte": (80, full_disk),
    "disk full, of samples": (20, full_disk_for_samples),
    "folder of the run gone": (10, folder_gone),
    "worker killed": (40, worker_killed),
    "little memory": (40, little_memory),
    "clock that jumps": (20, wrong_clock),
    "two runs in one folder": (30, two_runs),
    "damaged checkpoint": (2000, damaged_checkpoint),
    "damaged data file": (500, damaged_data),
    "NaN or infinity in a run": (100, not_a_number),
}


def attempt(name, number, base, seed=0, times=4):
    """(how it ended, hits, a note) of trial `number` of the fault `name`."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    folder = Path(tempfile.mkdtemp(dir=base.folder, prefix="trial-"))
    trial = Trial(base, folder, rng, times)
    try:
        with contextlib.redirect_stderr(io.StringIO()), np.errstate(all="ignore"):
            end, note = FAULTS[name][1](trial)
    except Exception:
        end, note = "crashed", traceback.format_exc()
    if end in GOOD:
        shutil.rmtree(folder, ignore_errors=True)
    return end, trial.hits, f"{note}\n(its files: {folder})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="times so many trials (1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="trials at once (two a core)")
    options = parser.parse_args()
    start, bad = time.monotonic(), 0
    base = prepare(Path(tempfile.mkdtemp(prefix="tinyddpm-faults-")))
    print(f"| fault | trials | hits | {' | '.join(ENDS)} |\n|---|{'---:|' * (2 + len(ENDS))}", flush=True)
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for name, (trials, _) in FAULTS.items():
            if options.only not in name:
                continue
            trials = max(1, round(trials * options.scale))
            run = functools.partial(attempt, name, base=base, seed=options.seed)
            ends, hits, notes = zip(*pool.map(run, range(trials), chunksize=1 + trials // 100), strict=True)
            counts = [trials, sum(hits), *(ends.count(end) for end in ENDS)]
            print(f"| {name} | {' | '.join(map(str, counts))} |", flush=True)
            for i, (end, note) in enumerate(zip(ends, notes, strict=True)):
                if end not in GOOD:
                    bad += 1
                    print(f"\n{name}, trial {i}: {end}: {note}\n", file=sys.stderr, flush=True)
    print(f"\n{time.monotonic() - start:.0f} s; {bad} trials that ended neither refused nor recovered")
    if not bad:
        shutil.rmtree(base.folder, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
