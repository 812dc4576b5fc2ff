"""Search for an architecture (EmotionNAS, Sun et al., arXiv 2203.13617 v1): three stages, baselines, bundles and a page.

Every training is a job that fills a run folder, so a search that was interrupted resumes at its last epoch.
"""

from __future__ import annotations

import json
import logging
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
from affekt.search.plan import check_search
from affekt.search.recipe import Cell, SearchRecipe
from affekt.search.report.page import search_page
from affekt.training.plan import Plan
from affekt.training.recipe import Recipe
from affekt.workflows.jobs import Job, Launcher, LocalLauncher
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import run_folder
from affekt.workflows.training_data import TrainingData

logger = logging.getLogger(__name__)

PAGE = "page.html"


@dataclass(frozen=True)
class SearchUnit:
    """A search of one fold and one seed."""

    search: Search
    fold: int
    repeat: int

    def job(self, recipe: Recipe, *names: str, until: int | None = None, may_diverge: bool = False) -> Job:
        """Return the job that trains a recipe in a folder of the search."""
        return Job(recipe, self.search.folder.joinpath(*names), until, may_diverge)


def search(
    recipe: SearchRecipe, folder: Path, *, launcher: Launcher | None = None, bundles: bool = True
) -> list[Search]:
    """Search in a folder, for every fold and every seed; resume what was interrupted in the same folder.

    A stage is done for all folds and seeds together, so that a launcher with many workers can keep them busy.

    Args:
        recipe: The search recipe.
        folder: The search's folder; with several folds or seeds, the folder of the searches.
        launcher: What runs the trainings; None for this process.
        bundles: Whether to make a bundle of each network that is found.

    Raises:
        BadConfig: The recipe is wrong, or the folder holds another search.
        BadCorpus: A corpus cannot be read.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadConfig("a search starts its own processes: run it once, without torchrun, and with --workers")
    launcher = launcher or LocalLauncher()
    plans = check_search(recipe)
    units = _start_units(recipe, plans, folder)
    if recipe.spectrogram:
        _search_cells(recipe, units, launcher)
        _write_page(folder)
        _train_cells(recipe, units, launcher)
        _write_page(folder)
    if recipe.recurrent:
        _search_recurrent_cell(recipe, units, launcher)
        _write_page(folder)
        _train_recurrent_cells(recipe, units, launcher)
    if recipe.fusion:
        launcher.run([unit.job(_fusion_recipe(recipe, unit), "fusion") for unit in units])
    _write_page(folder)
    for unit in units if bundles else ():
        _make_bundles(recipe, unit)
    return [unit.search for unit in units]


def _start_units(recipe: SearchRecipe, plans: Sequence[Plan], folder: Path) -> list[SearchUnit]:
    """Create or resume the folder of each search."""
    plan = replace(plans[0], recipe=replace(plans[0].recipe, folds=recipe.folds))
    splits = TrainingData.read(plan.recipe).folds(plan)
    lacking = [number for number, split in splits if not split.subsets.get("validation")]
    if lacking and recipe.needs_validation:
        raise BadConfig(
            f"fold {lacking[0]} of {plan.protocol.title} has no validation subset, by which the search selects: "
            "use another protocol, or a corpus whose own split has one"
        )
    for branch in plans:  # a missing encoder is noticed before hours of training
        branch.build_features()
    folders = {
        (fold, repeat): run_folder(recipe, folder, fold, repeat, len(splits))
        for fold, _ in splits
        for repeat in range(recipe.repeats)
    }
    _check_layout(folder, next(iter(folders.values())))
    return [
        SearchUnit(Search.start(search_dir, recipe.resolved(fold, repeat)), fold, repeat)
        for (fold, repeat), search_dir in folders.items()
    ]


def _check_layout(folder: Path, first: Path) -> None:
    """Raise `BadConfig` if `folder` holds searches of another number of folds or seeds: the page would mix them up."""

    def levels(search_dir: Path) -> list[str]:
        return [name.partition("-")[0] for name in search_dir.relative_to(folder).parts]

    if others := [other.folder for other in searches_in(folder) if levels(other.folder) != levels(first)]:
        raise BadConfig(
            f"{others[0]} holds a search, and with this number of folds and seeds it would be in {first}; "
            "choose another folder (--run), or remove it"
        )


def _search_cells(recipe: SearchRecipe, units: Sequence[SearchUnit], launcher: Launcher) -> None:
    """Train the supernets, and derive cells from them."""
    launcher.run([unit.job(recipe.of_supernet(unit.fold, unit.repeat), "spectrogram", "search") for unit in units])
    for unit in units:
        genotype = _derived_cells(recipe, unit)
        atomic_write_text(unit.search.genotype_file, genotype.to_json())
        line = _line_of_selected_epoch(recipe, unit)
        if line["collapsed"]:
            logger.warning(
                "%s: the search collapsed: the normal cell has %d skip connections among %d operations; "
                "see strategy.alpha_start, order and learn_alphas_on",
                unit.search.folder,
                line["skips"],
                len(genotype.normal),
            )


def _line_of_selected_epoch(recipe: SearchRecipe, unit: SearchUnit) -> Mapping[str, Any]:
    """Return the line of the supernet's log that cells are derived from."""
    assert recipe.spectrogram
    run = unit.search.run("spectrogram", "search")
    epoch = run.epochs[-1] if recipe.spectrogram.genotype_from == "last" else select_epoch(run, recipe.selection)
    return next(line for line in run.log() if line["epoch"] == epoch)


def _derived_cells(recipe: SearchRecipe, unit: SearchUnit) -> Genotype:
    return Genotype.from_dict(_line_of_selected_epoch(recipe, unit)["genotype"])


def _train_cells(recipe: SearchRecipe, units: Sequence[SearchUnit], launcher: Launcher) -> None:
    """Train the derived network, then networks of random and of known cells, all in the same way."""
    stage = recipe.spectrogram
    assert stage
    launcher.run([_cells_job(recipe, unit, "found", _derived_cells(recipe, unit)) for unit in units])
    jobs = []
    for unit in units:
        for number in range(1, _num_random_cells(recipe, unit) + 1):
            cells = recipe.random_cells(unit.repeat, number)
            jobs.append(_cells_job(recipe, unit, "random", cells, f"{number:02}"))
        jobs += [_cells_job(recipe, unit, "known", name, name) for name in stage.known]
    launcher.run(jobs)


def _cells_job(recipe: SearchRecipe, unit: SearchUnit, kind: str, cells: str | Genotype, *names: str) -> Job:
    training = recipe.of_cells(kind, cells, unit.fold, unit.repeat)
    return unit.job(training, "spectrogram", kind, *names, may_diverge=kind != "found")


def _num_random_cells(recipe: SearchRecipe, unit: SearchUnit) -> int:
    """Return the number of random cells to train; "budget" gives as many as the time of the search allows, at least one."""
    assert recipe.spectrogram
    if recipe.spectrogram.random != "budget":
        return recipe.spectrogram.random
    search_seconds, train_seconds = (unit.search.run("spectrogram", kind).seconds for kind in ("search", "found"))
    number = math.ceil((search_seconds + train_seconds) / train_seconds)
    logger.info(
        "%s: the search and the training of its cells took %.0f s, the time of %d trainings of random cells",
        unit.search.folder,
        search_seconds + train_seconds,
        number,
    )
    return number


def _search_recurrent_cell(recipe: SearchRecipe, units: Sequence[SearchUnit], launcher: Launcher) -> None:
    """Train the candidates round after round, for all searches together; those with the lowest losses survive a round."""
    assert recipe.recurrent
    for number, (until, keep) in enumerate(recipe.recurrent.rounds):
        jobs: dict[Path, dict[str, Job]] = {}
        for unit in units:
            candidates = recipe.candidates(unit.repeat)
            survivors = unit.search.rounds[number - 1].kept if number else tuple(candidates)
            jobs[unit.search.folder] = {
                name: _cell_job(recipe, unit, "candidates", name, candidates[name], until) for name in survivors
            }
        launcher.run([job for jobs_of_unit in jobs.values() for job in jobs_of_unit.values()])
        for unit in units:
            losses = {name: _lowest_loss(job.run, until) for name, job in jobs[unit.search.folder].items()}
            finished = select_survivors(until, losses, keep)
            unit.search.keep_rounds([*unit.search.rounds[:number], finished])
            best = finished.kept[0]
            logger.info(
                "%s: %d candidates after %d epochs, %d kept, best %s with loss %.3f",
                unit.search.folder,
                len(losses),
                until,
                keep,
                best,
                losses[best],
            )
    for unit in units:
        name = unit.search.chosen
        cell = recipe.candidates(unit.repeat)[name]
        content = {"name": name, "recipe": CELL_GRAPHS[cell] if isinstance(cell, str) else cell}
        atomic_write_text(unit.search.recipe_file, json.dumps(content, indent=1) + "\n")


def _lowest_loss(run: Run, until: int) -> float | None:
    """Return the lowest cross-entropy on the validation subset up to an epoch; None if training diverged before it.

    Epochs that a later round added do not count, so a resumed search gets the same value.
    """
    epochs = [epoch for epoch in run.epochs if epoch <= until]
    if not epochs or (run.diverged and epochs[-1] < until):
        return None
    labels, metric = run.labels("validation"), SELECTION_METRICS["validation-loss"]
    return -max(metric(labels, run.predictions(epoch)["validation"]) for epoch in epochs)


def _train_recurrent_cells(recipe: SearchRecipe, units: Sequence[SearchUnit], launcher: Launcher) -> None:
    """Train cells that were drawn without a search, and published ones, to their last epoch."""
    stage = recipe.recurrent
    assert stage
    jobs = []
    for unit in units:
        count = math.ceil(stage.budget / stage.training.epochs) if stage.random == "budget" else stage.random
        for name, cell in recipe.random_recurrent_cells(unit.repeat, count).items():
            jobs.append(_cell_job(recipe, unit, "random", name, cell, None))
        jobs += [_cell_job(recipe, unit, "known", name, name, None) for name in stage.known]
    launcher.run(jobs)


def _cell_job(recipe: SearchRecipe, unit: SearchUnit, folder: str, name: str, cell: Cell, until: int | None) -> Job:
    kind = {"candidates": "candidate"}.get(folder, folder)
    training = recipe.of_cell(kind, cell, unit.fold, unit.repeat)
    return unit.job(training, "recurrent", folder, name, until=until, may_diverge=True)


def _fusion_recipe(recipe: SearchRecipe, unit: SearchUnit) -> Recipe:
    """Return the recipe of the fusion of the two networks that a search found."""
    branches = {
        "spectrogram": unit.search.run("spectrogram", "found").folder,
        "recurrent": unit.search.run("recurrent", "candidates", unit.search.chosen).folder,
    }
    return recipe.of_fusion(branches, unit.fold, unit.repeat)


def _make_bundles(recipe: SearchRecipe, unit: SearchUnit) -> None:
    """Make a bundle of each network that a search found, unless it is there already."""
    networks: list[tuple[str, Recipe, Run]] = []
    fold, repeat, about_cells, about_cell = unit.fold, unit.repeat, "", ""
    if recipe.spectrogram:
        half = recipe.spectrogram.learn_alphas_on == "half"
        learned_on = "half of the training subset" if half else "the validation subset"
        about_cells = f" Cells found by differentiable search, whose alphas learned from {learned_on}."
        training = recipe.of_cells("found", _derived_cells(recipe, unit), fold, repeat)
        networks.append(("spectrogram", _add_about(training, about_cells), unit.search.run("spectrogram", "found")))
    if recipe.recurrent:
        name, candidates = unit.search.chosen, recipe.candidates(repeat)
        about_cell = (
            f" Recurrent cell {name}: of {len(candidates)} candidates the one with the lowest cross-entropy on the "
            "validation subset."
        )
        training = recipe.of_cell("candidate", candidates[name], fold, repeat)
        run = unit.search.run("recurrent", "candidates", name)
        networks.append(("recurrent", _add_about(training, about_cell), run))
    if recipe.fusion:
        subset = "training" if recipe.fusion.training.subset == "train" else "validation"
        about_fusion = (
            f" The fused networks were trained on the training subset, their epochs selected by the rule "
            f"{recipe.selection!r}; the settings of training below are those of the perceptron over them, which was "
            f"trained on the {subset} subset."
        )
        training = _add_about(_fusion_recipe(recipe, unit), about_cells + about_cell + about_fusion)
        networks.append(("fusion", training, unit.search.run("fusion")))
    for branch, training, run in networks:
        folder = unit.search.folder / "bundles" / branch
        if not (folder / "README.md").is_file():
            logger.info("bundle: %s", folder)
            make_bundle(training, [run], folder, command=f"affekt search {recipe.name}")


def _add_about(recipe: Recipe, sentences: str) -> Recipe:
    """Return the recipe with sentences about the search, for its card."""
    return replace(recipe, about=recipe.about + sentences)


def bundles_of(search: Search) -> list[Bundle]:
    """Return the bundles of a search."""
    return [Bundle.open(path.parent) for path in sorted((search.folder / "bundles").glob("*/model.onnx"))]


def _write_page(folder: Path) -> None:
    atomic_write_text(folder / PAGE, search_page(folder))
