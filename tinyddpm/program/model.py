"""A diffusion model: a process, and the network that reverses it. Next: train.py.

This is where the two halves meet: the mathematics takes a function `denoise(xt, t) -> x0_hat`, and here a network
becomes one. What its input and output mean, the process says.
"""

import contextlib
import functools
from dataclasses import asdict, dataclass, field

import numpy as np

import nn
from tinyddpm.loss import stratified_timesteps
from tinyddpm.program.diffusions import PROCESSES
from tinyddpm.program.unet import PRESETS, UNet, UNetConfig

__all__ = ["ModelConfig", "DiffusionModel", "timesteps_for", "enough_memory"]


@dataclass(frozen=True)
class ModelConfig:
    """Everything that says which model this is; kept in every checkpoint.

    diffusion: a name in `process.PROCESSES`. preset: a name in `unet.PRESETS`. schedule, T: as `named_schedule`.
    prediction: what the network's output means. None becomes the default of the diffusion. classes: 0, or the number
    of labels. image: (H, W, C). seed: of the initial weights.
    """

    diffusion: str = "gaussian"
    preset: str = "small"
    schedule: str | None = None
    T: int = 1000
    prediction: str | None = None
    classes: int = 10
    image: tuple = (28, 28, 1)
    seed: int = 0
    unet: dict = field(default_factory=dict)  # fields of UNetConfig to change in the preset

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; there are: {', '.join(PRESETS)}")
        if self.diffusion not in PROCESSES:
            raise ValueError(f"unknown diffusion {self.diffusion!r}; there are: {', '.join(PROCESSES)}")
        process = PROCESSES[self.diffusion]
        object.__setattr__(self, "schedule", self.schedule or process.default_schedule)
        object.__setattr__(self, "prediction", self.prediction or process.predictions[0])
        if self.prediction not in process.predictions:
            raise ValueError(
                f"unknown prediction {self.prediction!r} of {self.diffusion} diffusion; "
                f"there are: {', '.join(process.predictions)}"
            )
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
    """A network and the process it reverses. Arrays in and out are NHWC float32, NumPy's or CuPy's.

    xp: numpy or cupy, where the network lives. workers: for `nn.Parallel`; None for all cores. precision: of matrix
    products, see `nn.precision`; ValueError for one that `xp` does not have.
    """

    def __init__(self, config, xp=np, workers=None, precision="fp32"):
        self.config, self.xp, self.precision = config, xp, nn.check_precision(precision, xp)
        self.process = PROCESSES[config.diffusion](config.schedule, config.T, config.prediction)
        self.schedule = self.process.schedule
        self.network = UNet(config.unet_config(), config.seed).to(xp)
        self.parallel = nn.Parallel(workers if xp is np else 1, shard_size(config) if xp is np else 1 << 30)

    def loss_and_gradient(self, x0, labels, t, noise, seed=0, step=0):
        """The process's loss of the network's prediction for x_0 noised to t, and its gradient, flat. (E23)

        x0, noise: (N, H, W, C). labels: (N,) integers, K for "no label", or None. t: (N,) integers in 1..T.
        seed, step: what dropout's random numbers depend on, besides the sample's place in the batch.
        """
        xt = self.process.q_sample(x0, t, noise)
        loss = functools.partial(loss_of_output, self.process.loss, seed, step)
        inputs = np.arange(len(xt)), self.process.network_input(xt), t, labels
        with nn.precision(self.precision):
            return self.parallel.loss_and_gradient(
                loss, self.network, *inputs, *self.process.loss_inputs(x0, xt, t, noise)
            )

    def predict(self, xt, t, labels=None):
        """The network's output for xt (N, H, W, C) at t (N,), as an array, without gradients."""
        with nn.precision(self.precision):
            return self.parallel.map(network_output, self.network, self.process.network_input(xt), t, labels)

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
            return self.process.x0_hat(output, xt, t)

        return denoise

    def noise(self, seed, stream, step, samples):
        """The process's noise for the samples of these numbers, on the model's device: (N, H, W, C)."""
        return self.process.noise(seed, stream, step, samples, self.config.image, self.xp)

    def generate(
        self,
        n,
        labels=None,
        guidance_scale=1.0,
        sampler="ancestral",
        steps=None,
        seed=0,
        batch=128,
        progress=None,
        keep=None,
    ):
        """Draw n images: uint8 (n, H, W) or (n, H, W, C). Image i is the same in any batch, for the same seed and label.

        labels: (n,) integers or None. sampler: one of `reverse.SAMPLERS` that the process has. steps: how many of the
        T timesteps to visit (default all). progress: wraps each batch's loop, as tqdm. keep: indices 1..steps of states to keep; then
        returns images and {index: (x_t, x0_hat)} as uint8 images of the first batch.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        schedule = self.schedule if steps is None else self.schedule.respace(steps)
        images, kept = [], None
        for start in range(0, n, batch):
            numbers = np.arange(start, min(start + batch, n))
            denoise = self.denoiser(None if labels is None else np.asarray(labels)[numbers], guidance_scale)
            with nn.constant_weights(), enough_memory("sampling", len(numbers)):
                result = self.process.sample(
                    denoise,
                    schedule,
                    self.process.start(self.noise(seed, "x_T", 0, numbers)),
                    lambda t, numbers=numbers: self.noise(seed, "sampler", t, numbers),
                    sampler,
                    progress,
                    keep,
                )
            x0, states = result if keep is not None else (result, None)
            images.append(self.pictures(x0))
            if kept is None and states is not None:
                kept = {t: tuple(self.pictures(x) for x in pair) for t, pair in states.items()}
        images = np.concatenate(images)
        return images if keep is None else (images, kept)

    def pictures(self, x):
        """Any x_t or x0_hat (N, H, W, 1) as uint8 images (N, H, W) in memory."""
        return self.process.pictures(nn.to_numpy(x))


def network_output(network, xt, t, labels):
    """The network's output, a Tensor."""
    return network(xt, t, labels)


def loss_of_output(loss, seed, step, network, samples, x, t, labels, *loss_inputs):
    """loss(the network's output, *loss_inputs), a scalar Tensor. samples: their places in the batch."""
    with nn.random_state(seed, step, samples):
        return loss(network(x, t, labels), *loss_inputs)


@contextlib.contextmanager
def enough_memory(what, batch):
    """Where there is not, on a GPU or not, MemoryError says for which batch, and what to do."""
    try:
        yield
    except MemoryError as error:  # NumPy's and CuPy's are of this class
        raise MemoryError(f"{what}: not enough memory for a batch of {batch}; try a smaller batch ({error})") from error


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
