"""Which model this is, and how it is trained: one flat configuration, kept in every checkpoint. Next: compute.py."""

import math
import operator
import zlib
from dataclasses import asdict, dataclass, field, fields

import numpy as np

import nn
from nn.options import whole
from tinyddpm.program.diffusions import DIFFUSIONS
from tinyddpm.program.unet import PRESETS, UNetConfig
from tinyddpm.schedule import named_schedule

__all__ = ["Config", "OWN"]

OPTIMISERS = {"muon": nn.Muon, "adam": nn.Adam}
OWN = "own"  # the name of a schedule, network or loss weight that was handed over as an object


def number(default, low, high=math.inf):
    """A field that holds an integer or a float, like its default, within low..high."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class Config:
    """Everything but the weights. `Config.of(data, ...)` takes data, image and classes from the data.

    data, data_options: as `load_data` took them; fingerprint: of its images and labels. image: (H, W, C). classes: the number of
    labels, 0 for none; class_shares: which share of the images has each, () where they are even.
    diffusion: a name in DIFFUSIONS. schedule: a name in SCHEDULES, T its steps; prediction: what the network's output
    means; schedule_options: of the schedule, such as {"high": 13.3, "low": -5.0} of even_log_snr. None takes the
    diffusion's default. preset: a name in PRESETS, None for what fits images and diffusion. unet:
    fields of UNetConfig that differ from the preset. "own" stands for an object handed over to `train`.
    shard: images that a core takes at a time, None for as many as fit its cache; no more than batch / shard cores work.
    loss_weight: a name in TRAINING_WEIGHTS (E22, E38). null_rate: how often a label is hidden, for guidance.
    optimiser: "muon" or "adam". fall: over which share of a run, at its end, the learning rate falls to 0 on a line.
    seed: of everything random.

    ValueError or TypeError for a field that cannot be meant, naming it and what is accepted.
    """

    data: str = "mnist"
    data_options: dict = field(default_factory=dict)
    fingerprint: str = ""
    image: tuple = (28, 28, 1)
    classes: int = number(10, 0)
    class_shares: tuple = ()
    diffusion: str = "gaussian"
    schedule: str | None = None
    schedule_options: dict = field(default_factory=dict)
    T: int = number(1000, 1)
    prediction: str | None = None
    preset: str | None = None
    unet: dict = field(default_factory=dict)
    loss_weight: str | None = None
    min_snr_gamma: float = number(5.0, 1e-6)
    batch: int = number(64, 1)
    shard: int | None = None
    learning_rate: float = number(2e-3, 1e-12)
    warmup_steps: int = number(100, 0)
    optimiser: str = "muon"
    fall: float = number(0.4, 0, 1)
    gradient_limit: float = number(1.0, 1e-12)
    ema_decay: float = number(0.999, 0, 1 - 1e-12)
    null_rate: float = number(0.1, 0, 1 - 1e-12)
    seed: int = number(0, 0, 2**32 - 1)

    def __post_init__(self):
        for one in fields(self):
            if "range" in one.metadata:
                self._set(
                    one.name, _checked(one.name, getattr(self, one.name), type(one.default), one.metadata["range"])
                )
        if self.shard is not None:
            self._set("shard", whole("shard", self.shard, least=1))
        self._set("image", tuple(operator.index(n) for n in self.image))
        if len(self.image) != 3 or min(self.image) < 1:
            raise ValueError(f"image must be (H, W, C), each at least 1, got {self.image}")
        shares = tuple(float(share) for share in self.class_shares) if self.classes else ()
        if shares and (len(shares) != self.classes or min(shares) < 0 or not math.isclose(sum(shares), 1)):
            raise ValueError(f"class_shares must be {self.classes} numbers of at least 0 whose sum is 1, got {shares}")
        self._set("class_shares", shares)
        self._set("data", str(self.data))  # a path too
        for name in ("unet", "data_options", "schedule_options"):
            self._set(name, {key: _plain(value) for key, value in getattr(self, name).items()})
        diffusion, of = _named("diffusion", self.diffusion, DIFFUSIONS), f" of {self.diffusion} diffusion"
        self._set("schedule", self.schedule or diffusion.default_schedule)
        self._set("prediction", self.prediction or next(iter(diffusion.predictions)))
        self._set("loss_weight", self.loss_weight or next(iter(diffusion.loss_weights)))
        self._set("preset", self.preset or (diffusion.grey_preset if self.image[2] == 1 else "base"))
        _named("prediction", self.prediction, diffusion.predictions, of)
        _named(
            "loss_weight",
            self.loss_weight,
            [*diffusion.loss_weights, *([OWN] if len(diffusion.loss_weights) > 1 else [])],
            of,
        )
        _named("optimiser", self.optimiser, OPTIMISERS)
        if _named("schedule", self.schedule, [*diffusion.schedules, OWN]) != OWN:
            try:
                named_schedule(self.schedule, self.T, **self.schedule_options)
            except TypeError as error:
                raise ValueError(f"schedule_options: {error}") from None
        if _named("preset", self.preset, [*PRESETS, OWN]) != OWN:
            self.unet_config()

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    @classmethod
    def of(cls, data, **options):
        """The configuration for these data; options: any other fields. A `classes` of 0 hides the labels."""
        own = {"data": data.name, "fingerprint": _fingerprint(data.train), "image": data.image, "classes": data.classes}
        if data.classes and options.get("classes", data.classes) == data.classes:
            own["class_shares"] = np.bincount(data.train.labels, minlength=data.classes) / len(data.train)
        return cls(**{**own, **options})

    @property
    def shares(self):
        """p(y), the share of each class: (classes,)."""
        return np.array(self.class_shares or [1 / self.classes] * self.classes)

    def unet_config(self):
        """The network's shape: the preset, with what this model fixes."""
        options = {"T": self.T, **DIFFUSIONS[self.diffusion].unet, **PRESETS[self.preset], **self.unet}
        unknown = options.keys() - {one.name for one in fields(UNetConfig)}
        if unknown:
            raise ValueError(f"unet has no fields {sorted(unknown)}; it has {[f.name for f in fields(UNetConfig)]}")
        if "multipliers" in options:
            options["multipliers"] = tuple(options["multipliers"])
        return UNetConfig(channels=self.image[2], classes=self.classes, **options)

    def differences(self, other):
        """The names of the fields in which the two differ; the path of the data does not count, but what is in it does."""
        names = [one.name for one in fields(self) if one.name not in ("data", "data_options")]
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def as_dict(self):
        """The fields, as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values):
        """The inverse of `as_dict`. A field that is missing, as in an older file, takes its default.

        A file that names no optimiser is older than that choice: Adam trained it, at a rate that did not fall, and its
        network was shown the image alone.
        ValueError for an unknown field, named.
        """
        values = {**values.get("model", {}), **values}  # until 0.1 the model's fields were nested
        values.pop("model", None)
        if "optimiser" not in values:
            values |= {"optimiser": "adam", "fall": 0.0}
            values["unet"] = {"fourier": 0, "extremes": False, **values.get("unet", {})}
            if not values.get("decay_steps"):
                values.pop("decay_steps", None)
        unknown = values.keys() - {one.name for one in fields(cls)}
        if unknown:
            raise ValueError(f"the configuration has unknown fields {sorted(unknown)}")
        return cls(**values)


def _checked(name, value, kind, limits):
    """`value` as a Python int or float within limits: NumPy's numbers become Python's, which JSON can hold."""
    low, high = limits
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        found = operator.index(value) if kind is int else float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {'an integer' if kind is int else 'a number'}, got {value!r}") from None
    if not low <= found <= high or not math.isfinite(found):
        raise ValueError(f"{name} must be finite and in {low}..{high}, got {found}")
    return found


def _fingerprint(dataset):
    """Tells one data set from another: a checksum of its images and labels."""
    arrays = [dataset.images] if dataset.labels is None else [dataset.images, dataset.labels]
    return "".join(f"{zlib.crc32(array):08x}" for array in arrays)


def _plain(value):
    """NumPy's numbers, alone or in a tuple, as Python's."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value


def _named(what, name, names, of=""):
    """The entry of that name in a table, or the name itself in a list; ValueError says which names there are."""
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}{of}; there are: {', '.join(names)}")
    return names[name] if isinstance(names, dict) else name
