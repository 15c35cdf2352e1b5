"""MNIST: where its four files are looked for, how they are fetched, and how each is checked. Next: data.py.

LeCun, Cortes and Burges, "The MNIST database of handwritten digits": 60,000 + 10,000 images. The idx format:
two zero bytes, a type (8: uint8), the number of dimensions, each dimension as big-endian uint32, the numbers.
"""

import gzip
import hashlib
import http.client
import io
import math
import os
import struct
import sys
import time
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyddpm.data.files import write_atomically
from tinyddpm.data.progress import progress

__all__ = ["DataError", "NoMirrorError", "Source", "MNIST", "read_split", "cache_directory"]


class DataError(Exception):
    """Data that is missing, damaged, not what its name says, or cannot be downloaded."""


class NoMirrorError(DataError):
    """No mirror could give what is not in the cache; the message says what each answered."""


@dataclass(frozen=True)
class Source:
    """Where a data set is to be had, and what its files must be."""

    mirrors: tuple  # addresses that end in a slash, asked in this order for NAME.gz
    files: dict  # name -> (shape, SHA-256 of the decompressed file: the .gz differs between mirrors)
    timeout: float = 5.0  # seconds a mirror may be silent
    patience: float = 300.0  # seconds it may take for one file


MNIST = Source(
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
        "https://raw.githubusercontent.com/pyro-ppl/datasets/master/mnist/",
    ),
    files={
        "train-images-idx3-ubyte": (
            (60000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        "train-labels-idx1-ubyte": ((60000,), "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        "t10k-images-idx3-ubyte": ((10000, 28, 28), "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        "t10k-labels-idx1-ubyte": ((10000,), "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    },
)

_SPLITS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_split(split, data_dir=None, source=MNIST):
    """(images uint8 (N, 28, 28), labels uint8 (N,)) of the split "train" or "test".

    A directory that was asked for, `data_dir` or else $TINYDDPM_DATA, is the only place looked in. Without
    one, the user's cache directory is, and what is missing or damaged there is downloaded: all four files, so
    that the other split is there too when the network is not. Raises DataError.
    """
    names = _SPLITS[split]
    asked = data_dir or os.environ.get("TINYDDPM_DATA")
    if asked:
        return tuple(_read(Path(asked), name, source) for name in names)
    cache = cache_directory()
    _download(cache, [name for name in source.files if not (cache / f"{name}.gz").exists()], source)
    try:
        return tuple(_read(cache, name, source) for name in names)
    except DataError as error:
        print(f"{error}\nThat is in the cache, so it is fetched again.", file=sys.stderr)
        _download(cache, names, source)
        return tuple(_read(cache, name, source) for name in names)


def cache_directory():
    """Where this platform keeps what a program can fetch again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tinyddpm" / "mnist"


# ---- files ----


def _read(directory, name, source):
    """The array in NAME.gz or NAME of `directory`."""
    if not directory.is_dir():
        raise DataError(f"{directory}: no such directory; expected one that holds {name}.gz")
    for path in (directory / f"{name}.gz", directory / name):
        if path.is_file():
            return _decode(path.read_bytes(), path, *source.files[name])
    raise DataError(f"{directory}: holds neither {name}.gz nor {name}")


def _decode(data, where, shape, digest):
    """The uint8 array of `shape` in the bytes of an idx file, gzipped or plain; `where` is for the errors."""
    header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    size = len(header) + math.prod(shape)
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, where, size)
    if len(data) < len(header):
        raise DataError(f"{where}: holds {len(data)} bytes, expected {size}")
    if data[:4] != header[:4]:
        raise DataError(f"{where}: not an idx file: begins {data[:4].hex()}, expected {header[:4].hex()}")
    found = struct.unpack_from(f">{len(shape)}I", data, 4)
    if found != shape:
        raise DataError(f"{where}: is of shape {found}, expected {shape}")
    if len(data) != size:
        more = "at least " if len(data) > size else ""
        raise DataError(f"{where}: holds {more}{len(data)} bytes, expected {size}")
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise DataError(f"{where}: not the published contents: SHA-256 is {found}, expected {digest}")
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape).copy()


def _gunzip(data, where, size):
    """`data` decompressed, up to one byte more than `size`: enough to see that it is too long."""
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(size + 1)
    except EOFError:
        raise DataError(f"{where}: cut short after {len(data)} compressed bytes") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{where}: damaged: {error}") from error


# ---- mirrors ----


def _download(directory, names, source):
    """Fetch `names` into `directory`, each file whole and checked or not at all."""
    mirrors, said = list(source.mirrors), []
    for name in names:
        data = _ask(mirrors, name, said, source)
        try:
            with write_atomically(directory / f"{name}.gz") as file:
                file.write(data)
        except OSError as error:
            raise DataError(f"{directory}: cannot keep {name}.gz there: {error}") from error


def _ask(mirrors, name, said, source):
    """The checked bytes of NAME.gz from the first mirror that has them; those that fail are crossed off."""
    shape, digest = source.files[name]
    while mirrors:
        url = f"{mirrors[0]}{name}.gz"
        try:
            data = _fetch(url, math.prod(shape) + 4096, source)
            _decode(data, url, shape, digest)
            return data
        except DataError as error:
            said.append(str(error))
            del mirrors[0]
    raise NoMirrorError("\n  ".join(["MNIST could not be downloaded:", *said]))


def _fetch(url, limit, source):
    """The bytes at `url`, at most `limit` of them."""
    deadline = time.monotonic() + source.patience
    data = bytearray()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "tinyddpm"})
        with (
            progress(desc=url, unit="B", unit_scale=True) as bar,
            urllib.request.urlopen(request, timeout=source.timeout) as response,
        ):
            bar.total = length = int(response.headers.get("Content-Length", 0))
            while chunk := response.read1(1 << 16):
                data += chunk
                bar.update(len(chunk))
                if len(data) > limit:
                    raise DataError(f"{url}: too long: over {limit} bytes")
                if time.monotonic() > deadline:
                    raise DataError(f"{url}: too slow: {len(data)} bytes in {source.patience} seconds")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{url}: {error}") from error
    if len(data) < length:
        raise DataError(f"{url}: sent {len(data)} of {length} bytes")
    return bytes(data)
