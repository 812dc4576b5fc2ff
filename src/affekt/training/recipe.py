"""A recipe: everything that decides a training, as frozen dataclasses that TOML writes down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from affekt.config import decode, decode_named, encode, override, read_toml
from affekt.corpora import corpora
from affekt.errors import BadConfig
from affekt.features import features
from affekt.features.base import Feature
from affekt.labels import label_set
from affekt.models import models
from affekt.models.base import EmotionModel, FeatureSpec
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

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise BadConfig(
                f"epochs = {self.epochs}, batch_size = {self.batch_size}: expected at least 1 epoch and 2 utterances"
            )


@dataclass(frozen=True)
class Recipe:
    name: str
    labels: str  # a label set of affekt.labels
    corpora: tuple[str, ...]
    held_out: Mapping[str, tuple[str, ...]]  # scored part -> the people in it, as "cremad/1005"; "test" is one
    encoder: Mapping[str, Any]  # name of a feature, the folder of its weights, its settings
    model: Mapping[str, Any]  # name of a model and its settings
    training: Training
    seed: int = 0
    members: int = 1  # models, trained alike from seed, seed + 1, ..., whose probabilities are averaged
    selection: Literal["last", "validation", "paper"] = "last"
    temperature: float = 1.0  # that the finished models' logits are divided by
    about: str = ""  # a sentence for the card
    probes: tuple[Probe, ...] = ()

    def __post_init__(self) -> None:
        """What a recipe names must exist, before anything is computed."""
        label_set(self.labels)
        self.model_class()
        _, encoder = self.encoder_class()
        for name in self.corpora:
            if name not in corpora:
                raise BadConfig(
                    f"there is no corpus {name!r}{did_you_mean(name, corpora)} (known: {', '.join(corpora)})"
                )
        if self.members < 1:
            raise BadConfig(f"members = {self.members}: expected at least 1")
        if not self.held_out.get("test") or "train" in self.held_out:
            raise BadConfig(
                "held_out needs people under test, and none under train: whoever is not held out is trained on"
            )
        if self.selection == "validation" and not self.held_out.get("validation"):
            raise BadConfig("selection = 'validation' needs people under held_out.validation")
        for probe in self.probes:
            if missing := set(probe.blocks) - set(getattr(encoder, "blocks", ())):
                raise BadConfig(
                    f"probe {probe.name!r} asks for blocks {sorted(missing)}, which the encoder does not give"
                )

    def encoder_class(self) -> tuple[Any, Any]:
        """The encoder's class and its settings."""
        return decode_named(features, {k: v for k, v in self.encoder.items() if k != "folder"}, "encoder")

    def build_encoder(self) -> Feature:
        """The encoder with its weights, from its folder: an absolute path, or one below AFFEKT_MODELS."""
        kind, config = self.encoder_class()
        if "folder" not in self.encoder:
            return kind.from_folder(None, config)
        folder = Path(str(self.encoder["folder"])).expanduser()
        if not folder.is_absolute():
            root = os.environ.get("AFFEKT_MODELS")
            if not root:
                raise BadConfig(
                    f"encoder {str(folder)!r} is looked for in AFFEKT_MODELS, which is not set: name its folder"
                )
            folder = Path(root) / folder
        return kind.from_folder(folder, config)

    def model_class(self) -> tuple[Any, Any]:
        """The model's class and its settings."""
        return decode_named(models, self.model, "model")

    def build_model(self, specs: Mapping[str, FeatureSpec]) -> EmotionModel:
        """The model for these streams, with the weights that the generator's state gives."""
        kind, config = self.model_class()
        return kind.build(config, specs, len(label_set(self.labels)))

    def resolved(self, member: int = 0) -> dict[str, Any]:
        """What decides a member's training, every default written out; what can be chosen afterwards is not part of it."""
        _, encoder = self.encoder_class()
        _, model = self.model_class()
        settings = encode(self)
        for name in ("selection", "temperature", "about", "probes", "members"):
            del settings[name]
        settings["seed"] = self.seed + member
        settings["encoder"] = {**settings["encoder"], **encode(encoder)}
        settings["model"] = {**settings["model"], **encode(model)}
        return settings


def load_recipe(source: str, assignments: list[str] | None = None) -> Recipe:
    """A recipe from a TOML file or by the name of a shipped one, with `key=value` assignments applied."""
    path = RECIPES / f"{source}.toml" if source in shipped_recipes() else Path(source)
    if not path.is_file():
        known = shipped_recipes()
        raise BadConfig(f"there is no recipe {source!r}{did_you_mean(source, known)} (shipped: {', '.join(known)})")
    return decode(Recipe, override(read_toml(path), assignments or []), str(path))


def shipped_recipes() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.toml"))
