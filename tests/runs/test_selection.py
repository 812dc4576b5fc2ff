"""Model selection: each rule, on predictions that are made so that the rules disagree."""

import numpy as np
import pytest

from affekt.errors import BadConfig
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.runs.selection import out_of_patience, select_epoch

SUBSETS = {
    "train": ("made/0",),
    "validation": ("made/1", "made/2", "made/3", "made/4"),
    "test": ("made/5", "made/6"),
}
LABELS = {"made/0": 0, "made/1": 0, "made/2": 0, "made/3": 0, "made/4": 1, "made/5": 0, "made/6": 1}
VALIDATION = {1: [0, 0, 0, 0], 2: [0, 1, 1, 1], 3: [0, 1, 1, 0], 4: [1, 1, 1, 0]}
"""Epoch -> predicted emotions; UA 50, 67, 17 and 0 %, and the best WF1 in epoch 1."""
TEST = {1: [0, 0], 2: [0, 0], 3: [0, 1], 4: [0, 0]}
"""Epoch -> predicted emotions; epoch 3 is the best."""
CONFIDENCE = {1: 0.99, 2: 0.9, 3: 0.55, 4: 0.6}


def probabilities(predicted, confidence):
    one_hot = np.eye(2, dtype=np.float32)[predicted]
    return one_hot * confidence + (1 - one_hot) * (1 - confidence)


def make_run(folder, subsets):
    run = Run.start(folder, {"name": "made"}, Split("made", subsets, True), ("happy", "sad"), LABELS)
    for epoch in VALIDATION:
        predictions = {
            "validation": probabilities(VALIDATION[epoch], CONFIDENCE[epoch]),
            "test": probabilities(TEST[epoch], CONFIDENCE[epoch]),
        }
        predictions = {subset: values for subset, values in predictions.items() if subset in subsets}
        run.record(epoch, predictions, {"loss": 1.0})
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", SUBSETS)


@pytest.mark.parametrize(
    ("rule", "epoch"),
    [("last", 4), ("validation", 2), ("validation-wf1", 1), ("validation-loss", 3), ("paper", 3)],
)
def test_each_rule_selects_its_epoch(run, rule, epoch):
    assert select_epoch(run, rule) == epoch


def test_the_earliest_of_equally_good_epochs_is_selected(run):
    run.record(5, run.predictions(2), {"loss": 1.0})
    assert select_epoch(run, "validation") == 2


def test_a_rule_without_its_subset_and_an_unknown_rule_are_refused(tmp_path):
    subsets = {subset: keys for subset, keys in SUBSETS.items() if subset != "validation"}
    run = make_run(tmp_path / "run", subsets)
    with pytest.raises(BadConfig, match="needs predictions on the validation subset"):
        select_epoch(run, "validation")
    with pytest.raises(BadConfig, match="no selection rule 'best'"):
        select_epoch(run, "best")


def test_a_run_without_epochs_is_refused(tmp_path):
    with pytest.raises(BadConfig, match="has no finished epoch"):
        select_epoch(Run(tmp_path), "last")


def test_patience_counts_the_epochs_since_the_best(run):
    assert out_of_patience(run, 2)
    assert not out_of_patience(run, 3)
    assert not out_of_patience(run, 0)
