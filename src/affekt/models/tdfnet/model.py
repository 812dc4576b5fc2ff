"""TDFNet: the transformer-based deep-scale fusion network of Zhao et al., "TDFNet: Transformer-Based Deep-Scale Fusion
Network for Multimodal Emotion Recognition", IEEE/ACM TASLP 2023.

Speech frames and words are read at several time scales (deep-scale transformer), each in the light of the other (mutual
transformer), and pooled, beside the speaker's vector, into one long vector O, which a gate weighs before the classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.models.base import EmotionModel, FeatureSpec, PaperSizes
from affekt.models.layers import Mask, Pooling, Sequence, StreamInput, sinusoids
from affekt.models.tdfnet.blocks import DeepScaleBlock, Gate, MutualTransformer
from affekt.models.tdfnet.config import TDFNetConfig

SYMBOLS = {"speech": ("A", "D"), "text": ("T", "H")}  # the paper's, of a path's embedding and of what its blocks give


class TDFNet(EmotionModel):
    """TDFNet. Streams: speech (batch, frames, speech_dim), text (batch, tokens, text_dim), speaker (batch, speaker_dim).

    Submodules: `inputs.speech.projection` (d from speech's features), `blocks.N` (`DeepScaleBlock`), `mutual`
    (`MutualTransformer`), `gate.score`, `classifier`.
    Order of O (`groups` has the names and widths): A, T, A', T', S, C, C_AT, C_TA, D_1 ... D_N, H_1 ... H_N; every
    sequence as its mean over time and then its maximum, S as it came. The joint sequence C has speech before text.
    """

    Config = TDFNetConfig
    streams: tuple[str, ...] = ("speech", "text", "speaker")
    paper = PaperSizes(emotions=4, frames={"speech": 512, "text": 128, "speaker": 0})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Table V's rows, and what trains on two processor cores.
        "audio": {"path": "audio", "mutual": False, "speaker": False},
        "text": {"path": "text", "mutual": False, "speaker": False},
        "without_dst": {"deep_scale": "none"},
        "without_mt": {"mutual": False, "speaker": False},
        "without_me": {"speech_dim": 128},
        "small": {
            "speech_frames": "any",
            "text_tokens": "any",
            "masked": True,
            "input_norm": "standard",
            "dim": 128,
            "heads": 4,
            "feedforward": 256,
            "layers": 1,
            "gate": "parts",
            "gelu_logits": False,
            "dropout": 0.2,
            "fused_dropout": 0.3,
        },
    }

    def __init__(self, config: TDFNetConfig, emotions: int) -> None:
        super().__init__()
        self.config, self.emotions, self.streams = config, emotions, config.streams
        dims = {"speech": config.speech_dim, "text": config.text_dim, "speaker": config.speaker_dim}
        frames = {"speech": config.speech_frames, "text": config.text_tokens}
        self.dims = {name: dims[name] for name in self.streams}
        self.lengths = {path: n for path in config.paths if isinstance(n := frames[path], int)}
        self.inputs = nn.ModuleDict({name: self._input(name) for name in self.streams})
        blocks = self._blocks(config)
        self.blocks = nn.ModuleList(blocks)
        self.mutual = MutualTransformer(config) if config.mutual else None
        self.pooling, self.mutual_pooling = Pooling("mean+max"), Pooling(config.mutual_pooling)
        self.groups = self._groups([block.dim for block in blocks])  # the parts of O in order, and how wide each is
        width = sum(self.groups.values())
        self.gate = Gate(config.gate, tuple(self.groups.values()), bias=config.gate_bias)
        self.dropout = nn.Dropout(config.fused_dropout)
        self.classifier = nn.Linear(1 if config.inner_product else width, emotions)

    def _input(self, name: str) -> StreamInput:
        width = self.dims[name] if name == "speaker" else self.config.dim
        stream = StreamInput(self.dims[name], width, norm=self.config.input_norm)
        if name == "text" and self.config.projection == "both":
            stream.projection = nn.Linear(self.dims[name], width)
        return stream

    @staticmethod
    def _blocks(config: TDFNetConfig) -> list[DeepScaleBlock]:
        blocks: list[DeepScaleBlock] = []
        for number in range(1, {"full": config.blocks, "first_cnn": 1, "none": 0}[config.deep_scale] + 1):
            blocks.append(DeepScaleBlock(config, number, blocks[-1].dim if blocks else config.dim))
        return blocks

    def _groups(self, deep_dims: list[int]) -> Mapping[str, int]:
        config, pooled = self.config, self.pooling.width
        symbols = [SYMBOLS[path] for path in config.paths]
        widths = self.dims if config.embeddings == "raw" else dict.fromkeys(config.paths, config.dim)
        groups = {SYMBOLS[path][0]: pooled(widths[path]) for path in config.paths}
        if deep_dims:
            prime = config.dim // (2 if config.primes == "after_cnn" else 1)
            groups |= {f"{symbol}'": pooled(prime) for symbol, _ in symbols}
        if config.speaker:
            groups["S"] = config.speaker_dim
        if self.mutual is not None:
            groups |= dict.fromkeys(self.mutual.NAMES, self.mutual_pooling.width(config.dim))
        if config.deep_scale == "full":
            for _, symbol in symbols:
                groups |= {f"{symbol}_{number}": pooled(dim) for number, dim in enumerate(deep_dims, start=1)}
        return groups

    @classmethod
    def streams_of(cls, config: TDFNetConfig) -> tuple[str, ...]:
        return config.streams

    @classmethod
    def build(cls, config: TDFNetConfig, specs: Mapping[str, FeatureSpec], emotions: int) -> TDFNet:
        sizes: dict[str, Any] = {f"{name}_dim": specs[name].dim for name in config.streams}
        return cls(replace(config, **sizes), emotions)

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for name in self.streams:
            self._stream_input(name).standardise(*statistics[name])

    def output(self) -> nn.Linear:
        return self.classifier

    def inert_parameters(self) -> frozenset[str]:
        # A bias common to all keys of a softmax cancels.
        return frozenset(name for name, _ in self.named_parameters() if name.endswith("attention.key.bias"))

    def _stream_input(self, name: str) -> StreamInput:
        module = self.inputs[name]
        assert isinstance(module, StreamInput)
        return module

    def _start(self, stream: Stream, path: str) -> tuple[Tensor, Sequence, Mask | None]:
        """The features, cut or padded to the path's length; what the network works on; and its mask, if masks are on."""
        config, module = self.config, self._stream_input(path)
        features = module.standardised(stream.values)
        # Padding is zero after the standardisation, not before: a zero before would be far from any frame.
        if stream.mask is not None and (config.masked or config.input_norm == "standard"):
            features = features.masked_fill(~stream.mask.unsqueeze(2), 0.0)
        stream = replace(stream, values=features)
        if path in self.lengths:
            stream = stream.fitted(self.lengths[path])
        x = module(stream.values)
        if config.positions == "sinusoids":
            x = x + sinusoids(x.shape[1], x.shape[2], device=x.device, dtype=x.dtype)
        return stream.values, x, stream.mask if config.masked else None

    def _read(self, stream: Stream, path: str) -> tuple[dict[str, Tensor], Sequence, Mask | None]:
        """One path: its groups of O, and the embedding that the mutual transformer takes, with its mask."""
        config, (symbol, deep) = self.config, SYMBOLS[path]
        features, x, mask = self._start(stream, path)
        groups: dict[str, Tensor] = {}
        embedding, y, y_mask = x, x, mask
        for number, block in enumerate(self.blocks, start=1):
            scaled = block(y, y_mask, path)
            if number == 1:
                embedding = scaled.encoded if config.embeddings == "encoded" else x
                prime = (scaled.encoded, mask) if config.primes == "before_cnn" else (scaled.narrowed, scaled.mask)
                groups[f"{symbol}'"] = self.pooling(*prime)
            y, y_mask = scaled.output, scaled.mask
            if config.deep_scale == "full":
                groups[f"{deep}_{number}"] = self.pooling(y, y_mask)
        groups[symbol] = self.pooling(features if config.embeddings == "raw" else embedding, mask)
        return groups, embedding, mask

    def _pooled(self, batch: Batch, maps: Mapping[str, list[Tensor]] | None = None) -> dict[str, Tensor]:
        """The groups of O, by name, in no order; `maps` receives the mutual transformer's attention."""
        groups: dict[str, Tensor] = {}
        embeddings, masks = {}, {}
        for path in self.config.paths:
            own, embeddings[path], masks[path] = self._read(batch.streams[path], path)
            groups |= own
        if self.mutual is not None:
            found = self.mutual(embeddings["speech"], embeddings["text"], masks["speech"], masks["text"], maps)
            groups |= {name: self.mutual_pooling(*sequence) for name, sequence in found.items()}
        if self.config.speaker:
            speaker = batch.streams["speaker"].values.unsqueeze(1)
            groups["S"] = self._stream_input("speaker").standardised(speaker).squeeze(1)
        return groups

    def fused(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """O, the pooled parts side by side in the order of `groups`, before the gate."""
        pooled = self._pooled(batch)
        return torch.cat([pooled[name] for name in self.groups], dim=1)

    def _gated(self, fused: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return self.gate.spread(self.gate(fused)) * fused

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        gated = self.dropout(self._gated(self.fused(batch)))
        logits = self.classifier(gated.sum(dim=1, keepdim=True) if self.config.inner_product else gated)
        return F.gelu(logits) if self.config.gelu_logits else logits

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """What each part makes of the utterances.

        `embedding`: (batch, width), O weighed by the gate: TDFNet's embedding of Figs. 9-11. `speech` and `text`: their
        own groups of O, side by side, the paths' embeddings of the same figures. `gate`: alpha, (batch, width); with one
        weight per group (batch, groups), in the order of `groups`; (batch, 1) for a scalar.
        With a mutual transformer its attention, rows summing to one: `attention_speech_to_text`, C_AT's, (batch, layers,
        heads, frames, tokens); `attention_text_to_speech`, C_TA's, (batch, layers, heads, tokens, frames);
        `attention_joint`, C's, (batch, layers, heads, frames + tokens, frames + tokens).
        """
        maps: dict[str, list[Tensor]] = {name: [] for name in MutualTransformer.NAMES}
        pooled = self._pooled(batch, maps)
        fused = torch.cat([pooled[name] for name in self.groups], dim=1)
        explanation = {"embedding": self._gated(fused), "gate": self.gate(fused)}
        for path in self.config.paths:
            own = [pooled[name] for name in self.groups if name[0] in SYMBOLS[path]]
            explanation[path] = torch.cat(own, dim=1)
        named = {"attention_joint": "C", "attention_speech_to_text": "C_AT", "attention_text_to_speech": "C_TA"}
        return explanation | {key: torch.stack(maps[name], dim=1) for key, name in named.items() if maps[name]}
