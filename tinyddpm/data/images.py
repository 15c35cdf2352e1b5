"""Images with their labels, as a run needs them, and the way of grey levels to the model and back. Next: load.py."""

import zlib
from dataclasses import dataclass

import numpy as np

from tinyddpm.data.progress import say

__all__ = ["DataError", "Dataset", "Data", "to_model", "from_model", "to_bits", "from_bits"]

MOST_CLASSES = 1 << 16  # a label beyond that is no class: a year, a time, a hash


class DataError(ValueError):
    """Data that is missing, damaged, not what its name says, or cannot be downloaded."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images of one size. images: uint8 (N, H, W) or (N, H, W, 3), N >= 1; labels: int64 (N,), 0, 1, ..., or None.

    A grey stack (N, H, W, 1) becomes (N, H, W); labels of any integer type become int64. DataError for anything else.
    `dataset[:1000]`, `dataset[mask]`, `dataset[[3, 1]]` are Datasets; `dataset[3]` is (image, label).
    """

    images: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self):
        object.__setattr__(self, "images", _checked_images(self.images))
        object.__setattr__(self, "labels", _checked_labels(self.labels, len(self.images)))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        shape = np.broadcast_to(0, len(self))[rows].shape  # IndexError if `rows` does not choose among the images
        if len(shape) > 1:
            raise IndexError(f"choose images by a number, a slice, a mask or a list of numbers, got {rows!r}")
        labels = None if self.labels is None else self.labels[rows]
        return Dataset(self.images[rows], labels) if shape else (self.images[rows], labels)

    def __repr__(self):
        labels = "no labels" if self.labels is None else "labels"
        return f"<{len(self)} images of {' x '.join(map(str, self.images.shape[1:]))}, {labels}>"


@dataclass(frozen=True, eq=False)
class Data:
    """What a model is trained and tested on. name: a name that `load_data` takes, or any other.

    Without `test`, a tenth of `train` is held out for it: the images whose bytes have the smallest CRC-32, so that the
    same images are held out whatever their order, and a copy of an image is mostly on the same side. Of fewer than 20
    images none is held out: `test` is `train`. Either is said on stderr.
    """

    name: str
    train: Dataset
    test: Dataset | None = None

    def __post_init__(self):
        if self.test is None:
            for part, dataset in zip(("train", "test"), _split(self.name, self.train), strict=True):
                object.__setattr__(self, part, dataset)
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DataError(f"images to train on and to test on differ in shape: {self.train} and {self.test}")
        if (self.train.labels is None) != (self.test.labels is None):
            raise DataError(f"either both or neither must have labels: {self.train} and {self.test}")

    @property
    def classes(self):
        """How many labels there are, 1 + the largest; 0 without labels."""
        return 0 if self.train.labels is None else 1 + int(max(self.train.labels.max(), self.test.labels.max()))

    @property
    def image(self):
        """The shape (H, W, C) of one image; C is 1 or 3."""
        return (*self.train.images.shape[1:], 1)[:3]


def _checked_images(images):
    if getattr(images, "dtype", None) != np.uint8:
        raise DataError(
            f"images must be an array of uint8, black 0 to white 255, got {getattr(images, 'dtype', type(images))}; "
            "floats in [0, 1] become that by (255 * images).round().astype(np.uint8)"
        )
    images = images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images
    is_grey, is_colour = images.ndim == 3 and images.shape[2] != 3, images.ndim == 4 and images.shape[3] == 3
    if 0 in images.shape or not (is_grey or is_colour):  # (H, W, 3) is one image
        raise DataError(f"images must be (N, H, W), grey, or (N, H, W, 3), colour, N >= 1, got {images.shape}")
    return np.ascontiguousarray(images)


def _checked_labels(labels, n):
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != (n,):
        raise DataError(f"labels must be integers, one for each of {n} images, got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise DataError(f"labels must be in 0..{MOST_CLASSES - 1}, got {labels.min()}..{labels.max()}")
    return labels.astype(np.int64)


def _split(name, dataset):
    """(train, test): a tenth of the images for test, or all of them for both if they are few."""
    n, held = len(dataset), len(dataset) // 10
    if n < 20:
        say(f"{name}: {n} images are too few to hold some out: the test images are the training images.")
        return dataset, dataset
    order = np.argsort([zlib.crc32(image.tobytes()) for image in dataset.images], kind="stable")
    say(f"{name}: {held} of {n} images are held out for test, those with the smallest CRC-32.")
    return dataset[np.sort(order[held:])], dataset[np.sort(order[:held])]


# ---- to the model and back ----


def to_model(images):
    """Levels k, uint8 (N, H, W) or (N, H, W, C), to float32 (N, H, W, C): 2k/255 - 1 in [-1, 1], what the model sees."""
    return (2 * _levels(images).astype(np.float32) - 255) / 255  # rounded once, so the ends are -1 and 1


def from_model(x):
    """Floats (N, H, W, C) to uint8 (N, H, W, C), or (N, H, W) if C = 1: the nearest level.

    Values outside [-1, 1] become 0 or 255.
    """
    return ((_pixels(x).clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)


def to_bits(images):
    """Levels, uint8 as for `to_model`, to float32 (N, H, W, C): 1 above 127.5 and 0 below; nothing is drawn."""
    return (_levels(images) > 127.5).astype(np.float32)


def from_bits(x):
    """Bits, or the probabilities of a 1, floats (N, H, W, C), to uint8 as `from_model` gives: 0 is black, 1 white."""
    return (_pixels(x).clip(0, 1) * 255).round().astype(np.uint8)


def _levels(images):
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(f"images must be uint8 (N, H, W) or (N, H, W, C), got {images.dtype} {images.shape}")
    return images[..., None] if images.ndim == 3 else images


def _pixels(x):
    if x.dtype.kind != "f" or x.ndim != 4:
        raise ValueError(f"x must be floating (N, H, W, C), got {x.dtype} {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinity")
    return x[..., 0] if x.shape[-1] == 1 else x
