"""A training run as a job, which can be sent to other processes as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affekt.config import decode, encode
from affekt.runs.folder import Run
from affekt.training.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """A training run: a recipe, one of its folds and seeds, and the run folder, which is the result.

    An interrupted job resumes when it is run again.
    """

    recipe: Recipe
    folder: Path
    until: int | None = None
    """The epoch to end at; None for the last."""
    may_diverge: bool = False
    """If true, a loss that becomes NaN or infinite ends the job and marks its run, instead of raising `Diverged`."""
    fold: int | None = None
    """The number of the fold, from 1; None for the only fold of the recipe."""
    repeat: int = 0
    """The number of the run among the recipe's repeats, from 0; it is added to the seed."""

    @property
    def run(self) -> Run:
        return Run(self.folder)

    @property
    def is_finished(self) -> bool:
        """True if the run needs no more training: it has all its epochs, or has diverged."""
        run, last_epoch = self.run, self.until or self.recipe.training.epochs
        return run.diverged or (run.checkpoint_path.is_file() and max(run.epochs, default=0) >= last_epoch)

    def to_message(self) -> dict[str, Any]:
        """Return the content for JSON. The recipe is text, in which also infinite settings are exact."""
        content = {name: getattr(self, name) for name in ("until", "may_diverge", "fold", "repeat")}
        return {"recipe": json.dumps(encode(self.recipe)), "folder": str(self.folder), **content}

    @classmethod
    def from_message(cls, content: Mapping[str, Any]) -> Job:
        """Return the job that `to_message` describes."""
        rest = {name: value for name, value in content.items() if name not in ("recipe", "folder")}
        return cls(decode(Recipe, json.loads(content["recipe"]), "job"), Path(content["folder"]), **rest)
