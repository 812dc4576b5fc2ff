"""The test whether a tensor must be handled by torch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def is_traced(x: Tensor) -> bool:
    """Return whether x may lack actual values, so that no compiled kernel can read it.

    This is the case while a graph is traced or a `torch.func` transform is active, and for a tensor that has only a shape
    (on the device "meta") or is of a subclass of Tensor other than Parameter, such as torch's FakeTensor.
    """
    tracing = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    transformed = tracing or torch._C._are_functorch_transforms_active()
    return transformed or x.is_meta or type(x) not in (Tensor, nn.Parameter)
