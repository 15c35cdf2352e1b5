"""Training: one step, a generator of steps, and a state that can be saved and continued exactly. Next: evaluate.py.

Everything random is a function of (seed, step): which images, which timesteps, which noise, which labels are dropped.
So a run that is stopped and resumed makes the very steps it would have made, bit for bit on the same device.
"""

import time
from dataclasses import asdict, dataclass, field, fields

import numpy as np

import nn
from nn import random as counter_random
from tinyddpm.program import checkpoint
from tinyddpm.program.model import DiffusionModel, ModelConfig, enough_memory, timesteps_for

__all__ = ["TrainConfig", "Trainer", "load_config", "load_model"]

READ_EVERY = 50  # steps between two readings of the losses on a GPU: to read one is to wait for all that is queued


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. data: the name of the data set. null_rate: how often a label is hidden, for guidance.

    decay_steps: 0 for a constant learning rate after warm-up, else the step at which a linear decay reaches 0.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: str = "mnist"
    batch: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    decay_steps: int = 0
    gradient_limit: float = 1.0
    ema_decay: float = 0.999
    null_rate: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if self.batch < 1 or self.learning_rate <= 0 or self.warmup_steps < 0 or not 0 <= self.null_rate < 1:
            raise ValueError(f"batch >= 1, learning_rate > 0, warmup_steps >= 0 and 0 <= null_rate < 1, got {self}")

    def as_dict(self):
        """The fields, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """The inverse of `as_dict`. ValueError for an unknown or missing field, of the model's too."""
        return _from_fields(cls, {**values, "model": _from_fields(ModelConfig, values.get("model", {}))})


def _from_fields(cls, values):
    names = {f.name for f in fields(cls)}
    if values.keys() != names:
        raise ValueError(f"the configuration has fields {sorted(values)}, expected {sorted(names)}")
    return cls(**values)


class Trainer:
    """A model in training. images: uint8 (N, H, W), all of them kept on the model's device; labels: uint8 (N,).

    xp: numpy or cupy. workers: see `nn.Parallel`; the result does not depend on it. precision: see `nn.precision`.
    losses: a float for every step whose loss has been read. On the CPU that is every step; on a GPU, which would have
    to be waited for, they are read every READ_EVERY steps, by `read_losses` and before anything is saved.
    """

    def __init__(self, config, images, labels, xp=np, workers=None, precision="fp32"):
        if len(images) != len(labels) or len(images) < config.batch:
            raise ValueError(f"{len(images)} images and {len(labels)} labels for batches of {config.batch}")
        self.config = config
        self.model = DiffusionModel(config.model, xp, workers, precision)
        self.images, self.labels = nn.to_device(images, xp), np.asarray(labels, dtype=np.int64)
        self.parameters = self.model.network.parameters()
        self.optimiser = nn.Adam(self.parameters, learning_rate(config))
        self.ema = nn.EMA(self.parameters, config.ema_decay)
        self.losses, self.unread = [], []
        self.read_every = 1 if xp is np else READ_EVERY
        self._epoch = None, None  # the number of an epoch, and the order of the images in it

    @property
    def steps_done(self):
        """How many steps have been made."""
        return self.optimiser.steps

    def batch(self, step):
        """x0, labels, t, noise of training step `step` = 0, 1, ...: each epoch visits every image once, shuffled."""
        config, size = self.config, self.config.batch
        epoch, position = divmod(step, len(self.images) // size)
        chosen = self._order(epoch)[position * size : (position + 1) * size]
        numbers = np.arange(size)
        labels = None
        if config.model.classes:
            hidden = counter_random.uniform(config.seed, "null label", step, numbers) < config.null_rate
            labels = np.where(hidden, config.model.classes, self.labels[chosen])
        t = timesteps_for(config.seed, step, size, config.model.T)
        noise = self.model.noise(config.seed, "training", step, numbers)
        return self.model.process.data(self.images[self.model.xp.asarray(chosen)]), labels, t, noise

    def _order(self, epoch):
        """The images in the order of this epoch: a permutation, kept while it lasts."""
        if self._epoch[0] != epoch:
            # the third word of the counter keeps this stream apart from the timesteps'
            rng = np.random.Generator(np.random.Philox(key=self.config.seed, counter=[0, 0, 1, epoch]))
            self._epoch = epoch, rng.permutation(len(self.images))
        return self._epoch[1]

    def step(self):
        """One step of training. Returns the loss of its batch, a scalar on the model's device.

        FloatingPointError where a loss is not finite: on the CPU at once, before the step would destroy the weights;
        on a GPU when the losses are read, so that later steps may have been made, but none is ever saved.
        MemoryError, naming the batch size, where there is not enough.
        """
        with enough_memory("a step of training", self.config.batch):
            batch = self.batch(self.steps_done)
            loss, gradient = self.model.loss_and_gradient(*batch, seed=self.config.seed, step=self.steps_done)
            self.unread.append(loss)
            if len(self.unread) >= self.read_every:
                self.read_losses()
            nn.clip_by_global_norm(gradient, self.config.gradient_limit)
            self.optimiser.step(gradient)
            self.ema.update()
        return loss

    def read_losses(self):
        """Fetch the losses not read yet; waits for the device. FloatingPointError if one is not finite."""
        if not self.unread:
            return
        read = nn.to_numpy(self.model.xp.stack(self.unread)).tolist()
        for step, loss in enumerate(read, start=len(self.losses)):
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {step}; lower the learning rate")
        self.losses += read
        self.unread = []

    def run(self, steps=None, minutes=None):
        """Train on, yielding (step, loss), until `steps` steps are done in all, or for `minutes` from now."""
        if (steps is None) == (minutes is None):
            raise ValueError("say either how many steps in all, or how many minutes")
        end = None if minutes is None else time.monotonic() + 60 * minutes
        while self.steps_done < steps if end is None else time.monotonic() < end:
            loss = self.step()
            yield self.steps_done, loss
        self.read_losses()

    def save(self, path):
        """Write all that is needed to go on, exactly, to the checkpoint `path`.

        FloatingPointError, writing nothing, where a loss or a weight is not finite.
        """
        self.read_losses()
        if not self.model.xp.isfinite(self.optimiser.flat).all():
            raise FloatingPointError(f"the weights are not finite at step {self.steps_done}; lower the learning rate")
        arrays = {f"model/{name}": array for name, array in self.model.network.state_dict().items()}
        arrays |= {f"ema/{name}": array for name, array in self.ema.state_dict().items()}
        arrays |= {f"adam/{name}": array for name, array in self.optimiser.state_dict().items()}
        arrays["losses"] = np.asarray(self.losses, dtype=np.float64)
        checkpoint.save(path, arrays, self.config.as_dict())

    def restore(self, path):
        """Continue from the checkpoint `path`. CheckpointError if it is damaged or of another configuration."""
        arrays, _ = checkpoint.load(path, expect=self.config.as_dict())
        self.model.network.load_state_dict(_group(arrays, "model/"))
        self.ema.load_state_dict(_group(arrays, "ema/"))
        self.optimiser.load_state_dict(_group(arrays, "adam/"))
        self.losses, self.unread = arrays["losses"].tolist(), []


def learning_rate(config):
    """Warm-up, then constant or down to 0 on a line: a function of the step number 1, 2, ..."""
    rate = config.learning_rate
    then = nn.rates.linear(rate, config.decay_steps) if config.decay_steps else nn.rates.constant(rate)
    return nn.rates.warmup(rate, config.warmup_steps, then)


def load_config(path):
    """The TrainConfig in a checkpoint. CheckpointError if the file is damaged or not a checkpoint of this program."""
    _, values = checkpoint.load(path)
    return _config(path, values)


def _config(path, values):
    try:
        return TrainConfig.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise checkpoint.CheckpointError(f"{path}: not a checkpoint of this program's models ({error})") from error


def load_model(path, xp=np, workers=None, average=True, precision="fp32"):
    """The model in a checkpoint, with its averaged weights (or, average=False, the last ones), and its TrainConfig.

    CheckpointError if the file is damaged or not a checkpoint of this program.
    """
    nn.check_precision(precision, xp)
    arrays, values = checkpoint.load(path)
    config = _config(path, values)
    try:
        model = DiffusionModel(config.model, xp, workers, precision)
        model.network.load_state_dict(_group(arrays, "model/"))
        if average:
            ema = nn.EMA(model.network.parameters(), config.ema_decay)
            ema.load_state_dict(_group(arrays, "ema/"))
            ema.swap()
    except (ValueError, KeyError, TypeError) as error:
        raise checkpoint.CheckpointError(f"{path}: not a checkpoint of this program's models ({error})") from error
    model.network.eval()
    return model, config


def _group(arrays, prefix):
    """The arrays whose names start with `prefix`, under the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
