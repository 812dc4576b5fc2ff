"""Which epoch of a run counts. The rules are named, and a score says by which it was chosen."""

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
    "last": "last epoch, chosen before training",
    "validation": "best UA on the validation part",
    "validation-wf1": "best WF1 on the validation part",
    "validation-loss": "lowest cross-entropy on the validation part",
    "paper": "best UA on the TEST part, as some published code does: optimistic",
}
PART: dict[Rule, str] = {
    "validation": "validation",
    "validation-wf1": "validation",
    "validation-loss": "validation",
    "paper": "test",
}
Measure = Callable[[NDArray[np.int64], NDArray[np.float32]], float]


def select(run: Run, rule: Rule) -> int:
    """The epoch that a rule chooses; the earliest of equals. Raises `BadConfig` where it cannot."""
    epochs = run.epochs
    if not epochs:
        raise BadConfig(f"{run.folder} has no finished epoch")
    if rule == "last":
        return epochs[-1]
    if rule not in RULES:
        raise BadConfig(f"there is no selection {rule!r} (known: {', '.join(RULES)})")
    part = PART[rule]
    if part not in run.predictions(epochs[0]):
        raise BadConfig(f"selection {rule!r} needs predictions on the part {part!r}, which {run.folder} has not")
    scores = {epoch: _score(run, epoch, rule, run.written(epoch)) for epoch in epochs}
    return max(epochs, key=lambda epoch: (scores[epoch], -epoch))


@functools.lru_cache(maxsize=100_000)
def _score(run: Run, epoch: int, rule: Rule, written: int) -> float:  # noqa: ARG001 (what is written anew is read anew)
    """By what a rule chooses. A run of many epochs asks for it after each of them, of all before."""
    part = PART[rule]
    return MEASURES.get(rule, _ua)(run.labels(part), run.predictions(epoch)[part])


def _ua(labels: NDArray[np.int64], answers: NDArray[np.float32]) -> float:
    return ua(confusion(labels, answers.argmax(axis=1), answers.shape[1]))


def _wf1(labels: NDArray[np.int64], answers: NDArray[np.float32]) -> float:
    return wf1(confusion(labels, answers.argmax(axis=1), answers.shape[1]))


def _closeness(labels: NDArray[np.int64], answers: NDArray[np.float32]) -> float:
    return -cross_entropy(labels, answers)


MEASURES: dict[Rule, Measure] = {"validation-wf1": _wf1, "validation-loss": _closeness}  # UA by the others


def out_of_patience(run: Run, patience: int) -> bool:
    """Whether the best epoch by the validation part lies `patience` epochs back; never with a patience of 0."""
    return bool(patience and run.epochs) and run.epochs[-1] - select(run, "validation") >= patience
