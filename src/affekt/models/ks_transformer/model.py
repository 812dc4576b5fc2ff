"""KS-Transformer: Chen et al., "Key-Sparse Transformer with Cascaded Cross-Attention Block for Multimodal Speech Emotion
Recognition", arXiv 2106.11532 (2021), version 1. Sizes, and choices that its text leaves open, follow the authors' code,
which belongs to the later version (ICASSP 2022).

Speech and text each pass through feature extraction (vanilla attention), modality interaction (cascaded cross-attention
blocks, key-sparse) and deep fusion (key-sparse). The means over time are concatenated, and three linear layers classify
them.
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
from affekt.models.base import EmotionModel, ExplainedAttention, FeatureSpec, PaperEncoder, PaperSizes
from affekt.models.ks_transformer.attention import AttentionRecord, KeySparseAttention, Stack, StackConfig
from affekt.models.layers import (
    Classifier,
    ContextFrames,
    FrameMask,
    Frames,
    Pooling,
    StreamInput,
    average_frames,
    key_biases,
)

OTHER_STREAM = {"speech": "text", "text": "speech"}


@dataclass(frozen=True)
class KSTransformerConfig(StackConfig):
    """The settings of KS-Transformer. Lengths in frames or tokens, widths in features. The defaults are the paper's."""

    modalities: Literal["both", "speech", "text"] = "both"
    """A single stream (Figure 6) passes through FEM and DFM, without interaction."""
    speech_dim: int = 512
    """Features of a frame; the context features of wav2vec large have 512."""
    text_dim: int = 1024
    """Features of a token; the last layer of RoBERTa large has 1024."""
    speech_frames: int | Literal["any"] = 460
    """The fixed length, 4.6 s."""
    text_frames: int | Literal["any"] = 20
    """The fixed length in tokens, including RoBERTa's <s> and </s>."""
    speech_width: int | None = None
    """Width of the network for speech. None, as in the paper: the width of the features; otherwise a linear layer projects
    the features to it."""
    text_width: int | None = None
    """Width of the network for text, as `speech_width`."""
    speech_feedforward: int = 256
    """Width of the feed-forward layers for speech. Not in the paper; from the authors' code."""
    text_feedforward: int = 512
    """Width of the feed-forward layers for text. Not in the paper; from the authors' code."""
    extraction_layers: int = 5
    """Number of layers of the feature extraction module (FEM), with vanilla attention; 0 omits it (Table 2)."""
    ccabs: int = 3
    """Number of cascaded cross-attention blocks in the modality interaction module (MIM), Table 1; 0 omits it."""
    fusion_layers: int = 2
    """Number of layers of the deep fusion module (DFM); 0 omits it (Table 2)."""
    skip: Literal["double", "single"] = "double"
    """The paper shows one skip connection around the CCABs, x + CCABs(x); its code adds x twice, 2x + CCABs(x)."""
    masked: bool | Literal["authors"] = "authors"
    """How padding is treated. "authors", as in their code: it gets no attention in feature extraction and from the other
    stream; the second half of a CCAB, deep fusion, the means and the selection of keys treat it as frames. False: it is
    treated as frames everywhere; the paper only says "cropping or padding". True: padding changes nothing."""
    hidden: tuple[int, ...] | None = None
    """Widths of the classifier's hidden layers; None is a half and a quarter of its input: 1536 -> 768 -> 384."""
    classifier_dropout: float = 0.5
    input_norm: Literal["none", "standard"] = "none"
    """Normalization of the features; see `StreamInput`. Our addition."""
    speech_stride: int = 1
    """Number of input frames that are averaged into one; `speech_frames` counts the averages. Our addition."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for stream in streams_of(self):
            if self.width(stream) % self.heads:
                raise BadConfig(
                    f"heads = {self.heads} does not divide the width of {stream}, {self.width(stream)}: "
                    f"set heads, or {stream}_width"
                )

    def dim(self, stream: str) -> int:
        return self.speech_dim if stream == "speech" else self.text_dim

    def width(self, stream: str) -> int:
        return (self.speech_width if stream == "speech" else self.text_width) or self.dim(stream)

    def feedforward(self, stream: str) -> int:
        return self.speech_feedforward if stream == "speech" else self.text_feedforward

    def frames(self, stream: str) -> int | Literal["any"]:
        return self.speech_frames if stream == "speech" else self.text_frames


def streams_of(config: KSTransformerConfig) -> tuple[str, ...]:
    """Return the streams that a network with these settings takes."""
    return ("speech", "text") if config.modalities == "both" else (config.modalities,)


class CCAB(nn.Module):
    """A cascaded cross-attention block (section 2.4): attention to the other stream (`cross`), then within
    the stream (`own`)."""

    def __init__(self, config: KSTransformerConfig, stream: str) -> None:
        super().__init__()
        width, feedforward = config.width(stream), config.feedforward(stream)
        self.cross = Stack(config, width, feedforward, layers=1, key_width=config.width(OTHER_STREAM[stream]))
        self.own = Stack(config, width, feedforward, layers=1)


@dataclass(frozen=True)
class ForwardState:
    """The state of a forward pass: the masks by stream, and a record of the attention, or None if none is needed."""

    masks: Mapping[str, FrameMask]
    record: dict[str, list[AttentionRecord]] | None


class KSTransformer(EmotionModel):
    """KS-Transformer with cascaded cross-attention blocks. Streams: speech (batch, frames, 512), text (batch, tokens, 1024).

    Submodules, each by stream ("speech", "text"): `input.STREAM.projection`, a linear layer if the width differs from that of
    the features; `extraction.STREAM` (FEM); `interaction.STREAM.N.cross` and `.own` (MIM, block N), where STREAM supplies
    the queries; `fusion.STREAM` (DFM). All are stacks: `norm`, `layers.N.attention.{query,key,value,output}`,
    `layers.N.{norm1,norm2}`, `layers.N.feedforward.{0,3}`, and `positions.table` if it is random; `cross` also has
    `key_norm` and `key_positions.table`. `classifier` (linear layers at 0, 3, 6) takes the means of speech and text, in
    this order.
    """

    Config = KSTransformerConfig
    streams: tuple[str, ...] = ("speech", "text")
    paper = PaperSizes(
        num_emotions=4,
        frames={"speech": 460, "text": 20},
        encoders={"speech": PaperEncoder("wav2vec-large"), "text": PaperEncoder("roberta-large")},
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "authors_code": {"positions": "random_frozen", "skip": "double", "masked": "authors"},
        "small": {
            "speech_frames": "any",
            "text_frames": "any",
            "speech_width": 128,
            "text_width": 128,
            "speech_feedforward": 128,
            "text_feedforward": 128,
            "heads": 4,
            "extraction_layers": 1,
            "ccabs": 1,
            "fusion_layers": 1,
            "masked": True,
            "dropout": 0.2,
            "input_norm": "standard",
            "speech_stride": 2,
        },
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "speech_frames": "any",
        "text_frames": "any",
        "speech_dim": 6,
        "text_dim": 8,
        "speech_width": 16,
        "speech_feedforward": 12,
        "text_feedforward": 10,
        "heads": 2,
        "extraction_layers": 1,
        "ccabs": 1,
        "fusion_layers": 1,
        "masked": True,
        "input_norm": "standard",
    }
    explained_attention: ClassVar[Mapping[str, ExplainedAttention]] = {
        f"{name}_{queries}": ExplainedAttention(
            queries, keys, *(f"{name}_{queries}_{kind}" for kind in ("vanilla", "sparse", "kept"))
        )
        for name in ("cross", "fusion", "own", "extraction")
        for queries, other in (("speech", "text"), ("text", "speech"))
        for keys in [other if name == "cross" else queries]
    }
    explained_embeddings: ClassVar[Mapping[str, str]] = {
        "speech": "speech_embedding",
        "text": "text_embedding",
        "fused": "embedding",
    }

    def __init__(self, config: KSTransformerConfig, num_emotions: int) -> None:
        super().__init__()
        self.config, self.num_emotions, self.streams = config, num_emotions, streams_of(config)
        self.dims = {stream: config.dim(stream) for stream in self.streams}
        lengths = {stream: config.frames(stream) for stream in self.streams}
        self.lengths = {stream: frames for stream, frames in lengths.items() if isinstance(frames, int)}
        self.strides = {"speech": config.speech_stride}
        width = sum(config.width(stream) for stream in self.streams)
        self.input = nn.ModuleDict(
            {s: StreamInput(config.dim(s), config.width(s), norm=config.input_norm) for s in self.streams}
        )
        self.extraction = self._stacks(config.extraction_layers, sparse=False)
        blocks = config.ccabs if len(self.streams) == 2 else 0
        self.interaction = nn.ModuleDict(
            {s: nn.ModuleList(CCAB(config, s) for _ in range(blocks)) for s in self.streams}
        )
        self.fusion = self._stacks(config.fusion_layers, sparse=True)
        self.pooling = Pooling("mean")
        hidden = (width // 2, width // 4) if config.hidden is None else config.hidden
        self.classifier = Classifier(width, num_emotions, hidden=hidden, dropout=config.classifier_dropout)
        self._initialize()

    def _stacks(self, layers: int, *, sparse: bool) -> nn.ModuleDict:
        def stack(stream: str) -> Stack:
            config = self.config
            return Stack(config, config.width(stream), config.feedforward(stream), layers=layers, sparse=sparse)

        return nn.ModuleDict({stream: stack(stream) for stream in self.streams})

    def _initialize(self) -> None:
        """Draw Xavier's uniform weights and torch's default biases, as the authors' code does. The attention layers have
        initialized their projections already."""
        initialized = {
            layer
            for attention in self.modules()
            if isinstance(attention, KeySparseAttention)
            for layer in (attention.query, attention.key, attention.value)
        }
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in initialized:
                nn.init.xavier_uniform_(module.weight)

    @classmethod
    def streams_of(cls, config: KSTransformerConfig) -> tuple[str, ...]:
        return streams_of(config)

    @classmethod
    def for_lengths(cls, config: KSTransformerConfig, frames: Mapping[str, int]) -> KSTransformerConfig:
        """Return the settings for these numbers of frames by stream, counted before averaging over `speech_stride`."""
        if "speech" in frames:
            frames = {**frames, "speech": -(-frames["speech"] // config.speech_stride)}
        settings: KSTransformerConfig = super().for_lengths(config, frames)
        return settings

    @classmethod
    def build(cls, config: KSTransformerConfig, specs: Mapping[str, FeatureSpec], num_emotions: int) -> KSTransformer:
        sizes = {f"{stream}_dim": specs[stream].dim for stream in streams_of(config)}
        return cls(replace(config, **sizes), num_emotions)  # type: ignore[arg-type]

    @property
    def output_layer(self) -> nn.Linear:
        return self.classifier.output_layer

    def inert_parameters(self) -> frozenset[str]:
        return key_biases(self)  # the selection of keys, too, depends only on the softmax, in which these biases cancel

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for stream in self.streams:
            self._input(stream).set_statistics(*statistics[stream])

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.classifier(self.embed(batch))

    def embed(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """Return the utterances' vectors, the input of the classifier: speech, then text."""
        x, masks = self._prepare(batch)
        state = ForwardState(masks, None)
        return self._pool(self._fuse(self._extract(x, state), state), state)

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return embeddings and attention weights.

        `embedding` (batch, width); for each stream `STREAM_embedding`, the mean of its extracted features.

        For each of `extraction_STREAM`, `cross_STREAM`, `own_STREAM` and `fusion_STREAM` that the network has: `..._vanilla`
        (batch, layers, heads, queries, keys), vanilla attention's weights, whose rows sum to one; `..._kept` (batch,
        layers, heads, keys), bool; `..._sparse`, their product, which key-sparse attention uses. Extraction is vanilla and
        keeps all keys. `cross_speech` has queries of speech and keys of text, and one layer for each CCAB.
        """
        x, masks = self._prepare(batch)
        record: dict[str, list[AttentionRecord]] = {}
        state = ForwardState(masks, record)
        extracted = self._extract(x, state)
        explanation = {"embedding": self._pool(self._fuse(extracted, state), state)}
        for stream in self.streams:
            explanation[f"{stream}_embedding"] = self._pool({stream: extracted[stream]}, state)
        for name, layers in record.items():
            vanilla = torch.stack([layer.vanilla for layer in layers], dim=1)
            kept = torch.stack([layer.kept for layer in layers], dim=1)
            sparse = vanilla * kept.unsqueeze(3).to(vanilla.dtype)
            explanation |= {f"{name}_vanilla": vanilla, f"{name}_kept": kept, f"{name}_sparse": sparse}
        return explanation

    def _prepare(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, FrameMask]]:
        """Return the network's input by stream, and the masks of its real frames."""
        x, masks = {}, {}
        for name in self.streams:
            stream = batch.streams[name]
            if name == "speech":
                stream = average_frames(stream, self.config.speech_stride)
            module = self._input(name)
            stream = module.prepare(stream, masked=self.config.masked is True, length=self.lengths.get(name))
            x[name] = module(stream.values)
            all_real = torch.ones_like(x[name][:, :, 0], dtype=torch.bool)
            masks[name] = all_real if stream.mask is None else stream.mask
        return x, masks

    def _extract(self, x: Mapping[str, Tensor], state: ForwardState) -> dict[str, Tensor]:
        """Run FEM (section 2.3) on each stream."""
        return {s: self._run_stack("extraction", s, _for_stream(self.extraction, s), x[s], state) for s in x}

    def _fuse(self, extracted: Mapping[str, Tensor], state: ForwardState) -> dict[str, Tensor]:
        """Run MIM and DFM (sections 2.4 and 2.5). The keys of all cross-attention are the other stream's extracted
        features."""
        fused = {}
        for stream, x in extracted.items():
            y = x
            for block in _for_stream(self.interaction, stream):
                y = self._run_stack("cross", stream, block.cross, y, state, extracted[OTHER_STREAM[stream]])
                y = self._run_stack("own", stream, block.own, y, state)
            if len(_for_stream(self.interaction, stream)):
                y = y + x if self.config.skip == "single" else y + x + x
            fused[stream] = self._run_stack("fusion", stream, _for_stream(self.fusion, stream), y, state)
        return fused

    def _run_stack(
        self,
        module: str,
        stream: str,
        stack: nn.Module,
        x: Frames,
        state: ForwardState,
        context: ContextFrames | None = None,
    ) -> Frames:
        """Run a stack of layers with the masks for this module of the network."""
        keys = state.masks[stream if context is None else OTHER_STREAM[stream]]
        masked = self.config.masked is True
        mask_keys = masked or (self.config.masked == "authors" and module in ("extraction", "cross"))
        return stack(
            x,
            context,
            key_mask=keys if mask_keys else None,
            query_mask=state.masks[stream] if masked else None,
            record=None
            if state.record is None or not stack.layers
            else state.record.setdefault(f"{module}_{stream}", []),
        )

    def _pool(self, x: Mapping[str, Tensor], state: ForwardState) -> Float[Tensor, "batch width"]:
        masked = self.config.masked is True
        return torch.cat([self.pooling(x[name], state.masks[name] if masked else None) for name in x], dim=1)

    def _input(self, stream: str) -> StreamInput:
        layer = self.input[stream]
        assert isinstance(layer, StreamInput)
        return layer


def _for_stream(modules: nn.ModuleDict, stream: str) -> Any:
    return modules[stream]
