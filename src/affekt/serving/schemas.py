"""The answers of the service as types, for the description in OpenAPI. The answers themselves are rows, as everywhere."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from affekt.serving.refusal import NOTICE, Refusal

ROW = {
    "schema": 1,
    "file": "hello.wav",
    "start": 0.0,
    "end": 2.5,
    "duration": 2.5,
    "status": "ok",
    "emotion": "happy",
    "probabilities": {"angry": 0.02, "happy": 0.91, "neutral": 0.05, "sad": 0.02},
    "model": "default@0123abcd",
    "error": None,
}


class Failure(BaseModel):
    """Why a request, or one of its files, failed."""

    code: str
    """A short identifier, which does not change between versions."""
    message: str


class ResultRow(BaseModel):
    """The result for a file, or for a segment of it. Further fields are described in the documentation of rows."""

    model_config = ConfigDict(extra="allow")

    version: Literal[1] = Field(alias="schema")
    """The version of the format. A method of `BaseModel` has the name of this field."""
    file: str
    """The name of the upload without its folder."""
    start: float
    end: float
    duration: float
    """Seconds, like `start` and `end`."""
    status: Literal["ok", "unknown", "silence", "no_speech", "no_words", "error"]
    emotion: str | None
    probabilities: dict[str, float] | None
    model: str
    error: Failure | None
    windows: list[dict[str, Any]] = []
    """The rows of the windows of a recording longer than 8 s."""


class Results(BaseModel):
    """The rows of the files of a request, in their order; with `timeline`, the rows of their segments."""

    results: list[ResultRow]
    notice: str
    """The notice on what people must be told whose emotions are inferred."""


class FailedResults(BaseModel):
    """No file could be read: the error of the first, and the rows of all; or an invalid option, without rows."""

    error: Failure
    results: list[ResultRow] = []
    notice: str = NOTICE


class ErrorAnswer(BaseModel):
    """A refused request."""

    error: Failure


class ModelDescription(BaseModel):
    """A model that the service has."""

    id: str
    """The bundle's name, "@", and 8 hexadecimal digits of its hash."""
    name: str
    emotions: list[str]
    profiles: list[str]
    """The ids of the registered profiles."""
    card: str
    """The model card in Markdown."""
    files: list[str]
    """The paths of the files with which a browser recognizes on its own."""


class Models(BaseModel):
    """The models of the service."""

    models: list[ModelDescription]
    notice: str


class State(BaseModel):
    """The state of the service."""

    status: Literal["ok", "stopping"]


def describe_errors(*refusals: Refusal) -> dict[int | str, dict[str, Any]]:
    """Return the entries of OpenAPI for errors, each status with the examples of its refusals."""
    described: dict[int | str, dict[str, Any]] = {}
    for refusal in refusals:
        entry = described.setdefault(
            refusal.status,
            {"model": ErrorAnswer, "description": "", "content": {"application/json": {"examples": {}}}},
        )
        entry["description"] += f"{', ' if entry['description'] else ''}{refusal.code}"
        entry["content"]["application/json"]["examples"][refusal.code] = {"value": refusal.content}
    return described
