"""Resolve a recipe to a plan: look up and check everything that the recipe names, without building it yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import Pipeline, rebuild
from affekt.config import decode_named, encode
from affekt.errors import BadConfig
from affekt.features.base import Feature
from affekt.features.choice import Choice, FeatureChoice, choose_feature
from affekt.models import models
from affekt.models.base import EmotionModel, FeatureSpec
from affekt.protocols import protocols
from affekt.protocols.base import Protocol
from affekt.registry import Registry
from affekt.runs.folder import Run
from affekt.runs.selection import select_epoch
from affekt.training.checkpoint import load_state
from affekt.training.finetuning import load_matching_weights
from affekt.training.recipe import Recipe
from affekt.training.strategies import DEFAULT, strategies


@dataclass(frozen=True)
class Plan:
    """A recipe together with everything that it names: bundle, protocol, model, features, strategy and earlier runs.

    Features, and the network of the bundle to start from, are built on first use and then cached.
    """

    recipe: Recipe
    origin: Bundle | None
    """The bundle to start from."""
    protocol: Protocol
    model: Choice
    features: Mapping[str, FeatureChoice]
    """Stream -> the feature that provides it, for all streams for which the recipe has a feature."""
    strategy: Choice
    teacher: FeatureChoice | None
    weight_runs: Mapping[str, Run]
    """Submodule of the model -> the run whose weights it is initialized with."""

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that the model uses with its settings, in its order."""
        streams: tuple[str, ...] = self.model.kind.streams_of(self.model.config)
        return streams

    @property
    def unused_streams(self) -> list[str]:
        """The streams for which the recipe has a feature, but which the model does not use with its settings."""
        return [stream for stream in self.features if stream not in self.streams]

    @cached_property
    def pipeline(self) -> Pipeline | None:
        """The network of the bundle to start from, with its weights from before training."""
        return rebuild(self.origin) if self.origin else None

    @cached_property
    def frozen_features(self) -> dict[str, Feature]:
        """The features of all streams that the model uses, with their weights from before training; do not train them."""
        built = {stream: self._feature(stream, self.pipeline) for stream in self.streams}
        _check_preset(self.model, {stream: feature.dim for stream, feature in built.items()})
        return built

    def build_features(self) -> dict[str, Feature]:
        """Return the features of all streams that the model uses, for training and for loading trained weights into them.

        With tune = "all", which changes their weights, they are built anew; otherwise they are `frozen_features`.
        """
        if self.recipe.training.tune == "head":
            return self.frozen_features
        pipeline = self._pipeline_to_train()
        return {stream: self._feature(stream, pipeline) for stream in self.streams}

    def _pipeline_to_train(self) -> Pipeline | None:
        """Return the network of the bundle to start from: a new one with tune = "all", which changes its weights."""
        if self.origin and self.recipe.training.tune == "all":
            return rebuild(self.origin)
        return self.pipeline

    def _feature(self, stream: str, pipeline: Pipeline | None) -> Feature:
        rebuilt = pipeline.features if pipeline else {}
        return rebuilt[stream] if stream in rebuilt else self.features[stream].build()

    def build_teacher(self) -> Feature:
        """Build the teacher with its weights."""
        assert self.teacher
        return self.teacher.build()

    def build_model(self, specs: Mapping[str, FeatureSpec], emotions: Sequence[str]) -> EmotionModel:
        """Build the model for streams of the given sizes.

        Its weights are initialized from torch's random generator, or from the bundle to start from.
        """
        model: EmotionModel = self.model.kind.build(self.model.config, specs, len(emotions))
        if self.origin:
            pipeline = self._pipeline_to_train()
            assert pipeline
            weights, temperature = pipeline.models[0].state_dict(), float(pipeline.temperature)
            load_matching_weights(model, weights, emotions, self.origin.emotions, temperature=temperature)
        return model

    def load_submodules(self, model: EmotionModel) -> None:
        """Load the weights of the runs in the recipe's `weights_from` into the model's submodules."""
        for name, run in self.weight_runs.items():
            weights: dict[str, Tensor] = load_state(_weights_path(name, run))
            getattr(model, name).load_state_dict(weights)

    def config(self, repeat: int = 0) -> dict[str, Any]:
        """Return all settings that determine a training run, with every default written out.

        Settings that only matter after training, such as the temperature, are left out. What only describes the run,
        `affekt.runs.folder.DESCRIPTIONS`, is included.

        Args:
            repeat: The number of the run among the recipe's repeats, from 0; it is added to the seed.
        """
        settings = encode(self.recipe)
        for name in ("temperature", "about", "probes", "repeats", "detector"):
            del settings[name]
        if not self.recipe.assumptions:
            del settings["assumptions"]
        settings["seed"] = self.recipe.seed + repeat
        settings["training"]["strategy"] = self.strategy.settings
        if self.weight_runs:
            settings["weights_ids"] = {name: _weights_id(name, run) for name, run in self.weight_runs.items()}
        if self.origin:
            settings["start_id"] = self.origin.id
        else:
            settings["features"] = {stream: choice.settings for stream, choice in self.features.items()}
            settings["model"] = self.model.settings
        return settings


def resolve(recipe: Recipe, *, origin: Bundle | None = None) -> Plan:
    """Look up everything that a recipe names, and check that it fits together.

    Args:
        recipe: The recipe.
        origin: The bundle that `recipe.start` names, if it is open already.

    Raises:
        BadBundle: The bundle to start from is missing, incomplete or damaged.
        BadConfig: A name is unknown, a setting is wrong, or two settings exclude each other.
    """
    if recipe.start and origin is None:
        origin = Bundle.open(recipe.start)
    if origin:
        origin.verify()
    weight_runs = {name: Run(Path(folder).expanduser()) for name, folder in recipe.weights_from.items()}
    sections = origin.config.get("features", {}) if origin else recipe.features
    plan = Plan(
        recipe,
        origin,
        _choose(protocols, recipe.protocol, "protocol").config,
        _choose(models, origin.section("model") if origin else _with_settings_of_runs(recipe, weight_runs), "model"),
        {stream: choose_feature(section, f"features.{stream}") for stream, section in sections.items()},
        _choose(strategies, {"name": DEFAULT, **recipe.training.strategy}, "training.strategy"),
        choose_feature(recipe.training.teacher, "training.teacher") if recipe.training.teacher else None,
        weight_runs,
    )
    plan.strategy.kind.check(plan.strategy.config, recipe.training)
    _check_streams(plan)
    _check_submodules(plan)
    _check_validation(plan)
    _check_probes(plan)
    _check_detector(plan)
    return plan


def _choose(registry: Registry, section: Mapping[str, Any], where: str) -> Choice:
    kind, config = decode_named(registry, section, where)
    return Choice(str(section["name"]), kind, config)


def _with_settings_of_runs(recipe: Recipe, runs: Mapping[str, Run]) -> Mapping[str, Any]:
    """Return the model's section, with settings added from the runs in `weights_from`."""
    if not runs:
        return recipe.model
    kind, _ = decode_named(models, {"name": recipe.model.get("name")}, "model")
    if unknown := sorted(set(runs) - set(kind.submodules)):
        known = ", ".join(kind.submodules) or "none"
        raise BadConfig(f"weights_from.{unknown[0]}: {recipe.model['name']} has no such submodule (it has {known})")
    missing = {name: _model_settings(name, run, kind) for name, run in runs.items() if name not in recipe.model}
    return {**missing, **recipe.model}


def _model_settings(name: str, run: Run, kind: Any) -> dict[str, Any]:
    """Return the model settings of the run that a submodule is initialized from."""
    _check_run(name, run)
    settings = dict(run.config["model"])
    expected = kind.submodules[name]
    if models.resolve(settings.pop("name"))[0] is not models[expected]:
        raise BadConfig(f"weights_from.{name}: {run.folder} is a run of another model; expected {expected}")
    return settings


def _check_run(name: str, run: Run) -> None:
    if not run.config_path.is_file() or not run.epochs:
        raise BadConfig(f"weights_from.{name}: no run in {run.folder}; expected a folder that `affekt train` wrote")


def _weights_path(name: str, run: Run) -> Path:
    """Return the weights file of the epoch that the run's own selection rule selects."""
    _check_run(name, run)
    return run.weights_path(select_epoch(run, run.config["selection"]))


def _weights_id(name: str, run: Run) -> str:
    """Return an id of a run's weights that depends on their values only, not on their path."""
    return hashlib.sha256(_weights_path(name, run).read_bytes()).hexdigest()[:12]


def _check_streams(plan: Plan) -> None:
    """Raise `BadConfig` for a stream without a feature, a stream that the model lacks, and a feature of the wrong input."""
    name, provided = plan.model.name, set(plan.features)
    if missing := [stream for stream in plan.streams if stream not in provided]:
        raise BadConfig(
            f"{name} needs the stream {missing[0]!r}, but no feature provides it: add [features.{missing[0]}]"
        )
    if unknown := sorted(provided - set(plan.model.kind.streams)):
        streams = ", ".join(plan.model.kind.streams)
        raise BadConfig(f"features.{unknown[0]}: {name} has no such stream (it has {streams})")
    for stream in plan.streams:
        choice = plan.features[stream]
        if (choice.kind.input == "text") != (stream == "text"):
            raise BadConfig(
                f"features.{stream}: {choice.name} takes {choice.kind.input}, which cannot provide this stream"
            )
    if plan.recipe.training.tune == "all" and plan.streams != ("speech",):
        raise BadConfig(f"tune = 'all' trains a speech encoder alone, but {name} uses {', '.join(plan.streams)}")


def _check_preset(model: Choice, dims: Mapping[str, int]) -> None:
    """Raise `BadConfig` if a model's preset is for features of another width, such as the log-mel of an ablation.

    Args:
        model: The model, whose name may include a preset.
        dims: Stream -> the width of the feature that provides it.
    """
    _, preset = models.resolve(model.name)
    for stream, dim in dims.items():
        if (expected := preset.get(f"{stream}_dim")) is not None and dim != expected:
            raise BadConfig(
                f"the model {model.name!r} is for a stream {stream!r} of width {expected}, but features.{stream} has width "
                f"{dim}: use the feature that docs/models states for this preset, or a model without it"
            )


def _check_submodules(plan: Plan) -> None:
    """Raise `BadConfig` if submodules are neither trained nor initialized with trained weights."""
    untrained = [name for name in plan.model.kind.pretrained(plan.model.config) if name not in plan.weight_runs]
    if untrained and not plan.origin:
        raise BadConfig(
            f"{plan.model.name} does not train its submodules {' and '.join(untrained)}: name the run folders of their "
            "weights in [weights_from], or train them too with model.frozen = false"
        )


def _check_validation(plan: Plan) -> None:
    """Raise `BadConfig` if a setting needs a validation subset and the protocol has none."""
    settings = plan.recipe.validation_settings
    if plan.recipe.training.subset == "validation":
        settings.append("training.subset = 'validation'")
    if setting := plan.strategy.kind.validation_setting(plan.strategy.config):
        settings.append(f"training.strategy.{setting}")
    if settings and not plan.protocol.has_validation:
        raise BadConfig(f"{settings[0]} needs a validation subset: set the protocol's setting `validation`")


def _check_detector(plan: Plan) -> None:
    """Raise `BadConfig` for a detector without frames of speech."""
    if plan.recipe.detector is None:
        return
    if "speech" not in plan.streams or not plan.features["speech"].kind.has_time:
        raise BadConfig("detector: the model has no stream 'speech' with a time axis, on which a detector works")
    if "text" in plan.streams:
        raise BadConfig("detector: the model needs a text; only a model of audio alone can refuse recordings")


def _check_probes(plan: Plan) -> None:
    """Raise `BadConfig` for a probe of a block that the speech encoder does not output."""
    for probe in plan.recipe.probes:
        available = getattr(plan.features["speech"].config, "blocks", ()) if "speech" in plan.features else ()
        if missing := set(probe.blocks) - set(available):
            raise BadConfig(f"probe {probe.name!r} needs blocks {sorted(missing)}, which the encoder does not output")
