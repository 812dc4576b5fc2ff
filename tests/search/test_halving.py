"""Successive halving: its rounds, its number of epochs, and the candidates that it keeps."""

import pytest

from affekt.errors import BadConfig
from affekt.search.halving import Halving, finish_round


@pytest.mark.parametrize("num_candidates", [1, 2, 5, 8, 20])
@pytest.mark.parametrize("epochs", [1, 3, 8, 50])
@pytest.mark.parametrize(("first", "factor"), [(1, 2), (2, 3), (4, 2)])
def test_the_last_round_keeps_one_candidate_and_ends_at_the_last_epoch(num_candidates, epochs, first, factor):
    rounds = Halving(first, factor).rounds(num_candidates, epochs)
    last_epochs, kept = zip(*rounds, strict=True)
    assert rounds[-1] == (epochs, 1)
    assert list(last_epochs) == sorted(set(last_epochs))
    assert list(kept) == sorted(kept, reverse=True)
    pairs = zip((num_candidates, *kept[:-2]), kept[:-1], strict=False)
    assert all(num_kept >= num_trained / factor for num_trained, num_kept in pairs)


@pytest.mark.parametrize("num_candidates", [1, 2, 5, 8, 20])
def test_total_epochs_is_the_sum_over_all_candidates(num_candidates):
    halving, epochs = Halving(1, 2), 16
    epochs_of = dict.fromkeys(range(num_candidates), 0)
    remaining, previous_epoch = list(range(num_candidates)), 0
    for last_epoch, num_kept in halving.rounds(num_candidates, epochs):
        for candidate in remaining:
            epochs_of[candidate] += last_epoch - previous_epoch
        remaining, previous_epoch = remaining[:num_kept], last_epoch
    assert halving.total_epochs(num_candidates, epochs) == sum(epochs_of.values())
    assert epochs_of[0] == epochs


def test_a_first_round_of_all_epochs_is_the_only_one():
    """This is the search of the paper."""
    assert Halving(first=50).rounds(4, 50) == [(50, 1)]
    assert Halving(first=50).total_epochs(4, 50) == 200


def test_the_lowest_losses_are_kept_and_ties_are_sorted_by_name():
    finished = finish_round(2, {"d": 0.5, "c": None, "b": 0.7, "a": 0.5}, 2)
    assert finished.kept == ("a", "d")
    assert finished.losses["c"] is None


def test_a_candidate_without_a_loss_is_never_kept():
    assert finish_round(1, {"a": None, "b": 3.0}, 2).kept == ("b",)
    with pytest.raises(BadConfig, match="all 2 candidates diverged before epoch 1 ended"):
        finish_round(1, {"a": None, "b": None}, 1)


@pytest.mark.parametrize(("first", "factor"), [(0, 2), (1, 1)])
def test_invalid_halving_settings_raise_bad_config(first, factor):
    with pytest.raises(BadConfig, match=f"first = {first}, factor = {factor}: expected first >= 1 and factor >= 2"):
        Halving(first, factor)
