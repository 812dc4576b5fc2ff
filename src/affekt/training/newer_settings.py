"""Settings that are newer than a run: their defaults are what the run was trained with."""

from __future__ import annotations

from affekt.config import add_missing, to_toml
from affekt.errors import AffektError
from affekt.files import atomic_write_text
from affekt.runs.folder import Run
from affekt.training.plan import resolve
from affekt.training.recipe import recipe_of


def add_newer_settings(run: Run) -> None:
    """Add settings that did not exist when a run was begun to its config.toml, with their defaults.

    The run can then be resumed, and its folds and seeds belong to one experiment with those that are trained today. A run
    whose recipe cannot be resolved any more stays as it is.
    """
    if not run.config_path.is_file():
        return
    stored = run.config
    try:
        complete = resolve(recipe_of(run)).config()
    except AffektError:  # such as a setting that was renamed; comparing the settings says what is wrong
        return
    completed = add_missing(stored, complete)
    if to_toml(completed) != to_toml(stored):
        atomic_write_text(run.config_path, to_toml({**completed, **run.descriptions}))
