"""Count operations by the formulas of `torch.utils.flop_counter`, on the meta device, whose tensors have no data.

Matrix products (and so linear layers, attention and recurrences) and convolutions are counted; a multiply-add is two.
Biases, norms, activations, softmax, pooling and other elementwise work are not counted.
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


# torch has no formulas for matrix-vector and vector-vector products.
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten.mv: _times_vector,
    torch.ops.aten.dot: _times_vector,
}


def on_meta(make: Callable[[], Result]) -> Result:
    """Build tensors or a network on the meta device; a network is put in evaluation mode."""
    with torch.device("meta"):
        result = make()
    if isinstance(result, nn.Module):
        result.to("meta").eval()  # `to` for constants that were made from numpy arrays
    return result


def count_operations(run: Callable[[], object]) -> int:
    """Count the operations of a call on meta tensors."""
    with warnings.catch_warnings(), torch.no_grad(), torch.device("meta"), _Counter() as counter:
        warnings.simplefilter("ignore")  # recurrent layers warn that weights on the meta device are not contiguous
        run()
    return counter.total


class _Counter(TorchDispatchMode):
    """A sum of operations. Results are cached by the shapes of the arguments, since a recurrent layer repeats its step for
    every frame and torch derives shapes slowly."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.cache: dict[Any, tuple[Any, ...]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key = (func, _describe(args), _describe(tuple(kwargs.items())))
        if key in self.cache:
            flops, shape, stride, dtype = self.cache[key]
            self.total += flops
            return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        result = func(*args, **kwargs)
        formula = FORMULAS.get(func.overloadpacket)
        flops = formula(*args, **kwargs, out_val=result) if formula else 0
        self.total += flops
        # A result that shares memory with an argument, such as a slice, must be made each time.
        if isinstance(result, Tensor) and not any(argument.alias_info for argument in func._schema.arguments):
            self.cache[key] = (flops, result.shape, result.stride(), result.dtype)
        return result


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(_describe(item) for item in value)
    return type(value), value
