"""A trained bundle is a folder that knows everything about itself:

config.toml         how its network is built, what it was trained on, under which protocol
labels.json         its emotions, in the order of its outputs
model.safetensors   the weights
model.onnx          raw 16 kHz waveform in, probabilities out
README.md           the card, written by `affekt.reports.card` from the above
results.json        the scores on the card, with how they were obtained

This module needs no torch; what rebuilds the network with torch is `affekt.bundle.pipeline`.
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
ASSETS = Path(__file__).parents[1] / "assets"
DEFAULT = "default"  # the bundle that ships with the package


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. `Bundle.open` checks it; nothing is read before it is asked for."""

    folder: Path
    name: str
    emotions: tuple[str, ...]

    @classmethod
    def open(cls, source: str | Path = DEFAULT) -> Bundle:
        """The bundle in a folder, or a shipped one by its name. Raises `BadBundle`."""
        folder = ASSETS / source if str(source) in shipped() else Path(source)
        if not (folder / "labels.json").is_file():
            known = ", ".join(shipped()) or "none"
            raise BadBundle(
                f"{source} is no bundle: expected a folder with labels.json and model.onnx, or the name of a shipped one"
                f"{did_you_mean(str(source), shipped())} (shipped: {known})"
            )
        try:
            labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
            schema, name, emotions = labels["schema"], str(labels["name"]), tuple(map(str, labels["emotions"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BadBundle(f"{folder / 'labels.json'} does not hold schema, name and emotions: {error!r}") from error
        if schema != SCHEMA:
            raise BadBundle(
                f"{folder} has schema {schema}; this version of affekt reads schema {SCHEMA}: upgrade affekt"
            )
        return cls(folder, name, emotions)

    @property
    def onnx(self) -> Path:
        return self.file("model.onnx")

    def file(self, name: str) -> Path:
        """A file of the bundle. Raises `BadBundle` where it is missing."""
        path = self.folder / name
        if not path.is_file():
            raise BadBundle(f"bundle {self.folder} lacks {name}; export it again")
        return path

    @cached_property
    def id(self) -> str:
        """Name and the first 8 hexadecimal digits of the hash of all that decides an answer."""
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
        """A section of config.toml: "features", "model", "protocol", "recipe". Raises `BadBundle` where it is missing."""
        if name not in self.config:
            raise BadBundle(
                f"{self.folder}: config.toml has no section {name}, so it cannot be built on; export it again"
            )
        section: dict[str, Any] = self.config[name]
        return section

    @cached_property
    def results(self) -> dict[str, Any]:
        results: dict[str, Any] = json.loads(self.file("results.json").read_text(encoding="utf-8"))
        return results


def write_labels(folder: Path, name: str, emotions: Iterable[str]) -> None:
    labels = {"schema": SCHEMA, "name": name, "emotions": list(emotions)}
    (folder / "labels.json").write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")


def shipped() -> list[str]:
    """The names of the bundles inside the package."""
    return sorted(path.parent.name for path in ASSETS.glob("*/labels.json"))
