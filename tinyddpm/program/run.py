"""Runs: a directory with one checkpoint and its pictures, and what the commands do with it. Next: cli.py."""

import contextlib
import math
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import nn
from tinyddpm.data import images as data
from tinyddpm.data.files import write_atomically
from tinyddpm.data.progress import progress
from tinyddpm.program import checkpoint, plots
from tinyddpm.program.evaluate import evaluate, loss_per_timestep
from tinyddpm.program.train import Trainer, load_config, load_model
from tinyddpm.schedule import SCHEDULES

__all__ = ["train_run", "sample_run", "evaluate_run", "plot_run", "checkpoint_path", "run_config", "class_labels"]

SAMPLE_STEPS = 100  # of the pictures drawn along the way and by `plot`: a tenth of T, hard to tell from all of it
STRIP = 10  # images in a strip


def checkpoint_path(run):
    """Where the run in directory `run` keeps its state."""
    return Path(run) / "checkpoint.npz"


def run_config(run):
    """The TrainConfig of the run in directory `run`. CheckpointError if it is not of this program."""
    return load_config(checkpoint_path(run))


def train_run(
    run,
    config,
    steps=None,
    minutes=None,
    resume=False,
    device="cpu",
    data_dir=None,
    workers=None,
    precision="fp32",
    save_seconds=60.0,
    picture_seconds=150.0,
):
    """Train in the directory `run` until `steps` steps are done in all or `minutes` have passed; returns the Trainer.

    Saves every `save_seconds` and at the end, draws a grid of samples every `picture_seconds`. On Ctrl-C or SIGTERM
    it finishes the step, saves, and says how to go on. FileExistsError if `run` holds a run and resume is False.
    """
    path = checkpoint_path(run)
    if path.exists() and not resume:
        raise FileExistsError(f"{path} exists: pass --resume to go on with that run, or another --out")
    xp = _chosen(device)
    nn.check_precision(precision, xp)  # before any data are fetched
    dataset = data.load(config.data, "train", data_dir)
    config = replace(config, data=dataset.name)  # "auto" becomes what it found
    trainer = Trainer(config, dataset.images, dataset.labels, xp, workers, precision)
    if resume:
        trainer.restore(path)
    parameters = sum(p.size for p in trainer.parameters)
    print(
        f"{dataset.name}: {len(dataset.images)} images; {config.model.preset} U-Net of {parameters:,} parameters on "
        f"{xp.__name__} in {precision}, {trainer.model.parallel.workers} workers; from step {trainer.steps_done}",
        flush=True,
    )

    start, first, saved, drawn = time.monotonic(), trainer.steps_done, time.monotonic(), time.monotonic()
    with _stop_on_signal() as stopped, _training_bar(trainer, steps, minutes) as show:
        for _ in trainer.run(steps, minutes):
            show()
            now = time.monotonic()
            if now - saved > save_seconds:
                trainer.save(path)
                saved = time.monotonic()
            if now - drawn > picture_seconds:
                _draw_progress(run, trainer)
                drawn = time.monotonic()
            if stopped:
                break
    trainer.save(path)
    seconds = time.monotonic() - start
    done = trainer.steps_done - first
    recent = np.mean(trainer.losses[-max(1, len(trainer.losses) // 20) :]) if trainer.losses else float("nan")
    print(
        f"step {trainer.steps_done}: loss {recent:.4f}, {done * config.batch / max(seconds, 1e-9):.0f} images/s "
        f"over {seconds:.0f} s; saved {path}"
    )
    if stopped:
        print(
            f"stopped; go on with: tinyddpm train --out {run} --resume "
            + _amount(steps, minutes)
            + _where(device, precision)
        )
    return trainer


def _chosen(device):
    """The array module of `device`; for "auto", says which it is."""
    xp = nn.choose_device(device)
    if device == "auto":
        print("--device auto took " + ("the CPU" if xp is np else f"the GPU (CuPy {xp.__version__})"), flush=True)
    return xp


def _amount(steps, minutes):
    return f"--steps {steps}" if minutes is None else f"--minutes {minutes:g}"


def _where(device, precision):
    """The options that say where a run was, other than the defaults."""
    return "".join(
        f" --{name} {value}"
        for name, value, default in (("device", device, "cpu"), ("precision", precision, "fp32"))
        if value != default
    )


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
        options = {
            "total": round(60 * minutes),
            "unit": "s",
            "bar_format": "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}",
        }
    start, first, shown = time.monotonic(), trainer.steps_done, 0
    average, averaged = math.nan, len(trainer.losses)
    with progress(desc="training", **options) as bar:

        def show():
            nonlocal shown, average, averaged
            for loss in trainer.losses[averaged:]:
                average = loss if math.isnan(average) else 0.98 * average + 0.02 * loss
            averaged = len(trainer.losses)
            seconds = time.monotonic() - start
            done = trainer.steps_done - first
            amount = done if minutes is None else min(seconds, 60 * minutes)
            bar.update(amount - shown)
            shown = amount
            rate = done * trainer.config.batch / seconds
            bar.set_postfix_str(f"step {trainer.steps_done}, loss {average:.4f}, {rate:.0f} images/s")

        yield show


def _draw_progress(run, trainer):
    """A grid of samples from the averaged weights, into `run`; nothing where Pillow is missing."""
    model, labels = trainer.model, class_labels(trainer.config.model, 40)
    trainer.ema.swap()
    model.network.eval()
    try:
        images = model.generate(
            40, labels, sampler=model.process.sampler_for_few_steps, steps=min(25, model.config.T), seed=1
        )
    finally:
        model.network.train()
        trainer.ema.swap()
    try:
        plots.save_png(Path(run) / f"samples-{trainer.steps_done:06d}.png", plots.grid(images, 10))
    except RuntimeError as error:  # Pillow is an extra
        print(error, file=sys.stderr)


def class_labels(config, n):
    """Labels 0, 1, ..., K-1, 0, 1, ... for n images; None for a model without classes."""
    return np.arange(n) % config.classes if config.classes else None


def sample_run(
    run,
    out,
    n=64,
    labels=None,
    guidance_scale=1.0,
    sampler="ancestral",
    steps=None,
    seed=0,
    device="cpu",
    workers=None,
    precision="fp32",
    batch=128,
):
    """Draw n images with the model of a run into `out`: a .png grid, or a .npz with `samples` and, if any, `labels`.

    labels: a sequence of labels to go through in turn, or None. steps: timesteps to visit, by default SAMPLE_STEPS or
    all T if those are fewer. ValueError for another ending of `out`.
    """
    out = Path(out)
    if out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out must end in .png or .npz, got {out}")
    model, _ = load_model(checkpoint_path(run), _chosen(device), workers, precision=precision)
    chosen = None if labels is None else np.resize(np.asarray(labels, dtype=np.int64), n)
    if chosen is not None and model.config.classes and not (0 <= chosen.min() and chosen.max() < model.config.classes):
        raise ValueError(f"labels must be in 0..{model.config.classes - 1}, got {chosen.min()}..{chosen.max()}")
    steps = min(SAMPLE_STEPS, model.config.T) if steps is None else steps
    images = model.generate(
        n,
        chosen,
        guidance_scale,
        sampler,
        steps,
        seed,
        batch,
        progress=lambda it, **options: progress(it, desc="sampling", **options),
    )
    if out.suffix == ".png":
        plots.save_png(out, plots.grid(images, max(1, round(n**0.5))))
    else:
        with write_atomically(out) as file:
            np.savez_compressed(file, samples=images, **({} if chosen is None else {"labels": chosen}))
    print(f"{n} images in {out}")
    return images


def evaluate_run(
    run,
    images=1000,
    draws=4,
    variance=None,
    clip=None,
    seed=0,
    device="cpu",
    data_dir=None,
    workers=None,
    precision="fp32",
    batch=128,
):
    """Print and return the bound of a run's model, in bits/dim, on the first `images` test images.

    variance, clip: as the `bound` of the model's process; ValueError if it has no such choice.
    """
    model, config = load_model(checkpoint_path(run), _chosen(device), workers, precision=precision)
    dataset = data.load(config.data, "test", data_dir)
    if not 2 <= images <= len(dataset.images):
        raise ValueError(f"--images must be in 2..{len(dataset.images)}, got {images}")
    result = evaluate(
        model,
        dataset.images[:images],
        draws=draws,
        variance=variance,
        clip=clip,
        seed=seed,
        batch=batch,
        progress=lambda batches: progress(batches, desc="evaluating"),
    )
    print(
        f"bits/dim on {images} test images of {dataset.name}, {draws} timesteps each; no label given to the network;\n"
        f"{result.settings}\n"
        f"  L_T        {result.prior:.6f}   (prior)\n"
        f"  L_1:T-1    {result.denoising:.4f}     (denoising)\n"
        f"  L_0        {result.reconstruction:.4f}     (reconstruction)\n"
        f"  sum        {result.total:.4f} +- {result.standard_error:.4f}"
    )
    return result


def plot_run(run, out=None, device="cpu", data_dir=None, images=500, seed=0, workers=None, precision="fp32"):
    """Draw every figure of a run into `out` (default: run/plots); returns the paths."""
    out = Path(run) / "plots" if out is None else Path(out)
    model, config = load_model(checkpoint_path(run), _chosen(device), workers, precision=precision)
    losses = checkpoint.load(checkpoint_path(run))[0]["losses"]
    test = data.load(config.data, "test", data_dir)
    bar = lambda it, **options: progress(it, **{"desc": "drawing", **options})  # noqa: E731

    if len(losses):
        plots.loss_curve(out / "loss.png", losses, config.batch, model.process.loss_name)
    plots.schedule_curves(
        out / "schedules.png", {n: make(model.config.T) for n, make in SCHEDULES.items()}, model.config.schedule
    )
    _draw_digits(out, model, test, seed, bar)
    _draw_chains(out, model, test, seed, bar)
    few = test.images[: min(images, len(test.images))]
    t, loss = loss_per_timestep(model, few[:256], progress=bar)
    plots.loss_by_timestep(out / "loss_per_t.png", t, loss, model.process.simple_loss_name)
    plots.bound_terms(out / "bound.png", evaluate(model, few, progress=bar))
    return sorted(out.glob("*.png")) + sorted(out.glob("*.gif"))


def _draw_digits(out, model, test, seed, bar):
    """Real images beside generated ones, eight of each class in a row."""
    classes, each = model.config.classes, 8
    steps = min(SAMPLE_STEPS, model.config.T)
    if classes:
        rows = [np.flatnonzero(test.labels == k)[:each] for k in range(classes)]
        labels = np.repeat(np.arange(classes), each)
        real = test.images[np.concatenate(rows)]
    else:
        labels, real = None, test.images[:80]
    generated = model.generate(len(real), labels, steps=steps, seed=seed, progress=bar)
    real = model.pictures(model.process.data(real))  # as the model sees them
    plots.real_and_generated(out / "digits.png", real, generated, each)


def _draw_chains(out, model, test, seed, bar):
    """The forward strip; the reverse and the x_0-prediction strips and a GIF, all of one chain."""
    process, T = model.process, model.config.T
    shown = np.unique(np.linspace(1, T, min(STRIP, T)).round().astype(int))
    x0 = process.data(nn.to_device(test.images[:3], model.xp))
    noise = model.noise(seed, "forward strip", 0, np.arange(3))
    forward = [model.pictures(process.q_sample(x0, int(t), noise)) for t in [0, *shown]]
    plots.strip(out / "forward.png", np.stack(forward, 1), [0, *shown], "forward: q(x_t | x_0)")

    steps = min(SAMPLE_STEPS, T)
    respaced = model.schedule.respace(steps)
    labels = class_labels(model.config, 30)
    frames = sorted(set(range(1, steps + 1)), reverse=True)
    images, states = model.generate(30, labels, steps=steps, seed=seed + 1, progress=bar, keep=frames)
    columns = np.unique(np.linspace(1, steps, min(STRIP, steps)).round().astype(int))[::-1]
    times = [int(respaced.timesteps[i]) for i in columns]
    for name, which, title in (
        ("reverse", 0, "reverse: x_t, from noise to digit"),
        ("x0_prediction", 1, "the network's guess of x_0 at each t"),
    ):
        rows = np.stack([states[i][which][:4] for i in columns] + [images[:4]], axis=1)
        plots.strip(out / f"{name}.png", rows, [*times, 0], title)
    pictures = [plots.grid(states[i][0], 10) for i in frames[:: max(1, steps // 40)]]
    plots.save_gif(out / "denoising.gif", [*pictures, plots.grid(images, 10)])
