"""What the models cost, as a Markdown page. Never written by hand: `affekt cost --output docs/cost.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from affekt.cost import Cost, cost
from affekt.cost.encoders import EncoderCost
from affekt.models import models
from affekt.tables import table

WHY = (
    "FLOPs are of every layer over every frame, a multiply-add as two; the printed rule counts it as one, and a "
    "linear layer's weights once, however many frames it is applied to."
)
HEAD = f"""\
# What the models cost

Written by `affekt cost --output docs/cost.md`, never by hand. `affekt cost MODEL --json` gives a model's line, at any length
and with any settings.

- One utterance at inference, as long as the paper's model takes it; the models alone, their frozen encoders apart.
- parameters: those that are trained; "+" those that the model holds and leaves as they are.
- {WHY}
  Only MSTR's paper prints operations.
- FLOPs are counted by torch's counter on shapes alone: matrix products (linear layers, attention, recurrences) and
  convolutions. Norms, activations, softmax, pooling and other work of single numbers are not in it.
"""
ENCODERS = """\
## Their encoders

The papers' own, at their published sizes, for the same utterance. MFCC and spectrograms are fixed computations and GloVe is a
table: no network, 0 of both. HuBERT, BERT and RoBERTa are transformers' classes, without the layer that pools after the last
block; wav2vec and ECAPA-TDNN are affekt's. A text encoder's embeddings are among its parameters. Frames are those that it
gives, of text its tokens, of a speaker's vector those that it is made of.
"""
MEASURED = """\
## Measured

On one machine's processor, threads: {threads}; another's differ. The median of single utterances, and how far the peak of the
resident memory rises from before the model is built, weights included; each model in a process of its own.
"""


def published(*, measured: bool = False, threads: int = 1) -> list[Cost]:
    """Every model at its paper's sizes, then every preset "small"."""
    names = [*models, *(f"{name}-small" for name in models if "small" in models[name].presets)]
    return [cost(name, measured=measured, threads=threads) for name in names]


def page(costs: Sequence[Cost]) -> str:
    """Return the Markdown page; what was measured, if anything, is at its end."""
    whole = [one for one in costs if one.model in models]
    small = [one for one in costs if one.model not in models]
    parts = [HEAD, "## At the papers' sizes\n", _models(whole), "## Presets for two cores\n", _models(small)]
    parts += [ENCODERS, _encoders(whole)]
    seen = [one for one in costs if one.latency_ms is not None]
    if seen:
        parts += [MEASURED.format(threads=seen[0].threads), _measured(seen)]
    return "\n".join(parts)


def _models(costs: Iterable[Cost]) -> str:
    header = ["model", "classes", "frames", "parameters", "FLOPs", "printed rule"]
    return table(
        header,
        [
            [
                one.model,
                str(one.emotions),
                ", ".join(f"{count} {stream}" for stream, count in one.frames.items() if count),
                f"{one.parameters:,}" + (f" + {one.frozen_parameters:,}" if one.frozen_parameters else ""),
                amount(one.flops),
                "" if one.paper_flops is None else amount(one.paper_flops),
            ]
            for one in costs
        ],
    )


def _encoders(costs: Iterable[Cost]) -> str:
    def row(model: str, one: EncoderCost) -> list[str]:
        return [model, one.stream, one.encoder, str(one.frames), f"{one.parameters:,}", amount(one.flops)]

    header = ["model", "stream", "encoder", "frames", "parameters", "FLOPs"]
    return table(header, [row(one.model, encoder) for one in costs for encoder in one.encoders])


def _measured(costs: Iterable[Cost]) -> str:
    rows = [
        [one.model, f"{one.latency_ms:.1f}", "" if one.peak_memory_mb is None else f"{one.peak_memory_mb:.0f}"]
        for one in costs
    ]
    return table(["model", "ms", "MiB"], rows)


def amount(flops: int) -> str:
    """33.498M, 13.699G: in powers of 1000."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if flops >= size:
            return f"{flops / size:.3f}{unit}"
    return str(flops)
