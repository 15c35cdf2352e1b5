"""The arguments of the command `tinyddpm`, each with its help. Next: cli.py."""

import argparse

__all__ = ["parser", "at_least"]


def parser():
    """The parser of all commands; `command` says which one was asked for."""
    from nn import PRECISIONS
    from tinyddpm.program.config import OPTIMISERS, Config
    from tinyddpm.program.diffusions import DIFFUSIONS
    from tinyddpm.program.unet import PRESETS
    from tinyddpm.samplers import SAMPLERS
    from tinyddpm.spacing import SPACINGS

    found = argparse.ArgumentParser(prog="tinyddpm", description="Denoising diffusion, from the array up.")
    commands = found.add_subparsers(required=True, metavar="command", dest="command")

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
    drawing = argparse.ArgumentParser(add_help=False)
    which = drawing.add_mutually_exclusive_group()
    which.add_argument("--labels", type=_integers, help="labels to go through in turn, e.g. 0,1,2")
    which.add_argument("--label", type=int, dest="labels", help="one label for all")
    drawing.add_argument("--guidance", type=float, help="guidance scale towards the labels (default 1.5; 1: none)")
    drawing.add_argument("--guidance-interval", type=_interval, help="LOW,HIGH: the t at which to guide (default all)")
    drawing.add_argument("--sampler", choices=SAMPLERS, help=f"(default {_defaults('default_sampler')})")
    drawing.add_argument("--steps", type=at_least(1), help=f"timesteps to visit (default {_defaults('default_steps')})")
    drawing.add_argument(
        "--spacing", choices=SPACINGS, help=f"in what they are even (default {_defaults('default_spacing')})"
    )

    default = Config()
    train = commands.add_parser("train", parents=[shared, data], help="train a model")
    train.add_argument("--out", required=True, help="folder of the run, e.g. runs/mnist")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out, exactly")
    amount = train.add_mutually_exclusive_group()
    amount.add_argument("--steps", type=at_least(0), help="train until this many steps are done in all")
    amount.add_argument("--minutes", type=float, help="train for this long (default 10)")
    train.add_argument("--data", help="mnist (default), fashion-mnist, cifar10, glyphs, auto; a .npy, a .npz, a folder")
    train.add_argument("--size", type=_size, help="HxW: make the images of a folder this large")
    train.add_argument("--fit", choices=("crop", "stretch"), help="how --size does it (default crop)")
    train.add_argument(
        "--diffusion",
        choices=DIFFUSIONS,
        help="noise in steps, or in continuous time, or bits that flip (default gaussian)",
    )
    train.add_argument("--preset", choices=PRESETS, help="size of the network (default: as images and diffusion need)")
    train.add_argument("--schedule", help=f"noise schedule (default {_defaults('default_schedule')})")
    train.add_argument("--log-snr", type=_numbers, help="HIGH,LOW: ends of the schedules fine_cosine and even_log_snr")
    train.add_argument("--timesteps", dest="T", type=at_least(1), help=f"noisy steps (default {default.T})")
    train.add_argument("--prediction", help=f"what the network predicts: {_defaults('predictions')}")
    train.add_argument("--loss-weight", help=f"of the squared error: {_defaults('loss_weights')}")
    train.add_argument("--min-snr-gamma", type=float, help=f"(default {default.min_snr_gamma})")
    train.add_argument("--unconditional", action="store_true", help="do not tell the network the labels")
    train.add_argument("--batch", type=at_least(1), help=f"images a step (default {default.batch})")
    train.add_argument(
        "--shard", type=at_least(1), help="images a core takes at a time (default: what its cache holds)"
    )
    train.add_argument("--learning-rate", type=float, help=f"(default {default.learning_rate})")
    train.add_argument("--optimiser", choices=OPTIMISERS, help=f"(default {default.optimiser})")
    train.add_argument(
        "--fall", type=float, help=f"share of the run in which the rate falls to 0 (default {default.fall})"
    )

    sample = commands.add_parser(
        "sample", parents=[run, shared, batch, drawing], help="draw images with a trained model"
    )
    sample.add_argument("--out", required=True, help="x.png for a grid, or x.npz for arrays `samples` and `labels`")
    sample.add_argument("--n", type=at_least(1), default=64, help="how many (default 64)")

    parents = [run, shared, data, batch, drawing]
    evaluate = commands.add_parser("evaluate", parents=parents, help="the bound on test images, or judge samples")
    evaluate.add_argument("--images", type=at_least(2), default=1000, help="test images at most (default 1000)")
    evaluate.add_argument("--draws", type=at_least(1), default=4, help="timesteps drawn for each image (default 4)")
    evaluate.add_argument("--variance", choices=("beta_tilde", "beta"), help="sigma_t^2 (default beta_tilde)")
    evaluate.add_argument("--no-labels", action="store_true", help="do not tell the network the labels of the images")
    evaluate.add_argument(
        "--flow", type=at_least(2), help="the likelihood by the probability flow too, on so many images"
    )
    evaluate.add_argument("--no-clip", action="store_true", help="do not clip x0_hat to [-1, 1]")
    evaluate.add_argument("--quality", action="store_true", help="in place of the bound, draw samples and judge them")
    evaluate.add_argument("--n", type=at_least(4), default=1000, help="samples to judge (default 1000)")
    evaluate.add_argument("--samples", help="judge the samples in this .npz of `tinyddpm sample`, instead of new ones")

    plot = commands.add_parser("plot", parents=[run, shared, data], help="draw the figures of a run")
    plot.add_argument("--out", help="where to draw (default: plots/ in the run's folder)")
    plot.add_argument("--images", type=at_least(2), default=500, help="test images at most (default 500)")

    check = commands.add_parser("check", help="the identities of the diffusion, on anyone's code")
    check.add_argument("adapter", metavar="package.module:factory", help="what returns an Adapter, or several")
    check.add_argument("--json", action="store_true", help="print JSON in place of a table")
    check.add_argument("--examples", type=at_least(1), default=100, help="for each identity (default 100)")

    profile = commands.add_parser("profile", help="where the time of a training step goes, op by op")
    profile.add_argument("--preset", choices=PRESETS, default="small", help="size of the network")
    profile.add_argument("--batch", type=at_least(1), default=default.batch, help=f"(default {default.batch})")
    profile.add_argument("--out", help="a .png to draw the times into")
    return found


def _defaults(attribute):
    """What the first diffusion accepts or takes by default, in words, and each other one that differs from it."""
    from tinyddpm.program.diffusions import DIFFUSIONS

    found = {name: getattr(diffusion, attribute) for name, diffusion in DIFFUSIONS.items()}
    words = {name: " or ".join(value) if isinstance(value, tuple) else value for name, value in found.items()}
    first = next(iter(words.values()))
    return "; ".join([str(first), *(f"{value} for {name}" for name, value in words.items() if value != first)])


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


def _numbers(text):
    try:
        high, low = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be two numbers with a comma between, like 13.3,-5, got {text!r}"
        ) from None
    return {"high": high, "low": low}


def _interval(text):
    found = _integers(text)
    if len(found) != 2:
        raise argparse.ArgumentTypeError(f"must be two integers with a comma between, like 300,700, got {text!r}")
    return found


def _size(text):
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be two integers with an x between, like 28x28, got {text!r}") from None
    return height, width
