"""Calibrate sets of emotions with a promised error rate on labeled clips (`affekt.evaluation.conformal`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from affekt.bundle.folder import PREDICTIONS, Bundle
from affekt.bundle.predictions import LabeledPredictions
from affekt.errors import BadConfig
from affekt.evaluation.conformal import min_probability, restrict
from affekt.inference.decision import Decision
from affekt.inference.profile import Profile

DIGITS = 6
"""Decimal places of the limit: those of the probabilities in rows."""


def calibrate(
    decision: Decision, bundle: Bundle, profile: Profile | None = None, path: str | Path | None = None
) -> Decision:
    """Return a decision with the limit of probability for its error rate.

    Args:
        decision: A decision with an error rate.
        bundle: The bundle.
        profile: The profile that is applied, if any.
        path: A file of `affekt calibrate`; None for the clips that the bundle was tested on.

    Raises:
        BadConfig: The clips are of another model or profile, there are none, or too few for the error rate.
        BadBundle: A file of predictions is not valid.
    """
    assert decision.error_rate is not None
    predictions = LabeledPredictions.of_bundle(bundle) if path is None else _read(Path(path))
    source, own = path or bundle.folder / PREDICTIONS, profile.id if profile else ""
    cure = "calibrate with labeled clips of your own, affekt calibrate CORPUS --output FILE, and use --calibration FILE"
    if predictions is None:
        raise BadConfig(f"{bundle.id} has no {PREDICTIONS}, so that no error rate can be promised: {cure}")
    if (predictions.model, predictions.profile) != (bundle.id, own):
        raise BadConfig(
            f"{source} is a calibration of {_name(predictions.model, predictions.profile)}, but this is "
            f"{_name(bundle.id, own)}, to which the error rate does not apply: {cure}"
        )
    emotions = decision.select(bundle.emotions)
    columns = [predictions.emotions.index(emotion) for emotion in emotions]
    chosen = predictions.select(np.isin(predictions.labels, columns))
    labels = np.array([columns.index(label) for label in chosen.labels], np.int64)
    limit = min_probability(labels, restrict(chosen.probabilities, columns), decision.error_rate)
    return replace(decision, min_probability=round(limit, DIGITS))


def _read(path: Path) -> LabeledPredictions:
    if not path.is_file():
        raise BadConfig(f"{path} not found: expected a file made by `affekt calibrate`")
    return LabeledPredictions.read(path)


def _name(model: str, profile: str) -> str:
    return f"{model} with the profile {profile}" if profile else f"{model} without a profile"
