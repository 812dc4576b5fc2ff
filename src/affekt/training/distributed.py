"""One process, or several that torchrun started: rank, number, and a model whose gradients are averaged over them."""

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
    """(rank, number of processes): joins the group that torchrun describes, or is (0, 1) without one."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    dist.init_process_group("gloo")  # for what trains on the CPU; a GPU will want nccl
    try:
        yield dist.get_rank(), dist.get_world_size()
        dist.barrier()
    finally:
        # A DDP wrapper that outlives its group keeps the group's threads, and the process then aborts as it ends.
        gc.collect()
        dist.destroy_process_group()


def shared(model: nn.Module) -> nn.Module:
    """The model as training calls it: wrapped where there are several processes, itself where there is one."""
    return DistributedDataParallel(model) if dist.is_initialized() else model


def averaged(gradients: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each over all processes, the same to the last bit in every one, in one exchange.

    For what DDP cannot know of: tensors that are not parameters, and gradients that never reach a `.grad`.
    """
    if not dist.is_initialized():
        return list(gradients)
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    means = (joined / dist.get_world_size()).split([gradient.numel() for gradient in gradients])
    return [mean.view(gradient.shape) for mean, gradient in zip(means, gradients, strict=True)]


def wait() -> None:
    """Until every process has come here."""
    if dist.is_initialized():
        dist.barrier()
