"""Public data sets: where their files are looked for, and how they are fetched from mirrors. Next: files.py."""

import http.client
import os
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tinyddpm.data.files import write_atomically
from tinyddpm.data.images import DataError
from tinyddpm.data.progress import progress, say

__all__ = ["NoMirrorError", "Source", "read", "cache_directory"]


class NoMirrorError(DataError):
    """No mirror could give what is not in the cache; the message says what each answered."""


@dataclass(frozen=True)
class Source:
    """Where a public data set is to be had, and how its files are read.

    files: {name at the mirrors: (limit, decode)}. limit: the most bytes it may have as it is sent. decode(data, where):
    the arrays in these bytes; DataError, naming `where`, if they are not the published ones.
    """

    name: str  # of the data set, and of its directory
    mirrors: tuple  # addresses that end in a slash, asked in this order for each file
    files: dict
    timeout: float = 5.0  # seconds a mirror may be silent
    patience: float = 1800.0  # seconds it may take for one file


def read(source, data_dir=None):
    """{name: what its decode returns} of all files of `source`. DataError.

    A directory that was asked for, `data_dir` or else $TINYDDPM_DATA, is the only place looked in: its sub-directory
    of the data set's name if there is one, else itself; the files may be decompressed there. Without one, the user's
    cache is looked in, and what is missing or damaged there is downloaded.
    """
    asked = data_dir or os.environ.get("TINYDDPM_DATA")
    if asked:
        directory = Path(asked).expanduser()
        directory = directory / source.name if (directory / source.name).is_dir() else directory
        return {name: _read_one(directory, name, source) for name in source.files}
    cache, mirrors, said = cache_directory(source.name), list(source.mirrors), []
    return {name: _read_cached(cache / name, source, mirrors, said) for name in source.files}


def cache_directory(name):
    """Where this platform keeps what a program can fetch again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tinyddpm" / name


def _read_one(directory, name, source):
    _, decode = source.files[name]
    for path in (directory / name, directory / name.removesuffix(".gz")):
        if path.is_file():
            return decode(path.read_bytes(), path)
    raise DataError(f"there is no {directory / name}, nor the same without .gz")


def _read_cached(path, source, mirrors, said):
    """The arrays in the file, kept at `path`. Mirrors that fail are crossed off, and what each said is appended."""
    limit, decode = source.files[path.name]
    if path.exists():
        try:
            return decode(path.read_bytes(), path)
        except DataError as error:
            say(f"{error}\nThat is in the cache, so it is fetched again.")
    while mirrors:
        url = mirrors[0] + path.name
        try:
            data = _fetch(url, limit, source)
            arrays = decode(data, url)
        except DataError as error:
            said.append(str(error))
            del mirrors[0]
            continue
        with write_atomically(path) as file:
            file.write(data)
        return arrays
    raise NoMirrorError("\n  ".join([f"{source.name} could not be downloaded:", *said]))


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
            bar.total = int(response.headers.get("Content-Length", 0))
            while chunk := response.read1(1 << 16):
                data += chunk
                bar.update(len(chunk))
                if len(data) > limit:
                    raise DataError(f"{url}: too long: over {limit} bytes")
                if time.monotonic() > deadline:
                    raise DataError(f"{url}: too slow: {len(data)} bytes in {source.patience} seconds")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise error if isinstance(error, DataError) else DataError(f"{url}: {error}") from error
    return bytes(data)
