"""Key-sparse attention's selection of keys, and attention to only the selected ones (Chen et al., arXiv 2106.11532, section
2.1, eq. 4).

The selection needs every weight, since a key's importance is the sum of its weights over the queries. The later steps of
the forward pass need only the weights of the kept keys. `attend_to_selected` processes one utterance at a time, so that its
weights are still in the cache when the next step reads them. It stores weights with keys as rows, so that selecting keys
copies whole rows.

Forward and backward pass together have six products over all pairs of query and key. If half of the keys are kept, three of
them (the product with the values, and in the backward pass the gradients of the values and of the weights) use half of the
keys only, and dropout is drawn for half of the weights. The other three use all keys: the scores, and the gradients of
queries and keys, since the gradient of a softmax reaches the scores of all keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affekt.errors import BadConfig
from affekt.models.layers import NEGATIVE, Frames, KeyMask

Weights = Float[Tensor, "batch heads queries keys"]
KeptKeys = Bool[Tensor, "batch heads keys"]
KeyRows = Float[Tensor, "heads keys queries"]  # one utterance's weights, with keys as rows
RESOLUTION = 1 << 16  # dropout draws 16 random bits for each weight: its probability is a multiple of 1/65,536


def select_keys(
    weights: Weights,
    fraction: float,
    *,
    queries: Bool[Tensor, "batch queries"] | None = None,
    keys: KeyMask | None = None,
) -> KeptKeys:
    """Return which keys keep their weights, for every utterance and head: eq. 4.

    A key's importance is the sum of its weights over the queries. Of T keys the n = floor(fraction * T) most important are
    kept, with n at least 1, and also any that tie with the last of them. If fewer than n keys have a weight above 0, the
    n-th largest sum is 0 and all keys are kept.

    Args:
        weights: The softmax over the keys.
        fraction: Fraction of the keys to keep.
        queries: Queries to sum over; None sums over all, padding included, as in the authors' code.
        keys: Keys that count in T; None counts all, padding included, as in the authors' code.
    """
    weights = weights.detach()  # the selection is a constant for the gradient
    if queries is not None:
        weights = weights * queries[:, None, :, None].to(weights.dtype)
    return _most_important(weights.sum(dim=2, dtype=_sum_dtype(weights)), fraction, keys)


def _sum_dtype(weights: Tensor) -> torch.dtype:
    """Return a type of at least 32 bits: in 16 bits, different sums of some hundred weights would tie."""
    return torch.promote_types(weights.dtype, torch.float32)


def _most_important(importance: Float[Tensor, "batch heads keys"], fraction: float, keys: KeyMask | None) -> KeptKeys:
    counted = torch.ones_like(importance[:, 0], dtype=torch.bool) if keys is None else keys
    importance = importance.masked_fill(~counted[:, None], -1.0)  # below any sum
    num_kept = (counted.sum(dim=1).double() * fraction).floor().long().clamp(min=1)
    ranked = importance.sort(dim=2, descending=True).values
    threshold = ranked.gather(2, (num_kept - 1)[:, None, None].expand(-1, ranked.shape[1], 1))
    return ~(importance < threshold) & counted[:, None]  # keys with NaN are kept, so that NaN appears in the output


class KeySelection(NamedTuple):
    """The rule by which keys are selected."""

    fraction: float | None
    """Fraction of the keys that is kept; None keeps all."""
    attendable: KeyMask | None = None
    """Keys that may be attended to; None for all."""
    queries: Bool[Tensor, "batch queries"] | None = None
    """Queries whose weights are summed; None for all."""
    counted: KeyMask | None = None
    """Keys that count when the fraction is computed; None for all."""

    def select(self, weights: KeyRows, utterance: int) -> Sequence[Int[Tensor, " kept"] | None]:
        """Return the indices of an utterance's kept keys for every head, in ascending order; None for all keys."""
        if self.fraction is None:
            return [None] * len(weights)
        if self.queries is not None:
            weights = weights.index_select(2, self.queries[utterance].nonzero().squeeze(1))
        importance = weights.sum(dim=2, dtype=_sum_dtype(weights))
        counted = None if self.counted is None else self.counted[utterance : utterance + 1]
        by_head = _most_important(importance[None], self.fraction, counted)[0]
        return [kept.nonzero().squeeze(1) for kept in by_head]


def attend_to_selected(
    query: Frames,
    key: Float[Tensor, "batch keys dim"],
    value: Float[Tensor, "batch keys dim"],
    selection: KeySelection,
    *,
    heads: int,
    scale: float,
    dropout: float = 0.0,
) -> Frames:
    """Attend to the selected keys. Return attention's output before its last projection. Only for tensors on a CPU.

    Args:
        query: Projected queries; head h has the dim / heads features from h * dim / heads on.
        key: Projected keys.
        value: Projected values.
        selection: The rule by which keys are selected.
        heads: Number of heads.
        scale: Number by which the scores are multiplied.
        dropout: Probability with which a kept weight is dropped, rounded to 1/65,536; drawn from torch's generator.

    Raises:
        BadConfig: Keys and values differ in shape.
    """
    if key.shape != value.shape:
        raise BadConfig(
            f"keys of {tuple(key.shape)} and values of {tuple(value.shape)}: expected one value for each key"
        )
    attended: Tensor = _SelectedAttention.apply(query, key, value, selection, heads, scale, dropout)  # type: ignore[no-untyped-call]
    return attended


class _SelectedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        selection: KeySelection,
        heads: int,
        scale: float,
        dropout: float,
    ) -> Tensor:
        needs_gradient, batch, frames = any(ctx.needs_input_grad), len(query), query.shape[1]
        # Without a backward pass, all utterances share one buffer.
        all_weights = query.new_empty(batch if needs_gradient else 1, heads, key.shape[1], frames)
        attended, scaled = torch.empty_like(query, memory_format=torch.contiguous_format), query * scale
        probability = round(dropout * RESOLUTION) / RESOLUTION
        # For each utterance and head: the kept keys, and which of their weights are dropped.
        saved: list[Tensor | None] = []
        for utterance in range(batch):
            weights = all_weights[utterance if needs_gradient else 0]
            torch.bmm(_by_head(key, heads, utterance), _by_head(scaled, heads, utterance).transpose(1, 2), out=weights)
            if selection.attendable is not None:
                weights.masked_fill_(~selection.attendable[utterance, :, None], NEGATIVE)
            torch._softmax(weights, 1, False, out=weights)
            kept, outputs = selection.select(weights, utterance), _by_head(attended, heads, utterance)
            for head, values in enumerate(_by_head(value, heads, utterance)):
                saved += [kept[head], _attend(weights[head], values, kept[head], probability, outputs[head])]
        if needs_gradient:
            ctx.save_for_backward(scaled, key, value, attended, all_weights, selection.attendable, *saved)
            ctx.heads, ctx.scale, ctx.probability = heads, scale, probability
        return attended

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled, key, value, attended, all_weights, attendable, *saved = ctx.saved_tensors
        heads, saved_by_head = ctx.heads, iter(zip(saved[::2], saved[1::2], strict=True))
        gradients = query_gradient, key_gradient, value_gradient = [torch.zeros_like(x) for x in (scaled, key, value)]
        # The gradient of a softmax subtracts a mean from the gradients of a query's weights: the sum, over the keys, of
        # weight times gradient. It equals the sum, over the features, of the output times the output's gradient.
        means = (gradient * attended).unflatten(2, (heads, -1)).sum(3).transpose(1, 2).unsqueeze(2)
        score_gradient = torch.empty_like(all_weights[0])
        for utterance, weights in enumerate(all_weights):
            torch.mul(weights, -means[utterance], out=score_gradient)  # the gradient for keys that are not kept
            incoming, values, value_gradients = (
                _by_head(x, heads, utterance) for x in (gradient, value, value_gradient)
            )
            for head in range(heads):
                arguments = (weights[head], values[head], incoming[head], means[utterance, head])
                _attend_backward(
                    *arguments, *next(saved_by_head), ctx.probability, score_gradient[head], value_gradients[head]
                )
            # The scores of masked keys are the constant NEGATIVE: no gradient flows through them. Where all keys are masked,
            # their weights are not zero, so the gradients have to be set to zero.
            if attendable is not None:
                score_gradient.masked_fill_(~attendable[utterance, :, None], 0.0)
            torch.bmm(score_gradient, _by_head(scaled, heads, utterance), out=_by_head(key_gradient, heads, utterance))
            query_gradients = _by_head(query_gradient, heads, utterance)
            torch.bmm(score_gradient.transpose(1, 2), _by_head(key, heads, utterance), out=query_gradients)
        query_gradient.mul_(ctx.scale)
        return (*gradients, None, None, None, None)


def _attend(
    weights: Float[Tensor, "keys queries"],
    values: Float[Tensor, "keys head_dim"],
    kept: Int[Tensor, " kept"] | None,
    probability: float,
    out: Float[Tensor, "queries head_dim"],
) -> Bool[Tensor, "kept queries"] | None:
    """Write the output of one head, from its kept keys, into `out`. Return which weights are dropped."""
    rows = _kept_rows(weights, kept)
    dropped = _draw_dropped(rows, probability) if probability else None
    torch.mm(_with_zeros_at(rows, dropped).t(), _kept_rows(values, kept) * _dropout_gain(probability), out=out)
    return dropped


def _attend_backward(
    weights: Float[Tensor, "keys queries"],
    values: Float[Tensor, "keys head_dim"],
    gradient: Float[Tensor, "queries head_dim"],
    means: Float[Tensor, "1 queries"],
    kept: Int[Tensor, " kept"] | None,
    dropped: Bool[Tensor, "kept queries"] | None,
    probability: float,
    score_gradient: Float[Tensor, "keys queries"],
    value_gradient: Float[Tensor, "keys head_dim"],
) -> None:
    """Write one head's gradients of scores and values, for the kept keys, into `score_gradient` and `value_gradient`."""
    rows = _kept_rows(weights, kept)
    _write_rows(value_gradient, kept, torch.mm(_with_zeros_at(rows, dropped), gradient) * _dropout_gain(probability))
    weight_gradient = _with_zeros_at(
        torch.mm(_kept_rows(values, kept) * _dropout_gain(probability), gradient.t()), dropped
    )
    _write_rows(score_gradient, kept, weight_gradient.sub_(means).mul_(rows))


def _by_head(x: Frames, heads: int, utterance: int) -> Float[Tensor, "heads frames head_dim"]:
    """Return one utterance of x, split into heads. It is a view: writing to it changes x."""
    return x[utterance].unflatten(1, (heads, -1)).transpose(0, 1)


def _kept_rows(x: Tensor, kept: Tensor | None) -> Tensor:
    """Return the rows of the kept keys."""
    return x if kept is None else x.index_select(0, kept)


def _with_zeros_at(weights: Tensor, dropped: Tensor | None) -> Tensor:
    return weights if dropped is None else weights.masked_fill(dropped, 0.0)


def _dropout_gain(probability: float) -> float:
    """Return the factor by which dropout multiplies the remaining weights."""
    return 1 / (1 - probability) if probability < 1 else 1.0


def _write_rows(x: Tensor, kept: Tensor | None, rows: Tensor) -> None:
    """Write the rows of the kept keys into x, which has rows for all keys."""
    if kept is None:
        x.copy_(rows)
    else:
        x.index_copy_(0, kept, rows)


def _draw_dropped(weights: Float[Tensor, "keys queries"], probability: float) -> Bool[Tensor, "keys queries"]:
    """Draw which weights are dropped: 64 random bits for four weights, in a fifth of the time of torch's own dropout."""
    bits = torch.empty(-(-weights.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return (
        bits.view(torch.int16)[: weights.numel()].view_as(weights)
        <= round(probability * RESOLUTION) - RESOLUTION // 2 - 1
    )
