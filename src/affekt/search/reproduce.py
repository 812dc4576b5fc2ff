"""The rows of EmotionNAS's tables, whose networks a search finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from affekt.runs.folder import Run
from affekt.search.folder import Search
from affekt.search.plan import check_search
from affekt.search.recipe import SearchRecipe, load_search
from affekt.search.search import search
from affekt.training.plan import Plan
from affekt.training.recipe import TrainingConfig
from affekt.workflows.jobs import Launcher
from affekt.workflows.reproduction import QUICK_EPOCHS, Request, Row, Unit, adapt

QUICK_SUPERNET = {"channels": 2, "nodes": 2, "shrink": 5}
"""Settings of a supernet small enough to try a search quickly."""
QUICK_RECURRENT = {"hidden": 16, "stride": 16, "frames": 128}
"""Settings of a recurrent network small enough to try a search quickly."""


@dataclass(frozen=True)
class SearchRow(Row):
    """A row whose recipe is a search."""

    recipe: SearchRecipe

    @cached_property
    def networks(self) -> Sequence[tuple[Plan, int]]:
        """The supernet counts as two, with the network of its cells; each candidate for the recurrent cell counts as one."""
        counts = [2] if self.recipe.spectrogram else []
        if self.recipe.recurrent:
            counts.append(self.recipe.recurrent.num_candidates)
        return list(zip(check_search(self.recipe), counts, strict=True))

    def train(self, units: Sequence[Unit], launcher: Launcher) -> None:
        for unit in units:
            if not self.is_finished(unit):
                recipe = replace(self.recipe, folds=(unit.fold,), seed=unit.seed, repeats=1)
                search(recipe, unit.folder, launcher=launcher, bundles=False)

    def scored_run(self, folder: Path) -> Run:
        """Return the run of the last stage: the fusion, the network of the found cells, or the selected candidate."""
        finished = Search(folder)
        if self.recipe.fusion:
            return finished.run("fusion")
        if self.recipe.spectrogram:
            return finished.run("spectrogram", "found")
        return finished.run("recurrent", "candidates", finished.selected_candidate or "none")


def search_row(name: str, request: Request) -> SearchRow:
    """Return the row of a search recipe. Raises `BadConfig` if the request does not fit it."""
    recipe = _set_device(load_search(name), request.device)
    if request.quick:
        recipe = _shrink(recipe)
    recipe, encoders, seeds, remarks = adapt(recipe, request)
    return SearchRow(recipe, encoders, seeds, remarks)


def _set_device(recipe: SearchRecipe, device: str) -> SearchRecipe:
    return _map_training(recipe, lambda training: replace(training, device=device))


def _shrink(recipe: SearchRecipe) -> SearchRecipe:
    """Return a search of small networks for few epochs, without networks to compare with."""
    recipe = _map_training(recipe, lambda training: replace(training, epochs=min(QUICK_EPOCHS, training.epochs)))
    spectrogram, recurrent = recipe.spectrogram, recipe.recurrent
    if spectrogram:
        model = {**spectrogram.model, **QUICK_SUPERNET}
        spectrogram = replace(spectrogram, model=model, random=0, known=())
    if recurrent:
        model = {**recurrent.model, **QUICK_RECURRENT}
        recurrent = replace(recurrent, model=model, candidates=recurrent.candidates[:2], random=0, known=())
    return replace(recipe, spectrogram=spectrogram, recurrent=recurrent)


def _map_training(recipe: SearchRecipe, change: Callable[[TrainingConfig], TrainingConfig]) -> SearchRecipe:
    """Apply a change to the training settings of every stage."""
    spectrogram, recurrent, fusion = recipe.spectrogram, recipe.recurrent, recipe.fusion
    return replace(
        recipe,
        spectrogram=spectrogram
        and replace(spectrogram, search=change(spectrogram.search), training=change(spectrogram.training)),
        recurrent=recurrent and replace(recurrent, training=change(recurrent.training)),
        fusion=fusion and replace(fusion, training=change(fusion.training)),
    )
