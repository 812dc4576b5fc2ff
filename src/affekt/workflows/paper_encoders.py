"""The encoders of the papers' recipes: the original ones, stand-ins for unavailable ones, and the time that each takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch

from affekt.config import decode, read_toml
from affekt.errors import BadConfig
from affekt.features import features
from affekt.features.base import Feature
from affekt.features.choice import FeatureChoice
from affekt.features.extract import check_device, on_device
from affekt.models.base import FeatureSpec
from affekt.recipe_files import RECIPES
from affekt.registry import did_you_mean
from affekt.training.finetuning import feature_spec
from affekt.training.plan import Plan

PUBLISHED_ENCODERS = RECIPES / "papers" / "encoders.toml"
SENTENCE = "The text encoders are timed on a sentence of fourteen words, like those of the corpora."
STAND_INS = {"audio": "whisper:whisper-tiny.en-encoder", "text": "minilm:minilm-l6-v2"}
"""Input of a feature -> the stand-in that an error message proposes."""
SECONDS = 2.0
"""Duration of the noise on which an encoder is timed."""


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder that the papers use."""

    title: str
    source: str
    """Where it is published."""
    dim: int
    """Features per frame."""


@cache
def published_encoders() -> dict[str, PublishedEncoder]:
    """Return the papers' encoders by the folder that the recipes name."""
    return {
        name: decode(PublishedEncoder, section, str(PUBLISHED_ENCODERS))
        for name, section in read_toml(PUBLISHED_ENCODERS).items()
    }


@dataclass(frozen=True)
class ChosenEncoder:
    """The encoder of a stream: the paper's, or a stand-in."""

    name: str
    """The folder in the recipe, such as "hubert-large"; "" for a feature without weights."""
    stand_in: str = ""
    """The stand-in as the user wrote it, such as "whisper:whisper-tiny.en-encoder"; "" for none."""

    def title(self, feature: str) -> str:
        """Return a title that never calls a stand-in by the paper's name."""
        if self.stand_in:
            return f"STAND-IN {self.stand_in} for {self.name}"
        published = published_encoders().get(self.name)
        return published.title if published else self.name or feature


def replace_encoders(
    sections: Mapping[str, Mapping[str, Any]], given: Mapping[str, str]
) -> tuple[dict[str, dict[str, Any]], dict[str, ChosenEncoder]]:
    """Return a recipe's features with the given encoders, and the encoder of each stream.

    Args:
        sections: The recipe's `features`.
        given: The folder in the recipe ("hubert-large") -> a path, or FEATURE:PATH for a stand-in, or FEATURE alone for one
            without weights.
    """
    replaced, chosen = dict[str, dict[str, Any]](), dict[str, ChosenEncoder]()
    for stream, section in sections.items():
        name = str(section.get("folder", ""))
        text = given.get(name, "")
        kind, colon, path = text.partition(":")
        replaced[stream], chosen[stream] = dict(section), ChosenEncoder(name)
        if kind in features:
            replaced[stream], chosen[stream] = _stand_in(section, kind, path), ChosenEncoder(name, text)
        elif text:
            if colon and not Path(text).exists():
                raise BadConfig(
                    f"--encoder {name}={text}: there is no such path, and no feature {kind!r}"
                    f"{did_you_mean(kind, features)} (known: {', '.join(features)})"
                )
            replaced[stream]["folder"] = _absolute(text)
    return replaced, chosen


def _stand_in(section: Mapping[str, Any], kind: str, path: str) -> dict[str, Any]:
    """Return the section of a stand-in, with those settings of the original encoder that it has too."""
    known = {field.name for field in fields(features[kind].Config)} - {"architecture", "checkpoint", "revision"}
    shared = {name: value for name, value in section.items() if name in known}
    return {**shared, "name": kind, **({"folder": _absolute(path)} if path else {})}


def _absolute(path: str) -> str:
    """Return an absolute path if it exists in the current folder; otherwise it is relative to AFFEKT_MODELS."""
    return str(Path(path).expanduser().resolve()) if Path(path).expanduser().exists() else path


@dataclass(frozen=True)
class MeasuredEncoder:
    """An encoder that was loaded and timed on this machine."""

    spec: FeatureSpec
    seconds: float
    """Duration of the computation for a second of audio, or for a text."""


def measure_encoders(plans: Sequence[tuple[Plan, Mapping[str, ChosenEncoder]]]) -> dict[str, MeasuredEncoder]:
    """Load every encoder that the plans use, one after another, and time it.

    Returns:
        Key of `encoder_key` -> the encoder.

    Raises:
        BadConfig: Encoders are missing; the message says where they are published. Or a folder contains another encoder, or
            the device is missing.
    """
    used: dict[str, tuple[FeatureChoice, ChosenEncoder, str]] = {}
    for plan, chosen in plans:
        for stream in plan.streams:
            device = plan.recipe.training.device
            check_device(device)
            used.setdefault(encoder_key(plan, stream), (plan.features[stream], chosen[stream], device))
    _check_present([(choice, encoder) for choice, encoder, _ in used.values()])
    return {key: _measure(*entry) for key, entry in used.items()}


def encoder_key(plan: Plan, stream: str) -> str:
    """Return a key that is the same for streams with the same encoder and settings."""
    return repr(sorted(plan.features[stream].settings.items()))


def _check_present(used: Sequence[tuple[FeatureChoice, ChosenEncoder]]) -> None:
    """Raise one error for all encoders that are missing."""
    missing, examples = dict[str, str](), list[str]()
    for choice, encoder in used:
        if choice.folder is not None and not _is_present(choice):
            published = published_encoders().get(encoder.name)
            where = f"{published.title}: {published.source}" if published and not encoder.stand_in else choice.folder
            missing[encoder.name] = f"{encoder.stand_in or encoder.name} ({where})"
            if stand_in := STAND_INS.get(choice.kind.input):
                examples.append(f"--encoder {encoder.name}={stand_in}")
    if missing:
        raise BadConfig(
            f"missing encoders: {'; '.join(missing.values())}. Put each into a folder of its name below AFFEKT_MODELS, or "
            f"name its folder: --encoder {next(iter(missing))}=PATH. A stand-in, which every table marks as such, is written "
            f"as NAME=FEATURE:PATH: {' '.join(dict.fromkeys(examples))}"
        )


def _is_present(choice: FeatureChoice) -> bool:
    try:
        return choice.path is not None and choice.path.exists()
    except BadConfig:  # AFFEKT_MODELS is not set
        return False


def _measure(choice: FeatureChoice, encoder: ChosenEncoder, device: str) -> MeasuredEncoder:
    feature = choice.build()
    published = published_encoders().get(encoder.name)
    if published and not encoder.stand_in and feature.dim // feature.num_states != published.dim:
        raise BadConfig(
            f"{choice.folder} has {feature.dim // feature.num_states} features, but {published.title} has {published.dim}: "
            f"it is another encoder; to use it as a stand-in, say so: --encoder {encoder.name}={choice.name}:{choice.folder}"
        )
    return MeasuredEncoder(feature_spec(feature), _time(feature, device))


def _time(feature: Feature, device: str) -> float:
    """Return the seconds that a feature needs for a second of audio, or for a text."""
    is_text = feature.input == "text"
    samples = 0 if is_text else int(SECONDS * feature.sample_rate)
    example: Any = [SENTENCE] if is_text else 0.1 * torch.randn(1, samples, device=device)
    times = []
    with torch.inference_mode(), on_device(feature, device):
        for _ in range(3):  # the first time is longer
            start = time.perf_counter()
            feature(example)
            times.append(time.perf_counter() - start)
    return min(times) if is_text else min(times) / SECONDS
