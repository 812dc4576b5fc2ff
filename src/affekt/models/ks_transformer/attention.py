"""Key-sparse attention, and stacks of layers with it (Chen et al., "Key-Sparse Transformer with Cascaded
Cross-Attention Block for Multimodal Speech Emotion Recognition", arXiv 2106.11532, sections 2.1 and 2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affekt.errors import BadConfig
from affekt.models.base import check_sizes
from affekt.models.ks_transformer.kernel import KeptKeys, KeySelection, Weights, attend_to_selected, select_keys
from affekt.models.layers import NEGATIVE, ContextFrames, Frames, KeyMask, add_sinusoids
from affekt.models.layers.tracing import is_traced

QueryMask = Bool[Tensor, "batch frames"]
# Minimum number of scores of a head (queries times keys) for products with only the kept keys. From here on they are faster,
# forward and in training; at 100 x 100 a training step takes equally long, and below that products with all keys are faster
# ("benchmarks/key_sparse.py --sizes short").
MIN_SCORES = 200 * 200


class AttentionRecord(NamedTuple):
    """The attention of one layer: each query's softmax over the keys, and the keys that kept their weights."""

    vanilla: Weights
    kept: KeptKeys


class KeySparseAttention(nn.Module):
    """Multi-head attention (eq. 1 to 3) that keeps the weights of some keys and sets those of the others to zero.

    Kept weights are not rescaled, so rows no longer sum to one. Submodules: `query`, `key`, `value`, `output`; head h has the
    dim / heads features from h * dim / heads on.

    Args:
        dim: Width of the queries and of the output.
        heads: Number of heads.
        key_dim: Width of the keys and values; None is `dim`.
        fraction: Fraction of the keys that is kept; None keeps all, which is vanilla attention.
        scale: Scores are divided by the square root of this width: that of a head, or that of the model.
        dropout: Probability with which an attention weight is dropped in training.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        key_dim: int | None = None,
        fraction: float | None = 0.5,
        scale: Literal["head", "model"] = "head",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        key_dim = key_dim or dim
        self.query, self.output = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key, self.value = nn.Linear(key_dim, dim), nn.Linear(key_dim, dim)
        self.heads, self.fraction, self.dropout = heads, fraction, dropout
        self.scale = (dim // heads if scale == "head" else dim) ** -0.5

    def initialize(self, *, stacked: bool) -> None:
        """Draw Xavier's uniform weights for the projections to queries, keys and values.

        Args:
            stacked: Whether the limits of the weights are those of one matrix for all three projections, as in the
                authors' code.
        """
        for projection in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(projection.weight, gain=0.5**0.5 if stacked else 1.0)

    def weights(
        self, query: Frames, key: ContextFrames, key_mask: KeyMask | None = None
    ) -> Float[Tensor, "batch heads frames keys"]:
        """Return the weights of vanilla attention. Rows are queries and sum to one."""
        queries, keys = self._by_head(self.query(query)), self._by_head(self.key(key))
        scores = queries @ keys.transpose(2, 3) * self.scale
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[:, None, None, :], NEGATIVE)
        return scores.softmax(dim=3)

    def forward(
        self,
        query: Frames,
        key: ContextFrames,
        value: ContextFrames,
        key_mask: KeyMask | None = None,
        query_mask: QueryMask | None = None,
        record: list[AttentionRecord] | None = None,
    ) -> Frames:
        """Attend from `query` to `key`, with the values `value`.

        Args:
            query: Input of the queries, (batch, frames, dim).
            key: Input of the keys, (batch, keys, key_dim).
            value: Input of the values, of the shape of `key`.
            key_mask: Keys that may be attended to.
            query_mask: Real queries, for a result that does not depend on padding: only their weights are summed to
                select keys, and the fraction is then a fraction of the keys in `key_mask`. None: padding counts.
            record: A list to which the attention weights are appended.
        """
        keys = None if query_mask is None else key_mask
        if record is None and self._attends_to_selected(query, key):
            attended = attend_to_selected(
                self.query(query),
                self.key(key),
                self.value(value),
                KeySelection(self.fraction, key_mask, query_mask, keys),
                heads=self.heads,
                scale=self.scale,
                dropout=self.dropout if self.training else 0.0,
            )
            return self.output(attended)
        weights = self.weights(query, key, key_mask)
        if self.fraction is None:
            kept = torch.ones_like(weights[:, :, 0], dtype=torch.bool)
        else:
            kept = select_keys(weights, self.fraction, queries=query_mask, keys=keys)
        if record is not None:
            record.append(AttentionRecord(weights, kept))
        if self.fraction is not None:
            weights = weights * kept.unsqueeze(2).to(weights.dtype)
        attended = F.dropout(weights, self.dropout, self.training) @ self._by_head(self.value(value))
        return self.output(rearrange(attended, "batch heads frames dim -> batch frames (heads dim)"))

    def _attends_to_selected(self, query: Tensor, key: Tensor) -> bool:
        """Return whether to compute with only the kept keys: on a CPU, for long sequences, and not in a traced graph, which
        is for all lengths."""
        if is_traced(query) or query.device.type != "cpu":
            return False
        return query.shape[1] * key.shape[1] >= MIN_SCORES

    def _by_head(self, x: Tensor) -> Tensor:
        return rearrange(x, "batch frames (heads dim) -> batch heads frames dim", heads=self.heads)


@dataclass(frozen=True)
class StackConfig:
    """The settings that are the same for all stacks of layers in the network."""

    heads: int = 8
    kept_fraction: float = 0.5
    """Fraction of the keys that every key-sparse layer keeps: "50% attention weights are forced to zero"."""
    positions: Literal["sinusoids", "random_frozen", "none"] = "sinusoids"
    """Position encoding; "sinusoids" in the paper. The authors' code overwrites its table of sinusoids with noise that is
    never trained ("random_frozen"), with 2000 positions for every stack."""
    position_rows: int = 2000
    """Number of positions in a random table."""
    position_entry: Literal["attention", "input"] = "attention"
    """Where positions are added; not in the paper. "attention": in every layer to the attention's input, but not to the
    residual, as in the authors' code. "input": once, to the input of a stack."""
    value_positions: bool = False
    """If true, cross-attention adds positions to the values, not only to the keys. In the paper
    "K and V are always the same"; the authors' code adds positions to the keys only."""
    stack_norms: bool = True
    """If true, a stack's input, and the other stream in cross-attention, pass through a LayerNorm. The authors' code has
    these norms, the paper does not."""
    attention_scale: Literal["head", "model"] = "head"
    """Scores are divided by the square root of this width; in eq. 1 by that of "the Query vector's dimension"."""
    dropout: float = 0.1
    """Dropout of both residual branches, and inside the feed-forward; from the authors' code."""
    attention_dropout: float = 0.1
    """Dropout of the attention weights; from the authors' code."""

    renamed: ClassVar[Mapping[str, str]] = {"kept_share": "kept_fraction"}

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero={"extraction_layers", "ccabs", "fusion_layers"})
        if not 0 < self.kept_fraction <= 1:
            raise BadConfig(
                f"kept_fraction = {self.kept_fraction}: expected a fraction of the keys, above 0 and up to 1"
            )


class Positions(nn.Module):
    """The addition of position encodings. A random `table`, (rows, width), is never trained."""

    table: Tensor

    def __init__(self, config: StackConfig, width: int) -> None:
        super().__init__()
        self.kind = config.positions
        if self.kind == "random_frozen":
            self.register_buffer("table", nn.init.xavier_uniform_(torch.empty(config.position_rows, width)))

    def forward(self, x: Frames) -> Frames:
        if self.kind == "none":
            return x
        if self.kind == "sinusoids":
            return add_sinusoids(x)
        if x.shape[1] > len(self.table):
            raise BadConfig(
                f"{x.shape[1]} frames, but the table of positions has {len(self.table)} rows: "
                "raise position_rows, set a fixed number of frames, or set positions = 'sinusoids'"
            )
        return x + self.table[: x.shape[1]]


class StackLayer(nn.Module):
    """Attention and feed-forward, each with dropout, residual and post-norm (sections 2.1.1 and 2.2).

    Submodules: `attention`, `norm1`, `feedforward` (linear layers at 0 and 3), `norm2`.
    """

    def __init__(self, config: StackConfig, width: int, feedforward: int, key_width: int | None, sparse: bool) -> None:
        super().__init__()
        self.attention = KeySparseAttention(
            width,
            config.heads,
            key_dim=key_width,
            fraction=config.kept_fraction if sparse else None,
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
        x: Frames,
        attention_inputs: Sequence[Tensor],
        key_mask: Tensor | None,
        query_mask: QueryMask | None,
        record: list[AttentionRecord] | None,
    ) -> Frames:
        """Run the layer on x; `attention_inputs` are the sequences that become queries, keys and values."""
        x = self.norm1(x + self.dropout(self.attention(*attention_inputs, key_mask, query_mask, record)))
        return self.norm2(x + self.dropout(self.feedforward(x)))


class Stack(nn.Module):
    """A stack of Transformer layers, or of KS-Transformer layers if `sparse`. Without layers it is the identity.

    Submodules: `norm` of the input, `layers.N`, and `positions`. With a `key_width`, another sequence of that width
    supplies keys and values; `key_norm` and `key_positions` are applied to it.
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
            layer.attention.initialize(stacked=key_width is None)  # type: ignore[union-attr, operator]

    def forward(
        self,
        x: Frames,
        context: ContextFrames | None = None,
        *,
        key_mask: KeyMask | None = None,
        query_mask: QueryMask | None = None,
        record: list[AttentionRecord] | None = None,
    ) -> Frames:
        if not self.layers:
            return x
        x = self.norm(x)
        if context is not None:
            context = self.key_norm(context)
        if self.at_input:
            x = self.positions(x)
            context = None if context is None else self.key_positions(context)
        for layer in self.layers:
            x = layer(x, self._attention_inputs(x, context), key_mask, query_mask, record)
        return x

    def _attention_inputs(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sequences that are projected to queries, keys and values."""
        if self.at_input:
            source = x if context is None else context
            return x, source, source
        positioned = self.positions(x)
        if context is None:
            return positioned, positioned, positioned
        key = self.key_positions(context)
        return positioned, key, key if self.value_positions else context
