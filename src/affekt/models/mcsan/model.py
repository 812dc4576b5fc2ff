"""MCSAN: the multimodal cross- and self-attention network of Sun et al., "Multimodal Cross- and Self-Attention Network for
Speech Emotion Recognition", ICASSP 2021. Recurrent networks encode speech and text. In one module each attends to the other;
in a second module, parallel to it, each attends to itself. The outputs of both are pooled over time and classified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch, frame_mask
from affekt.errors import BadConfig
from affekt.models.base import EmotionModel, ExplainedAttention, FeatureSpec, PaperEncoder, PaperSizes, check_sizes
from affekt.models.layers import (
    Classifier,
    Frames,
    FullAttention,
    Pooling,
    StreamInput,
    TransformerBlock,
    add_sinusoids,
    key_biases,
)
from affekt.models.mcsan.encoders import KERNEL, Counts, MCSANSpeechEncoder, MCSANTextEncoder

# Stream -> the setting with its maximum length.
LIMITS = {"speech": "speech_frames", "text": "text_tokens"}
# The setting `modules` -> the modules in the order of execution.
MODULES = {
    "parallel": ("cross", "self"),
    "cross": ("cross",),
    "self": ("self",),
    "cross+self": ("cross", "self"),
    "self+cross": ("self", "cross"),
}


@dataclass(frozen=True)
class MCSANConfig:
    """The settings of MCSAN. Lengths in frames or tokens, widths in features. Defaults without a remark are from
    section 3.2."""

    modalities: Literal["speech+text", "speech", "text"] = "speech+text"
    """Table 3: "w/o audio" is "text", and "w/o text" is "speech"; only self-attention remains then."""
    modules: Literal["parallel", "cross", "self", "cross+self", "self+cross"] = "parallel"
    """Table 3: "w/o self" is "cross", "w/o cross" is "self"; in "cross+self" self-attention follows cross-attention."""
    layers: int = 1
    """N: number of layers of each module."""
    speech_dim: int = 40
    """Features of a frame: 40 MFCCs."""
    text_dim: int = 300
    """Features of a token: GloVe vectors of 300 numbers."""
    speech_frames: int | Literal["any"] = 1000
    """The maximum; later frames are cut off."""
    text_tokens: int | Literal["any"] = "any"
    """The maximum; later tokens are cut off. Not in the paper; earlier work on the same data has 128."""
    padded_to: Literal["batch", "maximum"] = "batch"
    """Length to which utterances are padded: the longest of the batch, or the two maxima above. Not in the paper."""
    masked: bool = True
    """If true, padding is masked; otherwise it is treated as zero frames. Not in the paper."""
    input_norm: Literal["none", "speech", "standard"] = "speech"
    """Streams that are z-normalized: "none", "speech", or both ("standard"). The paper: "We perform z-normalization" of the
    speech. It does not state the statistics; we use those of the training set."""
    dim: int = 128
    heads: int = 8
    feedforward: int = 512
    """Not in the paper: 512 is four times `dim`, as in the cited Transformer; the paper's 128 "hidden neurons" are another
    reading."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the hidden layers of the classifier, the paper's "fully connected network"; () is one linear layer."""
    convolution_padding: Literal[0, 1] = 1
    """Zero frames at either end of a convolution's input. Not in the paper."""
    convolution_activation: Literal["none", "relu"] = "none"
    """The paper defines ConvBlock as MaxPool(Conv1D)."""
    pool_stride: int = 3
    """Frames from one pooling window to the next. Not in the paper; usually the window's size, 3 frames."""
    positions: Literal["sinusoids", "learned", "none"] = "sinusoids"
    """Position encoding: sinusoids as in the cited Transformer. "learned" needs a number as the maximum length of each
    stream."""
    positions_in: Literal["both", "cross"] = "both"
    """Modules to whose inputs positions are added. The paper describes positions for the cross module only, but calls the
    self module "similar" to it."""
    attention_scale: Literal["head", "dim"] = "head"
    """Divisor of the scores: sqrt(d / heads) as in the cited Transformer; or sqrt(d) as in eq. 9, which is for one head."""
    cross_update: Literal["parallel", "sequential"] = "parallel"
    """Order in a layer: text attends to speech before ("parallel") or after ("sequential") speech is updated."""
    pooled: Literal["last", "all"] = "last"
    """Modules whose outputs are pooled if one module follows the other. Not in the paper."""
    dropout: float = 0.0
    """Dropout of the blocks' residual branches. The paper states none of the four dropout probabilities."""
    attention_dropout: float = 0.0
    """Dropout of the attention weights."""
    encoder_dropout: float = 0.0
    """Dropout of the encoders' inputs and outputs."""
    classifier_dropout: float = 0.0
    """Dropout of the classifier's input, and between its layers."""

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero={"convolution_padding", "layers"})
        limits = [getattr(self, LIMITS[stream]) for stream in self.streams]
        if self.dim % self.heads:
            raise BadConfig(f"heads = {self.heads} does not divide dim = {self.dim}")
        if self.pool_stride not in range(1, KERNEL + 1):
            raise BadConfig(f"pool_stride = {self.pool_stride}: expected 1 to {KERNEL}, so that no frame is skipped")
        if self.layers < 1:
            raise BadConfig(f"layers = {self.layers}: expected 1 or more; set modules to omit a module")
        if len(self.streams) == 1 and self.modules not in ("parallel", "self"):
            raise BadConfig(
                f"modules = {self.modules!r} needs both modalities: with {self.modalities} alone set modules = 'self'"
            )
        if self.positions_in == "cross" and "cross" not in self.order:
            raise BadConfig("positions_in = 'cross', but there is no cross-attention: set positions_in = 'both'")
        if "any" in limits and (self.positions == "learned" or self.padded_to == "maximum"):
            raise BadConfig(
                "positions = 'learned' and padded_to = 'maximum' need a maximum length: set "
                + " and ".join(f"{LIMITS[stream]} to a number" for stream in self.streams)
            )

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.modalities.split("+"))

    @property
    def dims(self) -> dict[str, int]:
        return {stream: getattr(self, f"{stream}_dim") for stream in self.streams}

    @property
    def order(self) -> tuple[str, ...]:
        """The modules, in the order of execution."""
        return MODULES[self.modules] if len(self.streams) == 2 else ("self",)

    @property
    def sequential(self) -> bool:
        return self.modules in ("cross+self", "self+cross")

    @property
    def pooled_modules(self) -> tuple[str, ...]:
        """The modules whose outputs are pooled, in the order of concatenation."""
        modules = self.order[-1:] if self.sequential and self.pooled == "last" else self.order
        return tuple(sorted(modules))


def _build_input(config: MCSANConfig, stream: str) -> StreamInput:
    dim = config.dims[stream]
    return StreamInput(dim, dim, norm="standard" if config.input_norm in (stream, "standard") else "none")


def _build_encoder(config: MCSANConfig, stream: str) -> MCSANSpeechEncoder | MCSANTextEncoder:
    if stream == "text":
        return MCSANTextEncoder(config.text_dim, config.dim)
    return MCSANSpeechEncoder(
        config.speech_dim,
        config.dim,
        padding=config.convolution_padding,
        pool_stride=config.pool_stride,
        relu=config.convolution_activation == "relu",
    )


def _build_block(config: MCSANConfig) -> TransformerBlock:
    attention = FullAttention(
        config.dim,
        config.heads,
        dropout=config.attention_dropout,
        temperature=config.dim**0.5 if config.attention_scale == "dim" else None,
    )
    return TransformerBlock(
        attention, dim=config.dim, feedforward=config.feedforward, norm_shape=(config.dim,), dropout=config.dropout
    )


class MCSAN(EmotionModel):
    """Cross- and self-attention over speech and text.

    Streams: speech, (batch, frames, speech_dim), and text, (batch, tokens, text_dim), or only one of them, depending on
    `modalities`.

    Submodules: `encoders.speech.{convolutions.0,convolutions.1,lstm}`, `encoders.text.lstm` (of every stream in use);
    `attentions.MODULE.N.STREAM.{attention.{query,key,value,output},norm1,feedforward.0,feedforward.2,norm2}`, where MODULE
    is cross or self and STREAM, speech or text, is the stream that is updated: it supplies the queries, and in the cross
    module the other one supplies keys and values; `classifier` (linear layers at 0 and 3); `inputs.STREAM` with buffers
    `mean` and `deviation`, if `input_norm` needs them; `positions.STREAM.weight`, a learned table.

    Order of concatenation: cross speech, cross text, self speech, self text, without those that are omitted.
    """

    Config = MCSANConfig
    streams: tuple[str, ...] = ("speech", "text")
    paper = PaperSizes(
        num_emotions=7,
        # The number of tokens is not in the paper; 128 is the limit in the work whose data it uses (the paper's
        # reference 20).
        frames={"speech": 1000, "text": 128},
        encoders={"speech": PaperEncoder("mfcc"), "text": PaperEncoder("glove")},
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "input_norm": "standard",
            "dim": 96,
            "heads": 4,
            "feedforward": 192,
            "hidden": (96,),
            "dropout": 0.2,
            "attention_dropout": 0.1,
            "encoder_dropout": 0.2,
            "classifier_dropout": 0.3,
        },
        "without_audio": {"modalities": "text"},
        "without_text": {"modalities": "speech"},
        "without_self": {"modules": "cross"},
        "without_cross": {"modules": "self"},
        "cross_self": {"modules": "cross+self"},
        "self_cross": {"modules": "self+cross"},
        "two_layers": {"layers": 2},
        "three_layers": {"layers": 3},
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "speech_dim": 6,
        "text_dim": 7,
        "dim": 16,
        "heads": 2,
        "feedforward": 16,
        "hidden": (16,),
        "pool_stride": 1,
    }
    """With the default `pool_stride`, 3, short utterances would become a single frame, over which attention is constant."""
    explained_attention: ClassVar[Mapping[str, ExplainedAttention]] = {
        f"{module}_{queries}": ExplainedAttention(queries, keys, f"{module}_attention_{queries}")
        for module in ("cross", "self")
        for queries, other in (("speech", "text"), ("text", "speech"))
        for keys in [other if module == "cross" else queries]
    }
    explained_embeddings: ClassVar[Mapping[str, str]] = {
        "speech": "embedding_speech",
        "text": "embedding_text",
        "fused": "embedding",
    }

    def __init__(self, config: MCSANConfig, num_emotions: int) -> None:
        super().__init__()
        self.config, self.num_emotions = config, num_emotions
        self.streams = config.streams
        self.dims = config.dims
        self.limits = {stream: getattr(config, LIMITS[stream]) for stream in self.streams}
        self.lengths = self.limits if config.padded_to == "maximum" else {}
        self.inputs = nn.ModuleDict({stream: _build_input(config, stream) for stream in self.streams})
        self.encoders = nn.ModuleDict({stream: _build_encoder(config, stream) for stream in self.streams})
        self.positions = nn.ModuleDict(
            {
                stream: nn.Embedding(encoder.num_output_frames(self.limits[stream]), config.dim)  # type: ignore[operator]
                for stream, encoder in self.encoders.items()
            }
            if config.positions == "learned"
            else {}
        )
        self.attentions = nn.ModuleDict(
            {
                module: nn.ModuleList(
                    nn.ModuleDict({stream: _build_block(config) for stream in self.streams})
                    for _ in range(config.layers)
                )
                for module in config.order
            }
        )
        self.pooling = Pooling("max")
        width = config.dim * len(self.streams) * len(config.pooled_modules)
        self.classifier = Classifier(width, num_emotions, hidden=config.hidden, dropout=config.classifier_dropout)
        self.encoder_dropout = nn.Dropout(config.encoder_dropout)
        self.classifier_dropout = nn.Dropout(config.classifier_dropout)

    @classmethod
    def streams_of(cls, config: Any) -> tuple[str, ...]:
        return config.streams

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], num_emotions: int) -> MCSAN:
        return cls(replace(config, **{f"{stream}_dim": specs[stream].dim for stream in config.streams}), num_emotions)

    @property
    def output_layer(self) -> nn.Linear:
        return self.classifier.output_layer

    def inert_parameters(self) -> frozenset[str]:
        return key_biases(self)

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for stream, module in self.inputs.items():
            module.set_statistics(*statistics[stream])  # type: ignore[operator]

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.classifier(self.classifier_dropout(self.embed(batch)))

    def embed(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """Return the utterances' vectors, the input of the classifier (eq. 18)."""
        return torch.cat(list(self._pool(batch).values()), dim=1)

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return embeddings and attention weights.

        `embedding` (batch, width) is the classifier's input; `embedding_speech` and `embedding_text` are
        its parts from either stream.
        `cross_attention_speech` (batch, layers, heads, speech frames, tokens) has speech as queries and text as keys,
        `cross_attention_text` the reverse; `self_attention_speech` and `self_attention_text` stay within a stream. Rows
        are queries and sum to one. Speech frames are the encoder's output frames: with the default strides, a ninth of the
        input frames.
        """
        maps: dict[str, list[Tensor]] = {}
        pooled = self._pool(batch, maps)
        explanation = {"embedding": torch.cat(list(pooled.values()), dim=1)}
        for stream in self.streams:
            explanation[f"embedding_{stream}"] = torch.cat(
                [x for (_, name), x in pooled.items() if name == stream], dim=1
            )
        return explanation | {name: torch.stack(layers, dim=1) for name, layers in maps.items()}

    def num_positions(self, batch: Batch) -> Mapping[str, Counts]:
        return {stream: self.encoders[stream](*self._prepare(stream, batch))[1] for stream in self.streams}

    def _pool(self, batch: Batch, maps: dict[str, list[Tensor]] | None = None) -> dict[tuple[str, str], Tensor]:
        """Return (module, stream) -> pooled vectors (batch, dim), in the order of concatenation. Attention weights are
        appended to the lists in `maps`."""
        states: dict[str, Tensor] = {}
        masks: dict[str, Tensor | None] = {}
        for stream in self.streams:
            x, counts = self.encoders[stream](*self._prepare(stream, batch))
            states[stream] = self.encoder_dropout(x)
            masks[stream] = frame_mask(counts, x.shape[1]) if self.config.masked else None
        if self.config.positions_in == "both":
            states = self._add_positions(states)
        outputs: dict[str, dict[str, Tensor]] = {}
        for module in self.config.order:
            inputs = list(outputs.values())[-1] if outputs and self.config.sequential else states
            if module == self.config.positions_in:
                inputs = self._add_positions(inputs)
            outputs[module] = self._attend(module, inputs, masks, maps)
        return {
            (module, stream): self.pooling(outputs[module][stream], masks[stream])
            for module in self.config.pooled_modules
            for stream in self.streams
        }

    def _prepare(self, name: str, batch: Batch) -> tuple[Frames, Counts]:
        """Return the input of a stream's encoder: cut to the maximum length, standardized, with zeros in the padding; and the
        number of frames of each utterance."""
        stream, limit = batch.streams[name], self.limits[name]
        if stream.values.shape[1] == 0:
            stream = stream.pad(to=1)  # an utterance without any frame or token becomes a single zero frame
        length = None if limit == "any" else limit
        if length is not None and self.config.padded_to == "batch":
            length = torch.sym_min(stream.values.shape[1], length)
        stream = self.inputs[name].prepare(stream, masked=True, length=length)  # type: ignore[operator]
        real = torch.ones_like(stream.values[:, :, 0], dtype=torch.bool)
        if stream.mask is not None and self.config.masked:
            real = stream.mask
        return self.encoder_dropout(stream.values), real.sum(dim=1).clamp(min=1)

    def _add_positions(self, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.config.positions == "none":
            return dict(states)
        if self.config.positions == "learned":
            return {stream: x + self.positions[stream].weight[: x.shape[1]] for stream, x in states.items()}  # type: ignore[index]
        return {stream: add_sinusoids(x) for stream, x in states.items()}

    def _attend(
        self,
        module: str,
        states: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None],
        maps: dict[str, list[Tensor]] | None,
    ) -> dict[str, Tensor]:
        """Return the states after all layers of the cross (eq. 9-14) or the self module (eq. 15-17)."""
        for layer in self.attentions[module]:  # type: ignore[attr-defined]
            updated = dict(states)
            for stream, block in layer.items():
                other = self._other(stream) if module == "cross" else stream
                context = (updated if self.config.cross_update == "sequential" else states)[other]
                if maps is not None:
                    attention = block.attention.explain(states[stream], masks[other], context)
                    maps.setdefault(f"{module}_attention_{stream}", []).append(attention)
                updated[stream] = block(states[stream], masks[other], context)
            states = updated
        return dict(states)

    def _other(self, stream: str) -> str:
        return next(name for name in self.streams if name != stream)
