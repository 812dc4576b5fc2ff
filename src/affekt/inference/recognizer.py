"""The recogniser: a bundle's ONNX graph behind one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

import numpy as np

from affekt.audio.read import SAMPLE_RATE, Source, Waveform, blocks, check_length, find_files, is_folder, name_of
from affekt.bundle.folder import DEFAULT, Bundle
from affekt.errors import AffektError, BadBundle
from affekt.inference.onnx import Graph
from affekt.inference.row import AGGREGATION, Row, row

LONGEST = 30 * SAMPLE_RATE  # samples; more is cut into windows
WINDOW = 10 * SAMPLE_RATE  # samples
STEP = 2.0**-15  # one step of 16-bit audio: a waveform that never moves by as much is digital silence


class Recognizer:
    """Recognises the emotion in a voice.

    >>> recognizer = Recognizer.load()
    >>> row = recognizer("hello.wav")
    >>> row.emotion, row.probabilities["happy"]
    """

    def __init__(self, graph: Graph) -> None:
        self.bundle = graph.bundle
        self.emotions = graph.bundle.emotions
        self.model = graph.bundle.id
        self._graph = graph

    @classmethod
    def load(cls, model: str | Path = DEFAULT, *, threads: int = 1) -> Recognizer:
        """Load a bundle: a folder, or the name of one that ships with affekt. `threads`: cores that one answer may use.

        Raises `BadBundle`, also for a bundle that takes more than sound.
        """
        graph = Graph.load(Bundle.open(model), threads=threads)
        if graph.inputs != ("waveform",):
            raise BadBundle(
                f"{graph.bundle.onnx} takes {', '.join(graph.inputs)}; the recogniser gives a waveform alone: "
                "affekt evaluate scores such a bundle on a corpus that has words"
            )
        return cls(graph)

    def __call__(self, source: Source, sample_rate: int | None = None) -> Row:
        """The row of one source: a path, bytes, a binary file object, or an array with its rate in Hz.

        A source of over 30 s is read and recognised in windows of 5 to 10 s, in bounded memory.
        Raises `BadAudio` (codes: `affekt.audio.read.CODES`) and `MissingExtra`.
        """
        name, rows, total = name_of(source), [], 0
        for waveform in windows(blocks(source, sample_rate)):
            rows.append(self._window(name, total, waveform))
            total += waveform.size
        return rows[0] if len(rows) == 1 else self._whole(name, total, rows)

    def rows(self, sources: Iterable[Source]) -> Iterator[Row]:
        """A row for every source, in order; one that cannot be recognised gives a row of status "error"."""
        if isinstance(sources, str | bytes | PathLike):
            raise TypeError(f"rows takes a list of sources; for one, call the recognizer: recognizer({sources!r})")
        for source in sources:
            try:
                yield self(source)
            except AffektError as error:
                yield row(name_of(source), self.model, error=error)

    def _window(self, name: str, start: int, waveform: Waveform) -> Row:
        check_length(waveform.size, name)
        silent = np.ptp(waveform) < STEP
        probabilities = None if silent else dict(zip(self.emotions, self.infer(waveform), strict=True))
        begin, end = start / SAMPLE_RATE, (start + waveform.size) / SAMPLE_RATE
        return row(name, self.model, start=begin, end=end, probabilities=probabilities)

    def infer(self, waveform: Waveform) -> list[float]:
        """Probabilities, in the order of `emotions`, of a mono waveform at 16 kHz of 0.1 to 30 s."""
        return [float(p) for p in self._graph({"waveform": waveform[np.newaxis]})[0]]

    def _whole(self, name: str, total: int, rows: list[Row]) -> Row:
        heard = [part for part in rows if part.probabilities]
        seconds = sum(part.duration for part in heard)
        means = {
            emotion: sum(part["probabilities"][emotion] * part.duration for part in heard) / seconds
            for emotion in (self.emotions if heard else ())
        }
        whole = row(name, self.model, end=total / SAMPLE_RATE, probabilities=means or None)
        whole["aggregation"] = AGGREGATION
        whole["windows"] = rows
        return whole

    def __repr__(self) -> str:
        return f"Recognizer({self.model}: {', '.join(self.emotions)})"


def windows(parts: Iterable[Waveform]) -> Iterator[Waveform]:
    """Up to 30 s as they are, be it nothing; more as consecutive windows of 10 s, the last two of 5 to 10 s."""
    held: list[Waveform] = []
    size, long = 0, False
    for part in parts:
        held.append(part)
        size += part.size
        if size > (2 * WINDOW if long else LONGEST):
            long = True
            whole = np.concatenate(held)
            while whole.size > 2 * WINDOW:
                yield whole[:WINDOW]
                whole = whole[WINDOW:]
            held, size = [whole], whole.size
    rest = np.concatenate(held) if held else np.zeros(0, np.float32)
    if long and rest.size > WINDOW:
        yield rest[: rest.size // 2]
        rest = rest[rest.size // 2 :]
    yield rest


def expand(inputs: Iterable[str | Path]) -> list[Path]:
    """Files as they are, and in a folder's place the audio files below it, each once; an empty folder stands for itself."""
    files: dict[Path, None] = {}
    for entry in map(Path, inputs):
        files.update(dict.fromkeys((find_files(entry) or [entry]) if is_folder(entry) else [entry]))
    return list(files)
