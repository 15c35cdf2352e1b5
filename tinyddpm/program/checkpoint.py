"""A training run in one file: named arrays and a configuration. Next: train.py, which decides what goes in.

The file is a plain `.npz`, so `numpy.load` and `unzip` can look into it: `config.json`, and a `NAME.npy` for
each array. There is no pickle in it. Each member carries the zip's CRC-32, which catches any flipped bit.
"""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tinyddpm.data.files import write_atomically

__all__ = ["CheckpointError", "save", "load"]

FORMAT = "tinyddpm checkpoint"
VERSION = 1
_CONFIG = "config.json"
# What reading a damaged zip or array raises, from a wrong CRC to a flag that says "encrypted".
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
)


class CheckpointError(Exception):
    """A checkpoint that cannot be used: missing, damaged, or from another format or configuration."""


def save(path, arrays, config):
    """Write `arrays` (dict of name -> array or number) and `config` (a dict JSON can hold) to `path`.

    The file appears whole or not at all. The same contents give the same bytes.
    Raises TypeError for what cannot be stored: an array of objects, a CuPy array, a config that is not JSON.
    """
    arrays = {name: _storable(name, value) for name, value in arrays.items()}
    if not isinstance(config, dict):
        raise TypeError(f"config must be a dict, got {type(config).__name__}")
    about = {"format": FORMAT, "version": VERSION, "arrays": list(arrays), "config": config}
    try:
        about = json.dumps(about, allow_nan=False, indent=1).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"config cannot be written as JSON: {error}") from error
    with write_atomically(path) as file, zipfile.ZipFile(file, "w") as archive:
        # ZipInfo, rather than a bare name, so that the time of writing is not in the file.
        archive.writestr(zipfile.ZipInfo(_CONFIG), about)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load(path, expect=None):
    """Read a checkpoint: (arrays, config), in the order they were saved.

    Where `expect` is a dict, each of its keys must have that value in the saved configuration.
    Raises CheckpointError saying what is wrong; for another configuration, which keys differ and how.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            about = json.loads(archive.read(_CONFIG))
            _check_format(path, about)
            arrays = {name: _read_array(archive, name) for name in about["arrays"]}
    except _DAMAGE as error:
        raise CheckpointError(f"{path}: damaged, cut short, or not a checkpoint ({error})") from error
    if expect is not None:
        _check_config(path, about["config"], expect)
    return arrays, about["config"]


def _storable(name, value):
    if not isinstance(name, str):
        raise TypeError(f"the names of arrays must be str, got {name!r}")
    if not isinstance(value, np.ndarray | np.generic | int | float):
        raise TypeError(f"{name}: a checkpoint holds NumPy arrays and numbers, got {type(value).__name__}")
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"{name}: a checkpoint holds no arrays of objects")
    return array


def _read_array(archive, name):
    # read() checks the CRC over all of the member, so nothing is parsed before it is known to be whole.
    return np.lib.format.read_array(io.BytesIO(archive.read(name + ".npy")), allow_pickle=False)


def _check_format(path, about):
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a {FORMAT}")
    if about["version"] != VERSION:
        raise CheckpointError(f"{path}: format version {about['version']}, not {VERSION}, the one read here")


def _check_config(path, config, expect):
    expect = json.loads(json.dumps(expect))  # as it would have been saved: a tuple is a list
    missing = object()
    differ = [key for key, value in expect.items() if config.get(key, missing) != value]
    if differ:
        lines = [
            f"  {key}: {config.get(key, '(not set)')!r} in the checkpoint, {expect[key]!r} asked for" for key in differ
        ]
        raise CheckpointError("\n".join([f"{path}: from another configuration:", *lines]))
