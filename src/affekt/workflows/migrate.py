"""Migrate runs, searches and bundles of an earlier version: rewrite their configuration with the keys of this version."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from affekt.bundle.checksums import NAME as SUMS
from affekt.bundle.folder import ACROSS, PREDICTIONS, REFUSALS, SHIFTS, Bundle, write_sums
from affekt.bundle.predictions import LabeledPredictions
from affekt.config import read_toml, to_toml
from affekt.errors import AffektError, BadConfig
from affekt.features import features
from affekt.features.augment import Augmentation
from affekt.files import atomic_write_text
from affekt.json_text import to_json
from affekt.models import models
from affekt.protocols import protocols
from affekt.registry import Registry
from affekt.reports.card import card
from affekt.training.recipe import Recipe, TrainingConfig
from affekt.training.strategies import DEFAULT, strategies

logger = logging.getLogger(__name__)

FUSION = "emotionnas-fusion"
"""The model that earlier versions trained with a special strategy if its branches were frozen."""


def migrate(folder: Path) -> list[Path]:
    """Migrate all runs, searches and bundles in a folder and below it, in place; return the rewritten files.

    Configuration of this version is not changed, so migrating twice does no harm.

    Raises:
        BadConfig: The folder contains no run, search or bundle.
    """
    configs = sorted([*folder.rglob("config.toml"), *folder.rglob("search.toml")])
    if not configs:
        raise BadConfig(f"{folder} contains no run, search or bundle: expected config.toml or search.toml")
    rewritten = []
    for path in configs:
        old = read_toml(path)
        if path.name == "search.toml":
            new = migrate_search(old)
        elif (path.parent / "model.onnx").is_file():
            new = migrate_bundle(old)
        else:
            new = migrate_recipe(old)
        if new != old:
            old_id = Bundle.open(path.parent).id if (path.parent / "model.onnx").is_file() else ""
            (path.parent / SUMS).unlink(missing_ok=True)
            atomic_write_text(path, to_toml(new))
            rewritten.append(path)
            if old_id:
                rewritten += _rewrite_card(path.parent, old_id)
                write_sums(path.parent)
                rewritten.append(path.parent / SUMS)
    return rewritten


def migrate_recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run, or the recipe of a bundle, with the keys of this version."""
    new = _merge_features(config)
    for old, current in (("branches", "weights_from"), ("branch_ids", "weights_ids")):
        if old in new:
            sources = new.pop(old)
            new |= {current: sources} if sources or current == "weights_from" else {}
    if "model" in new:
        new["model"] = _rename_named(models, new["model"])
    if "training" in new:
        fuses = str(new.get("model", {}).get("name", "")).startswith(FUSION)
        frozen = fuses and new["model"].get("frozen", True)
        new["training"] = migrate_training(new["training"], frozen_fusion=frozen)
    if "protocol" in new:
        new["protocol"] = _rename_named(protocols, new["protocol"])
    return rename_keys(Recipe, new)


def migrate_training(config: Mapping[str, Any], *, frozen_fusion: bool = False) -> dict[str, Any]:
    """Return a [training] section with the keys of this version.

    Args:
        config: The section.
        frozen_fusion: Whether the model is a fusion with frozen branches, which was trained with a special strategy.
    """
    new = dict(config)
    optimisation, alphas_on = new.pop("optimisation", None), new.pop("alphas_on", None)
    architecture = new.pop("architecture", None)
    new = rename_keys(TrainingConfig, new)
    if architecture is not None:
        learn = {} if alphas_on is None else {"learn_alphas_on": alphas_on}
        new["strategy"] = {"name": "darts", **architecture, **learn}
    elif optimisation is not None:
        plain = rename_keys(Augmentation, config.get("augmentation", {}))
        shortcut = frozen_fusion and _is_default(Augmentation(), plain)
        new["strategy"] = {"name": "frozen-fusion" if shortcut else DEFAULT, **optimisation}
    if "strategy" in new:
        new["strategy"] = _rename_named(strategies, {"name": DEFAULT, **new["strategy"]})
    return new


def migrate_search(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of search.toml with the keys of this version."""
    new = _merge_features(config)
    for stage in ("spectrogram", "recurrent", "fusion"):
        if stage in new:
            section = dict(new[stage])
            for name in {"search", "training"} & set(section):
                frozen = stage == "fusion" and section.get("model", {}).get("frozen", True)
                section[name] = migrate_training(section[name], frozen_fusion=frozen)
            if stage == "recurrent" and "drawn" in section:
                section["random_candidates"] = section.pop("drawn")
            new[stage] = section
    if "protocol" in new:
        new["protocol"] = _rename_named(protocols, new["protocol"])
    return new


def migrate_bundle(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bundle's config.toml with the keys of this version."""
    new = _merge_features(config)
    if "model" in new:
        new["model"] = _rename_named(models, new["model"])
    if "recipe" in new:
        new["recipe"] = migrate_recipe(new["recipe"])
        new["recipe"].pop("weights_from", None)
    return new


def rename_keys(kind: Any, data: Any) -> Any:
    """Rename keys and values by the tables `renamed` and `renamed_values` of a dataclass and of its fields' dataclasses."""
    if dataclasses.is_dataclass(kind) and isinstance(data, Mapping):
        renamed, values, hints = getattr(kind, "renamed", {}), getattr(kind, "renamed_values", {}), get_type_hints(kind)
        current = {renamed.get(key, key): value for key, value in data.items()}
        current = {
            key: values.get(key, {}).get(value, value) if isinstance(value, str) else value
            for key, value in current.items()
        }
        return {key: rename_keys(hints[key], value) if key in hints else value for key, value in current.items()}
    for argument in get_args(kind):
        if dataclasses.is_dataclass(argument):
            return rename_keys(argument, data)
    return data


def _merge_features(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with [features.NAME] in place of [encoder] and [streams.NAME]."""
    speech = {"speech": config["encoder"]} if config.get("encoder") else {}
    sections = {**speech, **config.get("streams", config.get("features", {}))}
    merged: dict[str, Any] = {}
    for key, value in config.items():
        if key in ("encoder", "streams", "features"):
            merged["features"] = {stream: _rename_named(features, section) for stream, section in sections.items()}
        else:
            merged[key] = value
    return merged


def _rename_named(registry: Registry, section: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the name of a section `{name = ..., ...}` by the registry, and its keys by the class that it names."""
    if "name" not in section:
        return dict(section)
    name = str(section["name"])
    current = {**section, "name": registry.renamed.get(name, name)}
    kind, _ = registry.resolve(current["name"])
    renamed: dict[str, Any] = rename_keys(getattr(kind, "Config", kind), current)
    return renamed


def _is_default(settings: Any, section: Mapping[str, Any]) -> bool:
    """Return True if all values of a section are equal to those of the settings."""
    defaults = json.loads(json.dumps(dataclasses.asdict(settings)))

    def agrees(value: Any, default: Any) -> bool:
        if isinstance(default, dict) and isinstance(value, Mapping):
            return all(agrees(entry, default.get(key)) for key, entry in value.items())
        return bool(value == default)

    return agrees(section, defaults)


def _replace_measured_id(folder: Path, old_id: str, new_id: str) -> None:
    """Replace the id of a bundle in the files with what was measured with it."""
    for path in (folder / ACROSS, folder / SHIFTS, folder / REFUSALS):
        if path.is_file() and (content := json.loads(path.read_text(encoding="utf-8"))).get("model") == old_id:
            content["model"] = new_id
            for entry in content["corpora"] if path.name == ACROSS else ():
                entry["model"] = new_id if entry["model"] == old_id else entry["model"]
            atomic_write_text(path, to_json(content, indent=1) + "\n")
    path = folder / PREDICTIONS
    if path.is_file() and (predictions := LabeledPredictions.read(path)).model == old_id:
        dataclasses.replace(predictions, model=new_id).write(path)


def _rewrite_card(folder: Path, old_id: str) -> list[Path]:
    """Update the id of a bundle, which depends on its configuration, in its results and its model card."""
    bundle = Bundle.open(folder)
    if not (folder / "results.json").is_file():
        return []
    _replace_measured_id(folder, old_id, bundle.id)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for entry in [*results.get("scores", {}).values(), *results.get("data", [])]:
        for old, current in {"people": "speakers", "licence": "license"}.items():
            if old in entry:
                entry[current] = entry.pop(old)
    if results.get("model") == old_id:
        results["model"] = bundle.id
        atomic_write_text(folder / "results.json", to_json(results, indent=1) + "\n")
    try:
        text = card(bundle)
    except (AffektError, KeyError) as error:
        logger.warning("%s: the model card could not be updated (%s)", folder, error)
        return [folder / "results.json"]
    atomic_write_text(folder / "README.md", text)
    return [folder / "results.json", folder / "README.md"]
