"""MCSAN: the multimodal cross- and self-attention network of Sun et al., "Multimodal Cross- and Self-Attention Network for
Speech Emotion Recognition", ICASSP 2021. Speech and words are encoded by recurrent networks; a module in which each attends
to the other stands beside one in which each attends to itself; what both give is pooled over time and classified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch, frame_mask
from affekt.errors import BadConfig
from affekt.models.base import EmotionModel, FeatureSpec, PaperSizes, check_sizes
from affekt.models.layers import (
    Classifier,
    FullAttention,
    Pooling,
    Sequence,
    StreamInput,
    TransformerBlock,
    sinusoids,
)
from affekt.models.mcsan.encoders import KERNEL, Counts, SpeechEncoder, TextEncoder

LIMITS = {"speech": "speech_frames", "text": "text_tokens"}
MODULES = {
    "parallel": ("cross", "self"),
    "cross": ("cross",),
    "self": ("self",),
    "cross+self": ("cross", "self"),
    "self+cross": ("self", "cross"),
}


@dataclass(frozen=True)
class MCSANConfig:
    """Lengths in frames or tokens, widths in features. What section 3.2 prints is not marked; what it leaves open is."""

    # Table 3: "w/o audio" is modalities = "text", and "w/o text" is "speech"; self-attention is then all that is left.
    modalities: Literal["speech+text", "speech", "text"] = "speech+text"
    # Table 3: "w/o self" is "cross", "w/o cross" is "self"; in "cross+self" self-attention reads what cross-attention gave.
    modules: Literal["parallel", "cross", "self", "cross+self", "self+cross"] = "parallel"
    layers: int = 1  # N, in each module
    speech_dim: int = 40  # MFCC
    text_dim: int = 300  # GloVe
    speech_frames: int | Literal["any"] = 1000  # at most: what follows is cut off
    text_tokens: int | Literal["any"] = "any"  # likewise; not printed, the data's forerunners take 128
    padded_to: Literal["batch", "maximum"] = "batch"  # not printed; its longest, or the two lengths above
    masked: bool = True  # not printed; False: padding is read as frames of zeros
    # "We perform z-normalization" of the speech; by the training part's statistics is our reading. "standard": words too.
    input_norm: Literal["none", "speech", "standard"] = "speech"
    dim: int = 128
    heads: int = 8
    feedforward: int = 512  # not printed; 4 dim as in the cited Transformer, or the "hidden neurons", 128
    hidden: tuple[int, ...] = (128,)  # widths within the "fully connected network"; () is one linear layer
    convolution_padding: Literal[0, 1] = 1  # frames of zeros at either end; not printed
    convolution_activation: Literal["none", "relu"] = "none"  # ConvBlock is printed as MaxPool(Conv1D)
    pool_stride: int = 3  # not printed; the usual default, the kernel
    positions: Literal["sinusoids", "learned", "none"] = "sinusoids"  # as cited; learned needs both lengths as numbers
    positions_in: Literal["both", "cross"] = "both"  # printed of the cross module, to which the other is "similar"
    attention_scale: Literal["head", "dim"] = "head"  # sqrt(d / heads) as cited; sqrt(d) as eq. 9 prints for one head
    cross_update: Literal["parallel", "sequential"] = "parallel"  # sequential: the words read speech as already updated
    pooled: Literal["last", "all"] = "last"  # where one module follows the other: what is pooled of the two
    dropout: float = 0.0  # on the blocks' residual branches; none is printed, here and below
    attention_dropout: float = 0.0
    encoder_dropout: float = 0.0  # of the features that enter the encoders, and of what comes out
    classifier_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_sizes(self, may_be_zero={"convolution_padding", "layers"})
        limits = [getattr(self, LIMITS[stream]) for stream in self.streams]
        if self.dim % self.heads:
            raise BadConfig(f"heads = {self.heads} does not divide dim = {self.dim}")
        if self.pool_stride not in range(1, KERNEL + 1):
            raise BadConfig(
                f"pool_stride = {self.pool_stride}: expected 1 to {KERNEL}, so that no frame is passed over"
            )
        if self.layers < 1:
            raise BadConfig(f"layers = {self.layers}: expected 1 or more; to leave a module out, set modules")
        if len(self.streams) == 1 and self.modules not in ("parallel", "self"):
            raise BadConfig(
                f"modules = {self.modules!r} needs both modalities: with {self.modalities} alone only self-attention is "
                "left, set modules = 'self'"
            )
        if self.positions_in == "cross" and "cross" not in self.order:
            raise BadConfig("positions_in = 'cross', but there is no cross-attention: set positions_in = 'both'")
        if "any" in limits and (self.positions == "learned" or self.padded_to == "maximum"):
            raise BadConfig(
                "positions = 'learned' and padded_to = 'maximum' need a greatest length: set "
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
        """The modules, in the order in which one may follow the other."""
        return MODULES[self.modules] if len(self.streams) == 2 else ("self",)

    @property
    def sequential(self) -> bool:
        return self.modules in ("cross+self", "self+cross")

    @property
    def pooled_modules(self) -> tuple[str, ...]:
        """The modules whose outputs are pooled, in the order in which they are concatenated."""
        kept = self.order[-1:] if self.sequential and self.pooled == "last" else self.order
        return tuple(sorted(kept))


def _input(config: MCSANConfig, stream: str) -> StreamInput:
    dim = config.dims[stream]
    return StreamInput(dim, dim, norm="standard" if config.input_norm in (stream, "standard") else "none")


def _encoder(config: MCSANConfig, stream: str) -> SpeechEncoder | TextEncoder:
    if stream == "text":
        return TextEncoder(config.text_dim, config.dim)
    return SpeechEncoder(
        config.speech_dim,
        config.dim,
        padding=config.convolution_padding,
        pool_stride=config.pool_stride,
        activation=config.convolution_activation == "relu",
    )


def _block(config: MCSANConfig) -> TransformerBlock:
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
    """Cross- and self-attention over speech and words.

    Streams: speech, (batch, frames, speech_dim), and text, (batch, tokens, text_dim); one of them where `modalities` says so.

    Submodules: `encoders.speech.{convolutions.0,convolutions.1,lstm}`, `encoders.text.lstm` (of every stream in use);
    `attentions.MODULE.N.STREAM.{attention.{query,key,value,output},norm1,feedforward.0,feedforward.2,norm2}`, where MODULE
    is cross or self and STREAM, speech or text, is the one that is updated: queries are of it, and in the cross module keys
    and values of the other; `classifier` (linear layers at 0 and 3); `inputs.STREAM` holds a mean and a deviation where
    `input_norm` asks for them, and `positions.STREAM.weight` a learned table.

    Order of concatenation: cross speech, cross text, self speech, self text; what is left out leaves no gap.
    """

    Config = MCSANConfig
    streams: tuple[str, ...] = ("speech", "text")
    # The words' number is not printed; 128 is the limit of the work whose data it follows (its reference 20).
    paper = PaperSizes(emotions=7, frames={"speech": 1000, "text": 128})
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

    def __init__(self, config: MCSANConfig, emotions: int) -> None:
        super().__init__()
        self.config, self.emotions = config, emotions
        self.streams = config.streams
        self.dims = config.dims
        self.limits = {stream: getattr(config, LIMITS[stream]) for stream in self.streams}
        self.lengths = self.limits if config.padded_to == "maximum" else {}
        self.inputs = nn.ModuleDict({stream: _input(config, stream) for stream in self.streams})
        self.encoders = nn.ModuleDict({stream: _encoder(config, stream) for stream in self.streams})
        self.positions = nn.ModuleDict(
            {name: nn.Embedding(one.frames_left(self.limits[name]), config.dim) for name, one in self.encoders.items()}  # type: ignore[operator]
            if config.positions == "learned"
            else {}
        )
        self.attentions = nn.ModuleDict(
            {
                module: nn.ModuleList(
                    nn.ModuleDict({stream: _block(config) for stream in self.streams}) for _ in range(config.layers)
                )
                for module in config.order
            }
        )
        self.pooling = Pooling("max")
        width = config.dim * len(self.streams) * len(config.pooled_modules)
        self.classifier = Classifier(width, emotions, hidden=config.hidden, dropout=config.classifier_dropout)
        self.encoder_dropout = nn.Dropout(config.encoder_dropout)
        self.classifier_dropout = nn.Dropout(config.classifier_dropout)

    @classmethod
    def streams_of(cls, config: Any) -> tuple[str, ...]:
        return config.streams

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], emotions: int) -> MCSAN:
        return cls(replace(config, **{f"{stream}_dim": specs[stream].dim for stream in config.streams}), emotions)

    def output(self) -> nn.Linear:
        return self.classifier.last

    def inert_parameters(self) -> frozenset[str]:
        # A bias common to all keys of a softmax cancels.
        return frozenset(name for name, _ in self.named_parameters() if name.endswith("attention.key.bias"))

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for stream, one in self.inputs.items():
            one.standardise(*statistics[stream])  # type: ignore[operator]

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.classifier(self.classifier_dropout(self.embed(batch)))

    def embed(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """The utterances' vectors, as the classifier takes them (eq. 18)."""
        return torch.cat(list(self._pooled(batch).values()), dim=1)

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """`embedding` (batch, width), and of each stream what is its own: `embedding_speech` and `embedding_text`.

        `cross_attention_speech` (batch, layers, heads, speech frames, tokens) is how speech attends to the words, and
        `cross_attention_text` how the words attend to speech; `self_attention_speech` and `self_attention_text` stay within
        a stream. Rows are queries and sum to one. Speech frames are those that the encoder leaves, a ninth of the input's.
        """
        maps: dict[str, list[Tensor]] = {}
        pooled = self._pooled(batch, maps)
        found = {"embedding": torch.cat(list(pooled.values()), dim=1)}
        for stream in self.streams:
            found[f"embedding_{stream}"] = torch.cat([x for (_, one), x in pooled.items() if one == stream], dim=1)
        return found | {name: torch.stack(layers, dim=1) for name, layers in maps.items()}

    def _pooled(self, batch: Batch, maps: dict[str, list[Tensor]] | None = None) -> dict[tuple[str, str], Tensor]:
        """(module, stream) -> (batch, dim), in the order of concatenation; attention maps are put into `maps`."""
        states: dict[str, Tensor] = {}
        masks: dict[str, Tensor | None] = {}
        for stream in self.streams:
            x, counts = self.encoders[stream](*self._features(stream, batch))
            states[stream] = self.encoder_dropout(x)
            masks[stream] = frame_mask(counts, x.shape[1]) if self.config.masked else None
        if self.config.positions_in == "both":
            states = self._with_positions(states)
        outputs: dict[str, dict[str, Tensor]] = {}
        for module in self.config.order:
            entering = list(outputs.values())[-1] if outputs and self.config.sequential else states
            if module == self.config.positions_in:
                entering = self._with_positions(entering)
            outputs[module] = self._attended(module, entering, masks, maps)
        return {
            (module, stream): self.pooling(outputs[module][stream], masks[stream])
            for module in self.config.pooled_modules
            for stream in self.streams
        }

    def _features(self, name: str, batch: Batch) -> tuple[Sequence, Counts]:
        """A stream as its encoder takes it: no longer than it may be, standardised, zero where there is no frame."""
        stream, limit = batch.streams[name], self.limits[name]
        if stream.values.shape[1] == 0:
            stream = stream.padded(to=1)  # an utterance without any frame or word is read as one of zeros
        if limit != "any":
            as_batch = self.config.padded_to == "batch"
            stream = stream.fitted(torch.sym_min(stream.values.shape[1], limit) if as_batch else limit)
        x = self.inputs[name].standardised(stream.values)  # type: ignore[operator]
        real = torch.ones_like(x[:, :, 0], dtype=torch.bool)
        if stream.mask is not None:
            x = x.masked_fill(~stream.mask.unsqueeze(2), 0.0)
            real = stream.mask if self.config.masked else real
        return self.encoder_dropout(x), real.sum(dim=1).clamp(min=1)

    def _with_positions(self, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.config.positions == "none":
            return dict(states)
        if self.config.positions == "learned":
            return {stream: x + self.positions[stream].weight[: x.shape[1]] for stream, x in states.items()}  # type: ignore[index]
        return {
            stream: x + sinusoids(x.shape[1], x.shape[2], device=x.device, dtype=x.dtype)
            for stream, x in states.items()
        }

    def _attended(
        self,
        module: str,
        states: Mapping[str, Tensor],
        masks: Mapping[str, Tensor | None],
        maps: dict[str, list[Tensor]] | None,
    ) -> dict[str, Tensor]:
        """The states after all layers of the cross (eq. 9-14) or the self module (eq. 15-17)."""
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
        return next(one for one in self.streams if one != stream)
