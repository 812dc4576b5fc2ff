"""Fractal attention: in torch operations, in numba kernels for CPUs, and in Triton kernels for GPUs."""
