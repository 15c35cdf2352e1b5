"""One code path for NumPy and CuPy: what the source asks of `xp` is in both. Choosing a device."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import nn
from nn import array_module, choose_device, to_device, to_numpy, why_no_gpu

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("nn", "tinyddpm") for path in (ROOT / folder).rglob("*.py"))


def names_asked_of_xp(source):
    """{"exp", "lib.stride_tricks.as_strided", ...}: what follows a variable or an attribute called xp."""
    tree = ast.parse(source)
    inner = {id(child.value) for child in ast.walk(tree) if isinstance(child, ast.Attribute)}
    found = set()
    for current in ast.walk(tree):
        names = []
        outermost = isinstance(current, ast.Attribute) and id(current) not in inner
        while isinstance(current, ast.Attribute) and current.attr != "xp":
            names.append(current.attr)
            current = current.value
        if outermost and names and "xp" in (getattr(current, "attr", None), getattr(current, "id", None)):
            found.add(".".join(reversed(names)))
    return found - {"__name__"}


def missing_from(module, names):
    """The names that `module` does not have, submodules imported as needed."""

    def has(name):
        here = module
        for part in name.split("."):
            if not hasattr(here, part):
                try:
                    importlib.import_module(f"{here.__name__}.{part}")
                except ImportError:
                    return False
            here = getattr(here, part)
        return True

    return sorted(name for name in names if not has(name))


def test_the_walk_finds_what_is_asked_of_xp_and_nothing_else():
    source = "xp.exp(x.xp.lib.stride_tricks.as_strided(x).data) + b[0].xp.tanh(y) + np.tan(a.sum()) + x.xp"
    assert names_asked_of_xp(source) == {"exp", "lib.stride_tricks.as_strided", "tanh"}
    assert missing_from(np, {"exp", "fft.fft", "nothing", "linalg.nothing"}) == ["linalg.nothing", "nothing"]


@pytest.mark.parametrize("module", ["numpy", "cupy"])
def test_every_name_asked_of_xp_is_there(module):
    names = set().union(*(names_asked_of_xp(path.read_text()) for path in SOURCES))
    assert len(names) > 20
    xp = pytest.importorskip(module, reason=f"{module} cannot be imported", exc_type=ImportError)
    assert missing_from(xp, names) == []


# ==== choosing a device ====


class Elsewhere:
    """An array of another module, as far as nn.backend can tell."""

    ndim, shape, dtype = 2, (2, 2), np.dtype(np.float32)

    def get(self):
        return np.ones(self.shape, self.dtype)


def fake_cupy(ones, driver=12080, runtime=12090):
    """A CuPy whose arrays are made by the function `ones`; the versions of CUDA that its driver and it are for."""
    versions = types.SimpleNamespace(driverGetVersion=lambda: driver, runtimeGetVersion=lambda: runtime)
    return types.SimpleNamespace(
        __name__="cupy", __version__="14.0", ones=ones, ndarray=Elsewhere, cuda=types.SimpleNamespace(runtime=versions)
    )


def insufficient(*shape, dtype):
    raise OSError("cudaErrorInsufficientDriver")  # CuPy says so where there is none, too


BROKEN = {
    "not installed": (None, r"CuPy, which cannot be imported .*pip install 'tinyddpm\[cuda12\]'"),
    "no driver": (
        fake_cupy(insufficient, driver=0),
        "CuPy 14.0 .* no NVIDIA driver; install.*OSError: cudaErrorInsuff",
    ),
    "an old driver": (fake_cupy(insufficient, 11040), "too old: it is for CUDA 11.4, CuPy for CUDA 12.9; update"),
    "a GPU that is in a bad way": (
        fake_cupy(insufficient),
        "no GPU works: check nvidia-smi .*OSError: cudaErrorInsuff",
    ),
    "no CUDA at all": (
        types.SimpleNamespace(__version__="14.0", ndarray=Elsewhere),
        "no GPU works: check nvidia-smi .*AttributeError",
    ),
    "an array and nothing else": (types.SimpleNamespace(ndarray=Elsewhere), "CuPy of no version .* no GPU works"),
    "an empty folder": (types.ModuleType("cupy"), r"`import cupy` finds \[\], which is not CuPy; rename it"),
    "wrong sums": (fake_cupy(lambda shape, dtype: np.zeros(shape, dtype)), "sum of 0.0, not 64"),
}


@pytest.mark.parametrize("cupy, words", BROKEN.values(), ids=BROKEN.keys())
def test_cuda_that_cannot_run_is_refused_with_what_to_do_and_auto_takes_the_cpu(monkeypatch, cupy, words):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(RuntimeError, match=words) as caught:
        choose_device("cuda")
    assert str(caught.value).endswith("use device 'cpu'") and "--" not in str(caught.value)
    assert choose_device("auto") is np
    assert choose_device("cpu") is np
    assert why_no_gpu() == str(caught.value)
    assert array_module(np.ones(1)) is np and to_numpy(np.ones(1)) == 1  # whatever lies in sys.modules


BROKEN_FILES = {
    "an attribute that is gone": ("import numpy\nnumpy.no_such_name", "importing CuPy fails .AttributeError: .*again"),
    "a library that is gone": ("import ctypes\nctypes.CDLL('libnothing.so')", "importing CuPy fails .OSError: .*again"),
    "an import that is gone": ("import no_such_module", "needs CuPy, which cannot be imported .No module named 'no_s"),
    "an empty folder": (None, "`import cupy` finds .'/.*/cupy'., which is not CuPy; rename it"),
}


@pytest.mark.parametrize("text, words", BROKEN_FILES.values(), ids=BROKEN_FILES.keys())
def test_a_cupy_that_cannot_be_imported_is_refused_and_auto_takes_the_cpu(tmp_path, monkeypatch, text, words):
    (tmp_path / "cupy").mkdir()
    if text is not None:
        (tmp_path / "cupy" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    try:
        with pytest.raises(RuntimeError, match=words):
            choose_device("cuda")
        assert choose_device("auto") is np
        assert re.search(words, why_no_gpu())
        assert array_module(np.ones(1)) is np
    finally:
        sys.modules.pop("cupy", None)


def test_cuda_that_works_is_taken(monkeypatch):
    cupy = fake_cupy(lambda shape, dtype: np.ones(shape, dtype))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert choose_device("cuda") is cupy
    assert choose_device("auto") is cupy
    assert why_no_gpu() == ""


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="'cpu', 'cuda' or 'auto', got 'gpu'"):
        choose_device("gpu")


# ==== moving arrays ====


def test_moving_where_it_is_already_copies_nothing(xp):
    a = xp.arange(3.0)
    assert array_module(a) is xp
    assert to_device(a, xp) is a
    if xp is np:
        assert to_numpy(a) is a


def test_to_the_device_and_back(xp):
    a = np.arange(6.0).reshape(2, 3)
    there = to_device(a, xp)
    assert array_module(there) is xp
    np.testing.assert_array_equal(to_numpy(there), a)


def test_numpy_and_cupy_arrays_do_not_mix(monkeypatch):
    cupy = fake_cupy(ones=None)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert to_numpy(Elsewhere()).tolist() == [[1, 1], [1, 1]]
    assert nn.Tensor(Elsewhere()).xp is cupy
    with pytest.raises(
        TypeError, match=r"add: devices differ: float32 \(2, 2\) of numpy, float32 \(2, 2\) of cupy; .* nn.to_device"
    ):
        nn.Tensor(np.ones((2, 2), np.float32)) + Elsewhere()
    images, row, there = np.ones((1, 4, 4, 2), np.float32), np.ones(2, np.float32), nn.Tensor(Elsewhere())
    for op, call in {
        "matmul": lambda x: x @ there,
        "mse": lambda x: nn.mse(x, there),
        "where": lambda x: nn.where(row > 0, x, there),
        "conv2d": lambda x: nn.conv2d(nn.Tensor(images), there, x),
        "norm": lambda x: nn.layer_norm(x, x, there),
        "concatenate": lambda x: nn.concatenate([x, there]),
    }.items():
        with pytest.raises(TypeError, match=f"{op}: devices differ: float32 .* of numpy, float32 .* of cupy"):
            call(nn.Tensor(row))


# ==== memory ====

GLIBC = """
#include <stdio.h>
int mallopt(int parameter, int value) {
    int accepted = parameter == -1 || value <= LIMIT;
    printf("%d %d %d;", parameter, value >> 20, accepted);
    fflush(stdout);
    return accepted;
}
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
@pytest.mark.parametrize(
    "limit, calls",
    [
        ("(1 << 30)", "-3 1024 1;-1 1024 1;"),  # glibc since 2.35
        ("(32 << 20)", "-3 1024 0;-3 32 1;-1 1024 1;"),  # and before
        ("0", "-3 1024 0;-3 32 0;"),
    ],
    ids=["new", "old", "refuses"],
)
def test_the_c_library_is_not_left_with_half_of_the_settings(tmp_path, limit, calls):
    """By a `mallopt` that is found before that of the C library, and tells how it was called."""
    (tmp_path / "mallopt.c").write_text(GLIBC.replace("LIMIT", limit))
    library = tmp_path / "mallopt.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "mallopt.c"], check=True)
    done = subprocess.run(
        [sys.executable, "-c", "from nn.backend import keep_freed_memory as keep; keep(); keep()"],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(library)},
        cwd=ROOT,
    )
    assert done.stdout == calls, done.stderr
