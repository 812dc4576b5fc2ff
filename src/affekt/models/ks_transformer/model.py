"""KS-Transformer: Chen et al., "Key-Sparse Transformer with Cascaded Cross-Attention Block for Multimodal Speech Emotion
Recognition", arXiv 2106.11532 (2021), the first version's text; its sizes and its silences from the authors' code, which
belongs to the paper's later version (ICASSP 2022).

Speech and text each go through feature extraction (vanilla attention), modality interaction (cascaded cross-attention
blocks, key-sparse) and deep fusion (key-sparse); means over time, side by side; three linear layers.
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
from affekt.models.base import EmotionModel, FeatureSpec, PaperSizes
from affekt.models.ks_transformer.attention import Attended, Context, KeySparseAttention, Stack, StackConfig
from affekt.models.layers import Classifier, Mask, Pooling, Sequence, StreamInput, strided

OTHER = {"speech": "text", "text": "speech"}


@dataclass(frozen=True)
class KSTransformerConfig(StackConfig):
    """Lengths in frames or tokens, widths in features. The defaults are the paper's reading at the paper's sizes."""

    modalities: Literal["both", "speech", "text"] = "both"  # one alone (Figure 6): FEM and DFM, no interaction
    speech_dim: int = 512  # features of a frame: wav2vec large's context
    text_dim: int = 1024  # features of a token: RoBERTa large's last layer
    speech_frames: int | Literal["any"] = 460  # 4.6 s
    text_frames: int | Literal["any"] = 20  # tokens, with RoBERTa's <s> and </s>
    speech_width: int | None = None  # of the network; None, as the paper: as wide as the features. Else a linear layer
    text_width: int | None = None
    speech_feedforward: int = 256  # not printed: the authors' code
    text_feedforward: int = 512
    extraction_layers: int = 5  # FEM, vanilla; 0 leaves it out (Table 2)
    ccabs: int = 3  # MIM, Table 1; 0: what was extracted goes straight to deep fusion
    fusion_layers: int = 2  # DFM; 0 leaves it out (Table 2)
    # The paper draws one skip over the CCABs, x + CCABs(x); its code adds x once more.
    skip: Literal["double", "single"] = "double"
    # "authors", as their code: padding gets no attention in feature extraction and from the other modality; in the CCABs'
    # second half, in deep fusion and in the means it is read as frames, and so it is wherever keys are chosen.
    # False: everywhere, "cropping or padding" being all that the paper says. True: padding changes nothing.
    masked: bool | Literal["authors"] = "authors"
    hidden: tuple[int, ...] | None = None  # the classifier's widths; None is a half and a quarter: 1536 -> 768 -> 384
    classifier_dropout: float = 0.5
    # Beyond the paper.
    input_norm: Literal["none", "standard"] = "none"  # of the features, by the training part's mean and deviation
    speech_stride: int = 1  # frames that are averaged into one at the start; `speech_frames` counts what remains

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
    return ("speech", "text") if config.modalities == "both" else (config.modalities,)


class CCAB(nn.Module):
    """A cascaded cross-attention block (section 2.4): `cross`, whose keys are of the other modality, and then `own`."""

    def __init__(self, config: KSTransformerConfig, stream: str) -> None:
        super().__init__()
        width, feedforward = config.width(stream), config.feedforward(stream)
        self.cross = Stack(config, width, feedforward, layers=1, key_width=config.width(OTHER[stream]))
        self.own = Stack(config, width, feedforward, layers=1)


@dataclass(frozen=True)
class ForwardState:
    """A batch on its way through the network: its masks by stream, and what the layers did, where that is asked for."""

    masks: Mapping[str, Mask]
    record: dict[str, list[Attended]] | None


class KSTransformer(EmotionModel):
    """KS-Transformer with cascaded cross-attention blocks. Streams: speech (batch, frames, 512), text (batch, tokens, 1024).

    Submodules, each by stream ("speech", "text"): `input.STREAM.projection`, a linear layer only where a width is not that
    of the features; `extraction.STREAM` (FEM); `interaction.STREAM.N.cross` and `.own` (MIM, block N), the stream's name
    being that of the queries; `fusion.STREAM` (DFM). All are stacks: `norm`, `layers.N.attention.{query,key,value,output}`,
    `layers.N.{norm1,norm2}`, `layers.N.feedforward.{0,3}`, `positions.table` where it is random; a cross half has
    `key_norm` and `key_positions.table` too. `classifier`, with linear layers at 0, 3, 6, takes the means of speech and
    of text, in this order.
    """

    Config = KSTransformerConfig
    streams: tuple[str, ...] = ("speech", "text")
    paper = PaperSizes(emotions=4, frames={"speech": 460, "text": 20})
    presets: ClassVar = {
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

    def __init__(self, config: KSTransformerConfig, emotions: int) -> None:
        super().__init__()
        self.config, self.emotions, self.streams = config, emotions, streams_of(config)
        self.dims = {stream: config.dim(stream) for stream in self.streams}
        lengths = {stream: config.frames(stream) for stream in self.streams}
        self.lengths = {stream: frames for stream, frames in lengths.items() if isinstance(frames, int)}
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
        self.classifier = Classifier(width, emotions, hidden=hidden, dropout=config.classifier_dropout)
        self._initialise()

    def _stacks(self, layers: int, *, sparse: bool) -> nn.ModuleDict:
        def stack(stream: str) -> Stack:
            config = self.config
            return Stack(config, config.width(stream), config.feedforward(stream), layers=layers, sparse=sparse)

        return nn.ModuleDict({stream: stack(stream) for stream in self.streams})

    def _initialise(self) -> None:
        """Xavier's uniform weights and torch's usual biases, as the authors' code; attention has seen to its own."""
        own = {
            layer
            for attention in self.modules()
            if isinstance(attention, KeySparseAttention)
            for layer in (attention.query, attention.key, attention.value)
        }
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in own:
                nn.init.xavier_uniform_(module.weight)

    @classmethod
    def streams_of(cls, config: KSTransformerConfig) -> tuple[str, ...]:
        return streams_of(config)

    @classmethod
    def for_lengths(cls, config: KSTransformerConfig, frames: Mapping[str, int]) -> KSTransformerConfig:
        """The settings for so many frames of either stream, as they enter."""
        if "speech" in frames:
            frames = {**frames, "speech": -(-frames["speech"] // config.speech_stride)}
        for_lengths: KSTransformerConfig = super().for_lengths(config, frames)
        return for_lengths

    @classmethod
    def build(cls, config: KSTransformerConfig, specs: Mapping[str, FeatureSpec], emotions: int) -> KSTransformer:
        sizes = {f"{stream}_dim": specs[stream].dim for stream in streams_of(config)}
        return cls(replace(config, **sizes), emotions)  # type: ignore[arg-type]

    def output(self) -> nn.Linear:
        return self.classifier.last

    def inert_parameters(self) -> frozenset[str]:
        # A bias common to all keys of a softmax cancels, and the choice of keys is made of the softmax.
        return frozenset(name for name, _ in self.named_parameters() if name.endswith(".attention.key.bias"))

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for stream in self.streams:
            self._input(stream).standardise(*statistics[stream])

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.classifier(self.embed(batch))

    def embed(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """The utterances' vectors, as the classifier takes them: speech, then text."""
        x, masks = self._start(batch)
        run = ForwardState(masks, None)
        return self._pooled(self._mixed(self._extracted(x, run), run), run)

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """`embedding` (batch, width), and for each stream `STREAM_embedding`: the mean of what was extracted from it alone.

        Of `extraction_STREAM`, `cross_STREAM`, `own_STREAM` and `fusion_STREAM`, where the network has them:
        `_vanilla` (batch, layers, heads, queries, keys), vanilla attention's weights, whose rows sum to one; `_kept`
        (batch, layers, heads, keys), bool; `_sparse`, their product, which key-sparse attention uses. Extraction is
        vanilla and keeps all. `cross_speech` has queries of speech and keys of text, a layer for each CCAB.
        """
        x, masks = self._start(batch)
        record: dict[str, list[Attended]] = {}
        run = ForwardState(masks, record)
        extracted = self._extracted(x, run)
        found = {"embedding": self._pooled(self._mixed(extracted, run), run)}
        found |= {f"{stream}_embedding": self._pooled({stream: extracted[stream]}, run) for stream in self.streams}
        for name, layers in record.items():
            vanilla = torch.stack([layer.vanilla for layer in layers], dim=1)
            kept = torch.stack([layer.kept for layer in layers], dim=1)
            sparse = vanilla * kept.unsqueeze(3).to(vanilla.dtype)
            found |= {f"{name}_vanilla": vanilla, f"{name}_kept": kept, f"{name}_sparse": sparse}
        return found

    def _start(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Mask]]:
        """What enters the network, by stream, and which of its frames are real."""
        x, masks = {}, {}
        for name in self.streams:
            stream = self._without_padding(batch.streams[name])
            if name == "speech" and self.config.speech_stride > 1:
                stream = Stream(*strided(stream.values, stream.mask, self.config.speech_stride))
            layer = self._input(name)
            # Padding is zero after the standardisation, not before: a zero before would be far from any frame.
            stream = self._without_padding(replace(stream, values=layer.standardised(stream.values)))
            if name in self.lengths:
                stream = stream.fitted(self.lengths[name])
            x[name] = layer(stream.values)
            everything = torch.ones_like(x[name][:, :, 0], dtype=torch.bool)
            masks[name] = everything if stream.mask is None else stream.mask
        return x, masks

    def _without_padding(self, stream: Stream) -> Stream:
        """The same stream with zeros in its padding, unless padding is read as frames: then it is what stands there."""
        if stream.mask is None or (self.config.masked is not True and self.config.input_norm == "none"):
            return stream
        return replace(stream, values=stream.values.masked_fill(~stream.mask.unsqueeze(2), 0.0))

    def _extracted(self, x: Mapping[str, Tensor], run: ForwardState) -> dict[str, Tensor]:
        """FEM (section 2.3): each stream by itself."""
        return {s: self._through("extraction", s, _at(self.extraction, s), x[s], run) for s in x}

    def _mixed(self, extracted: Mapping[str, Tensor], run: ForwardState) -> dict[str, Tensor]:
        """MIM and DFM (sections 2.4 and 2.5): keys of the cross halves are always what was extracted of the other."""
        mixed = {}
        for stream, x in extracted.items():
            y = x
            for block in _at(self.interaction, stream):
                y = self._through("cross", stream, block.cross, y, run, extracted[OTHER[stream]])
                y = self._through("own", stream, block.own, y, run)
            if len(_at(self.interaction, stream)):
                y = y + x if self.config.skip == "single" else y + x + x
            mixed[stream] = self._through("fusion", stream, _at(self.fusion, stream), y, run)
        return mixed

    def _through(
        self, part: str, stream: str, stack: nn.Module, x: Sequence, run: ForwardState, context: Context | None = None
    ) -> Sequence:
        """A stack's output, with the masks that its part of the network is told of."""
        keys = run.masks[stream if context is None else OTHER[stream]]
        everywhere = self.config.masked is True
        hidden = everywhere or (self.config.masked == "authors" and part in ("extraction", "cross"))
        return stack(
            x,
            context,
            key_mask=keys if hidden else None,
            query_mask=run.masks[stream] if everywhere else None,
            record=None if run.record is None or not stack.layers else run.record.setdefault(f"{part}_{stream}", []),
        )

    def _pooled(self, x: Mapping[str, Tensor], run: ForwardState) -> Float[Tensor, "batch width"]:
        masked = self.config.masked is True
        return torch.cat([self.pooling(x[name], run.masks[name] if masked else None) for name in x], dim=1)

    def _input(self, stream: str) -> StreamInput:
        layer = self.input[stream]
        assert isinstance(layer, StreamInput)
        return layer


def _at(modules: nn.ModuleDict, stream: str) -> Any:
    return modules[stream]
