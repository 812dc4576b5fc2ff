"""Model selection: named rules that select the epoch at which a run is scored."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig
from affekt.evaluation.metrics import confusion, cross_entropy, ua, wf1
from affekt.runs.folder import Run

Rule = Literal["last", "validation", "validation-wf1", "validation-loss", "paper"]

RULES: dict[Rule, str] = {
    "last": "last epoch, fixed before training",
    "validation": "best UA on the validation subset",
    "validation-wf1": "best WF1 on the validation subset",
    "validation-loss": "lowest cross-entropy on the validation subset",
    "paper": "best UA on the TEST set, as some published code does: optimistic",
}
SELECTION_SUBSET: dict[Rule, str] = {
    "validation": "validation",
    "validation-wf1": "validation",
    "validation-loss": "validation",
    "paper": "test",
}
"""Rule -> the subset on which it compares epochs; "last" needs none."""
StoppingMetric = Literal["UA", "WF1", "loss"]
STOPPING_RULES: dict[StoppingMetric, Rule] = {"UA": "validation", "WF1": "validation-wf1", "loss": "validation-loss"}
"""Metric of early stopping -> the rule that selects the best epoch by it, on the validation subset."""
Metric = Callable[[NDArray[np.int64], NDArray[np.float32]], float]


def select_epoch(run: Run, rule: Rule) -> int:
    """Return the epoch that a rule selects; the earliest if several are equally good.

    Raises:
        BadConfig: No epoch is finished, the rule is unknown, or the run has no predictions on the subset that it needs.
    """
    epochs = run.epochs
    if not epochs:
        raise BadConfig(f"{run.folder} has no finished epoch")
    if rule == "last":
        return epochs[-1]
    if rule not in RULES:
        raise BadConfig(f"there is no selection rule {rule!r} (known: {', '.join(RULES)})")
    subset = SELECTION_SUBSET[rule]
    if subset not in run.predictions(epochs[0]):
        raise BadConfig(
            f"selection {rule!r} needs predictions on the {subset} subset, which {run.folder} does not have"
        )
    scores = {epoch: _selection_score(run, epoch, rule, run.modified_at(epoch)) for epoch in epochs}
    return max(epochs, key=lambda epoch: (scores[epoch], -epoch))


@functools.lru_cache(maxsize=100_000)
def _selection_score(run: Run, epoch: int, rule: Rule, modified_at: int) -> float:  # noqa: ARG001 (part of the key)
    """Return an epoch's score under a rule. Cached, since a run compares all earlier epochs after each epoch."""
    subset = SELECTION_SUBSET[rule]
    return SELECTION_METRICS.get(rule, _ua)(run.labels(subset), run.predictions(epoch)[subset])


def _ua(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    return ua(confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1]))


def _wf1(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    return wf1(confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1]))


def _negative_loss(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> float:
    return -cross_entropy(labels, probabilities)


SELECTION_METRICS: dict[Rule, Metric] = {"validation-wf1": _wf1, "validation-loss": _negative_loss}
"""Rule -> the metric that it maximizes; UA for other rules."""


def out_of_patience(run: Run, patience: int, metric: StoppingMetric = "UA") -> bool:
    """Return True if the best epoch on the validation subset is `patience` or more epochs ago; False if `patience` is 0.

    Args:
        run: The run.
        patience: A number of epochs.
        metric: The metric by which epochs are compared: the highest UA or WF1, or the lowest loss (cross-entropy).
    """
    return bool(patience and run.epochs) and run.epochs[-1] - select_epoch(run, STOPPING_RULES[metric]) >= patience
