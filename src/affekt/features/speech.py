"""Speech encoders of transformers, from a folder or by their name on the hub.

HuBERT (Hsu et al., 2021), wav2vec 2.0 (Baevski et al., 2020) and WavLM (Chen et al., 2022), each of any size; and Whisper
(Radford et al., 2022) of any size, padded to 30 s as in its training. Each is a separate feature, so recipes and the store
name the encoder, and the folder of a different encoder is refused. `affekt.features.whisper` is the same Whisper without the
padding: many times faster on short utterances, and exportable.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.audio.loudness import HOP
from affekt.audio.read import SAMPLE_RATE
from affekt.batch import Stream, frame_mask
from affekt.errors import BadConfig
from affekt.features.transformers_encoder import Checkpoint, EncoderConfig, TransformersEncoder
from affekt.features.whisper import LogMel

WINDOW = 30 * SAMPLE_RATE  # samples of Whisper's input


@dataclass(frozen=True)
class WaveEncoderConfig(EncoderConfig):
    """The settings of an encoder of the wav2vec 2.0 family."""

    normalize: bool | None = None
    """If true, each waveform is normalized to mean 0 and standard deviation 1. None: as in preprocessor_config.json."""

    renamed: ClassVar[Mapping[str, str]] = {"normalise": "normalize"}


class SpeechEncoder(TransformersEncoder):
    """The base class of speech encoders: audio at 16 kHz to 50 frames per second."""

    sample_rate = SAMPLE_RATE
    frame_rate = 50.0


class WaveEncoder(SpeechEncoder):
    """An encoder of the wav2vec 2.0 family: convolutions over the waveform, then transformer blocks."""

    Config = WaveEncoderConfig

    def __init__(self, config: WaveEncoderConfig, network: nn.Module | None = None) -> None:
        super().__init__(config, network)
        self.kernels, self.strides = config.architecture["conv_kernel"], config.architecture["conv_stride"]
        self.frame_rate = SAMPLE_RATE / prod(self.strides)
        # A group norm runs over all frames, including padding, so only utterances of equal length are batched.
        self.equal_lengths_only = config.architecture["feat_extract_norm"] == "group"

    @classmethod
    def _complete(cls, config: WaveEncoderConfig, checkpoint: Checkpoint) -> WaveEncoderConfig:
        config = super()._complete(config, checkpoint)
        # The adapter comes after the last block, so it is not needed.
        config = replace(config, architecture={**config.architecture, "add_adapter": False})
        if config.normalize is not None:
            return config
        stored = checkpoint.preprocessing()
        if stored.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise BadConfig(
                f"{checkpoint.source} has a sample rate of {stored['sampling_rate']} Hz; expected {SAMPLE_RATE}"
            )
        return replace(config, normalize=bool(stored.get("do_normalize", True)))  # transformers' default is true

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the states; `lengths` in samples if the waveforms are padded (with zeros)."""
        if lengths is None:
            return Stream(self._states(waveform, None), None, self.frame_rate)
        counts = self.num_frames(lengths)
        values = waveform.new_zeros(len(waveform), int(counts.max()), self.dim)
        sizes = lengths.unique().tolist() if self.equal_lengths_only else [int(lengths.max())]
        for size in sizes:
            rows = lengths == size if self.equal_lengths_only else lengths <= size
            padded = bool((lengths[rows] != size).any())
            states = self._states(waveform[rows, :size], lengths[rows] if padded else None)
            values[rows, : states.shape[1]] = states
        mask = frame_mask(counts, values.shape[1])
        return Stream(values * mask.unsqueeze(2), mask, self.frame_rate)

    def num_frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Return the number of frames of waveforms with `lengths` samples after the convolutions."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def _states(self, waveform: Tensor, lengths: Tensor | None) -> Tensor:
        mask = None if lengths is None else frame_mask(lengths, waveform.shape[1])
        if self.config.normalize:
            waveform = normalize(waveform, mask)
        states = self._hidden_states(waveform, attention_mask=None if mask is None else mask.long())
        return torch.cat([states[block] for block in self.blocks], dim=2)


def normalize(waveform: Float[Tensor, "batch samples"], mask: Tensor | None) -> Float[Tensor, "batch samples"]:
    """Normalize each waveform to mean 0 and standard deviation 1 over its own samples, as transformers does."""
    real = torch.ones_like(waveform) if mask is None else mask.to(waveform.dtype)
    count = real.sum(dim=1, keepdim=True)
    centered = (waveform - (waveform * real).sum(dim=1, keepdim=True) / count) * real
    return centered / (centered.square().sum(dim=1, keepdim=True) / count + 1e-7).sqrt()


class HuBERT(WaveEncoder):
    """HuBERT."""

    model_type = "hubert"
    network_class = "transformers.models.hubert.modeling_hubert:HubertModel"


class Wav2Vec2(WaveEncoder):
    """wav2vec 2.0."""

    model_type = "wav2vec2"
    network_class = "transformers.models.wav2vec2.modeling_wav2vec2:Wav2Vec2Model"


class WavLM(WaveEncoder):
    """WavLM."""

    model_type = "wavlm"
    network_class = "transformers.models.wavlm.modeling_wavlm:WavLMModel"

    def _hidden_states(self, *inputs: Any, **options: Any) -> list[Tensor]:
        with warnings.catch_warnings():  # torch warns that the types of mask and bias differ
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            return super()._hidden_states(*inputs, **options)


class WhisperThirtySeconds(SpeechEncoder):
    """Whisper's encoder as in its training: audio is encoded in windows of 30 s, the last one padded with silence.

    The stream does not include the frames of the padding. The last block's state is taken after the final norm, as the
    decoder receives it.
    """

    model_type = "whisper"
    network_class = "transformers.models.whisper.modeling_whisper:WhisperEncoder"
    depth, width = "encoder_layers", "d_model"
    renamed: ClassVar[Mapping[str, str]] = {r"^(model\.)?encoder\.": ""}
    """Removes the prefix of the encoder in a complete Whisper."""
    frame_rate = SAMPLE_RATE / HOP / 2

    def __init__(self, config: EncoderConfig, network: nn.Module | None = None) -> None:
        super().__init__(config, network)
        self.mel = LogMel(config.architecture["num_mel_bins"])

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the states; `lengths` in samples if the waveforms are padded (with zeros).

        The number of frames is `(lengths // 160 + 1) // 2`.
        """
        samples = waveform.shape[1]
        frames = (samples // HOP + 1) // 2
        windows = torch.nn.functional.pad(waveform, (0, -samples % WINDOW)).unflatten(1, (-1, WINDOW))
        values = self._states(windows.flatten(0, 1)).unflatten(0, (len(waveform), -1)).flatten(1, 2)[:, :frames]
        if lengths is None:
            return Stream(values, None, self.frame_rate)
        mask = frame_mask((lengths // HOP + 1) // 2, frames)
        return Stream(values * mask.unsqueeze(2), mask, self.frame_rate)

    def _states(self, windows: Tensor) -> Tensor:
        states = self._hidden_states(self.mel(windows))
        if self.includes_last_block:
            states[-1] = self.network.layer_norm(states[-1])
        return torch.cat([states[block] for block in self.blocks], dim=2)

    def _layers(self) -> nn.ModuleList:
        return self.network.layers
