"""Compare two implementations of key-sparse attention: products with only the kept keys, or with all keys.

    python benchmarks/key_sparse.py [--runs 9] [--threads 1] [--sizes layer|short|model ...] [--precision bfloat16]

"before" computes the weights of all keys for all utterances at once, sets those of the keys that are not kept to zero,
and multiplies all weights with all values. "now" is `affekt.models.ks_transformer.attention`, which uses
`kernel.attend_to_selected` if a head has at least `MIN_SCORES` scores. "layer" is one attention layer with its four
projections, at the paper's 460 frames of speech, at the widths of its streams and at other lengths. "short" uses this
kernel below the threshold too; the threshold was chosen from these times. "model" is `ks_transformer` at the paper's
sizes and its small preset. A step is forward and backward, with a dropout of 0.1; forward is without gradient and
dropout. Both sides have the same weights and are checked to return the same before anything is timed. Times are medians
in milliseconds of alternating turns. Writes results/key_sparse.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from harness import clock_for, interleaved, table, write
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.models.ks_transformer import attention
from affekt.models.ks_transformer.attention import KeySparseAttention
from affekt.models.ks_transformer.kernel import select_keys
from affekt.models.ks_transformer.model import KSTransformer

# utterances, queries, keys, width, heads, fraction of the keys that is kept; None for all
LAYERS = [
    (8, 460, 460, 512, 8, 0.5),
    (8, 460, 460, 1024, 8, 0.5),
    (8, 460, 460, 512, 8, None),
    (8, 460, 20, 512, 8, 0.5),
    (8, 20, 460, 1024, 8, 0.5),
    (8, 200, 200, 512, 8, 0.5),
    (8, 100, 100, 512, 8, 0.5),
    (2, 1000, 1000, 512, 8, 0.5),
    (1, 2000, 2000, 512, 8, 0.5),
]
SHORT = [
    (batch, frames, frames, width, heads, fraction)
    for frames in (20, 50, 75, 100, 125, 150, 200)
    for batch, width, heads, fraction in ((8, 512, 8, 0.5), (32, 128, 4, 0.5), (32, 128, 4, None))
]
MODELS = {"paper": (8, 460, 20), "small": (32, 150, 20)}  # utterances, frames of speech, tokens


class Before(KeySparseAttention):
    """Key-sparse attention with products over all keys; those that are not kept have weight zero."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *masks: Any) -> Tensor:
        key_mask, query_mask = (*masks, None, None)[:2]  # a third would record the weights
        weights = self.weights(query, key, key_mask)
        if self.fraction is not None:
            keys = None if query_mask is None else key_mask
            kept = select_keys(weights, self.fraction, queries=query_mask, keys=keys)
            weights = weights * kept.unsqueeze(2).to(weights.dtype)
        attended = F.dropout(weights, self.dropout, self.training) @ self._by_head(self.value(value))
        return self.output(rearrange(attended, "batch heads frames dim -> batch frames (heads dim)"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", choices=("layer", "short", "model"), default=["layer", "model"])
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {"precision": arguments.precision}
    with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bfloat16"):
        for kind in arguments.sizes:
            cases = [model_case(name) for name in MODELS] if kind == "model" else layer_cases(kind)
            results[kind] = [measure(*case, runs=arguments.runs) for case in cases]
            show(results[kind])
    print(write("key_sparse" if arguments.precision == "float32" else "key_sparse-bfloat16", results))


Case = tuple[dict[str, Any], dict[str, nn.Module], tuple[Any, ...], bool]
"""A description, the sides, their inputs, and True to use `attend_to_selected` at every size."""


def layer_cases(kind: str) -> Iterator[Case]:
    """Yield single layers of attention: "layer" for usual sizes, "short" for short utterances."""
    for batch, queries, keys, width, heads, fraction in LAYERS if kind == "layer" else SHORT:
        description = {
            "batch": batch,
            "queries": queries,
            "keys": keys,
            "width": width,
            "heads": heads,
            "kept_fraction": fraction,
        }
        sides = build_sides(partial(KeySparseAttention, width, heads, fraction=fraction, dropout=0.1))
        torch.manual_seed(0)
        query, context = torch.randn(batch, queries, width), torch.randn(batch, keys, width)
        yield description, sides, (query, context, context), kind == "short"


def model_case(name: str) -> Case:
    """Return a whole network of a preset, on one batch of random streams."""
    batch, frames, tokens = MODELS[name]
    config = KSTransformer.Config(**KSTransformer.presets[name])
    streams = {
        "speech": Stream(torch.randn(batch, frames, config.speech_dim)),
        "text": Stream(torch.randn(batch, tokens, config.text_dim)),
    }
    description = {"model": f"ks_transformer-{name}", "batch": batch, "frames": frames, "tokens": tokens}
    return description, build_sides(lambda: KSTransformer(config, 4)), (Batch(streams),), False


def build_sides(build: Callable[[], nn.Module]) -> dict[str, nn.Module]:
    """Build two networks with the same weights, one of them with the attention of `Before`."""
    ours, before = build(), build()
    before.load_state_dict(ours.state_dict())
    for module in before.modules():
        if isinstance(module, KeySparseAttention):
            module.__class__ = Before
    return {"now": ours, "before": before}


def measure(
    description: dict[str, Any], sides: dict[str, nn.Module], inputs: tuple[Any, ...], force: bool, *, runs: int
) -> dict[str, Any]:
    """Return the milliseconds of both sides, after checking that they agree."""
    clock = clock_for(torch.get_num_threads())
    with kernel_at_every_size(force):
        check(sides, inputs)
        forward = interleaved({name: make_forward(side, inputs) for name, side in sides.items()}, runs, clock=clock)
        step = interleaved({name: make_step(side, inputs) for name, side in sides.items()}, runs, clock=clock)
    return {**description, "forward_ms": forward, "step_ms": step}


@contextmanager
def kernel_at_every_size(force: bool) -> Iterator[None]:
    """Use `attend_to_selected` also for small inputs, if forced."""
    threshold = attention.MIN_SCORES
    attention.MIN_SCORES = 0 if force else threshold
    yield
    attention.MIN_SCORES = threshold


def check(sides: dict[str, nn.Module], inputs: tuple[Any, ...]) -> None:
    """Assert that both sides return the same in 64 bits.

    In 32 bits rounding may change the order of keys whose sums are nearly equal.
    """
    wide = [x.double() if isinstance(x, Tensor) else x.to(torch.float64) for x in inputs]
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        outputs = [side.double().eval()(*wide) for side in sides.values()]
    torch.testing.assert_close(*outputs, atol=1e-10, rtol=0)
    for side in sides.values():
        side.float()


def make_forward(side: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], Tensor]:
    """Return a function that runs a side in evaluation mode."""

    def run() -> Tensor:
        side.eval()
        with torch.no_grad():
            return side(*inputs)

    return run


def make_step(side: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], None]:
    """Return a function that runs a side in training mode, forward and backward."""
    inputs = tuple(x.requires_grad_() if isinstance(x, Tensor) else x for x in inputs)  # as within a network

    def run() -> None:
        side.train().zero_grad()
        side(*inputs).float().square().sum().backward()

    return run


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table of times."""
    facts = [name for name in rows[0] if not name.endswith("_ms")]
    columns = [f"{kind}: {side}" for kind in ("forward", "step") for side in ("now", "before", "ratio")]
    cells = [
        [row[name] for name in facts]
        + [cell for kind in ("forward_ms", "step_ms") for cell in comparison_cells(row[kind])]
        for row in rows
    ]
    table([*facts, *columns], cells)


def comparison_cells(ms: dict[str, float]) -> list[str]:
    """Return the cells for both sides and their ratio."""
    return [f"{ms['now']:.1f} ms", f"{ms['before']:.1f} ms", f"{ms['before'] / ms['now']:.2f}"]


if __name__ == "__main__":
    main()
