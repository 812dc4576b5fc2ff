"""Anyone's own data in one command: a recipe that starts from a bundle and ends in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affekt.bundle.folder import Bundle
from affekt.config import decode, encode, override
from affekt.corpora.source import Source, read_all
from affekt.errors import BadCorpus
from affekt.protocols.grouped import SpeakerFolds
from affekt.protocols.split import Split, key
from affekt.training.recipe import Recipe
from affekt.utterance import Utterance

FOLDS = 5  # of which one is tested: a fifth of the people, or of the utterances
LEAST = 10  # utterances
FEW = 3  # people; with fewer, none can be kept apart


def finetuning_recipe(start: str, sources: Sequence[Source], name: str, assignments: Sequence[str] = ()) -> Recipe:
    """The recipe that fine-tunes a bundle on one's own sources, with `key=value` assignments applied.

    Whole people are held out where the sources say who speaks, and there are three or more; else a fifth of the
    utterances, of which the scores then say that they are not speaker-independent. How the settings were found stands in
    docs/tutorials/own-data.md. Raises `BadBundle`, `BadConfig` and `BadCorpus`.
    """
    bundle = Bundle.open(start)
    settings: dict[str, Any] = {
        "name": name,
        "about": f"Fine-tuned from {bundle.id} on {', '.join(source.title for source in sources)}.",
        "labels": "all",
        "corpora": [_written(source) for source in sources],
        **_held_out(read_all(sources)),
        "start": start,
        "training": {
            "epochs": 15,
            "batch_size": 16,
            "augmentation": {"crop": 0.3},
            "strategy": {
                "learning_rate": 5e-4,
                "weight_decay": 0.05,
                "warmup": 0.1,
                "cosine": True,
                "clip": 1.0,
                "averaging": 0.98,
                "class_weights": True,
            },
        },
    }
    return decode(Recipe, override(settings, list(assignments)), "--from")


def _written(source: Source) -> str | dict[str, Any]:
    """A source as a recipe writes it down: in its short form where that says all."""
    short = f"{source.name}:{source.root}" if source.root else source.name
    return short if Source.parse(short) == source else encode(source)


def _held_out(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """How these utterances are best held out: the recipe's protocol, and which of its folds."""
    if len(utterances) < LEAST:
        raise BadCorpus(
            f"{len(utterances)} utterances are too few to learn from and hold some out: expected {LEAST} or more"
        )
    people = {utterance.speaker_key for utterance in utterances if utterance.speaker}
    if len(people) < FEW or not all(utterance.speaker for utterance in utterances):
        return {"protocol": {"name": "random-hold-out", "test": 1 / FOLDS}}
    folds = SpeakerFolds(k=min(FOLDS, len(people))).folds(utterances)
    emotions = {key(utterance): utterance.emotion for utterance in utterances}
    best = min(range(len(folds)), key=lambda index: _lacking(folds[index], emotions))
    return {"protocol": {"name": "speaker-folds", "k": len(folds)}, "folds": [best + 1]}


def _lacking(split: Split, emotions: dict[str, str]) -> tuple[int, int]:
    """How many emotions cannot be learnt, and how many cannot be scored: nobody in the part speaks so."""
    every = set(emotions.values())
    learnt, scored = ({emotions[one] for one in split.subsets[part]} for part in ("train", "test"))
    return len(every - learnt), len(every - scored)
