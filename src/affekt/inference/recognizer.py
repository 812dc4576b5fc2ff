"""The recognizer: from a source of audio to a row, with a bundle's ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from affekt.audio.read import (
    SAMPLE_RATE,
    AudioSource,
    Notes,
    Waveform,
    blocks,
    check_length,
    find_files,
    is_folder,
    is_silent,
    name_of,
)
from affekt.bundle.folder import DEFAULT, Bundle
from affekt.errors import AffektError, BadAudio, BadBundle
from affekt.inference.onnx import Graph
from affekt.inference.row import AGGREGATION, Row, make_row

LONGEST = 30 * SAMPLE_RATE
"""Maximum length of a source that is recognized as a whole, in samples. Longer ones are cut into windows."""
WINDOW = 10 * SAMPLE_RATE
"""Length of a window, in samples."""


class Recognizer:
    """Recognizes the emotion in speech.

    >>> recognizer = Recognizer.load()
    >>> result = recognizer("hello.wav")
    >>> result.emotion, result.probabilities["happy"]
    """

    def __init__(self, graph: Graph) -> None:
        self.bundle = graph.bundle
        self.emotions = graph.bundle.emotions
        self.model = graph.bundle.id
        self._graph = graph

    @classmethod
    def load(cls, model: str | Path = DEFAULT, *, threads: int = 1) -> Recognizer:
        """Load a bundle.

        Args:
            model: a bundle's folder, or the name of a shipped bundle.
            threads: the number of cores that one recognition may use.

        Raises:
            BadBundle: there is no such bundle, it cannot be read, or its model needs more than audio.
        """
        graph = Graph.load(Bundle.open(model), threads=threads)
        if graph.inputs != ("waveform",):
            raise BadBundle(
                f"{graph.bundle.onnx} needs {', '.join(graph.inputs)}, but recognition provides the waveform only: "
                "use affekt evaluate with a corpus that has transcripts"
            )
        return cls(graph)

    def __call__(self, source: AudioSource, sample_rate: float | None = None, *, lenient: bool = False) -> Row:
        """Recognize one source and return its row.

        A source longer than 30 s is read and recognized in windows of 5 to 10 s, in bounded memory.

        Args:
            source: a path, bytes, a binary file object, an array, a pair (array, rate in Hz), or a dictionary as the library
                `datasets` returns it, {"array", "sampling_rate"} or {"bytes", "path"}.
            sample_rate: the rate in Hz of an array that comes without it.
            lenient: read what exists of a file that is damaged or cut off.

        Raises:
            BadAudio: the source cannot be recognized (codes: `affekt.audio.read.CODES`).
            MissingExtra: the source's format needs an extra that is not installed.
        """
        name, rows, total, notes = name_of(source), list[Row](), 0, Notes()
        for waveform in windows(blocks(source, sample_rate, lenient=lenient, notes=notes)):
            rows.append(self._recognize_window(name, total, waveform))
            total += waveform.size
        row = rows[0] if len(rows) == 1 else self._aggregate(name, total, rows)
        row.update(notes.fields())
        return row

    def rows(self, sources: Iterable[AudioSource], *, lenient: bool = False) -> Iterator[Row]:
        """Yield a row for each source, in order. A source that cannot be recognized gives a row of status "error"."""
        if isinstance(sources, str | bytes | PathLike | Mapping):
            raise TypeError(f"rows expects a list of sources; for a single one, call recognizer({sources!r})")
        for source in sources:
            try:
                yield self(source, lenient=lenient)
            except AffektError as error:
                yield make_row(name_of(source), self.model, error=error)

    def _recognize_window(self, name: str, start: int, waveform: Waveform) -> Row:
        check_length(waveform.size, name)
        probabilities = None if is_silent(waveform) else dict(zip(self.emotions, self.infer(waveform), strict=True))
        begin, end = start / SAMPLE_RATE, (start + waveform.size) / SAMPLE_RATE
        return make_row(name, self.model, start=begin, end=end, probabilities=probabilities)

    def infer(self, waveform: Waveform) -> list[float]:
        """Return probabilities in the order of `emotions` for a mono waveform at 16 kHz, 0.1 to 30 s long."""
        return [float(p) for p in self._graph({"waveform": waveform[np.newaxis]})[0]]

    def _aggregate(self, name: str, total: int, rows: list[Row]) -> Row:
        scored = [window for window in rows if window.probabilities]
        seconds = sum(window.duration for window in scored)
        means = {
            emotion: sum(window["probabilities"][emotion] * window.duration for window in scored) / seconds
            for emotion in (self.emotions if scored else ())
        }
        result = make_row(name, self.model, end=total / SAMPLE_RATE, probabilities=means or None)
        result["aggregation"] = AGGREGATION
        result["windows"] = rows
        return result

    def __repr__(self) -> str:
        return f"Recognizer({self.model}: {', '.join(self.emotions)})"


def windows(blocks: Iterable[Waveform]) -> Iterator[Waveform]:
    """Join blocks of a waveform and cut them into consecutive windows.

    A waveform of up to 30 s, even an empty one, is one window. A longer one is cut into windows of 10 s, except that the last
    two have 5 to 10 s.
    """
    pending: list[Waveform] = []
    size, long = 0, False
    for block in blocks:
        pending.append(block)
        size += block.size
        if size > (2 * WINDOW if long else LONGEST):
            long = True
            whole = np.concatenate(pending)
            while whole.size > 2 * WINDOW:
                yield whole[:WINDOW]
                whole = whole[WINDOW:]
            pending, size = [whole], whole.size
    rest = np.concatenate(pending) if pending else np.zeros(0, np.float32)
    if long and rest.size > WINDOW:
        yield rest[: rest.size // 2]
        rest = rest[rest.size // 2 :]
    yield rest


def expand_folders(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the files, with each folder replaced by the audio files below it, without repetitions.

    A folder without audio files is kept, so that reading it raises an error.

    Raises:
        BadAudio: a name is empty, probably because a shell variable is not set.
    """
    inputs = list(inputs)
    if "" in inputs:
        raise BadAudio("one of the file names is empty; is a shell variable unset?", code="missing")
    files: dict[Path, None] = {}
    for entry in map(Path, inputs):
        files.update(dict.fromkeys((find_files(entry) or [entry]) if is_folder(entry) else [entry]))
    return list(files)
