"""Whether a recording is like the training data, by the statistics of the model's features over time.

familiarity.npy in a bundle has, for each training corpus, the mean and the scale over its clips of the statistics that the
graph returns (`affekt.inference.onnx.Graph.recognize`): (corpora, 2, size), 32-bit. The distance of a clip from a corpus is
the root mean square of its differences from the mean, divided by the scales. Scales are such that the distance of 99 % of
the clips of speakers that are left out is at most 1. A clip whose distance from all corpora is over 1 is unlike the training
data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadBundle

QUANTILE = 0.99
"""The fraction of the clips of speakers that are left out whose distance is at most 1."""
MIN_SCALE = 1e-3
"""Lower bound of a scale, for statistics that are the same in all clips."""
FOLDS = 5
"""Number of groups of speakers that are left out in turn."""
MIN_CLIPS = 20
"""Fewer clips are too few for statistics of their own."""
DIGITS = 2
"""Decimal places of the distance in rows."""

Statistics = NDArray[np.floating]


class Familiarity:
    """The training data of a model, for the distance of other clips from them.

    Args:
        corpora: The content of familiarity.npy, (corpora, 2, size).
    """

    def __init__(self, corpora: NDArray[np.float32]) -> None:
        self.corpora = corpora
        self._centers, self._scales = corpora[:, 0], corpora[:, 1]

    @classmethod
    def read(cls, path: Path, size: int) -> Familiarity:
        """Read a file. Raises `BadBundle` if it is not valid for a graph that returns `size` statistics."""
        try:
            corpora = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadBundle(f"{path} cannot be read ({error}); copy or make the bundle again") from error
        is_valid = (
            isinstance(corpora, np.ndarray)
            and corpora.dtype == np.float32
            and corpora.ndim == 3
            and corpora.shape[1:] == (2, size)
            and len(corpora) > 0
            and bool(np.isfinite(corpora).all() and (corpora[:, 1] > 0).all())
        )
        if not is_valid:
            raise BadBundle(
                f"{path} does not fit model.onnx: expected finite 32-bit numbers, (corpora, 2, {size}), with positive "
                "scales; copy or make the bundle again"
            )
        return cls(corpora)

    def distance(self, statistics: Statistics) -> float:
        """Return the distance of a clip, given its statistics (size,), from the nearest corpus: at most 1 if it is usual."""
        return float(root_mean_square((statistics - self._centers) / self._scales).min())


def root_mean_square(differences: Statistics) -> NDArray[np.float64]:
    """Return the root mean square over the last axis."""
    return np.sqrt(np.square(differences, dtype=np.float64).mean(axis=-1))


def fit_corpus(statistics: Statistics, speakers: Sequence[str]) -> NDArray[np.float32]:
    """Return the mean and the scale of the clips of a corpus, (2, size).

    Args:
        statistics: (clips, size), at least `MIN_CLIPS`.
        speakers: The speaker of each clip, or the clip itself where speakers are unknown.
    """
    names = {name: index % FOLDS for index, name in enumerate(sorted(set(speakers)))}
    folds = np.array([names[speaker] for speaker in speakers])
    distances = np.zeros(len(statistics))
    for fold in set(folds.tolist()):
        held_out = folds == fold
        others = statistics[~held_out] if len(names) > 1 else statistics  # of a single speaker, nothing can be left out
        distances[held_out] = root_mean_square((statistics[held_out] - others.mean(axis=0)) / _deviation(others))
    limit = max(1.0, float(np.quantile(distances, QUANTILE)))
    return np.stack([statistics.mean(axis=0), limit * _deviation(statistics)]).astype(np.float32)


def _deviation(statistics: Statistics) -> NDArray[np.float64]:
    return np.maximum(statistics.std(axis=0, dtype=np.float64), MIN_SCALE)
