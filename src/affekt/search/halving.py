"""Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS 2016): all candidates are trained for a few epochs, then the better ones for more, until one is left and trained to
the last epoch.

EmotionNAS itself trains every candidate to the last epoch (section 2.2), which is a single round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from affekt.errors import BadConfig
from affekt.search.folder import Round


@dataclass(frozen=True)
class Halving:
    """Settings of successive halving."""

    first: int = 1
    """Number of epochs of the first round."""
    factor: int = 2
    """After each round, the number of epochs is multiplied by this factor, and the number of candidates divided by it."""

    def __post_init__(self) -> None:
        if self.first < 1 or self.factor < 2:
            raise BadConfig(
                f"halving.first = {self.first}, factor = {self.factor}: expected first >= 1 and factor >= 2"
            )

    def rounds(self, num_candidates: int, epochs: int) -> list[tuple[int, int]]:
        """Return, for each round, its last epoch and the number of candidates that are kept after it.

        The last round ends at the last epoch and keeps one candidate.

        Args:
            num_candidates: Number of candidates of the first round.
            epochs: Number of epochs of a whole training run.
        """
        rounds: list[tuple[int, int]] = []
        last_epoch, num_kept = self.first, num_candidates
        while last_epoch < epochs and num_kept > 1:
            num_kept = -(-num_kept // self.factor)
            rounds.append((last_epoch, num_kept))
            last_epoch *= self.factor
        return [*rounds, (epochs, 1)]

    def total_epochs(self, num_candidates: int, epochs: int) -> int:
        """Return the number of epochs that all candidates together are trained for."""
        total, previous_epoch, num_trained = 0, 0, num_candidates
        for last_epoch, num_kept in self.rounds(num_candidates, epochs):
            total += (last_epoch - previous_epoch) * num_trained
            previous_epoch, num_trained = last_epoch, num_kept
        return total


def finish_round(epochs: int, losses: Mapping[str, float | None], keep: int) -> Round:
    """Return a finished round, which keeps the candidates with the lowest losses.

    Args:
        epochs: The round's last epoch.
        losses: Candidate -> its lowest loss; None if its training diverged. Such a candidate is never kept.
        keep: Largest number of candidates to keep. Of equal losses, the first by name is kept.

    Raises:
        BadConfig: No candidate has a loss.
    """
    known = {name: loss for name, loss in losses.items() if loss is not None}
    if not known:
        raise BadConfig(
            f"the training of all {len(losses)} candidates diverged before epoch {epochs} ended: try a lower "
            "learning_rate or gradient clipping (clip)"
        )
    order = sorted(known, key=lambda name: (known[name], name))
    return Round(epochs, dict(losses), tuple(order[:keep]))
