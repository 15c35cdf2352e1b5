"""`load_data`: a data set by its name, or one's own by its path. Next: own.py."""

from functools import partial
from pathlib import Path

from tinyddpm.data import cifar, glyphs, mnist, own
from tinyddpm.data.download import NoMirrorError
from tinyddpm.data.images import Data, DataError, Dataset
from tinyddpm.data.progress import say

__all__ = ["load_data", "DATASETS"]


def load_data(name="auto", data_dir=None, size=None, fit="crop"):
    """The `Data` of this name or path.

    name: "mnist", "fashion-mnist" (60,000 + 10,000 grey images of 28x28) or "cifar10" (50,000 + 10,000 in colour, of
    32x32): from `data_dir`, or else $TINYDDPM_DATA, or else the user's cache, which is filled from public mirrors;
    "glyphs" (20,000 + 2,000, as MNIST's), digits drawn here, which need nothing; "auto", MNIST or, where it cannot be
    downloaded, glyphs, and stderr is told; else the path of a .npy, a .npz or a folder of images (see own.py).
    size: (H, W), for a folder only: every image is made that large. fit: "crop" keeps its shape, "stretch" all of it.
    Raises DataError, a ValueError, for another name and for data that cannot be had or used.
    """
    if isinstance(name, str) and name in DATASETS:
        if size is not None:
            raise DataError(f"size is for a folder of images; those of {name} have one")
        return DATASETS[name](data_dir)
    path = Path(name).expanduser()
    if not path.exists():
        raise DataError(f"{str(name)!r} is no file or folder, and no data set: those are {', '.join(DATASETS)}")
    return own.read(path, size, fit)


def _glyphs(data_dir=None):
    return Data("glyphs", *(Dataset(*glyphs.draw(n, seed)) for seed, n in enumerate((20_000, 2_000))))


def _auto(data_dir=None):
    try:
        return DATASETS["mnist"](data_dir)
    except NoMirrorError as error:
        say(_INSTEAD.format(error=error))
        return DATASETS["glyphs"](data_dir)


_INSTEAD = """
*** This is NOT MNIST. {error}
*** Instead, digits drawn by tinyddpm itself are used (the data set "glyphs"). To use MNIST without a network, put its
*** four .gz files into a directory and name it: as data_dir, or by the environment variable TINYDDPM_DATA.
"""

# Each name with a function of data_dir that returns a Data. A data set is added by one entry, here or from outside.
DATASETS = {"auto": _auto, "glyphs": _glyphs, "cifar10": partial(cifar.load, cifar.SOURCE)}
DATASETS |= {source.name: partial(mnist.load, source) for source in mnist.SOURCES}
