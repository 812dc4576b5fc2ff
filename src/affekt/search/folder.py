"""A search's folder: what `affekt search` leaves behind. Everything that a page or a table says of a search derives from it.

search.toml                  the resolved search recipe, of one fold and one seed
spectrogram/search/          a run: the supernet; its log has the architecture weights after every epoch
spectrogram/found/           a run: the network derived from it, trained from its beginning
spectrogram/random/01/ ...   runs: networks of random cells, trained as the found one; together they cost what the search did
spectrogram/known/NAME/      runs: networks of published cells, likewise
spectrogram/genotype.json    what was found
recurrent/candidates/NAME/   runs: candidate recipes, each trained as long as the halving kept it; the last one to its end
recurrent/random/NAME/       runs: recipes drawn without a search, all to their end, as many as the halving's epochs pay for
recurrent/known/NAME/        runs: published recipes, to their end
recurrent/rounds.json        the halving's rounds
recurrent/recipe.json        what was found
fusion/                      a run: the perceptron over the two found networks
bundles/                     a bundle of each of the three

Runs are as `affekt.runs.folder` says; those of a stage that has not ended, or was left out, are missing. This
module needs no torch.
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
from affekt.runs.folder import Run


@dataclass(frozen=True)
class Round:
    """A round of the halving: after so many epochs each candidate's loss on the validation set, and who went on.

    A candidate whose training came apart has no loss.
    """

    epochs: int
    losses: Mapping[str, float | None]
    kept: tuple[str, ...]  # the best first


@dataclass(frozen=True)
class Search:
    folder: Path

    @classmethod
    def start(cls, folder: Path, config: Mapping[str, Any]) -> Search:
        """Begin a search, or take up one that was interrupted. Raises `BadConfig` for one of other settings."""
        search, text = cls(folder), to_toml(config)
        if search.config_file.is_file():
            before, now = _settings(search.config), _settings(tomllib.loads(text))
            if changed := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
                raise BadConfig(
                    f"{folder} holds a search of other settings ({', '.join(changed)}): "
                    "give another folder (--run), or remove it"
                )
            return search
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(search.config_file, text)
        return search

    @property
    def config_file(self) -> Path:
        return self.folder / "search.toml"

    @property
    def config(self) -> dict[str, Any]:
        """The resolved search recipe."""
        config = read_toml(self.config_file)
        if is_outdated(config):
            raise BadConfig(f"{self.folder} was made by an earlier version: run `affekt migrate {self.folder}`")
        return config

    def run(self, *names: str) -> Run:
        """The run of a place in the folder, such as ("spectrogram", "search"), whether it is there yet or not."""
        return Run(self.folder.joinpath(*names))

    def runs(self, *names: str) -> dict[str, Run]:
        """The runs below a place, such as ("recurrent", "candidates"), by their names, in order."""
        return {path.parent.name: Run(path.parent) for path in sorted(self._below(*names).glob("*/config.toml"))}

    def _below(self, *names: str) -> Path:
        return self.folder.joinpath(*names)

    @property
    def genotype_file(self) -> Path:
        return self._below("spectrogram", "genotype.json")

    @property
    def recipe_file(self) -> Path:
        """A JSON object: `name` of the candidate, and its `recipe`."""
        return self._below("recurrent", "recipe.json")

    @property
    def rounds(self) -> list[Round]:
        """The halving's rounds so far."""
        path = self._below("recurrent", "rounds.json")
        if not path.is_file():
            return []
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [Round(one["epochs"], one["losses"], tuple(one["kept"])) for one in entries]

    def keep_rounds(self, rounds: Sequence[Round]) -> None:
        path = self._below("recurrent", "rounds.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps([asdict(one) for one in rounds], indent=1) + "\n")

    @property
    def chosen(self) -> str:
        """The candidate that the last round kept; "" while the halving goes on."""
        rounds = self.rounds
        return rounds[-1].kept[0] if rounds and len(rounds[-1].kept) == 1 else ""


def _settings(section: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the settings that decide a search, by dotted names; the device may change between two calls."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            found.update(_settings(value, f"{where}{name}."))
        elif name != "device":
            found[f"{where}{name}"] = value
    return found


def searches_in(folder: Path) -> list[Search]:
    """The searches of a folder: itself, or those below it, in order."""
    return [Search(path.parent) for path in sorted(folder.rglob("search.toml"))]
