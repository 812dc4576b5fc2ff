"""The whole way as one network: raw 16 kHz waveform -> encoder -> model -> probabilities; and as one ONNX file."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.audio import SAMPLE_RATE
from affekt.batch import Batch, Stream
from affekt.bundle import Bundle
from affekt.config import decode_named
from affekt.errors import BadBundle, BadConfig
from affekt.extras import need
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


def export_onnx(pipeline: Pipeline, path: Path, emotions: Sequence[str]) -> None:
    """Write the pipeline as ONNX: `waveform` (batch, samples) in, `probabilities` (batch, emotions) out, any length.

    Streams that are given beside the waveform are inputs of their own: `text` (batch, frames, dim) and `text_mask`, say.
    Weights that are exact in 16 bits are stored in 16 bits and cast when the file is loaded; arithmetic is 32-bit.
    """
    onnx = need("onnx", extra="train", purpose="ONNX export")
    need("onnxscript", extra="train", purpose="ONNX export")
    pipeline = pipeline.eval()
    waveform = torch.zeros(2, 16_000).uniform_(-0.1, 0.1) if pipeline.heard else None
    given = _examples(pipeline)
    free = torch.export.Dim.DYNAMIC
    timed = {name: tensor.ndim == 3 or tensor.dtype == torch.bool for name, tensor in given.items()}
    shapes = {name: {0: free, 1: free} if timed[name] else {0: free} for name in given}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            pipeline,
            kwargs={"waveform": waveform, "given": given},
            dynamo=True,
            dynamic_shapes={"waveform": None if waveform is None else {0: free, 1: free}, "given": shapes},
            input_names=[*([] if waveform is None else ["waveform"]), *given],
            output_names=["probabilities"],
            opset_version=OPSET,
        )
    assert program is not None
    model = program.model_proto
    _store_half(model)
    _tidy(model)
    onnx.helper.set_model_props(model, {"emotions": ",".join(emotions), "sample_rate": str(SAMPLE_RATE)})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _examples(pipeline: Pipeline) -> dict[str, Tensor]:
    """What is given beside the waveform, for the exporter to follow: two utterances, the second shorter."""
    model, examples = pipeline.first, dict[str, Tensor]()
    for name in pipeline.given:
        dim, frames = model.dims[name], model.paper.frames[name] and 24
        examples[name] = torch.randn(2, frames, dim) if frames else torch.randn(2, dim)
        if frames:
            examples[f"{name}_mask"] = torch.arange(frames) < torch.tensor([[frames], [frames - 5]])
    return examples


def _store_half(model: Any) -> None:
    """Replace 32-bit initialisers that are exact in 16 bits by 16-bit ones and a cast."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 64:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + ".half"))
        casts.append(helper.make_node("Cast", [name + ".half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _tidy(model: Any) -> None:
    """Take off the exporter's notes (stack traces with paths, shapes in symbols of its own) and name the axes."""
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        for field in ("metadata_props", "doc_string"):
            if field in entry.DESCRIPTOR.fields_by_name:
                entry.ClearField(field)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        second = {"waveform": "samples"}.get(value.name, f"{value.name.removesuffix('_mask')}_frames")
        for dimension, name in zip(value.type.tensor_type.shape.dim, ("batch", second), strict=False):
            if dimension.dim_param:
                dimension.dim_param = name


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
