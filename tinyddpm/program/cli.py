"""The command `tinyddpm`: train, sample, evaluate, plot, profile. It calls the library and prints.

The errors of the library say what is wrong; flags are named here and in arguments.py only.
"""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tinyddpm.program.arguments import parser

__all__ = ["main", "answered", "command_line"]


def main(argv=None):
    """Run the command; returns the exit status: 0, 1 for an error (said in one line), 2 for wrong arguments."""
    arguments = parser().parse_args(argv)
    return answered(COMMANDS[arguments.command], arguments)


def answered(command, *arguments):
    """command(*arguments), with what a user can have done wrong said in one line: the exit status, 0, 1 or 130."""
    from tinyddpm.data.images import DataError  # imported late, so that --help answers at once
    from tinyddpm.program.checkpoint import CheckpointError
    from tinyddpm.program.run import SavedElsewhere

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # None, or no text file: then it takes any character already
            stream.reconfigure(errors="backslashreplace")
    expected = (
        CheckpointError,
        DataError,
        SavedElsewhere,
        ValueError,
        OSError,
        RuntimeError,
        ArithmeticError,
        MemoryError,
    )
    try:
        return command(*arguments) or 0
    except expected as error:
        print(f"tinyddpm: error: {error}{_hint(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tinyddpm: stopped", file=sys.stderr)
        return 130


def _hint(error):
    holds_a_run = isinstance(error, FileExistsError) and error.errno is None  # not a file that lies in the way
    return "; pass --resume, or another --out" if holds_a_run else ""


def command_line(*words):
    """A command of this program as it can be pasted into a shell, also where its virtual environment is not active."""
    ours = Path(sys.executable).parent / "tinyddpm"
    found = shutil.which("tinyddpm")
    program = ["tinyddpm"] if found and os.path.samefile(found, shutil.which(ours) or sys.executable) else None
    words = [*(program or [sys.executable, "-m", "tinyddpm"]), *map(str, words)]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _compute(arguments):
    from tinyddpm.program.compute import Compute

    return Compute(arguments.device, arguments.workers, arguments.precision)


def _where(arguments):
    """The options that say where a run was and where its data are, other than the defaults: to be printed."""
    given = {name: getattr(arguments, name, None) for name in ("device", "precision", "workers", "data_dir")}
    defaults = {"device": "cpu", "precision": "fp32"}
    given = {name: value for name, value in given.items() if value not in (None, defaults.get(name))}
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]


# ==== commands ====


def _train(arguments):
    from tinyddpm.data.load import load_data
    from tinyddpm.program import run
    from tinyddpm.program.train import read

    names = ("diffusion", "preset", "schedule", "T", "prediction", "loss_weight", "min_snr_gamma")
    names += ("batch", "shard", "learning_rate", "optimiser", "fall", "seed")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    options |= {"classes": 0} if arguments.unconditional else {}
    options |= {"schedule_options": arguments.log_snr} if arguments.log_snr else {}
    before = read(arguments.out)[0] if arguments.resume else None
    if before and options.get("diffusion", before.diffusion) != before.diffusion:
        raise ValueError(f"{arguments.out} is a run of {before.diffusion} diffusion: leave --diffusion out")
    minutes = 10.0 if arguments.steps is None and arguments.minutes is None else arguments.minutes
    compute = _compute(arguments)
    name, given = (before.data, before.data_options) if before else ("mnist", {})
    given = {**given, **{name: getattr(arguments, name) for name in ("size", "fit") if getattr(arguments, name)}}
    data = load_data(arguments.data or name, arguments.data_dir, **given)
    if not before and arguments.batch and arguments.learning_rate is None:
        _say_rate(arguments.batch)
    amount = {"steps": arguments.steps, "minutes": minutes}
    _, stopped = run.train_run(
        data, compute, arguments.out, resume=arguments.resume, **amount, data_options=given, **options
    )
    print(f"saved in {arguments.out}")
    if stopped:
        amount = [word for name, value in amount.items() if value is not None for word in (f"--{name}", value)]
        again = command_line("train", "--out", arguments.out, "--resume", *amount, *_where(arguments))
        print(f"stopped; go on with: {again}")
    print(f"next: {command_line('sample', arguments.out, '--out', 'samples.png')}")


def _say_rate(batch):
    """Offer the rule of thumb for a batch larger than the default one: the rate grows as the batch's square root."""
    from tinyddpm.program.config import Config

    usual, rate = Config.batch, Config.learning_rate
    if batch > usual:
        rule = rate * (batch / usual) ** 0.5
        print(f"the learning rate is that for a batch of {usual}; by a rule of thumb: --learning-rate {rule:.2g}")


def _sample(arguments):
    import numpy as np

    from tinyddpm.data.files import write_atomically
    from tinyddpm.program import plots
    from tinyddpm.program.train import load_on

    out = Path(arguments.out)
    if out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out must end in .png or .npz, got {out}")
    if out.suffix == ".png":
        plots.drawing_works()
    with write_atomically(out) as file:  # before the work is done: a folder that cannot be written is said at once
        model = load_on(_compute(arguments), arguments.run)
        seed, labels = arguments.seed or 0, model.labels(arguments.labels, arguments.n)
        labels = model.drawn_labels(seed, np.arange(arguments.n)) if labels is None else labels
        images = model.sample(arguments.n, labels, seed=seed, **_drawing(arguments))
        if out.suffix == ".png":
            file.write(plots.png(plots.grid(images, max(1, round(arguments.n**0.5)))))
        else:
            np.savez_compressed(file, samples=images, **({} if labels is None else {"labels": labels}))
    print(f"{arguments.n} images in {out}")


def _drawing(arguments):
    """The options of `Model.sample` other than labels and seed."""
    names = ("guidance_interval", "sampler", "steps", "spacing", "batch")
    return {"guidance_scale": arguments.guidance, **{name: getattr(arguments, name) for name in names}}


def _data(arguments, config):
    from tinyddpm.data.load import load_data

    return load_data(config.data, arguments.data_dir, **config.data_options)


def _evaluate(arguments):
    from tinyddpm.program.train import load_on

    if arguments.quality or arguments.samples:
        return _judge(arguments)
    model = load_on(_compute(arguments), arguments.run)
    test = _data(arguments, model.config).test
    choices = {} if arguments.variance is None else {"variance": arguments.variance}
    choices |= {"clip": None} if arguments.no_clip else {}
    choices |= {"labels": None} if arguments.no_labels else {}
    options = {"draws": arguments.draws, "seed": arguments.seed or 0, "batch": arguments.batch}
    if arguments.flow:
        print(model.likelihood(test[: arguments.flow], **options, **choices))
    else:
        print(model.evaluate(test[: arguments.images], **options, **choices))


def _judge(arguments):
    from tinyddpm.data.files import check_folder
    from tinyddpm.program import figures, plots
    from tinyddpm.program.checkpoint import checkpoint_path
    from tinyddpm.program.judge import Judge, as_seen, read_samples
    from tinyddpm.program.train import load_on

    plots.drawing_works()
    picture = checkpoint_path(arguments.run).parent / "nearest.png"
    check_folder(picture.parent)
    samples = arguments.samples and read_samples(arguments.samples)
    model = load_on(_compute(arguments), arguments.run)
    data = _data(arguments, model.config)
    if samples:
        found = Judge(as_seen(model, data), model.compute)(samples)
    else:
        found = model.judge(data, arguments.n, arguments.labels, arguments.seed or 0, **_drawing(arguments))
    print(found)
    plots.save_figure(picture, figures.neighbours(found))
    print(picture)


def _plot(arguments):
    from tinyddpm.data.files import check_folder
    from tinyddpm.program import figures, plots
    from tinyddpm.program.checkpoint import checkpoint_path
    from tinyddpm.program.train import load_on, read

    plots.drawing_works()
    model = load_on(_compute(arguments), arguments.run)
    out = checkpoint_path(arguments.run).parent / "plots" if arguments.out is None else Path(arguments.out)
    check_folder(out)
    losses = read(arguments.run)[1].get("losses", ())
    test = _data(arguments, model.config).test
    for path in plots.save_all(out, figures.all_figures(model, test, losses, arguments.images, arguments.seed or 0)):
        print(path)


def _check(arguments):
    """Print what became of each identity; the status is 1 where one fails."""
    from tinyddpm.properties import AdapterError, check, load_adapters

    try:
        reports = [(repr(adapter), check(adapter, arguments.examples)) for adapter in load_adapters(arguments.adapter)]
    except (AdapterError, TypeError, ImportError) as error:  # ImportError: of hypothesis
        raise ValueError(str(error)) from error
    if arguments.json:
        print(json.dumps([{"adapter": name, "results": report.rows()} for name, report in reports], indent=2))
    else:
        for name, report in reports:
            print(f"{name}\n{report}")
    return 0 if all(report.passed for _, report in reports) else 1


def _profile(arguments):
    from tinyddpm.data.files import check_folder
    from tinyddpm.program import plots
    from tinyddpm.program.config import Config
    from tinyddpm.program.profile import profile_step

    if arguments.out is not None:
        if Path(arguments.out).suffix != ".png":
            raise ValueError(f"--out must end in .png, got {arguments.out}")
        plots.drawing_works()
        check_folder(Path(arguments.out).parent)

    profile_step(Config(preset=arguments.preset, batch=arguments.batch), arguments.out)


COMMANDS = {
    "train": _train,
    "sample": _sample,
    "evaluate": _evaluate,
    "plot": _plot,
    "profile": _profile,
    "check": _check,
}


if __name__ == "__main__":
    sys.exit(main())
