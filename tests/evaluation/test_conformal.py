"""Sets of emotions with a promised error rate: the promise holds for exchangeable clips."""

import numpy as np
import pytest

from affekt.errors import BadConfig
from affekt.evaluation.conformal import emotion_sets, held_out_sets, min_probability, restrict, score_sets

EMOTIONS = 5


def draw(number, seed):
    """Return labels and the probabilities of a model that is overconfident: exchangeable clips."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(EMOTIONS, size=number)
    logits = generator.normal(size=(number, EMOTIONS))
    logits[np.arange(number), labels] += 1.5
    exponentials = np.exp(3 * logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("error_rate", [0.05, 0.1, 0.3])
def test_the_mean_error_rate_over_calibrations_is_the_promised_one(error_rate):
    labels, probabilities = draw(20_000, 1)
    errors = []
    for seed in range(100):
        calibration_labels, calibrating = draw(200, 100 + seed)
        limit = min_probability(calibration_labels, calibrating, error_rate)
        errors.append(score_sets(labels, emotion_sets(probabilities, limit), error_rate).errors)
    assert error_rate - 0.02 < np.mean(errors) <= error_rate + 0.005


def test_the_limit_is_the_rank_that_a_loop_finds():
    labels, probabilities = draw(37, 0)
    true = sorted(probabilities[index, label] for index, label in enumerate(labels))
    for error_rate in (0.03, 0.1, 0.5):
        limit = min_probability(labels, probabilities, error_rate)
        below = sum(value < limit for value in true)
        assert (below + 1) / 38 <= error_rate + 1e-9 < (below + 2) / 38


def test_too_few_clips_are_refused_and_clips_without_speech_do_not_count():
    labels, probabilities = draw(30, 0)
    probabilities[:21] = 0
    with pytest.raises(BadConfig, match="at least 19 calibration clips, but there are 9"):
        min_probability(labels, probabilities, 0.05)
    assert min_probability(labels, probabilities, 0.1) == probabilities[np.arange(30), labels][21:].min()


def test_every_set_has_the_most_probable_emotion():
    sets = emotion_sets(np.array([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]]), 0.95)
    assert sets.tolist() == [[True, False, False], [True, False, False]]
    scores = score_sets(np.array([0, 1]), sets, 0.1)
    assert (scores.errors, scores.size, scores.single) == (0.5, 1.0, 1.0)


def test_a_subset_is_normalized_and_refusals_stay_zero():
    rows = restrict(np.array([[0.2, 0.3, 0.5], [0.0, 0.0, 0.0]]), [0, 1])
    np.testing.assert_allclose(rows, [[0.4, 0.6], [0, 0]])


def test_a_speaker_does_not_calibrate_his_own_sets():
    labels, probabilities = draw(120, 3)
    speakers = [f"{index // 30}" for index in range(120)]
    sets = held_out_sets(labels, probabilities, speakers, 0.2)
    limit = min_probability(labels[30:], probabilities[30:], 0.2)
    np.testing.assert_array_equal(sets[:30], emotion_sets(probabilities[:30], limit))
