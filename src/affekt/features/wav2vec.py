"""wav2vec, the first of the name (Schneider et al., 2019): convolutions over the waveform, and more of them over theirs.

The encoder makes a latent frame of 465 samples (29 ms) every 10 ms; the aggregator makes a context frame of a latent frame
and the 78 before it (0.81 s in the large network, which is the default). The network is our own, with fairseq's names for
its parameters; `affekt convert` reads fairseq's checkpoints. The waveform goes in as it is, without normalisation.

wav2vec 2.0 is another network: `affekt.features.speech`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from affekt.audio.read import SAMPLE_RATE
from affekt.batch import Stream, frame_mask
from affekt.config import decode, encode
from affekt.errors import BadConfig
from affekt.features.base import Feature

MODEL_TYPE = "wav2vec"
EPSILON = 1e-5  # of the norms
Layers = tuple[tuple[int, int, int], ...]  # features, kernel and stride of each


@dataclass(frozen=True)
class Architecture:
    """What a network is built of; by default wav2vec large."""

    encoder: Layers = ((512, 10, 5), (512, 8, 4), (512, 4, 2), (512, 4, 2), (512, 4, 2), (512, 1, 1), (512, 1, 1))
    aggregator: Layers = tuple((512, kernel, 1) for kernel in range(2, 14))
    skips: bool = True  # whether each layer of the aggregator adds what enters it
    residual_scale: float = 0.5  # and the square of what the sum is multiplied with
    log_compression: bool = True  # whether the latent frames are log(1 + |x|)
    activation: Literal["relu", "gelu"] = "relu"
    bias: bool = True  # of the aggregator's convolutions; the encoder's have none
    affine: bool = True  # whether the norms have weights
    zero_padding: bool = False  # before the first frame zeros, in place of the first frame again

    def __post_init__(self) -> None:
        if not self.encoder or any(stride != 1 for _, _, stride in self.aggregator):
            raise BadConfig("a wav2vec has at least one layer of encoder, and an aggregator of stride 1")


@dataclass(frozen=True)
class Wav2VecConfig:
    # "context": what the aggregator gives, the c of the paper. "latent": what the encoder gives, its z.
    output: Literal["context", "latent"] = "context"
    architecture: Architecture = field(
        default_factory=Architecture
    )  # the checkpoint's config.json; filled in on reading


class Wav2Vec(Feature):
    """Context or latent frames. A norm runs over all features and all frames of an utterance, those of its padding not."""

    Config = Wav2VecConfig
    sample_rate = SAMPLE_RATE
    frame_rate = 100.0

    def __init__(self, config: Wav2VecConfig) -> None:
        super().__init__()
        self.config = config
        architecture = config.architecture
        self.kernels = [kernel for _, kernel, _ in architecture.encoder]
        self.strides = [stride for _, _, stride in architecture.encoder]
        self.frame_rate = SAMPLE_RATE / prod(self.strides)
        self.feature_extractor = Extractor(architecture)
        self.feature_aggregator = Aggregator(architecture) if config.output == "context" else None
        layers = architecture.aggregator if config.output == "context" else ()
        self.dim = (architecture.encoder + layers)[-1][0]

    @classmethod
    def from_folder(cls, folder: Path | None, config: Wav2VecConfig) -> Wav2Vec:
        """Read config.json and model.safetensors as `affekt convert` writes them of fairseq's checkpoint.

        Raises `BadConfig` where they are not there, are another network's, or lack weights.
        """
        if folder is None:
            raise BadConfig("wav2vec needs folder, where affekt convert wrote model.safetensors and config.json")
        network = cls(replace(config, architecture=_architecture(folder / "config.json")))
        tensors = _tensors(folder / "model.safetensors")
        if missing := sorted(network.state_dict().keys() - tensors.keys()):
            raise BadConfig(f"{folder} lacks {len(missing)} weights of a wav2vec, first {missing[0]}")
        try:
            # What is left over predicts the future in training, or aggregates where only latent frames are asked for.
            network.load_state_dict({name: tensors[name] for name in network.state_dict()})
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise BadConfig(f"{folder}: its config.json is not of its weights: {reason}") from error
        return network.eval().requires_grad_(False)

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """`lengths` in samples, where the waveforms are padded (with zeros); frames: see `frames`."""
        values = self.feature_extractor(waveform, lengths)
        mask = None if lengths is None else frame_mask(self.frames(lengths), values.shape[2])
        if self.feature_aggregator is not None:
            values = self.feature_aggregator(values, mask)
        values = values.transpose(1, 2)
        return Stream(values if mask is None else values * mask.unsqueeze(2), mask, self.frame_rate)

    def frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Frames of waveforms of so many samples: `(samples - 465) // 160 + 1` of the published networks."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = _left(lengths, kernel, stride)
        return lengths


class Extractor(nn.Module):
    """The encoder: from the waveform to latent frames."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.log_compression, self.shapes = architecture.log_compression, architecture.encoder
        entering = [1, *(features for features, _, _ in architecture.encoder)]
        self.conv_layers = nn.ModuleList(
            Layer(nn.Conv1d(before, features, kernel, stride, bias=False), *_end(features, architecture))
            for before, (features, kernel, stride) in zip(entering, self.shapes, strict=False)
        )

    def forward(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch dim frames"]:
        values, mask = waveform.unsqueeze(1), None
        for layer, (_, kernel, stride) in zip(self.conv_layers, self.shapes, strict=True):
            if lengths is not None:
                lengths = _left(lengths, kernel, stride)
                mask = frame_mask(lengths, _left(values.shape[2], kernel, stride))
            values = layer(values, mask)
        return values.abs().log1p() if self.log_compression else values


class Aggregator(nn.Module):
    """From latent frames to context frames, each of what came before it alone."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.skips, self.scale = architecture.skips, architecture.residual_scale**0.5
        before = architecture.encoder[-1][0]
        self.conv_layers, self.residual_proj = nn.ModuleList(), nn.ModuleList()
        for features, kernel, _ in architecture.aggregator:
            past = (kernel - 1, 0)  # padded on the left alone: no frame hears the future
            padded = nn.ConstantPad1d(past, 0.0) if architecture.zero_padding else nn.ReplicationPad1d(past)
            convolution = nn.Conv1d(before, features, kernel, bias=architecture.bias)
            self.conv_layers.append(Layer(padded, convolution, *_end(features, architecture)))
            projected = self.skips and before != features
            self.residual_proj.append(nn.Conv1d(before, features, 1, bias=False) if projected else nn.Identity())
            before = features

    def forward(
        self, values: Float[Tensor, "batch dim frames"], mask: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch out frames"]:
        for layer, project in zip(self.conv_layers, self.residual_proj, strict=True):
            after = layer(values, mask)
            values = (after + project(values)) * self.scale if self.skips else after
        return values


class Layer(nn.Sequential):
    """A convolution and what follows it; the mask, of the frames that it gives, is for its norm."""

    def forward(self, values: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        for module in self:
            values = module(values, mask) if isinstance(module, Norm) else module(values)
        return values


class Norm(nn.Module):
    """A group norm of one group, over features and frames together, of the frames that the mask keeps."""

    def __init__(self, features: int, affine: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None

    def forward(
        self, values: Float[Tensor, "batch dim frames"], mask: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch dim frames"]:
        if mask is None:
            return nn.functional.group_norm(values, 1, self.weight, self.bias, EPSILON)
        real = mask.unsqueeze(1).to(values.dtype)
        count = real.sum(dim=(1, 2), keepdim=True) * values.shape[1]
        centred = values - (values * real).sum(dim=(1, 2), keepdim=True) / count
        variance = (centred.square() * real).sum(dim=(1, 2), keepdim=True) / count
        values = centred * (variance + EPSILON).rsqrt()
        return values if self.weight is None else values * self.weight[:, None] + self.bias[:, None]  # type: ignore[index]


def _end(features: int, architecture: Architecture) -> tuple[nn.Module, ...]:
    """What follows a convolution; the first stands where fairseq has a dropout, so that names agree."""
    activation = nn.ReLU() if architecture.activation == "relu" else nn.GELU()
    return nn.Identity(), Norm(features, architecture.affine), activation


def _left(count: Any, kernel: int, stride: int) -> Any:
    """Frames that a convolution leaves of so many."""
    return (count - kernel) // stride + 1


def _architecture(place: Path) -> Architecture:
    try:
        stored = msgspec.json.decode(place.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise BadConfig(
            f"{place} cannot be read ({error}): affekt convert wav2vec_large.pt {place.with_name('model.safetensors')}"
        ) from error
    if stored.pop("model_type", None) != MODEL_TYPE:
        raise BadConfig(f"{place} is not of a wav2vec: give the folder that affekt convert wrote one to")
    return decode(Architecture, stored, str(place))


def _tensors(place: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return {name: tensor.float() for name, tensor in load_file(place).items()}
    except (OSError, SafetensorError) as error:
        raise BadConfig(f"{place} cannot be read: {error}") from error


def settings_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, from the arguments that fairseq trained a wav2vec with. Raises `BadConfig` for what is none.

    What an old checkpoint does not say yet has the value that it then always had.
    """
    known = {"aggregator": "cnn", "vq_type": "none", "skip_connections_feat": False, **arguments}
    needed = ("conv_feature_layers", "conv_aggregator_layers", "skip_connections_agg", "log_compression")
    if missing := [name for name in needed if name not in known]:
        raise BadConfig(f"the checkpoint's arguments lack {', '.join(missing)}: it is no wav2vec of fairseq's")
    if known["aggregator"] != "cnn" or known["vq_type"] not in ("none", None) or known["skip_connections_feat"]:
        raise BadConfig(
            "this wav2vec has an aggregator that is not convolutional, a quantizer (vq-wav2vec) or skips in its encoder: "
            "expected one such as wav2vec_large.pt"
        )
    architecture = {
        "encoder": _layers(known["conv_feature_layers"]),
        "aggregator": _layers(known["conv_aggregator_layers"]),
        "skips": bool(known["skip_connections_agg"]),
        "residual_scale": float(known.get("residual_scale", 0.5)),
        "log_compression": bool(known["log_compression"]),
        "activation": known.get("activation", "relu"),
        "bias": not known.get("no_conv_bias", False),
        "affine": not known.get("non_affine_group_norm", False),
        "zero_padding": bool(known.get("agg_zero_pad", False)),
    }
    return {"model_type": MODEL_TYPE, **encode(decode(Architecture, architecture, "the checkpoint's arguments"))}


def _layers(text: str) -> list[list[int]]:
    """fairseq keeps layers as Python text, "[(512, 10, 5), ...]", which is read here, not run."""
    try:
        return [[int(number) for number in layer] for layer in ast.literal_eval(text)]
    except (ValueError, SyntaxError, TypeError):
        raise BadConfig(f"{text!r}: expected layers as [(512, 10, 5), ...]") from None
