"""From a search recipe to what it finds (EmotionNAS, Sun et al., arXiv 2203.13617 v1): the three stages, their baselines,
bundles and a page. Every training is a job that fills a run folder, so what was stopped goes on at its last epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affekt.bundle.folder import Bundle
from affekt.errors import BadConfig
from affekt.files import atomic_write_text
from affekt.models.emotionnas.cell_graphs import CELL_GRAPHS
from affekt.models.emotionnas.genotypes import Genotype
from affekt.runs.folder import Run
from affekt.runs.selection import SELECTION_METRICS, select_epoch
from affekt.search.folder import Search, searches_in
from affekt.search.halving import select_survivors
from affekt.search.recipe import Cell, SearchRecipe
from affekt.search.report.page import search_page
from affekt.training.recipe import Recipe
from affekt.workflows.jobs import Job, Launcher, LocalLauncher
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import run_folder
from affekt.workflows.training_data import Say, TrainingData

PAGE = "page.html"


@dataclass(frozen=True)
class SearchUnit:
    """A search, and which of the recipe's it is."""

    search: Search
    fold: int
    repeat: int

    def job(self, recipe: Recipe, *names: str, until: int | None = None, may_diverge: bool = False) -> Job:
        return Job(recipe, self.search.folder.joinpath(*names), until, may_diverge)


def search(
    recipe: SearchRecipe,
    folder: Path,
    *,
    launcher: Launcher | None = None,
    bundles: bool = True,
    say: Say = print,
) -> list[Search]:
    """Search in a folder, for every fold and every seed; go on where an interrupted search in the same folder stopped.

    The stages are done for all folds and seeds together, so that a launcher of many workers always has something to do.
    Raises `BadConfig` and `BadCorpus`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadConfig("a search makes its own processes: start it once, without torchrun, and with --workers")
    launcher = launcher or LocalLauncher()
    places = _begun(recipe, folder, say)
    if recipe.spectrogram:
        _search_cells(recipe, places, launcher, say)
        _write_page(folder)
        _train_cells(recipe, places, launcher, say)
        _write_page(folder)
    if recipe.recurrent:
        _search_recipes(recipe, places, launcher, say)
        _write_page(folder)
        _train_recipes(recipe, places, launcher, say)
    if recipe.fusion:
        launcher.run([place.job(_fusion(recipe, place), "fusion") for place in places], say)
    _write_page(folder)
    for place in places if bundles else ():
        _bundle(recipe, place, say)
    return [place.search for place in places]


def _begun(recipe: SearchRecipe, folder: Path, say: Say) -> list[SearchUnit]:
    """The searches' folders, each with its settings."""
    some = recipe.of_supernet(1, 0) if recipe.spectrogram else recipe.of_recipe("candidate", "gru", 1, 0)
    material = TrainingData.read(some, say)
    splits = material.folds(replace(some, folds=recipe.folds))
    if lacking := [
        number for number, split in splits if recipe.needs_validation and not split.subsets.get("validation")
    ]:
        raise BadConfig(
            f"fold {lacking[0]} of {some.build_protocol().title} has no validation part, by which a search chooses: "
            "take another protocol, or a corpus whose own split has one"
        )
    for one in recipe.branches:  # before hours of training
        one.build_encoders()
    own = {
        (fold, repeat): run_folder(recipe, folder, fold, repeat, len(splits))
        for fold, _ in splits
        for repeat in range(recipe.repeats)
    }
    _check_layout(folder, next(iter(own.values())))
    return [SearchUnit(Search.start(one, recipe.resolved(*which)), *which) for which, one in own.items()]


def _check_layout(folder: Path, own: Path) -> None:
    """Raise `BadConfig` where searches of another number of folds or seeds lie: the page would take both for one."""

    def kinds(place: Path) -> list[str]:
        return [part.partition("-")[0] for part in place.relative_to(folder).parts]

    if other := [one.folder for one in searches_in(folder) if kinds(one.folder) != kinds(own)]:
        raise BadConfig(
            f"{other[0]} holds a search, and with this number of folds and seeds it would stand in {own}: "
            "give another folder (--run), or remove it"
        )


def _search_cells(recipe: SearchRecipe, places: Sequence[SearchUnit], launcher: Launcher, say: Say) -> None:
    launcher.run(
        [place.job(recipe.of_supernet(place.fold, place.repeat), "spectrogram", "search") for place in places], say
    )
    for place in places:
        found = _found_cells(recipe, place)
        atomic_write_text(place.search.genotype_file, found.to_json())
        noted = _noted(recipe, place)
        if noted["collapsed"]:
            say(
                f"{place.search.folder}: the search collapsed: the normal cell keeps {noted['skips']} skip connections of "
                f"{len(found.normal)} operations; see architecture.alpha_start, order and alphas_on"
            )


def _noted(recipe: SearchRecipe, place: SearchUnit) -> Mapping[str, Any]:
    """The line of the search's log that the cells are read off."""
    assert recipe.spectrogram
    run = place.search.run("spectrogram", "search")
    epoch = run.epochs[-1] if recipe.spectrogram.genotype_from == "last" else select_epoch(run, recipe.selection)
    return next(line for line in run.log() if line["epoch"] == epoch)


def _found_cells(recipe: SearchRecipe, place: SearchUnit) -> Genotype:
    return Genotype.from_dict(_noted(recipe, place)["genotype"])


def _train_cells(recipe: SearchRecipe, places: Sequence[SearchUnit], launcher: Launcher, say: Say) -> None:
    """The found cells, then random and known ones, all trained alike."""
    stage = recipe.spectrogram
    assert stage
    launcher.run([_cells_job(recipe, place, "found", _found_cells(recipe, place)) for place in places], say)
    jobs = []
    for place in places:
        for number in range(1, _random_cells(recipe, place, say) + 1):
            cells = recipe.random_cells(place.repeat, number)
            jobs.append(_cells_job(recipe, place, "random", cells, f"{number:02}"))
        jobs += [_cells_job(recipe, place, "known", name, name) for name in stage.known]
    launcher.run(jobs, say)


def _cells_job(recipe: SearchRecipe, place: SearchUnit, what: str, cells: str | Genotype, *names: str) -> Job:
    made = recipe.of_cells(what, cells, place.fold, place.repeat)
    return place.job(made, "spectrogram", what, *names, may_diverge=what != "found")


def _random_cells(recipe: SearchRecipe, place: SearchUnit, say: Say) -> int:
    """How many random cells stand beside the found one: as many trainings as the search's time pays for, at least one."""
    assert recipe.spectrogram
    if recipe.spectrogram.random != "budget":
        return recipe.spectrogram.random
    searched, trained = (place.search.run("spectrogram", what).seconds for what in ("search", "found"))
    number = math.ceil((searched + trained) / trained)
    took = f"search and found cells took {searched + trained:.0f} s"
    say(f"{place.search.folder}: {took}, which pays for {number} trainings of random cells")
    return number


def _search_recipes(recipe: SearchRecipe, places: Sequence[SearchUnit], launcher: Launcher, say: Say) -> None:
    """Round after round for all searches together; at the end of each the candidates of the lowest losses go on."""
    assert recipe.recurrent
    for number, (until, keep) in enumerate(recipe.recurrent.rounds):
        jobs: dict[Path, dict[str, Job]] = {}
        for place in places:
            everybody = recipe.candidates(place.repeat)
            going_on = place.search.rounds[number - 1].kept if number else tuple(everybody)
            jobs[place.search.folder] = {
                name: _recipe_job(recipe, place, "candidates", name, everybody[name], until) for name in going_on
            }
        launcher.run([job for mine in jobs.values() for job in mine.values()], say)
        for place in places:
            losses = {name: _loss(job.run, until) for name, job in jobs[place.search.folder].items()}
            ended = select_survivors(until, losses, keep)
            place.search.keep_rounds([*place.search.rounds[:number], ended])
            best = f"{ended.kept[0]} {losses[ended.kept[0]]:.3f}"
            say(f"{place.search.folder}: {len(losses)} candidates after {until} epochs, {keep} kept, best {best}")
    for place in places:
        name = place.search.chosen
        cell = recipe.candidates(place.repeat)[name]
        content = {"name": name, "recipe": CELL_GRAPHS[cell] if isinstance(cell, str) else cell}
        atomic_write_text(place.search.recipe_file, json.dumps(content, indent=1) + "\n")


def _loss(run: Run, until: int) -> float | None:
    """The lowest cross-entropy on the validation part up to an epoch, whatever a later round has added; None where
    training came apart before."""
    epochs = [epoch for epoch in run.epochs if epoch <= until]
    if not epochs or (run.diverged and epochs[-1] < until):
        return None
    labels, measure = run.labels("validation"), SELECTION_METRICS["validation-loss"]
    return -max(measure(labels, run.predictions(epoch)["validation"]) for epoch in epochs)


def _train_recipes(recipe: SearchRecipe, places: Sequence[SearchUnit], launcher: Launcher, say: Say) -> None:
    """Recipes drawn without a search, and published ones, all to their end."""
    stage = recipe.recurrent
    assert stage
    jobs = []
    for place in places:
        count = math.ceil(stage.budget / stage.training.epochs) if stage.random == "budget" else stage.random
        for name, cell in recipe.random_recipes(place.repeat, count).items():
            jobs.append(_recipe_job(recipe, place, "random", name, cell, None))
        jobs += [_recipe_job(recipe, place, "known", name, name, None) for name in stage.known]
    launcher.run(jobs, say)


def _recipe_job(recipe: SearchRecipe, place: SearchUnit, what: str, name: str, cell: Cell, until: int | None) -> Job:
    made = recipe.of_recipe({"candidates": "candidate"}.get(what, what), cell, place.fold, place.repeat)
    return place.job(made, "recurrent", what, name, until=until, may_diverge=True)


def _fusion(recipe: SearchRecipe, place: SearchUnit) -> Recipe:
    return recipe.of_fusion(_found(place.search), place.fold, place.repeat)


def _found(found: Search) -> dict[str, Path]:
    """The run folders of the two networks that a search arrives at."""
    return {
        "spectrogram": found.run("spectrogram", "found").folder,
        "recurrent": found.run("recurrent", "candidates", found.chosen).folder,
    }


def _bundle(recipe: SearchRecipe, place: SearchUnit, say: Say) -> None:
    """A bundle of each found network, where there is none yet."""
    made: list[tuple[str, Recipe, Run]] = []
    fold, repeat, cells, cell = place.fold, place.repeat, "", ""
    if recipe.spectrogram:
        half = recipe.spectrogram.learn_alphas_on == "half"
        heard = "half of the training part" if half else "the validation part"
        cells = f" Cells found by differentiable search, whose architecture learnt from {heard}."
        one = recipe.of_cells("found", _found_cells(recipe, place), fold, repeat)
        made.append(("spectrogram", _told(one, cells), place.search.run("spectrogram", "found")))
    if recipe.recurrent:
        name, candidates = place.search.chosen, recipe.candidates(repeat)
        cell = (
            f" Recurrent cell {name}: of {len(candidates)} candidates the lowest cross-entropy on the validation part."
        )
        one = recipe.of_recipe("candidate", candidates[name], fold, repeat)
        made.append(("recurrent", _told(one, cell), place.search.run("recurrent", "candidates", name)))
    if recipe.fusion:
        part = "training" if recipe.fusion.training.subset == "train" else "validation"
        below = (
            f" The fused networks learnt from the training part, their epochs chosen by the rule {recipe.selection!r};"
        )
        above = f" what is said below of training is of the perceptron over them, which learnt from the {part} part."
        made.append(("fusion", _told(_fusion(recipe, place), cells + cell + below + above), place.search.run("fusion")))
    for branch, its_recipe, run in made:
        folder = place.search.folder / "bundles" / branch
        if not (folder / "README.md").is_file():
            say(f"bundle: {folder}")
            make_bundle(its_recipe, [run], folder, command=f"affekt search {recipe.name}", say=say)


def _told(recipe: Recipe, what: str) -> Recipe:
    """The recipe with what its card should say of the search."""
    return replace(recipe, about=recipe.about + what)


def bundles_of(found: Search) -> list[Bundle]:
    """The bundles that a search left."""
    return [Bundle.open(path.parent) for path in sorted((found.folder / "bundles").glob("*/model.onnx"))]


def _write_page(folder: Path) -> None:
    atomic_write_text(folder / PAGE, search_page(folder))
