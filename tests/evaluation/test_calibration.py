"""Temperature scaling calibrates confidence and changes no prediction."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from affekt.evaluation.calibration import average_at_temperature, fit_temperature
from affekt.evaluation.metrics import cross_entropy, ece


def overconfident(factor, count=4000, seed=0):
    """Labels drawn from probabilities, and the same probabilities with their logits multiplied."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (count, 4))
    beyond = generator.random((count, 1)) > softmax(logits, axis=1).cumsum(axis=1)
    return beyond.sum(axis=1), softmax(factor * logits, axis=1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_recovers_the_scale_of_the_logits(factor):
    labels, probabilities = overconfident(factor)
    temperature = fit_temperature(labels, [probabilities])
    assert temperature == pytest.approx(factor, rel=0.07)
    assert ece(labels, average_at_temperature([probabilities], temperature)) < 0.03


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
