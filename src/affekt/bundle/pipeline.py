"""The whole way as one network: raw 16 kHz waveform -> encoder -> model -> probabilities; and as one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.bundle.folder import Bundle
from affekt.config import decode_named
from affekt.errors import BadBundle, BadConfig
from affekt.features import features
from affekt.features.base import Feature
from affekt.models import models
from affekt.models.base import EmotionModel

OPSET = 23  # the first with an Attention operator, which onnxruntime computes in less memory than its parts


class Pipeline(nn.Module):
    """Encoders that give a model its streams, and one or more models that take them; their probabilities are averaged.

    encoder: gives the stream speech; None for a model that takes none.
    others: stream -> what else is made of the waveform. A model's streams that no encoder gives, as that of the words, are
        given to it beside the waveform: `given` names them.
    temperature: divides the logits; fitted on utterances that nobody trained on, 1 where nothing was fitted.
    """

    temperature: Tensor

    def __init__(
        self,
        encoder: Feature | None,
        models: Sequence[EmotionModel],
        *,
        others: Mapping[str, Feature] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder, self.others, self.models = encoder, nn.ModuleDict(others), nn.ModuleList(models)
        self.given = tuple(name for name in self.first.streams if name not in self.heard)
        self.register_buffer("temperature", torch.tensor(temperature))

    @property
    def heard(self) -> dict[str, Feature]:
        """Stream -> the encoder that makes it of the waveform."""
        speech = {} if self.encoder is None else {"speech": self.encoder}
        return {**speech, **self.others}  # type: ignore[dict-item]

    @property
    def first(self) -> EmotionModel:
        """One of the models, which are alike but for their weights."""
        first = self.models[0]
        assert isinstance(first, EmotionModel)
        return first

    def forward(
        self, waveform: Float[Tensor, "batch samples"] | None = None, given: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "batch emotions"]:
        """Probabilities. All waveforms of the batch are as long as they stand: nothing is padding.

        given: by the stream's name its values, (batch, frames, dim) or (batch, dim), and by "NAME_mask" its mask where it
        has time, (batch, frames), True where there is a frame.
        """
        given = given or {}
        streams = {name: encoder(waveform) for name, encoder in self.heard.items()}
        streams |= {name: Stream(given[name], given.get(f"{name}_mask")) for name in self.given}
        batch = Batch(streams)
        return torch.stack([(model(batch) / self.temperature).softmax(dim=1) for model in self.models]).mean(dim=0)


def round_to_half(network: nn.Module) -> None:
    """Round every weight, in place, to the nearest 16-bit float: what a bundle stores, and so what must be scored."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())


def rebuild(bundle: Bundle) -> Pipeline:
    """The network of a bundle, from its config.toml and model.safetensors. Raises `BadBundle` where they do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = bundle.config
        heard = {
            stream: kind(settings)
            for stream, section in {"speech": config.get("encoder"), **config.get("streams", {})}.items()
            if section and stream != "text"
            for kind, settings in [decode_named(features, section, f"{bundle.folder}, {stream}")]
        }
        model_class, model_config = decode_named(models, config["model"], f"{bundle.folder}, model")
        members = [model_class(model_config, len(bundle.emotions)) for _ in range(config["members"])]
        pipeline = Pipeline(heard.pop("speech", None), members, others=heard)
        pipeline.load_state_dict(load_file(bundle.file("model.safetensors")))
    except (KeyError, RuntimeError, SafetensorError, BadConfig) as error:
        raise BadBundle(f"{bundle.folder}: model.safetensors and config.toml do not make a network: {error}") from error
    return pipeline.eval()


def save_weights(pipeline: Pipeline, path: Path) -> None:
    """Write the weights in 16 bits; `round_to_half` must have been applied, so that nothing is lost."""
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in pipeline.state_dict().items()}
    stored = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        if not torch.equal(tensor, stored[name].to(tensor.dtype)):
            raise BadBundle(f"{name} is not rounded to 16 bits: apply round_to_half before anything is scored")
    path.write_bytes(save(stored))  # save_file would make a file that its owner alone can read
