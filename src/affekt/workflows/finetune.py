"""Fine-tune a bundle on your own data: make the recipe that starts from the bundle, resolve it, and read the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affekt.bundle.folder import Bundle
from affekt.config import decode, encode, override
from affekt.corpora.source import Source, read_all
from affekt.errors import BadCorpus
from affekt.protocols.grouped import SpeakerFolds
from affekt.protocols.split import Split, utterance_key
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Recipe
from affekt.utterance import Utterance
from affekt.workflows.official_split import official_protocol
from affekt.workflows.training_data import TrainingData

NUM_FOLDS = 5
"""Number of folds; one of them, a fifth of the speakers or of the utterances, is the test subset."""
MIN_UTTERANCES = 10
"""Fewer utterances are refused."""
MIN_SPEAKERS = 3
"""With fewer speakers, utterances are held out instead of speakers."""


def plan_finetuning(
    start: str, sources: Sequence[Source], name: str, assignments: Sequence[str] = ()
) -> tuple[Plan, TrainingData]:
    """Plan the fine-tuning of a bundle on your own data. The bundle is opened and the data are read only once.

    Args:
        start: The folder of the bundle, or the name of a shipped bundle.
        sources: The data.
        name: The name of the new bundle.
        assignments: Settings of the recipe to change, as `key=value`.

    Raises:
        BadBundle: The bundle is missing or incomplete.
        BadConfig: A setting is wrong.
        BadCorpus: The data cannot be read, or there are too few utterances.
    """
    bundle, utterances = Bundle.open(start), read_all(sources)
    recipe = _recipe(bundle, start, sources, utterances, name, assignments)
    same_sources = tuple(recipe.sources) == tuple(sources)
    return resolve(recipe, origin=bundle), TrainingData.read(recipe, utterances if same_sources else None)


def finetuning_recipe(start: str, sources: Sequence[Source], name: str, assignments: Sequence[str] = ()) -> Recipe:
    """Return the recipe that fine-tunes a bundle on your own data; arguments and errors as in `plan_finetuning`."""
    return _recipe(Bundle.open(start), start, sources, read_all(sources), name, assignments)


def _recipe(
    bundle: Bundle,
    start: str,
    sources: Sequence[Source],
    utterances: Sequence[Utterance],
    name: str,
    assignments: Sequence[str],
) -> Recipe:
    """Return the recipe. docs/tutorials/own-data.md explains how its settings were chosen."""
    settings: dict[str, Any] = {
        "name": name,
        "about": f"Fine-tuned from {bundle.id} on {', '.join(source.title for source in sources)}.",
        "labels": "all",
        "corpora": [_to_setting(source) for source in sources],
        **_choose_protocol(utterances, assignments),
        "start": start,
        "training": {
            "epochs": 15,
            "batch_size": 16,
            "augmentation": {"crop": 0.3},
            "votes": float(any(source.annotators == "votes" for source in sources)),
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
    recipe: Recipe = decode(Recipe, override(settings, list(assignments)), "--from")
    if settings["protocol"]["name"] == "official" and recipe.validation_settings:
        settings["protocol"] = official_protocol(utterances, needs_validation=True)
        recipe = decode(Recipe, override(settings, list(assignments)), "--from")
    return recipe


def _to_setting(source: Source) -> str | dict[str, Any]:
    """Return a source as a setting of a recipe: in its short form if that describes it completely."""
    short = f"{source.name}:{source.root}" if source.root else source.name
    return short if Source.parse(short) == source else encode(source)


def _choose_protocol(utterances: Sequence[Utterance], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the settings `protocol` and `folds`, which the assignments may change.

    If the data have a split, it is used. Otherwise, a fifth of the speakers is held out if that is possible, or else a
    fifth of the utterances; the scores are then not marked as speaker-independent.
    """
    if len(utterances) < MIN_UTTERANCES:
        raise BadCorpus(
            f"{len(utterances)} utterances are too few for training and testing: expected {MIN_UTTERANCES} or more"
        )
    names_protocol = any(text.partition("=")[0].strip() in ("protocol", "protocol.name") for text in assignments)
    if any(utterance.split for utterance in utterances) and not names_protocol:
        return {"protocol": official_protocol(utterances)}
    speakers = {utterance.speaker_key for utterance in utterances if utterance.speaker}
    if len(speakers) < MIN_SPEAKERS or not all(utterance.speaker for utterance in utterances):
        return {"protocol": {"name": "random-hold-out", "test": 1 / NUM_FOLDS}}
    folds = SpeakerFolds(k=min(NUM_FOLDS, len(speakers))).folds(utterances)
    emotions = {utterance_key(utterance): utterance.emotion for utterance in utterances}
    best = min(range(len(folds)), key=lambda index: _count_missing_emotions(folds[index], emotions))
    return {"protocol": {"name": "speaker-folds", "k": len(folds)}, "folds": [best + 1]}


def _count_missing_emotions(split: Split, emotions: dict[str, str]) -> tuple[int, int]:
    """Return how many emotions are missing from the training subset, and how many from the test subset."""
    all_emotions = set(emotions.values())
    train, test = ({emotions[key] for key in split.subsets[subset]} for subset in ("train", "test"))
    return len(all_emotions - train), len(all_emotions - test)
