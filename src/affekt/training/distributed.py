"""Train in one process, or in several that torchrun started and that average their gradients."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from affekt.errors import BadConfig

TIMEOUT = timedelta(days=7)
"""How long processes wait for one another. It is long because the first process may compute features for days; if a process
dies, torchrun ends the others."""


def num_processes() -> int:
    """Return the number of processes that torchrun started to train one model; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def local_device(device: str) -> str:
    """Return the device of this process. Under torchrun, each process on a machine uses a different GPU.

    Args:
        device: The device of the recipe, such as "cpu" or "cuda".

    Raises:
        BadConfig: The recipe names one GPU for all processes, or the machine has fewer GPUs than processes.
    """
    if num_processes() == 1 or torch.device(device).type != "cuda":
        return device
    if torch.device(device).index is not None:
        raise BadConfig(f"device = {device!r} would put all processes on one GPU: with torchrun, set device = 'cuda'")
    rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if rank >= gpus:
        raise BadConfig(
            f"torchrun started a process for GPU {rank}, but this machine has {gpus}: lower --nproc-per-node"
        )
    return f"cuda:{rank}"


@contextlib.contextmanager
def processes(device: str = "cpu") -> Iterator[tuple[int, int]]:
    """Join the process group that torchrun describes; yield rank and number of processes, (0, 1) without torchrun.

    Args:
        device: The device of the recipe, as for `local_device`. GPUs exchange tensors with NCCL, CPUs with gloo.

    Raises:
        BadConfig: As for `local_device`.
    """
    if num_processes() == 1:
        yield 0, 1
        return
    own = torch.device(local_device(device))
    if own.type == "cuda":
        torch.cuda.set_device(own)  # NCCL uses the current device for what has no tensor, such as a barrier
    dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo", timeout=TIMEOUT)
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
    """Return the mean of each gradient over all processes. The means are bit-identical in all processes.

    Use it for gradients that DDP does not average, because their tensors are not parameters or they are not in `.grad`.
    """
    if not dist.is_initialized():
        return list(gradients)
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    means = (joined / dist.get_world_size()).split([gradient.numel() for gradient in gradients])
    return [mean.view(gradient.shape) for mean, gradient in zip(means, gradients, strict=True)]


def process_rank() -> int:
    """Return the number of this process among those that train one model, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Wait until every process has reached this point."""
    if dist.is_initialized():
        dist.barrier()


@contextlib.contextmanager
def first_process_first(rank: int) -> Iterator[None]:
    """Run a block in the first process, and only then in the others, so that they can read what the first has written."""
    if rank:
        wait()
    yield
    if not rank:
        wait()
