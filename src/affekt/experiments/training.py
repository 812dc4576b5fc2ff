"""From a recipe to finished runs: read, split, extract, train, for every fold and every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.corpora.source import read_all
from affekt.data import Dataset, scoring_batches
from affekt.errors import BadConfig, BadCorpus
from affekt.features.base import Feature
from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.protocols import Split, key
from affekt.run import Run
from affekt.training.augment import Copy
from affekt.training.distributed import processes, shared
from affekt.training.extraction import extract
from affekt.training.loop import fit
from affekt.training.recipe import Recipe
from affekt.training.strategy import Supervised
from affekt.training.tuning import Tuned, initial_statistics, spec
from affekt.utterance import Utterance

Say = Callable[[str], None]
SAMPLE = 600  # training utterances that tell what an encoder gives before it is trained


@dataclass(frozen=True)
class Material:
    """What a recipe trains on: its utterances, by their keys, and the emotions that it tells apart."""

    utterances: Mapping[str, Utterance]
    labels: LabelSet

    @classmethod
    def read(cls, recipe: Recipe, say: Say = print) -> Material:
        """The utterances of a recipe's corpora whose emotion is in its label set; those left out are counted aloud."""
        everything = read_all(recipe.sources)
        labels = recipe.label_set(everything)
        kept = [u for source in recipe.sources for u in fitting(everything, labels, source.id, say)]
        if len(labels) < 2:
            raise BadCorpus(f"all utterances are {labels.emotions[0]}: expected two emotions at least")
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
        return [(number, split) for number, split in enumerate(made, start=1) if number in (recipe.folds or {number})]

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


def fitting(utterances: Sequence[Utterance], labels: LabelSet, corpus: str, say: Say) -> list[Utterance]:
    """A corpus's utterances that belong to the label set; those left out are counted aloud."""
    mine = [utterance for utterance in utterances if utterance.corpus == corpus]
    kept = [utterance for utterance in mine if labels.index_of(utterance) is not None]
    others = sorted({u.emotion for u in mine} - {u.emotion for u in kept})
    named = f" of other emotions ({', '.join(others)})" if others else ""
    left = f"; {len(mine) - len(kept)}{named} left out" if len(kept) < len(mine) else ""
    say(f"{corpus}: {len(kept)} utterances of {len({u.person for u in kept})} speakers{left}")
    return kept


def train(recipe: Recipe, folder: Path, *, say: Say = print) -> list[Run]:
    """Train a recipe, a run folder per fold and seed; go on where an interrupted training in the same folder stopped.

    Under torchrun several processes train one model (DDP).
    """
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    torch.use_deterministic_algorithms(True)
    with processes() as (rank, world):
        say = say if rank == 0 else _silent
        encoder = recipe.build_encoder()
        material = Material.read(recipe, say)
        front = encoder.front_end() if recipe.training.tune == "all" else encoder
        folds = material.folds(recipe)
        runs = []
        for number, split in folds:
            parts = {part: dataset(recipe, front, material, ids, say) for part, ids in split.parts.items()}
            heard = _with_copies(parts["train"], recipe, front, material, say)
            scored = {part: data for part, data in parts.items() if part != "train"}
            say(f"training on {len(heard)} utterances; " + "; ".join(split.line(part) for part in scored))
            for repeat in range(recipe.repeats):
                place = run_folder(recipe, folder, number, repeat, len(folds))
                seed = recipe.seed + repeat
                say(f"seed {seed}: {place}")
                index = {one: material.index(one) for ids in split.parts.values() for one in ids}
                run = Run.start(place, recipe.resolved(repeat), split, material.labels.emotions, index)
                torch.manual_seed(seed)
                model = build(recipe, parts["train"], material.labels).to(recipe.training.device)
                settings = recipe.training
                fit(
                    Supervised(
                        model,
                        settings.optimisation,
                        forward=shared(model),
                        masking=settings.augmentation.masking,
                        counts=np.bincount(heard.labels, minlength=len(material.labels)).tolist(),
                    ),
                    heard,
                    scored,
                    run,
                    epochs=settings.epochs,
                    batch_size=settings.batch_size,
                    seed=seed,
                    patience=settings.patience,
                    sampling=settings.sampling,
                    rank=rank,
                    world=world,
                    say=say,
                )
                runs.append(run)
    return runs


def run_folder(recipe: Recipe, folder: Path, fold: int, repeat: int, folds: int) -> Path:
    """Where a run stands: the folder itself for a single one, else a folder per fold and per seed below it."""
    if folds > 1:
        folder = folder / f"fold-{fold:02}"
    return folder / f"seed-{recipe.seed + repeat}" if recipe.repeats > 1 else folder


def runs_below(folder: Path) -> list[Run]:
    """The runs of a training: the folder itself, or those below it, in order. Raises `BadConfig` where there is none."""
    found = [Run(path.parent) for path in sorted(folder.rglob("config.toml")) if (path.parent / "split.json").is_file()]
    if not found:
        raise BadConfig(f"{folder} holds no run: expected config.toml and split.json, as affekt train writes them")
    return found


def build(recipe: Recipe, train: Dataset, labels: LabelSet) -> EmotionModel:
    """The model as training begins: the head alone, or with its encoder."""
    if recipe.training.tune == "head":
        model = recipe.build_model(train.specs, labels.emotions)
        if not recipe.start:
            model.set_statistics(train.statistics())
        return model
    encoder = recipe.build_encoder()
    head = recipe.build_model({"speech": spec(encoder)}, labels.emotions)
    tuned = Tuned(encoder, head)
    if not recipe.start:
        chosen = np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(int)
        order = scoring_batches(train.lengths()[chosen], recipe.training.batch_size)
        head.set_statistics(initial_statistics(tuned, [train.batch(chosen[batch].tolist()) for batch in order]))
    return tuned


def dataset(recipe: Recipe, encoder: Feature, material: Material, ids: Sequence[str], say: Say) -> Dataset:
    """Utterances with their features, from the store or computed."""
    soft = material.votes(ids, recipe.training.votes) if recipe.training.votes else None
    features = {"speech": extract(encoder, feature_name(recipe), material.of(ids), say=say)}
    return Dataset(ids, material.truth(ids), features, {"speech": spec(encoder)}, soft)


def feature_name(recipe: Recipe) -> str:
    """What the stored features are called."""
    return f"{recipe.encoder_name}-front-end" if recipe.training.tune == "all" else recipe.encoder_name


def _silent(_: str) -> None:
    pass


def _with_copies(train: Dataset, recipe: Recipe, encoder: Feature, material: Material, say: Say) -> Dataset:
    """The training part with its altered copies. Nobody else is altered."""
    settings = recipe.training.augmentation
    copies = []
    for number in range(settings.copies):
        say(f"altered copy {number + 1} of {settings.copies}")
        copy = Copy(number, recipe.seed, settings.alteration)
        stored = extract(encoder, feature_name(recipe), material.of(train.ids), copy=copy, say=say)
        copies.append({"speech": stored})
    return replace(train, copies=copies, copy_share=settings.share, crop=settings.crop)
