"""The recognizer: from a source of audio to a row, with a bundle's ONNX graph."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import (
    SAMPLE_RATE,
    AudioSource,
    Notes,
    Waveform,
    blocks,
    check_length,
    describe_error,
    find_files,
    is_folder,
    is_silent,
    name_of,
)
from affekt.audio.time_limit import limited_blocks
from affekt.bundle.folder import DEFAULT, FAMILIARITY, Bundle, shipped_bundles
from affekt.errors import AffektError, BadAudio, BadBundle, BadConfig
from affekt.extras import need
from affekt.inference.decision import Decision, normalize
from affekt.inference.familiarity import DIGITS, Familiarity
from affekt.inference.onnx import Graph
from affekt.inference.profile import Profile
from affekt.inference.row import AGGREGATION, UNFAMILIAR, Row, make_row
from affekt.inference.segments import Segment, cut_segments
from affekt.inference.speech_rule import check_vad, find_status, judge_window
from affekt.inference.transcript import Passage, Transcript
from affekt.interval import Interval

if TYPE_CHECKING:
    from affekt.inference.embedding import Embedding
    from affekt.timeline.make_timeline import TimelineSettings
    from affekt.timeline.stream import Chunk, Event, StreamSettings
    from affekt.timeline.timeline import Timeline

logger = logging.getLogger(__name__)

Words = str | Transcript | Iterable[Interval]
"""The words of a source: a text, a transcript, or the intervals of one."""
NO_WORDS = Passage("", ())
DEFAULT_DECISION = Decision()
"""The most probable of all emotions is named."""


class FinishedWindows(Protocol):
    """The windows of one source that have been recognized, in this run or an earlier one."""

    def find(self, start: float, end: float) -> Row | None:
        """Return the row of the window with these times in seconds; None if it has not been recognized."""
        raise NotImplementedError

    def add(self, row: Row) -> None:
        """Add the row of a window; it may have come from `find`."""
        raise NotImplementedError


class Recognizer:
    """A recognizer of the emotion in speech.

    >>> recognizer = Recognizer.load()
    >>> result = recognizer("hello.wav")
    >>> result.emotion, result.probabilities["happy"]

    Attributes:
        emotions: The emotions in the probabilities of rows: those of the bundle, or those of the decision.
        applied: The fields of rows on what is applied besides the model: {} without profile and decision.

    Args:
        graph: The bundle's graph.
        decision: How the emotion of a row is decided.
        vad: What decides whether there is speech (`affekt.inference.speech_rule`).
        text_encoders: The text encoders of a bundle that needs text (`affekt.bundle.text_encoders`), by stream.

    Raises:
        BadConfig: The decision names an emotion that the model does not have.
    """

    def __init__(
        self,
        graph: Graph,
        decision: Decision = DEFAULT_DECISION,
        vad: str = "auto",
        text_encoders: Mapping[str, Any] | None = None,
    ) -> None:
        self.text_encoders = dict(text_encoders or {})
        self.vad = check_vad(vad)
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

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT,
        *,
        threads: int = 1,
        profile: Profile | str | Path | None = None,
        vad: str = "auto",
        threshold: float | None = None,
        emotions: Sequence[str] = (),
        error_rate: float | None = None,
        calibration: str | Path | None = None,
    ) -> Recognizer:
        """Load a bundle.

        Args:
            model: A bundle's folder, or the name of a shipped bundle.
            threads: The number of cores that one recognition may use.
            profile: A profile that was learned for this model, or its file.
            vad: What decides whether there is speech, "off", "auto" or "on" (`affekt.inference.speech_rule`).
            threshold: Rows whose most probable emotion has a smaller probability get the status "unknown".
            emotions: The emotions to choose from; by default all of the model's. Their probabilities sum to 1.
            error_rate: Rows get the field "emotion_set", which contains the emotion of the clip except for this fraction of
                clips like those of the calibration (`affekt.evaluation.conformal`).
            calibration: A file made by `affekt calibrate`; by default, the bundle's test subset calibrates the error rate.

        Raises:
            BadBundle: There is no such bundle, it cannot be read, or its model needs more than audio and text.
            MissingExtra: The model needs text, and the extra `train`, which has the text encoders, is not installed.
            BadConfig: The threshold, an emotion, the error rate or its calibration is invalid, `vad` is unknown, the profile
                cannot be read or was learned for another model, or `threads` is less than 1 or more than twice the number of
                this machine's cores.
        """
        if isinstance(profile, str | PathLike):
            profile = Profile.read(profile)
        detects = check_vad(vad) != "off"
        graph = Graph.load(Bundle.open(model), threads=threads, profile=profile, detects=detects)
        decision = Decision(threshold, tuple(emotions), error_rate)
        if error_rate is not None:
            from affekt.inference.calibration import (
                calibrate,
            )  # not needed otherwise, and recognition should start fast

            decision = calibrate(decision, graph.bundle, graph.profile, calibration)
        elif calibration is not None:
            raise BadConfig("a calibration is for an error rate: add error_rate, such as --error-rate 0.1")
        return cls(graph, decision, vad, _load_text_encoders(graph))

    def adapt(self, profile: Profile | None) -> Recognizer:
        """Return a recognizer of the same model with another profile, or without one.

        Raises:
            BadConfig: The profile was learned for another model.
        """
        return Recognizer(self.graph.adapt(profile), self.decision, self.vad, self.text_encoders)

    def __call__(
        self,
        source: AudioSource,
        sample_rate: float | None = None,
        *,
        lenient: bool = False,
        timeout: float | None = None,
        finished: FinishedWindows | None = None,
        text: Words | None = None,
        max_seconds: float | None = None,
    ) -> Row:
        """Recognize one source and return its row.

        A source longer than 8 s is read and recognized in windows of 2 to 6 s of speech, in bounded memory
        (`affekt.inference.segments`).

        Args:
            source: A path, bytes, a binary file object, an array, a pair (array, rate in Hz), or a dictionary as the library
                `datasets` returns it, {"array", "sampling_rate"} or {"bytes", "path"}.
            sample_rate: The rate in Hz of an array that comes without it.
            lenient: Read as much as possible of a file that is damaged or cut off.
            timeout: The limit in seconds; by default there is none. With a limit, the source is read in another thread.
            finished: Windows of the source from an earlier, interrupted run, to which the new ones are added.
            text: What is said: a text, a transcript, or its intervals in seconds from the start of the source. The words are
                fields of the rows, also if the model does not need them.
            max_seconds: The longest duration of the source, which is checked while it is decoded.

        Raises:
            BadAudio: The source cannot be recognized (codes: `affekt.audio.read.CODES`).
            BadConfig: The model needs text, but there is none (code "needs_text"), or a text without times is given for a
                source that is longer than 8 s.
            MissingExtra: The source's format needs an extra that is not installed.
        """
        name, rows, total, notes = name_of(source), list[Row](), 0, Notes()
        transcript = None if text is None else Transcript.of(text)
        self.check_text(name, transcript)
        speech = list[float]()
        limits = {"timeout": timeout, "max_seconds": max_seconds}
        for segment in self._read_segments(source, sample_rate, lenient=lenient, notes=notes, **limits):
            end = total + segment.waveform.size
            row = finished.find(total / SAMPLE_RATE, end / SAMPLE_RATE) if finished else None
            passage = transcript.between(total / SAMPLE_RATE, end / SAMPLE_RATE, name) if transcript else None
            if row is None or row.text != (passage and passage.text):
                row = self.recognize_segment(name, total, segment, passage or NO_WORDS)
                if transcript and passage:
                    row.update(transcript.row_fields(passage))
            rows.append(row)
            speech.append(segment.speech)
            if finished:
                finished.add(rows[-1])
            total = end
        row = rows[0] if len(rows) == 1 else self._aggregate(name, total, rows, speech)
        if transcript:
            row["text_by"] = transcript.source
        row.update(notes.fields())
        return row

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

    def rows(self, sources: Iterable[AudioSource], *, lenient: bool = False) -> Iterator[Row]:
        """Yield a row for each source, in order. A source that cannot be recognized gets a row with status "error"."""
        single = isinstance(sources, str | bytes | PathLike | Mapping | np.ndarray) or hasattr(sources, "read")
        if single or (isinstance(sources, tuple) and len(sources) == 2 and isinstance(sources[1], int | float)):
            raise TypeError(f"rows expects a list of sources; for a single one, call recognizer({sources!r})")
        for source in sources:
            yield self.row(source, lenient=lenient)

    def row(
        self,
        source: AudioSource,
        *,
        lenient: bool = False,
        timeout: float | None = None,
        finished: FinishedWindows | None = None,
        text: Words | None = None,
    ) -> Row:
        """Return the row of one source, which has status "error" if anything fails; arguments as for calling the recognizer.

        The error's traceback is logged at level DEBUG.
        """
        try:
            return self(source, lenient=lenient, timeout=timeout, finished=finished, text=text)
        except Exception as error:
            return self.error_row(source, error)

    def error_row(self, source: AudioSource, error: Exception) -> Row:
        """Return the row of a source that cannot be recognized; the error's traceback is logged at level DEBUG."""
        name = name_of(source)
        if not isinstance(error, AffektError):
            known = AffektError(f"{name} cannot be recognized: {describe_error(error)}", code="unrecognizable")
            known.__cause__ = error
            error = known
        logger.debug("%s", error, exc_info=error)
        return make_row(name, self.model, error=error, applied=self.applied)

    def timeline(
        self, source: AudioSource, sample_rate: float | None = None, **settings: Unpack[TimelineSettings]
    ) -> Timeline:
        """Return who felt what, when: the emotions of a long recording, segment by segment.

        Args:
            source: As for calling the recognizer.
            sample_rate: As for calling the recognizer.
            settings: Further arguments of `affekt.timeline.make_timeline.make_timeline`: `segmentation`, `turns`, `channels`,
                `hysteresis`, `lenient`, `timeout`, `max_seconds`, `finished` and `on_segment`.

        Raises:
            BadAudio, BadConfig, MissingExtra: As `make_timeline`.
        """
        from affekt.timeline.make_timeline import make_timeline

        return make_timeline(self, source, sample_rate, **settings)

    def stream(
        self, chunks: Iterable[NDArray[Any] | bytes | Chunk], settings: StreamSettings | None = None
    ) -> Iterator[Event]:
        """Yield the events of live speech: segments as they are complete, and provisional ones while they grow.

        Args:
            chunks: The samples, in chunks of any size (`affekt.timeline.stream.Stream.add`).
            settings: The settings, such as the sample rate; by default 16 kHz, one channel.

        Raises:
            BadAudio: The samples are not finite, or cannot be audio.
            BadConfig: A setting is impossible.
        """
        from affekt.timeline.stream import stream_events

        return stream_events(self, chunks, settings)

    def stream_async(
        self, chunks: AsyncIterable[NDArray[Any] | bytes | Chunk], settings: StreamSettings | None = None
    ) -> AsyncIterator[Event]:
        """Yield the events of live speech whose chunks arrive asynchronously; see `stream`."""
        from affekt.timeline.stream import stream_events_async

        return stream_events_async(self, chunks, settings)

    def observe(
        self, source: AudioSource, *, lenient: bool = False, timeout: float | None = None
    ) -> Iterator[tuple[Segment, dict[str, NDArray[np.float32]] | None]]:
        """Yield the windows of a source, each with the graph's outputs by name (`Graph.observe`), or None for a pause.

        The probabilities have no class bias. Those of a window without speech are zeros. Arguments and errors as for calling
        the recognizer.

        Raises:
            BadConfig: The model needs words.
        """
        self.check_audio_only("adaptation")
        for segment in self._read_segments(source, None, lenient=lenient, timeout=timeout, notes=Notes()):
            waveform = segment.waveform
            check_length(waveform.size, name_of(source))
            is_pause = find_status(is_silent=is_silent(waveform), speech=segment.speech)
            yield segment, None if is_pause else self.graph.observe({"waveform": waveform[np.newaxis]})

    def embed(
        self,
        source: AudioSource,
        sample_rate: float | None = None,
        *,
        lenient: bool = False,
        timeout: float | None = None,
    ) -> Embedding:
        """Return the embedding of one source (`affekt.inference.embedding`), a vector of the features inside the model.

        Args:
            source: As for calling the recognizer, like all further arguments.
            sample_rate: The rate in Hz of an array that comes without it.
            lenient: Read as much as possible of a file that is damaged or cut off.
            timeout: The limit in seconds; by default there is none.

        Raises:
            BadAudio: The source cannot be read.
            BadBundle: The model has no embeddings.
            MissingExtra: The source's format needs an extra that is not installed.
        """
        from affekt.inference.embedding import embed

        whole: AudioSource = source if sample_rate is None else (source, sample_rate)  # type: ignore[assignment]
        return embed(self, whole, lenient=lenient, timeout=timeout)

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

    def infer(self, waveform: Waveform, text: str = "") -> list[float]:
        """Return probabilities in the order of `bundle.emotions` for a mono waveform at 16 kHz, as a whole: 0.1 to 8 s.

        They are all 0 if the model has a speech detector that finds no speech.

        Args:
            waveform: The waveform.
            text: The words in it, for a model that needs them.
        """
        return [float(p) for p in self.graph(self._inputs(waveform, text))[0]]

    def predict(self, waveform: Waveform) -> list[float]:
        """Return probabilities as `infer`, for a waveform of any length: those of its row, before they are rounded."""
        segments = [judge_window(segment, self.vad) for segment in cut_segments([waveform])]
        if len(segments) == 1 and segments[0].speech:
            return self.infer(waveform)
        scored = [
            (values, segment.speech)
            for segment in segments
            if segment.speech and not is_silent(segment.waveform) and any(values := self.infer(segment.waveform))
        ]
        if not scored:
            return [0.0] * len(self.bundle.emotions)
        probabilities, seconds = zip(*scored, strict=True)
        return [float(p) for p in np.average(probabilities, axis=0, weights=seconds)]

    def _aggregate(self, name: str, total: int, rows: list[Row], speech: list[float]) -> Row:
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
            end=total / SAMPLE_RATE,
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

    def _read_segments(
        self,
        source: AudioSource,
        sample_rate: float | None,
        *,
        lenient: bool,
        timeout: float | None,
        notes: Notes,
        max_seconds: float | None = None,
    ) -> Iterator[Segment]:
        """Yield the windows of a source, with their seconds of speech by the setting `vad`."""
        options: dict[str, Any] = {"lenient": lenient, "notes": notes, "max_seconds": max_seconds}
        if timeout is None:
            read = blocks(source, sample_rate, **options)
        else:
            read = limited_blocks(source, sample_rate, timeout=timeout, with_consumer=True, **options)
        return (judge_window(segment, self.vad) for segment in cut_segments(read))

    def __repr__(self) -> str:
        adapted = "" if self.profile is None else f", adapted to {self.profile.id}"
        return f"Recognizer({self.model}: {', '.join(self.emotions)}{adapted})"


def _load_text_encoders(graph: Graph) -> dict[str, Any]:
    """Return the text encoders that a graph needs, by stream. Raises `BadBundle` if it needs other inputs."""
    if graph.inputs == ("waveform",):
        return {}
    need("torch", extra="train", purpose=f"{graph.bundle.name}, whose model needs text")
    from affekt.bundle.text_encoders import load_text_encoders

    encoders = load_text_encoders(graph.bundle)
    provided = {"waveform", *encoders, *(f"{stream}_mask" for stream in encoders)}
    if not set(graph.inputs) <= provided:
        raise BadBundle(
            f"{graph.bundle.onnx} needs {', '.join(graph.inputs)}, but recognition provides only "
            f"{', '.join(sorted(provided))}: use affekt evaluate with a corpus that has them"
        )
    return encoders


def _read_familiarity(graph: Graph) -> Familiarity | None:
    """Return what is known about the training data; None if the bundle was made without it."""
    path = graph.bundle.folder / FAMILIARITY
    return Familiarity.read(path, graph.statistics_size) if path.is_file() else None


def expand_folders(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the files, with each folder replaced by the audio files below it, without repetitions.

    A folder without audio files is kept, so that reading it raises an error.

    Raises:
        BadAudio: A name is empty, probably because a shell variable is not set.
    """
    inputs = list(inputs)
    if "" in inputs:
        raise BadAudio("one of the file names is empty; is a shell variable unset?", code="missing")
    files: dict[Path, None] = {}
    for entry in map(Path, inputs):
        files.update(dict.fromkeys((find_files(entry) or [entry]) if is_folder(entry) else [entry]))
    return list(files)
