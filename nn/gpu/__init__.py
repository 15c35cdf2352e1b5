"""What a GPU does differently: kernels, each beside its plain version, and matrix products through cuBLAS."""

__all__ = []
