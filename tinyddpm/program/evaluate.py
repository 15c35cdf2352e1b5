"""How good is a model: its bound on the negative log-likelihood of test images, in bits per dimension. Next: run.py."""

from dataclasses import dataclass

import numpy as np

import nn
from nn.options import whole
from tinyddpm.bound import bits_per_dim
from tinyddpm.data.progress import progress as progress_bar
from tinyddpm.program.compute import enough_memory

__all__ = ["Evaluation", "evaluate", "loss_per_timestep"]


@dataclass(frozen=True)
class Evaluation:
    """The bound's terms in bits/dim, averaged over images, and the standard error of their sum. (E14)

    prior: L_T. denoising: the sum of L_1..L_{T-1}. reconstruction: L_0. images, draws: what was averaged over.
    settings: the diffusion's, in words.
    """

    prior: float
    denoising: float
    reconstruction: float
    standard_error: float
    images: int
    draws: int
    settings: str

    @property
    def total(self):
        """The bound: their sum."""
        return self.prior + self.denoising + self.reconstruction

    def __str__(self):
        return (
            f"bits/dim on {self.images} images, {self.draws} timesteps each; no label given to the network;\n"
            f"{self.settings}\n"
            f"  L_T        {self.prior:.6f}   (prior)\n"
            f"  L_1:T-1    {self.denoising:.4f}     (denoising)\n"
            f"  L_0        {self.reconstruction:.4f}     (reconstruction)\n"
            f"  sum        {self.total:.4f} +- {self.standard_error:.4f}"
        )

    __repr__ = __str__


def evaluate(model, images, labels=None, draws=4, seed=0, batch=128, progress=progress_bar, **choices):
    """Estimate the bound of `model` on uint8 `images` (N, H, W): an `Evaluation`.

    The sum over t = 2..T is estimated, without bias, from `draws` timesteps an image, one from each part of the range
    (E36). choices: `variance` and `clip`, as the diffusion's `bound` takes them; ValueError if it has no such choice.
    progress: wraps the loop over batches, as tqdm.
    """
    draws, batch = whole("draws", draws, 1), whole("batch", batch, 1)
    if len(images) < 2:
        raise ValueError(f"at least 2 images are needed, got {len(images)}")
    if labels is not None and np.shape(labels) != (len(images),):
        raise ValueError(f"one label is needed for each of {len(images)} images, got shape {np.shape(labels)}")
    T, bound = model.schedule.T, model.diffusion.bound(**choices)
    dimensions = int(np.prod(model.config.image))
    terms = []
    for start in progress(range(0, len(images), batch), desc="evaluating"):
        rows = np.arange(start, min(start + batch, len(images)))
        x0 = model.x0(images[rows])
        denoise = model.denoiser(None if labels is None else np.asarray(labels)[rows])
        with enough_memory("evaluating", len(rows)):
            reconstruction = bound.reconstruction(denoise, x0, model.noise(seed, "L_0", 0, rows))
            denoising = 0 * reconstruction
            for draw in range(draws if T > 1 else 0):
                t = _stratum(seed, draw, draws, rows, T)
                noise = model.noise(seed, "L_t", draw, rows)
                denoising = denoising + bound.denoising(denoise, x0, t, noise) * ((T - 1) / draws)
        terms.append([nn.to_numpy(x) for x in (bound.prior(x0), denoising, reconstruction)])
    nats = np.concatenate(terms, axis=1).astype(np.float64)
    bits = bits_per_dim(nats, dimensions)
    error = bits.sum(axis=0).std(ddof=1) / np.sqrt(bits.shape[1])
    return Evaluation(*(float(b) for b in bits.mean(axis=1)), float(error), len(images), draws, bound.settings)


def _stratum(seed, draw, draws, rows, T):
    """For each image a timestep in 2..T, uniform in part `draw` of `draws` of the range; T - 1 times it is unbiased."""
    u = nn.random.uniform(seed, "timestep", draw, rows).astype(np.float64)
    return 2 + np.floor((T - 1) * (draw + u) / draws).astype(np.int64)


def loss_per_timestep(model, images, labels=None, points=20, seed=0, progress=progress_bar):
    """The diffusion's simple loss at `points` timesteps spread over 1..T: (t (points,), loss (points,)). (E23)"""
    T = model.schedule.T
    timesteps = np.unique(np.linspace(1, T, points).round().astype(int))
    rows = np.arange(len(images))
    x0 = model.x0(images)
    denoise = model.denoiser(labels)
    losses = []
    for t in progress(timesteps, desc="the loss per timestep"):
        noise = model.noise(seed, "loss per t", int(t), rows)
        xt = model.diffusion.q_sample(x0, int(t), noise)
        losses.append(float(model.diffusion.simple_loss(x0, xt, int(t), noise, denoise(xt, int(t))).mean()))
    return timesteps, np.array(losses)
