"""The worker process that computes the features of a manifest's files: it loads an encoder once, then answers requests.

Messages from the parent: first the recipe, the stream and the device; then requests with a file, its segments and a folder
for the features. Messages to the parent, by their keys: `ready`, with the hash of the weights; `log`; `error`; and for each
request `results`, with the file of the features, or an error, for each segment.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE
from affekt.audio.streams import local_copy
from affekt.audio.time_limit import decoders_are_abandoned
from affekt.config import decode
from affekt.corpora.waveforms import read_waveforms
from affekt.errors import AffektError, BadAudio
from affekt.features.base import Feature
from affekt.features.extract import check_device, compute_features, on_device, weights_hash
from affekt.features.store import to_16_bits
from affekt.processes import Message, Parent, SendingHandler
from affekt.training.plan import resolve
from affekt.training.recipe import Recipe
from affekt.utterance import Utterance

ENTRY = f"{__name__}:work"


def work() -> None:
    """Answer the requests of the parent process; the main function of a worker."""
    parent = Parent()
    setup = parent.receive()
    logger = logging.getLogger("affekt")
    logger.setLevel(setup["log"])
    logger.propagate = False
    logger.addHandler(SendingHandler(parent))
    try:
        feature = _load(setup)
        with on_device(feature, setup["device"]):
            parent.send({"ready": weights_hash(feature)})
            for number in itertools.count():
                results = list(_compute(feature, setup["device"], number, **parent.receive()))
                ends = decoders_are_abandoned()
                parent.send({"results": results, "ends": ends})
                if ends:
                    return
    except AffektError as error:
        parent.send({"error": str(error), "kind": type(error).__name__, "code": error.code})


def _load(setup: Mapping[str, Any]) -> Feature:
    if setup["models"]:
        os.environ.setdefault("AFFEKT_MODELS", setup["models"])
    torch.set_num_threads(setup["threads"])
    torch.use_deterministic_algorithms(True)
    check_device(setup["device"])
    plan = resolve(decode(Recipe, json.loads(setup["recipe"]), "recipe"))
    return plan.frozen_features[setup["stream"]]


def _compute(
    feature: Feature, device: str, number: int, *, path: str, segments: list[tuple[float, float | None]], folder: str
) -> Iterator[Message]:
    """Yield the result of each segment of a file, in the order of the segments.

    Args:
        feature: The encoder.
        device: The device of the encoder.
        number: The number of the request.
        path: The file or its URL.
        segments: Start and end of each segment in seconds; None for the end of the file.
        folder: The folder in which the features are stored, as PROCESS-NUMBER-SEGMENT.npy.
    """
    results: dict[int, Message] = {}
    try:
        with local_copy(path) as copy:
            utterances = {
                index: Utterance("", "", copy, "", start=start, end=end) for index, (start, end) in enumerate(segments)
            }
            for index, waveform in read_waveforms(utterances):
                if isinstance(waveform, BadAudio):
                    message = str(waveform).replace(str(copy), path)
                    results[index] = {"error": {"code": waveform.code, "message": message}}
                    continue
                (values,) = compute_features(feature, [waveform], device)
                end = segments[index][0] + waveform.size / SAMPLE_RATE
                stored = Path(folder, f"{os.getpid()}-{number}-{index}.npy")
                results[index] = _store(stored, values, path) | {"end": round(end, 4)}
    except AffektError as error:
        results = {index: {"error": {"code": error.code, "message": str(error)}} for index in range(len(segments))}
    yield from (results[index] for index in range(len(segments)))


def _store(path: Path, values: NDArray[np.floating], name: str) -> Message:
    try:
        np.save(path, to_16_bits(np.atleast_2d(values)), allow_pickle=False)
    except AffektError as error:
        return {"error": {"code": error.code, "message": f"{name}: {error}"}}
    return {"features": str(path)}
