"""Key-sparse attention's choice of keys, and the products with the chosen ones alone (Chen et al., arXiv 2106.11532,
section 2.1, eq. 4).

The choice needs every weight, for a key's importance is the sum of its weights over the queries; what comes after it needs
those of the kept keys alone. `attend_to_selected` works an utterance at a time, so that its weights are still in the cache
when the next step reads them, and has keys as rows, so that the kept ones are rows to copy. Of the six products with a
weight for every query and key, three (the values' own, and in the backward pass those of the values and the weights) then
take half the keys, and dropout is drawn for half the weights. Adding up the scores' gradient still takes all: a softmax's
gradient reaches the dropped keys too.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affekt.errors import BadConfig
from affekt.models.layers import NEGATIVE, KeyMask, Sequence

Weights = Float[Tensor, "batch heads queries keys"]
Kept = Bool[Tensor, "batch heads keys"]
Turned = Float[Tensor, "heads keys queries"]  # one utterance's weights, keys as rows
CHANCES = 1 << 16  # a weight is dropped by 16 random bits: chances are multiples of 1/65,536


def kept_keys(
    weights: Weights, share: float, *, queries: Bool[Tensor, "batch queries"] | None = None, keys: KeyMask | None = None
) -> Kept:
    """The keys that keep their weights, of every utterance and head: eq. 4.

    A key's importance is the sum of its weights over the queries. Of T keys the n = floor(share * T) most important are
    kept, and whatever ties with the last of them; of a single key there is nothing to choose: n is never below one.
    The masks say which queries are summed and which keys are counted: without them padding is both, as in the authors'
    code, where T is the padded length. If fewer than n keys have any weight, the n-th largest sum is 0 and all are kept.
    """
    weights = weights.detach()  # the choice is a constant for the gradient
    if queries is not None:
        weights = weights * queries[:, None, :, None].to(weights.dtype)
    return _most_important(weights.sum(dim=2, dtype=_wide(weights)), share, keys)


def _wide(weights: Tensor) -> torch.dtype:
    """At least 32 bits, to add up in: sums of some hundred weights of 16 bits would tie that do not."""
    return torch.promote_types(weights.dtype, torch.float32)


def _most_important(importance: Float[Tensor, "batch heads keys"], share: float, keys: KeyMask | None) -> Kept:
    counted = torch.ones_like(importance[:, 0], dtype=torch.bool) if keys is None else keys
    importance = importance.masked_fill(~counted[:, None], -1.0)  # below any sum
    number = (counted.sum(dim=1).double() * share).floor().long().clamp(min=1)
    ranked = importance.sort(dim=2, descending=True).values
    threshold = ranked.gather(2, (number - 1)[:, None, None].expand(-1, ranked.shape[1], 1))
    return ~(importance < threshold) & counted[:, None]  # what is no number is kept, and so seen


class KeySelection(NamedTuple):
    """How keys are chosen. share: None keeps them all. attendable: keys that get weight. queries, counted: those that
    are summed, and the keys that n is a share of; None for all."""

    share: float | None
    attendable: KeyMask | None = None
    queries: Bool[Tensor, "batch queries"] | None = None
    counted: KeyMask | None = None

    def of(self, weights: Turned, utterance: int) -> Several[Int[Tensor, " kept"] | None]:
        """By head, which keys of the utterance are kept, in order; None stands for all."""
        if self.share is None:
            return [None] * len(weights)
        if self.queries is not None:
            weights = weights.index_select(2, self.queries[utterance].nonzero().squeeze(1))
        importance = weights.sum(dim=2, dtype=_wide(weights))
        counted = None if self.counted is None else self.counted[utterance : utterance + 1]
        return [one.nonzero().squeeze(1) for one in _most_important(importance[None], self.share, counted)[0]]


def attend_to_selected(
    query: Sequence,
    key: Float[Tensor, "batch keys dim"],
    value: Float[Tensor, "batch keys dim"],
    choice: KeySelection,
    *,
    heads: int,
    scale: float,
    dropout: float = 0.0,
) -> Sequence:
    """Attention's output before its last projection, given projected queries, keys and values; head h has the features
    from h * dim / heads on. Scores are multiplied by `scale`; a kept weight is dropped with the chance `dropout`, to
    the nearest 1/65,536, the draws being of torch's generator. On a CPU."""
    if key.shape != value.shape:
        raise BadConfig(
            f"keys of {tuple(key.shape)} and values of {tuple(value.shape)}: expected one value for each key"
        )
    attended: Tensor = _AttentionToKept.apply(query, key, value, choice, heads, scale, dropout)  # type: ignore[no-untyped-call]
    return attended


class _AttentionToKept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        choice: KeySelection,
        heads: int,
        scale: float,
        dropout: float,
    ) -> Tensor:
        trained, batch, frames = any(ctx.needs_input_grad), len(query), query.shape[1]
        everything = query.new_empty(batch if trained else 1, heads, key.shape[1], frames)
        attended, scaled = torch.empty_like(query, memory_format=torch.contiguous_format), query * scale
        chance = round(dropout * CHANCES) / CHANCES
        done: list[Tensor | None] = []  # by utterance and head: the kept keys, and the weights that dropout took
        for utterance in range(batch):
            weights = everything[utterance if trained else 0]
            torch.bmm(_by_head(key, heads, utterance), _by_head(scaled, heads, utterance).transpose(1, 2), out=weights)
            if choice.attendable is not None:
                weights.masked_fill_(~choice.attendable[utterance, :, None], NEGATIVE)
            torch._softmax(weights, 1, False, out=weights)
            kept, answers = choice.of(weights, utterance), _by_head(attended, heads, utterance)
            for head, values in enumerate(_by_head(value, heads, utterance)):
                done += [kept[head], _attend(weights[head], values, kept[head], chance, answers[head])]
        if trained:
            ctx.save_for_backward(scaled, key, value, attended, everything, choice.attendable, *done)
            ctx.heads, ctx.scale, ctx.chance = heads, scale, chance
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled, key, value, attended, everything, attendable, *done = ctx.saved_tensors
        heads, by_head = ctx.heads, iter(zip(done[::2], done[1::2], strict=True))
        gradients = for_query, for_key, for_value = [torch.zeros_like(x) for x in (scaled, key, value)]
        # The mean that a softmax takes off the gradients of a query's weights: they, times the weights, are this product.
        means = (gradient * attended).unflatten(2, (heads, -1)).sum(3).transpose(1, 2).unsqueeze(2)
        for_scores = torch.empty_like(everything[0])
        for utterance, weights in enumerate(everything):
            torch.mul(weights, -means[utterance], out=for_scores)  # all that the dropped keys get
            incoming, values, back = (_by_head(x, heads, utterance) for x in (gradient, value, for_value))
            for head in range(heads):
                given = (weights[head], values[head], incoming[head], means[utterance, head])
                _go_back(*given, *next(by_head), ctx.chance, for_scores[head], back[head])
            if attendable is not None:  # where no key is attendable, weights are not zero, and scores are constants
                for_scores.masked_fill_(~attendable[utterance, :, None], 0.0)
            torch.bmm(for_scores, _by_head(scaled, heads, utterance), out=_by_head(for_key, heads, utterance))
            queries = _by_head(for_query, heads, utterance)
            torch.bmm(for_scores.transpose(1, 2), _by_head(key, heads, utterance), out=queries)
        for_query.mul_(ctx.scale)
        return (*gradients, None, None, None, None)


def _attend(
    weights: Float[Tensor, "keys queries"],
    values: Float[Tensor, "keys head_dim"],
    kept: Int[Tensor, " kept"] | None,
    chance: float,
    out: Float[Tensor, "queries head_dim"],
) -> Bool[Tensor, "kept queries"] | None:
    """One head's answer, by its kept keys. Returns the weights that dropout took."""
    rows = _rows(weights, kept)
    dropped = _drawn(rows, chance) if chance else None
    torch.mm(_without(rows, dropped).t(), _rows(values, kept) * _raise(chance), out=out)
    return dropped


def _go_back(
    weights: Float[Tensor, "keys queries"],
    values: Float[Tensor, "keys head_dim"],
    gradient: Float[Tensor, "queries head_dim"],
    means: Float[Tensor, "1 queries"],
    kept: Int[Tensor, " kept"] | None,
    dropped: Bool[Tensor, "kept queries"] | None,
    chance: float,
    for_scores: Float[Tensor, "keys queries"],
    for_values: Float[Tensor, "keys head_dim"],
) -> None:
    """Of one head: the gradients of the kept keys' scores and values, into what holds those of all keys."""
    rows = _rows(weights, kept)
    _put(for_values, kept, torch.mm(_without(rows, dropped), gradient) * _raise(chance))
    for_weights = _without(torch.mm(_rows(values, kept) * _raise(chance), gradient.t()), dropped)
    _put(for_scores, kept, for_weights.sub_(means).mul_(rows))


def _by_head(x: Sequence, heads: int, utterance: int) -> Float[Tensor, "heads frames head_dim"]:
    """A view: what is written into it stands in `x`."""
    return x[utterance].unflatten(1, (heads, -1)).transpose(0, 1)


def _rows(x: Tensor, kept: Tensor | None) -> Tensor:
    return x if kept is None else x.index_select(0, kept)


def _without(weights: Tensor, dropped: Tensor | None) -> Tensor:
    return weights if dropped is None else weights.masked_fill(dropped, 0.0)


def _raise(chance: float) -> float:
    """What makes up for the weights that dropout takes."""
    return 1 / (1 - chance) if chance < 1 else 1.0


def _put(x: Tensor, kept: Tensor | None, rows: Tensor) -> None:
    if kept is None:
        x.copy_(rows)
    else:
        x.index_copy_(0, kept, rows)


def _drawn(weights: Float[Tensor, "keys queries"], chance: float) -> Bool[Tensor, "keys queries"]:
    """Which weights are dropped: four for each 64 random bits, a fifth of the time of torch's own draws."""
    bits = torch.empty(-(-weights.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return bits.view(torch.int16)[: weights.numel()].view_as(weights) <= round(chance * CHANCES) - CHANCES // 2 - 1
