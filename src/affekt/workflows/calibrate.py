"""Calibrate sets of emotions with labeled clips of one's own: a file of predictions for `--calibration`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from affekt.bundle.predictions import LabeledPredictions
from affekt.bundle.training_clips import TrainingClips
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveforms
from affekt.errors import BadAudio, BadCorpus, BadOutput
from affekt.inference.recognizer import Recognizer
from affekt.labels import LabelSet
from affekt.progress import Progress
from affekt.protocols import utterance_key
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)


def predict_labeled(
    sources: Sequence[Source], recognizer: Recognizer, *, progress: Progress | None = None
) -> LabeledPredictions:
    """Return the predictions for the labeled clips of corpora that the model was not trained on.

    Clips of other emotions, clips that the model was trained on and files that cannot be read are left out, with a message.

    Args:
        sources: The corpora.
        recognizer: The recognizer, with the profile that will be applied.
        progress: Called after each clip.

    Raises:
        BadCorpus: A corpus cannot be read, or no clip is left.
    """
    bundle = recognizer.bundle
    settings = bundle.config.get("labels", {})
    labels = LabelSet(bundle.name, bundle.emotions, settings.get("merge", {}), settings.get("dialogues", ""))
    utterances = [utterance for source in sources for utterance in source.read()]
    trained_on = TrainingClips.of_bundle(bundle).find(utterances)
    chosen = {
        utterance_key(utterance): utterance
        for utterance in utterances
        if labels.index_of(utterance) is not None and utterance_key(utterance) not in trained_on
    }
    if others := len(utterances) - len(chosen):
        logger.warning(
            "%d of %d clips left out: %s trained on them, or they are of other emotions",
            others,
            len(utterances),
            bundle.id,
        )
    rows: dict[str, list[float]] = {}
    for done, (key, waveform) in enumerate(read_waveforms(chosen), start=1):
        if isinstance(waveform, BadAudio):
            logger.warning("left out: %s", waveform)
        else:
            rows[key] = recognizer.predict(waveform)
        if progress:
            progress("calibrating", done, len(chosen))
    if not rows:
        raise BadCorpus(
            f"no labeled clip is left to calibrate {bundle.id} with: expected clips of {', '.join(bundle.emotions)} that it "
            "was not trained on"
        )
    clips = [chosen[key] for key in rows]
    return LabeledPredictions(
        bundle.id,
        bundle.emotions,
        tuple(rows),
        tuple(map(_speaker, clips)),
        np.array([labels.index_of(utterance) for utterance in clips], np.int64),
        np.array(list(rows.values()), np.float64),
        recognizer.profile.id if recognizer.profile else "",
    )


def _speaker(utterance: Utterance) -> str:
    return utterance.speaker_key if utterance.speaker else utterance_key(utterance)


def check_output(path: Path) -> None:
    """Raise `BadOutput` if a file exists, so that nothing is overwritten, or if its folder does not exist."""
    if path.exists():
        raise BadOutput(f"{path} exists: choose another name, or delete it")
    if not path.parent.is_dir():
        raise BadOutput(f"{path} cannot be written: the folder {path.parent} does not exist")
