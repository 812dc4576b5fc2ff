"""The whole pipeline as one network: 16 kHz waveform -> features -> model -> probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.bundle.adaptation import Adaptation
from affekt.bundle.detector import SpeechDetector
from affekt.bundle.folder import SPEECH_PROBABILITY, Bundle
from affekt.config import decode_named
from affekt.errors import BadBundle, BadConfig
from affekt.features import features
from affekt.features.base import Feature
from affekt.models import models
from affekt.models.base import EmotionModel


class Pipeline(nn.Module):
    """The features that provide a model's streams, and one or more models whose probabilities are averaged.

    In the state dict, the feature of the stream "speech" is named `encoder`, that of another stream `others.STREAM`.

    Args:
        features: Stream -> the feature that computes it from the waveform. The model's other streams, such as text, are
            further inputs of the network; their names are in the attribute `inputs`.
        models: The models, which differ only in their weights.
        temperature: Divides the logits; 1 if it was not fitted.
    """

    temperature: Tensor

    def __init__(
        self, features: Mapping[str, Feature], models: Sequence[EmotionModel], *, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder = features.get("speech")
        self.others = nn.ModuleDict({stream: feature for stream, feature in features.items() if stream != "speech"})
        self.models = nn.ModuleList(models)
        self.inputs = tuple(stream for stream in self.first.streams if stream not in self.features)
        self.adaptations = nn.ModuleDict()
        self.detector: SpeechDetector | None = None
        self.register_buffer("temperature", torch.tensor(temperature))

    @property
    def features(self) -> dict[str, Feature]:
        """Stream -> the feature that computes it from the waveform."""
        speech = {} if self.encoder is None else {"speech": self.encoder}
        return {**speech, **self.others}  # type: ignore[dict-item]

    @property
    def first(self) -> EmotionModel:
        """The first model."""
        first = self.models[0]
        assert isinstance(first, EmotionModel)
        return first

    def make_adaptable(self, reference: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Make streams adaptable (`affekt.bundle.adaptation`).

        Args:
            reference: Stream -> the training utterances' average mean over time and log standard deviation, (dim,) each. The
                streams are computed by features with a time axis.
        """
        for stream, (mean, log_std) in reference.items():
            self.adaptations[stream] = Adaptation(len(mean))
            self.adaptations[stream].load_state_dict({"mean": mean, "log_std": log_std})

    def set_detector(self, detector: SpeechDetector) -> None:
        """Add a speech detector, whose input is the stream "speech"."""
        self.detector = detector.eval()

    def forward(
        self, waveform: Float[Tensor, "batch samples"] | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "batch emotions"]:
        """Return probabilities, without an adaptation; arguments as for `outputs`."""
        return self.outputs(waveform, inputs)["probabilities"]

    def outputs(
        self,
        waveform: Float[Tensor, "batch samples"] | None = None,
        inputs: Mapping[str, Tensor] | None = None,
        adaptation: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return all outputs by name.

        These are `probabilities` (batch, emotions), the statistics of each adaptable stream, and, if there is a detector,
        `speech_probability` (batch,): the probability that the recording contains speech, which does not depend on the
        adaptation.

        The statistics are `STREAM_mean` and `STREAM_log_std`, (batch, dim): by how much the mean over time of the unadapted
        stream, and the logarithm of its standard deviation, exceed those of the training utterances.

        Args:
            waveform: Waveforms of the same length, without padding; None for a pipeline without features.
            inputs: The streams in the attribute `inputs`: for each, its values, (batch, frames, dim) or (batch, dim), under
                its name and, if it has a time axis, its mask, (batch, frames), True for frames, under "NAME_mask".
            adaptation: Tensors with the names and sizes of `neutral_adaptation`, which is the default.
        """
        inputs, adaptation = inputs or {}, adaptation or self.neutral_adaptation()
        streams = {name: feature(waveform) for name, feature in self.features.items()}
        streams |= {name: Stream(inputs[name], inputs.get(f"{name}_mask")) for name in self.inputs}
        statistics = {} if self.detector is None else {SPEECH_PROBABILITY: self.detector(streams["speech"])}
        for name, module in self.adaptations.items():
            assert isinstance(module, Adaptation)
            statistics[f"{name}_mean"], statistics[f"{name}_log_std"] = module.compare(streams[name])
            offset, log_scale = adaptation[f"{name}_offset"], adaptation[f"{name}_log_scale"]
            streams[name] = module(streams[name], offset, log_scale)
        batch = Batch(streams)
        probabilities = torch.stack([(model(batch) / self.temperature).softmax(dim=1) for model in self.models])
        weighted = probabilities.mean(dim=0) * adaptation["class_bias"].exp()
        return {"probabilities": weighted / weighted.sum(dim=1, keepdim=True), **statistics}

    def neutral_adaptation(self) -> dict[str, Tensor]:
        """Return the adaptation that changes nothing: zeros.

        `STREAM_offset` and `STREAM_log_scale`, (dim,), are those of a stream (`Adaptation`); probabilities are multiplied by
        the exponential of `class_bias`, (emotions,), and normalized.
        """
        zeros = {"class_bias": torch.zeros(self.first.num_emotions)}
        for name, module in self.adaptations.items():
            assert isinstance(module, Adaptation)
            zeros |= {f"{name}_{part}": torch.zeros_like(module.mean) for part in ("offset", "log_scale")}
        return zeros


def round_to_half(network: nn.Module) -> None:
    """Round every weight in place to the nearest 16-bit float. A bundle stores 16 bits, and must be scored with them."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())


def rebuild(bundle: Bundle) -> Pipeline:
    """Rebuild the network of a bundle from its config.toml and model.safetensors.

    Raises:
        BadBundle: A file is missing, or the two do not fit together.
    """
    from safetensors.torch import load_file

    config, weights = bundle.config, bundle.file("model.safetensors")
    try:
        _check_size(config, len(bundle.emotions), weights)
        pipeline, tensors = _build(config, len(bundle.emotions)), load_file(weights)
        # Bundles of earlier versions have no statistics of the training utterances.
        pipeline.make_adaptable(
            {
                stream: (tensors[f"adaptations.{stream}.mean"], tensors[f"adaptations.{stream}.log_std"])
                for stream in pipeline.features
                if f"adaptations.{stream}.mean" in tensors
            }
        )
        pipeline.load_state_dict(tensors)
    except Exception as error:  # a model's settings may have any value, and libraries raise errors of many classes
        raise BadBundle(f"{bundle.folder}: model.safetensors and config.toml do not fit together: {error}") from error
    return pipeline.eval()


def _build(config: Mapping[str, Any], classes: int) -> Pipeline:
    """Build the network that config.toml describes, with random weights."""
    built = {
        stream: kind(settings)
        for stream, section in config.get("features", {}).items()
        for kind, settings in [_decode_feature(section, f"features.{stream}")]
        if kind.input == "audio"
    }
    model_class, model_config = decode_named(models, config["model"], "model")
    pipeline = Pipeline(built, [model_class(model_config, classes) for _ in range(config["members"])])
    if "detector" in config:
        pipeline.set_detector(SpeechDetector(built["speech"].dim, config["detector"].get("hidden", 0)))
    return pipeline


def _check_size(config: Mapping[str, Any], classes: int, weights: Path) -> None:
    """Raise `BadConfig` if a network has more weights than its file, before memory is allocated for them."""
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        pipeline = _build({**config, "members": 1}, classes)
    member = sum(tensor.numel() for tensor in pipeline.first.state_dict().values())
    total = sum(tensor.numel() for tensor in pipeline.state_dict().values())
    count = total + member * (config["members"] - 1)
    if 2 * count > weights.stat().st_size:
        raise BadConfig(f"the network has {count} weights, but {weights.name} is too small for them")


def _decode_feature(section: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    """Return a feature's class and settings; `folder`, which the section of a text encoder has, is not a setting."""
    return decode_named(features, {key: value for key, value in section.items() if key != "folder"}, where)


def save_weights(pipeline: Pipeline, path: Path) -> None:
    """Write the weights in 16 bits. Raises `BadBundle` if `round_to_half` was not applied, so that nothing is lost."""
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in pipeline.state_dict().items()}
    stored = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        if not torch.equal(tensor, stored[name].to(tensor.dtype)):
            raise BadBundle(f"{name} is not rounded to 16 bits: call round_to_half before the network is scored")
    path.write_bytes(save(stored))  # `save_file` would write a file that only its owner can read
