"""Speech encoders as transformers runs them, from a folder or by their name on the hub, with the genuine classes.

HuBERT (Hsu et al., 2021), wav2vec 2.0 (Baevski et al., 2020), WavLM (Chen et al., 2022), each of any size; and Whisper
(Radford et al., 2022) of any size, padded to its 30 s as it was trained. Each has its name, instead of one for all: a
recipe and the store then say what was heard, and a folder that holds another encoder is refused. `affekt.features.whisper`
is the same Whisper without the padding: many times faster on short utterances, and exportable.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.audio import SAMPLE_RATE
from affekt.batch import Stream
from affekt.errors import BadConfig
from affekt.extras import need
from affekt.features.base import Feature
from affekt.features.hub import Checkpoint
from affekt.features.whisper import HOP, LogMel, frame_mask

PIECE = 30 * SAMPLE_RATE  # samples that Whisper hears at once
# Facts about files and about software, which change nothing of what a network computes.
INCIDENTAL = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "id2label", "label2id"}


@dataclass(frozen=True)
class EncoderConfig:
    # Whose states, counted from 1; 0 is what enters the first block, -1 is the last. They stand one after the other.
    blocks: tuple[int, ...] = (-1,)
    checkpoint: str = ""  # a name on the hub, as "facebook/hubert-large-ll60k", where no folder is given
    revision: str = "main"  # of the checkpoint: a branch, a tag or a commit
    architecture: Mapping[str, Any] = field(default_factory=dict)  # the checkpoint's config.json; filled in on reading

    def __post_init__(self) -> None:
        if not self.blocks:
            raise BadConfig("blocks = []: expected at least one, as [-1] for the last")


@dataclass(frozen=True)
class WaveEncoderConfig(EncoderConfig):
    # Whether each waveform is set to mean 0 and deviation 1. None: as the checkpoint's preprocessor_config.json says.
    normalise: bool | None = None


class SpeechEncoder(Feature):
    """What these encoders have in common: the genuine network, read from a checkpoint and watched at its blocks.

    State k is what block k gives: `hidden_states[k]` of transformers 5. Blocks after the last that is asked for are
    dropped, and so is whatever follows the last block, but for Whisper's final norm.
    """

    Config = EncoderConfig
    sample_rate = SAMPLE_RATE
    frame_rate = 50.0
    libraries = ("torch", "transformers")

    model_type: ClassVar[str]  # what config.json calls the network
    genuine: ClassVar[str]  # transformers' class
    depth: ClassVar[str] = "num_hidden_layers"  # what config.json calls the number of blocks
    width: ClassVar[str] = "hidden_size"  # and the features of a state
    renamed: ClassVar[Mapping[str, str]] = {}  # names in a checkpoint, as patterns -> names in the genuine class

    def __init__(self, config: Any, network: nn.Module | None = None) -> None:
        """`network` with its weights, or one without them, of the architecture that `config` holds."""
        super().__init__()
        if not config.architecture:
            raise BadConfig(
                f"{self.model_type} is built from a checkpoint: give folder, or checkpoint, a name on the hub"
            )
        count = config.architecture[self.depth]
        self.blocks = _counted(config.blocks, count, self.model_type)
        self.config = replace(config, blocks=self.blocks)
        self.dim, self.parts = config.architecture[self.width] * len(self.blocks), len(self.blocks)
        self.ends_at_the_last = max(self.blocks) == count
        self.network: Any = network or self._class()(self._their_config(config.architecture))
        del self._layers()[max(1, *self.blocks) :]

    @classmethod
    def from_folder(cls, folder: Path | None, config: Any) -> SpeechEncoder:
        """Read a checkpoint: config.json, preprocessor_config.json and safetensors, from a folder or from the hub.

        Raises `BadConfig` where there is none, for another kind of network, for weights that are not safetensors or not
        all there, for blocks that it does not have; `MissingExtra` without transformers.
        """
        kind = cls._class()
        checkpoint = Checkpoint.at(folder, config.checkpoint, config.revision, cls.model_type)
        config = cls._completed(config, checkpoint)
        _counted(config.blocks, config.architecture[cls.depth], cls.model_type)
        network = checkpoint.network(kind, cls._their_config(config.architecture), cls.renamed)
        return cls(config, network).float().eval().requires_grad_(False)

    @classmethod
    def _class(cls) -> Any:
        need("transformers", extra="train", purpose=f"a {cls.model_type} encoder")
        module, name = cls.genuine.split(":")
        return getattr(importlib.import_module(module), name)

    @classmethod
    def _their_config(cls, architecture: Mapping[str, Any]) -> Any:
        return cls._class().config_class.from_dict(dict(architecture))

    @classmethod
    def _completed(cls, config: Any, checkpoint: Checkpoint) -> Any:
        """The settings with what the checkpoint says of itself."""
        stored = checkpoint.settings()
        if stored.get("model_type") != cls.model_type:
            raise BadConfig(
                f"{checkpoint.source} holds a model of type {stored.get('model_type')!r}; expected {cls.model_type!r}"
            )
        whole = {**cls._their_config({}).to_dict(), **stored}
        architecture = {name: value for name, value in whole.items() if name not in INCIDENTAL and value is not None}
        return replace(config, architecture=architecture)

    def _layers(self) -> nn.ModuleList:
        return self.network.encoder.layers

    def _seen(self, *inputs: Any, **options: Any) -> list[Tensor]:
        """The states of the network's run on these inputs, each (batch, frames, features)."""
        with _watched(self._layers()) as states:
            self.network(*inputs, **options)
        return states


def _counted(blocks: tuple[int, ...], count: int, name: str) -> tuple[int, ...]:
    """Blocks counted from 0, which is what enters the first."""
    if wrong := [block for block in blocks if not -count - 1 <= block <= count]:
        raise BadConfig(f"blocks {wrong}: this {name} has 0 to {count}, or from its end -1 to {-count - 1}")
    return tuple(block % (count + 1) for block in blocks)


@contextlib.contextmanager
def _watched(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """What enters the first layer and what each layer gives, while a network runs."""
    seen: list[Tensor] = []

    def entered(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0])

    def left(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layers[0].register_forward_pre_hook(entered), *(layer.register_forward_hook(left) for layer in layers)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


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
