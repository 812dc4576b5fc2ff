"""The data of a recipe: utterances, emotions, splits, and datasets of stored features."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.bundle.training_clips import TrainingClips
from affekt.corpora.similar_names import similar_names
from affekt.corpora.source import read_all
from affekt.errors import BadConfig, BadCorpus
from affekt.features.augment import Copy
from affekt.features.base import Feature, TextFeature
from affekt.features.extract import extract
from affekt.features.extract_text import extract_text
from affekt.features.store import StoredArrays
from affekt.labels import LabelSet
from affekt.plural import quantity
from affekt.progress import Progress
from affekt.protocols import Split, utterance_key
from affekt.protocols.official import Official
from affekt.protocols.split import DEPENDENT
from affekt.training.dataset import Dataset
from affekt.training.distributed import local_device
from affekt.training.finetuning import TEACHER, feature_spec
from affekt.training.offsets import SourceOffsets
from affekt.training.plan import Plan
from affekt.training.recipe import Recipe
from affekt.training.strategies import Datasets
from affekt.utterance import Utterance
from affekt.workflows.feature_pool import FeaturePool
from affekt.workflows.official_split import describe_official, describe_trained_subsets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The utterances of a recipe's corpora, and its emotions."""

    utterances: Mapping[str, Utterance]
    """Key -> utterance."""
    labels: LabelSet
    left_out: Sequence[Utterance] = ()
    """The utterances of the corpora whose emotion is not in the label set."""

    @classmethod
    def read(cls, recipe: Recipe, utterances: Sequence[Utterance] | None = None) -> TrainingData:
        """Return the utterances of a recipe's corpora whose emotion is in its label set; log how many are left out.

        Args:
            recipe: The recipe.
            utterances: All utterances of its corpora, if already read.

        Raises:
            BadCorpus: A corpus cannot be read, or the utterances have fewer than two emotions.
        """
        if utterances is None:
            utterances = read_all(recipe.sources)
        for source in recipe.sources:
            for line in similar_names(source, [u for u in utterances if u.corpus == source.id]):
                logger.warning("%s: %s", source.id, line)
        labels = recipe.label_set(utterances)
        selected = [u for source in recipe.sources for u in select_utterances(utterances, labels, source.id)]
        emotions = sorted({labels.emotions[index] for u in selected if (index := labels.index_of(u)) is not None})
        if len(emotions) < 2:
            problem = (
                f"all {len(selected)} utterances are {emotions[0]}"
                if emotions
                else "no utterance has an emotion of the label set"
            )
            raise BadCorpus(f"{problem}: expected utterances of at least two emotions")
        by_key = {utterance_key(utterance): utterance for utterance in selected}
        left_out = [utterance for utterance in utterances if utterance_key(utterance) not in by_key]
        return cls(by_key, labels, left_out)

    def label_index(self, key: str) -> int:
        """Return the index of an utterance's emotion."""
        index = self.labels.index_of(self.utterances[key])
        assert index is not None
        return index

    def select(self, keys: Sequence[str]) -> list[Utterance]:
        """Return the utterances with these keys."""
        return [self.utterances[key] for key in keys]

    def label_indices(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the indices of the utterances' emotions, (utterances,)."""
        return np.array([self.label_index(key) for key in keys], np.int64)

    def soft_labels(self, keys: Sequence[str], votes_weight: float) -> NDArray[np.float32]:
        """Return soft targets, (utterances, emotions): a weighted mean of the label and of any votes of the crowd."""
        targets = np.eye(len(self.labels), dtype=np.float32)[self.label_indices(keys)]
        for row, utterance in zip(targets, self.select(keys), strict=True):
            crowd = np.zeros(len(self.labels), np.float32)
            for emotion, votes in utterance.votes.items():
                if (index := self.labels.index(emotion)) is not None:
                    crowd[index] += votes
            if crowd.sum() > 0:
                row[:] = (1 - votes_weight) * row + votes_weight * crowd / crowd.sum()
        return targets

    def folds(self, plan: Plan) -> list[tuple[int, Split]]:
        """Return the splits to train with their numbers, counted from 1: the recipe's `folds`, or all. Raises `BadConfig`."""
        recipe = plan.recipe
        utterances, seed = list(self.utterances.values()), recipe.split_seed
        splits = plan.protocol.folds(utterances, seed, label=self._emotion, left_out=self.left_out)
        if unknown := set(recipe.folds) - set(range(1, len(splits) + 1)):
            raise BadConfig(f"folds: there is no fold {sorted(unknown)}; the protocol makes folds 1 to {len(splits)}")
        numbered = [(number, split) for number, split in enumerate(splits, 1) if number in (recipe.folds or {number})]
        self._check_validation(plan, [split for _, split in numbered])
        self._log_official_split(plan, [split for _, split in numbered])
        self._log_unused(numbered)
        if plan.origin is None:
            return numbered
        known = self._find_known_clips(plan.origin, [split for _, split in numbered])
        return [(number, self._mark_known(split, plan.origin, known)) for number, split in numbered]

    @staticmethod
    def _check_validation(plan: Plan, splits: Sequence[Split]) -> None:
        """Raise `BadConfig` if a setting needs a validation subset and the split of the data has none."""
        if plan.recipe.validation_settings and any("validation" not in split.subsets for split in splits):
            raise BadConfig(
                f"{plan.recipe.validation_settings[0]} needs a validation subset, and the split has none: set the protocol's "
                "setting `validation`, such as protocol.validation=0.1"
            )

    def _log_official_split(self, plan: Plan, splits: Sequence[Split]) -> None:
        """Log the split stated in the data, if it is used; otherwise, warn if its test or validation subset is trained on."""
        utterances = list(self.utterances.values())
        if not any(utterance.split for utterance in utterances):
            return
        if isinstance(plan.protocol, Official):
            for line in describe_official(utterances):
                logger.info("%s", line)
            return
        for line in dict.fromkeys(line for split in splits for line in describe_trained_subsets(split, utterances)):
            logger.warning("%s", line)

    def _log_unused(self, folds: Sequence[tuple[int, Split]]) -> None:
        """Warn about utterances that are in no subset of a fold, which split files may leave out."""
        for number, split in folds:
            used = {key for keys in split.subsets.values() for key in keys}
            if unused := sorted(set(self.utterances) - used):
                logger.warning(
                    "%d of %s are in no subset of fold %d and are not used (first: %s)",
                    len(unused),
                    quantity(len(self.utterances), "utterance"),
                    number,
                    unused[0],
                )

    def _emotion(self, utterance: Utterance) -> str:
        return self.labels.emotions[self.label_index(utterance_key(utterance))]

    def _find_known_clips(self, origin: Bundle, splits: Sequence[Split]) -> set[str]:
        """Return the scored utterances that the bundle to start from was trained on, and log their number."""
        scored = {
            name for split in splits for subset, keys in split.subsets.items() if subset != "train" for name in keys
        }
        known = TrainingClips.of_bundle(origin).find(self.select(sorted(scored)))
        if known:
            logger.warning(
                "%d of the %s for testing or validation are clips that %s was trained on (first: %s): scores on them are too "
                "high, and not speaker-independent",
                len(known),
                quantity(len(scored), "utterance"),
                origin.id,
                min(known),
            )
        return known

    def _mark_known(self, split: Split, origin: Bundle, known: set[str]) -> Split:
        """Mark a split as not speaker-independent if the bundle to start from was trained on test speakers or clips.

        The same holds for its verdict on the validation subset.
        """
        trained_on = set[str]()
        if (origin.folder / "split.json").is_file():
            earlier = Split.load(origin.file("split.json")).subsets["train"]
            trained_on = {self.utterances[key].speaker_key for key in earlier if key in self.utterances}

        def is_known(subset: str) -> bool:
            keys = set(split.subsets.get(subset, ()))
            return bool(known & keys or trained_on & {self.utterances[key].speaker_key for key in keys})

        if is_known("validation"):
            split = replace(split, validation_verdict=DEPENDENT)
        return replace(split, speaker_independent=False, undecided=False) if is_known("test") else split


def select_utterances(utterances: Sequence[Utterance], labels: LabelSet, corpus: str) -> list[Utterance]:
    """Return a corpus's utterances that belong to the label set, and log how many are left out."""
    all_of_corpus = [utterance for utterance in utterances if utterance.corpus == corpus]
    selected = [utterance for utterance in all_of_corpus if labels.index_of(utterance) is not None]
    other_emotions = sorted({u.emotion for u in all_of_corpus} - {u.emotion for u in selected})
    named = f" of other emotions ({', '.join(other_emotions)})" if other_emotions else ""
    num_left_out = len(all_of_corpus) - len(selected)
    left_out = f"; {num_left_out}{named} left out" if num_left_out else ""
    speakers = {utterance.speaker for utterance in selected}
    known = "speakers unknown" if speakers == {""} else f"of {quantity(len(speakers - {''}), 'speaker')}"
    doubt = ", not all of them known" if "" in speakers and len(speakers) > 1 else ""
    logger.info("%s: %s %s%s%s", corpus, quantity(len(selected), "utterance"), known, doubt, left_out)
    return selected


def recorded_split(recipe: Recipe, split: Split) -> Split:
    """Return the split that a run of the recipe records.

    With `training.subset = "validation"`, a model on top of trained networks depends, through these networks, on the training
    subset too. Both subsets are therefore recorded as its training subset.
    """
    if recipe.training.subset == "train":
        return split
    others = {subset: keys for subset, keys in split.subsets.items() if subset != recipe.training.subset}
    train = sorted({*split.subsets["train"], *split.subsets[recipe.training.subset]})
    return replace(split, subsets={**others, "train": tuple(train)})


def build_datasets(
    plan: Plan,
    features: Mapping[str, Feature],
    data: TrainingData,
    split: Split,
    progress: Progress | None = None,
    pool: FeaturePool | None = None,
) -> Datasets:
    """Build the datasets of a fold; compute the features that are not stored yet.

    Args:
        plan: The plan of the recipe.
        features: Stream -> the feature to store.
        data: The utterances and emotions of the recipe.
        split: The fold.
        progress: Called with the progress of feature extraction.
        pool: Computes missing features in worker processes, unless the device is a GPU.
    """
    recorded = recorded_split(plan.recipe, split)
    builder = _DatasetBuilder(plan, features, data, progress, pool)
    scored = {subset: builder.build(keys) for subset, keys in recorded.subsets.items() if subset != "train"}
    train = builder.with_copies(builder.build(split.subsets[plan.recipe.training.subset]))
    if plan.teacher:
        train = builder.with_teacher(train)
    train = builder.with_offsets(train)
    sizes = ", ".join(f"{subset} {len(keys)}" for subset, keys in recorded.subsets.items())
    logger.info("%s, %s, split %s", recorded.title, recorded.verdict, recorded.hash)
    logger.info("  %s utterances", sizes)
    present = {data.labels.emotions[index] for index in set(train.labels.tolist())}
    if missing := [emotion for emotion in data.labels.emotions if emotion not in present]:
        logger.warning("no utterance of the training subset is %s, so it cannot be learned", " or ".join(missing))
    return Datasets(train, scored)


def build_subset(
    plan: Plan,
    features: Mapping[str, Feature],
    data: TrainingData,
    keys: Sequence[str],
    progress: Progress | None = None,
) -> Dataset:
    """Build the dataset of some utterances, as it is scored; compute the features that are not stored yet.

    Args:
        plan: The plan of the recipe.
        features: Stream -> the feature to store.
        data: The utterances and emotions of the recipe.
        keys: The keys of the utterances.
        progress: Called with the progress of feature extraction.
    """
    return _DatasetBuilder(plan, features, data, progress).build(keys)


def training_features(plan: Plan) -> dict[str, Feature]:
    """Return the features to store: for a fine-tuned encoder only its front end, otherwise the whole feature."""
    features = plan.frozen_features
    if plan.recipe.training.tune == "all":
        return {stream: feature.front_end() for stream, feature in features.items()}
    return features


def stored_name(plan: Plan, stream: str) -> str:
    """Return the name under which the features of a stream are stored. For a fine-tuned encoder, its front end is stored."""
    name = plan.features[stream].name
    return f"{name}-front-end" if plan.recipe.training.tune == "all" else name


@dataclass(frozen=True)
class _DatasetBuilder:
    """Builds datasets whose features are read from the store, or computed and stored."""

    plan: Plan
    features: Mapping[str, Feature]
    data: TrainingData
    progress: Progress | None
    pool: FeaturePool | None = None

    def build(self, keys: Sequence[str]) -> Dataset:
        """Build the dataset of the utterances with these keys."""
        votes, utterances = self.plan.recipe.training.votes, self.data.select(keys)
        values: dict[str, StoredArrays] = {}
        word_index: dict[str, Sequence[NDArray[np.int64]]] = {}
        for stream, feature in self.features.items():
            if isinstance(feature, TextFeature):
                self._compute(stream, feature, stored_name(self.plan, stream), utterances)
                values[stream], word_index[stream] = extract_text(
                    feature, stored_name(self.plan, stream), utterances, progress=self.progress, device=self._device
                )
            else:
                values[stream] = self._extract(stream, feature, stored_name(self.plan, stream), utterances)
        specs = {stream: feature_spec(feature) for stream, feature in self.features.items()}
        soft_labels = self.data.soft_labels(keys, votes) if votes else None
        return Dataset(keys, self.data.label_indices(keys), values, specs, soft_labels, word_index=word_index)

    def with_copies(self, train: Dataset) -> Dataset:
        """Return the training dataset with augmented copies of the audio; text stays the same in all copies."""
        settings = self.plan.recipe.training.augmentation
        utterances, copies = self.data.select(train.ids), []
        for number in range(settings.copies):
            logger.info("augmented copy %d of %d", number + 1, settings.copies)
            copy = Copy(number, self.plan.recipe.seed, settings.alteration)
            altered = {
                stream: self._extract(stream, feature, stored_name(self.plan, stream), utterances, copy)
                for stream, feature in self.features.items()
                if feature.input == "audio"
            }
            copies.append({**train.features, **altered})
        return replace(train, copies=copies, copy_probability=settings.copy_probability, crop=settings.crop)

    def with_teacher(self, train: Dataset) -> Dataset:
        """Return the training dataset with the teacher's frames of the unaugmented speech, also for the augmented copies."""
        assert self.plan.teacher
        teacher = self.plan.build_teacher()
        logger.info("frames of the teacher")
        frames = {TEACHER: self._extract(TEACHER, teacher, self.plan.teacher.name, self.data.select(train.ids))}
        copies = [{**copy, **frames} for copy in train.copies]
        specs = {**train.specs, TEACHER: feature_spec(teacher)}
        return replace(train, features={**train.features, **frames}, specs=specs, copies=copies)

    def with_offsets(self, train: Dataset) -> Dataset:
        """Return the training dataset with the offsets of its corpora and speakers, if they vary in training."""
        settings, utterances = self.plan.recipe.training.augmentation.offsets, self.data.select(train.ids)
        if not settings.center_probability and not settings.shift_probability:
            return train
        corpora, speakers = [u.corpus for u in utterances], [u.speaker_key for u in utterances]
        offsets = {
            stream: SourceOffsets.measure(settings, train.features[stream], corpora, speakers)
            for stream, spec in train.specs.items()
            if spec.frame_rate is not None and stream != TEACHER
        }
        return replace(train, offsets=offsets)

    @property
    def _device(self) -> str:
        return local_device(self.plan.recipe.training.device)

    def _extract(
        self, stream: str, feature: Feature, name: str, utterances: Sequence[Utterance], copy: Copy | None = None
    ) -> StoredArrays:
        self._compute(stream, feature, name, utterances, copy)
        return extract(feature, name, utterances, copy=copy, progress=self.progress, device=self._device)

    def _compute(
        self, stream: str, feature: Feature, name: str, utterances: Sequence[Utterance], copy: Copy | None = None
    ) -> None:
        """Compute missing features in worker processes, if there is a pool and the device is the CPU."""
        if self.pool and self._device == "cpu":
            self.pool.compute(self.plan.recipe, stream, feature, name, utterances, copy, self.progress)
