"""Tests run with one thread per process: pytest-xdist starts one process per core.

The variables are set here because this file is imported before the first test module, and so before torch and numpy.
"""

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
