"""A training run in one file: named arrays and a configuration. Next: train.py.

The file is a plain `.npz`, so `numpy.load` and `unzip` can look into it: `config.json`, and a `NAME.npy` for
each array. There is no pickle in it. Each member carries the zip's CRC-32, which catches any flipped bit.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from tinyddpm.data.files import write_atomically

__all__ = ["CheckpointError", "RUN_FILE", "checkpoint_path", "save", "load"]

FORMAT = "tinyddpm checkpoint"
VERSION = 1
RUN_FILE = "checkpoint.npz"  # in the folder of a run
_CONFIG = "config.json"


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


def checkpoint_path(path):
    """The checkpoint file at `path`: itself if it ends in .npz, else the one in a run's folder."""
    path = Path(path)
    return path if path.suffix == ".npz" and not path.is_dir() else path / RUN_FILE


def load(path):
    """Read a checkpoint file, or the one in a run's folder: (arrays, config), in the order they were saved.

    Raises CheckpointError saying what is wrong.
    """
    path = checkpoint_path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such checkpoint") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            about = json.loads(archive.read(_CONFIG))
            _check_format(path, about)
            return {name: _read_array(archive, name) for name in about["arrays"]}, about["config"]
    except Exception as error:  # NumPy, json and zipfile raise a dozen kinds for a damaged file
        raise CheckpointError(f"{path}: damaged, cut short, or not a checkpoint ({error})") from error


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
