"""How good is a model: its bound on the negative log-likelihood of test images, in bits per dimension. Next: plots.py."""

from dataclasses import dataclass

import numpy as np

import nn

from .bound import bits_per_dim, denoising_term, prior_term, reconstruction_term
from .data import to_model
from .forward import q_sample
from .model import enough_memory
from .prediction import eps_from_x0

__all__ = ["Evaluation", "evaluate", "loss_per_timestep"]


@dataclass(frozen=True)
class Evaluation:
    """The bound's terms in bits/dim, averaged over images, and the standard error of their sum. (E14)

    prior: L_T. denoising: the sum of L_1..L_{T-1}. reconstruction: L_0. images, draws: what was averaged over.
    """

    prior: float
    denoising: float
    reconstruction: float
    standard_error: float
    images: int
    draws: int
    variance: str
    clip: bool

    @property
    def total(self):
        """The bound: their sum."""
        return self.prior + self.denoising + self.reconstruction


def evaluate(model, images, labels=None, draws=4, variance="beta_tilde", clip=True, seed=0, batch=128, progress=iter):
    """Estimate the bound of `model` on uint8 `images` (N, H, W): an `Evaluation`.

    The sum over t = 2..T is estimated, without bias, from `draws` timesteps an image, one from each part of the range
    (E36). variance: sigma_t^2, see `reverse.reverse_variance`; at t = 1 "beta_tilde" means beta_tilde_2. clip: whether
    x0_hat is clipped to [-1, 1]. progress: wraps the loop over batches, as tqdm.
    """
    if len(images) < 2 or draws < 1:
        raise ValueError(f"at least 2 images and 1 draw are needed, got {len(images)} and {draws}")
    schedule, T, limits = model.schedule, model.schedule.T, (-1.0, 1.0) if clip else None
    dimensions = int(np.prod(model.config.image))
    terms = []
    for start in progress(range(0, len(images), batch)):
        rows = np.arange(start, min(start + batch, len(images)))
        x0 = to_model(nn.to_device(images[rows], model.xp))
        denoise = model.denoiser(None if labels is None else np.asarray(labels)[rows].astype(np.int64))
        with enough_memory("evaluating", len(rows)):
            reconstruction = reconstruction_term(
                schedule, denoise, x0, model.noise(seed, "L_0", 0, rows), variance, limits
            )
            denoising = 0 * reconstruction
            for draw in range(draws if T > 1 else 0):
                t = _stratum(seed, draw, draws, rows, T)
                noise = model.noise(seed, "L_t", draw, rows)
                term = denoising_term(schedule, denoise, x0, t, noise, variance, limits)
                denoising = denoising + term * ((T - 1) / draws)
        terms.append([nn.to_numpy(x) for x in (prior_term(schedule, x0), denoising, reconstruction)])
    nats = np.concatenate(terms, axis=1).astype(np.float64)
    bits = bits_per_dim(nats, dimensions)
    error = bits.sum(axis=0).std(ddof=1) / np.sqrt(bits.shape[1])
    return Evaluation(*(float(b) for b in bits.mean(axis=1)), float(error), len(images), draws, variance, clip)


def _stratum(seed, draw, draws, rows, T):
    """For each image a timestep in 2..T, uniform in part `draw` of `draws` of the range; T - 1 times it is unbiased."""
    u = nn.random.uniform(seed, "timestep", draw, rows).astype(np.float64)
    return 2 + np.floor((T - 1) * (draw + u) / draws).astype(np.int64)


def loss_per_timestep(model, images, labels=None, points=20, seed=0, progress=iter):
    """L_simple, the mean squared error of eps, at `points` timesteps spread over 1..T: (t (points,), loss (points,)). (E23)"""
    T = model.schedule.T
    timesteps = np.unique(np.linspace(1, T, points).round().astype(int))
    rows = np.arange(len(images))
    x0 = to_model(nn.to_device(images, model.xp))
    denoise = model.denoiser(None if labels is None else np.asarray(labels).astype(np.int64))
    losses = []
    for t in progress(timesteps):
        eps = model.noise(seed, "loss per t", int(t), rows)
        xt = q_sample(model.schedule, x0, int(t), eps)
        error = eps - eps_from_x0(model.schedule, denoise(xt, int(t)), xt, int(t))
        losses.append(float((error**2).mean()))
    return timesteps, np.array(losses)
