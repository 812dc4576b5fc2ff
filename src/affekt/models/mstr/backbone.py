"""What MSTR and its baseline share (Li et al., Interspeech 2023): speech frames -> blocks of attention -> pooled over
time -> three linear layers. `mstr.py` and `vanilla.py` give the attention.

The defaults are the paper's reading, resolved where it is silent; every option names its alternative. What we ship sets
`frames="any", masked=True, norm="features"`: any length, padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.errors import BadConfig
from affekt.models.base import EmotionModel, FeatureSpec, PaperSizes, check_sizes
from affekt.models.layers import (
    Classifier,
    Mask,
    Pooling,
    Sequence,
    StreamInput,
    TransformerBlock,
    sinusoids,
    strided,
)

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}

# What trains on two cores within minutes, on a few thousand utterances: any length, padding changes nothing.
SMALL: Mapping[str, Any] = {
    "frames": "any",
    "masked": True,
    "norm": "features",
    "norm_first": True,
    "dim": 128,
    "blocks": 2,
    "heads": 4,
    "feedforward": 256,
    "dropout": 0.2,
    "attention_dropout": 0.2,
    "input_norm": "standard",
    "stride": 2,
    "pooling": "mean+deviation",
}


@dataclass(frozen=True)
class TransformerConfig:
    """What MSTR and its baseline, the vanilla Transformer, have in common. Lengths in frames, widths in features."""

    renamed: ClassVar[Mapping[str, str]] = {"input_parts": "num_states"}

    frames: int | Literal["any"] = 326  # 326 IEMOCAP, 224 MELD, 150 CREMA-D (from Table 2's counts)
    masked: bool = False  # the paper has no masks: padding is read as frames. True: padding changes nothing
    # Table 2's parameter counts only fit norms that are affine over the whole (frames, features) map.
    norm: Literal["map", "features"] = "map"
    input_dim: int = 1024  # HuBERT large
    dim: int = 1024
    blocks: int = 4
    heads: int = 16
    feedforward: int = 512  # with the classifier F/2, F/4 the only power of two that Table 2's FLOPs admit
    norm_first: bool = False  # "like the vanilla Transformer": post-norm
    activation: Literal["relu", "gelu"] = "relu"  # of the feed-forward; not printed, the vanilla Transformer's
    # Eq. 1 divides by the root of F, for one head; with several the vanilla Transformer takes a head's width.
    score_width: Literal["head", "model"] = "head"
    projection_bias: bool = True  # of query, key, value and W^O; eq. 4 and the text print none, nn.Linear has one
    # Not printed. "xavier": uniform, for the matrices of linear layers and convolutions alone.
    initialisation: Literal["torch", "xavier"] = "torch"
    dropout: float = 0.1  # on both residual branches; not printed, the laboratory's default
    attention_dropout: float = 0.1  # likewise
    classifier_dropout: float = 0.5  # likewise
    hidden: tuple[int, ...] | None = None  # the classifier's widths; None is F/2 and F/4
    pooling: Literal["mean", "max", "mean+max", "mean+deviation"] = "mean"  # not printed; Table 2 excludes flattening
    # Beyond the paper: the pooled input stands beside the pooled output of the last block, each feature of the pooled
    # vector is standardised by running statistics (a BatchNorm without weights), and some are dropped in training.
    pool_input: bool = False
    pooled_norm: bool = False
    pooled_dropout: float = 0.0
    positions: Literal["none", "sinusoids"] = (
        "none"  # "pooling keeps the timing"; a learned table would show in Table 2
    )
    input_norm: Literal["none", "layer", "standard"] = "none"  # of the features, before the first block
    num_states: int = 1  # states of the encoder that the features hold, concatenated along dim
    input_mix: Literal["concat", "learned"] = "concat"
    stride: int = 1  # frames of the input that are averaged into one before anything else; `frames` counts what remains

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.dim % self.heads:
            raise BadConfig(f"heads = {self.heads} does not divide dim = {self.dim}")
        if self.norm == "map" and (self.frames == "any" or self.masked):
            raise BadConfig(
                "norm = 'map' normalises frames and padding as one map of fixed size: "
                "set frames to a number and masked = false, or norm = 'features'"
            )


class TemporalTransformer(EmotionModel):
    """MSTR and its baseline but for the attention, which a subclass gives.

    Submodules, in the order in which they act: `input` (empty unless an option or unequal widths ask for it: `norms`,
    `weights`, `projection`); `blocks.N` with `attention.{query,key,value,output}`, `norm1`, `feedforward` (linear layers at
    0 and 2), `norm2`; `norm`, with norm_first, before the pooling; `classifier` (linear layers at 0, 3, 6).
    Concatenates only where an option asks for it: the pooled vector is mean, then deviation (or maximum), of the last
    block's output, then, with pool_input, the same of the input.
    """

    streams = ("speech",)
    paper = PaperSizes(emotions=4, frames={"speech": 326})  # IEMOCAP's row of Table 2

    def __init__(self, config: TransformerConfig, emotions: int) -> None:
        super().__init__()
        self.config, self.emotions = config, emotions
        self.dims = {"speech": config.input_dim}
        self.lengths = {} if config.frames == "any" else {"speech": config.frames}
        norm_shape = (*self.lengths.values(), config.dim) if config.norm == "map" else (config.dim,)
        self.input = StreamInput(
            config.input_dim, config.dim, num_states=config.num_states, mix=config.input_mix, norm=config.input_norm
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                self.attention(config),
                dim=config.dim,
                feedforward=config.feedforward,
                norm_shape=norm_shape,
                norm_first=config.norm_first,
                dropout=config.dropout,
                activation=ACTIVATIONS[config.activation],
            )
            for _ in range(config.blocks)
        )
        # A norm's own weight and bias would be undone by the standardisation of the pooled vector.
        self.norm = (
            nn.LayerNorm(norm_shape, elementwise_affine=not config.pooled_norm) if config.norm_first else nn.Identity()
        )
        self.pooling = Pooling(config.pooling)
        width = self.pooling.width(config.dim) + config.pool_input * self.pooling.width(config.input_dim)
        self.pooled_norm = nn.BatchNorm1d(width, affine=False) if config.pooled_norm else nn.Identity()
        self.pooled_dropout = nn.Dropout(config.pooled_dropout)
        self.classifier = Classifier(
            width,
            emotions,
            hidden=(config.dim // 2, config.dim // 4) if config.hidden is None else config.hidden,
            dropout=config.classifier_dropout,
        )
        if config.initialisation == "xavier":
            for layer in self.modules():
                if isinstance(layer, nn.Linear | nn.Conv1d):
                    nn.init.xavier_uniform_(layer.weight)

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], emotions: int) -> TemporalTransformer:
        return cls(replace(config, input_dim=specs["speech"].dim, num_states=specs["speech"].num_states), emotions)

    def attention(self, config: TransformerConfig) -> nn.Module:
        raise NotImplementedError

    def attention_flops(self, frames: int) -> int:
        """Multiply-adds of one block's attention over so many frames, as Table 2 counts them."""
        raise NotImplementedError

    def paper_flops(self, frames: Mapping[str, int]) -> int:
        """Table 2's rule: the attention's two products over all frames, and every weight of a linear layer (or convolution)
        once, however many frames it is applied to. It gives all six of the table's figures."""
        weights = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear | nn.Conv1d))
        length = -(-frames["speech"] // self.config.stride)
        return self.config.blocks * self.attention_flops(length) + weights

    def _start(self, batch: Batch) -> tuple[Tensor, Sequence, Mask | None]:
        """The features and the sequence that enters the first block, and their mask if masks are on."""
        stream = batch.streams["speech"]
        if self.config.stride > 1:
            stream = Stream(*strided(stream.values, stream.mask, self.config.stride))
        # Padding is zero after the standardisation, not before: a zero before would be far from any frame.
        features = self.input.standardised(stream.values)
        if self.config.input_norm == "standard" and stream.mask is not None:
            features = features * stream.mask.unsqueeze(2).to(features.dtype)
        stream = replace(stream, values=features)
        if self.lengths:
            stream = stream.fitted(self.lengths["speech"])
        features = stream.values
        x = self.input(features)
        if self.config.positions == "sinusoids":
            x = x + sinusoids(x.shape[1], x.shape[2], device=x.device, dtype=x.dtype)
        return features, x, stream.mask if self.config.masked else None

    def output(self) -> nn.Linear:
        return self.classifier.last

    def inert_parameters(self) -> frozenset[str]:
        inert = set()
        if self.config.pooled_norm and not self.config.norm_first and self.config.norm == "features":
            inert.add(f"blocks.{self.config.blocks - 1}.norm2.bias")  # a constant, which the standardisation takes off
        if self.config.input_mix == "learned" and self.config.num_states == 1:
            inert.add("input.weights")  # the softmax of one number
        inert.update(
            f"blocks.{n}.attention.{name}" for n in range(self.config.blocks) for name in self.inert_attention()
        )
        return frozenset(inert)

    def inert_attention(self) -> set[str]:
        """Names of the attention's parameters that provably get no gradient."""
        raise NotImplementedError

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.input.standardise(*statistics["speech"])

    def embed(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """The utterances' vectors, as the classifier takes them."""
        features, x, mask = self._start(batch)
        for block in self.blocks:
            x = block(x, mask)
        pooled = self.pooling(self.norm(x), mask)
        if self.config.pool_input:
            pooled = torch.cat([pooled, self.pooling(features, mask)], dim=1)
        return self.pooled_norm(pooled)

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.classifier(self.pooled_dropout(self.embed(batch)))

    def attention_maps(self, batch: Batch) -> Tensor:
        """What each block's attention explains, stacked behind the batch axis."""
        _, x, mask = self._start(batch)
        maps = []
        for block in self.blocks:
            maps.append(block.attention.explain(block.attention_input(x), mask))  # type: ignore[union-attr, operator]
            x = block(x, mask)
        return torch.stack(maps, dim=1)
