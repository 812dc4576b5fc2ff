"""Successive halving: what it plans, what it costs, and who goes on."""

import pytest

from affekt.errors import BadConfig
from affekt.search.halving import Halving, select_survivors


@pytest.mark.parametrize("candidates", [1, 2, 5, 8, 20])
@pytest.mark.parametrize("epochs", [1, 3, 8, 50])
@pytest.mark.parametrize(("first", "factor"), [(1, 2), (2, 3), (4, 2)])
def test_a_plan_ends_with_one_candidate_at_the_last_epoch(candidates, epochs, first, factor):
    plan = Halving(first, factor).plan(candidates, epochs)
    lengths, kept = zip(*plan, strict=True)
    assert plan[-1] == (epochs, 1)
    assert list(lengths) == sorted(set(lengths))
    assert list(kept) == sorted(kept, reverse=True)
    assert all(later >= before / factor for before, later in zip((candidates, *kept[:-2]), kept[:-1], strict=False))


@pytest.mark.parametrize("candidates", [1, 2, 5, 8, 20])
def test_the_cost_is_what_every_candidate_is_trained(candidates):
    halving, epochs = Halving(1, 2), 16
    trained, left, before = dict.fromkeys(range(candidates), 0), list(range(candidates)), 0
    for length, kept in halving.plan(candidates, epochs):
        for one in left:
            trained[one] += length - before
        left, before = left[:kept], length
    assert halving.cost(candidates, epochs) == sum(trained.values())
    assert trained[0] == epochs


def test_a_first_round_to_the_end_is_the_papers_search():
    assert Halving(first=50).plan(4, 50) == [(50, 1)]
    assert Halving(first=50).cost(4, 50) == 200


def test_the_lowest_losses_go_on_and_equals_by_name():
    ended = select_survivors(2, {"d": 0.5, "c": None, "b": 0.7, "a": 0.5}, 2)
    assert ended.kept == ("a", "d")
    assert ended.losses["c"] is None


def test_no_candidate_without_a_loss_goes_on():
    assert select_survivors(1, {"a": None, "b": 3.0}, 2).kept == ("b",)
    with pytest.raises(BadConfig, match="after 1 epochs no candidate's loss is a number"):
        select_survivors(1, {"a": None, "b": None}, 1)


@pytest.mark.parametrize(("first", "factor"), [(0, 2), (1, 1)])
def test_a_halving_that_does_not_halve_is_refused(first, factor):
    with pytest.raises(BadConfig, match=f"first = {first}, factor = {factor}: expected at least 1 and 2"):
        Halving(first, factor)
