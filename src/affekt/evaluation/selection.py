"""Which epoch of a run counts. The rules are named, and a score says by which it was chosen."""

from __future__ import annotations

from typing import Literal

from affekt.errors import BadConfig
from affekt.metrics import confusion, ua, wf1
from affekt.run import Run

Rule = Literal["last", "validation", "validation-wf1", "paper"]

RULES: dict[Rule, str] = {
    "last": "last epoch, chosen before training",
    "validation": "best UA on the validation part",
    "validation-wf1": "best WF1 on the validation part",
    "paper": "best UA on the TEST part, as some published code does: optimistic",
}
PART: dict[Rule, str] = {"validation": "validation", "validation-wf1": "validation", "paper": "test"}


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
    labels, emotions = run.labels(part), len(run.emotions)
    measure = wf1 if rule == "validation-wf1" else ua
    scores = {e: measure(confusion(labels, run.predictions(e)[part].argmax(axis=1), emotions)) for e in epochs}
    return max(epochs, key=lambda epoch: (scores[epoch], -epoch))


def out_of_patience(run: Run, patience: int) -> bool:
    """Whether the best epoch by the validation part lies `patience` epochs back; never with a patience of 0."""
    return bool(patience and run.epochs) and run.epochs[-1] - select(run, "validation") >= patience
