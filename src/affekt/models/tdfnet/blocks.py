"""The parts of TDFNet (Zhao et al., IEEE/ACM TASLP 2023): encoder layers, blocks of the deep-scale
transformer (section III-C), the mutual transformer (III-D) and the gate over the pooled parts (III-E)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affekt.batch import frame_mask
from affekt.models.layers import FeedForward, FullAttention, Mask, Sequence
from affekt.models.tdfnet.config import TDFNetConfig


class EncoderLayer(nn.Module):
    """Fig. 3, and eq. 7 where keys and values are of `context`: attention and feed-forward, post-norm, with a GELU.

    Submodules: `attention.{query,key,value,output}`, `norm1`, `feedforward` (linear layers at 0, 2), `norm2`.
    """

    def __init__(self, config: TDFNetConfig, dim: int, *, level: int = 0) -> None:
        super().__init__()
        self.attention = FullAttention(dim, config.heads, dropout=config.attention_dropout)
        self.feedforward: nn.Sequential
        if config.feedforward == "square":
            self.feedforward = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        else:
            width = config.feedforward // 2 ** (level * config.feedforward_scaled)
            self.feedforward = FeedForward(dim, width, activation=nn.GELU)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.literal = config.literal_eq5

    def forward(
        self,
        x: Float[Tensor, "batch frames dim"],
        mask: Bool[Tensor, "batch keys"] | None = None,
        context: Float[Tensor, "batch keys dim"] | None = None,
        maps: list[Tensor] | None = None,
    ) -> Float[Tensor, "batch frames dim"]:
        """Keys and values are of `context`, or of x; `mask` is theirs. `maps`, where given, receives the attention weights,
        (batch, heads, frames, keys)."""
        if maps is not None:
            maps.append(self.attention.explain(x, mask, context))
        first = self.norm1(x + self.dropout(self.attention(x, mask, context)))
        return self.norm2((x if self.literal else first) + self.dropout(self.feedforward(first)))


class Encoder(nn.ModuleList):
    """Encoder layers, one after the other."""

    def __init__(self, config: TDFNetConfig, dim: int, *, level: int = 0) -> None:
        super().__init__(EncoderLayer(config, dim, level=level) for _ in range(config.layers))

    def forward(self, x: Sequence, mask: Mask | None = None, maps: list[Tensor] | None = None) -> Sequence:
        for layer in self:
            x = layer(x, mask, maps=maps)
        return x


def downscaled(
    conv: nn.Conv1d, stride: int, x: Sequence, mask: Mask | None
) -> tuple[Float[Tensor, "batch fewer narrow"], Tensor | None]:
    """What a strided convolution makes of x, and the mask that goes with it; at least one frame, however short x is."""
    assert isinstance(conv.padding, tuple)
    (size,), (edge,) = conv.kernel_size, conv.padding
    cleared = x if mask is None else x.masked_fill(~mask.unsqueeze(2), 0.0)
    # Zeros enough for one window of the shortest; the windows that they add for others are cut off, or masked.
    frames = F.pad(cleared.transpose(1, 2), (edge, edge + size - 1))
    # The stride is the path's: a CNN that speech and text share has two.
    result = F.conv1d(frames, conv.weight, conv.bias, stride).transpose(1, 2)
    if mask is None:
        return result[:, : torch.sym_max((x.shape[1] + 2 * edge - size) // stride + 1, 1)], None
    lengths = ((mask.sum(dim=1) + 2 * edge - size) // stride + 1).clamp(min=1)
    return result, frame_mask(lengths, result.shape[1])


def recurrent(gru: nn.GRU, x: Sequence) -> Float[Tensor, "batch frames states"]:
    """A GRU's states. Padding stands last, and a GRU in one direction has read all frames before it comes there."""
    if not torch.onnx.is_in_onnx_export():
        states: Tensor = gru(x)[0]
        return states
    # Spelt as ONNX's own operator: the exporter unrolls a GRU, or some versions of it take the reset gate elsewhere.
    weights = [_by_onnx_gates(gru, kind) for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
    states = torch.onnx.ops.symbolic(
        "GRU",
        (x.transpose(0, 1), weights[0], weights[1], torch.cat(weights[2:], dim=1)),
        {
            "hidden_size": gru.hidden_size,
            "linear_before_reset": 1,
            "direction": "bidirectional" if gru.bidirectional else "forward",
        },
        dtype=x.dtype,
        shape=(x.shape[1], 1 + gru.bidirectional, x.shape[0], gru.hidden_size),
    )
    return states.permute(2, 0, 1, 3).flatten(2)


def _by_onnx_gates(gru: nn.GRU, kind: str) -> Tensor:
    """(directions, 3 * hidden, ...): torch orders the gates reset, update, new; ONNX update, reset, new."""
    directions = []
    for suffix in ("", "_reverse")[: 1 + gru.bidirectional]:
        reset, update, new = getattr(gru, kind + suffix).chunk(3)
        directions.append(torch.cat([update, reset, new]))
    return torch.stack(directions)


def per_path(config: TDFNetConfig, kind: str, make: Callable[[str], nn.Module]) -> nn.ModuleDict:
    """A module for every path, or one, under the name "shared", for all of them."""
    if kind in config.shared:
        return nn.ModuleDict({"shared": make(config.paths[0])})
    return nn.ModuleDict({path: make(path) for path in config.paths})


def of_path(modules: nn.ModuleDict, path: str) -> nn.Module:
    return modules["shared" if "shared" in modules else path]


class Scaled(NamedTuple):
    """What a block makes of a sequence: after the first encoder, after the CNN, and after all of it, which has the mask."""

    encoded: Tensor
    narrowed: Tensor
    output: Tensor
    mask: Tensor | None


class DeepScaleBlock(nn.Module):
    """One block of the deep-scale transformer, Fig. 2: in the first block an encoder; a CNN, two GRUs, an encoder.

    Submodules, each with an entry per path ("speech", "text") or one for both ("shared"): `first`, `cnn`, `gru` (GRU_1
    and GRU_2 at 0 and 1), `encoder` (layers at 0, 1). `first` is empty in later blocks, unless `first_encoder =
    "every_block"`; `gru` and `encoder` are empty for `deep_scale = "first_cnn"`.
    """

    def __init__(self, config: TDFNetConfig, number: int, dim: int) -> None:
        super().__init__()
        self.first, self.gru, self.encoder = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        if number == 1 or config.first_encoder == "every_block":
            self.first = per_path(config, "encoder", lambda _: Encoder(config, dim, level=number - 1))
        self.strides = {"speech": 2, "text": 2}
        if number == 1:
            self.strides = {"speech": config.speech_stride, "text": config.text_stride}
        self.dim = config.dim // 2**number
        self.cnn = per_path(config, "cnn", lambda path: self._cnn(dim, config.kernel, self.strides[path]))
        if config.deep_scale == "full":
            self.gru = per_path(config, "gru", lambda _: self._grus(config, number))
            self.dim = config.dim // 2 ** (number if config.gru_sizes == "halved" else 1)
            self.encoder = per_path(config, "encoder", lambda _: Encoder(config, self.dim, level=number))

    def _cnn(self, dim: int, kernel: int | str, stride: int) -> nn.Conv1d:
        if isinstance(kernel, int):
            return nn.Conv1d(dim, self.dim, kernel, stride=stride, padding=kernel // 2)
        return nn.Conv1d(dim, self.dim, stride, stride=stride)

    def _grus(self, config: TDFNetConfig, number: int) -> nn.Sequential:
        hidden = config.dim // 2 ** (number - 1 if config.gru_sizes == "halved" else 0)
        directions = 1 + config.bidirectional
        sizes = ((self.dim, hidden), (hidden, hidden // 2))
        return nn.Sequential(
            *(
                nn.GRU(taken, given // directions, batch_first=True, bidirectional=config.bidirectional)
                for taken, given in sizes
            )
        )

    def forward(self, x: Sequence, mask: Mask | None, path: str) -> Scaled:
        encoded = of_path(self.first, path)(x, mask) if self.first else x
        conv = of_path(self.cnn, path)
        assert isinstance(conv, nn.Conv1d)
        narrowed, fewer = downscaled(conv, self.strides[path], encoded, mask)
        if not self.gru:
            return Scaled(encoded, narrowed, narrowed, fewer)
        states = narrowed
        for gru in of_path(self.gru, path).children():
            assert isinstance(gru, nn.GRU)
            states = recurrent(gru, states)
        return Scaled(encoded, narrowed, of_path(self.encoder, path)(states, fewer), fewer)


class MutualTransformer(nn.Module):
    """Section III-D without the speaker: what speech finds in text, what text finds in speech, and both as one sequence.

    Submodules: `speech_from_text` (C_AT: queries are of speech), `text_from_speech` (C_TA), `joint` (C: speech's frames
    stand before the text's), each with its layers at 0, 1.
    """

    NAMES = ("C", "C_AT", "C_TA")

    def __init__(self, config: TDFNetConfig) -> None:
        super().__init__()
        layers = 1 if config.mutual_layers == "one" else config.layers
        self.speech_from_text = nn.ModuleList(EncoderLayer(config, config.dim) for _ in range(layers))
        self.text_from_speech = nn.ModuleList(EncoderLayer(config, config.dim) for _ in range(layers))
        self.joint = Encoder(config, config.dim)
        self.updated = config.mutual_layers == "updated"

    def forward(
        self,
        speech: Float[Tensor, "batch frames dim"],
        text: Float[Tensor, "batch tokens dim"],
        speech_mask: Bool[Tensor, "batch frames"] | None,
        text_mask: Bool[Tensor, "batch tokens"] | None,
        maps: Mapping[str, list[Tensor]] | None = None,
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Each sequence and its mask, by its name in the paper; `maps` receives every layer's attention, by that name."""
        notes: Mapping[str, list[Tensor] | None] = maps or dict.fromkeys(self.NAMES)
        found, answered = speech, text
        for to_text, to_speech in zip(self.speech_from_text, self.text_from_speech, strict=True):
            texts, speeches = (answered, found) if self.updated else (text, speech)
            found, answered = (
                to_text(found, text_mask, texts, notes["C_AT"]),
                to_speech(answered, speech_mask, speeches, notes["C_TA"]),
            )
        both_mask = joined(speech, text, speech_mask, text_mask)
        both = self.joint(torch.cat([speech, text], dim=1), both_mask, notes["C"])
        return {"C": (both, both_mask), "C_AT": (found, speech_mask), "C_TA": (answered, text_mask)}


def joined(first: Tensor, second: Tensor, first_mask: Tensor | None, second_mask: Tensor | None) -> Tensor | None:
    """The mask of two sequences, one behind the other; a sequence without a mask is real throughout."""
    if first_mask is None and second_mask is None:
        return None
    masks = [
        torch.ones_like(x[:, :, 0], dtype=torch.bool) if mask is None else mask
        for x, mask in ((first, first_mask), (second, second_mask))
    ]
    return torch.cat(masks, dim=1)


class Gate(nn.Module):
    """alpha of eq. 11: a sigmoid of one linear layer (`score`) over O, a weight for each of its entries, groups, or all."""

    def __init__(self, kind: str, widths: tuple[int, ...], *, bias: bool) -> None:
        super().__init__()
        width = sum(widths)
        self.widths = {"full": None, "parts": widths, "scalar": (width,)}[kind]
        self.score = nn.Linear(width, width if self.widths is None else len(self.widths), bias=bias)

    def forward(self, fused: Float[Tensor, "batch width"]) -> Float[Tensor, "batch weights"]:
        scores: Tensor = self.score(fused)
        return scores.sigmoid()

    def spread(self, weights: Float[Tensor, "batch weights"]) -> Float[Tensor, "batch width"]:
        """A weight for every entry of O."""
        if self.widths is None:
            return weights
        columns = weights.split(1, dim=1)
        return torch.cat([column.expand(-1, width) for column, width in zip(columns, self.widths, strict=True)], dim=1)
