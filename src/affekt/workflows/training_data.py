"""What a recipe trains on: utterances, the emotions that it tells apart, splits, and datasets of stored features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.corpora.source import read_all
from affekt.errors import BadConfig, BadCorpus
from affekt.features.augment import Copy
from affekt.features.base import Feature, TextFeature
from affekt.features.extract import extract
from affekt.features.extract_text import extract_text
from affekt.features.store import Stored
from affekt.labels import LabelSet
from affekt.progress import Progress
from affekt.protocols import Split, key
from affekt.training.dataset import Dataset
from affekt.training.finetuning import TEACHER, feature_spec
from affekt.training.recipe import Recipe
from affekt.training.strategies import Datasets
from affekt.utterance import Utterance

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingData:
    """What a recipe trains on: its utterances, by their keys, and the emotions that it tells apart."""

    utterances: Mapping[str, Utterance]
    labels: LabelSet

    @classmethod
    def read(cls, recipe: Recipe, say: Say = print) -> TrainingData:
        """The utterances of a recipe's corpora whose emotion is in its label set; those left out are counted aloud."""
        everything = read_all(recipe.sources)
        labels = recipe.label_set(everything)
        kept = [u for source in recipe.sources for u in select_utterances(everything, labels, source.id, say)]
        found = sorted({labels.emotions[index] for u in kept if (index := labels.index_of(u)) is not None})
        if len(found) < 2:
            what = f"all {len(kept)} utterances are {found[0]}" if found else "no utterance is of the label set"
            raise BadCorpus(f"{what}: expected utterances of two emotions at least")
        return cls({key(utterance): utterance for utterance in kept}, labels)

    def index(self, one: str) -> int:
        index = self.labels.index_of(self.utterances[one])
        assert index is not None
        return index

    def of(self, ids: Sequence[str]) -> list[Utterance]:
        return [self.utterances[one] for one in ids]

    def truth(self, ids: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self.index(one) for one in ids], np.int64)

    def folds(self, recipe: Recipe) -> list[tuple[int, Split]]:
        """The recipe's splits with their numbers, from 1; those that it names, or all."""
        label = self._emotion
        made = recipe.build_protocol().folds(list(self.utterances.values()), recipe.split_seed, label=label)
        if unknown := set(recipe.folds) - set(range(1, len(made) + 1)):
            raise BadConfig(f"folds names {sorted(unknown)}: the protocol makes 1 to {len(made)}")
        chosen = [(number, split) for number, split in enumerate(made, 1) if number in (recipe.folds or {number})]
        return [(number, self._judged(split, recipe.origin)) for number, split in chosen]

    def _judged(self, split: Split, start: Bundle | None) -> Split:
        """The split, which is not speaker-independent if the bundle that training starts from heard those who are scored."""
        if start is None or not (start.folder / "split.json").is_file():
            return split
        before = Split.load(start.file("split.json")).subsets["train"]
        heard = {self.utterances[one].speaker_key for one in before if one in self.utterances}
        scored = {
            self.utterances[one].speaker_key for part, ids in split.subsets.items() if part != "train" for one in ids
        }
        return replace(split, speaker_independent=False, undecided=False) if heard & scored else split

    def _emotion(self, utterance: Utterance) -> str:
        return self.labels.emotions[self.index(key(utterance))]

    def votes(self, ids: Sequence[str], share: float) -> NDArray[np.float32]:
        """Targets, (utterances, emotions): the label's, and a share of the crowd's votes where there are any."""
        targets = np.eye(len(self.labels), dtype=np.float32)[self.truth(ids)]
        for row, utterance in zip(targets, self.of(ids), strict=True):
            crowd = np.zeros(len(self.labels), np.float32)
            for emotion, votes in utterance.votes.items():
                if (index := self.labels.index(emotion)) is not None:
                    crowd[index] += votes
            if crowd.sum() > 0:
                row[:] = (1 - share) * row + share * crowd / crowd.sum()
        return targets


def select_utterances(utterances: Sequence[Utterance], labels: LabelSet, corpus: str, say: Say) -> list[Utterance]:
    """A corpus's utterances that belong to the label set; those left out are counted aloud."""
    mine = [utterance for utterance in utterances if utterance.corpus == corpus]
    kept = [utterance for utterance in mine if labels.index_of(utterance) is not None]
    others = sorted({u.emotion for u in mine} - {u.emotion for u in kept})
    named = f" of other emotions ({', '.join(others)})" if others else ""
    left = f"; {len(mine) - len(kept)}{named} left out" if len(kept) < len(mine) else ""
    people = {utterance.speaker for utterance in kept}
    known = "speakers unknown" if people == {""} else f"of {_many(len(people - {''}), 'speaker')}"
    doubt = ", not all of them known" if "" in people and len(people) > 1 else ""
    say(f"{corpus}: {_many(len(kept), 'utterance')} {known}{doubt}{left}")
    return kept


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def speakers_of(utterances: Sequence[Utterance]) -> list[str] | None:
    """Who speaks each utterance; None where that is not known of all."""
    return [u.speaker_key for u in utterances] if all(u.speaker for u in utterances) else None


def recorded_split(recipe: Recipe, split: Split) -> Split:
    """The split as a run of the recipe keeps it: those that a fusion of finished networks is trained on were heard too."""
    if recipe.training.subset == "train":
        return split
    parts = {part: ids for part, ids in split.subsets.items() if part != recipe.training.subset}
    heard = sorted({*split.subsets["train"], *split.subsets[recipe.training.subset]})
    return replace(split, subsets={**parts, "train": tuple(heard)})


def build_datasets(
    recipe: Recipe,
    encoders: Mapping[str, Feature],
    material: TrainingData,
    split: Split,
    say: Say,
    progress: Progress | None = None,
) -> Datasets:
    """The part that is trained on, with its altered copies, and the parts that are scored, by name."""
    kept = recorded_split(recipe, split)
    scored = {
        part: dataset(recipe, encoders, material, ids, progress)
        for part, ids in kept.subsets.items()
        if part != "train"
    }
    trained_on = dataset(recipe, encoders, material, split.subsets[recipe.training.subset], progress)
    heard = _with_copies(trained_on, recipe, encoders, material, say, progress)
    if recipe.training.teacher:
        heard = _with_teacher(heard, recipe, material, say, progress)
    sizes = ", ".join(f"{part} {len(ids)}" for part, ids in kept.subsets.items())
    say(f"{kept.title}, {kept.verdict}, split {kept.hash}")
    say(f"  {sizes} utterances")
    learnt = {material.labels.emotions[index] for index in set(heard.labels.tolist())}
    if unheard := [emotion for emotion in material.labels.emotions if emotion not in learnt]:
        say(f"nothing to learn {', '.join(unheard)} from: no utterance of the training part is so")
    return Datasets(heard, scored)


def _with_teacher(
    train: Dataset, recipe: Recipe, material: TrainingData, say: Say, progress: Progress | None
) -> Dataset:
    """The training part with the teacher's frames of the unaltered speech; its copies have the same."""
    teacher = recipe.build_teacher()
    say("the teacher's frames")
    name, device = str(recipe.training.teacher["name"]), recipe.training.device
    frames = {TEACHER: extract(teacher, name, material.of(train.ids), progress=progress, device=device)}
    copies = [{**copy, **frames} for copy in train.copies]
    specs = {**train.specs, TEACHER: feature_spec(teacher)}
    return replace(train, features={**train.features, **frames}, specs=specs, copies=copies)


def dataset(
    recipe: Recipe,
    encoders: Mapping[str, Feature],
    material: TrainingData,
    ids: Sequence[str],
    progress: Progress | None,
) -> Dataset:
    """Utterances with their features, by stream, from the store or computed."""
    soft = material.votes(ids, recipe.training.votes) if recipe.training.votes else None
    features: dict[str, Stored] = {}
    words = {}
    for stream, encoder in encoders.items():
        name, device = feature_name(recipe, stream), recipe.training.device
        if isinstance(encoder, TextFeature):
            features[stream], words[stream] = extract_text(
                encoder, name, material.of(ids), progress=progress, device=device
            )
        else:
            features[stream] = extract(encoder, name, material.of(ids), progress=progress, device=device)
    specs = {stream: feature_spec(encoder) for stream, encoder in encoders.items()}
    return Dataset(ids, material.truth(ids), features, specs, soft, words=words)


def feature_name(recipe: Recipe, stream: str) -> str:
    """What the stored features of a stream are called."""
    name = recipe.encoder_name(stream)
    return f"{name}-front-end" if recipe.training.tune == "all" else name


def _with_copies(
    train: Dataset,
    recipe: Recipe,
    encoders: Mapping[str, Feature],
    material: TrainingData,
    say: Say,
    progress: Progress | None,
) -> Dataset:
    """The training part with its altered copies: of the sound, for the words stay. Nobody else is altered."""
    settings = recipe.training.augmentation
    copies = []
    for number in range(settings.copies):
        say(f"altered copy {number + 1} of {settings.copies}")
        copy = Copy(number, recipe.seed, settings.alteration)
        altered = dict(train.features)
        for stream, encoder in encoders.items():
            if encoder.input == "audio":
                name, device = feature_name(recipe, stream), recipe.training.device
                altered[stream] = extract(
                    encoder, name, material.of(train.ids), copy=copy, progress=progress, device=device
                )
        copies.append(altered)
    return replace(train, copies=copies, copy_probability=settings.copy_probability, crop=settings.crop)
