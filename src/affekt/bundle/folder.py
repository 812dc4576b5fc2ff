"""The format of a bundle, the folder of a trained model:

config.toml         how the network is built, what it was trained on, and under which protocol
labels.json         the emotions, in the order of the outputs
model.safetensors   the weights, to rebuild the network in torch
model.onnx          the network for recognition: 16 kHz waveform in, probabilities out
split.json          the utterances of each subset
results.json        the scores on the model card, and how they were obtained
README.md           the model card, written by `affekt.reports.card` from config.toml and results.json

This module does not need torch; `affekt.bundle.pipeline`, which rebuilds the network, does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from affekt.config import is_outdated, read_toml
from affekt.errors import BadBundle
from affekt.registry import did_you_mean

SCHEMA = 1
"""Version of the format of labels.json."""
ASSETS = Path(__file__).parents[1] / "assets"
DEFAULT = "default"
"""The name of the bundle that ships with the package."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. `Bundle.open` reads labels.json only; other files are read on access."""

    folder: Path
    name: str
    emotions: tuple[str, ...]

    @classmethod
    def open(cls, source: str | Path = DEFAULT) -> Bundle:
        """Open the bundle in a folder, or a shipped bundle by its name. Raises `BadBundle`."""
        folder = ASSETS / source if str(source) in shipped() else Path(source)
        if not (folder / "labels.json").is_file():
            known = ", ".join(shipped()) or "none"
            raise BadBundle(
                f"{source} is not a bundle: expected a folder with model.onnx, config.toml and labels.json, as "
                "`affekt train --output` writes it, or the name of a shipped bundle"
                f"{did_you_mean(str(source), shipped())} (shipped: {known})"
            )
        try:
            labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
            schema, name, emotions = labels["schema"], str(labels["name"]), tuple(map(str, labels["emotions"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BadBundle(
                f"{folder / 'labels.json'} has no valid schema, name and emotions ({error!r}); make the bundle again"
            ) from error
        if schema != SCHEMA:
            raise BadBundle(
                f"{folder} has schema {schema}; this version of affekt reads schema {SCHEMA}: upgrade affekt"
            )
        return cls(folder, name, emotions)

    @property
    def onnx(self) -> Path:
        """The path of model.onnx. Raises `BadBundle` if it is missing."""
        return self.file("model.onnx")

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle. Raises `BadBundle` if it is missing."""
        path = self.folder / name
        if not path.is_file():
            raise BadBundle(f"the bundle {self.folder} has no {name}; make it again")
        return path

    @cached_property
    def id(self) -> str:
        """The name, and the first 8 hexadecimal digits of a hash of all files that determine the predictions."""
        digest = hashlib.sha256()
        for name in ("config.toml", "labels.json", "model.onnx"):
            digest.update(self.file(name).read_bytes())
        return f"{self.name}@{digest.hexdigest()[:8]}"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The contents of config.toml. Raises `BadBundle` for a bundle of an earlier version."""
        config = read_toml(self.file("config.toml"))
        if is_outdated(config) or is_outdated(config.get("recipe", {})):
            raise BadBundle(f"{self.folder} was made by an earlier version: run `affekt migrate {self.folder}`")
        return config

    def section(self, name: str) -> dict[str, Any]:
        """Return a section of config.toml, such as "features", "model" or "protocol". Raises `BadBundle` if it is missing."""
        if name not in self.config:
            raise BadBundle(f"{self.folder}: config.toml has no section [{name}]; make the bundle again")
        section: dict[str, Any] = self.config[name]
        return section

    @cached_property
    def results(self) -> dict[str, Any]:
        """The contents of results.json. Raises `BadBundle` if it is missing."""
        results: dict[str, Any] = json.loads(self.file("results.json").read_text(encoding="utf-8"))
        return results


def write_labels(folder: Path, name: str, emotions: Iterable[str]) -> None:
    """Write labels.json for a bundle of this name with these emotions."""
    labels = {"schema": SCHEMA, "name": name, "emotions": list(emotions)}
    (folder / "labels.json").write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")


def shipped() -> list[str]:
    """Return the names of the bundles that ship with the package."""
    return sorted(path.parent.name for path in ASSETS.glob("*/labels.json"))
