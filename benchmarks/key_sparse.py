"""Key-sparse attention that multiplies with the kept keys alone, beside the formulation that sets dropped weights to zero.

    python benchmarks/key_sparse.py [--runs 9] [--threads 1] [--sizes layer|short|model ...] [--precision bfloat16]

Before: all weights are made for all utterances at once, dropped ones are multiplied by zero, and all keys are multiplied.
Now: what `affekt.models.ks_transformer.attention` does; `kernel.attend_to_selected` from `MIN_SCORES`
scores of a head on. In "layer" it is one attention layer with its four projections, at the paper's 460 frames of speech,
at the widths of its streams and at other lengths. "short" forces the new way at sizes below the threshold too: it is where
the threshold was read off. "model"
is `ks_transformer` at the paper's sizes and its small preset. A step is forward and backward, with dropout of
0.1; forward is without gradient and dropout. Both sides hold the same weights and are checked to answer alike before
anything is timed. Medians in milliseconds of turns that alternate; results/attention.json.
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
from sides import clock_for, interleaved, table, write
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.models.ks_transformer import attention
from affekt.models.ks_transformer.attention import KeySparseAttention
from affekt.models.ks_transformer.kernel import select_keys
from affekt.models.ks_transformer.model import KSTransformer

# utterances, queries, keys, width, heads, share of the keys that is kept
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
    """All keys multiplied, the dropped ones by zero."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *masks: Any) -> Tensor:
        key_mask, query_mask = (*masks, None, None)[:2]  # a third is the record, which nobody times
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
            results[kind] = [measured(*case, runs=arguments.runs) for case in cases]
            show(results[kind])
    print(write("key_sparse" if arguments.precision == "float32" else "key_sparse-bfloat16", results))


Case = tuple[dict[str, Any], dict[str, nn.Module], tuple[Any, ...], bool]  # what, sides, inputs, whether to force


def layer_cases(kind: str) -> Iterator[Case]:
    for batch, queries, keys, width, heads, fraction in LAYERS if kind == "layer" else SHORT:
        what = {"batch": batch, "queries": queries, "keys": keys, "width": width, "heads": heads, "share": fraction}
        sides = twins(partial(KeySparseAttention, width, heads, fraction=fraction, dropout=0.1))
        torch.manual_seed(0)
        seen, other = torch.randn(batch, queries, width), torch.randn(batch, keys, width)
        yield what, sides, (seen, other, other), kind == "short"


def model_case(name: str) -> Case:
    batch, frames, tokens = MODELS[name]
    config = KSTransformer.Config(**KSTransformer.presets[name])
    streams = {
        "speech": Stream(torch.randn(batch, frames, config.speech_dim)),
        "text": Stream(torch.randn(batch, tokens, config.text_dim)),
    }
    what = {"model": f"ks_transformer-{name}", "batch": batch, "frames": frames, "tokens": tokens}
    return what, twins(lambda: KSTransformer(config, 4)), (Batch(streams),), False


def twins(build: Callable[[], nn.Module]) -> dict[str, nn.Module]:
    """Two networks of the same weights, the one with attention as it was before."""
    ours, before = build(), build()
    before.load_state_dict(ours.state_dict())
    for module in before.modules():
        if isinstance(module, KeySparseAttention):
            module.__class__ = Before
    return {"now": ours, "before": before}


def measured(
    what: dict[str, Any], sides: dict[str, nn.Module], inputs: tuple[Any, ...], force: bool, *, runs: int
) -> dict[str, Any]:
    clock = clock_for(torch.get_num_threads())
    with dropping_always(force):
        check(sides, inputs)
        forward = interleaved({name: answering(side, inputs) for name, side in sides.items()}, runs, clock=clock)
        step = interleaved({name: training(side, inputs) for name, side in sides.items()}, runs, clock=clock)
    return {**what, "forward_ms": forward, "step_ms": step}


@contextmanager
def dropping_always(force: bool) -> Iterator[None]:
    threshold = attention.MIN_SCORES
    attention.MIN_SCORES = 0 if force else threshold
    yield
    attention.MIN_SCORES = threshold


def check(sides: dict[str, nn.Module], inputs: tuple[Any, ...]) -> None:
    """Both sides answer alike in 64 bits; in 32, keys whose sums nearly tie change places with the order of adding up."""
    wide = [x.double() if isinstance(x, Tensor) else x.to(torch.float64) for x in inputs]
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        answers = [side.double().eval()(*wide) for side in sides.values()]
    torch.testing.assert_close(*answers, atol=1e-10, rtol=0)
    for side in sides.values():
        side.float()


def answering(side: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        side.eval()
        with torch.no_grad():
            return side(*inputs)

    return run


def training(side: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], None]:
    given = [x.requires_grad_() if isinstance(x, Tensor) else x for x in inputs]  # as of a layer within a network

    def run() -> None:
        side.train().zero_grad()
        side(*given).float().square().sum().backward()

    return run


def show(rows: list[dict[str, Any]]) -> None:
    facts = [name for name in rows[0] if not name.endswith("_ms")]
    columns = [f"{kind}: {side}" for kind in ("forward", "step") for side in ("now", "before", "ratio")]
    cells = [
        [row[name] for name in facts] + [cell for kind in ("forward_ms", "step_ms") for cell in compared(row[kind])]
        for row in rows
    ]
    table([*facts, *columns], cells)


def compared(ms: dict[str, float]) -> list[str]:
    return [f"{ms['now']:.1f} ms", f"{ms['before']:.1f} ms", f"{ms['before'] / ms['now']:.2f}"]


if __name__ == "__main__":
    main()
