"""The command `tinyddpm`: train, sample, evaluate, plot, profile. Only arguments are handled here; run.py does the work."""

import argparse
import sys
from dataclasses import replace

__all__ = ["main"]


def main(argv=None):
    """Run the command; returns the exit status: 0, 1 for an error (said in one line), 2 for wrong arguments."""
    arguments = _parser().parse_args(argv)
    from tinyddpm.data.images import DataError
    from tinyddpm.program.checkpoint import CheckpointError  # imported late, so that --help answers at once

    try:
        arguments.command(arguments)
    except (CheckpointError, DataError, ValueError, OSError, RuntimeError, FloatingPointError, MemoryError) as error:
        print(f"tinyddpm: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser():
    from nn import PRECISIONS
    from tinyddpm.program.diffusions import PROCESSES
    from tinyddpm.program.train import TrainConfig
    from tinyddpm.program.unet import PRESETS
    from tinyddpm.reverse import SAMPLERS
    from tinyddpm.schedule import SCHEDULES

    parser = argparse.ArgumentParser(prog="tinyddpm", description="Denoising diffusion, from the array up.")
    commands = parser.add_subparsers(required=True, metavar="command")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="where to compute")
    shared.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of matrix products on a GPU; all else is float32 (default fp32)",
    )
    shared.add_argument("--workers", type=_positive, help="processes on the CPU (default: one for every core)")
    shared.add_argument("--seed", type=int, default=None, help="of everything random (default 0)")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data-dir", help="directory with the four MNIST files (default: $TINYDDPM_DATA, cache, download)"
    )

    default = TrainConfig()
    train = commands.add_parser("train", parents=[shared, data], help="train a model")
    train.set_defaults(command=_train)
    train.add_argument("--out", required=True, help="directory of the run, e.g. runs/mnist")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out, exactly")
    amount = train.add_mutually_exclusive_group()
    amount.add_argument("--steps", type=_positive, help="train until this many steps are done in all")
    amount.add_argument("--minutes", type=float, help="train for this long (default 10)")
    train.add_argument("--data", choices=("auto", "mnist", "glyphs"), help="data set (default mnist)")
    train.add_argument(
        "--diffusion",
        choices=PROCESSES,
        help=f"noise on grey levels, or bits that flip (default {default.model.diffusion})",
    )
    train.add_argument("--preset", choices=PRESETS, help=f"size of the network (default {default.model.preset})")
    train.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="noise schedule (default "
        + ", ".join(f"{process.default_schedule} for {name}" for name, process in PROCESSES.items())
        + ")",
    )
    train.add_argument("--timesteps", type=_positive, help=f"T, the number of noisy steps (default {default.model.T})")
    train.add_argument(
        "--prediction",
        help="what the network predicts (the first is the default): "
        + ", ".join(f"{' or '.join(process.predictions)} for {name}" for name, process in PROCESSES.items()),
    )
    train.add_argument("--unconditional", action="store_true", help="do not tell the network the labels")
    train.add_argument("--batch", type=_positive, help=f"images a step (default {default.batch})")
    train.add_argument("--learning-rate", type=float, help=f"(default {default.learning_rate})")
    train.add_argument("--decay-steps", type=int, help="step at which the learning rate reaches 0 (default: constant)")

    sample = commands.add_parser("sample", parents=[shared], help="draw images with a trained model")
    sample.set_defaults(command=_sample)
    sample.add_argument("run", help="directory of the run")
    sample.add_argument("--out", required=True, help="x.png for a grid, or x.npz for arrays `samples` and `labels`")
    sample.add_argument("--n", type=_positive, default=64, help="how many (default 64)")
    which = sample.add_mutually_exclusive_group()
    which.add_argument("--labels", type=_integers, help="labels to go through in turn, e.g. 0,1,2")
    which.add_argument("--label", type=int, help="one label for all")
    sample.add_argument(
        "--guidance", type=float, default=1.0, help="guidance scale towards the labels (default 1: plain)"
    )
    sample.add_argument("--sampler", choices=SAMPLERS, default="ancestral", help="(default ancestral)")
    sample.add_argument("--steps", type=_positive, help="timesteps to visit (default 100)")
    sample.add_argument("--batch", type=_positive, default=128, help="images drawn at a time (default 128)")

    evaluate = commands.add_parser("evaluate", parents=[shared, data], help="the bound on test images, in bits/dim")
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("run", help="directory of the run")
    evaluate.add_argument("--images", type=_positive, default=1000, help="test images (default 1000)")
    evaluate.add_argument("--draws", type=_positive, default=4, help="timesteps drawn for each image (default 4)")
    evaluate.add_argument("--variance", choices=("beta_tilde", "beta"), help="sigma_t^2 (default beta_tilde)")
    evaluate.add_argument("--batch", type=_positive, default=128, help="images at a time (default 128)")
    evaluate.add_argument("--no-clip", action="store_true", help="do not clip x0_hat to [-1, 1]")

    plot = commands.add_parser("plot", parents=[shared, data], help="draw the figures of a run")
    plot.set_defaults(command=_plot)
    plot.add_argument("run", help="directory of the run")
    plot.add_argument("--out", help="where to draw (default: plots/ in the run)")

    profile = commands.add_parser("profile", help="where the time of a training step goes, op by op")
    profile.set_defaults(command=_profile)
    profile.add_argument("--preset", choices=PRESETS, default=default.model.preset, help="size of the network")
    profile.add_argument("--batch", type=_positive, default=default.batch, help=f"(default {default.batch})")
    profile.add_argument("--out", help="a .png to draw the times into")
    return parser


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _integers(text):
    return [int(part) for part in text.split(",")]


def _train(arguments):
    from tinyddpm.program import run

    config = _configuration(arguments)
    minutes = arguments.minutes
    if arguments.steps is None and minutes is None:
        minutes = 10.0
    run.train_run(
        arguments.out,
        config,
        arguments.steps,
        minutes,
        arguments.resume,
        arguments.device,
        arguments.data_dir,
        arguments.workers,
        arguments.precision,
    )
    print(f"next: tinyddpm sample {arguments.out} --out samples.png")


def _configuration(arguments):
    """What was asked for, over the defaults; when resuming, over the configuration of the run."""
    from tinyddpm.program.model import ModelConfig
    from tinyddpm.program.run import run_config
    from tinyddpm.program.train import TrainConfig

    asked = {
        "data": arguments.data,
        "batch": arguments.batch,
        "learning_rate": arguments.learning_rate,
        "decay_steps": arguments.decay_steps,
        "seed": arguments.seed,
    }
    asked_model = {
        "diffusion": arguments.diffusion,
        "preset": arguments.preset,
        "schedule": arguments.schedule,
        "T": arguments.timesteps,
        "prediction": arguments.prediction,
        "classes": 0 if arguments.unconditional else None,
        "seed": arguments.seed,
    }
    if arguments.resume:
        before = run_config(arguments.out)
        if arguments.diffusion not in (None, before.model.diffusion):
            raise ValueError(
                f"{arguments.out} is a run of {before.model.diffusion} diffusion: leave --diffusion out, or "
                "take another --out"
            )
    else:
        before = TrainConfig(ModelConfig(**_given({"diffusion": arguments.diffusion})))  # with the defaults of that one
    return replace(before, model=replace(before.model, **_given(asked_model)), **_given(asked))


def _given(options):
    return {key: value for key, value in options.items() if value is not None}


def _sample(arguments):
    from tinyddpm.program import run

    labels = arguments.labels if arguments.label is None else [arguments.label]
    run.sample_run(
        arguments.run,
        arguments.out,
        arguments.n,
        labels,
        arguments.guidance,
        arguments.sampler,
        arguments.steps,
        arguments.seed or 0,
        arguments.device,
        arguments.workers,
        arguments.precision,
        arguments.batch,
    )


def _evaluate(arguments):
    from tinyddpm.program import run

    run.evaluate_run(
        arguments.run,
        arguments.images,
        arguments.draws,
        arguments.variance,
        False if arguments.no_clip else None,
        arguments.seed or 0,
        arguments.device,
        arguments.data_dir,
        arguments.workers,
        arguments.precision,
        arguments.batch,
    )


def _plot(arguments):
    from tinyddpm.program import run

    for path in run.plot_run(
        arguments.run,
        arguments.out,
        arguments.device,
        arguments.data_dir,
        seed=arguments.seed or 0,
        workers=arguments.workers,
        precision=arguments.precision,
    ):
        print(path)


def _profile(arguments):
    from tinyddpm.program.model import ModelConfig
    from tinyddpm.program.profile import profile_step
    from tinyddpm.program.train import TrainConfig

    profile_step(TrainConfig(ModelConfig(preset=arguments.preset), batch=arguments.batch), arguments.out)


if __name__ == "__main__":
    sys.exit(main())
