"""The feature that a section of a recipe or bundle selects, before it is built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affekt.config import decode_named, encode
from affekt.errors import BadConfig
from affekt.features import features
from affekt.features.base import Feature


@dataclass(frozen=True)
class Choice:
    """An entry of a registry that a recipe selects by name, with its settings."""

    name: str
    kind: Any
    config: Any

    @property
    def settings(self) -> dict[str, Any]:
        """The name and all settings, as in TOML."""
        return {"name": self.name, **encode(self.config)}


@dataclass(frozen=True)
class FeatureChoice(Choice):
    """A feature that a recipe selects, with the folder of its weights."""

    where: str
    """The section of the recipe that selects it, for error messages."""
    folder: str | None = None
    """An absolute folder, or one below AFFEKT_MODELS; None for a feature without weights."""

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | ({} if self.folder is None else {"folder": self.folder})

    def build(self) -> Feature:
        """Build the feature with its weights. Raises `BadConfig`."""
        feature: Feature = self.kind.from_folder(self.path, self.config)
        return feature

    @property
    def path(self) -> Path | None:
        """The folder of the weights. Raises `BadConfig` if it is relative to AFFEKT_MODELS, which is not set."""
        if self.folder is None:
            return None
        folder = Path(self.folder).expanduser()
        if folder.is_absolute():
            return folder
        root = os.environ.get("AFFEKT_MODELS")
        if not root:
            raise BadConfig(
                f"{self.where}: folder {self.folder!r} is relative to AFFEKT_MODELS, which is not set; "
                "set it, or give an absolute folder"
            )
        return Path(root) / folder


def choose_feature(section: Mapping[str, Any], where: str) -> FeatureChoice:
    """Return the feature that a section of a recipe or bundle selects. Raises `BadConfig`."""
    settings = {key: value for key, value in section.items() if key != "folder"}
    kind, config = decode_named(features, settings, where)
    folder = str(section["folder"]) if "folder" in section else None
    return FeatureChoice(str(section["name"]), kind, config, where, folder)
