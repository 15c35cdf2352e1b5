"""The files of others that the page is made of: Python in WebAssembly, NumPy, and four small packages of Python.

Each is named with its SHA-256. It is taken from a folder, or from the packages that carry it, and checked.
"""

import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

__all__ = ["collect", "found_in", "SHA256"]

PYODIDE = "314.0.3"
NUMPY = "numpy-2.4.3-cp314-cp314-pyemscripten_2026_0_wasm32.whl"
SHA256 = {
    "pyodide.mjs": "5cfc46f5dcbaf2a16f26e2363f441873eb424762609cc03db00d6a2ace4d00e5",
    "pyodide.asm.mjs": "1a9775427ef6e8abaa7db88ece0515422d1886915ae5c9093776410c865dfd8d",
    "pyodide.asm.wasm": "e7f8fac36f8bf11085309cbc5c829b3ec3057c18bf1d73b05a6741612d63cdbf",
    "python_stdlib.zip": "444c770dfd75a32097fc0a7d5c1413fd3140601f49c3a1f2e9af0376fcd124b4",
    NUMPY: "0cad9c1b91f0082e4f959bc0e0bf5835a2efbba6ab3b1e9d1fe6e7e564cca98e",
    "threadpoolctl-3.8.0-py3-none-any.whl": "f1b49c82704d50f13ffae019c727b0fa4f6791a58f48f06a09c45face1be66da",
    "cloudpickle-3.1.3-py3-none-any.whl": "1654f4f18e416447210a63c5c25a135d65a292156aa5fa519dfa4baf7726dddb",
    "hypothesis-6.155.7-py3-none-any.whl": "9f634bdb1f9e9b8ab6ba09431cf2deedb750c96978125a6fb3c5a0f6c6db4131",
    "sortedcontainers-2.4.0-py2.py3-none-any.whl": "a163dcaede0f1c021485e957a39245190e74249897e2ae4b2aa38595db237ee0",
}


def collect(folder):
    """{name: path} of every file in SHA256: those found anywhere in `folder`, and the others fetched into it.

    Raises RuntimeError naming what is missing, and what was tried.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found, tried = found_in(folder), []
    for fetch in (_from_npm, _from_pip, _from_release, _from_carrier):
        if len(found) == len(SHA256):
            break
        print(f"fetching {', '.join(SHA256.keys() - found)}: {fetch.__doc__}", flush=True)
        try:
            for name, content in fetch(SHA256.keys() - found, folder).items():
                if _is(name, content):
                    (folder / name).write_bytes(content)
        except (OSError, subprocess.SubprocessError) as error:
            tried.append(f"\n  {fetch.__doc__} {error}")
        found = found_in(folder)
    if missing := sorted(SHA256.keys() - found):
        raise RuntimeError(f"{folder} lacks {', '.join(missing)}; tried:{''.join(tried)}")
    return found


def found_in(folder):
    """{name: path} of the files in SHA256 that lie anywhere in `folder`, with the right bytes."""
    return {
        path.name: path for path in sorted(folder.rglob("*")) if path.is_file() and _is(path.name, path.read_bytes())
    }


def _is(name, content):
    """Whether these bytes are the file of that name."""
    return name in SHA256 and hashlib.sha256(content).hexdigest() == SHA256[name]


def _from_npm(names, _):
    """Pyodide's core, from its npm package."""
    if not shutil.which("npm"):
        raise FileNotFoundError("there is no npm")
    with tempfile.TemporaryDirectory() as folder:
        _run(["npm", "pack", "--silent", f"pyodide@{PYODIDE}"], folder)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            return {Path(one.name).name: archive.extractfile(one).read() for one in archive if one.isfile()}


def _from_pip(names, _):
    """The packages of pure Python, by pip."""
    wanted = ["==".join(name.split("-")[:2]) for name in names if name.endswith("-none-any.whl")]
    return _downloaded(wanted) if wanted else {}


def _from_release(names, folder):
    """NumPy's wheel, from Pyodide's release, whose address its own core names."""
    core = folder / "pyodide.mjs"
    if NUMPY not in names or not core.exists():
        return {}
    address = re.search(r"https://[^`]+/full/", core.read_text("utf-8"))[0]
    with urllib.request.urlopen(re.sub(r"\$\{\w+\}", PYODIDE, address) + NUMPY, timeout=30) as answer:
        return {NUMPY: answer.read()}


def _from_carrier(names, _):
    """Pyodide with NumPy, from a Python package that carries both (100 MB)."""
    (wheel,) = _downloaded(["open-webui==0.12.4"]).values()
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        return {Path(one).name: archive.read(one) for one in archive.namelist() if Path(one).name in names}


def _downloaded(requirements):
    """{name: bytes} of the wheels of these requirements, by pip; none is for this machine alone."""
    with tempfile.TemporaryDirectory() as folder:
        for_any = [
            "--only-binary=:all:",
            "--platform=any",
            "--python-version=3.12",
            "--implementation=py",
            "--abi=none",
        ]
        _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", *for_any, *requirements], folder)
        return {path.name: path.read_bytes() for path in Path(folder).glob("*.whl")}


def _run(command, folder):
    """Run a command in a folder; its last line of complaint becomes the error's message."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise OSError(f"{command[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
