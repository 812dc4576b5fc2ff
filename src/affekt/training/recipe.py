"""A recipe: everything that decides a training, as frozen dataclasses that TOML writes down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from affekt.config import decode, decode_named, override, read_toml
from affekt.errors import BadConfig
from affekt.features import features
from affekt.labels import label_set
from affekt.models import models
from affekt.registry import did_you_mean
from affekt.training.augment import Augmentation
from affekt.training.strategy import SupervisedConfig

RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True)
class Probe:
    """A linear probe to stand beside the model: on these states of the encoder, on log-mel where there are none."""

    name: str
    strength: float  # C, the inverse of the L2 penalty's weight
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Training:
    epochs: int
    batch_size: int = 32
    threads: int = 0  # of torch; 0 leaves torch's own choice. The result is bit-identical only at an equal number
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimisation: SupervisedConfig = field(default_factory=SupervisedConfig)


@dataclass(frozen=True)
class Recipe:
    name: str
    labels: str  # a label set of affekt.labels
    corpora: tuple[str, ...]
    held_out: Mapping[str, tuple[str, ...]]  # scored part -> the people in it, as "cremad/1005"
    encoder: Mapping[str, Any]  # name of a feature, its folder below AFFEKT_MODELS, its settings
    model: Mapping[str, Any]  # name of a model and its settings
    training: Training
    seed: int = 0
    selection: Literal["last", "validation", "paper"] = "last"
    temperature: float = 1.0  # that the finished model's logits are divided by
    about: str = ""  # a sentence for the card
    probes: tuple[Probe, ...] = ()

    def encoder_class(self) -> tuple[Any, Any, Path]:
        """The encoder's class, its settings, and the folder of its weights."""
        section = {name: value for name, value in self.encoder.items() if name != "folder"}
        kind, config = decode_named(features, section, f"recipe {self.name}, encoder")
        folder = Path(str(self.encoder.get("folder", "")))
        if not folder.is_absolute():
            root = os.environ.get("AFFEKT_MODELS")
            if not root:
                raise BadConfig(
                    f"encoder {str(folder)!r} is looked for in AFFEKT_MODELS, which is not set: name its folder"
                )
            folder = Path(root) / folder
        return kind, config, folder

    def model_class(self) -> tuple[Any, Any]:
        """The model's class and its settings."""
        return decode_named(models, self.model, f"recipe {self.name}, model")


def load_recipe(source: str, assignments: list[str] | None = None) -> Recipe:
    """A recipe from a TOML file or by the name of a shipped one, with `key=value` assignments applied."""
    path = RECIPES / f"{source}.toml" if source in shipped_recipes() else Path(source)
    if not path.is_file():
        known = shipped_recipes()
        raise BadConfig(f"there is no recipe {source!r}{did_you_mean(source, known)} (shipped: {', '.join(known)})")
    recipe = decode(Recipe, override(read_toml(path), assignments or []), str(path))
    label_set(recipe.labels)  # what a recipe names must exist before anything is computed
    recipe.model_class()
    return recipe


def shipped_recipes() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.toml"))
