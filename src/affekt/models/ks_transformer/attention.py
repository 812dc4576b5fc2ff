"""Key-sparse attention and the stacks that are made of it (Chen et al., "Key-Sparse Transformer with Cascaded
Cross-Attention Block for Multimodal Speech Emotion Recognition", arXiv 2106.11532, sections 2.1 and 2.2)."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affekt.errors import BadConfig
from affekt.models.base import check_sizes
from affekt.models.ks_transformer.kernel import Kept, KeySelection, Weights, attend_to_selected, kept_keys
from affekt.models.layers import NEGATIVE, KeyMask, Sequence, sinusoids
from affekt.models.layers.tracing import traced

Context = Float[Tensor, "batch keys key_dim"]  # the sequence that keys and values are of
QueryMask = Bool[Tensor, "batch frames"]
# From so many scores of a head on, the products with the kept keys alone are faster, forward and in training; at 100 x 100
# a training step takes as long either way, below that dense products win ("benchmarks/key_sparse.py --sizes short").
WORTH_DROPPING = 200 * 200


class Attended(NamedTuple):
    """What one attention layer did: a query's softmax over the keys, and which keys kept their weights."""

    vanilla: Weights
    kept: Kept


class KeySparseAttention(nn.Module):
    """Multi-head attention (eq. 1 to 3) that keeps the weights of `share` of the keys, the others' being set to zero.

    Kept weights stay as they are: rows no longer sum to one. A share of None keeps them all: vanilla attention.
    Submodules: `query`, `key`, `value`, `output`; head h has the features from h * dim / heads on.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        key_dim: int | None = None,
        share: float | None = 0.5,
        scale: Literal["head", "model"] = "head",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        key_dim = key_dim or dim
        self.query, self.output = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key, self.value = nn.Linear(key_dim, dim), nn.Linear(key_dim, dim)
        self.heads, self.share, self.dropout = heads, share, dropout
        self.scale = (dim // heads if scale == "head" else dim) ** -0.5

    def initialise(self, *, stacked: bool) -> None:
        """Xavier's uniform weights; `stacked`: as wide as if query, key and value were one matrix, the authors' way."""
        for projection in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(projection.weight, gain=0.5**0.5 if stacked else 1.0)

    def weights(
        self, query: Sequence, key: Context, key_mask: KeyMask | None = None
    ) -> Float[Tensor, "batch heads frames keys"]:
        """Vanilla attention's weights: rows are queries and sum to one."""
        projected = (self._by_head(self.query(query)), self._by_head(self.key(key)))
        scores = projected[0] @ projected[1].transpose(2, 3) * self.scale
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[:, None, None, :], NEGATIVE)
        return scores.softmax(dim=3)

    def forward(
        self,
        query: Sequence,
        key: Context,
        value: Context,
        key_mask: KeyMask | None = None,
        query_mask: QueryMask | None = None,
        record: list[Attended] | None = None,
    ) -> Sequence:
        """`key_mask`: the keys that may be attended to. `query_mask`, where padding shall change nothing: the queries that
        are summed, and a share of the real keys is then kept. What was done is appended to `record`."""
        keys = None if query_mask is None else key_mask
        if record is None and self._worth_dropping(query, key):
            attended = attend_to_selected(
                self.query(query),
                self.key(key),
                self.value(value),
                KeySelection(self.share, key_mask, query_mask, keys),
                heads=self.heads,
                scale=self.scale,
                dropout=self.dropout if self.training else 0.0,
            )
            return self.output(attended)
        weights = self.weights(query, key, key_mask)
        if self.share is None:
            kept = torch.ones_like(weights[:, :, 0], dtype=torch.bool)
        else:
            kept = kept_keys(weights, self.share, queries=query_mask, keys=keys)
        if record is not None:
            record.append(Attended(weights, kept))
        if self.share is not None:
            weights = weights * kept.unsqueeze(2).to(weights.dtype)
        attended = F.dropout(weights, self.dropout, self.training) @ self._by_head(self.value(value))
        return self.output(rearrange(attended, "batch heads frames dim -> batch frames (heads dim)"))

    def _worth_dropping(self, query: Tensor, key: Tensor) -> bool:
        """Whether to compute with the kept keys alone: not in a graph, which is one for all lengths, nor off the CPU."""
        if traced(query) or query.device.type != "cpu":
            return False
        return query.shape[1] * key.shape[1] >= WORTH_DROPPING

    def _by_head(self, x: Tensor) -> Tensor:
        return rearrange(x, "batch frames (heads dim) -> batch heads frames dim", heads=self.heads)


@dataclass(frozen=True)
class StackConfig:
    """What all stacks of the network have in common."""

    heads: int = 8
    kept_share: float = 0.5  # of the keys, in every key-sparse layer: "50% attention weights are forced to zero"
    # "sinusoids" is what the paper says. The authors' code overwrites that table by noise that is never trained
    # ("random_frozen"), 2000 positions of it for every stack.
    positions: Literal["sinusoids", "random_frozen", "none"] = "sinusoids"
    position_rows: int = 2000  # of a random table
    # Where positions enter is not said. The authors add them at every layer to what attention sees, not to the residual;
    # "input" adds them once, where a stack begins.
    position_entry: Literal["attention", "input"] = "attention"
    value_positions: bool = False  # in cross-attention values see none in the code; True: "K and V are always the same"
    stack_norms: bool = True  # a LayerNorm of what enters a stack, and of a cross half's keys: the authors' code only
    attention_scale: Literal["head", "model"] = "head"  # eq. 1 divides by the root of "the Query vector's dimension"
    dropout: float = 0.1  # of both residual branches, and inside the feed-forward: the authors' code
    attention_dropout: float = 0.1  # likewise

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero={"extraction_layers", "ccabs", "fusion_layers"})
        if not 0 < self.kept_share <= 1:
            raise BadConfig(f"kept_share = {self.kept_share}: give a share of the keys, above 0 and up to 1")


class Positions(nn.Module):
    """Adds to each frame what tells its position. `table` (rows, width) where it is random; it is never trained."""

    table: Tensor

    def __init__(self, config: StackConfig, width: int) -> None:
        super().__init__()
        self.kind = config.positions
        if self.kind == "random_frozen":
            self.register_buffer("table", nn.init.xavier_uniform_(torch.empty(config.position_rows, width)))

    def forward(self, x: Sequence) -> Sequence:
        if self.kind == "none":
            return x
        if self.kind == "sinusoids":
            return x + sinusoids(x.shape[1], x.shape[2], device=x.device, dtype=x.dtype)
        if x.shape[1] > len(self.table):
            raise BadConfig(
                f"{x.shape[1]} frames, but the table of positions ends at {len(self.table)}: "
                "set position_rows higher, or a fixed number of frames, or positions = 'sinusoids'"
            )
        return x + self.table[: x.shape[1]]


class StackLayer(nn.Module):
    """Attention and feed-forward, each with dropout, residual and then norm (sections 2.1.1 and 2.2).

    Submodules: `attention`, `norm1`, `feedforward` (linear layers at 0 and 3), `norm2`.
    """

    def __init__(self, config: StackConfig, width: int, feedforward: int, key_width: int | None, sparse: bool) -> None:
        super().__init__()
        self.attention = KeySparseAttention(
            width,
            config.heads,
            key_dim=key_width,
            share=config.kept_share if sparse else None,
            scale=config.attention_scale,
            dropout=config.attention_dropout,
        )
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(feedforward, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Sequence,
        seen: Several[Tensor],
        key_mask: Tensor | None,
        query_mask: QueryMask | None,
        record: list[Attended] | None,
    ) -> Sequence:
        """`seen`: what queries, keys and values are projections of."""
        x = self.norm1(x + self.dropout(self.attention(*seen, key_mask, query_mask, record)))
        return self.norm2(x + self.dropout(self.feedforward(x)))


class Stack(nn.Module):
    """Layers that follow one another: Transformers, or `sparse` KS-Transformers. Of no layers, it changes nothing.

    Submodules: `norm` of what enters, `layers.N`, and `positions`. With a `key_width` the keys and values are of another
    sequence, of that width: `key_norm` and `key_positions` are its.
    """

    def __init__(
        self,
        config: StackConfig,
        width: int,
        feedforward: int,
        *,
        layers: int,
        key_width: int | None = None,
        sparse: bool = True,
    ) -> None:
        super().__init__()
        self.at_input, self.value_positions = config.position_entry == "input", config.value_positions
        if layers:
            self.norm = nn.LayerNorm(width) if config.stack_norms else nn.Identity()
            self.positions = Positions(config, width)
        if layers and key_width:
            self.key_norm = nn.LayerNorm(key_width) if config.stack_norms else nn.Identity()
            self.key_positions = Positions(config, key_width)
        self.layers = nn.ModuleList(StackLayer(config, width, feedforward, key_width, sparse) for _ in range(layers))
        for layer in self.layers:
            layer.attention.initialise(stacked=key_width is None)  # type: ignore[union-attr, operator]

    def forward(
        self,
        x: Sequence,
        context: Context | None = None,
        *,
        key_mask: KeyMask | None = None,
        query_mask: QueryMask | None = None,
        record: list[Attended] | None = None,
    ) -> Sequence:
        if not self.layers:
            return x
        x = self.norm(x)
        if context is not None:
            context = self.key_norm(context)
        if self.at_input:
            x = self.positions(x)
            context = None if context is None else self.key_positions(context)
        for layer in self.layers:
            x = layer(x, self._seen(x, context), key_mask, query_mask, record)
        return x

    def _seen(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What queries, keys and values are projections of."""
        if self.at_input:
            other = x if context is None else context
            return x, other, other
        placed = self.positions(x)
        if context is None:
            return placed, placed, placed
        key = self.key_positions(context)
        return placed, key, key if self.value_positions else context
