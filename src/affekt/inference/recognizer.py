"""The recognizer: from a source of audio to a row, with a bundle's ONNX graph."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import (
    SAMPLE_RATE,
    AudioSource,
    Notes,
    Waveform,
    check_length,
    describe_error,
    is_silent,
    name_of,
)
from affekt.bundle.folder import DEFAULT, Bundle
from affekt.errors import AffektError, BadConfig
from affekt.inference.decision import DEFAULT_DECISION, Decision
from affekt.inference.finished_windows import FinishedWindows
from affekt.inference.onnx import Graph
from affekt.inference.profile import Profile
from affekt.inference.read_segments import read_segments
from affekt.inference.row import Row, make_row
from affekt.inference.segment_recognizer import SegmentRecognizer
from affekt.inference.segments import Segment, cut_segments
from affekt.inference.speech_rule import check_vad, find_status, judge_window
from affekt.inference.text_inputs import load_text_encoders
from affekt.inference.transcript import NO_WORDS, Transcript, Words

if TYPE_CHECKING:
    from affekt.inference.embedding import Embedding
    from affekt.timeline.make_timeline import TimelineSettings
    from affekt.timeline.stream import Chunk, Event, StreamSettings
    from affekt.timeline.timeline import Timeline

logger = logging.getLogger(__name__)


class Recognizer(SegmentRecognizer):
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
        super().__init__(graph, decision, text_encoders)
        self.vad = check_vad(vad)

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
            from affekt.inference.calibration import calibrate  # imported here so that recognition starts fast

            decision = calibrate(decision, graph.bundle, graph.profile, calibration)
        elif calibration is not None:
            raise BadConfig("a calibration is for an error rate: add error_rate, such as --error-rate 0.1")
        return cls(graph, decision, vad, load_text_encoders(graph))

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
        for segment in read_segments(source, sample_rate, vad=self.vad, lenient=lenient, notes=notes, **limits):
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
        row = rows[0] if len(rows) == 1 else self.aggregate(name, total / SAMPLE_RATE, rows, speech)
        if transcript:
            row["text_by"] = transcript.source
        row.update(notes.fields())
        return row

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
        for segment in read_segments(source, None, vad=self.vad, lenient=lenient, timeout=timeout, notes=Notes()):
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

    def __repr__(self) -> str:
        adapted = "" if self.profile is None else f", adapted to {self.profile.id}"
        return f"Recognizer({self.model}: {', '.join(self.emotions)}{adapted})"
