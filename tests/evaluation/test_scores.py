"""Metrics against scikit-learn and scipy; intervals and paired comparisons."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, log_loss

from affekt.errors import BadConfig
from affekt.evaluation.comparison import compare, mcnemar
from affekt.evaluation.metrics import confusion, cross_entropy, ece, recalls, ua, wa, wf1
from affekt.evaluation.scores import score

EMOTIONS = ("angry", "happy", "sad")


def predictions(count=300, skill=1.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, count, p=[0.6, 0.3, 0.1])
    logits = generator.normal(size=(count, 3)) + skill * np.eye(3)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_the_metrics_equal_scikit_learns():
    labels, probabilities = predictions()
    predicted = probabilities.argmax(axis=1)
    counts = confusion(labels, predicted, 3)
    np.testing.assert_array_equal(counts, confusion_matrix(labels, predicted))
    assert wa(counts) == pytest.approx(accuracy_score(labels, predicted))
    assert ua(counts) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert wf1(counts) == pytest.approx(f1_score(labels, predicted, average="weighted"))


def test_cross_entropy_equals_scikit_learns_and_is_finite_at_probability_zero():
    generator = np.random.default_rng(3)
    labels, probabilities = generator.integers(4, size=60), generator.dirichlet(np.ones(4), size=60)
    assert cross_entropy(labels, probabilities) == pytest.approx(log_loss(labels, probabilities, labels=range(4)))
    assert 80 < cross_entropy(np.array([0]), np.array([[0.0, 1.0]])) < np.inf


def test_ua_of_a_constant_guess_is_one_over_the_emotions():
    labels, _ = predictions()
    assert ua(confusion(labels, np.zeros_like(labels), 3)) == pytest.approx(1 / 3)


def test_an_emotion_that_does_not_occur_does_not_count():
    counts = confusion(np.array([0, 0, 1]), np.array([0, 2, 1]), 3)
    assert np.isnan(recalls(counts)[2])
    assert ua(counts) == pytest.approx((0.5 + 1.0) / 2)


def test_calibration_error_is_confidence_minus_accuracy():
    labels = np.array([0] * 7 + [1] * 3)
    probabilities = np.tile([0.9, 0.1], (10, 1))
    assert ece(labels, probabilities) == pytest.approx(0.2)
    assert ece(labels, np.tile([0.7, 0.3], (10, 1))) == pytest.approx(0.0)


def test_intervals_hold_the_value_and_narrow_with_more_utterances():
    few, many = score(*predictions(100), EMOTIONS), score(*predictions(3000), EMOTIONS)
    for scores in (few, many):
        for interval in (scores.UA, scores.WA, scores.WF1, *scores.recall.values()):
            assert interval.low <= interval.value <= interval.high
    assert many.UA.high - many.UA.low < few.UA.high - few.UA.low


def test_scores_are_deterministic():
    assert score(*predictions(), EMOTIONS) == score(*predictions(), EMOTIONS)


def test_scoring_no_utterance_is_an_error():
    with pytest.raises(BadConfig, match="no utterance to score"):
        score(np.zeros(0, int), np.zeros((0, 3)), EMOTIONS)


def test_a_better_system_is_significantly_better_and_a_system_equals_itself():
    labels, good = predictions(skill=2.0)
    _, poor = predictions(skill=0.2)
    speakers = [str(index % 20) for index in range(len(labels))]
    better = compare(labels, good, poor, speakers)
    assert 0 < better.interval[0] < better.value < better.interval[1]
    assert better.p < 0.001
    same = compare(labels, good, good, speakers)
    assert (same.value, same.interval, same.better, same.worse, same.p) == (0.0, (0.0, 0.0), 0, 0, 1.0)
    assert compare(labels, good, poor, [str(index % 5) for index in range(len(labels))]).interval is None


def test_intervals_over_speakers_are_wider_where_speakers_differ():
    generator = np.random.default_rng(0)
    labels, speakers = np.tile(np.arange(3), 400), np.repeat(np.arange(20), 60)
    skill = generator.uniform(0.4, 1.0, 20)[speakers]
    right = generator.random(len(labels)) < skill
    probabilities = np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
    over_speakers = score(labels, probabilities, EMOTIONS, [str(speaker) for speaker in speakers])
    over_utterances = score(labels, probabilities, EMOTIONS)
    assert over_speakers.UA.value == over_utterances.UA.value
    assert over_speakers.UA.high - over_speakers.UA.low > 2 * (over_utterances.UA.high - over_utterances.UA.low)
    assert "20 speakers" in over_speakers.intervals
    assert "valid for these speakers only" in over_utterances.intervals


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (5, 5), (3, 11), (40, 12), (1, 0), (7, 8), (212, 170)])
def test_mcnemar_is_the_exact_binomial_test(better, worse):
    total, fewer = better + worse, min(better, worse)
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    assert mcnemar(better, worse) == pytest.approx(min(1.0, 2 * tail / 2**total), rel=0, abs=1e-12)


def test_a_refused_utterance_counts_as_wrong():
    probabilities = np.array([[0.9, 0.1], [0.0, 0.0], [0.2, 0.8], [0.6, 0.4]])
    scores = score(np.array([0, 0, 1, 1]), probabilities, ["happy", "sad"])
    assert (scores.refused, scores.utterances) == (1, 4)
    assert scores.UA.value == scores.WA.value == pytest.approx(0.5)
    assert scores.recall["happy"].value == pytest.approx(0.5)
    # Precision is 1/2 for happy and 1 for sad, recall 1/2 for both: what is refused is no answer.
    assert scores.WF1.value == pytest.approx((0.5 + 2 / 3) / 2)
    assert scores.ece == pytest.approx((0.1 + 0.0 + 0.2 + 0.6) / 4)
    assert compare(np.array([0, 0, 1, 1]), probabilities, np.eye(2)[[0, 0, 1, 1]]).worse == 2
