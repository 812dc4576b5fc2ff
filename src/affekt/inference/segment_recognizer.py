"""Recognize one segment of a source: from a waveform of up to 8 s to a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, Waveform, check_length, is_silent
from affekt.bundle.folder import FAMILIARITY, shipped_bundles
from affekt.errors import BadConfig
from affekt.inference.decision import DEFAULT_DECISION, Decision, normalize
from affekt.inference.familiarity import DIGITS, Familiarity
from affekt.inference.onnx import Graph
from affekt.inference.row import AGGREGATION, UNFAMILIAR, Row, make_row
from affekt.inference.segments import Segment
from affekt.inference.speech_rule import find_status
from affekt.inference.transcript import NO_WORDS, Passage


class SegmentRecognizer:
    """A recognizer of the emotion in one segment.

    Attributes:
        emotions: The emotions in the probabilities of rows: those of the bundle, or those of the decision.
        applied: The fields of rows on what is applied besides the model: {} without profile and decision.

    Args:
        graph: The bundle's graph.
        decision: How the emotion of a row is decided.
        text_encoders: The text encoders of a bundle that needs text (`affekt.bundle.text_encoders`), by stream.

    Raises:
        BadConfig: The decision names an emotion that the model does not have.
    """

    def __init__(
        self, graph: Graph, decision: Decision = DEFAULT_DECISION, text_encoders: Mapping[str, Any] | None = None
    ) -> None:
        self.text_encoders = dict(text_encoders or {})
        self.bundle = graph.bundle
        self.decision = decision
        self.emotions = decision.select(graph.bundle.emotions)
        self.model = graph.bundle.id
        self.profile = graph.profile
        self.graph = graph
        self.familiarity = _read_familiarity(graph)
        fields = {"profile": graph.profile and graph.profile.row_field(), "decision": decision.row_field()}
        self.applied: dict[str, Any] = {name: field for name, field in fields.items() if field}

    @property
    def needs_text(self) -> bool:
        """Whether the model needs the words of a recording."""
        return bool(self.text_encoders)

    def check_text(self, name: str, words: object) -> None:
        """Raise `BadConfig` if the model needs the words of a recording and they are None.

        Args:
            name: The name of the recording.
            words: The words, or where they come from.
        """
        if self.needs_text and words is None:
            raise BadConfig(
                f"{self.model} needs the words of {name}: give a text or a transcript (--text, --transcript), or let them be "
                f"recognized (--transcribe); a model that needs no words is {' or '.join(shipped_bundles())}",
                code="needs_text",
            )

    def check_audio_only(self, use: str) -> None:
        """Raise `BadConfig` if the model needs words, which a use of it cannot take."""
        if self.needs_text:
            raise BadConfig(
                f"{self.model} needs words, which {use} cannot take: use a model of audio only, such as "
                f"{' or '.join(shipped_bundles())}",
                code="needs_text",
            )

    def infer(self, waveform: Waveform, text: str = "") -> list[float]:
        """Return probabilities in the order of `bundle.emotions` for a mono waveform at 16 kHz, as a whole: 0.1 to 8 s.

        They are all 0 if the model has a speech detector that finds no speech.

        Args:
            waveform: The waveform.
            text: The words in it, for a model that needs them.
        """
        return [float(p) for p in self.graph(self._inputs(waveform, text))[0]]

    def recognize_segment(self, name: str, start: int, segment: Segment, passage: Passage = NO_WORDS) -> Row:
        """Return the row of a segment, to which the rule of `affekt.inference.speech_rule` is applied.

        Args:
            name: The name of its source.
            start: Its first sample in the source, at 16 kHz.
            segment: The segment, 0.1 to 8 s.
            passage: The words in it. Without words, a model that needs them gives it the status "no_words".

        Raises:
            BadAudio: The segment is too short.
        """
        waveform = segment.waveform
        check_length(waveform.size, name)
        status = find_status(is_silent=is_silent(waveform), speech=segment.speech)
        if self.needs_text and not passage.text:
            status = status or "no_words"
        values, distance = ([], 0.0) if status else self._infer(waveform, passage.text)
        row = make_row(
            name,
            self.model,
            start=start / SAMPLE_RATE,
            end=(start + waveform.size) / SAMPLE_RATE,
            probabilities=self._restrict(values) if any(values) else None,
            status_without_emotion=status or "no_speech",
            applied=self.applied,
        )
        if distance > 1 and row.probabilities:
            row[UNFAMILIAR] = round(distance, DIGITS)
        return row

    def aggregate(self, name: str, end: float, rows: Sequence[Row], speech: Sequence[float]) -> Row:
        """Return the row of a recording: the mean of its windows, weighted by their seconds of speech.

        Args:
            name: The name of the recording.
            end: Its duration in seconds.
            rows: The rows of all its windows.
            speech: The seconds of speech in each window.
        """
        scored = [
            (window.probabilities, weight) for window, weight in zip(rows, speech, strict=True) if window.probabilities
        ]
        seconds = sum(weight for _, weight in scored)
        means = {
            emotion: sum(probabilities[emotion] * weight for probabilities, weight in scored) / seconds
            for emotion in (self.emotions if scored else ())
        }
        is_silence = all(window.status == "silence" for window in rows)
        result = make_row(
            name,
            self.model,
            end=end,
            probabilities=means or None,
            status_without_emotion="silence" if is_silence else "no_speech",
            applied=self.applied,
        )
        far = [
            (window[UNFAMILIAR], weight) for window, weight in zip(rows, speech, strict=True) if UNFAMILIAR in window
        ]
        if (far_seconds := sum(weight for _, weight in far)) > seconds / 2:
            result[UNFAMILIAR] = round(sum(value * weight for value, weight in far) / far_seconds, DIGITS)
        result["aggregation"] = AGGREGATION
        result["windows"] = rows
        return result

    def _infer(self, waveform: Waveform, text: str) -> tuple[list[float], float]:
        """Return probabilities as `infer`, and the distance from the training data; 0 if the bundle has no statistics."""
        if self.familiarity is None:
            return self.infer(waveform, text), 0.0
        probabilities, statistics = self.graph.recognize(self._inputs(waveform, text))
        return [float(p) for p in probabilities[0]], self.familiarity.distance(statistics[0])

    def _restrict(self, values: Sequence[float]) -> dict[str, float]:
        """Return the probabilities of a row, from those of all emotions of the model."""
        probabilities = dict(zip(self.bundle.emotions, values, strict=True))
        return normalize(probabilities, self.emotions) if self.decision.emotions else probabilities

    def _inputs(self, waveform: Waveform, text: str) -> dict[str, NDArray[Any]]:
        """Return the graph's inputs."""
        inputs: dict[str, NDArray[Any]] = {"waveform": waveform[np.newaxis]} if "waveform" in self.graph.inputs else {}
        if not self.text_encoders:
            return inputs
        from affekt.bundle.text_encoders import encode_text  # needs torch

        return inputs | encode_text(self.text_encoders, text)


def _read_familiarity(graph: Graph) -> Familiarity | None:
    """Return what is known about the training data; None if the bundle was made without it."""
    path = graph.bundle.folder / FAMILIARITY
    return Familiarity.read(path, graph.statistics_size) if path.is_file() else None
