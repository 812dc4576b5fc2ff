"""Train in one process, or in several that torchrun started and that average their gradients."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@contextlib.contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """Join the process group that torchrun describes; yield rank and number of processes, (0, 1) without torchrun."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    dist.init_process_group("gloo")  # for the CPU; GPUs would need nccl
    try:
        yield dist.get_rank(), dist.get_world_size()
        dist.barrier()
    finally:
        # A DDP wrapper that outlives its group keeps the group's threads, and the process then aborts on exit.
        gc.collect()
        dist.destroy_process_group()


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Return the module that training calls: the model itself, or its DDP wrapper if there are several processes."""
    return DistributedDataParallel(model) if dist.is_initialized() else model


def average_gradients(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean of each gradient over all processes, bit-identical in all of them, in one exchange.

    Use it for gradients that DDP does not average, because their tensors are not parameters or they are not in `.grad`.
    """
    if not dist.is_initialized():
        return list(gradients)
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    means = (joined / dist.get_world_size()).split([gradient.numel() for gradient in gradients])
    return [mean.view(gradient.shape) for mean, gradient in zip(means, gradients, strict=True)]


def wait() -> None:
    """Wait until every process has reached this point."""
    if dist.is_initialized():
        dist.barrier()
