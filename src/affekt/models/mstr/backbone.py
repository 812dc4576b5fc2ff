"""The network that MSTR and its baseline share (Li et al., Interspeech 2023): speech frames -> attention blocks -> pooling
over time -> three linear layers. `model.py` and `vanilla.py` supply the attention.

The defaults follow the paper. Where it does not state a detail, an option lists the alternatives. The models that we ship set
`frames="any", masked=True, norm="features"`: they accept any length, and padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.errors import BadConfig
from affekt.models.base import EmotionModel, FeatureSpec, PaperEncoder, PaperSizes, check_sizes
from affekt.models.layers import (
    Classifier,
    FrameMask,
    Frames,
    Pooling,
    StreamInput,
    TransformerBlock,
    add_sinusoids,
    average_frames,
)

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}

# Trains within minutes on two cores, on a few thousand utterances of any length; padding changes nothing.
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
    "pooling": "mean+std",
}


@dataclass(frozen=True)
class TransformerConfig:
    """The settings that MSTR and its baseline, the vanilla Transformer, share. Lengths in frames, widths in features."""

    frames: int | Literal["any"] = 326
    """The fixed length: 326 for IEMOCAP, 224 for MELD, 150 for CREMA-D (derived from Table 2's operation counts)."""
    masked: bool = False
    """If true, padding is masked, so that it changes nothing. The paper has no masks: padding is treated as frames."""
    norm: Literal["map", "features"] = "map"
    """The axes of a LayerNorm: "map" is all frames and features together, "features" each frame by itself. Only "map" fits
    Table 2's parameter counts."""
    input_dim: int = 1024
    """Features of a frame; HuBERT large has 1024."""
    dim: int = 1024
    """F in the paper: width of the blocks."""
    blocks: int = 4
    heads: int = 16
    feedforward: int = 512
    """With the classifier's widths F/2 and F/4, the only power of two that fits Table 2's FLOPs."""
    norm_first: bool = False
    """If true, the blocks are pre-norm. The paper's blocks are "like the vanilla Transformer", which is post-norm."""
    activation: Literal["relu", "gelu"] = "relu"
    """Activation of the feed-forward layers. Not in the paper; the vanilla Transformer has a ReLU."""
    score_width: Literal["head", "model"] = "head"
    """The width by whose square root scores are divided. Eq. 1, which is for one head, has F; the vanilla Transformer has the
    width of a head."""
    projection_bias: bool = True
    """If true, query, key, value and W^O have biases. Eq. 4 and the text have none; `nn.Linear` has one by default."""
    initialization: Literal["torch", "xavier"] = "torch"
    """Not in the paper. "torch": torch's defaults. "xavier": Xavier's uniform initialization of linear layers and
    convolutions; norms and biases keep torch's defaults."""
    dropout: float = 0.1
    """Dropout of both residual branches. Not in the paper; 0.1 is usual in the authors' other code."""
    attention_dropout: float = 0.1
    """Dropout of the attention weights. Not in the paper; 0.1 is usual in the authors' other code."""
    classifier_dropout: float = 0.5
    """Dropout between the classifier's layers. Not in the paper; 0.5 is usual in the authors' other code."""
    hidden: tuple[int, ...] | None = None
    """Widths of the classifier's hidden layers; None is F/2 and F/4."""
    pooling: Literal["mean", "max", "mean+max", "mean+std"] = "mean"
    """Pooling over time. Not in the paper; Table 2 excludes flattening."""
    pool_input: bool = False
    """If true, the pooled input is appended to the pooled output of the last block. Our addition."""
    pooled_norm: bool = False
    """If true, the pooled vector is standardized by running statistics (a BatchNorm without weights). Our addition."""
    pooled_dropout: float = 0.0
    """Dropout of the pooled vector. Our addition."""
    positions: Literal["none", "sinusoids"] = "none"
    """Position encoding. The paper has none: "pooling keeps the timing". Learned positions would show in Table 2's parameter
    counts."""
    input_norm: Literal["none", "layer", "standard"] = "none"
    """Normalization of the features, before the first block; see `StreamInput`."""
    num_states: int = 1
    """Number of hidden states of the encoder, which are concatenated in the features."""
    input_mix: Literal["concat", "learned"] = "concat"
    """How these states are combined; see `StreamInput`."""
    stride: int = 1
    """Number of consecutive input frames that are averaged into one first of all; `frames` counts the averaged frames."""

    renamed: ClassVar[Mapping[str, str]] = {"input_parts": "num_states", "initialisation": "initialization"}
    renamed_values: ClassVar[Mapping[str, Mapping[str, str]]] = {"pooling": {"mean+deviation": "mean+std"}}

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.dim % self.heads:
            raise BadConfig(f"heads = {self.heads} does not divide dim = {self.dim}")
        if self.norm == "map" and (self.frames == "any" or self.masked):
            raise BadConfig(
                "norm = 'map' normalizes frames and padding as one map of fixed size: "
                "set frames to a number and masked = false, or norm = 'features'"
            )


class TemporalTransformer(EmotionModel):
    """The network of MSTR and its baseline, except for the attention, which a subclass supplies.

    Submodules, in order of execution: `input` (empty unless an option or unequal widths need it: `norms`, `weights`,
    `projection`); `blocks.N` with `attention.{query,key,value,output}`, `norm1`, `feedforward` (linear layers at 0 and 2),
    `norm2`; `norm`, with norm_first, before the pooling; `classifier` (linear layers at 0, 3, 6).

    The pooled vector is the mean, then the standard deviation (or maximum), of the last block's output; with pool_input,
    the same statistics of the input follow.
    """

    streams = ("speech",)
    paper = PaperSizes(  # IEMOCAP's row of Table 2
        num_emotions=4, frames={"speech": 326}, encoders={"speech": PaperEncoder("hubert-large")}
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": SMALL}
    tiny: ClassVar[Mapping[str, Any]] = {
        "frames": "any",
        "masked": True,
        "norm": "features",
        "dim": 32,
        "input_dim": 6,
        "blocks": 2,
        "heads": 2,
        "feedforward": 16,
    }

    def __init__(self, config: TransformerConfig, num_emotions: int) -> None:
        super().__init__()
        self.config, self.num_emotions = config, num_emotions
        self.dims = {"speech": config.input_dim}
        self.lengths = {} if config.frames == "any" else {"speech": config.frames}
        self.strides = {"speech": config.stride}
        norm_shape = (*self.lengths.values(), config.dim) if config.norm == "map" else (config.dim,)
        self.input = StreamInput(
            config.input_dim, config.dim, num_states=config.num_states, mix=config.input_mix, norm=config.input_norm
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                self.build_attention(config),
                dim=config.dim,
                feedforward=config.feedforward,
                norm_shape=norm_shape,
                norm_first=config.norm_first,
                dropout=config.dropout,
                activation=ACTIVATIONS[config.activation],
            )
            for _ in range(config.blocks)
        )
        # If the pooled vector is standardized, weights and biases of this LayerNorm would have no effect.
        self.norm = (
            nn.LayerNorm(norm_shape, elementwise_affine=not config.pooled_norm) if config.norm_first else nn.Identity()
        )
        self.pooling = Pooling(config.pooling)
        width = self.pooling.width(config.dim) + config.pool_input * self.pooling.width(config.input_dim)
        self.pooled_norm = nn.BatchNorm1d(width, affine=False) if config.pooled_norm else nn.Identity()
        self.pooled_dropout = nn.Dropout(config.pooled_dropout)
        self.classifier = Classifier(
            width,
            num_emotions,
            hidden=(config.dim // 2, config.dim // 4) if config.hidden is None else config.hidden,
            dropout=config.classifier_dropout,
        )
        if config.initialization == "xavier":
            for layer in self.modules():
                if isinstance(layer, nn.Linear | nn.Conv1d):
                    nn.init.xavier_uniform_(layer.weight)

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], num_emotions: int) -> TemporalTransformer:
        speech = specs["speech"]
        return cls(replace(config, input_dim=speech.dim, num_states=speech.num_states), num_emotions)

    def build_attention(self, config: TransformerConfig) -> nn.Module:
        """Build the attention of one block."""
        raise NotImplementedError

    def attention_flops(self, frames: int) -> int:
        """Return the multiply-adds of one block's attention over this many frames, as Table 2 counts them."""
        raise NotImplementedError

    def paper_flops(self, frames: Mapping[str, int]) -> int:
        """Return the number of operations by Table 2's rule.

        The rule counts the attention's two products over all frames, and every weight of a linear layer (or convolution)
        once, however many frames it is applied to. It reproduces all six figures of the table.
        """
        weights = sum(m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear | nn.Conv1d))
        length = -(-frames["speech"] // self.config.stride)
        return self.config.blocks * self.attention_flops(length) + weights

    def _prepare(self, batch: Batch) -> tuple[Tensor, Frames, FrameMask | None]:
        """Return the features, the first block's input, and the mask of both (None if masks are off)."""
        stream = average_frames(batch.streams["speech"], self.config.stride)
        stream = self.input.prepare(stream, masked=self.config.masked, length=self.lengths.get("speech"))
        x = self.input(stream.values)
        if self.config.positions == "sinusoids":
            x = add_sinusoids(x)
        return stream.values, x, stream.mask if self.config.masked else None

    @property
    def output_layer(self) -> nn.Linear:
        return self.classifier.output_layer

    def inert_parameters(self) -> frozenset[str]:
        inert = set()
        if self.config.pooled_norm and not self.config.norm_first and self.config.norm == "features":
            # This bias adds a constant to the pooled vector, which the standardization subtracts.
            inert.add(f"blocks.{self.config.blocks - 1}.norm2.bias")
        if self.config.input_mix == "learned" and self.config.num_states == 1:
            inert.add("input.weights")  # the softmax of one number
        inert.update(
            f"blocks.{n}.attention.{name}"
            for n in range(self.config.blocks)
            for name in self.inert_attention_parameters()
        )
        return frozenset(inert)

    def inert_attention_parameters(self) -> set[str]:
        """Return the names of the attention's parameters that provably get no gradient."""
        raise NotImplementedError

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.input.set_statistics(*statistics["speech"])

    def embed(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """Return the utterances' vectors, the input of the classifier."""
        features, x, mask = self._prepare(batch)
        for block in self.blocks:
            x = block(x, mask)
        pooled = self.pooling(self.norm(x), mask)
        if self.config.pool_input:
            pooled = torch.cat([pooled, self.pooling(features, mask)], dim=1)
        return self.pooled_norm(pooled)

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.classifier(self.pooled_dropout(self.embed(batch)))

    def attention_maps(self, batch: Batch) -> Float[Tensor, "batch blocks *map"]:
        """Return each block's `attention.explain`, stacked after the batch axis."""
        _, x, mask = self._prepare(batch)
        maps = []
        for block in self.blocks:
            maps.append(block.attention.explain(block.attention_input(x), mask))  # type: ignore[union-attr, operator]
            x = block(x, mask)
        return torch.stack(maps, dim=1)
