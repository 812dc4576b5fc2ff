"""Fractal attention: as torch operations, as numba kernels and as Triton kernels."""
