"""The modules of TDFNet (Zhao et al., IEEE/ACM TASLP 2023): encoder layers, blocks of the deep-scale transformer (section
III-C), the mutual transformer (III-D) and the gate over the pooled groups (III-E)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affekt.batch import frame_mask
from affekt.models.layers import FeedForward, FrameMask, Frames, FullAttention
from affekt.models.tdfnet.config import TDFNetConfig


class EncoderLayer(nn.Module):
    """Attention and feed-forward layers with a GELU, post-norm: Fig. 3, or with a `context` eq. 7.

    Submodules: `attention.{query,key,value,output}`, `norm1`, `feedforward` (linear layers at 0, 2), `norm2`.

    Args:
        config: The settings of the network.
        dim: Width of the sequence.
        halvings: Number of times that the width was halved before this layer, for `feedforward_scaled`.
    """

    def __init__(self, config: TDFNetConfig, dim: int, *, halvings: int = 0) -> None:
        super().__init__()
        self.attention = FullAttention(dim, config.heads, dropout=config.attention_dropout)
        self.feedforward: nn.Sequential
        if config.feedforward == "square":
            self.feedforward = nn.Sequential(nn.Linear(dim, dim), nn.GELU())
        else:
            width = config.feedforward // 2 ** (halvings * config.feedforward_scaled)
            self.feedforward = FeedForward(dim, width, activation=nn.GELU)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.literal_eq5 = config.literal_eq5

    def forward(
        self,
        x: Float[Tensor, "batch frames dim"],
        mask: Bool[Tensor, "batch keys"] | None = None,
        context: Float[Tensor, "batch keys dim"] | None = None,
        maps: list[Tensor] | None = None,
    ) -> Float[Tensor, "batch frames dim"]:
        """Attend from x to `context`, or to x itself; `mask` is the mask of the keys. The attention weights, (batch, heads,
        frames, keys), are appended to `maps`, if given."""
        if maps is not None:
            maps.append(self.attention.explain(x, mask, context))
        first = self.norm1(x + self.dropout(self.attention(x, mask, context)))
        return self.norm2((x if self.literal_eq5 else first) + self.dropout(self.feedforward(first)))


class EncoderStack(nn.ModuleList):
    """A stack of encoder layers."""

    def __init__(self, config: TDFNetConfig, dim: int, *, halvings: int = 0) -> None:
        super().__init__(EncoderLayer(config, dim, halvings=halvings) for _ in range(config.layers))

    def forward(self, x: Frames, mask: FrameMask | None = None, maps: list[Tensor] | None = None) -> Frames:
        for layer in self:
            x = layer(x, mask, maps=maps)
        return x


def downsample(
    conv: nn.Conv1d, stride: int, x: Frames, mask: FrameMask | None
) -> tuple[Float[Tensor, "batch fewer narrow"], Tensor | None]:
    """Apply a strided convolution to x. Return its output, which has at least one frame, and the mask of the output."""
    assert isinstance(conv.padding, tuple)
    (size,), (edge,) = conv.kernel_size, conv.padding
    zero_padded = x if mask is None else x.masked_fill(~mask.unsqueeze(2), 0.0)
    # With this many zeros, even the shortest utterance has one window. Longer ones get superfluous windows, which are cut off
    # or masked.
    frames = F.pad(zero_padded.transpose(1, 2), (edge, edge + size - 1))
    # The stride depends on the path: a CNN that speech and text share has two strides.
    result = F.conv1d(frames, conv.weight, conv.bias, stride).transpose(1, 2)
    if mask is None:
        return result[:, : torch.sym_max((x.shape[1] + 2 * edge - size) // stride + 1, 1)], None
    lengths = ((mask.sum(dim=1) + 2 * edge - size) // stride + 1).clamp(min=1)
    return result, frame_mask(lengths, result.shape[1])


def run_gru(gru: nn.GRU, x: Frames) -> Float[Tensor, "batch frames states"]:
    """Return a GRU's states. A GRU in one direction needs no mask: padding comes last, after all real frames."""
    if not torch.onnx.is_in_onnx_export():
        states: Tensor = gru(x)[0]
        return states
    # Exported as ONNX's own operator: torch's exporter unrolls a GRU over time, and some of its versions apply the reset
    # gate at another point.
    weights = [_onnx_gate_order(gru, kind) for kind in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
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


def _onnx_gate_order(gru: nn.GRU, kind: str) -> Tensor:
    """Return a GRU's weights, (directions, 3 * hidden, ...), in ONNX's order of gates: update, reset, new. Torch has reset,
    update, new."""
    directions = []
    for suffix in ("", "_reverse")[: 1 + gru.bidirectional]:
        reset, update, new = getattr(gru, kind + suffix).chunk(3)
        directions.append(torch.cat([update, reset, new]))
    return torch.stack(directions)


def build_per_path(config: TDFNetConfig, kind: str, make: Callable[[str], nn.Module]) -> nn.ModuleDict:
    """Build one module for every path, or a single one named "shared"."""
    if kind in config.shared:
        return nn.ModuleDict({"shared": make(config.paths[0])})
    return nn.ModuleDict({path: make(path) for path in config.paths})


def module_for_path(modules: nn.ModuleDict, path: str) -> nn.Module:
    """Return the module for a path from `build_per_path`'s result."""
    return modules["shared" if "shared" in modules else path]


class BlockOutput(NamedTuple):
    """A sequence at three points of a block, (batch, frames, dim) each."""

    encoded: Tensor
    """After the first encoder."""
    narrowed: Tensor
    """After the CNN."""
    output: Tensor
    """After the whole block."""
    mask: Tensor | None
    """Mask of `narrowed` and `output`, which have fewer frames."""


class DeepScaleBlock(nn.Module):
    """One block of the deep-scale transformer, Fig. 2: a first encoder (in the first block), a CNN, two GRUs, an encoder.

    Submodules, each with an entry per path ("speech", "text") or one for both ("shared"): `first`, `cnn`, `gru` (GRU_1
    and GRU_2 at 0 and 1), `encoder` (layers at 0, 1). `first` is empty in later blocks, unless `first_encoder =
    "every_block"`; `gru` and `encoder` are empty for `deep_scale = "first_cnn"`.
    """

    def __init__(self, config: TDFNetConfig, number: int, dim: int) -> None:
        super().__init__()
        self.first, self.gru, self.encoder = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        if number == 1 or config.first_encoder == "every_block":
            self.first = build_per_path(config, "encoder", lambda _: EncoderStack(config, dim, halvings=number - 1))
        self.strides = {"speech": 2, "text": 2}
        if number == 1:
            self.strides = {"speech": config.speech_stride, "text": config.text_stride}
        self.dim = config.dim // 2**number
        self.cnn = build_per_path(config, "cnn", lambda path: self._build_cnn(dim, config.kernel, self.strides[path]))
        if config.deep_scale == "full":
            self.gru = build_per_path(config, "gru", lambda _: self._build_grus(config, number))
            self.dim = config.dim // 2 ** (number if config.gru_sizes == "halved" else 1)
            self.encoder = build_per_path(config, "encoder", lambda _: EncoderStack(config, self.dim, halvings=number))

    def _build_cnn(self, dim: int, kernel: int | str, stride: int) -> nn.Conv1d:
        if isinstance(kernel, int):
            return nn.Conv1d(dim, self.dim, kernel, stride=stride, padding=kernel // 2)
        return nn.Conv1d(dim, self.dim, stride, stride=stride)

    def _build_grus(self, config: TDFNetConfig, number: int) -> nn.Sequential:
        hidden = config.dim // 2 ** (number - 1 if config.gru_sizes == "halved" else 0)
        directions = 1 + config.bidirectional
        sizes = ((self.dim, hidden), (hidden, hidden // 2))
        return nn.Sequential(
            *(
                nn.GRU(input_size, output_size // directions, batch_first=True, bidirectional=config.bidirectional)
                for input_size, output_size in sizes
            )
        )

    def forward(self, x: Frames, mask: FrameMask | None, path: str) -> BlockOutput:
        encoded = module_for_path(self.first, path)(x, mask) if self.first else x
        conv = module_for_path(self.cnn, path)
        assert isinstance(conv, nn.Conv1d)
        narrowed, narrowed_mask = downsample(conv, self.strides[path], encoded, mask)
        if not self.gru:
            return BlockOutput(encoded, narrowed, narrowed, narrowed_mask)
        states = narrowed
        for gru in module_for_path(self.gru, path).children():
            assert isinstance(gru, nn.GRU)
            states = run_gru(gru, states)
        return BlockOutput(encoded, narrowed, module_for_path(self.encoder, path)(states, narrowed_mask), narrowed_mask)


class MutualTransformer(nn.Module):
    """The mutual transformer (section III-D): speech attends to text, text to speech, and both to both as one sequence. The
    speaker vector, which the paper adds here, is appended by `TDFNet`.

    Submodules: `speech_from_text` (C_AT: the queries are speech), `text_from_speech` (C_TA), `joint` (C: speech frames, then
    tokens), each with its layers at 0, 1.
    """

    NAMES = ("C", "C_AT", "C_TA")

    def __init__(self, config: TDFNetConfig) -> None:
        super().__init__()
        layers = 1 if config.mutual_layers == "one" else config.layers
        self.speech_from_text = nn.ModuleList(EncoderLayer(config, config.dim) for _ in range(layers))
        self.text_from_speech = nn.ModuleList(EncoderLayer(config, config.dim) for _ in range(layers))
        self.joint = EncoderStack(config, config.dim)
        self.updated = config.mutual_layers == "updated"

    def forward(
        self,
        speech: Float[Tensor, "batch frames dim"],
        text: Float[Tensor, "batch tokens dim"],
        speech_mask: Bool[Tensor, "batch frames"] | None,
        text_mask: Bool[Tensor, "batch tokens"] | None,
        maps: Mapping[str, list[Tensor]] | None = None,
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return each output sequence and its mask by the sequence's name in the paper. The attention weights of every layer
        are appended to `maps[name]`."""
        attention: Mapping[str, list[Tensor] | None] = maps or dict.fromkeys(self.NAMES)
        speech_state, text_state = speech, text
        for to_text, to_speech in zip(self.speech_from_text, self.text_from_speech, strict=True):
            text_context, speech_context = (text_state, speech_state) if self.updated else (text, speech)
            speech_state, text_state = (
                to_text(speech_state, text_mask, text_context, attention["C_AT"]),
                to_speech(text_state, speech_mask, speech_context, attention["C_TA"]),
            )
        joint_mask = join_masks(speech, text, speech_mask, text_mask)
        joint = self.joint(torch.cat([speech, text], dim=1), joint_mask, attention["C"])
        return {"C": (joint, joint_mask), "C_AT": (speech_state, speech_mask), "C_TA": (text_state, text_mask)}


def join_masks(first: Tensor, second: Tensor, first_mask: Tensor | None, second_mask: Tensor | None) -> Tensor | None:
    """Return the mask of two concatenated sequences; a sequence without a mask has only real frames."""
    if first_mask is None and second_mask is None:
        return None
    masks = [
        torch.ones_like(x[:, :, 0], dtype=torch.bool) if mask is None else mask
        for x, mask in ((first, first_mask), (second, second_mask))
    ]
    return torch.cat(masks, dim=1)


class Gate(nn.Module):
    """The gate alpha of eq. 11: a linear layer (`score`) and a sigmoid, applied to O, the concatenated groups of pooled
    outputs.

    Args:
        kind: "full": one weight for every entry of O; "parts": one for every group of O; "scalar": one for all of O.
        widths: The widths of the groups.
        bias: Whether the linear layer has a bias.
    """

    def __init__(self, kind: str, widths: tuple[int, ...], *, bias: bool) -> None:
        super().__init__()
        width = sum(widths)
        self.widths = {"full": None, "parts": widths, "scalar": (width,)}[kind]
        self.score = nn.Linear(width, width if self.widths is None else len(self.widths), bias=bias)

    def forward(self, fused: Float[Tensor, "batch width"]) -> Float[Tensor, "batch weights"]:
        scores: Tensor = self.score(fused)
        return scores.sigmoid()

    def expand(self, weights: Float[Tensor, "batch weights"]) -> Float[Tensor, "batch width"]:
        """Expand the weights to one for every entry of O."""
        if self.widths is None:
            return weights
        columns = weights.split(1, dim=1)
        return torch.cat([column.expand(-1, width) for column, width in zip(columns, self.widths, strict=True)], dim=1)
