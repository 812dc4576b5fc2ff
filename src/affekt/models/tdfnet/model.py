"""TDFNet: the transformer-based deep-scale fusion network of Zhao et al., "TDFNet: Transformer-Based Deep-Scale Fusion
Network for Multimodal Emotion Recognition", IEEE/ACM TASLP 2023.

Speech frames and tokens are encoded at several time scales (deep-scale transformer) and with attention to each other (mutual
transformer). Everything is pooled and, with the speaker's vector, concatenated to one vector O, which a gate weights before
the classifier.
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
from affekt.models.base import EmotionModel, ExplainedAttention, FeatureSpec, PaperEncoder, PaperSizes
from affekt.models.layers import FrameMask, Frames, Pooling, StreamInput, add_sinusoids, key_biases
from affekt.models.tdfnet.blocks import DeepScaleBlock, Gate, MutualTransformer
from affekt.models.tdfnet.config import TDFNetConfig

# Path -> the paper's symbols of its embedding and of its blocks' outputs.
SYMBOLS = {"speech": ("A", "D"), "text": ("T", "H")}


class TDFNet(EmotionModel):
    """TDFNet. Streams: speech (batch, frames, speech_dim), text (batch, tokens, text_dim), speaker (batch, speaker_dim).

    Submodules: `inputs.speech.projection` (to the width d), `blocks.N` (`DeepScaleBlock`), `mutual` (`MutualTransformer`),
    `gate.score`, `classifier`.
    Order of O (`groups` has the names and widths): A, T, A', T', S, C, C_AT, C_TA, D_1 ... D_N, H_1 ... H_N; each sequence
    as its mean over time, then its maximum; S unchanged. The joint sequence C has speech before text.
    """

    Config = TDFNetConfig
    streams: tuple[str, ...] = ("speech", "text", "speaker")
    paper = PaperSizes(
        num_emotions=4,
        frames={"speech": 512, "text": 128, "speaker": 0},
        encoders={
            "speech": PaperEncoder("hubert-large"),
            "text": PaperEncoder("bert-base"),
            "speaker": PaperEncoder("ecapa"),
        },
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
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
    """The rows of Table V, and a small network for two CPU cores."""
    tiny: ClassVar[Mapping[str, Any]] = {
        "speech_frames": "any",
        "text_tokens": "any",
        "masked": True,
        "speech_dim": 6,
        "text_dim": 7,
        "speaker_dim": 5,
        "dim": 16,
        "heads": 2,
        "feedforward": 12,
        "layers": 1,
        "blocks": 1,
        "speech_stride": 3,
        "input_norm": "standard",
    }
    explained_attention: ClassVar[Mapping[str, ExplainedAttention]] = {
        "speech_to_text": ExplainedAttention("speech", "text", "attention_speech_to_text"),
        "text_to_speech": ExplainedAttention("text", "speech", "attention_text_to_speech"),
    }
    explained_embeddings: ClassVar[Mapping[str, str]] = {"speech": "speech", "text": "text", "fused": "embedding"}

    def __init__(self, config: TDFNetConfig, num_emotions: int) -> None:
        super().__init__()
        self.config, self.num_emotions, self.streams = config, num_emotions, config.streams
        dims = {"speech": config.speech_dim, "text": config.text_dim, "speaker": config.speaker_dim}
        frames = {"speech": config.speech_frames, "text": config.text_tokens}
        self.dims = {name: dims[name] for name in self.streams}
        self.lengths = {path: n for path in config.paths if isinstance(n := frames[path], int)}
        self.inputs = nn.ModuleDict({name: self._build_input(name) for name in self.streams})
        blocks = self._build_blocks(config)
        self.blocks = nn.ModuleList(blocks)
        self.mutual = MutualTransformer(config) if config.mutual else None
        self.pooling, self.mutual_pooling = Pooling("mean+max"), Pooling(config.mutual_pooling)
        self.groups = self._group_widths([block.dim for block in blocks])  # name -> width, in the order of O
        width = sum(self.groups.values())
        self.gate = Gate(config.gate, tuple(self.groups.values()), bias=config.gate_bias)
        self.dropout = nn.Dropout(config.fused_dropout)
        self.classifier = nn.Linear(1 if config.inner_product else width, num_emotions)

    def _build_input(self, name: str) -> StreamInput:
        width = self.dims[name] if name == "speaker" else self.config.dim
        stream = StreamInput(self.dims[name], width, norm=self.config.input_norm)
        if name == "text" and self.config.projection == "both":
            stream.projection = nn.Linear(self.dims[name], width)
        return stream

    @staticmethod
    def _build_blocks(config: TDFNetConfig) -> list[DeepScaleBlock]:
        blocks: list[DeepScaleBlock] = []
        for number in range(1, {"full": config.blocks, "first_cnn": 1, "none": 0}[config.deep_scale] + 1):
            blocks.append(DeepScaleBlock(config, number, blocks[-1].dim if blocks else config.dim))
        return blocks

    def _group_widths(self, deep_dims: list[int]) -> Mapping[str, int]:
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
    def build(cls, config: TDFNetConfig, specs: Mapping[str, FeatureSpec], num_emotions: int) -> TDFNet:
        sizes: dict[str, Any] = {f"{name}_dim": specs[name].dim for name in config.streams}
        return cls(replace(config, **sizes), num_emotions)

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for name in self.streams:
            self._stream_input(name).set_statistics(*statistics[name])

    @property
    def output_layer(self) -> nn.Linear:
        return self.classifier

    def inert_parameters(self) -> frozenset[str]:
        return key_biases(self)

    def _stream_input(self, name: str) -> StreamInput:
        module = self.inputs[name]
        assert isinstance(module, StreamInput)
        return module

    def _prepare(self, stream: Stream, path: str) -> tuple[Tensor, Frames, FrameMask | None]:
        """Return the path's features at its fixed length, the projected sequence, and the mask (None if masks are off)."""
        config, module = self.config, self._stream_input(path)
        stream = module.prepare(stream, masked=config.masked, length=self.lengths.get(path))
        x = module(stream.values)
        if config.positions == "sinusoids":
            x = add_sinusoids(x)
        return stream.values, x, stream.mask if config.masked else None

    def _encode(self, stream: Stream, path: str) -> tuple[dict[str, Tensor], Frames, FrameMask | None]:
        """Encode one path. Return its groups of O, and the mutual transformer's input with its mask."""
        config, (symbol, deep) = self.config, SYMBOLS[path]
        features, x, mask = self._prepare(stream, path)
        groups: dict[str, Tensor] = {}
        embedding, y, y_mask = x, x, mask
        for number, block in enumerate(self.blocks, start=1):
            output = block(y, y_mask, path)
            if number == 1:
                embedding = output.encoded if config.embeddings == "encoded" else x
                prime = (output.encoded, mask) if config.primes == "before_cnn" else (output.narrowed, output.mask)
                groups[f"{symbol}'"] = self.pooling(*prime)
            y, y_mask = output.output, output.mask
            if config.deep_scale == "full":
                groups[f"{deep}_{number}"] = self.pooling(y, y_mask)
        groups[symbol] = self.pooling(features if config.embeddings == "raw" else embedding, mask)
        return groups, embedding, mask

    def _pool(self, batch: Batch, maps: Mapping[str, list[Tensor]] | None = None) -> dict[str, Tensor]:
        """Return the groups of O by name, in no particular order; the mutual transformer's attention is appended to
        `maps`."""
        groups: dict[str, Tensor] = {}
        embeddings, masks = {}, {}
        for path in self.config.paths:
            path_groups, embeddings[path], masks[path] = self._encode(batch.streams[path], path)
            groups |= path_groups
        if self.mutual is not None:
            sequences = self.mutual(embeddings["speech"], embeddings["text"], masks["speech"], masks["text"], maps)
            groups |= {name: self.mutual_pooling(*sequence) for name, sequence in sequences.items()}
        if self.config.speaker:
            groups["S"] = self._stream_input("speaker").standardize(batch.streams["speaker"].values)
        return groups

    def fuse(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """Return O: the pooled groups, concatenated in the order of `groups`, before the gate."""
        pooled = self._pool(batch)
        return torch.cat([pooled[name] for name in self.groups], dim=1)

    def _apply_gate(self, fused: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return self.gate.expand(self.gate(fused)) * fused

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        gated = self.dropout(self._apply_gate(self.fuse(batch)))
        logits = self.classifier(gated.sum(dim=1, keepdim=True) if self.config.inner_product else gated)
        return F.gelu(logits) if self.config.gelu_logits else logits

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return embeddings, the gate and attention weights.

        `embedding`: (batch, width), O after the gate, TDFNet's embedding in Figs. 9-11. `speech` and `text`: the
        concatenated groups of O from one path, which are the paths' embeddings in the same figures. `gate`: alpha,
        (batch, width); (batch, groups), in the order of `groups`, with one weight per group; (batch, 1) for a scalar.

        With a mutual transformer also its attention, whose rows sum to one: `attention_speech_to_text` (C_AT), (batch,
        layers, heads, frames, tokens); `attention_text_to_speech` (C_TA), (batch, layers, heads, tokens, frames);
        `attention_joint` (C), (batch, layers, heads, frames + tokens, frames + tokens).
        """
        maps: dict[str, list[Tensor]] = {name: [] for name in MutualTransformer.NAMES}
        pooled = self._pool(batch, maps)
        fused = torch.cat([pooled[name] for name in self.groups], dim=1)
        explanation = {"embedding": self._apply_gate(fused), "gate": self.gate(fused)}
        for path in self.config.paths:
            groups = [pooled[name] for name in self.groups if name[0] in SYMBOLS[path]]
            explanation[path] = torch.cat(groups, dim=1)
        symbols = {"attention_joint": "C", "attention_speech_to_text": "C_AT", "attention_text_to_speech": "C_TA"}
        return explanation | {key: torch.stack(maps[name], dim=1) for key, name in symbols.items() if maps[name]}
