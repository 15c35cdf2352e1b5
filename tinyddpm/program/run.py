"""Training with a progress bar, checkpoints and pictures on the way, in a folder or in a notebook. Next: plots.py."""

import contextlib
import math
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

import nn
from tinyddpm.data.files import exclusive
from tinyddpm.data.images import Data
from tinyddpm.data.progress import progress
from tinyddpm.program import plots
from tinyddpm.program.checkpoint import RUN_FILE
from tinyddpm.program.compute import Compute
from tinyddpm.program.config import OWN, Config
from tinyddpm.program.train import Trainer, check_amount, read
from tinyddpm.schedule import NoiseSchedule

__all__ = ["train", "train_run", "class_labels"]

PATIENCE = (1.0, 5.0)  # seconds to wait between attempts to write the last checkpoint


def train(data, steps=None, minutes=None, out=None, resume=False, compute=None, **options):
    """Train a model on `data` (see `load_data`): a `Model` with averaged weights, in evaluation mode.

    steps: how many in all; minutes: how long from now; one of the two. out: a folder for checkpoints and pictures, by
    default nothing is written. resume: go on with the run in `out`, exactly. compute: a `Compute`; or its arguments
    (device, workers, precision). options: fields of `Config`, such as batch=32, preset="base", classes=0 (no labels).

    schedule: a name or a NoiseSchedule. network: any `nn.Module` called as network(x, t, labels), as `Model` says.
    loss_weight: a name or a function, as `GaussianDiffusion` says.

    Ctrl-C ends the training after the step it is in, and the model so far is returned.
    Raises ValueError or TypeError, before any training, for what cannot be meant; FileExistsError where `out` holds a
    run and resume is False; CheckpointError where the run in `out` is of another configuration.
    """
    where = {name: options.pop(name) for name in ("device", "workers", "precision") if name in options}
    trainer, _ = train_run(data, compute or Compute(**where), out, steps, minutes, resume, **options)
    trainer.ema.swap()
    trainer.network.eval()
    return trainer.model


def train_run(
    data, compute, out=None, steps=None, minutes=None, resume=False, save_seconds=60.0, picture_seconds=150.0, **options
):
    """As `train`, on a `Compute`; returns the Trainer, and whether a signal ended the training early.

    In the folder `out` it saves every `save_seconds` and at the end, and draws a grid of samples every
    `picture_seconds`. On Ctrl-C or SIGTERM it finishes the step and saves.
    """
    steps, minutes = check_amount(steps, minutes)
    if resume and out is None:
        raise ValueError("to go on with a run (resume), say in which folder it is: out")
    config, own = _asked(data, options)
    path = None if out is None else Path(out) / RUN_FILE
    with contextlib.nullcontext() if path is None else exclusive(path), _stop_on_signal() as stopped:
        if path is not None and path.exists() and not resume:
            raise FileExistsError(f"{path.parent} holds a run: go on with it (resume), or take another folder")
        if resume:
            config = replace(read(path)[0], data=data.name, fingerprint=config.fingerprint, **options)
        trainer, back = Trainer(config, data.train, compute, **own), False
        if resume:
            trainer.restore(path)
            back = trainer.rewind(steps)
        parameters = sum(p.size for p in trainer.parameters)
        print(
            f"{trainer.config.data}: {len(data.train)} images of {' x '.join(map(str, data.image))}; a network of "
            f"{parameters:,} parameters ({trainer.config.preset}); {compute}; from step {trainer.steps_done}"
            + (", before its learning rate fell" if back else ""),
            flush=True,
        )
        if path is not None:  # what the end will need is tried before the work is done
            trainer.save(path)
            picture_seconds = picture_seconds if _can_draw() else math.inf
        report = _steps(trainer, path, steps, minutes, save_seconds, picture_seconds, stopped)
        if path is not None:
            _save_at_last(trainer, path)
        print(report, flush=True)  # when all is saved: whoever reads it may have gone
    return trainer, bool(stopped)


def _asked(data, options):
    """The Config that `options` ask for, and the objects among them, for which "own" takes their place in `options`."""
    if not isinstance(data, Data):
        raise TypeError(f"the data must be a Data, as load_data returns it, got {type(data).__name__}")
    names = {"network": "preset", "schedule": "schedule", "loss_weight": "loss_weight"}
    kinds = {"network": nn.Module, "schedule": NoiseSchedule, "loss_weight": Callable}
    own = {name: options.pop(name) for name in names if not isinstance(options.get(name, ""), str)}
    own = {name: value for name, value in own.items() if value is not None}
    for name, value in own.items():
        if not isinstance(value, kinds[name]):
            raise TypeError(f"{name} must be a name or a {kinds[name].__name__}, got {value!r}")
    options |= {names[name]: OWN for name in own}
    if "schedule" in own:
        options["T"] = own["schedule"].T
    unknown = options.keys() - {one.name for one in fields(Config)}
    if unknown:
        accepted = sorted({one.name for one in fields(Config)} | names.keys())
        raise TypeError(f"unknown options {sorted(unknown)}; there are: {', '.join(accepted)}")
    return Config.of(data, **options), own


def _can_draw():
    try:
        plots.drawing_works()
    except RuntimeError as error:
        print(f"{error}; until then there are no pictures on the way", file=sys.stderr, flush=True)
        return False
    return True


def _steps(trainer, path, steps, minutes, save_seconds, picture_seconds, stopped):
    """All steps of training, with what is written on the way, until `stopped` is no longer empty. Returns a report."""
    saved = drawn = start = time.monotonic()
    first = trainer.steps_done
    with _training_bar(trainer, steps, minutes) as show:
        for _ in trainer.run(steps, minutes):
            show()
            now = time.monotonic()
            if path is not None and now - saved > save_seconds:
                with _said("the checkpoint will be tried again later"):
                    trainer.save(path)
                saved = time.monotonic()
            if path is not None and now - drawn > picture_seconds:
                with _said("training goes on"):
                    _draw_progress(path.parent, trainer)
                drawn = time.monotonic()
            if stopped:
                break
    trainer.read_losses()
    seconds, done = time.monotonic() - start, trainer.steps_done - first
    recent = np.mean(trainer.losses[-max(1, len(trainer.losses) // 20) :]) if trainer.losses else math.nan
    rate = done * trainer.size / max(seconds, 1e-9)
    return f"step {trainer.steps_done}: loss {recent:.4f}, {rate:.0f} images/s over {seconds:.0f} s"


@contextlib.contextmanager
def _said(consequence):
    """A disk that is full or gone for a while must not end hours of training: the error is printed, not raised."""
    try:
        yield
    except OSError as error:
        print(f"\n{error}; {consequence}", file=sys.stderr, flush=True)


def _save_at_last(trainer, path):
    """Write the last checkpoint to `path`; where that fails again and again, elsewhere, and OSError says where."""
    for wait in (*PATIENCE, None):
        try:
            return trainer.save(path)
        except OSError as error:
            reason = error
        if wait is not None:
            time.sleep(wait)
    for folder in (Path.home, tempfile.gettempdir):
        with contextlib.suppress(OSError, RuntimeError):  # a user without a home, a machine without a temporary folder
            elsewhere = Path(folder()) / f"tinyddpm-step-{trainer.steps_done}.npz"
            trainer.save(elsewhere)
            raise SavedElsewhere(f"{path} cannot be written ({reason}); the run was saved as {elsewhere} instead")
    raise OSError(f"{path} cannot be written ({reason}), and neither can the home or the temporary folder") from reason


class SavedElsewhere(Exception):
    """The run is not in its folder; the message says where it is."""


@contextlib.contextmanager
def _stop_on_signal():
    """A list that is empty until SIGINT or SIGTERM comes; a second SIGINT interrupts as usual."""
    stopped, before = [], {}

    def stop(number, frame):
        stopped.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # signals can be handled in the main thread only
            before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _training_bar(trainer, steps, minutes):
    """show(), to be called after every step: a bar with the loss as last read, images/s and the time left."""
    options = {"total": steps, "initial": trainer.steps_done, "unit": "step"}
    if minutes is not None:
        bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
        options = {"total": round(60 * minutes), "unit": "s", "bar_format": bar_format}
    start, first, shown = time.monotonic(), trainer.steps_done, 0
    average, averaged = math.nan, len(trainer.losses)
    with progress(desc="training", **options) as bar:

        def show():
            nonlocal shown, average, averaged
            for loss in trainer.losses[averaged:]:
                average = loss if math.isnan(average) else 0.98 * average + 0.02 * loss
            averaged = len(trainer.losses)
            seconds = max(time.monotonic() - start, 1e-9)  # a coarse clock may not have ticked
            done = trainer.steps_done - first
            amount = done if minutes is None else min(seconds, 60 * minutes)
            bar.update(amount - shown)
            shown = amount
            rate = done * trainer.size / seconds
            bar.set_postfix_str(f"step {trainer.steps_done}, loss {average:.4f}, {rate:.0f} images/s")

        yield show


def _draw_progress(folder, trainer):
    """A grid of samples from the averaged weights, into the run's folder."""
    with trainer.averaged() as model:
        labels, steps = class_labels(trainer.config, 40), min(20, model.schedule.T)
        images = model.sample(40, labels, steps=steps, seed=1, progress=None)
    plots.save_png(folder / f"samples-{trainer.steps_done:06d}.png", plots.grid(images, 10))


def class_labels(config, n):
    """Labels 0, 1, ..., K-1, 0, 1, ... for n images; None for a model without classes."""
    return np.arange(n) % config.classes if config.classes else None
