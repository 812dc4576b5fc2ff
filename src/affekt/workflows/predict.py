"""Predict utterances with a pipeline or its ONNX file, from their waveforms and, if the model needs it, their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import Pipeline
from affekt.bundle.text_encoders import encode_text, load_text_encoders
from affekt.corpora.waveforms import read_waveform
from affekt.errors import BadCorpus
from affekt.features.base import Feature
from affekt.features.extract_text import NO_TEXT
from affekt.inference.onnx import Graph
from affekt.inference.profile import Profile
from affekt.inference.recognizer import Recognizer
from affekt.utterance import Utterance


def model_inputs(utterance: Utterance, takes_audio: bool, encoders: Mapping[str, Feature]) -> dict[str, NDArray[Any]]:
    """Return the inputs of a pipeline or graph by name: `waveform` (1, samples), and each text stream's values and mask.

    Raises:
        BadCorpus: The utterance has no text, or its audio cannot be read, and the model needs it.
    """
    inputs: dict[str, NDArray[Any]] = {"waveform": read_waveform(utterance)[np.newaxis]} if takes_audio else {}
    if encoders and not utterance.text:
        raise BadCorpus(f"{utterance.corpus} {utterance.id}: {NO_TEXT}")
    return inputs | encode_text(encoders, utterance.text)


def predict_onnx(
    bundle: Bundle, utterances: Sequence[Utterance], profile: Profile | None = None
) -> NDArray[np.float64]:
    """Return the probabilities of a bundle's ONNX file, (utterances, emotions); zeros if it finds no speech.

    A model that needs the waveform alone is used as in recognition: an utterance of over 8 s is divided into windows.

    Args:
        bundle: The bundle.
        utterances: The utterances.
        profile: The profile to apply, if any.
    """
    graph = Graph.load(bundle, profile=profile)
    if graph.inputs == ("waveform",):
        recognizer = Recognizer(graph)
        return np.array([recognizer.predict(read_waveform(utterance)) for utterance in utterances], np.float64)
    encoders = load_text_encoders(bundle)
    takes_audio = "waveform" in graph.inputs
    return np.array([graph(model_inputs(u, takes_audio, encoders))[0] for u in utterances], np.float64)


def predict_torch(
    pipeline: Pipeline, encoders: Mapping[str, Feature], utterances: Sequence[Utterance]
) -> NDArray[np.float64]:
    """Return the probabilities of a pipeline, (utterances, emotions); utterances are predicted one by one.

    Args:
        pipeline: The pipeline.
        encoders: The encoders of the text streams, which are inputs of the pipeline.
        utterances: The utterances.
    """
    probabilities = []
    for utterance in utterances:
        inputs = model_inputs(utterance, bool(pipeline.features), encoders)
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        with torch.inference_mode():
            probabilities.append(pipeline(tensors.pop("waveform", None), tensors)[0].double().numpy())
    return np.array(probabilities)
