"""What a pipeline, or the ONNX file made of it, is given of an utterance: its waveform, and its words where it takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import Pipeline
from affekt.corpora.waveforms import read_waveform
from affekt.errors import BadCorpus
from affekt.features.base import Feature, TextFeature
from affekt.features.extract_text import NO_TEXT
from affekt.inference.onnx import Graph
from affekt.training.recipe import build_feature
from affekt.utterance import Utterance


def text_encoders(bundle: Bundle) -> dict[str, Feature]:
    """The encoders that a bundle's graph does not hold: of its words. They are found as when it was trained."""
    streams = bundle.config.get("streams", {})
    return {
        name: build_feature(streams[name], f"{bundle.folder}, streams.{name}") for name in streams if name == "text"
    }


def given(utterance: Utterance, input: bool, encoders: Mapping[str, Feature]) -> dict[str, NDArray[Any]]:
    """By the names of a graph's inputs: waveform (1, samples) where it `hears`, and of every encoder values and mask.

    Raises `BadCorpus` where the utterance lacks its sound or its words.
    """
    inputs: dict[str, NDArray[Any]] = {"waveform": read_waveform(utterance)[np.newaxis]} if input else {}
    for name, encoder in encoders.items():
        assert isinstance(encoder, TextFeature)
        if not utterance.text:
            raise BadCorpus(f"{utterance.corpus} {utterance.id}: {NO_TEXT}")
        with torch.inference_mode():
            values = encoder([utterance.text]).values.numpy()
        inputs |= {name: values, f"{name}_mask": np.ones(values.shape[:2], bool)}
    return inputs


def answered(bundle: Bundle, utterances: Sequence[Utterance]) -> NDArray[np.float64]:
    """The ONNX file's probabilities, (utterances, emotions)."""
    graph, encoders = Graph.load(bundle), text_encoders(bundle)
    input = "waveform" in graph.inputs
    return np.array([graph(given(one, input, encoders))[0] for one in utterances], np.float64)


def predict_torch(
    pipeline: Pipeline, encoders: Mapping[str, Feature], utterances: Sequence[Utterance]
) -> NDArray[np.float64]:
    """Torch's probabilities, (utterances, emotions), one by one. encoders: of the streams that it is given."""
    answers = []
    for utterance in utterances:
        tensors = {name: torch.from_numpy(x) for name, x in given(utterance, bool(pipeline.heard), encoders).items()}
        with torch.inference_mode():
            answers.append(pipeline(tensors.pop("waveform", None), tensors)[0].double().numpy())
    return np.array(answers)
