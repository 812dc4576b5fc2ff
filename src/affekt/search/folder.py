"""The folder of an architecture search. Pages and tables of a search are made from this folder alone.

search.toml                  the resolved search recipe, of one fold and one seed
spectrogram/search/          a run: the supernet; its log has the architecture weights after every epoch
spectrogram/found/           a run: the network derived from the supernet, trained from scratch
spectrogram/random/01/ ...   runs: networks of random cells, trained like the found one
spectrogram/known/NAME/      runs: networks of published cells, trained like the found one
spectrogram/genotype.json    the found cells
recurrent/candidates/NAME/   runs: candidate cells, each trained to the last round that it reached
recurrent/random/NAME/       runs: random cells, all trained to the last epoch
recurrent/known/NAME/        runs: published cells, all trained to the last epoch
recurrent/rounds.json        the rounds of successive halving
recurrent/recipe.json        the selected cell
fusion/                      a run: the perceptron that fuses the two found networks
bundles/                     a bundle for each found network and for the fusion

`affekt.runs.folder` describes the folder of a run. Runs of a stage that is unfinished or was skipped are missing.
This module needs no torch.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affekt.config import is_outdated, read_toml, to_toml
from affekt.errors import BadConfig
from affekt.files import atomic_write_text
from affekt.json_text import to_json
from affekt.runs.folder import Run


@dataclass(frozen=True)
class Round:
    """A finished round of successive halving."""

    epochs: int
    """Number of epochs, from the first, after which the round ends."""
    losses: Mapping[str, float | None]
    """Candidate -> its lowest loss on the validation subset so far; None if its training diverged."""
    kept: tuple[str, ...]
    """The candidates that are trained further, from the lowest loss to the highest."""


@dataclass(frozen=True)
class Search:
    """The folder of a search of one fold and one seed, and its contents."""

    folder: Path

    @classmethod
    def start(cls, folder: Path, config: Mapping[str, Any]) -> Search:
        """Create the folder of a search, or resume the search in it.

        Args:
            folder: The folder.
            config: The resolved search recipe.

        Raises:
            BadConfig: The folder contains a search with other settings.
        """
        search, text = cls(folder), to_toml(config)
        if search.config_path.is_file():
            before, now = _flatten(search.config), _flatten(tomllib.loads(text))
            if changed := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
                raise BadConfig(
                    f"{folder} contains a search with other settings ({', '.join(changed)}): "
                    "choose another folder (--run), or remove this one"
                )
            return search
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(search.config_path, text)
        return search

    @property
    def config_path(self) -> Path:
        return self.folder / "search.toml"

    @property
    def config(self) -> dict[str, Any]:
        """The resolved search recipe.

        Raises:
            BadConfig: An earlier version of affekt wrote the folder.
        """
        config = read_toml(self.config_path)
        if is_outdated(config):
            raise BadConfig(f"{self.folder} was made by an earlier version: run `affekt migrate {self.folder}`")
        return config

    def run(self, *names: str) -> Run:
        """Return the run in a subfolder, such as ("spectrogram", "search"), whether it exists yet or not."""
        return Run(self.folder.joinpath(*names))

    def runs(self, *names: str) -> dict[str, Run]:
        """Return the runs below a subfolder, such as ("recurrent", "candidates"), by name, sorted."""
        paths = sorted(self.folder.joinpath(*names).glob("*/config.toml"))
        return {path.parent.name: Run(path.parent) for path in paths}

    @property
    def genotype_path(self) -> Path:
        """A JSON file: the found cells of the spectrogram branch."""
        return self.folder / "spectrogram" / "genotype.json"

    @property
    def recurrent_recipe_path(self) -> Path:
        """A JSON file: the `name` of the selected candidate, and its cell's graph as `recipe`."""
        return self.folder / "recurrent" / "recipe.json"

    @property
    def _rounds_path(self) -> Path:
        return self.folder / "recurrent" / "rounds.json"

    @property
    def rounds(self) -> list[Round]:
        """The finished rounds of successive halving."""
        if not self._rounds_path.is_file():
            return []
        entries = json.loads(self._rounds_path.read_text(encoding="utf-8"))
        return [Round(entry["epochs"], entry["losses"], tuple(entry["kept"])) for entry in entries]

    def write_rounds(self, rounds: Sequence[Round]) -> None:
        """Write the finished rounds to `rounds.json`."""
        self._rounds_path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(self._rounds_path, to_json([asdict(entry) for entry in rounds], indent=1) + "\n")

    @property
    def selected_candidate(self) -> str:
        """The one candidate that the last round kept; "" while rounds are unfinished."""
        rounds = self.rounds
        return rounds[-1].kept[0] if rounds and len(rounds[-1].kept) == 1 else ""


def _flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings with dotted names, without those of the device, which may change when a search is resumed."""
    settings: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            settings.update(_flatten(value, f"{prefix}{name}."))
        elif name != "device":
            settings[f"{prefix}{name}"] = value
    return settings


def searches_in(folder: Path) -> list[Search]:
    """Return the searches in a folder, at any depth, sorted by path."""
    return [Search(path.parent) for path in sorted(folder.rglob("search.toml"))]
