"""Operations by the formulas of `torch.utils.flop_counter`, on the meta device: tensors that have a shape and nothing else.

Counted are matrix products, and so linear layers, attention and recurrences, and convolutions; a multiply-add is two. Not
counted are biases, norms, activations, softmax, pooling and whatever else takes numbers one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Result = TypeVar("Result")


def _times_vector(first: Tensor, *_: Any, **__: Any) -> int:
    return 2 * prod(first.shape)


# torch has no formula for a matrix times a vector, nor for a vector times a vector.
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten.mv: _times_vector,
    torch.ops.aten.dot: _times_vector,
}


def on_meta(make: Callable[[], Result]) -> Result:
    """What is made, without a number in it; a network as at inference."""
    with torch.device("meta"):
        made = make()
    if isinstance(made, nn.Module):
        made.to("meta").eval()  # constants that were made of numpy's arrays
    return made


def count_operations(run: Callable[[], object]) -> int:
    """Of a run on meta tensors."""
    with warnings.catch_warnings(), torch.no_grad(), torch.device("meta"), _Counter() as counter:
        warnings.simplefilter("ignore")  # recurrent layers warn that weights on no device are not laid out in one piece
        run()
    return counter.total


class _Counter(TorchDispatchMode):
    """Adds up every operation. One that was met with the same shapes is not worked out again: a recurrence repeats a step
    for every frame, and torch takes long to find a shape."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.met: dict[Any, tuple[Any, ...]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key = (func, _described(args), _described(tuple(kwargs.items())))
        if key in self.met:
            flops, shape, stride, dtype = self.met[key]
            self.total += flops
            return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        made = func(*args, **kwargs)
        formula = FORMULAS.get(func.overloadpacket)
        flops = formula(*args, **kwargs, out_val=made) if formula else 0
        self.total += flops
        # What shares its memory with what came in, as a slice does, must be made anew each time.
        if isinstance(made, Tensor) and not any(argument.alias_info for argument in func._schema.arguments):
            self.met[key] = (flops, made.shape, made.stride(), made.dtype)
        return made


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(_described(one) for one in value)
    return type(value), value
