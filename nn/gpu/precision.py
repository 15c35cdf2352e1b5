"""How exactly a GPU multiplies matrices: in float32, TF32 or bfloat16. Everything else stays float32, always.

A tensor core multiplies numbers of fewer bits many times faster, and adds the products in float32. TF32 rounds each
factor to 10 bits of fraction, bfloat16 to 7. Weights, norms, losses and sums are not touched.
"""

import numpy as np

from nn.backend import array_module
from nn.gpu import kernels
from nn.scope import Scope

__all__ = ["PRECISIONS", "check_precision", "precision", "products_in", "matrix_product"]

PRECISIONS = ("fp32", "tf32", "bf16")
_precision = Scope("precision", "fp32")

# From NVIDIA's cublas_api.h: cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t; library_types.h: cudaDataType.
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _DEFAULT_ALGORITHM, _AS_IS, _TRANSPOSED = 68, 77, -1, 0, 1
_CUDA_TYPE = {"float32": 0, "uint16": 14}  # CUDA_R_32F; CUDA_R_16BF, whose bits we keep in a uint16


def check_precision(name, xp):
    """`name`, or ValueError: for an unknown one, and for another than "fp32" where `xp` is numpy."""
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    if name != "fp32" and xp is np:
        raise ValueError(
            f"precision {name} needs a GPU; on the CPU there is only fp32: use device 'cuda' or precision 'fp32'"
        )
    return name


def precision(name):
    """A `with` block in which products of two float32 matrices on a GPU are made in "fp32", "tf32" or "bf16"."""
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    return _precision.set(name)


def products_in(name, dtype):
    """Whether products of matrices of this dtype are made in the precision `name` here."""
    return _precision.get() == name and dtype == np.float32


def matrix_product(a, b, name=None):
    """a (..., I, J) @ b (..., J, K); of two matrices in the precision `name` or, by default, that of `precision`.

    A matrix of bfloat16, as kernels make it, is a uint16 one. CuPy's own `@` would do two matrices of float32 in TF32 if
    the environment variable CUPY_TF32 is set.
    """
    if isinstance(a, np.ndarray) or not a.ndim == b.ndim == 2 or not {a.dtype.name, b.dtype.name} <= _CUDA_TYPE.keys():
        return a @ b
    name = name or _precision.get()
    if name == "bf16":
        a, b = (m if m.dtype == np.uint16 else kernels.to_bfloat16(m) for m in (a, b))
    return _gemm(a, b, _COMPUTE_32F_FAST_TF32 if name == "tf32" else _COMPUTE_32F)


def _gemm(a, b, compute):
    """The product in float32 of two matrices of one type, by cuBLAS, which is told the precision of this one product.

    cuBLAS reads arrays column by column: to it, a row-major C = A B is C^T = B^T A^T, with B first.
    """
    cupy = array_module(a)
    (rows, inner), columns = a.shape, b.shape[1]
    product = cupy.empty((rows, columns), np.float32)
    if 0 in (rows, inner, columns):
        product[...] = 0
        return product
    a, a_operation, a_stride = _for_cublas(a)
    b, b_operation, b_stride = _for_cublas(b)
    one, zero, kind = np.array(1, np.float32), np.array(0, np.float32), _CUDA_TYPE[a.dtype.name]
    sizes, factors = (columns, rows, inner), (b.data.ptr, kind, b_stride, a.data.ptr, kind, a_stride)
    result = product.data.ptr, _CUDA_TYPE["float32"], columns
    handle, gemm = cupy.cuda.device.get_cublas_handle(), cupy.cuda.cublas.gemmEx
    start = handle, b_operation, a_operation, *sizes, one.ctypes.data
    gemm(*start, *factors, zero.ctypes.data, *result, compute, _DEFAULT_ALGORITHM)
    return product


def _for_cublas(matrix):
    """(array, operation, entries from one row to the next) of a matrix that lies by rows or, transposed, by columns."""
    if matrix.flags.f_contiguous and not matrix.flags.c_contiguous:
        return matrix, _TRANSPOSED, matrix.shape[0]
    return array_module(matrix).ascontiguousarray(matrix), _AS_IS, matrix.shape[1]
