"""The types of the settings in a bundle's config.toml and results.json.

Settings with a default may be missing. Settings that are not listed here are not checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from affekt.errors import BadBundle

Section = dict[str, Any]
Text = Annotated[str, msgspec.Meta(max_length=10_000)]


class _Labels(msgspec.Struct):
    merge: dict[str, Text] = {}
    dialogues: Text = ""


class _Protocol(msgspec.Struct):
    name: Text = ""
    hash: Text = ""
    verdict: Text = ""
    selection: Text = ""
    epochs: list[int] = []


class _Start(msgspec.Struct):
    id: Text = ""
    name: Text = ""


class _Detector(msgspec.Struct):
    hidden: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5


class Config(msgspec.Struct):
    """The contents of config.toml."""

    name: Text = ""
    version: Text = ""
    members: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    temperature: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1.0
    weights: Text = ""
    command: Text = ""
    features: dict[str, Section] = {}
    model: Section = {}
    lengths: dict[str, int] = {}
    labels: _Labels = msgspec.field(default_factory=_Labels)
    protocol: _Protocol = msgspec.field(default_factory=_Protocol)
    recipe: Section = {}
    start: _Start = msgspec.field(default_factory=_Start)
    detector: _Detector | None = None


class _TrainingCorpus(msgspec.Struct):
    corpus: Text
    by: Text


class Results(msgspec.Struct):
    """The contents of results.json."""

    model: Text = ""
    scores: dict[str, Section] = {}
    data: list[_TrainingCorpus] = []


class _Interval(msgspec.Struct):
    value: float
    low: float | None
    high: float | None


class _Scores(msgspec.Struct):
    UA: _Interval
    intervals: Text


class _Outcome(msgspec.Struct):
    own: _Scores
    all: _Scores
    refused: int
    answers: dict[str, int]


class _AdaptedOutcome(_Outcome):
    recordings: int
    how: Text
    strength: float


class _AcrossCorpus(msgspec.Struct):
    model: Text
    trained_on: list[Text]
    corpus: Text
    title: Text
    language: Text
    style: Text
    speech: bool
    license: Text
    note: Text
    only: Text
    speakers: int | None
    utterances: int
    recognized: int
    classes: list[Text]
    left_out: dict[str, int]
    unreadable: dict[str, Text]
    manifest: Text
    as_it_is: _Outcome
    adapted: _AdaptedOutcome | None


class Across(msgspec.Struct):
    """The contents of across.json."""

    model: Text
    corpora: list[_AcrossCorpus]


class _ShiftedCorpus(msgspec.Struct):
    title: Text
    utterances: int
    long: int
    UA: dict[str, float]
    refused: dict[str, float]


class Shifts(msgspec.Struct):
    """The contents of shifts.json."""

    model: Text
    corpora: dict[str, _ShiftedCorpus]


class _RefusedKind(msgspec.Struct):
    group: Text
    kind: Text
    recordings: Annotated[int, msgspec.Meta(ge=1)]
    refused: dict[str, int]
    unlike: int


class Refusals(msgspec.Struct):
    """The contents of refusals.json."""

    model: Text
    modes: list[str]
    kinds: list[_RefusedKind]


Contents = type[Config] | type[Results] | type[Across] | type[Shifts] | type[Refusals]


def check(kind: Contents, content: Any, path: Path) -> None:
    """Check the types of a file's settings. Raises `BadBundle`, which names the first wrong one."""
    try:
        msgspec.convert(content, kind, strict=True)
    except (ValueError, RecursionError) as error:
        raise BadBundle(f"{path}: {error}; make the bundle again") from error
