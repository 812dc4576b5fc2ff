"""The first wav2vec (Schneider et al., 2019): an encoder and an aggregator, both convolutional, over the waveform.

The encoder computes a latent frame from 465 samples (29 ms) every 10 ms; the aggregator computes a context frame from a
latent frame and the 78 before it (0.81 s in the large network, which is the default). The implementation is our own, with
fairseq's parameter names; `affekt convert` converts fairseq's checkpoints. The waveform is not normalized.

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
Layers = tuple[tuple[int, int, int], ...]  # number of features, kernel size and stride of each layer


@dataclass(frozen=True)
class Wav2VecArchitecture:
    """The architecture of a network; by default wav2vec large."""

    encoder: Layers = ((512, 10, 5), (512, 8, 4), (512, 4, 2), (512, 4, 2), (512, 4, 2), (512, 1, 1), (512, 1, 1))
    aggregator: Layers = tuple((512, kernel, 1) for kernel in range(2, 14))
    skips: bool = True
    """If true, each layer of the aggregator has a skip connection."""
    residual_scale: float = 0.5
    """The sum of a layer and its skip connection is multiplied by the square root of this."""
    log_compression: bool = True
    """If true, the latent frames are log(1 + |x|)."""
    activation: Literal["relu", "gelu"] = "relu"
    bias: bool = True
    """If true, the aggregator's convolutions have a bias. Those of the encoder have none."""
    affine: bool = True
    """If true, the norms have learned weights."""
    zero_padding: bool = False
    """If true, the aggregator pads with zeros instead of repeating the first frame."""

    def __post_init__(self) -> None:
        if not self.encoder or any(stride != 1 for _, _, stride in self.aggregator):
            raise BadConfig("a wav2vec needs at least one encoder layer, and an aggregator of stride 1")


@dataclass(frozen=True)
class Wav2VecConfig:
    """The settings of wav2vec."""

    output: Literal["context", "latent"] = "context"
    """The output: "context", the aggregator's (c in the paper), or "latent", the encoder's (z)."""
    architecture: Wav2VecArchitecture = field(default_factory=Wav2VecArchitecture)
    """The checkpoint's config.json; set when it is loaded."""


class Wav2Vec(Feature):
    """Context or latent frames. Norms are computed over all features and frames of an utterance, without its padding."""

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
        """Load config.json and model.safetensors, which `affekt convert` writes from fairseq's checkpoint.

        Raises `BadConfig` if they are missing, incomplete, or of another network.
        """
        if folder is None:
            raise BadConfig("wav2vec needs folder, to which affekt convert wrote model.safetensors and config.json")
        network = cls(replace(config, architecture=_read_architecture(folder / "config.json")))
        tensors = _read_tensors(folder / "model.safetensors")
        if missing := sorted(network.state_dict().keys() - tensors.keys()):
            raise BadConfig(f"{folder} lacks {len(missing)} weights of a wav2vec, first {missing[0]}")
        try:
            # The other tensors belong to the training objective, or to the aggregator if only latent frames are computed.
            network.load_state_dict({name: tensors[name] for name in network.state_dict()})
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise BadConfig(f"{folder}: config.json does not match the weights: {reason}") from error
        return network.eval().requires_grad_(False)

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the frames; `lengths` in samples if the waveforms are padded (with zeros)."""
        values = self.feature_extractor(waveform, lengths)
        mask = None if lengths is None else frame_mask(self.num_frames(lengths), values.shape[2])
        if self.feature_aggregator is not None:
            values = self.feature_aggregator(values, mask)
        values = values.transpose(1, 2)
        return Stream(values if mask is None else values * mask.unsqueeze(2), mask, self.frame_rate)

    def num_frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Return the number of frames of waveforms: `(samples - 465) // 160 + 1` for the published networks."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = _conv_length(lengths, kernel, stride)
        return lengths


class Extractor(nn.Module):
    """The encoder, from the waveform to latent frames."""

    def __init__(self, architecture: Wav2VecArchitecture) -> None:
        super().__init__()
        self.log_compression, self.shapes = architecture.log_compression, architecture.encoder
        inputs = [1, *(features for features, _, _ in architecture.encoder)]
        self.conv_layers = nn.ModuleList(
            Layer(
                nn.Conv1d(input_dim, features, kernel, stride, bias=False),
                *_norm_and_activation(features, architecture),
            )
            for input_dim, (features, kernel, stride) in zip(inputs, self.shapes, strict=False)
        )

    def forward(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch dim frames"]:
        values, mask = waveform.unsqueeze(1), None
        for layer, (_, kernel, stride) in zip(self.conv_layers, self.shapes, strict=True):
            if lengths is not None:
                lengths = _conv_length(lengths, kernel, stride)
                mask = frame_mask(lengths, _conv_length(values.shape[2], kernel, stride))
            values = layer(values, mask)
        return values.abs().log1p() if self.log_compression else values


class Aggregator(nn.Module):
    """The aggregator, from latent frames to context frames. It is causal."""

    def __init__(self, architecture: Wav2VecArchitecture) -> None:
        super().__init__()
        self.skips, self.scale = architecture.skips, architecture.residual_scale**0.5
        input_dim = architecture.encoder[-1][0]
        self.conv_layers, self.residual_proj = nn.ModuleList(), nn.ModuleList()
        for features, kernel, _ in architecture.aggregator:
            past = (kernel - 1, 0)  # padding on the left only, so the network is causal
            padding = nn.ConstantPad1d(past, 0.0) if architecture.zero_padding else nn.ReplicationPad1d(past)
            convolution = nn.Conv1d(input_dim, features, kernel, bias=architecture.bias)
            self.conv_layers.append(Layer(padding, convolution, *_norm_and_activation(features, architecture)))
            needs_projection = self.skips and input_dim != features
            projection = nn.Conv1d(input_dim, features, 1, bias=False) if needs_projection else nn.Identity()
            self.residual_proj.append(projection)
            input_dim = features

    def forward(
        self, values: Float[Tensor, "batch dim frames"], mask: Bool[Tensor, "batch frames"] | None
    ) -> Float[Tensor, "batch out frames"]:
        for layer, project in zip(self.conv_layers, self.residual_proj, strict=True):
            output = layer(values, mask)
            values = (output + project(values)) * self.scale if self.skips else output
        return values


class Layer(nn.Sequential):
    """A convolution with norm and activation. `mask` marks the valid output frames; only the norm uses it."""

    def forward(self, values: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        for module in self:
            values = module(values, mask) if isinstance(module, Norm) else module(values)
        return values


class Norm(nn.Module):
    """A group norm with a single group: normalization over all features and all frames without padding together."""

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
        centered = values - (values * real).sum(dim=(1, 2), keepdim=True) / count
        variance = (centered.square() * real).sum(dim=(1, 2), keepdim=True) / count
        values = centered * (variance + EPSILON).rsqrt()
        return values if self.weight is None else values * self.weight[:, None] + self.bias[:, None]  # type: ignore[index]


def _norm_and_activation(features: int, architecture: Wav2VecArchitecture) -> tuple[nn.Module, ...]:
    """Return the modules after a convolution. The identity takes the place of fairseq's dropout, so that names match."""
    activation = nn.ReLU() if architecture.activation == "relu" else nn.GELU()
    return nn.Identity(), Norm(features, architecture.affine), activation


def _conv_length(count: Any, kernel: int, stride: int) -> Any:
    """Return the number of frames after a convolution without padding."""
    return (count - kernel) // stride + 1


def _read_architecture(path: Path) -> Wav2VecArchitecture:
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise BadConfig(
            f"{path} cannot be read ({error}); create it: "
            f"affekt convert wav2vec_large.pt {path.with_name('model.safetensors')}"
        ) from error
    if stored.pop("model_type", None) != MODEL_TYPE:
        raise BadConfig(f"{path} does not describe a wav2vec: set folder to one that affekt convert wrote")
    return decode(Wav2VecArchitecture, stored, str(path))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise BadConfig(f"{path} cannot be read: {error}") from error


def build_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.json from fairseq's training arguments. Raises `BadConfig` for another network.

    An argument that did not exist in an old version of fairseq gets the value that this version used.
    """
    known = {"aggregator": "cnn", "vq_type": "none", "skip_connections_feat": False, **arguments}
    required = ("conv_feature_layers", "conv_aggregator_layers", "skip_connections_agg", "log_compression")
    if missing := [name for name in required if name not in known]:
        raise BadConfig(f"the checkpoint's arguments lack {', '.join(missing)}: it is not fairseq's wav2vec")
    if known["aggregator"] != "cnn" or known["vq_type"] not in ("none", None) or known["skip_connections_feat"]:
        raise BadConfig(
            "this wav2vec has an aggregator that is not convolutional, a quantizer (vq-wav2vec) or "
            "skip connections in its encoder: expected one such as wav2vec_large.pt"
        )
    architecture = {
        "encoder": _parse_layers(known["conv_feature_layers"]),
        "aggregator": _parse_layers(known["conv_aggregator_layers"]),
        "skips": bool(known["skip_connections_agg"]),
        "residual_scale": float(known.get("residual_scale", 0.5)),
        "log_compression": bool(known["log_compression"]),
        "activation": known.get("activation", "relu"),
        "bias": not known.get("no_conv_bias", False),
        "affine": not known.get("non_affine_group_norm", False),
        "zero_padding": bool(known.get("agg_zero_pad", False)),
    }
    return {"model_type": MODEL_TYPE, **encode(decode(Wav2VecArchitecture, architecture, "the checkpoint's arguments"))}


def _parse_layers(text: str) -> list[list[int]]:
    """Parse fairseq's layers, a Python literal such as "[(512, 10, 5), ...]", which is not executed."""
    try:
        return [[int(number) for number in layer] for layer in ast.literal_eval(text)]
    except (ValueError, SyntaxError, TypeError):
        raise BadConfig(f"{text!r}: expected layers such as [(512, 10, 5), ...]") from None
