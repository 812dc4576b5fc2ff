"""Write what a bundle knows about its own limits: predictions for its test subset, and statistics of its training corpora.

Both files can be added to a bundle at any time, since they do not belong to what determines its id.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import FAMILIARITY, PREDICTIONS, Bundle
from affekt.bundle.predictions import LabeledPredictions
from affekt.corpora.waveforms import read_waveforms
from affekt.errors import BadAudio
from affekt.files import atomic_write
from affekt.inference.familiarity import MIN_CLIPS, fit_corpus
from affekt.inference.onnx import Graph
from affekt.protocols import Split, utterance_key
from affekt.utterance import Utterance
from affekt.workflows.predict import predict_onnx
from affekt.workflows.training_data import TrainingData

logger = logging.getLogger(__name__)

SAMPLE = 1000
"""Maximum number of training utterances of a corpus, evenly spaced, from which statistics are computed."""


def record_confidence(bundle: Bundle, data: TrainingData, split: Split, known: Collection[str]) -> NDArray[np.float64]:
    """Write predictions.json and familiarity.npy, and return the probabilities of the test subset, (utterances, emotions).

    Args:
        bundle: The bundle, with its ONNX file.
        data: The utterances of its corpora.
        split: The split that it was trained on.
        known: Keys of test utterances on which the model was trained that this one was fine-tuned from; they are left out.
    """
    keys = split.subsets["test"]
    utterances = data.select(keys)
    logger.info("recognizing the %d utterances of the test subset", len(utterances))
    probabilities = predict_onnx(bundle, utterances)
    LabeledPredictions(
        bundle.id,
        bundle.emotions,
        tuple(keys),
        tuple(utterance.speaker_key if utterance.speaker else utterance_key(utterance) for utterance in utterances),
        data.label_indices(keys),
        probabilities,
    ).select(np.array([key not in known for key in keys], bool)).write(bundle.folder / PREDICTIONS)
    write_familiarity(bundle, data.select(split.subsets["train"]))
    return probabilities


def write_familiarity(bundle: Bundle, utterances: Sequence[Utterance]) -> None:
    """Write familiarity.npy from the training utterances, unless the model returns no statistics or they are too few."""
    graph = Graph.load(bundle)
    if graph.inputs != ("waveform",) or not graph.statistics_size:
        return
    by_corpus: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_corpus.setdefault(utterance.corpus, []).append(utterance)
    corpora = [
        fit_corpus(*_statistics(graph, clips)) for _, clips in sorted(by_corpus.items()) if len(clips) >= MIN_CLIPS
    ]
    if corpora:
        with atomic_write(bundle.folder / FAMILIARITY) as path, path.open("wb") as file:
            np.save(file, np.stack(corpora), allow_pickle=False)


def _statistics(graph: Graph, utterances: Sequence[Utterance]) -> tuple[NDArray[np.float32], list[str]]:
    """Return the statistics of a sample of utterances, (clips, size), and the speaker of each."""
    indices = np.linspace(0, len(utterances) - 1, min(SAMPLE, len(utterances))).astype(int)
    sample = {utterance_key(utterances[index]): utterances[index] for index in indices}
    logger.info("statistics of %d training utterances of %s", len(sample), utterances[0].corpus)
    rows, speakers = [], []
    for key, waveform in read_waveforms(sample):
        if not isinstance(waveform, BadAudio):
            outputs = graph.observe({"waveform": waveform[np.newaxis]})
            rows.append(graph.join_statistics(outputs)[0])
            speakers.append(sample[key].speaker or key)
    return np.array(rows), speakers
