"""A test for tensors that only torch's own operations can handle."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def is_traced(x: Tensor) -> bool:
    """Return whether x may have no values that a kernel could read.

    This is the case if a graph is being traced, a `torch.func` transform is active, x has only a shape (on the device
    "meta"), or x is of a subclass of Tensor other than Parameter, such as torch's FakeTensor.
    """
    tracing = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    transformed = tracing or torch._C._are_functorch_transforms_active()
    return transformed or x.is_meta or type(x) not in (Tensor, nn.Parameter)
