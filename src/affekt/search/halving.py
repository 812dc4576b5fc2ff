"""Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS 2016): all candidates are trained a little, the better ones go on, until one is left and trained to its end.

EmotionNAS itself trains every candidate to its end (section 2.2): one round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from affekt.errors import BadConfig
from affekt.search.folder import Round


@dataclass(frozen=True)
class Halving:
    """first: epochs of the first round; `factor`: how many times more in the next, and how many times fewer candidates."""

    first: int = 1
    factor: int = 2

    def __post_init__(self) -> None:
        if self.first < 1 or self.factor < 2:
            raise BadConfig(f"halving: first = {self.first}, factor = {self.factor}: expected at least 1 and 2")

    def plan(self, candidates: int, epochs: int) -> list[tuple[int, int]]:
        """The rounds: after how many epochs in all each ends, and how many candidates it keeps. The last goes to the end."""
        rounds: list[tuple[int, int]] = []
        length, left = self.first, candidates
        while length < epochs and left > 1:
            left = -(-left // self.factor)
            rounds.append((length, left))
            length *= self.factor
        return [*rounds, (epochs, 1)]

    def cost(self, candidates: int, epochs: int) -> int:
        """The epochs of all candidates together."""
        total, before, left = 0, 0, candidates
        for length, kept in self.plan(candidates, epochs):
            total += (length - before) * left
            before, left = length, kept
        return total


def select_survivors(epochs: int, losses: Mapping[str, float | None], keep: int) -> Round:
    """A round's end: the candidates of the lowest losses go on; of equals, the first by name. Those without one do not.

    Raises `BadConfig` where no candidate has one.
    """
    known = {name: loss for name, loss in losses.items() if loss is not None}
    if not known:
        raise BadConfig(f"after {epochs} epochs no candidate's loss is a number: try a lower learning_rate, or clip")
    order = sorted(known, key=lambda name: (known[name], name))
    return Round(epochs, dict(losses), tuple(order[:keep]))
