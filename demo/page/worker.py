"""What Python does in the page: each task is a generator of dicts of numbers, texts and flat arrays, drawn as they come.

Everything computed here is the project's own; this file only chooses what to compute, and in which pieces, so that the
page can be drawn and the task stopped between two of them.
"""

import functools
import math
import platform
import time
import traceback
from pathlib import Path

import numpy as np
import points

import tinyddpm as td
from tinyddpm.data import glyphs
from tinyddpm.data.images import Data, Dataset
from tinyddpm.program.train import Trainer

HERE = Path(__file__).parent
BITS = math.log(2)


def start(task, options):
    """The generator of a task by name."""
    return TASKS[task](**options)


@functools.cache
def model():
    """The trained model that the page came with."""
    return td.load(HERE / "digits.npz", workers=1)


def about():
    """What the page has to know before anything is asked of it: names, sizes, examples, and tables of the schedule."""
    images = np.load(HERE / "examples.npy")
    return {
        "T": model().schedule.T,
        "size": images.shape[1],
        "classes": model().config.classes,
        "examples": images.ravel(),
        "alpha_bar": model().schedule.alpha_bar,
        "log_snr": model().schedule.log_snr,
        "schedules": list(td.SCHEDULES),
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, tinyddpm {td.__version__}",
    }


def shown(x):
    """x_t or x0_hat as flat grey levels."""
    return model().pictures(x).ravel()


# ==== scrub: one image, noised to t ====


def scrub(image, t, seed):
    """x_t of an image, and what the network makes of it."""
    x0, noise = _image_and_noise(image, seed)
    xt = td.q_sample(model().schedule, x0, t, noise)
    yield {"xt": shown(xt)}
    if t > 0:
        x0_hat = model().denoiser()(xt, t)
        loss = model().diffusion.simple_loss(x0, xt, t, noise, x0_hat)
        yield {"x0_hat": shown(x0_hat), "loss": float(loss[0])}


def terms(image, seed, points=24):
    """The loss and the term of the bound at some t: one draw of noise each. Close to T nothing is left to see of x_0."""
    x0, noise = _image_and_noise(image, seed)
    denoise, bound = model().denoiser(), model().diffusion.bound()
    for t in np.unique(np.geomspace(1, 0.95 * model().schedule.T, points).round().astype(int)).tolist():
        xt = td.q_sample(model().schedule, x0, t, noise)
        loss = model().diffusion.simple_loss(x0, xt, t, noise, denoise(xt, t))
        nats = bound.denoising(denoise, x0, t, noise) if t > 1 else bound.reconstruction(denoise, x0, noise)
        yield {"t": t, "loss": float(loss[0]), "bits": float(nats[0]) / x0.size / BITS}


def _image_and_noise(image, seed):
    height, width, _ = model().config.image
    x0 = model().x0(np.array(image, dtype=np.uint8).reshape(1, height, width))
    return x0, model().noise(seed, "scrub", 0, np.arange(1))


# ==== sample: the chain of the trained model ====


def sample(n, label, seed, steps, sampler, guidance):
    """The reverse process of n images, step by step, and last what the command line would have drawn. label: -1 for any."""
    labels = model().labels(label, n) if label >= 0 else None
    began = time.perf_counter()
    for t, xt, x0_hat in model().chain(np.arange(n), labels, guidance, sampler, steps, seed):
        yield {"t": t, "xt": shown(xt), "x0_hat": shown(x0_hat), "seconds": time.perf_counter() - began}


# ==== train: digits ====

NETWORK = {"width": 8, "multipliers": (1, 2), "groups": 4, "attention": False}
_trainer = None  # the Trainer of the digits, kept so that training can go on


@functools.cache
def glyphs_at_half_size():
    images, labels = glyphs.draw(2000, seed=0)
    images = images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).round().astype(np.uint8)
    return Data("glyphs at 14x14", Dataset(images[:-50], labels[:-50]), Dataset(images[-50:], labels[-50:]))


def train_digits(fresh, schedule, prediction, every=20):
    """Steps of training on digits drawn here; every so often ten samples of the averaged weights, as they are made."""
    global _trainer
    data = glyphs_at_half_size()
    options = {"schedule": schedule, "prediction": prediction, "T": 200, "batch": 16, "preset": "tiny", "unet": NETWORK}
    options |= {"warmup_steps": 20, "learning_rate": 4e-3, "ema_decay": 0.97}
    before, _trainer = _trainer, Trainer(td.Config.of(data, **options), data.train, td.Compute(workers=1))
    if before is not None and not fresh:
        _trainer.network.load_state_dict(before.network.state_dict())
    while True:
        began = time.perf_counter()
        loss = float(_trainer.step())
        yield {"loss": loss, "seconds": time.perf_counter() - began}
        if _trainer.steps_done % every == 0:
            with _trainer.averaged() as trained:
                chain = trained.chain(np.arange(10), np.arange(10), sampler="ddim", steps=10)
                for t, _, x0_hat in chain:
                    yield {"samples": trained.pictures(x0_hat).ravel(), "t": t}


# ==== check: the identities, on code from the page ====


def check(code, examples):
    """Run `code`, which must leave an adapter called `mine`, and check the identities on it."""
    from tinyddpm.properties import check as check_identities

    names = {}
    try:
        exec(compile(code, "your code", "exec"), names)
        adapter = names["mine"]
    except Exception as error:
        yield {"error": _your_lines(error)}
        return
    for result in check_identities(adapter, examples).results:
        _, *example = (line.strip() for line in str(result).splitlines())
        one = result.identity
        yield {"name": one.name, "status": result.status, "statement": one.statement, "example": "\n".join(example)}


def _your_lines(error):
    """The traceback of an error, less the lines that are not of the code in the page."""
    stack = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "your code"]
    where = f"line {stack[-1].lineno}: " if stack else ""
    return where + "".join(traceback.format_exception_only(error)).strip()


TASKS = {"scrub": scrub, "terms": terms, "sample": sample, "train_digits": train_digits, "check": check}
TASKS["train_points"] = points.train
