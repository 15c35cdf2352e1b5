"""A stand-in for CuPy without a GPU: NumPy's numbers under CuPy's rules. `pytest --device strict` runs on it.

What lives on this device does not mix with NumPy's arrays, does not turn into one unasked, and comes to the host by
`.get()` alone, as with CuPy. Sums are arrays of no axes, not NumPy scalars. Each time the host would have to wait for
the device is counted in `synchronisations`. Kernels run as C++ (kernel_host.py) where a compiler is on the machine.
"""

import contextlib
import ctypes
import os
import sys
import types

import numpy as np

from device.kernel_host import COMPILER, RawModule

__all__ = ["COMPILER", "ndarray", "strict", "installed", "rounded", "synchronisations"]

waits = [0]


def synchronisations():
    """How often the host has waited for the device so far."""
    return waits[0]


def _waits(method):
    """A method of NumPy's array whose answer is a Python value: the host waits for it."""

    def wrapped(self, *args):
        waits[0] += 1
        return getattr(self._host, method)(*args)

    return wrapped


def _unwrap(value, what="an operation"):
    """The host arrays behind `value` and what it holds; TypeError for an array that is not on the device."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type <class 'numpy.ndarray'> in {what}: it is not on the device")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(item, what) for item in value)
    return value


def _wrap(value, base=None):
    """What NumPy gave, on the device. base: the array it may be a view of."""
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(value, base)
    return type(value)(_wrap(item, base) for item in value) if isinstance(value, (tuple, list)) else value


def _method(name):
    """A method of NumPy's array that stays on the device."""

    def wrapped(self, *args, **options):
        host = getattr(self._host, name)(*_unwrap(args, name), **{k: _unwrap(v, name) for k, v in options.items()})
        return _wrap(host, self)

    return wrapped


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on the device."""

    __slots__ = ("_host", "base", "__weakref__")
    __hash__ = None
    device = "the strict device"

    def __init__(self, host, base=None):
        self._host = np.asarray(host)
        shares = base is not None and self._host.base is not None and np.may_share_memory(self._host, base._host)
        self.base = (base if base.base is None else base.base) if shares else None

    dtype, shape, ndim = (property(lambda self, n=n: getattr(self._host, n)) for n in ("dtype", "shape", "ndim"))
    size, nbytes, strides = (property(lambda self, n=n: getattr(self._host, n)) for n in ("size", "nbytes", "strides"))
    flags, itemsize = (property(lambda self, n=n: getattr(self._host, n)) for n in ("flags", "itemsize"))
    T = property(lambda self: _wrap(self._host.T, self))
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.ctypes.data), doc="As CuPy's MemoryPointer.")
    __cuda_array_interface__ = property(lambda self: {**self._host.__array_interface__, "version": 3})

    def __array__(self, *args, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        name = ufunc.__name__
        hosts = [a._host if isinstance(a, ndarray) else _unwrap(a, name) for a in inputs]
        if ufunc is np.matmul and os.environ.get("CUPY_TF32") == "1" and all(a.ndim == 2 for a in hosts):
            hosts = [rounded(a, 11) if a.dtype == np.float32 else a for a in hosts]
        options = {k: _unwrap(v, name) for k, v in options.items()} | (
            {} if out is None else {"out": _unwrap(out, name)}
        )
        host = getattr(ufunc, method)(*hosts, **options)
        return out[0] if out is not None else _wrap(host)

    def __array_function__(self, function, kinds, args, options):
        if function in (np.copyto, np.savez, np.save):
            return NotImplemented
        name = function.__name__
        return _wrap(function(*_unwrap(args, name), **{k: _unwrap(v, name) for k, v in options.items()}))

    def get(self):
        waits[0] += 1
        return self._host.copy()

    item, tolist = _waits("item"), _waits("tolist")
    __float__, __int__, __bool__, __index__ = (_waits(f"__{n}__") for n in ("float", "int", "bool", "index"))

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return repr(self._host)

    def __getitem__(self, index):
        return ndarray(self._host[_index(index)], self)

    def __setitem__(self, index, value):
        self._host[_index(index)] = _unwrap(value, "an assignment")


def _index(index):
    """Indices may come from the host: CuPy moves them. What a mask picks has a size that the host must wait for."""
    parts = index if isinstance(index, tuple) else (index,)
    waits[0] += any(isinstance(part, ndarray) and part.dtype.kind == "b" for part in parts)
    host = tuple(part._host if isinstance(part, ndarray) else part for part in parts)
    return host if isinstance(index, tuple) else host[0]


for _name in (
    "sum",
    "mean",
    "max",
    "min",
    "any",
    "all",
    "std",
    "var",
    "cumsum",
    "clip",
    "round",
    "repeat",
    "copy",
    "dot",
    "ravel",
    "reshape",
    "transpose",
    "swapaxes",
    "take",
    "astype",
    "view",
    "argmax",
    "argsort",
    "squeeze",
    "prod",
    "fill",
):
    setattr(ndarray, _name, _method(_name))


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory.OutOfMemoryError, which is a MemoryError too."""


class _Module(types.ModuleType):
    """`cupy`: NumPy's functions, on the device."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found):
            return found

        def function(*args, **options):
            return _wrap(found(*_unwrap(args, name), **{k: _unwrap(v, name) for k, v in options.items()}))

        return function


def asarray(values, dtype=None):
    """`values` on the device, copied only if they have to move or to change."""
    if isinstance(values, ndarray):
        return values if dtype is None or values.dtype == dtype else values.astype(dtype)
    return ndarray(np.array(values, dtype=dtype))


def ascontiguousarray(array):
    return array if array.flags.c_contiguous else array.copy()


def asnumpy(array):
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


def as_strided(array, shape, strides):
    return ndarray(np.lib.stride_tricks.as_strided(_unwrap(array), shape, strides), array)


def scatter_add(array, index, values):
    """cupyx.scatter_add: entries picked twice get both."""
    np.add.at(array._host, _index(index), _unwrap(values, "scatter_add"))


def gemm_ex(
    handle,
    transpose_a,
    transpose_b,
    m,
    n,
    k,
    alpha,
    a,
    a_type,
    lda,
    b,
    b_type,
    ldb,
    beta,
    c,
    c_type,
    ldc,
    compute,
    algorithm,
):
    """cublasGemmEx by its documentation: C (m, n) = op(A) op(B) + beta C, each by columns; TF32 if `compute` says so."""

    def matrix(pointer, kind, stride, rows, columns):
        code, size = {0: ("f4", 4), 14: ("u2", 2)}[kind]
        assert stride >= rows, "cuBLAS refuses a leading dimension smaller than the rows"
        memory = (ctypes.c_char * (size * (stride * (columns - 1) + rows))).from_address(pointer)
        return np.lib.stride_tricks.as_strided(np.frombuffer(memory, code), (rows, columns), (size, size * stride))

    def factor(pointer, kind, stride, rows, columns, transposed):
        found = matrix(pointer, kind, stride, *((columns, rows) if transposed else (rows, columns)))
        found = (found.astype(np.uint32) << 16).view(np.float32) if kind == 14 else found
        found = rounded(found, 11) if compute == 77 else found
        return found.T if transposed else found

    assert {68: "fp32", 77: "tf32"}[compute] and algorithm == -1 and handle == "the handle" and c_type == 0
    one, zero = (ctypes.c_float.from_address(p).value for p in (alpha, beta))
    product = factor(a, a_type, lda, m, k, transpose_a) @ factor(b, b_type, ldb, k, n, transpose_b)
    result = matrix(c, c_type, ldc, m, n)
    result[...] = one * product + (zero * result if zero else 0)


def rounded(a, bits):
    """float32 rounded to the nearest number of so many significant bits, ties to even, by arithmetic."""
    mantissa, exponent = np.frexp(a.astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits).astype(np.float32)


strict, cupyx = _Module("cupy"), types.ModuleType("cupyx")
strict.__dict__.update(
    __version__="strict",
    ndarray=ndarray,
    asarray=asarray,
    array=asarray,
    asnumpy=asnumpy,
    RawModule=RawModule,
    ascontiguousarray=ascontiguousarray,
    lib=types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=as_strided)),
    cuda=types.SimpleNamespace(
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        cublas=types.SimpleNamespace(gemmEx=gemm_ex),
        device=types.SimpleNamespace(get_cublas_handle=lambda: "the handle"),
    ),
)
cupyx.scatter_add = scatter_add


@contextlib.contextmanager
def installed():
    """Inside this block `import cupy` gives the stand-in, and an array of it is known for CuPy's."""
    before = {name: sys.modules.get(name) for name in ("cupy", "cupyx")}
    sys.modules.update(cupy=strict, cupyx=cupyx)
    try:
        yield strict
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
