"""A difference between groups is called a gap only where it is more than chance."""

import numpy as np

from affekt.evaluation.scores import Interval
from affekt.evaluation.subgroups import largest_gap, score_subgroups

EMOTIONS = ("angry", "happy", "sad")


def predictions(skill, seed=0):
    """Predictions for utterances of 40 speakers, of which each is right with its own probability."""
    generator = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(40), 30)
    labels = np.tile(np.arange(3), 400)
    right = generator.random(len(labels)) < np.asarray(skill)[speakers]
    return labels, np.eye(3)[np.where(right, labels, (labels + 1) % 3)], [f"made/{speaker:02}" for speaker in speakers]


def by_gender(labels, probabilities, speakers):
    genders = ["female" if int(speaker[-2:]) % 2 else "male" for speaker in speakers]
    return score_subgroups("gender", genders, labels, probabilities, EMOTIONS, speakers)


def test_a_large_difference_is_a_gap():
    groups = by_gender(*predictions([0.8 if speaker % 2 else 0.5 for speaker in range(40)]))
    assert (groups.gap.higher, groups.gap.lower) == ("female", "male")
    assert groups.gap.low < groups.gap.value < groups.gap.high
    assert groups.gap.excludes_zero
    assert groups.gap.value == groups.scores["female"].UA.value - groups.scores["male"].UA.value
    assert "20 speakers" in groups.scores["male"].intervals


def test_the_largest_of_many_differences_is_rarely_a_gap_by_chance():
    generator = np.random.default_rng(0)
    called = np.zeros(2)
    for _ in range(100):
        values = {str(group): Interval(generator.normal(0.6, 0.05), None, None) for group in range(30)}
        draws = {group: generator.normal(interval.value, 0.05, 500) for group, interval in values.items()}
        gap = largest_gap(values, draws)
        called += [gap.excludes_zero, gap.value > 1.96 * np.hypot(0.05, 0.05)]
    assert called[0] <= 10  # of 100, at 95 %
    assert called[1] > 90  # without the correction for having selected the largest


def test_groups_with_few_utterances_have_no_gap_and_unknown_ones_are_counted():
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    groups = score_subgroups("age", ["20 to 29"] * 3 + ["30 to 39"] * 3 + [""], labels, np.eye(3)[labels], EMOTIONS)
    assert groups.gap is None
    assert groups.unknown == 1
    assert {name: scores.utterances for name, scores in groups.scores.items()} == {"20 to 29": 3, "30 to 39": 3}
