"""The section of a model card on when to trust an answer: thresholds of confidence, and sets of emotions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from affekt.bundle.predictions import LabeledPredictions
from affekt.errors import BadConfig
from affekt.evaluation.conformal import held_out_sets, score_sets
from affekt.evaluation.coverage import CoveragePoint, coverage_curve
from affekt.tables import table

ERROR_RATES = (0.05, 0.1, 0.2)

SECTION = """
## When not to answer

With `--threshold P`, a recording whose largest probability is below P gets the status `unknown`. The test subset shows how
many are then still answered ("coverage"), and WA and UA of those, in percent:

{coverage}
With `--error-rate F`, a result also has a set of emotions that is calibrated on the test subset: for clips like these, it
lacks the right emotion in at most F of them. Here, the sets of each speaker are calibrated on all other speakers. "single"
is the fraction of sets with one emotion:

{sets}
On other recordings, both tables are too optimistic; `affekt calibrate` measures them on labeled clips of your own.
"""


def confidence_section(predictions: LabeledPredictions | None, titles: Mapping[str, str]) -> str:
    """Return the section, given the predictions of a bundle and the titles of its corpora; "" without predictions."""
    if predictions is None or not len(predictions.labels):
        return ""
    by_corpus = group_by_corpus(predictions, titles)
    return SECTION.format(coverage=coverage_table(by_corpus), sets=sets_table(predictions, by_corpus))


def group_by_corpus(predictions: LabeledPredictions, titles: Mapping[str, str]) -> dict[str, LabeledPredictions]:
    """Return the predictions for each corpus by its title."""
    return {
        titles.get(corpus, corpus): predictions.select(predictions.corpora == corpus)
        for corpus in dict.fromkeys(predictions.corpora.tolist())
    }


def coverage_table(by_corpus: Mapping[str, LabeledPredictions]) -> str:
    """Return the table of coverage, WA and UA by threshold, with columns for each corpus."""
    curves = [coverage_curve(entry.labels, entry.probabilities) for entry in by_corpus.values()]
    columns = [f"{title}: {name}" for title in by_corpus for name in ("coverage", "WA", "UA")]
    rows = [
        [f"{points[0].threshold}", *(cell for point in points for cell in _cells(point))]
        for points in zip(*curves, strict=True)
    ]
    return table(["threshold", *columns], rows)


def _cells(point: CoveragePoint) -> list[str]:
    return [_percent(value) for value in (point.coverage, point.WA, point.UA)]


def sets_table(predictions: LabeledPredictions, by_corpus: Mapping[str, LabeledPredictions]) -> str:
    """Return the table of sets by error rate, with columns for each corpus; the sets of a speaker leave the speaker out."""
    recognized = predictions.recognized()
    rows = []
    for error_rate in ERROR_RATES:
        try:
            sets = held_out_sets(recognized.labels, recognized.probabilities, recognized.speakers, error_rate)
        except BadConfig:  # too few clips
            continue
        cells = []
        for entry in by_corpus.values():
            chosen = np.isin(recognized.utterances, entry.utterances)
            scores = score_sets(recognized.labels[chosen], sets[chosen], error_rate) if chosen.any() else None
            cells += [_percent(scores.errors), f"{scores.size:.2f}", _percent(scores.single)] if scores else ["-"] * 3
        rows.append([f"{error_rate}", *cells])
    columns = [f"{title}: {name}" for title in by_corpus for name in ("errors", "mean size", "single")]
    return table(["error rate", *columns], rows) if rows else "The test subset is too small for sets.\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
