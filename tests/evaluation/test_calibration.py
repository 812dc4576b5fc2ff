"""A temperature makes confidence mean what it says, and changes no answer."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from affekt.evaluation.calibration import fitted_temperature, tempered, unlikelihood
from affekt.evaluation.metrics import ece


def overconfident(factor, count=4000, seed=0):
    """Labels drawn from probabilities, and the same probabilities with their logits multiplied."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (count, 4))
    drawn = generator.random((count, 1)) > softmax(logits, axis=1).cumsum(axis=1)
    return drawn.sum(axis=1), softmax(factor * logits, axis=1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_what_made_the_logits_too_large_or_too_small(factor):
    labels, probabilities = overconfident(factor)
    temperature = fitted_temperature(labels, [probabilities])
    assert temperature == pytest.approx(factor, rel=0.07)
    assert ece(labels, tempered([probabilities], temperature)) < 0.03


def test_it_is_the_one_at_which_the_labels_are_likeliest():
    labels, first = overconfident(3.0)
    second = overconfident(2.0, seed=1)[1]

    def loss(temperature):
        mean = (softmax(np.log(first) / temperature, axis=1) + softmax(np.log(second) / temperature, axis=1)) / 2
        return log_loss(labels, mean)

    expected = minimize_scalar(loss, bounds=(0.2, 5.0), method="bounded").x
    assert fitted_temperature(labels, [first, second]) == pytest.approx(expected, rel=0.01)
    assert unlikelihood(labels, tempered([first, second], 1.7)) == pytest.approx(loss(1.7), rel=1e-6)


def test_probabilities_stay_probabilities_and_answers_stay_answers():
    _, probabilities = overconfident(2.0)
    for temperature in (0.3, 1.0, 4.0):
        softened = tempered([probabilities], temperature)
        np.testing.assert_allclose(softened.sum(axis=1), 1)
        np.testing.assert_array_equal(softened.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(tempered([probabilities], 1.0), probabilities, atol=1e-9)


def test_who_is_always_right_is_not_made_infinitely_sure():
    labels = np.arange(30) % 3
    assert fitted_temperature(labels, [0.4 * np.eye(3)[labels] + 0.2]) == pytest.approx(0.2)
    certain = np.eye(3)[labels]
    assert np.isfinite(tempered([certain], 0.2)).all()
    assert unlikelihood((labels + 1) % 3, certain) < 30
