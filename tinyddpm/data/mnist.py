"""MNIST and data sets in its format: four idx files of 28x28 grey images and their labels. Next: cifar.py.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits"; Xiao, Rasul and Vollgraf, "Fashion-MNIST" (2017):
60,000 + 10,000 images each, in ten classes. The idx format: two zero bytes, a type (8: uint8), the number of
dimensions, each dimension as big-endian uint32, the numbers.
"""

import gzip
import hashlib
import io
import math
import struct
import zlib
from functools import partial

import numpy as np

from tinyddpm.data.download import Source, read
from tinyddpm.data.images import Data, DataError, Dataset

__all__ = ["SOURCES", "idx_source", "load"]


def _decode(shape, digest, data, where):
    """The uint8 array of `shape` in the bytes of an idx file, gzipped or plain; `where` is for the errors."""
    header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    size = len(header) + math.prod(shape)
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(size + 1)  # one byte more than it should have, to see that it is too long
        except EOFError:
            raise DataError(f"{where}: cut short after {len(data)} compressed bytes") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{where}: damaged: {error}") from error
    if data[: len(header)] != header:
        found = data[: len(header)].hex()
        raise DataError(f"{where}: not an idx file of shape {shape}: begins {found}, expected {header.hex()}")
    if len(data) != size:
        more = "at least " if len(data) > size else ""
        raise DataError(f"{where}: holds {more}{len(data)} bytes, expected {size}")
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise DataError(f"{where}: not the published contents: SHA-256 is {found}, expected {digest}")
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape).copy()


def idx_source(name, mirrors, digests, n=(60_000, 10_000), **options):
    """The Source of a data set in MNIST's format, of n[0] + n[1] images.

    digests: SHA-256 of its four files (images and labels to train on, to test on), each decompressed, since the .gz
    differs between mirrors. options: other fields of a Source.
    """
    names = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    shapes = [shape for count in n for shape in ((count, 28, 28), (count,))]
    limits = [math.prod(shape) + 4096 for shape in shapes]
    files = [(limit, partial(_decode, *file)) for limit, *file in zip(limits, shapes, digests, strict=True)]
    return Source(name, mirrors, dict(zip(names, files, strict=True)), **options)


MNIST = idx_source(
    "mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
        "https://raw.githubusercontent.com/pyro-ppl/datasets/master/mnist/",
    ),
    digests=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
FASHION = idx_source(
    "fashion-mnist",
    mirrors=(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    digests=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
SOURCES = (MNIST, FASHION)  # load_data has them by their names


def load(source, data_dir=None):
    """The Data of one of SOURCES. data_dir: see `download.read`. DataError."""
    train_images, train_labels, test_images, test_labels = read(source, data_dir).values()
    return Data(source.name, Dataset(train_images, train_labels), Dataset(test_images, test_labels))
