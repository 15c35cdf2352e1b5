"""Images to learn from: MNIST, or digits drawn here. Next: mnist.py (its files, mirrors) and glyphs.py."""

import sys
from dataclasses import dataclass

import numpy as np

from tinyddpm.data import glyphs, mnist
from tinyddpm.data.mnist import DataError

__all__ = ["load", "Dataset", "to_model", "from_model", "to_bits", "from_bits", "DataError", "NAMES", "SPLITS"]

NAMES = ("auto", "mnist", "glyphs")
SPLITS = ("train", "test")
_GLYPHS = {"train": 20_000, "test": 2_000}


@dataclass(frozen=True)
class Dataset:
    """Labelled images. images: uint8 (N, 28, 28), white on black; labels: uint8 (N,) in 0..classes - 1."""

    images: np.ndarray
    labels: np.ndarray
    name: str  # what it really is: "mnist" or "glyphs"
    classes: int

    def __len__(self):
        return len(self.images)


def load(name="auto", split="train", data_dir=None, source=mnist.MNIST):
    """The data set `name`, as a `Dataset`.

    name: "mnist" (60,000 and 10,000 images), from `data_dir`, or else $TINYDDPM_DATA, or else the user's
    cache, which is filled from public mirrors; "glyphs" (20,000 and 2,000), digits drawn here; "auto", MNIST
    or, where it cannot be downloaded, glyphs, and stderr is told.
    split: "train" or "test". source: the mirrors, and what MNIST's files must be.
    Raises ValueError for another name or split; DataError where MNIST cannot be had, and, for "auto" too,
    where a directory that was asked for does not hold it.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if name == "glyphs":
        return _glyphs(split)
    try:
        images, labels = mnist.read_split(split, data_dir, source)
    except mnist.NoMirrorError as error:
        if name == "mnist":
            raise
        print(_INSTEAD.format(error=error), file=sys.stderr, flush=True)
        return _glyphs(split)
    return Dataset(images, labels, "mnist", classes=10)


_INSTEAD = """
*** This is NOT MNIST. {error}
*** Instead, digits drawn by tinyddpm itself are used (--data glyphs). To use MNIST without a network, put its
*** four .gz files into a directory and name it with --data-dir or the environment variable TINYDDPM_DATA.
"""


def _glyphs(split):
    images, labels = glyphs.draw(_GLYPHS[split], seed=SPLITS.index(split))
    return Dataset(images, labels, "glyphs", classes=10)


def to_model(images):
    """Levels k, uint8 (N, H, W), to float32 (N, H, W, 1): 2k/255 - 1 in [-1, 1], what the model sees."""
    return (2 * _levels(images).astype(np.float32) - 255) / 255  # rounded once, so the ends are -1 and 1


def from_model(x):
    """Floats (N, H, W, 1) to uint8 (N, H, W): the nearest level; what is outside [-1, 1] becomes 0 or 255."""
    return ((_pixels(x).clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)


def to_bits(images):
    """Levels, uint8 (N, H, W), to float32 (N, H, W, 1): 1 above 127.5 and 0 below, always alike, nothing is drawn."""
    return (_levels(images) > 127.5).astype(np.float32)


def from_bits(x):
    """Bits, or the probabilities of a 1, floats (N, H, W, 1), to uint8 (N, H, W): 0 is black, 1 white."""
    return (_pixels(x).clip(0, 1) * 255).round().astype(np.uint8)


def _levels(images):
    if images.dtype != np.uint8 or images.ndim != 3:
        raise ValueError(f"images must be uint8 (N, H, W), got {images.dtype} {images.shape}")
    return images[..., None]


def _pixels(x):
    if x.dtype.kind != "f" or x.ndim != 4 or x.shape[-1] != 1:
        raise ValueError(f"x must be floating (N, H, W, 1), got {x.dtype} {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinity")
    return x[..., 0]
