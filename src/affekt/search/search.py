"""Search for an architecture (EmotionNAS, Sun et al., arXiv 2203.13617 v1): three stages, baselines, bundles and a page.

Every training run is a job that writes a run folder, so an interrupted search resumes at its last epoch.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affekt.bundle.folder import Bundle
from affekt.config import add_missing, decode, to_toml
from affekt.errors import BadConfig
from affekt.files import atomic_write_text
from affekt.json_text import to_json
from affekt.models.emotionnas.cell_graphs import CELL_GRAPHS
from affekt.models.emotionnas.genotypes import Genotype
from affekt.plural import quantity
from affekt.runs.folder import Run, lock_runs
from affekt.runs.selection import SELECTION_METRICS, select_epoch
from affekt.search.folder import Search, searches_in
from affekt.search.halving import finish_round
from affekt.search.plan import check_search
from affekt.search.recipe import Cell, SearchRecipe
from affekt.search.report.page import search_page
from affekt.training.plan import Plan
from affekt.training.recipe import Recipe
from affekt.workflows.job import Job
from affekt.workflows.jobs import Launcher, LocalLauncher
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import run_folder
from affekt.workflows.training_data import TrainingData

logger = logging.getLogger(__name__)

PAGE = "page.html"
"""The page of results, in the search's folder."""


@dataclass(frozen=True)
class SearchUnit:
    """A search of one fold and one seed."""

    search: Search
    fold: int
    repeat: int

    def job(self, recipe: Recipe, *names: str, until: int | None = None, may_diverge: bool = False) -> Job:
        """Return the job that trains a recipe in a run folder of the search; `names` are the parts of its path."""
        return Job(recipe, self.search.folder.joinpath(*names), until, may_diverge)


def search(
    recipe: SearchRecipe, folder: Path, *, launcher: Launcher | None = None, bundles: bool = True
) -> list[Search]:
    """Run a search for every fold and seed; resume an interrupted search in the same folder.

    Each stage runs for all folds and seeds together, so that a launcher with many workers can keep them busy.

    Args:
        recipe: The search recipe.
        folder: The search's folder; with several folds or seeds, the folder of the searches.
        launcher: Runs the training jobs; None runs them in this process.
        bundles: Whether to make a bundle for each found network.

    Returns:
        The searches, one for each fold and seed.

    Raises:
        BadConfig: The recipe is wrong, or the folder contains another search.
        BadCorpus: A corpus cannot be read.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadConfig("a search starts its own processes: run it without torchrun, and with --workers for several")
    launcher = launcher or LocalLauncher()
    plans = check_search(recipe)
    data = TrainingData.read(plans[0].recipe)
    launcher.runner.add_data(plans[0].recipe, data)
    with lock_runs([folder]):
        return _run_stages(recipe, _start_units(recipe, plans, data, folder), data, folder, launcher, bundles=bundles)


def _run_stages(
    recipe: SearchRecipe,
    units: list[SearchUnit],
    data: TrainingData,
    folder: Path,
    launcher: Launcher,
    *,
    bundles: bool,
) -> list[Search]:
    if recipe.spectrogram:
        _search_spectrogram_cells(recipe, units, launcher)
        _write_page(folder)
        _train_spectrogram_networks(recipe, units, launcher)
        _write_page(folder)
    if recipe.recurrent:
        _search_recurrent_cell(recipe, units, launcher)
        _write_page(folder)
        _train_recurrent_baselines(recipe, units, launcher)
    if recipe.fusion:
        launcher.run([unit.job(_fusion_recipe(recipe, unit), "fusion") for unit in units])
    _write_page(folder)
    for unit in units if bundles else ():
        _make_bundles(recipe, unit, data)
    return [unit.search for unit in units]


def _start_units(recipe: SearchRecipe, plans: Sequence[Plan], data: TrainingData, folder: Path) -> list[SearchUnit]:
    """Create or resume the folder of each search."""
    plan = replace(plans[0], recipe=replace(plans[0].recipe, folds=recipe.folds))
    splits = data.folds(plan)
    without_validation = [number for number, split in splits if not split.subsets.get("validation")]
    if without_validation and recipe.needs_validation:
        raise BadConfig(
            f"fold {without_validation[0]} of {plan.protocol.title} has no validation subset, which the search needs: "
            "use another protocol, or a corpus whose own split has one"
        )
    for branch in plans:  # a missing encoder raises before hours of training
        branch.build_features()
    folders = {
        (fold, repeat): run_folder(recipe, folder, fold, repeat, len(splits))
        for fold, _ in splits
        for repeat in range(recipe.repeats)
    }
    _check_folder_levels(folder, next(iter(folders.values())))
    for (fold, _), search_dir in folders.items():
        _add_newer_settings(Search(search_dir), fold)
    return [
        SearchUnit(Search.start(search_dir, recipe.resolve(fold, repeat)), fold, repeat)
        for (fold, repeat), search_dir in folders.items()
    ]


def _add_newer_settings(search: Search, fold: int) -> None:
    """Add settings that did not exist when a search was begun to its search.toml, with their defaults."""
    if not search.config_path.is_file():
        return
    stored = search.config
    try:
        complete = decode(SearchRecipe, stored, str(search.config_path)).resolve(fold, 0)
    except BadConfig:  # such as a setting that was renamed; comparing the settings says what is wrong
        return
    atomic_write_text(search.config_path, to_toml(add_missing(stored, complete)))


def _check_folder_levels(folder: Path, expected: Path) -> None:
    """Raise `BadConfig` if `folder` contains a search at another level than the current recipe's.

    Searches have subfolders for folds if there are several, and for seeds if there are several. A search that was started
    with another number of folds or seeds may be at another level, and the page would mix it with the current ones.

    Args:
        folder: The folder of the searches.
        expected: The folder of one search of the current recipe.
    """

    def levels(search_dir: Path) -> list[str]:
        return [name.partition("-")[0] for name in search_dir.relative_to(folder).parts]

    if others := [other.folder for other in searches_in(folder) if levels(other.folder) != levels(expected)]:
        raise BadConfig(
            f"{others[0]} contains a search of another number of folds or seeds (with the current numbers, it would be in "
            f"{expected}): choose another folder (--run), or remove {others[0]}"
        )


def _search_spectrogram_cells(recipe: SearchRecipe, units: Sequence[SearchUnit], launcher: Launcher) -> None:
    """Train the supernets, and derive cells from them."""
    jobs = [unit.job(recipe.supernet_recipe(unit.fold, unit.repeat), "spectrogram", "search") for unit in units]
    launcher.run(jobs)
    for unit in units:
        genotype = _found_genotype(recipe, unit)
        atomic_write_text(unit.search.genotype_path, genotype.to_json())
        log_entry = _read_genotype_epoch(recipe, unit)
        if log_entry["collapsed"]:
            logger.warning(
                "%s: the search collapsed: the normal cell has %d skip connections among %d operations; "
                "see strategy.alpha_start, order and learn_alphas_on",
                unit.search.folder,
                log_entry["skips"],
                len(genotype.normal),
            )


def _read_genotype_epoch(recipe: SearchRecipe, unit: SearchUnit) -> Mapping[str, Any]:
    """Return the supernet's log entry of the epoch that the cells are derived from."""
    assert recipe.spectrogram
    run = unit.search.run("spectrogram", "search")
    epoch = run.epochs[-1] if recipe.spectrogram.genotype_from == "last" else select_epoch(run, recipe.selection)
    return next(entry for entry in run.log() if entry["epoch"] == epoch)


def _found_genotype(recipe: SearchRecipe, unit: SearchUnit) -> Genotype:
    return Genotype.from_dict(_read_genotype_epoch(recipe, unit)["genotype"])


def _train_spectrogram_networks(recipe: SearchRecipe, units: Sequence[SearchUnit], launcher: Launcher) -> None:
    """Train the network of the found cells, then networks of random and of published cells, all in the same way."""
    stage = recipe.spectrogram
    assert stage
    # These runs come first: their duration determines the number of random cells.
    launcher.run([_spectrogram_job(recipe, unit, "found", _found_genotype(recipe, unit)) for unit in units])
    jobs = []
    for unit in units:
        for number in range(1, _num_random_cells(recipe, unit) + 1):
            genotype = recipe.random_genotype(unit.repeat, number)
            jobs.append(_spectrogram_job(recipe, unit, "random", genotype, f"{number:02}"))
        jobs += [_spectrogram_job(recipe, unit, "known", name, name) for name in stage.known]
    launcher.run(jobs)


def _spectrogram_job(recipe: SearchRecipe, unit: SearchUnit, kind: str, genotype: str | Genotype, *names: str) -> Job:
    network = recipe.spectrogram_recipe(kind, genotype, unit.fold, unit.repeat)
    return unit.job(network, "spectrogram", kind, *names, may_diverge=kind != "found")


def _num_random_cells(recipe: SearchRecipe, unit: SearchUnit) -> int:
    """Return the number of networks of random cells to train.

    For "budget" it is the time of the search and of training the found cells, divided by the time of training the found cells
    and rounded up, so that the random cells get the same time in total.
    """
    assert recipe.spectrogram
    if recipe.spectrogram.random != "budget":
        return recipe.spectrogram.random
    search_seconds, train_seconds = (unit.search.run("spectrogram", kind).seconds for kind in ("search", "found"))
    number = math.ceil((search_seconds + train_seconds) / train_seconds)
    logger.info(
        "%s: the search and the training of the found cells took %.0f s, enough to train %s of random cells",
        unit.search.folder,
        search_seconds + train_seconds,
        quantity(number, "network"),
    )
    return number


def _search_recurrent_cell(recipe: SearchRecipe, units: Sequence[SearchUnit], launcher: Launcher) -> None:
    """Train the candidates in rounds; after each round, those with the lowest losses are kept."""
    assert recipe.recurrent
    for number, (until, keep) in enumerate(recipe.recurrent.rounds):
        jobs: dict[Path, dict[str, Job]] = {}
        for unit in units:
            candidates = recipe.candidates(unit.repeat)
            names = unit.search.rounds[number - 1].kept if number else tuple(candidates)
            jobs[unit.search.folder] = {
                name: _recurrent_job(recipe, unit, "candidates", name, candidates[name], until) for name in names
            }
        launcher.run([job for jobs_of_unit in jobs.values() for job in jobs_of_unit.values()])
        for unit in units:
            losses = {name: _lowest_loss(job.run, until) for name, job in jobs[unit.search.folder].items()}
            finished = finish_round(until, losses, keep)
            unit.search.write_rounds([*unit.search.rounds[:number], finished])
            best = finished.kept[0]
            logger.info(
                "%s: %s after %s, %d kept; best: %s, loss %.3f",
                unit.search.folder,
                quantity(len(losses), "candidate"),
                quantity(until, "epoch"),
                keep,
                best,
                losses[best],
            )
    for unit in units:
        name = unit.search.selected_candidate
        cell = recipe.candidates(unit.repeat)[name]
        content = {"name": name, "recipe": CELL_GRAPHS[cell] if isinstance(cell, str) else cell}
        atomic_write_text(unit.search.recurrent_recipe_path, to_json(content, indent=1) + "\n")


def _lowest_loss(run: Run, until: int) -> float | None:
    """Return a run's lowest cross-entropy on the validation subset up to the epoch `until`.

    None if training diverged before it. Epochs that a later round added do not count, so a resumed search gets the same
    value.
    """
    epochs = [epoch for epoch in run.epochs if epoch <= until]
    if not epochs or (run.diverged and epochs[-1] < until):
        return None
    labels, metric = run.labels("validation"), SELECTION_METRICS["validation-loss"]
    return -max(metric(labels, run.predictions(epoch)["validation"]) for epoch in epochs)


def _train_recurrent_baselines(recipe: SearchRecipe, units: Sequence[SearchUnit], launcher: Launcher) -> None:
    """Train networks of random and of published recurrent cells, all to their last epoch."""
    stage = recipe.recurrent
    assert stage
    jobs = []
    for unit in units:
        count = math.ceil(stage.budget / stage.training.epochs) if stage.random == "budget" else stage.random
        for name, cell in recipe.random_recurrent_cells(unit.repeat, count).items():
            jobs.append(_recurrent_job(recipe, unit, "random", name, cell, None))
        jobs += [_recurrent_job(recipe, unit, "known", name, name, None) for name in stage.known]
    launcher.run(jobs)


def _recurrent_job(
    recipe: SearchRecipe, unit: SearchUnit, folder: str, name: str, cell: Cell, until: int | None
) -> Job:
    kind = "candidate" if folder == "candidates" else folder
    network = recipe.recurrent_recipe(kind, cell, unit.fold, unit.repeat)
    return unit.job(network, "recurrent", folder, name, until=until, may_diverge=True)


def _fusion_recipe(recipe: SearchRecipe, unit: SearchUnit) -> Recipe:
    """Return the recipe of the fusion of the two found networks."""
    branches = {
        "spectrogram": unit.search.run("spectrogram", "found").folder,
        "recurrent": unit.search.run("recurrent", "candidates", unit.search.selected_candidate).folder,
    }
    return recipe.fusion_recipe(branches, unit.fold, unit.repeat)


def _make_bundles(recipe: SearchRecipe, unit: SearchUnit, data: TrainingData) -> None:
    """Make a bundle for each found network, unless it exists already."""
    networks: list[tuple[str, Recipe, Run]] = []
    fold, repeat, about_genotype, about_recurrent_cell = unit.fold, unit.repeat, "", ""
    if recipe.spectrogram:
        half = recipe.spectrogram.learn_alphas_on == "half"
        learned_on = "half of the training subset" if half else "the validation subset"
        about_genotype = f" Cells found by differentiable search, whose alphas learned from {learned_on}."
        network = recipe.spectrogram_recipe("found", _found_genotype(recipe, unit), fold, repeat)
        networks.append(("spectrogram", _add_about(network, about_genotype), unit.search.run("spectrogram", "found")))
    if recipe.recurrent:
        name, candidates = unit.search.selected_candidate, recipe.candidates(repeat)
        about_recurrent_cell = (
            f" Recurrent cell {name}: lowest cross-entropy on the validation subset, of "
            f"{quantity(len(candidates), 'candidate')}."
        )
        network = recipe.recurrent_recipe("candidate", candidates[name], fold, repeat)
        run = unit.search.run("recurrent", "candidates", name)
        networks.append(("recurrent", _add_about(network, about_recurrent_cell), run))
    if recipe.fusion:
        subset = "training" if recipe.fusion.training.subset == "train" else "validation"
        about_fusion = (
            f" The two networks were trained on the training subset, and their epochs selected by the rule "
            f"{recipe.selection!r}. The training settings below are those of the perceptron that fuses them, which was "
            f"trained on the {subset} subset."
        )
        network = _add_about(_fusion_recipe(recipe, unit), about_genotype + about_recurrent_cell + about_fusion)
        networks.append(("fusion", network, unit.search.run("fusion")))
    for branch, network, run in networks:
        folder = unit.search.folder / "bundles" / branch
        if not (folder / "README.md").is_file():
            logger.info("bundle: %s", folder)
            make_bundle(network, [run], folder, data=data, command=f"affekt search {recipe.name}")


def _add_about(recipe: Recipe, sentences: str) -> Recipe:
    """Return the recipe with sentences about the search appended to `about`, for the model card."""
    return replace(recipe, about=recipe.about + sentences)


def bundles_of(search: Search) -> list[Bundle]:
    """Return the bundles of a search."""
    return [Bundle.open(path.parent) for path in sorted((search.folder / "bundles").glob("*/model.onnx"))]


def _write_page(folder: Path) -> None:
    atomic_write_text(folder / PAGE, search_page(folder))
