"""Coverage against accuracy and sets of emotions, on a card."""

import numpy as np
import pytest

from affekt.bundle.predictions import LabeledPredictions
from affekt.evaluation.coverage import coverage_curve
from affekt.reports.confidence import confidence_section

LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.0, 0.0]])


def test_a_point_of_the_curve_counts_the_clips_above_the_threshold():
    low, high, none = coverage_curve(LABELS, PROBABILITIES, (0.5, 0.7, 0.95))
    assert (low.answered, low.coverage, low.WA) == (3, 0.75, pytest.approx(2 / 3))
    assert pytest.approx((0.5 + 1) / 2) == low.UA
    assert (high.coverage, high.WA, high.UA) == (0.5, 1, 1)
    assert (none.answered, none.WA, none.UA) == (0, None, None)


def test_a_refused_clip_is_never_answered_and_seeds_count_together():
    (point,) = coverage_curve(LABELS, [PROBABILITIES, np.eye(2)[LABELS]], (0.0,))
    assert (point.answered, point.coverage) == (7, 7 / 8)
    assert pytest.approx(6 / 7) == point.WA


def test_the_section_has_both_tables_by_corpus():
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=120)
    first = np.where(labels == 0, 0.9, 0.2)
    keys = tuple(f"{'one' if index % 2 else 'two'}/{index}" for index in range(120))
    speakers = tuple(f"{index % 6}" for index in range(120))
    rows = np.stack([first, 1 - first], axis=1)
    predictions = LabeledPredictions("m@1", ("happy", "sad"), keys, speakers, labels, rows)
    section = confidence_section(predictions, {"one": "Corpus 1"})
    assert "| threshold | two: coverage | two: WA | two: UA | Corpus 1: coverage |" in section
    assert "| 0.8 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 |" in section
    assert "| 0.1 | 0.0 | 1.00 | 100.0 | 0.0 | 1.00 | 100.0 |" in section
    assert confidence_section(None, {}) == ""
