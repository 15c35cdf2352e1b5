"""NumPy or CuPy behind one name, `xp`: which module an array belongs to, and how to move it. Next: scope.py."""

import ctypes
import functools
import sys

import numpy as np

__all__ = ["array_module", "choose_device", "why_no_gpu", "to_device", "to_numpy", "keep_freed_memory"]


def array_module(array):
    """The module that made `array`: `cupy` for a CuPy array, else `numpy`."""
    if type(array) is np.ndarray:  # the fast path: this runs several times for every op
        return np
    cupy = sys.modules.get("cupy")  # before `import cupy` has finished there can be no CuPy array
    return cupy if isinstance(array, getattr(cupy, "ndarray", ())) else np


def choose_device(device="cpu"):
    """The array module of `device`: "cpu" (NumPy), "cuda" (CuPy), or "auto" (CuPy if it works here, else NumPy).

    `why_no_gpu` says why "auto" took NumPy. Raises ValueError for another name. Raises RuntimeError, which says what to
    do, if "cuda" was asked for and cannot run.
    """
    if device not in ("cpu", "cuda", "auto"):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'auto', got {device!r}")
    if device == "cpu":
        return np
    if device == "auto" and why_no_gpu():
        return np
    return _working_cupy()


def why_no_gpu():
    """Why no GPU can be used here, and what to do about it; "" if one can be used."""
    try:
        _working_cupy()
    except RuntimeError as error:
        return str(error)
    return ""


def _working_cupy():
    """CuPy, after one small allocation and one matrix product: `import cupy` succeeds without a GPU."""
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(
            f"a GPU needs CuPy, which cannot be imported ({error}); "
            "pip install 'tinyddpm[cuda12]' or 'tinyddpm[cuda13]', or use device 'cpu'"
        ) from error
    except Exception as error:  # a broken installation, or one for another version of Python or NumPy
        raise RuntimeError(
            f"importing CuPy fails ({type(error).__name__}: {error}); install it again, or use device 'cpu'"
        ) from error
    if not hasattr(cupy, "ndarray"):  # an empty folder of this name can be imported too
        found = getattr(cupy, "__file__", None) or list(getattr(cupy, "__path__", ()))
        raise RuntimeError(f"`import cupy` finds {found}, which is not CuPy; rename it, or use device 'cpu'")
    try:
        ones = cupy.ones((4, 4), dtype="float32")
        total = float((ones @ ones).sum())
    except Exception as error:  # CuPy raises a different class for each missing piece: driver, runtime, cuBLAS
        raise RuntimeError(
            f"CuPy {getattr(cupy, '__version__', 'of no version')} is installed but no GPU works: {_what_is_wrong(cupy)} "
            f"({type(error).__name__}: {error}); or use device 'cpu'"
        ) from error
    if total != 64.0:
        raise RuntimeError(f"the GPU multiplied two 4x4 matrices of ones to a sum of {total}, not 64; use device 'cpu'")
    return cupy


def _what_is_wrong(cupy):
    """What a user can do about a GPU that does not work. Compares the CUDA versions of the driver and of CuPy."""
    try:
        driver, runtime = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    except Exception:  # a CuPy so broken that it cannot even be asked
        return "check nvidia-smi"
    if driver == 0:
        return "there is no NVIDIA driver; install one, and check it with nvidia-smi"
    if driver // 1000 < runtime // 1000:
        named = [f"CUDA {version // 1000}.{version % 1000 // 10}" for version in (driver, runtime)]
        return f"the driver is too old: it is for {named[0]}, CuPy for {named[1]}; update it, or take another CuPy"
    return "check nvidia-smi"


def to_device(array, xp):
    """`array` as an array of the module `xp` (`numpy` or `cupy`), copied only if it has to move."""
    return to_numpy(array) if xp is np else xp.asarray(array)


def to_numpy(array):
    """`array` in host memory, as a NumPy array."""
    return array.get() if array_module(array) is not np else np.asarray(array)


@functools.cache
def keep_freed_memory():
    """Ask the C library to keep freed memory for the next array. Only glibc (on Linux) can be asked.

    By default glibc returns large blocks to the system at once. Every new large array then costs page faults: a tenth
    to a fifth of the time of a training step.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda parameter, value: 0)  # musl has none; 0 is "refused"
        m_trim_threshold, m_mmap_threshold = -1, -3
        # Before version 2.35, glibc accepts 32 MiB at most. If it accepts neither, leave the second threshold alone:
        # setting it would stop glibc from adapting the first one to the program.
        if mallopt(m_mmap_threshold, 1 << 30) or mallopt(m_mmap_threshold, 32 << 20):
            mallopt(m_trim_threshold, 1 << 30)
