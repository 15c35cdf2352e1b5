"""CUDA kernels on a machine without a GPU: compiled as C++ and run, thread after thread, or compiled by NVRTC.

The first is possible because no kernel of nn/gpu/kernels.cu waits for another thread.
"""

import ctypes
import functools
import hashlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

__all__ = ["COMPILER", "RawModule", "compile_for_gpu", "nvrtc"]

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

PRELUDE = """
#include <cmath>
#include <cstring>
using namespace std;
#define __global__
#define __device__ static inline
static thread_local struct { unsigned int x; } blockIdx, threadIdx, blockDim;
static inline unsigned int __float_as_uint(float x) { unsigned int bits; memcpy(&bits, &x, 4); return bits; }
"""
LAUNCH = """
extern "C" void launch_{name}(unsigned int blocks, unsigned int threads, {parameters})
{{
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) {name}({names});
}}
"""
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')


def parameters_of(code):
    """{kernel: ["const real* x", "int count", ...]}."""
    return {name: [" ".join(p.split()) for p in text.split(",")] for name, text in KERNEL.findall(code)}


@functools.cache
def compiled(code, options):
    """The shared library of the kernels in `code`."""
    launches = [
        LAUNCH.format(name=name, parameters=", ".join(kinds), names=", ".join(kind.split()[-1] for kind in kinds))
        for name, kinds in parameters_of(code).items()
    ]
    folder = Path(tempfile.mkdtemp(prefix="kernels-"))
    source = folder / f"{hashlib.sha256(code.encode()).hexdigest()[:8]}.cpp"
    source.write_text(PRELUDE + code + "".join(launches))
    library = source.with_suffix(".so")
    command = [COMPILER, "-O1", "-ffp-contract=off", "-shared", "-fPIC", *options, source, "-o", library]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(library)
    shutil.rmtree(folder)  # what is loaded stays
    return loaded


class RawModule:
    """As cupy.RawModule, for arrays of strict_device.py."""

    def __init__(self, code, options=()):
        self.loaded, self.kinds = compiled(code, options), parameters_of(code)

    def get_function(self, name):
        """launch(grid, block, arguments), which checks that each argument is what the kernel's parameter says."""
        launch, kinds = self.loaded["launch_" + name], self.kinds[name]

        def run(grid, block, arguments):
            assert len(grid) == len(block) == 1
            assert len(arguments) == len(kinds), f"{name} takes {kinds}, got {len(arguments)} arguments"
            given = [_argument(name, kind, value) for kind, value in zip(kinds, arguments, strict=True)]
            launch(ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), *given)

        return run


INT, WORD, SHORT, FLOAT, DOUBLE = map(np.dtype, ("int32", "uint32", "uint16", "float32", "float64"))
SCALARS = {"int": (INT, ctypes.c_int), "word": (WORD, ctypes.c_uint)}
REALS = {FLOAT: ctypes.c_float, DOUBLE: ctypes.c_double}
ENTRIES = {"word": {WORD}, "float": {FLOAT}, "unsigned short": {SHORT}, "real": {FLOAT, DOUBLE}}


def _argument(name, kind, value):
    """`value` as C takes it; a GPU would read an array of another type, or half of another number, without a word."""
    if "*" in kind:
        entry = kind.split("*")[0].replace("const", "").strip()
        assert value.dtype in ENTRIES[entry], f"{name}: {kind} was given {value.dtype}"
        assert value.flags.c_contiguous, f"{name}: {kind} was given an array that is not contiguous"
        return ctypes.c_void_p(value.data.ptr)
    assert isinstance(value, np.generic), f"{name}: {kind} was given {type(value).__name__}, whose width C cannot know"
    if kind.split()[0] == "real":
        return REALS[value.dtype](value)
    expected, make = SCALARS[kind.split()[0]]
    assert value.dtype == expected, f"{name}: {kind} was given {value.dtype}"
    return make(int(value))


# ==== NVRTC, the compiler of CuPy ====


@functools.cache
def nvrtc():
    """NVIDIA's run-time compiler, from its package on the package index or from the system, and why there is none.

    (library, "") or (None, reason). It opens a second library, with the headers, when it compiles: one that cannot find
    its second half is no compiler.
    """
    found = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in found.submodule_search_locations] if found else []
    bundled = [path for folder in folders for path in sorted(folder.glob("*/lib/libnvrtc.so.*"))]
    reasons = []
    for name in [*map(str, bundled), "libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "nvrtc64_120_0.dll"]:
        try:
            for half in Path(name).parent.glob("libnvrtc-builtins.so*") if "/" in name else ():
                ctypes.CDLL(str(half))  # what is loaded already needs no search
            library = ctypes.CDLL(name)
            _compiled_by(library, 'extern "C" __global__ void nothing(float* x) { x[0] = sqrtf(x[1]); }', ())
            return library, ""
        except (OSError, AttributeError, AssertionError) as error:
            reasons.append(str(error))
    return None, "NVRTC is not here (extra 'ctk'): " + reasons[0]


def compile_for_gpu(code, options):
    """The PTX of `code`; AssertionError with the compiler's log where it does not compile."""
    return _compiled_by(nvrtc()[0], code, options)


def _compiled_by(library, code, options):
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None) == 0
    flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), flags)
    part = "ProgramLog" if failed else "PTX"
    assert getattr(library, f"nvrtcGet{part}Size")(program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert getattr(library, f"nvrtcGet{part}")(program, text) == 0
    assert not failed, text.value.decode()
    return text.value.decode()
