"""The figures of a model: what it learned, its chains, its loss and bound at each timestep. Next: profile.py.

Each function takes a Model, and images where it needs them, and returns a figure.
"""

import math

import numpy as np

import nn
from tinyddpm.bound import bits_per_dim
from tinyddpm.data.progress import progress as progress_bar
from tinyddpm.decoder import discretised_log_prob
from tinyddpm.gaussian import Gaussian
from tinyddpm.program import plots
from tinyddpm.program.evaluate import loss_per_timestep
from tinyddpm.schedule import SCHEDULES
from tinyddpm.theory.continuous import prior_loss
from tinyddpm.theory.log_snr import LinearLogSNR

__all__ = ["schedules", "digits", "forward", "reverse", "loss_by_timestep", "bound", "denoising_frames", "all_figures"]
__all__ += ["neighbours", "schedule_ends"]

STRIP = 10  # images in a strip


def schedules(model):
    """beta, alpha_bar and log-SNR of every named schedule with the model's T, and of its own."""
    curves = {name: make(model.schedule.T) for name, make in SCHEDULES.items()}
    return plots.schedule_curves({**curves, model.config.schedule: model.schedule}, model.config.schedule)


def schedule_ends(model, images):
    """The schedule of continuous time, with what its ends cost on these images: L_0 if x_0 were known, and L_T. (E20, E21)"""
    curve, x0, t = model.diffusion.curve, nn.to_numpy(model.x0(images)), np.linspace(1, model.schedule.T, 200)

    def known(high):
        return -discretised_log_prob(Gaussian(x0, math.exp(-high)), x0)

    def prior(low):
        return prior_loss(LinearLogSNR(curve.high, low), x0)

    costs = []
    for label, cost, end in (
        ("high end: $L_0$ if $x_0$ were known", known, curve.high),
        ("low end: $L_T$", prior, curve.low),
    ):
        ends = end + np.linspace(-4, 1, 21)
        bits = [float(bits_per_dim(cost(e), x0[0].size).mean()) for e in [*ends, end]]
        costs.append((label, ends, bits[:-1], end, bits[-1]))
    return plots.schedule_ends(model.diffusion.drawn_time(t), model.diffusion.log_snr(t), costs)


def digits(model, test, seed=0, each=8):
    """Real images beside drawn ones, `each` of every class in a row; without classes, ten rows of any."""
    classes = model.config.classes
    if classes:
        labels = np.repeat(np.arange(classes), each)
        rows = [np.flatnonzero(test.labels == k)[:each] for k in range(classes)]
        rows = [np.resize(row, each) if len(row) else row for row in rows]  # a class with few images shows them again
        real = test.images[np.concatenate(rows)]
    else:
        labels, real = None, test.images[: 10 * each]
    drawn = model.sample(classes * each or len(real), labels, seed=seed)
    real = model.pictures(model.x0(real))  # as the model sees them
    return plots.real_and_generated(real, drawn, each)


def forward(model, test, seed=0):
    """q(x_t | x_0): three test images as noise takes them."""
    T = model.schedule.T
    shown = [0, *np.unique(np.linspace(1, T, min(STRIP, T)).round().astype(int)).tolist()]
    x0 = model.x0(test.images[:3])
    noise = model.noise(seed, "forward strip", 0, np.arange(len(x0)))
    rows = [model.pictures(model.diffusion.q_sample(x0, t, noise)) for t in shown]
    return plots.strip(np.stack(rows, 1), shown, "forward: q(x_t | x_0)")


def chain(model, n=30, seed=1, progress=progress_bar):
    """[(t, x_t, x0_hat)] of one chain of n images, both as uint8 images, from t = T to 0."""
    labels = np.arange(n) % model.config.classes if model.config.classes else None
    steps = model.chain(np.arange(n), labels, seed=seed)
    shown = progress(steps, total=model.visited(None).T + 1, desc="drawing a chain")
    return [(t, model.pictures(xt), model.pictures(x0_hat)) for t, xt, x0_hat in shown]


def reverse(states, which=0):
    """A strip of four images of a `chain`: x_t where `which` is 0, the network's guess of x_0 where it is 1."""
    title = ("reverse: x_t, from noise to image", "the network's guess of x_0 at each t")[which]
    columns = np.unique(np.linspace(0, len(states) - 2, min(STRIP, len(states) - 1)).round().astype(int))
    shown = [states[i] for i in [*columns, -1]]
    return plots.strip(np.stack([s[1 + which][:4] for s in shown], axis=1), [t for t, *_ in shown], title)


def denoising_frames(states, frames=24):
    """About so many grids of a `chain`, from noise to image: the frames of a GIF, for MNIST of less than a megabyte."""
    every = max(1, (len(states) - 1) // frames)
    return [plots.grid(xt[:20], 10, scale=2) for _, xt, _ in [*states[:-1:every], states[-1]]]


def neighbours(judgement, pairs=40):
    """Samples, each with the training image nearest to it on its right: the first, and those nearest of all."""
    nearest = np.argsort(judgement.samples.apart, kind="stable")[:pairs]
    both = np.stack([judgement.images, judgement.neighbours], axis=1)
    left, right = (chosen.reshape(-1, *chosen.shape[2:]) for chosen in (both[:pairs], both[nearest]))
    titles = "samples, each followed by the nearest training image", "the same, of the samples nearest to one"
    return plots.real_and_generated(left, right, 8, titles)


def loss_by_timestep(model, images):
    """The simple loss at twenty timesteps, on these images."""
    return plots.loss_by_timestep(*loss_per_timestep(model, images), model.diffusion.simple_loss_name)


def bound(model, images):
    """The terms of the bound as bars, on these images, a Dataset or an array."""
    return plots.bound_terms(model.evaluate(images))


def all_figures(model, test, losses=(), images=500, seed=0):
    """{name: figure} of all of them, and under "denoising" the frames of a GIF. losses: of every training step."""
    states = chain(model, seed=(seed + 1) % 2**32)
    few = test.images[:images]
    found = {
        "schedules": schedules(model),
        **({"schedule_ends": schedule_ends(model, few[:64])} if model.diffusion.continuous_time else {}),
        "digits": digits(model, test, seed),
        "forward": forward(model, test, seed),
        "reverse": reverse(states),
        "x0_prediction": reverse(states, which=1),
        "loss_per_t": loss_by_timestep(model, few[:256]),
        "bound": bound(model, test[:images]),
        "denoising": denoising_frames(states),
    }
    if len(losses):
        found["loss"] = plots.loss_curve(losses, model.config.batch, model.diffusion.loss_name)
    return found
