"""Training: one step, a generator of steps, and a state that can be saved and continued exactly. Next: evaluate.py.

Everything random is a function of (seed, step): which images, which timesteps, which noise, which labels are dropped.
So a run that is stopped and resumed makes the same steps as one that was not, bit for bit on the same device.
"""

import contextlib
import math
import time
from dataclasses import replace

import numpy as np

import nn
from nn.options import real, whole
from tinyddpm.program import checkpoint
from tinyddpm.program.compute import Compute, enough_memory
from tinyddpm.program.config import OPTIMISERS, OWN, Config
from tinyddpm.program.model import Model
from tinyddpm.schedule import NoiseSchedule

__all__ = ["Trainer", "save", "load", "load_on", "read"]

BEFORE = "before the fall/"  # so begin the names of the arrays that a finished run is continued from
READ_EVERY = 50  # steps between two readings of the losses on a GPU: a reading waits for all queued work


class Trainer:
    """A model in training on a Dataset, whose images are all kept on the model's device.

    compute, network, schedule, loss_weight: as `Model` takes them. losses: a float for every step whose loss has been
    read. On the CPU every loss is read at once. On a GPU a reading makes the host wait, so `read_losses` reads them
    every READ_EVERY steps and before a save. If the data set is smaller than a batch, each batch is the whole set.

    ValueError where the images or labels are not those of the configuration.
    """

    def __init__(self, config, dataset, compute=None, network=None, schedule=None, loss_weight=None):
        labels, classes = dataset.labels, config.classes
        if not len(dataset):
            raise ValueError("there are no images to train on")
        if classes and (labels is None or labels.min() < 0 or labels.max() >= classes):
            given = "none" if labels is None else f"{labels.min()}..{labels.max()}"
            raise ValueError(f"a model of {classes} classes needs labels in 0..{classes - 1}, got {given}")
        if (config.loss_weight == OWN) != (loss_weight is not None):
            raise ValueError(
                "a loss weight is handed over as an object where the configuration says 'own', and only there"
            )
        self.config = config
        self.model = Model(config, compute, network, schedule, loss_weight)
        self.images, self.labels = nn.to_device(dataset.images, self.model.compute.xp), labels
        self.model.x0(self.images[:1])  # raises for images of another shape
        self.network = self.model.network.train()
        self.size = min(config.batch, len(dataset))
        self.parameters = self.network.parameters()
        warm, self.factor = nn.rates.warmup(config.learning_rate, config.warmup_steps), 1.0
        self.optimiser = OPTIMISERS[config.optimiser](self.parameters, lambda step: warm(step) * self.factor)
        self.ema = nn.EMA(self.parameters, config.ema_decay)
        self.losses, self.unread = [], []
        self.before_fall = None  # what the run is continued from, once its learning rate falls
        self.read_every = 1 if self.model.compute.xp is np else READ_EVERY
        self._epoch = None, None  # (its number, the order of the images in it), see `_order`

    @property
    def steps_done(self):
        """How many steps have been made."""
        return self.optimiser.steps

    def batch(self, step):
        """x0, labels, t, noise of training step `step` = 0, 1, ...: each epoch visits every image once, shuffled."""
        config, size = self.config, self.size
        epoch, position = divmod(step, len(self.images) // size)
        chosen = self._order(epoch)[position * size : (position + 1) * size]
        numbers = np.arange(size)
        labels = None
        if config.classes:
            hidden = nn.random.uniform(config.seed, "null label", step, numbers) < config.null_rate
            labels = np.where(hidden, config.classes, self.labels[chosen])
        t = timesteps_for(self.model.diffusion, config.seed, step, size)
        noise = self.model.noise(config.seed, "training", step, numbers)
        return self.model.x0(self.images[self.model.compute.xp.asarray(chosen)]), labels, t, noise

    def _order(self, epoch):
        """The order of the images in this epoch, a permutation. That of the latest epoch asked for is kept."""
        if self._epoch[0] != epoch:
            # the third word of the counter keeps this stream apart from the timesteps'
            rng = np.random.Generator(np.random.Philox(key=self.config.seed, counter=[0, 0, 1, epoch]))
            self._epoch = epoch, rng.permutation(len(self.images))
        return self._epoch[1]

    def step(self):
        """One step of training. Returns the loss of its batch, a scalar on the model's device.

        FloatingPointError if a loss is not finite. On the CPU it is raised before the weights change. On a GPU it is
        raised when the losses are read, perhaps some steps later, but before anything is saved. MemoryError, naming the
        batch size, if memory runs out. After an error on the CPU the trainer is as it was before the step.
        """
        with enough_memory("a step of training", self.size):
            batch = self.batch(self.steps_done)
            loss, gradient = self.model.loss_and_gradient(*batch, seed=self.config.seed, step=self.steps_done)
            if self.read_every == 1:
                self._check(float(loss), self.steps_done)
            nn.clip_by_global_norm(gradient, self.config.gradient_limit)
            self.optimiser.step(gradient)
            self.ema.update()
        self.unread.append(loss)
        if len(self.unread) >= self.read_every:
            self.read_losses()
        return loss

    @staticmethod
    def _check(loss, step):
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {step}; lower the learning rate")

    def read_losses(self):
        """Read the losses that have not been read; waits for the device. FloatingPointError if one is not finite."""
        if self.unread:
            read = nn.to_numpy(self.model.compute.xp.stack(self.unread)).tolist()
            for step, loss in enumerate(read, start=len(self.losses)):
                self._check(loss, step)
            self.losses += read
            self.unread = []

    def run(self, steps=None, minutes=None):
        """Train on, yielding (step, loss), until `steps` steps are done in all, or for `minutes` from now.

        Towards the end the learning rate falls. A run that is continued goes on from the state before that, exactly.
        """
        steps, minutes = check_amount(steps, minutes)
        self.rewind(steps)
        start, fall = time.monotonic(), self.config.fall
        while True:
            done, amount = (self.steps_done, steps) if minutes is None else (time.monotonic() - start, 60 * minutes)
            if done >= amount:
                break
            done /= amount
            if done > 1 - fall and self.before_fall is None:
                self.before_fall = self._state()
            self.factor = 1.0 if self.before_fall is None else (1 - done) / fall
            loss = self.step()
            yield self.steps_done, loss
        self.read_losses()

    def rewind(self, steps=None):
        """Go back to the state before the learning rate fell, unless as many as `steps` steps are done. Whether it did."""
        if self.before_fall is None or (steps is not None and self.steps_done >= steps):
            return False
        self._set_state(self.before_fall)
        self.before_fall = None
        return True

    @contextlib.contextmanager
    def averaged(self):
        """A `with` block in which the model has its averaged weights and evaluates: to sample during training."""
        self.ema.swap()
        self.network.eval()
        try:
            yield self.model
        finally:
            self.network.train()
            self.ema.swap()

    def save(self, path):
        """Write everything that `restore` needs to continue exactly to the checkpoint `path`.

        FloatingPointError, writing nothing, where a loss, a weight, an average or a moment is not finite.
        """
        arrays = self._state() | {BEFORE + name: array for name, array in (self.before_fall or {}).items()}
        wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if wrong:  # an infinite moment of Adam would freeze its weight for good
            raise FloatingPointError(f"{wrong[0]} is not finite at step {self.steps_done}; lower the learning rate")
        checkpoint.save(path, arrays, self.config.as_dict())

    def restore(self, path):
        """Continue from the checkpoint `path`. CheckpointError if it is damaged or of another configuration."""
        config, arrays = read(path)
        older = [name for name in ("fingerprint", "class_shares") if not getattr(config, name)]  # they have none
        config = replace(config, **{name: getattr(self.config, name) for name in older})
        differ = "".join(
            f"\n  {name}: {getattr(config, name)!r} in the checkpoint, {getattr(self.config, name)!r} asked for"
            for name in config.differences(self.config)
        )
        if differ:
            raise checkpoint.CheckpointError(f"{path}: from another configuration:{differ}")
        with _fits(path):
            if config.schedule == OWN and not np.array_equal(arrays["schedule/beta"], self.model.schedule.beta):
                raise ValueError("the schedule handed over is another one")
            before = _group(arrays, BEFORE)
            if before:  # tried first: what is damaged raises now, and not when the run goes on
                self._set_state(before)
            self._set_state(arrays)
            self.before_fall = before or None

    def _state(self):
        """All that training changes, as arrays by name."""
        self.read_losses()
        arrays = {**_model_arrays(self.model), "losses": np.asarray(self.losses, dtype=np.float64)}
        for prefix, part in (("ema/", self.ema), ("adam/", self.optimiser)):
            arrays |= {prefix + name: array for name, array in part.state_dict().items()}
        return arrays

    def _set_state(self, arrays):
        """The inverse of `_state`. ValueError or KeyError where the arrays do not fit."""
        self.network.load_state_dict(_group(arrays, "model/"))
        self.ema.load_state_dict(_group(arrays, "ema/"))
        self.optimiser.load_state_dict(_group(arrays, "adam/"))
        losses = arrays["losses"]
        if losses.shape != (self.steps_done,) or losses.dtype != np.float64:
            raise ValueError(f"{self.steps_done} steps have as many losses, got {losses.dtype} {losses.shape}")
        self.losses, self.unread = losses.tolist(), []


def check_amount(steps, minutes):
    """Both as Python's numbers, or None. ValueError or TypeError unless one is given and can be meant."""
    if (steps is None) == (minutes is None):
        raise ValueError("say either how many steps in all, or how many minutes")
    return None if steps is None else whole("steps", steps), None if minutes is None else real("minutes", minutes)


def timesteps_for(diffusion, seed, step, n):
    """The timesteps of training step `step`: (n,) in 1..T, stratified over the range, in random order. (E36)"""
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, step]))
    return rng.permutation(diffusion.timesteps(n, rng))


# ==== models in files ====


def save(model, path):
    """Write `model` to `path`, one `.npz` without pickles: weights, configuration, and a schedule without a name."""
    checkpoint.save(path, _model_arrays(model), model.config.as_dict())


def load(path, device="cpu", workers=None, precision="fp32", network=None, average=True):
    """The model in a file that `save` wrote, or in a run (its folder or checkpoint), ready to sample from.

    device, workers, precision: as `Compute`. network: if `train` was given a network, an untrained one like it.
    average: for a run, take the averaged weights; if False, those of the last step.
    CheckpointError if the file is missing, damaged, or does not hold such a model.
    """
    return load_on(Compute(device, workers, precision), path, network, average)


def load_on(compute, path, network=None, average=True):
    """As `load`, on a given `Compute`."""
    config, arrays = read(path)
    schedule = None
    with _fits(path):
        if config.schedule == OWN:
            beta, alpha = arrays["schedule/beta"], arrays["schedule/alpha"]
            schedule = NoiseSchedule(beta, np.arange(len(beta)), alpha)
        model = Model(config, compute, network, schedule)
        model.network.load_state_dict(_group(arrays, "model/"))
        if "frozen" in arrays:
            for p, frozen in zip(model.network.named_tensors().values(), arrays["frozen"], strict=True):
                p.requires_grad = not frozen
        averaged = _group(arrays, "ema/")
        if average and (averaged or "losses" in arrays):  # of a run
            ema = nn.EMA(model.network.parameters(), config.ema_decay)
            ema.load_state_dict(averaged)
            ema.swap()
    model.network.eval()
    return model


def read(path):
    """The Config and the arrays in a checkpoint file, or in the folder of a run."""
    arrays, values = checkpoint.load(path)
    with _fits(path):
        return Config.from_dict(values), arrays


@contextlib.contextmanager
def _fits(path):
    """A `with` block that turns the errors of a checkpoint that does not fit the model into CheckpointError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        missing = "it has no " if isinstance(error, KeyError) else ""
        raise checkpoint.CheckpointError(f"{path}: not a checkpoint of such a model: {missing}{error}") from error


def _model_arrays(model):
    """The weights of a model, which are frozen, and its schedule if it has no name, as a checkpoint names them."""
    arrays = {f"model/{name}": array for name, array in model.network.state_dict().items()}
    frozen = np.array([not p.requires_grad for p in model.network.named_tensors().values()])
    arrays |= {"frozen": frozen} if frozen.any() else {}
    if model.config.schedule == OWN:
        arrays |= {"schedule/beta": model.schedule.beta, "schedule/alpha": model.schedule.alpha}
    return arrays


def _group(arrays, prefix):
    """The arrays whose names start with `prefix`, with the prefix removed from the names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
