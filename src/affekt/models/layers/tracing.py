"""Whether a computation can be done outside of torch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def traced(x: Tensor) -> bool:
    """Whether x holds no numbers to compute with at once: a graph is being made, a transform follows (`torch.func`), or there
    is a shape alone."""
    graph = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    followed = graph or torch._C._are_functorch_transforms_active()
    return followed or x.is_meta or type(x) not in (Tensor, nn.Parameter)
