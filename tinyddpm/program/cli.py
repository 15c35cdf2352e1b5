"""The command `tinyddpm`: train, sample, evaluate, plot, profile. It reads arguments, calls the library and prints.

The errors of the library say what is wrong; flags are named here only.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["main", "answered", "command_line", "at_least"]


def main(argv=None):
    """Run the command; returns the exit status: 0, 1 for an error (said in one line), 2 for wrong arguments."""
    arguments = _parser().parse_args(argv)
    return answered(arguments.command, arguments)


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
        command(*arguments)
    except expected as error:
        print(f"tinyddpm: error: {error}{_hint(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tinyddpm: stopped", file=sys.stderr)
        return 130
    return 0


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


# ==== arguments ====


def _parser():
    from nn import PRECISIONS
    from tinyddpm.program.config import Config
    from tinyddpm.program.diffusions import DIFFUSIONS
    from tinyddpm.program.unet import PRESETS
    from tinyddpm.samplers import SAMPLERS

    parser = argparse.ArgumentParser(prog="tinyddpm", description="Denoising diffusion, from the array up.")
    commands = parser.add_subparsers(required=True, metavar="command")

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="where to compute")
    shared.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of matrix products on a GPU")
    shared.add_argument("--workers", type=at_least(1), help="processes on the CPU (default: one for every core)")
    shared.add_argument("--seed", type=int, help="of everything random (default 0)")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data-dir", help="where the data set's files are (default: $TINYDDPM_DATA, cache, download)")
    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("run", help="folder of a run, or a file of a saved model")
    batch = argparse.ArgumentParser(add_help=False)
    batch.add_argument("--batch", type=at_least(1), default=128, help="images at a time (default 128)")

    default = Config()
    train = commands.add_parser("train", parents=[shared, data], help="train a model")
    train.set_defaults(command=_train)
    train.add_argument("--out", required=True, help="folder of the run, e.g. runs/mnist")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out, exactly")
    amount = train.add_mutually_exclusive_group()
    amount.add_argument("--steps", type=at_least(0), help="train until this many steps are done in all")
    amount.add_argument("--minutes", type=float, help="train for this long (default 10)")
    train.add_argument("--data", help="mnist (default), fashion-mnist, cifar10, glyphs, auto; a .npy, a .npz, a folder")
    train.add_argument("--size", type=_size, help="HxW: make the images of a folder this large")
    train.add_argument("--fit", choices=("crop", "stretch"), help="how --size does it (default crop)")
    train.add_argument("--diffusion", choices=DIFFUSIONS, help="noise on levels, or bits that flip (default gaussian)")
    train.add_argument("--preset", choices=PRESETS, help="size of the network (default: the one that fits the images)")
    train.add_argument("--schedule", help=f"noise schedule (default {_defaults('default_schedule')})")
    train.add_argument("--timesteps", dest="T", type=at_least(1), help=f"noisy steps (default {default.T})")
    train.add_argument("--prediction", help=f"what the network predicts: {_defaults('predictions')}")
    train.add_argument("--loss-weight", help=f"of the squared error: {_defaults('loss_weights')}")
    train.add_argument("--min-snr-gamma", type=float, help=f"(default {default.min_snr_gamma})")
    train.add_argument("--unconditional", action="store_true", help="do not tell the network the labels")
    train.add_argument("--batch", type=at_least(1), help=f"images a step (default {default.batch})")
    train.add_argument("--learning-rate", type=float, help=f"(default {default.learning_rate})")
    train.add_argument("--decay-steps", type=at_least(0), help="step at which the rate reaches 0 (default: constant)")

    sample = commands.add_parser("sample", parents=[run, shared, batch], help="draw images with a trained model")
    sample.set_defaults(command=_sample)
    sample.add_argument("--out", required=True, help="x.png for a grid, or x.npz for arrays `samples` and `labels`")
    sample.add_argument("--n", type=at_least(1), default=64, help="how many (default 64)")
    which = sample.add_mutually_exclusive_group()
    which.add_argument("--labels", type=_integers, help="labels to go through in turn, e.g. 0,1,2")
    which.add_argument("--label", type=int, dest="labels", help="one label for all")
    sample.add_argument("--guidance", type=float, default=1.0, help="guidance scale towards the labels (default 1)")
    sample.add_argument("--sampler", choices=SAMPLERS, default="ancestral", help="(default ancestral)")
    sample.add_argument("--steps", type=at_least(1), help="timesteps to visit (default 100)")

    evaluate = commands.add_parser("evaluate", parents=[run, shared, data, batch], help="the bound on test images")
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("--images", type=at_least(2), default=1000, help="test images at most (default 1000)")
    evaluate.add_argument("--draws", type=at_least(1), default=4, help="timesteps drawn for each image (default 4)")
    evaluate.add_argument("--variance", choices=("beta_tilde", "beta"), help="sigma_t^2 (default beta_tilde)")
    evaluate.add_argument("--no-clip", action="store_true", help="do not clip x0_hat to [-1, 1]")

    plot = commands.add_parser("plot", parents=[run, shared, data], help="draw the figures of a run")
    plot.set_defaults(command=_plot)
    plot.add_argument("--out", help="where to draw (default: plots/ in the run's folder)")
    plot.add_argument("--images", type=at_least(2), default=500, help="test images at most (default 500)")

    profile = commands.add_parser("profile", help="where the time of a training step goes, op by op")
    profile.set_defaults(command=_profile)
    profile.add_argument("--preset", choices=PRESETS, default="small", help="size of the network")
    profile.add_argument("--batch", type=at_least(1), default=default.batch, help=f"(default {default.batch})")
    profile.add_argument("--out", help="a .png to draw the times into")
    return parser


def _defaults(attribute):
    """What each diffusion accepts or takes by default, in words."""
    from tinyddpm.program.diffusions import DIFFUSIONS

    found = {name: getattr(diffusion, attribute) for name, diffusion in DIFFUSIONS.items()}
    words = {name: value if isinstance(value, str) else " or ".join(value) for name, value in found.items()}
    return ", ".join(f"{value} for {name}" for name, value in words.items())


def at_least(low):
    """The type of an argument that is an integer of at least `low`."""

    def integer(text):
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, got {value}")
        return value

    return integer


def _integers(text):
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be integers with commas between, like 0,1,2, got {text!r}") from None


def _size(text):
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be two integers with an x between, like 28x28, got {text!r}") from None
    return height, width


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
    names += ("batch", "learning_rate", "decay_steps", "seed")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    options |= {"classes": 0} if arguments.unconditional else {}
    before = read(arguments.out)[0] if arguments.resume else None
    if before and options.get("diffusion", before.diffusion) != before.diffusion:
        raise ValueError(f"{arguments.out} is a run of {before.diffusion} diffusion: leave --diffusion out")
    minutes = 10.0 if arguments.steps is None and arguments.minutes is None else arguments.minutes
    compute = _compute(arguments)
    name, given = (before.data, before.data_options) if before else ("mnist", {})
    given = {**given, **{name: getattr(arguments, name) for name in ("size", "fit") if getattr(arguments, name)}}
    data = load_data(arguments.data or name, arguments.data_dir, **given)
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
        labels = model.labels(arguments.labels, arguments.n)
        options = {"guidance_scale": arguments.guidance, "sampler": arguments.sampler, "steps": arguments.steps}
        images = model.sample(arguments.n, labels, seed=arguments.seed or 0, batch=arguments.batch, **options)
        if out.suffix == ".png":
            file.write(plots.png(plots.grid(images, max(1, round(arguments.n**0.5)))))
        else:
            np.savez_compressed(file, samples=images, **({} if labels is None else {"labels": labels}))
    print(f"{arguments.n} images in {out}")


def _test_images(arguments, config):
    from tinyddpm.data.load import load_data

    return load_data(config.data, arguments.data_dir, **config.data_options).test


def _evaluate(arguments):
    from tinyddpm.program.train import load_on

    model = load_on(_compute(arguments), arguments.run)
    test = _test_images(arguments, model.config)
    choices = {} if arguments.variance is None else {"variance": arguments.variance}
    choices |= {"clip": None} if arguments.no_clip else {}
    options = {"draws": arguments.draws, "seed": arguments.seed or 0, "batch": arguments.batch}
    print(model.evaluate(test[: arguments.images], **options, **choices))


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
    test = _test_images(arguments, model.config)
    for path in plots.save_all(out, figures.all_figures(model, test, losses, arguments.images, arguments.seed or 0)):
        print(path)


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


if __name__ == "__main__":
    sys.exit(main())
