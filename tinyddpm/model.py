"""A diffusion model: a schedule, a network, and what the network's output means. Next: train.py.

This is where the two halves meet: the mathematics takes a function `denoise(xt, t) -> x0_hat`, and here a network
that predicts eps, x_0 or v becomes one.
"""

import contextlib
from dataclasses import asdict, dataclass, field

import numpy as np

import nn
from nn import random as counter_random

from .data import from_model
from .forward import q_sample
from .loss import stratified_timesteps
from .prediction import convert, x0_from
from .reverse import sample
from .schedule import named_schedule
from .unet import PRESETS, UNet, UNetConfig

__all__ = ["ModelConfig", "DiffusionModel", "timesteps_for", "enough_memory", "NETWORK_PREDICTIONS"]

NETWORK_PREDICTIONS = ("eps", "x0", "v")


@dataclass(frozen=True)
class ModelConfig:
    """Everything that says which model this is; kept in every checkpoint.

    preset: a name in `unet.PRESETS`. schedule, T: as `named_schedule`. prediction: what the network's output means.
    classes: 0, or the number of labels. image: (H, W, C). seed: of the initial weights.
    """

    preset: str = "small"
    schedule: str = "cosine"
    T: int = 1000
    prediction: str = "v"
    classes: int = 10
    image: tuple = (28, 28, 1)
    seed: int = 0
    unet: dict = field(default_factory=dict)  # fields of UNetConfig to change in the preset

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; there are: {', '.join(PRESETS)}")
        if self.prediction not in NETWORK_PREDICTIONS:
            raise ValueError(f"unknown prediction {self.prediction!r}; there are: {', '.join(NETWORK_PREDICTIONS)}")
        object.__setattr__(self, "image", tuple(self.image))

    def unet_config(self):
        """The network's shape: the preset, with what this model fixes."""
        options = {**PRESETS[self.preset], **self.unet}
        if "multipliers" in options:
            options["multipliers"] = tuple(options["multipliers"])
        return UNetConfig(channels=self.image[2], classes=self.classes, T=self.T, **options)

    def as_dict(self):
        """The fields, as JSON can hold them."""
        return asdict(self)


class DiffusionModel:
    """A network and the process it reverses. Arrays in and out are NHWC float32 in [-1, 1], NumPy's or CuPy's.

    xp: numpy or cupy, where the network lives. threads: for `nn.Parallel`; None for all cores. precision: of matrix
    products, see `nn.precision`, which raises ValueError for one that `xp` does not have.
    """

    def __init__(self, config, xp=np, threads=None, precision="fp32"):
        self.config, self.xp, self.precision = config, xp, nn.check_precision(precision, xp)
        self.schedule = named_schedule(config.schedule, config.T)
        self.network = UNet(config.unet_config(), config.seed).to(xp)
        self.parallel = nn.Parallel(threads if xp is np else 1, shard_size(config) if xp is np else 1 << 30)

    def loss(self, x0, labels, t, noise):
        """The mean squared error of the network's prediction for x_0 noised to t, as a scalar Tensor. (E23)

        x0, noise: (N, H, W, C). labels: (N,) integers, K for "no label", or None. t: (N,) integers in 1..T.
        """
        xt = q_sample(self.schedule, x0, t, noise)
        target = convert(self.schedule, noise, xt, t, "eps", self.config.prediction)
        return nn.mse(self.network(xt, t, labels), nn.Tensor(target))

    def predict(self, xt, t, labels=None):
        """The network's output for xt (N, H, W, C) at t (N,), as an array, without gradients."""
        def shard(rows):
            return self.network(xt[rows], t[rows], None if labels is None else labels[rows]).data

        with nn.precision(self.precision):
            return self.parallel.map(shard, len(xt))

    def denoiser(self, labels=None, guidance_scale=1.0):
        """denoise(xt, t) -> x0_hat, as every sampler and bound in this project takes it.

        labels: (N,) integers in 0..K-1, or None for no label. guidance_scale s: the prediction is
        null + s (conditional - null) (Ho & Salimans 2022): 0 ignores the labels, 1 is the plain conditional model,
        more follows the label more closely, at twice the time a step.
        """
        if labels is not None and not self.config.classes:
            raise ValueError("labels were given, but the model was trained without classes")
        if labels is None and guidance_scale != 1.0:
            raise ValueError(f"guidance_scale {guidance_scale} needs labels to guide towards")

        def denoise(xt, t):
            t = np.broadcast_to(t, (xt.shape[0],))
            output = self.predict(xt, t, labels)
            if guidance_scale != 1.0:
                null = self.predict(xt, t)
                output = null + guidance_scale * (output - null)
            return x0_from(self.schedule, self.config.prediction, output, xt, t)

        return denoise

    def noise(self, seed, stream, step, samples):
        """Standard normal noise for the samples of these numbers, on the model's device: (N, H, W, C)."""
        return counter_random.normal(seed, stream, step, samples, self.config.image, self.xp)

    def generate(self, n, labels=None, guidance_scale=1.0, sampler="ancestral", steps=None, seed=0, batch=128,
                 progress=None, keep=None):  # fmt: skip
        """Draw n images: uint8 (n, H, W) or (n, H, W, C). Image i is the same in any batch, for the same seed and label.

        labels: (n,) integers or None. sampler: one of `reverse.SAMPLERS`. steps: how many of the T timesteps to visit
        (default all). progress: wraps each batch's loop, as tqdm. keep: indices 1..steps of states to keep; then
        returns images and {index: (x_t, x0_hat)} as uint8 images of the first batch.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        schedule = self.schedule if steps is None else self.schedule.respace(steps)
        images, kept = [], None
        for start in range(0, n, batch):
            numbers = np.arange(start, min(start + batch, n))
            denoise = self.denoiser(None if labels is None else np.asarray(labels)[numbers], guidance_scale)
            with nn.conv.reuse_filters(), enough_memory("sampling", len(numbers)):
                result = sample(
                    denoise, schedule, self.noise(seed, "x_T", 0, numbers),
                    lambda t, numbers=numbers: self.noise(seed, "sampler", t, numbers),
                    sampler=sampler, clip=sampler != "ancestral_eps", progress=progress, keep=keep,
                )  # fmt: skip
            x0, states = result if keep is not None else (result, None)
            images.append(from_model(nn.to_numpy(x0)))
            if kept is None and states is not None:
                kept = {t: tuple(from_model(nn.to_numpy(x)) for x in pair) for t, pair in states.items()}
        images = np.concatenate(images)
        return images if keep is None else (images, kept)


@contextlib.contextmanager
def enough_memory(what, batch):
    """Where there is not, on a GPU or not, MemoryError says for which batch, and what to do."""
    try:
        yield
    except MemoryError as error:  # NumPy's and CuPy's are of this class
        raise MemoryError(
            f"{what}: not enough memory for a batch of {batch}; try a smaller --batch ({error})"
        ) from error


def shard_size(config):
    """Images per shard such that the activations of one full-size layer, about 200,000 floats, stay near a core's cache."""
    height, width, _ = config.image
    unet = config.unet_config()
    return max(1, round(200_000 / (height * width * unet.width)))


def timesteps_for(seed, step, n, T):
    """The timesteps of training step `step`: (n,) in 1..T, one from each n-th of the range, in random order. (E36)"""
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, step]))
    t, _ = stratified_timesteps(T, n, rng)
    return rng.permutation(t)
