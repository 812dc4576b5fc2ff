"""The arithmetic of profiles: class biases, shrinkage, and the diversity that tells even sources from one-sided ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affekt.inference.class_bias import apply_class_bias, solve_class_bias
from affekt.inference.profile_learning import (
    LearningSettings,
    adaptation_strength,
    closest_distribution,
    distance,
    diversity,
    estimate_class_bias,
    shrunk_mean,
)

EVEN = np.full(6, 1 / 6)
SETTINGS = LearningSettings()


def predict(fractions, count=300, seed=0, bias=0.0, sharpness=2.5):
    """Return labels drawn from a distribution, and probabilities of a model that is calibrated for even classes."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(6, count, p=fractions)
    evidence = generator.normal(size=(count, 6)) + sharpness * np.eye(6)[labels]
    logits = sharpness * evidence
    return labels, apply_class_bias(np.exp(logits - logits.max(axis=1, keepdims=True)), np.zeros(6) + bias)


def one_sided(major, fraction=0.8):
    return np.where(np.arange(6) == major, fraction, (1 - fraction) / 5)


@pytest.mark.slow
@given(st.integers(0, 99), st.lists(st.floats(0.02, 1), min_size=6, max_size=6))
def test_the_mean_of_biased_probabilities_is_the_expected_distribution(seed, weights):
    expected = np.array(weights) / sum(weights)
    _, probabilities = predict(EVEN, 60, seed)
    bias = solve_class_bias(probabilities, expected)
    np.testing.assert_allclose(apply_class_bias(probabilities, bias).mean(axis=0), expected, atol=2e-3)
    assert abs(bias.mean()) < 1e-9


def test_a_class_bias_leaves_rows_of_zeros():
    biased = apply_class_bias(np.array([[0.0, 0.0], [0.5, 0.5]]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(biased, [[0, 0], [np.e / (np.e + 1), 1 / (np.e + 1)]])


def test_an_emotion_that_is_never_predicted_does_not_break_the_biases():
    probabilities = np.tile([0.5, 0.5, 0.0], (20, 1))
    bias = solve_class_bias(probabilities, np.full(3, 1 / 3))
    assert np.isfinite(bias).all()
    assert bias[2] > bias[0] + 5


@pytest.mark.parametrize("bias", [0.0, np.array([2.0, -1, 0, 0.5, -2, 0.5])])
def test_the_bias_of_a_model_is_found_and_lifts_accuracy(bias):
    labels, probabilities = predict(EVEN, bias=bias)
    opposite, _ = estimate_class_bias(probabilities, EVEN, SETTINGS)
    np.testing.assert_allclose(opposite, np.mean(bias) - bias, atol=0.8)
    before = (probabilities.argmax(axis=1) == labels).mean()
    after = (apply_class_bias(probabilities, opposite).argmax(axis=1) == labels).mean()
    assert after > before + 0.03 if np.any(bias) else after > before - 0.02


@pytest.mark.slow
@given(
    st.lists(st.floats(1e-9, 1), min_size=4, max_size=4),
    st.lists(st.floats(0.02, 1), min_size=4, max_size=4),
    st.floats(1, 4),
)
def test_the_closest_distribution_is_within_the_tolerance_and_keeps_what_is(weights, expected, tolerance):
    mean, expected = (np.array(values) / sum(values) for values in (weights, expected))
    target = closest_distribution(mean, expected, tolerance)
    assert target.sum() == pytest.approx(1)
    assert (target <= expected * tolerance * 1.0001).all()
    assert (target >= expected / tolerance * 0.9999).all()
    if (mean <= expected * tolerance).all() and (mean >= expected / tolerance).all():
        np.testing.assert_allclose(target, mean, rtol=1e-4)


def test_predictions_near_the_expected_distribution_get_no_bias():
    _, probabilities = predict(np.array([0.24, 0.2, 0.16, 0.14, 0.13, 0.13]))
    tolerant, _ = estimate_class_bias(probabilities, EVEN, SETTINGS, tolerance=1.5)
    exact, _ = estimate_class_bias(probabilities, EVEN, SETTINGS)
    assert np.abs(tolerant).max() < 1e-3 < np.abs(exact).max()


def test_fewer_clips_are_shrunk_more_and_large_biases_are_limited():
    _, probabilities = predict(EVEN, 200, bias=np.array([1.0, 0, 0, 0, 0, 0]))
    few, many = (estimate_class_bias(probabilities[:count], EVEN, SETTINGS)[0] for count in (10, 200))
    assert abs(few[0]) < abs(many[0])
    limited, was_limited = estimate_class_bias(np.tile([0.999, 0.001], (500, 1)), np.array([0.01, 0.99]), SETTINGS)
    assert was_limited
    assert np.abs(limited).max() == SETTINGS.max_bias


def test_the_shrunk_mean_limits_single_clips():
    values = np.array([[1.0, 0.1]] * 3 + [[100.0, 0.1]])
    np.testing.assert_allclose(shrunk_mean(values, 4.0, limit=1.0), [0.5, 0.05])
    np.testing.assert_allclose(shrunk_mean(values, 0.0), [25.75, 0.1])


@pytest.mark.parametrize("bias", [0.0, np.array([2.0, -1, 0, 0.5, -2, 0.5])])
def test_diversity_tells_even_sources_from_one_sided_ones_whatever_the_bias(bias):
    even = [diversity(predict(EVEN, 50, seed, bias)[1], EVEN) for seed in range(5)]
    one_sided_ones = [diversity(predict(one_sided(major), 50, major, bias)[1], EVEN) for major in range(6)]
    assert min(even) > max(one_sided_ones) + 0.05


def test_on_a_one_sided_source_the_adaptation_is_off_unless_its_distribution_is_stated():
    fractions = one_sided(4, 0.9)
    labels, probabilities = predict(fractions, 100, sharpness=1.5)
    assert adaptation_strength(diversity(probabilities, EVEN), SETTINGS) == 0
    unadapted = (probabilities.argmax(axis=1) == labels).mean()
    stated, _ = estimate_class_bias(probabilities, fractions, SETTINGS)
    even, _ = estimate_class_bias(probabilities, EVEN, SETTINGS)
    accuracy = [(apply_class_bias(probabilities, bias).argmax(axis=1) == labels).mean() for bias in (stated, even)]
    assert accuracy[0] > unadapted > accuracy[1]


def test_the_distance_is_near_zero_without_an_offset_whatever_the_number_of_clips_and_grows_with_the_offset():
    generator = np.random.default_rng(0)
    for clips in (8, 50, 200):
        values = generator.normal(size=(clips, 500)) * np.exp(generator.normal(size=500))
        assert distance(values) < 0.1
        deviations = values.std(axis=0)
        assert distance(values + deviations) == pytest.approx(1, abs=0.3)
        assert distance(values + 2 * deviations) == pytest.approx(4, abs=1)
    assert distance(np.zeros((8, 3))) == 0


def test_far_sources_need_less_diversity_and_get_the_expected_distribution():
    near, middle, far = (SETTINGS.at_distance(value) for value in (0.0, 0.75, 5.0))
    assert near == SETTINGS
    assert far.tolerance == 1
    assert (near.low_diversity - far.low_diversity) == pytest.approx(SETTINGS.diversity_reduction)
    assert near.high_diversity > middle.high_diversity > far.high_diversity
    assert adaptation_strength(0.38, near) < 0.5
    assert adaptation_strength(0.38, far) == 1


def test_the_strength_grows_with_the_diversity():
    low, high = SETTINGS.low_diversity, SETTINGS.high_diversity
    values = [adaptation_strength(value, SETTINGS) for value in (0.0, low, (low + high) / 2, high, 1.0)]
    np.testing.assert_allclose(values, [0, 0, 0.5, 1, 1])
