"""A diffusion model: a diffusion, and the network that reverses it. Next: checkpoint.py.

This is where the two halves meet: the mathematics takes a function `denoise(xt, t) -> x0_hat`, and `Model.denoiser`
makes one of a network. The diffusion (diffusions.py) says what the network's input and output mean.
"""

import collections
import functools
import operator
from collections.abc import Sequence

import numpy as np

import nn
from tinyddpm.data.progress import progress as progress_bar
from tinyddpm.prediction import between, guided
from tinyddpm.program.compute import Compute, enough_memory
from tinyddpm.program.config import OWN
from tinyddpm.program.diffusions import DIFFUSIONS
from tinyddpm.program.evaluate import evaluate
from tinyddpm.program.judge import Judge, as_seen
from tinyddpm.program.likelihood import flow_likelihood
from tinyddpm.program.plots import Pictures
from tinyddpm.program.unet import UNet
from tinyddpm.schedule import named_schedule

__all__ = ["Model", "GUIDANCE_SCALE"]

GUIDANCE_SCALE = 1.5  # of `sample` by default: digits are clearer for it, and nearly as varied as without


class Model:
    """A network and the diffusion it reverses. Arrays in and out are NHWC float32, NumPy's or CuPy's.

    config: a `Config`. compute: a `Compute`, which says where it runs. K is the number of classes. The other arguments
    are for a config that says "own" in their place. network: any `nn.Module` called as network(x, t, labels), with
    x (N, H, W, C), t (N,) integers in 1..T, and labels None or (N,) integers in 0..K, where K stands for "no label".
    schedule: a NoiseSchedule. loss_weight: a function as `GaussianDiffusion` takes it. ValueError if the config says
    "own" for the network or the schedule and none is given, or the other way round.
    """

    def __init__(self, config, compute=None, network=None, schedule=None, loss_weight=None):
        self.config, self.compute = config, compute or Compute()
        for name, value in (("preset", network), ("schedule", schedule)):
            if (getattr(config, name) == OWN) != (value is not None):
                has, given = getattr(config, name), "none was" if value is None else "one was"
                raise ValueError(f"the configuration has {name} {has!r}, and {given} handed over as an object")
        schedule = (
            named_schedule(config.schedule, config.T, **config.schedule_options) if schedule is None else schedule
        )
        weight = loss_weight or config.loss_weight
        kind = DIFFUSIONS[config.diffusion]
        self.diffusion = kind(schedule, config.prediction, weight if weight != OWN else "simple", config.min_snr_gamma)
        self.schedule = schedule
        network = UNet(config.unet_config(), config.seed) if network is None else network
        if isinstance(network, UNet):
            network.log_snr = self.diffusion.network_log_snr()
        self.network = self.diffusion.around(network).to(self.compute.xp)
        self.shard = config.shard or shard_size(config)

    def loss_and_gradient(self, x0, labels, t, noise, seed=0, step=0):
        """The mean loss of the network on x_0 noised to t, and its gradient as one flat array. (E23)

        x0, noise: (N, H, W, C). labels: (N,) integers, K for "no label", or None. t: (N,) integers in 1..T.
        seed, step: dropout's random numbers depend on these and on the sample's place in the batch.
        """
        xt = self.diffusion.q_sample(x0, t, noise)
        loss = functools.partial(loss_of_output, self.diffusion.loss, seed, step)
        inputs = np.arange(len(xt)), self.diffusion.network_input(xt), self.diffusion.network_time(t), labels
        targets = self.diffusion.loss_inputs(x0, xt, t, noise)
        return self.compute.loss_and_gradient(self.shard, loss, self.network, *inputs, *targets)

    def predict(self, xt, t, labels=None):
        """The network's output for xt (N, H, W, C) at t (N,), as an array, without gradients."""
        shown, time = self.diffusion.network_input(xt), self.diffusion.network_time(t)
        return self.compute.map(self.shard, network_output, self.network, shown, time, labels)

    def denoiser(self, labels=None, guidance_scale=1.0, guidance_interval=None):
        """denoise(xt, t) -> x0_hat, as every sampler and bound in this project takes it.

        labels: (N,) integers in 0..K-1, or None for no label. guidance_scale s: the prediction is
        null + s (conditional - null) (Ho & Salimans 2022). 0 ignores the labels, 1 is the plain conditional model, and
        above 1 it follows the label more closely. Any s but 1 doubles the time of a step. (E39)
        guidance_interval: (low, high), the t at which to guide, see `between`; None for all.
        """
        if labels is None and guidance_scale != 1.0:
            raise ValueError(f"guidance_scale {guidance_scale} needs labels to guide towards")
        if labels is not None:
            labels = self.labels(labels, np.size(labels))
        if guidance_interval is not None:
            return between(self.denoiser(labels, guidance_scale), self.denoiser(labels), *guidance_interval)

        def denoise(xt, t):
            t = np.broadcast_to(t, (xt.shape[0],))
            output = self.predict(xt, t, labels)
            if guidance_scale != 1.0:
                output = guided(self.predict(xt, t), output, guidance_scale)
            return self.diffusion.x0_hat(output, xt, t)

        return denoise

    def labels(self, labels, n):
        """`labels` as (n,) int64, or None if it is None: one label for all, or a list of at most n, repeated up to n.

        TypeError or ValueError if they are not integers, too many, outside 0..K-1, or if the model has no classes.
        """
        if labels is None:
            return None
        found = np.asarray(list(labels) if isinstance(labels, (range, Sequence)) else labels)
        classes = self.config.classes
        if not classes:
            raise ValueError("labels were given, but the model was trained without classes")
        if found.dtype.kind not in "iu" or found.ndim > 1:
            raise TypeError(f"labels must be an integer or a sequence of integers, got {labels!r}")
        if not 1 <= found.size <= n or found.min() < 0 or found.max() >= classes:
            raise ValueError(f"labels must be 1..{n} integers in 0..{classes - 1}, got {labels!r}")
        return np.resize(found.astype(np.int64), n)

    def drawn_labels(self, seed, numbers):
        """A class for each sample numbered `numbers`, drawn with the shares of the training data: (N,) int64.

        p(x) = sum_y p(y) p(x | y): an image of a drawn class is an image of the whole distribution, and a better one
        than the null label gives, which is trained on a few images only. None for a model without classes.
        """
        classes = self.config.classes
        if not classes:
            return None
        shares = np.cumsum(self.config.shares)
        u = nn.random.uniform(seed, "class", 0, numbers)
        return np.minimum(np.searchsorted(shares, u, side="right"), classes - 1)  # the sum may round below 1

    def x0(self, images):
        """x_0 (N, H, W, C) of uint8 images (N, H, W[, C]), on the model's device. ValueError unless they fit."""
        height, width, channels = self.config.image
        shapes = ((height, width, channels), *([(height, width)] if channels == 1 else []))
        if images.shape[1:] not in shapes:
            raise ValueError(f"the model is of images {' or '.join(map(str, shapes))}, got {images.shape[1:]}")
        return self.diffusion.data(nn.to_device(images, self.compute.xp))

    def noise(self, seed, stream, step, samples):
        """The diffusion's noise for the samples numbered `samples`, on the model's device: (N, H, W, C)."""
        return self.diffusion.noise(seed, stream, step, samples, self.config.image, self.compute.xp)

    def sample(
        self,
        n,
        labels=None,
        guidance_scale=None,
        sampler=None,
        steps=None,
        seed=0,
        batch=128,
        progress=progress_bar,
        spacing=None,
        guidance_interval=None,
    ):
        """Draw n images: a uint8 array (n, H, W) or (n, H, W, C), which a notebook shows as a picture.

        Image i is the same in any batch, on any number of workers, for the same seed and label. labels: one label for
        all, or a list of up to n, repeated up to n, or None for `drawn_labels`. sampler: a name in the diffusion's
        `samplers`, or a step as in reverse.py. steps: how many of the T timesteps to visit. spacing: which, a name in
        SPACINGS. For these three None stands for the diffusion's default; there are at most T steps. guidance_scale,
        guidance_interval: as in `denoiser`; a scale of None is GUIDANCE_SCALE where there are classes.
        progress: wraps the loop over each batch's steps as tqdm does, or None. Raises TypeError or ValueError for
        invalid arguments.
        """
        n, batch = operator.index(n), operator.index(batch)
        if n < 1 or batch < 1:
            raise ValueError(f"n and batch must be at least 1, got {n} and {batch}")
        labels, images = self.labels(labels, n), []
        for start in range(0, n, batch):
            numbers = np.arange(start, min(start + batch, n))
            chosen = None if labels is None else labels[numbers]
            chain = self.chain(numbers, chosen, guidance_scale, sampler, steps, seed, spacing, guidance_interval)
            if progress is not None:
                chain = progress(chain, total=self.visited(steps).T + 1, desc="sampling")
            [(_, x0, _)] = collections.deque(chain, maxlen=1)  # the last; those before it are dropped as they come
            images.append(self.pictures(x0))
        return np.concatenate(images).view(Pictures)

    def chain(
        self,
        numbers,
        labels=None,
        guidance_scale=None,
        sampler=None,
        steps=None,
        seed=0,
        spacing=None,
        guidance_interval=None,
    ):
        """A generator of the steps of the reverse process, for the samples numbered `numbers`. Arguments as `sample`.

        Yields (t, x_t, x0_hat) for each visited t from T down to 1, then (0, x_0, x_0).
        """
        step = sampler if callable(sampler) else self._sampler(sampler or self.diffusion.default_sampler)
        schedule = self.visited(steps, spacing)
        labels = self.drawn_labels(seed, numbers) if labels is None else self.labels(labels, len(numbers))
        if guidance_scale is None:
            guidance_scale = 1.0 if labels is None else GUIDANCE_SCALE
        denoise = self.denoiser(labels, guidance_scale, guidance_interval)

        def noise(t):
            return self.noise(seed, "sampler", t, numbers)

        x = self.diffusion.start(self.noise(seed, "x_T", 0, numbers))
        with nn.constant_weights(), enough_memory("sampling", len(numbers)):
            for t, x_prev, x0_hat in self.diffusion.reverse(denoise, schedule, x, noise, step):
                yield int(schedule.timesteps[t]), x, x0_hat
                x = x_prev
        x = self.diffusion.last(x, noise(1))
        yield 0, x, x

    def visited(self, steps, spacing=None):
        """The schedule respaced to `steps` timesteps, by default as `sample`."""
        steps = min(self.diffusion.default_steps, self.schedule.T) if steps is None else steps
        return self.schedule.respace(steps, spacing or self.diffusion.default_spacing)

    def _sampler(self, name):
        if name not in self.diffusion.samplers:
            accepted = ", ".join(self.diffusion.samplers)
            raise ValueError(f"unknown sampler {name!r} of {self.config.diffusion} diffusion; there are: {accepted}")
        return self.diffusion.samplers[name]()

    def evaluate(self, images, **options):
        """The bound on these images (a Dataset or uint8 (N, H, W[, C])), in bits/dim: as `evaluate.evaluate`.

        A model of classes is told a Dataset's labels, unless labels=None says not to: on these it was trained most.
        """
        return self._with_labels(evaluate, images, options)

    def likelihood(self, images, **options):
        """The likelihood by the probability flow beside the bound: as `likelihood.flow_likelihood`. Labels as above."""
        return self._with_labels(flow_likelihood, images, options)

    def _with_labels(self, judge, images, options):
        if self.config.classes and hasattr(images, "images"):
            options = {"labels": images.labels, **options}
        return judge(self, getattr(images, "images", images), **options)

    def judge(self, data, n=1000, labels=None, seed=0, **options):
        """Draw n samples, and judge them beside the images of `data`, which have labels: a `judge.Judgement`.

        labels, seed, options: as for `sample`. Judge many sets of samples by one `Judge`, which does its work once.
        """
        labels = self.drawn_labels(seed, np.arange(n)) if labels is None else self.labels(labels, n)
        judge = Judge(as_seen(self, data), self.compute)
        return judge(self.sample(n, labels, seed=seed, **options), labels)

    def pictures(self, x):
        """Any x_t or x0_hat (N, H, W, C) as uint8 images (N, H, W) or (N, H, W, 3) in memory."""
        return self.diffusion.pictures(nn.to_numpy(x))


def network_output(network, xt, t, labels):
    """The network's output, a Tensor."""
    return network(nn.Tensor(xt), t, labels)


def loss_of_output(loss, seed, step, network, samples, x, t, labels, *loss_inputs):
    """loss(network output, *loss_inputs), a scalar Tensor. samples: the places of the rows in the batch."""
    with nn.random_state(seed, step, samples):
        return loss(network(nn.Tensor(x), t, labels), *loss_inputs)


def shard_size(config):
    """Images per shard: as many as give a full-size layer about 200,000 activations, near a core's cache."""
    height, width, _ = config.image
    channels = 32 if config.preset == OWN else config.unet_config().width
    return max(1, round(200_000 / (height * width * channels)))
