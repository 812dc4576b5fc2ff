"""Metrics against scikit-learn and scipy; intervals and paired comparisons."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, log_loss

from affekt.errors import BadConfig
from affekt.evaluation import bootstrap
from affekt.evaluation.comparison import compare
from affekt.evaluation.metrics import METRICS, confusion, cross_entropy, ece, recalls, ua, wa, wf1
from affekt.evaluation.scores import score, wilson
from affekt.evaluation.significance import bootstrap_p, cohens_g, holm, mcnemar, wilcoxon

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
    better = compare(labels, {0: good}, {0: poor}, speakers)
    assert better.resampled == "speakers"
    assert 0 < better.interval[0] < better.value < better.interval[1]
    assert better.p < 0.002
    assert better.by_seed[0].p < 0.001
    assert better.effect > 0.15
    same = compare(labels, {0: good}, {0: good}, speakers)
    assert (same.value, same.interval, same.p, same.effect) == (0.0, None, 1.0, 0.0)
    assert same.by_seed[0].mcnemar == mcnemar(0, 0)
    few_speakers = compare(labels, {0: good}, {0: poor}, [str(index % 5) for index in range(len(labels))])
    assert few_speakers.resampled == "utterances"
    assert compare(labels[:4], {0: good[:4]}, {0: poor[:4]}).p is None


def test_a_difference_is_the_difference_of_the_means_over_seeds():
    labels, _ = predictions()
    first = {seed: predictions(seed=0, skill=skill)[1] for seed, skill in enumerate((0.5, 1.0, 2.0))}
    second = {seed: predictions(seed=0, skill=skill)[1] for seed, skill in ((1, 0.3), (2, 0.6))}
    folds = np.arange(len(labels)) % 7
    for name, metric in METRICS.items():
        comparison = compare(labels, first, second, folds=folds, metric=name)

        def mean(system, mask, metric=metric):
            return np.mean([metric(confusion(labels[mask], p[mask].argmax(axis=1), 3)) for p in system.values()])

        everywhere = np.ones(len(labels), bool)
        assert comparison.value == pytest.approx(mean(first, everywhere) - mean(second, everywhere))
        assert comparison.by_fold == pytest.approx(
            [mean(first, folds == fold) - mean(second, folds == fold) for fold in range(7)]
        )
        assert list(comparison.by_seed) == [1, 2]
        assert comparison.wilcoxon_p == pytest.approx(stats.wilcoxon(comparison.by_fold).pvalue)


@pytest.mark.slow
def test_intervals_over_speakers_equal_a_bootstrap_of_the_utterances_themselves(monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWS", 200)
    generator = np.random.default_rng(1)
    labels, seeds = predictions(240)[0], [predictions(240, seed=0, skill=skill)[1] for skill in (1.0, 1.5)]
    speakers = generator.integers(12, size=240)
    scores = score(labels, seeds, EMOTIONS, [f"{speaker:02}" for speaker in speakers])

    def mean_ua(*samples, axis):
        values = []
        for draw in np.moveaxis(samples[0], axis, -1).reshape(-1, samples[0].shape[axis]):
            chosen = np.concatenate([np.flatnonzero(speakers == speaker) for speaker in draw])
            values.append(np.mean([balanced_accuracy_score(labels[chosen], p[chosen].argmax(axis=1)) for p in seeds]))
        return np.array(values).reshape(np.delete(samples[0].shape, axis))

    expected = stats.bootstrap(
        (np.arange(12),),
        mean_ua,
        n_resamples=200,
        method="BCa",
        vectorized=True,
        random_state=np.random.default_rng(0),
    )
    assert (scores.UA.low, scores.UA.high) == pytest.approx(tuple(expected.confidence_interval), abs=1e-9)


def test_scores_of_several_seeds_are_means_over_the_seeds():
    labels, seeds = predictions()[0], [predictions(seed=0, skill=skill)[1] for skill in (0.5, 2.0)]
    both, single = score(labels, seeds, EMOTIONS), [score(labels, of_seed, EMOTIONS) for of_seed in seeds]
    for name in METRICS:
        assert getattr(both, name).value == pytest.approx(np.mean([getattr(scores, name).value for scores in single]))
    assert both.recall["sad"].value == pytest.approx(np.mean([scores.recall["sad"].value for scores in single]))
    assert both.ece == pytest.approx(np.mean([scores.ece for scores in single]))
    assert both.utterances == len(labels)
    # Wilson's interval counts each utterance once, however many seeds predicted it.
    assert both.WA.high - both.WA.low == pytest.approx(single[0].WA.high - single[0].WA.low, rel=0.2)


def test_few_utterances_have_no_interval_of_zero_width():
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    scores = score(labels, np.eye(3)[labels], EMOTIONS)
    assert (scores.UA.value, scores.UA.low, scores.UA.high, scores.WF1.low) == (1.0, None, None, None)
    assert "none (UA, WF1): under 5 utterances of an emotion" in scores.intervals
    assert (scores.WA.low, scores.WA.high) == pytest.approx((0.7008, 1.0), abs=1e-4)
    assert scores.recall["sad"].low < 0.5
    everyone_right = score(np.tile(labels, 20), np.eye(3)[np.tile(labels, 20)], EMOTIONS, [*map(str, range(180))])
    assert everyone_right.UA.low is None


@pytest.mark.parametrize(("correct", "number"), [(0, 5), (3, 9), (9, 9), (40, 100)])
def test_wilson_is_scipys(correct, number):
    expected = stats.binomtest(correct, number).proportion_ci(method="wilson")
    assert wilson(correct / number, number) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_an_emotion_with_one_utterance_is_in_every_draw():
    counts = np.zeros((6, 1, 2, 2), int)
    counts[:5, 0, 0, 0] = counts[5, 0, 1, 1] = 1
    sample = bootstrap.bootstrap_within_emotions(counts, lambda sums: sums[:, 0, 1, 1][None])
    assert (sample.draws == 1).all()
    assert np.isnan(sample.low).all()


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
    test = mcnemar(better, worse)
    assert test.p == pytest.approx(min(1.0, 2 * tail / 2**total), rel=0, abs=1e-12)
    if better != worse:
        middle = tail - math.comb(total, fewer) / 2
        assert test.mid_p == pytest.approx(2 * middle / 2**total, rel=0, abs=1e-12)
    assert test.mid_p <= test.p


def test_holms_correction():
    # Holm (1979) multiplies the smallest by 4, the next by 3, ..., and never lets a larger one become smaller.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_tests_that_cannot_reject_are_not_made():
    assert wilcoxon([0.1] * 5) is None
    assert wilcoxon([0.0] * 8) == 1.0
    assert bootstrap_p(np.zeros(2000)) == 1.0
    assert bootstrap_p(np.ones(1999)) == pytest.approx(2 / 2000)
    assert (cohens_g(30, 10), cohens_g(0, 0)) == (0.25, 0.0)


def test_a_refused_utterance_counts_as_wrong():
    probabilities = np.array([[0.9, 0.1], [0.0, 0.0], [0.2, 0.8], [0.6, 0.4]])
    scores = score(np.array([0, 0, 1, 1]), probabilities, ["happy", "sad"])
    assert (scores.refused, scores.utterances) == (1, 4)
    assert scores.UA.value == scores.WA.value == pytest.approx(0.5)
    assert scores.recall["happy"].value == pytest.approx(0.5)
    # Precision is 1/2 for happy and 1 for sad, recall 1/2 for both: what is refused is no answer.
    assert scores.WF1.value == pytest.approx((0.5 + 2 / 3) / 2)
    assert scores.ece == pytest.approx((0.1 + 0.0 + 0.2 + 0.6) / 4)
    other = np.eye(2)[[0, 0, 1, 1]]
    assert compare(np.array([0, 0, 1, 1]), {0: probabilities}, {0: other}).by_seed[0].mcnemar.worse == 2
