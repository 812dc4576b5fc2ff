"""Speech encoders as transformers runs them, from a folder or by their name on the hub, with the genuine classes.

HuBERT (Hsu et al., 2021), wav2vec 2.0 (Baevski et al., 2020), WavLM (Chen et al., 2022), each of any size; and Whisper
(Radford et al., 2022) of any size, padded to its 30 s as it was trained. Each has its name, instead of one for all: a
recipe and the store then say what was heard, and a folder that holds another encoder is refused. `affekt.features.whisper`
is the same Whisper without the padding: many times faster on short utterances, and exportable.
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

from affekt.audio.read import SAMPLE_RATE
from affekt.batch import Stream, frame_mask
from affekt.errors import BadConfig
from affekt.features.transformers_encoder import Checkpoint, Encoder, EncoderConfig
from affekt.features.whisper import HOP, LogMel

PIECE = 30 * SAMPLE_RATE  # samples that Whisper hears at once


@dataclass(frozen=True)
class WaveEncoderConfig(EncoderConfig):
    # Whether each waveform is set to mean 0 and deviation 1. None: as the checkpoint's preprocessor_config.json says.
    normalise: bool | None = None


class SpeechEncoder(Encoder):
    """What these encoders have in common: they hear 16 kHz, and give 50 frames a second."""

    sample_rate = SAMPLE_RATE
    frame_rate = 50.0


class WaveEncoder(SpeechEncoder):
    """An encoder of the wav2vec 2.0 family: convolutions over the waveform itself, then blocks."""

    Config = WaveEncoderConfig

    def __init__(self, config: WaveEncoderConfig, network: nn.Module | None = None) -> None:
        super().__init__(config, network)
        self.kernels, self.strides = config.architecture["conv_kernel"], config.architecture["conv_stride"]
        self.frame_rate = SAMPLE_RATE / prod(self.strides)
        # A group norm runs over all of time, padding too: such an encoder hears utterances of one length at a time.
        self.one_length = config.architecture["feat_extract_norm"] == "group"

    @classmethod
    def _completed(cls, config: WaveEncoderConfig, checkpoint: Checkpoint) -> WaveEncoderConfig:
        config = super()._completed(config, checkpoint)
        # An adapter stands after the last block, where nothing is taken.
        config = replace(config, architecture={**config.architecture, "add_adapter": False})
        if config.normalise is not None:
            return config
        stored = checkpoint.preprocessing()
        if stored.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise BadConfig(f"{checkpoint.source} hears {stored['sampling_rate']} Hz; expected {SAMPLE_RATE}")
        return replace(config, normalise=bool(stored.get("do_normalize", True)))  # true, where it is not said, to them

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """`lengths` in samples, where the waveforms are padded (with zeros); frames: see `frames`."""
        if lengths is None:
            return Stream(self._states(waveform, None), None, self.frame_rate)
        counts = self.frames(lengths)
        values = waveform.new_zeros(len(waveform), int(counts.max()), self.dim)
        sizes = lengths.unique().tolist() if self.one_length else [int(lengths.max())]
        for size in sizes:
            rows = lengths == size if self.one_length else lengths <= size
            alike = bool((lengths[rows] == size).all())
            states = self._states(waveform[rows, :size], None if alike else lengths[rows])
            values[rows, : states.shape[1]] = states
        mask = frame_mask(counts, values.shape[1])
        return Stream(values * mask.unsqueeze(2), mask, self.frame_rate)

    def frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames of waveforms of so many samples: what the convolutions leave of them."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        return lengths

    def _states(self, waveform: Tensor, lengths: Tensor | None) -> Tensor:
        mask = None if lengths is None else frame_mask(lengths, waveform.shape[1])
        if self.config.normalise:
            waveform = normalised(waveform, mask)
        states = self._seen(waveform, attention_mask=None if mask is None else mask.long())
        return torch.cat([states[block] for block in self.blocks], dim=2)


def normalised(waveform: Float[Tensor, "batch samples"], mask: Tensor | None) -> Float[Tensor, "batch samples"]:
    """Each waveform with mean 0 and deviation 1 over its own samples, the padding left at 0, as transformers does it."""
    real = torch.ones_like(waveform) if mask is None else mask.to(waveform.dtype)
    count = real.sum(dim=1, keepdim=True)
    centred = (waveform - (waveform * real).sum(dim=1, keepdim=True) / count) * real
    return centred / (centred.square().sum(dim=1, keepdim=True) / count + 1e-7).sqrt()


class HuBERT(WaveEncoder):
    model_type = "hubert"
    genuine = "transformers.models.hubert.modeling_hubert:HubertModel"


class Wav2Vec2(WaveEncoder):
    model_type = "wav2vec2"
    genuine = "transformers.models.wav2vec2.modeling_wav2vec2:Wav2Vec2Model"


class WavLM(WaveEncoder):
    model_type = "wavlm"
    genuine = "transformers.models.wavlm.modeling_wavlm:WavLMModel"

    def _seen(self, *inputs: Any, **options: Any) -> list[Tensor]:
        with warnings.catch_warnings():  # its mask and its bias differ in type, of which torch complains
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            return super()._seen(*inputs, **options)


class WhisperThirtySeconds(SpeechEncoder):
    """Whisper's encoder as it was trained: each 30 s by themselves, what lacks filled up with silence.

    Only the frames of the utterance are given. The last block's state has passed the final norm, as what the decoder hears.
    """

    model_type = "whisper"
    genuine = "transformers.models.whisper.modeling_whisper:WhisperEncoder"
    depth, width = "encoder_layers", "d_model"
    renamed: ClassVar[Mapping[str, str]] = {r"^(model\.)?encoder\.": ""}  # the encoder of a whole Whisper
    frame_rate = SAMPLE_RATE / HOP / 2

    def __init__(self, config: EncoderConfig, network: nn.Module | None = None) -> None:
        super().__init__(config, network)
        self.mel = LogMel(config.architecture["num_mel_bins"])

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """`lengths` in samples, where the waveforms are padded (with zeros); frames: `(lengths // 160 + 1) // 2`."""
        samples = waveform.shape[1]
        frames = (samples // HOP + 1) // 2
        pieces = torch.nn.functional.pad(waveform, (0, -samples % PIECE)).unflatten(1, (-1, PIECE))
        values = self._states(pieces.flatten(0, 1)).unflatten(0, (len(waveform), -1)).flatten(1, 2)[:, :frames]
        if lengths is None:
            return Stream(values, None, self.frame_rate)
        mask = frame_mask((lengths // HOP + 1) // 2, frames)
        return Stream(values * mask.unsqueeze(2), mask, self.frame_rate)

    def _states(self, pieces: Tensor) -> Tensor:
        states = self._seen(self.mel(pieces))
        if self.ends_at_the_last:
            states[-1] = self.network.layer_norm(states[-1])
        return torch.cat([states[block] for block in self.blocks], dim=2)

    def _layers(self) -> nn.ModuleList:
        return self.network.layers
