"""Temperature scaling calibrates confidence and changes no prediction."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from affekt.evaluation.calibration import average_at_temperature, brier, calibration, fit_temperature, reliability
from affekt.evaluation.metrics import cross_entropy, ece


def overconfident(factor, count=4000, seed=0):
    """Labels drawn from probabilities, and the same probabilities with their logits multiplied."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (count, 4))
    beyond = generator.random((count, 1)) > softmax(logits, axis=1).cumsum(axis=1)
    return beyond.sum(axis=1), softmax(factor * logits, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_recovers_the_scale_of_the_logits(factor):
    labels, probabilities = overconfident(factor)
    temperature = fit_temperature(labels, [probabilities])
    assert temperature == pytest.approx(factor, rel=0.07)
    assert ece(labels, average_at_temperature([probabilities], temperature)) < 0.03


@pytest.mark.slow
def test_the_temperature_minimizes_the_cross_entropy():
    labels, first = overconfident(3.0)
    second = overconfident(2.0, seed=1)[1]

    def loss(temperature):
        mean = (softmax(np.log(first) / temperature, axis=1) + softmax(np.log(second) / temperature, axis=1)) / 2
        return log_loss(labels, mean)

    expected = minimize_scalar(loss, bounds=(0.2, 5.0), method="bounded").x
    assert fit_temperature(labels, [first, second]) == pytest.approx(expected, rel=0.01)
    assert cross_entropy(labels, average_at_temperature([first, second], 1.7)) == pytest.approx(loss(1.7), rel=1e-6)


def test_a_temperature_keeps_probabilities_normalized_and_predictions_the_same():
    _, probabilities = overconfident(2.0)
    for temperature in (0.3, 1.0, 4.0):
        softened = average_at_temperature([probabilities], temperature)
        np.testing.assert_allclose(softened.sum(axis=1), 1)
        np.testing.assert_array_equal(softened.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(average_at_temperature([probabilities], 1.0), probabilities, atol=1e-9)


def test_perfect_predictions_get_the_lowest_temperature_and_stay_finite():
    labels = np.arange(30) % 3
    assert fit_temperature(labels, [0.4 * np.eye(3)[labels] + 0.2]) == pytest.approx(0.2)
    certain = np.eye(3)[labels]
    assert np.isfinite(average_at_temperature([certain], 0.2)).all()
    assert np.isfinite(cross_entropy((labels + 1) % 3, certain))


def test_the_reliability_diagram_sums_up_to_the_ece():
    labels, probabilities = overconfident(2.5)
    diagram = reliability(labels, probabilities)
    assert sum(diagram.utterances) == len(labels)
    gaps = [
        count * abs(confidence - accuracy)
        for count, confidence, accuracy in zip(diagram.utterances, diagram.confidence, diagram.accuracy, strict=True)
        if count
    ]
    assert sum(gaps) / len(labels) == pytest.approx(ece(labels, probabilities))
    assert diagram.confidence[0] is None  # the most probable of four has at least 0.25
    assert diagram.edges[-1] == 1.0
    assert reliability(labels, [probabilities, probabilities]).accuracy == diagram.accuracy


def test_the_brier_score_equals_scikit_learns():
    labels, probabilities = overconfident(1.5, count=300)
    expected = sum(brier_score_loss(labels == emotion, probabilities[:, emotion]) for emotion in range(4))
    assert brier(labels, probabilities) == pytest.approx(expected)
    assert brier(labels, np.eye(4)[labels]) == 0.0


def test_calibration_is_the_mean_over_the_seeds():
    labels, first = overconfident(3.0)
    second = overconfident(1.0, seed=1)[1]
    both = calibration(labels, [first, second])
    assert both.ece == pytest.approx((ece(labels, first) + ece(labels, second)) / 2)
    assert both.cross_entropy == pytest.approx((cross_entropy(labels, first) + cross_entropy(labels, second)) / 2)
