"""How good is a model: its bound on the negative log-likelihood of test images, in bits per dimension. Next: likelihood.py."""

from dataclasses import dataclass

import numpy as np

import nn
from nn.options import whole
from tinyddpm.bound import bits_per_dim
from tinyddpm.data.progress import progress as progress_bar
from tinyddpm.loss import log_snr_probabilities
from tinyddpm.program.compute import enough_memory

__all__ = ["Evaluation", "evaluate", "label_nats", "standard_error", "loss_per_timestep"]


@dataclass(frozen=True)
class Evaluation:
    """The bound's terms in bits/dim, averaged over images, and the standard error of their sum. (E14)

    prior: L_T. denoising: the sum of L_1..L_{T-1}. reconstruction: L_0. label: -log p(y), 0 if the network was told no
    label y. images, draws: what was averaged over. settings: the diffusion's, in words. continuous: what stands for
    `denoising` in continuous time, and the standard error of that sum; None for a diffusion in steps. (E35)
    """

    prior: float
    denoising: float
    reconstruction: float
    label: float
    standard_error: float
    images: int
    draws: int
    settings: str
    continuous: tuple | None = None

    @property
    def total(self):
        """The bound: their sum."""
        return self.prior + self.denoising + self.reconstruction + self.label

    @property
    def total_continuous(self):
        """The bound in continuous time: the sum with `continuous` in the place of `denoising`."""
        return self.total - self.denoising + self.continuous[0]

    def __str__(self):
        label = "the label y, whose bits count" if self.label else "no label"
        lines = [
            f"bits/dim on {self.images} images, {self.draws} timesteps each; the network is told {label};",
            self.settings,
            f"  L_T        {self.prior:.6f}   (prior)",
            f"  L_1:T-1    {self.denoising:.4f}     (denoising)",
            f"  L_0        {self.reconstruction:.4f}     (reconstruction)",
            *([f"  label      {self.label:.4f}     (-log p(y): p(x) >= p(y) p(x | y))"] if self.label else []),
            f"  sum        {self.total:.4f} +- {self.standard_error:.4f}",
        ]
        if self.continuous:
            error = self.continuous[1]
            lines += [
                f"  L_inf      {self.continuous[0]:.4f}     (denoising in continuous time)",
                f"  sum        {self.total_continuous:.4f} +- {error:.4f}   (with L_inf for L_1:T-1)",
            ]
        return "\n".join(lines)

    __repr__ = __str__


def evaluate(model, images, labels=None, draws=4, seed=0, batch=128, progress=progress_bar, **choices):
    """Estimate the bound of `model` on uint8 `images` (N, H, W): an `Evaluation`.

    labels: y (N,), which the network is told, or None. With them the bound is -log p(y) higher than that of p(x | y), and
    bounds -log p(x) all the same: p(x) = sum_k p(k) p(x | k) >= p(y) p(x | y), with p(k) the model's class shares.

    The sum over t = 2..T is estimated, without bias, from `draws` timesteps an image, one from each part of the range;
    half of them even in t, half even in the log-SNR (E36). It is the whole sum if `draws` is at least T - 1. choices:
    `variance` and `clip`, as the diffusion's `bound` takes them; ValueError if it has no such choice. progress: wraps the
    loop over batches, as tqdm.
    """
    draws, batch = whole("draws", draws, 1), whole("batch", batch, 1)
    if len(images) < 2:
        raise ValueError(f"at least 2 images are needed, got {len(images)}")
    if labels is not None and np.shape(labels) != (len(images),):
        raise ValueError(f"one label is needed for each of {len(images)} images, got shape {np.shape(labels)}")
    T, bound = model.schedule.T, model.diffusion.bound(**choices)
    p = log_snr_probabilities(model.schedule, 0.5)[2:]
    p, draws = p / p.sum(), min(draws, T - 1)
    dimensions = int(np.prod(model.config.image))
    terms = []
    for start in progress(range(0, len(images), batch), desc="evaluating"):
        rows = np.arange(start, min(start + batch, len(images)))
        x0 = model.x0(images[rows])
        denoise = model.denoiser(None if labels is None else np.asarray(labels)[rows])
        with enough_memory("evaluating", len(rows)):
            reconstruction = bound.reconstruction(denoise, x0, model.noise(seed, "L_0", 0, rows))
            denoising = continuous = 0 * reconstruction
            for draw in range(draws):
                u, noise = _stratum(seed, draw, draws, rows), model.noise(seed, "L_t", draw, rows)
                t, weight = np.full(len(rows), 2 + draw), 1.0
                if draws < T - 1:
                    t = 2 + np.searchsorted(np.cumsum(p), u, side="right").clip(0, T - 2)
                    weight = nn.to_device(1 / (draws * p[t - 2]), model.compute.xp)
                denoising = denoising + bound.denoising(denoise, x0, t, noise) * weight
                if bound.continuous:
                    continuous = continuous + bound.continuous(denoise, x0, 1 + (T - 1) * u, noise) / draws
        terms.append([nn.to_numpy(x) for x in (bound.prior(x0), denoising, reconstruction, continuous)])
    nats = np.concatenate(terms, axis=1).astype(np.float64)
    *bits, continuous = bits_per_dim(nats, dimensions)
    bits.append(bits_per_dim(label_nats(model.config, labels, len(images)), dimensions))
    total, means = sum(bits), [float(b.mean()) for b in bits]
    in_continuous_time = total - bits[1] + continuous
    limit = (float(continuous.mean()), standard_error(in_continuous_time)) if bound.continuous else None
    return Evaluation(*means, standard_error(total), len(images), draws, bound.settings, limit)


def _stratum(seed, draw, draws, rows):
    """For each image a number in [0, 1), uniform in part `draw` of `draws` of it."""
    u = nn.random.uniform(seed, "timestep", draw, rows).astype(np.float64)
    return (draw + u) / draws


def label_nats(config, labels, n):
    """-log p(y) of each label, (n,); 0 if there are none."""
    return np.zeros(n) if labels is None else -np.log(config.shares[labels])


def standard_error(values):
    """The standard error of their mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


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
