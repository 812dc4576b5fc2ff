"""Whisper's encoder (Radford et al., 2022) as a feature: log-mel front end, two convolutions, the first blocks.

It is written for speech of any length: without padding to 30 s, and with masks for batches. It can be exported, so that the
same network extracts features for training and is part of a bundle's ONNX file. Parameters have the names and
shapes of transformers' WhisperEncoder, whose saved folders are loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.audio.loudness import HOP, WINDOW, GateConfig, mel_filters
from affekt.batch import Stream, frame_mask, largest
from affekt.errors import BadConfig
from affekt.features.base import Feature
from affekt.features.gate import SpeechGate

SAMPLE_RATE = 16_000  # Hz
FLOOR = 8.0  # decades below the clip's maximum; smaller values are set to this
LOUDEST = 1.5  # the loudest value of a clip's log-mel with `level="relative"`, in decades


@dataclass(frozen=True)
class WhisperConfig:
    """The settings of Whisper's encoder. `dim`, `heads`, `width` and `mels` are set when a checkpoint is loaded."""

    blocks: tuple[int, ...] = (1, 2, 3)
    """Blocks whose hidden states are concatenated: 0 is the input of the first block, -1 the output of the last."""
    level: Literal["absolute", "relative"] = "absolute"
    """Scaling of the log-mel. "absolute" is Whisper's own; "relative" shifts it so that every clip has the same maximum.

    With "relative", the output does not depend on the recording's gain, which depends more on the microphone than on
    the speaker.
    """
    span: int = 1500
    """Number of frames (of 20 ms) that attend to one another; Whisper's own 1500 are 30 s.

    Longer input is split into spans of at most this length, so that the cost grows linearly."""
    gate: GateConfig | None = None
    """Which frames of the log-mel reach the encoder: those that pass the speech gate. None: all frames.

    With a gate, silence before, after and between the words changes nothing, and costs nothing. The number of frames then
    depends on what is in the recording, and the position of a frame is not its time."""
    dim: int = 384
    """Width of the hidden states."""
    heads: int = 6
    """Number of attention heads."""
    width: int = 1536
    """Width of the feed-forward layers."""
    mels: int = 80
    """Number of mel bands."""


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram of a waveform at 16 kHz, in frames of 10 ms.

    The Fourier transform is a convolution: an exported graph then needs no STFT operator and is faster. See `WhisperConfig`
    for `level`.
    """

    basis: Tensor
    mel: Tensor

    def __init__(self, mels: int = 80, *, level: str = "absolute") -> None:
        super().__init__()
        self.level = level
        self.register_buffer("basis", fourier_basis(WINDOW), persistent=False)
        self.register_buffer("mel", torch.from_numpy(mel_filters(mels, WINDOW, SAMPLE_RATE)).float(), persistent=False)

    def forward(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch mels frames"]:
        """Compute the log-mel. `lengths` in samples, beyond which samples must be zero; later frames are zero as well."""
        samples = waveform.shape[1]
        if self.level == "relative":  # before the logarithm, whose floor of 1e-10 a quiet recording would reach
            waveform = waveform / waveform.abs().amax(dim=1, keepdim=True).clamp(min=1e-20)
        # Whisper pads the beginning by reflection; the end is followed by the zeros that fill up 30 s.
        padded = torch.cat([waveform[:, 1 : WINDOW // 2 + 1].flip(1), waveform], dim=1)
        padded = F.pad(padded, (0, WINDOW // 2))[:, : samples // HOP * HOP + WINDOW - HOP]
        real, imaginary = F.conv1d(padded.unsqueeze(1), self.basis, stride=HOP).chunk(2, dim=1)
        power = real.square() + imaginary.square()
        log = (self.mel @ power).clamp(min=1e-10).log10()
        mask = None if lengths is None else frame_mask(lengths // HOP, log.shape[2]).unsqueeze(1)
        if mask is not None:
            log = log.masked_fill(~mask, -10.0)  # the logarithm of the floor
        loudest = log.amax(dim=(1, 2), keepdim=True)
        log = torch.maximum(log, loudest - FLOOR)
        if self.level == "relative":
            log = log - loudest + LOUDEST
        log = (log + 4.0) / 4.0  # as Whisper scales its input
        return log if mask is None else log * mask.to(log.dtype)


def fourier_basis(window: int) -> Float[Tensor, "bins_twice 1 window"]:
    """Return rows of cosines, then of sines, multiplied by a periodic Hann window."""
    time = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * time / window)
    angle = 2 * np.pi / window * (np.arange(window // 2 + 1)[:, None] * time % window)
    basis = np.concatenate([np.cos(angle), np.sin(angle)]) * hann
    return torch.from_numpy(basis).unsqueeze(1).float()


@dataclass(frozen=True)
class LogMelConfig:
    """The settings of the log-mel feature; see `WhisperConfig`."""

    mels: int = 80
    level: Literal["absolute", "relative"] = "absolute"
    gate: GateConfig | None = None


class LogMelFrames(Feature):
    """Whisper's log-mel as a stream, 100 frames per second; with a gate, of the kept frames only."""

    Config = LogMelConfig
    sample_rate = SAMPLE_RATE
    frame_rate = SAMPLE_RATE / HOP

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config, self.dim = config, config.mels
        self.mel = LogMel(config.mels, level=config.level)
        self.gate = SpeechGate(config.gate) if config.gate else None

    @classmethod
    def from_folder(cls, folder: Path | None, config: LogMelConfig) -> LogMelFrames:
        """Build the feature. Raises `BadConfig` if a folder is given, since there are no weights."""
        if folder is not None:
            raise BadConfig(f"log-mel has no weights; remove folder = {str(folder)!r}")
        return cls(config)

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the frames; `lengths` in samples if the waveforms are padded (with zeros)."""
        mel, counts = self.mel(waveform, lengths), None if lengths is None else lengths // HOP
        if self.gate:
            mel, counts = self.gate(mel, counts)
        mask = None if counts is None else frame_mask(counts, mel.shape[2])
        return Stream(rearrange(mel, "batch mels frames -> batch frames mels"), mask, self.frame_rate)


class SelfAttention(nn.Module):
    """Multi-head self-attention with a mask of the keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.v_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            rearrange(projection(x), "batch frames (heads dim) -> batch heads frames dim", heads=self.heads)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Expanded to every query: onnxruntime's Attention does not broadcast a mask over queries.
        keys = mask[:, None, None, :].expand(-1, -1, x.shape[1], -1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        return self.out_proj(rearrange(attended, "batch heads frames dim -> batch frames (heads dim)"))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, width), nn.Linear(width, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class WhisperStates(Feature):
    """Hidden states of Whisper's encoder, concatenated along dim, 50 frames per second.

    Only the blocks up to the last one in `blocks` are built. See `WhisperConfig.gate` for the frames that are left out.
    """

    Config = WhisperConfig
    notice = Path(__file__).with_name("LICENSE.whisper")  # must be distributed with the weights
    fixed = frozenset({"embed_positions.weight"})  # a table of sinusoids, which Whisper does not train either
    sample_rate = SAMPLE_RATE
    frame_rate = SAMPLE_RATE / HOP / 2  # the second convolution has a stride of 2

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.dim, self.num_states = config.dim * len(config.blocks), len(config.blocks)
        self.mel = LogMel(config.mels, level=config.level)
        self.gate = SpeechGate(config.gate) if config.gate else None
        self.conv1 = nn.Conv1d(config.mels, config.dim, 3, padding=1)
        self.conv2 = nn.Conv1d(config.dim, config.dim, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.span, config.dim)
        self.layers = nn.ModuleList(Block(config.dim, config.heads, config.width) for _ in range(max(config.blocks)))

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the states; `lengths` in samples if the waveforms are padded (with zeros).

        The number of frames is `(lengths // 160 + 1) // 2`; with a gate, at most this.
        """
        mel, counts = self.mel(waveform, lengths), None if lengths is None else lengths // HOP
        if self.gate:
            mel, counts = self.gate(mel, counts)
        return self._encode(mel, counts)

    def front_end(self) -> LogMelFrames:
        """Return the log-mel front end, which includes the gate."""
        return LogMelFrames(LogMelConfig(self.config.mels, self.config.level, self.config.gate))

    def encode(self, stream: Stream) -> Stream:
        """Compute the states from the stream of the front end."""
        mel = rearrange(stream.values, "batch frames mels -> batch mels frames")
        return self._encode(mel, None if stream.mask is None else stream.lengths())

    def _encode(self, mel: Float[Tensor, "batch mels frames"], counts: Int[Tensor, " batch"] | None) -> Stream:
        """Encode log-mels. `counts` is the number of frames of each utterance without padding; padded frames are zero."""
        x = F.gelu(self.conv1(mel))
        if counts is not None:
            x = x * frame_mask(counts, x.shape[2]).unsqueeze(1).to(x.dtype)
        x = rearrange(F.gelu(self.conv2(x)), "batch dim frames -> batch frames dim")
        if counts is None:
            return Stream(self._encode_spans(x, Stream(x).lengths()), None, self.frame_rate)
        counts = (counts + 1) // 2
        return Stream(self._encode_spans(x, counts), frame_mask(counts, x.shape[1]), self.frame_rate)

    def _encode_spans(
        self, x: Float[Tensor, "batch frames dim"], counts: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch frames states"]:
        """Encode spans of at most `span` frames as one batch, and join their states.

        The `counts` frames of each utterance are divided into the smallest number of equal spans (the last may be shorter),
        which is independent of the other utterances and of the padding. Padding is zero in the result.
        """
        batch, frames, _ = x.shape
        spans = (counts + self.config.span - 1) // self.config.span
        sizes = ((counts + spans - 1) // spans).unsqueeze(1)
        num_spans, size = largest(spans), largest(sizes)
        first = torch.arange(batch, device=x.device).unsqueeze(1)
        start = torch.arange(num_spans, device=x.device) * sizes
        within = torch.arange(size, device=x.device)
        position = start.unsqueeze(2) + within
        real = (within < sizes.unsqueeze(2)) & (position < counts[:, None, None])
        source = first * frames + position.clamp(max=frames - 1).flatten(1)
        parts = x.flatten(0, 1)[source].unflatten(1, (num_spans, size)).flatten(0, 1)
        # A softmax over no keys is NaN, so spans that contain only padding attend to all their frames.
        keys = real | ~real.any(dim=2, keepdim=True)
        states = self._states(parts, keys.flatten(0, 1)).flatten(0, 1)
        index = torch.arange(frames, device=x.device)
        target = (index // sizes * size + index % sizes).clamp(max=num_spans * size - 1)
        joined = states[first * (num_spans * size) + target]
        return joined * frame_mask(counts, frames).unsqueeze(2).to(x.dtype)

    def _states(self, x: Tensor, mask: Tensor) -> Tensor:
        states = [x + self.embed_positions.weight[: x.shape[1]]]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        return torch.cat([states[block] for block in self.config.blocks], dim=2)

    @classmethod
    def from_folder(cls, folder: Path | None, config: WhisperConfig) -> WhisperStates:
        """Load a Whisper encoder saved by transformers (config.json, model.safetensors). Its sizes replace the config's.

        Raises `BadConfig` if there is none, or it has too few blocks or positions.
        """
        from safetensors.torch import load_file

        if folder is None:
            raise BadConfig("whisper needs folder, which contains a Whisper encoder's weights")
        if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
            raise BadConfig(f"{folder} has no Whisper encoder: expected config.json and model.safetensors")
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if stored.get("model_type") != "whisper":
            raise BadConfig(f"{folder} contains a model of type {stored.get('model_type')!r}; expected whisper")
        count = stored["encoder_layers"]
        if not config.blocks or min(config.blocks) < -count - 1 or max(config.blocks) > count:
            raise BadConfig(
                f"blocks {list(config.blocks)}: {folder.name} has 0 to {count}, or -1 to {-count - 1} from its end"
            )
        if not 0 < config.span <= stored["max_source_positions"]:
            raise BadConfig(f"span {config.span}: {folder.name} has positions for {stored['max_source_positions']}")
        encoder = cls(
            replace(
                config,
                blocks=tuple(block % (count + 1) for block in config.blocks),
                dim=stored["d_model"],
                heads=stored["encoder_attention_heads"],
                width=stored["encoder_ffn_dim"],
                mels=stored["num_mel_bins"],
            )
        )
        tensors = load_file(folder / "model.safetensors")
        weights = {name.split("encoder.")[-1]: tensor.float() for name, tensor in tensors.items()}
        weights["embed_positions.weight"] = weights["embed_positions.weight"][: config.span]
        encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
        return encoder.eval().requires_grad_(False)
