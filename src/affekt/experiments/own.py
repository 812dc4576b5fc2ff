"""Anyone's own data in one command: a recipe that starts from a bundle and ends in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affekt.config import decode, override
from affekt.corpora.source import Source, read_all
from affekt.training.recipe import Recipe

FOLDS = 5  # of which one is tested: a fifth of the people, or of the utterances
FEW = 3  # people; with fewer, none can be kept apart


def own_recipe(start: str, corpora: Sequence[str], name: str, assignments: Sequence[str] = ()) -> Recipe:
    """The recipe that fine-tunes a bundle on one's own sources, with `key=value` assignments applied.

    Whole people are held out where the sources say who speaks, and there are three or more; else a fifth of the
    utterances, of which the scores then say that they are not speaker-independent.
    """
    settings: dict[str, Any] = {
        "name": name,
        "about": f"Fine-tuned from {start} on {', '.join(Source.parse(one).title for one in corpora)}.",
        "labels": "all",
        "corpora": list(corpora),
        "protocol": protocol(corpora),
        "start": start,
        "training": {
            "epochs": 20,
            "batch_size": 16,
            "augmentation": {"crop": 0.3},
            "optimisation": {
                "learning_rate": 3e-4,
                "weight_decay": 0.05,
                "warmup": 0.1,
                "cosine": True,
                "clip": 1.0,
                "label_smoothing": 0.1,
                "averaging": 0.98,
                "class_weights": True,
            },
        },
    }
    if settings["protocol"]["name"] == "speaker-folds":
        settings["folds"] = [1]
    return decode(Recipe, override(settings, list(assignments)), "--from")


def protocol(corpora: Sequence[str]) -> dict[str, Any]:
    """How these sources are best held out."""
    utterances = read_all([Source.parse(one) for one in corpora])
    people = {utterance.person for utterance in utterances if utterance.speaker}
    if len(people) >= FEW and all(utterance.speaker for utterance in utterances):
        return {"name": "speaker-folds", "k": min(FOLDS, len(people))}
    return {"name": "random-hold-out", "test": 1 / FOLDS}
