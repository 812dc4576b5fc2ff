"""From a recipe to finished runs: read, split, extract, train, for every fold and every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affekt.bundle import Bundle
from affekt.checkpoint import load_state
from affekt.corpora.source import read_all
from affekt.data import Dataset, scoring_batches
from affekt.errors import BadConfig, BadCorpus
from affekt.evaluation.selection import select
from affekt.features.base import Feature, TextFeature
from affekt.features.store import Stored
from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.models.emotionnas.fusion import DecisionFusion
from affekt.protocols import Split, key
from affekt.run import Run, runs_in
from affekt.training.augment import Augmentation, Copy
from affekt.training.darts import ArchitectureSearch, halves
from affekt.training.distributed import processes, shared, wait
from affekt.training.extraction import extract
from affekt.training.fusion import Fusing, decided
from affekt.training.loop import fit
from affekt.training.reading import read
from affekt.training.recipe import Recipe
from affekt.training.search_recipe import SearchRecipe
from affekt.training.strategy import Strategy, Supervised
from affekt.training.tuning import TEACHER, Imitating, Tuned, initial_statistics, spec
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
        before = Split.load(start.file("split.json")).parts["train"]
        heard = {self.utterances[one].person for one in before if one in self.utterances}
        scored = {self.utterances[one].person for part, ids in split.parts.items() if part != "train" for one in ids}
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


def fitting(utterances: Sequence[Utterance], labels: LabelSet, corpus: str, say: Say) -> list[Utterance]:
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


def check_one_model(recipe: Recipe, folds: int) -> None:
    """Raise `BadConfig` for trainings of which no one bundle can be made."""
    if folds > 1:
        raise BadConfig(
            f"{recipe.name} has {folds} folds, of which no one model comes: choose one, such as folds=[1], or make no bundle"
        )
    if recipe.training.tune == "all" and recipe.repeats > 1:
        raise BadConfig(f"{recipe.name} trains an encoder per seed, and a bundle has one: set repeats = 1")


def train(recipe: Recipe, folder: Path, *, one_model: bool = False, say: Say = print) -> list[Run]:
    """Train a recipe, a run folder per fold and seed; go on where an interrupted training in the same folder stopped.

    one_model: refuse at once what no bundle could be made of.
    Under torchrun several processes train one model (DDP). Raises `BadConfig` and `BadCorpus`.
    """
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    torch.use_deterministic_algorithms(True)
    with processes() as (rank, world):
        say = say if rank == 0 else _silent
        encoders = recipe.build_encoders()
        material = Material.read(recipe, say)
        if recipe.training.tune == "all":
            encoders = {stream: encoder.front_end() for stream, encoder in encoders.items()}
        if unused := [stream for stream in recipe.filled if stream not in encoders]:
            say(f"{recipe.model_name} does without {', '.join(unused)} with these settings")
        folds = material.folds(recipe)
        if one_model:
            check_one_model(recipe, len(folds))
        places = {
            number: [run_folder(recipe, folder, number, repeat, len(folds)) for repeat in range(recipe.repeats)]
            for number, _ in folds
        }
        for number, split in folds:  # before hours of extraction
            for repeat, place in enumerate(places[number]):
                Run(place).check(recipe.resolved(repeat), recorded(recipe, split))
        runs = []
        for number, split in folds:
            heard, parts = heard_and_scored(recipe, encoders, material, split, say)
            for repeat, place in enumerate(places[number]):
                run = started(recipe, place, repeat, split, material, rank)
                say(f"seed {recipe.seed + repeat}: {place}")
                fit_run(recipe, run, material, heard, parts, rank=rank, world=world, say=say)
                runs.append(run)
    return runs


def recorded(recipe: Recipe, split: Split) -> Split:
    """The split as a run of the recipe keeps it: those that a fusion of finished networks is trained on were heard too."""
    if recipe.training.part == "train":
        return split
    parts = {part: ids for part, ids in split.parts.items() if part != recipe.training.part}
    heard = sorted({*split.parts["train"], *split.parts[recipe.training.part]})
    return replace(split, parts={**parts, "train": tuple(heard)})


def heard_and_scored(
    recipe: Recipe, encoders: Mapping[str, Feature], material: Material, split: Split, say: Say
) -> tuple[Dataset, dict[str, Dataset]]:
    """The part that is trained on, with its altered copies, and the parts that are scored, by name."""
    kept = recorded(recipe, split)
    scored = {
        part: dataset(recipe, encoders, material, ids, say) for part, ids in kept.parts.items() if part != "train"
    }
    trained_on = dataset(recipe, encoders, material, split.parts[recipe.training.part], say)
    heard = _with_copies(trained_on, recipe, encoders, material, say)
    if recipe.training.teacher:
        heard = _with_teacher(heard, recipe, material, say)
    sizes = ", ".join(f"{part} {len(ids)}" for part, ids in kept.parts.items())
    say(f"{kept.title}, {kept.verdict}, split {kept.hash}")
    say(f"  {sizes} utterances")
    learnt = {material.labels.emotions[index] for index in set(heard.labels.tolist())}
    if unheard := [emotion for emotion in material.labels.emotions if emotion not in learnt]:
        say(f"nothing to learn {', '.join(unheard)} from: no utterance of the training part is so")
    return heard, scored


def started(recipe: Recipe, place: Path, repeat: int, split: Split, material: Material, rank: int = 0) -> Run:
    """The run folder; where several processes train, the first makes it, and the others find it."""
    split = recorded(recipe, split)
    index = {one: material.index(one) for ids in split.parts.values() for one in ids}
    if rank:
        wait()
    run = Run.start(place, recipe.resolved(repeat), split, material.labels.emotions, index)
    if not rank:
        wait()
    return run


def fit_run(
    recipe: Recipe,
    run: Run,
    material: Material,
    heard: Dataset,
    scored: Mapping[str, Dataset],
    *,
    until: int | None = None,
    rank: int = 0,
    world: int = 1,
    say: Say = print,
) -> None:
    """Train a run to its end, or until an epoch. The seed is that of its folder."""
    settings, seed = recipe.training, int(run.config["seed"])
    torch.manual_seed(seed)
    model = build(recipe, heard, material.labels).to(settings.device)
    strategy, heard, scored = _way(recipe, model, material, heard, scored, seed, say)
    fit(
        strategy,
        heard,
        scored,
        run,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed,
        until=until,
        patience=settings.patience,
        sampling=settings.sampling,
        rank=rank,
        world=world,
        say=say,
    )


def _way(
    recipe: Recipe,
    model: EmotionModel,
    material: Material,
    heard: Dataset,
    scored: Mapping[str, Dataset],
    seed: int,
    say: Say,
) -> tuple[Strategy, Dataset, Mapping[str, Dataset]]:
    """How the model is trained, and on what: as a search, as a fusion of finished networks, or as everything else is."""
    settings = recipe.training
    if settings.architecture:
        return *_searching(recipe, model, material, heard, scored, seed, say), scored
    if isinstance(model, DecisionFusion) and model.config.frozen and settings.augmentation == Augmentation():
        answers = {part: decided(model, one, settings.batch_size) for part, one in scored.items()}
        return Fusing(model, settings.optimisation), decided(model, heard, settings.batch_size), answers
    strategy = Supervised(
        model,
        settings.optimisation,
        forward=shared(learner(model)),
        masking=settings.augmentation.masking,
        counts=np.bincount(heard.labels, minlength=len(material.labels)).tolist(),
    )
    return strategy, heard, scored


def _searching(
    recipe: Recipe,
    model: EmotionModel,
    material: Material,
    heard: Dataset,
    scored: Mapping[str, Dataset],
    seed: int,
    say: Say,
) -> tuple[Strategy, Dataset]:
    """A search of the architecture, and what its weights are trained on."""
    settings = recipe.training
    assert settings.architecture is not None
    if settings.alphas_on == "validation":
        say(
            "the architecture is trained on the validation part, which also chooses the epoch: its scores there flatter"
        )
        alphas_on = scored["validation"]
    else:
        heard, alphas_on = halves(heard, seed, people_of(material.of(heard.ids)))
        say(f"weights learn from {len(heard)} utterances of the training part, the architecture from {len(alphas_on)}")
    return ArchitectureSearch(model, settings.architecture, alphas_on, settings.batch_size), heard


def people_of(utterances: Sequence[Utterance]) -> list[str] | None:
    """Who speaks each utterance; None where that is not known of all."""
    return [u.person for u in utterances] if all(u.speaker for u in utterances) else None


def run_folder(recipe: Recipe | SearchRecipe, folder: Path, fold: int, repeat: int, folds: int) -> Path:
    """Where a run stands: the folder itself for a single one, else a folder per fold and per seed below it."""
    if folds > 1:
        folder = folder / f"fold-{fold:02}"
    return folder / f"seed-{recipe.seed + repeat}" if recipe.repeats > 1 else folder


def runs_below(folder: Path) -> list[Run]:
    """The runs of one training. Raises `BadConfig` where there is none, or where they are of several."""
    found = runs_in(folder)
    first, *others = (_but_for_seeds(run.config) for run in found)
    for run, other in zip(found[1:], others, strict=True):
        if other != first:
            raise BadConfig(f"{found[0].folder} and {run.folder} are of different trainings: name the folder of one")
    return found


def _but_for_seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "seed"}


def build(recipe: Recipe, train: Dataset, labels: LabelSet) -> EmotionModel:
    """The model as training begins: the head alone, or with its encoder."""
    if recipe.training.tune == "head":
        model = recipe.build_model(train.specs, labels.emotions)
        if not recipe.start:
            model.set_statistics(train.statistics())
        if isinstance(model, DecisionFusion) and recipe.branches:
            model.load_branches(**{branch: run_weights(run) for branch, run in recipe.branch_runs().items()})
        return model
    encoder = recipe.build_encoder()
    head = recipe.build_model({"speech": spec(encoder)}, labels.emotions)
    tuned = Tuned(encoder, head, imitates=recipe.teacher_dim)
    if recipe.training.teacher:
        tuned.set_teacher(*train.only(TEACHER).statistics()[TEACHER])
    if not recipe.start:
        speech = train.only("speech")
        chosen = np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(int)
        order = scoring_batches(speech.lengths()[chosen], recipe.training.batch_size)
        head.set_statistics(initial_statistics(tuned, [speech.batch(chosen[batch].tolist()) for batch in order]))
    return tuned


def run_weights(run: Run) -> dict[str, Tensor]:
    """The weights of a run's chosen epoch."""
    weights: dict[str, Tensor] = load_state(run.weights(select(run, run.config["selection"])))
    return weights


def learner(model: EmotionModel) -> torch.nn.Module:
    """What training calls."""
    return Imitating(model) if isinstance(model, Tuned) and model.imitation is not None else model


def _with_teacher(train: Dataset, recipe: Recipe, material: Material, say: Say) -> Dataset:
    """The training part with the teacher's frames of the unaltered speech; its copies have the same."""
    teacher = recipe.build_teacher()
    say("the teacher's frames")
    name, device = str(recipe.training.teacher["name"]), recipe.training.device
    frames = {TEACHER: extract(teacher, name, material.of(train.ids), say=say, device=device)}
    copies = [{**copy, **frames} for copy in train.copies]
    specs = {**train.specs, TEACHER: spec(teacher)}
    return replace(train, features={**train.features, **frames}, specs=specs, copies=copies)


def dataset(
    recipe: Recipe, encoders: Mapping[str, Feature], material: Material, ids: Sequence[str], say: Say
) -> Dataset:
    """Utterances with their features, by stream, from the store or computed."""
    soft = material.votes(ids, recipe.training.votes) if recipe.training.votes else None
    features: dict[str, Stored] = {}
    words = {}
    for stream, encoder in encoders.items():
        name, device = feature_name(recipe, stream), recipe.training.device
        if isinstance(encoder, TextFeature):
            features[stream], words[stream] = read(encoder, name, material.of(ids), say=say, device=device)
        else:
            features[stream] = extract(encoder, name, material.of(ids), say=say, device=device)
    specs = {stream: spec(encoder) for stream, encoder in encoders.items()}
    return Dataset(ids, material.truth(ids), features, specs, soft, words=words)


def feature_name(recipe: Recipe, stream: str) -> str:
    """What the stored features of a stream are called."""
    name = recipe.encoder_name(stream)
    return f"{name}-front-end" if recipe.training.tune == "all" else name


def _silent(_: str) -> None:
    pass


def _with_copies(
    train: Dataset, recipe: Recipe, encoders: Mapping[str, Feature], material: Material, say: Say
) -> Dataset:
    """The training part with its altered copies: of the sound, for the words stay. Nobody else is altered."""
    settings = recipe.training.augmentation
    copies = []
    for number in range(settings.copies):
        say(f"altered copy {number + 1} of {settings.copies}")
        copy = Copy(number, recipe.seed, settings.alteration)
        altered = dict(train.features)
        for stream, encoder in encoders.items():
            if encoder.hears == "sound":
                name, device = feature_name(recipe, stream), recipe.training.device
                altered[stream] = extract(encoder, name, material.of(train.ids), copy=copy, say=say, device=device)
        copies.append(altered)
    return replace(train, copies=copies, copy_share=settings.share, crop=settings.crop)
