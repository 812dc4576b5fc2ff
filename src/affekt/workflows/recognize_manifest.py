"""Recognize the clips of a manifest, on this machine or on a Ray cluster, and write Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, Unpack

from affekt.audio.read import name_of
from affekt.audio.time_limit import TIMEOUT, check_timeout
from affekt.bundle.folder import ASSETS
from affekt.collection.manifest import Clip
from affekt.collection.process import ProcessOptions, Summary, Work, process
from affekt.collection.recordings import Recording, run_in_order
from affekt.errors import BadAudio
from affekt.inference.parquet_rows import row_schema, to_table
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import EMOTION_SET, NOTES, Row, make_row
from affekt.inference.worker import describe, restore_row
from affekt.inference.worker_pool import crashed_row, start_pool
from affekt.processes import Message
from affekt.storage import is_url
from affekt.worker_pool import WorkerPool
from affekt.workflows.recognize_files import file_version

ENTRY = f"{__name__}:RecognitionWorker"
TABLE_ROWS = 4096
"""Number of rows, including those of windows, that are collected before they are written to the file."""
NOT_FOUND = ("missing", "unreadable")
"""Codes of errors that may have their cause on the worker's machine, so that their messages name it."""
AnyRow = TypeVar("AnyRow", bound=dict[str, Any])


def recognize_manifest(
    manifest: str,
    output: str,
    *,
    recognizer: Recognizer | None = None,
    lenient: bool = False,
    timeout: float = TIMEOUT,
    **options: Unpack[ProcessOptions],
) -> Summary:
    """Recognize the clips that a manifest lists, and write a folder of Parquet files with a row for each clip.

    The columns are those of a Parquet file that `recognize_files` writes, and the manifest's columns other than file, start
    and end. A clip that fails has a row with status "error"; its error is "crashed" if two worker processes died while
    processing the file.

    Args:
        manifest: A table of audio files, or a folder, or the URL of either (`affekt.collection.manifest.open_manifest`).
        output: The folder of the results, or its URL.
        recognizer: The recognizer to use; by default the one that ships with affekt.
        lenient: Whether to recognize the readable part of a file that is damaged or cut off.
        timeout: The limit for one file in seconds.
        options: Further arguments of `affekt.collection.process.process`: `shard_rows`, `columns` (of "audio", "start" and
            "end"), `delimiter`, `retry_failed`, `jobs`, `ray` and `progress`.

    Raises:
        BadBundle: The default bundle cannot be loaded, or a worker cannot load the bundle.
        BadConfig, BadCorpus, BadOutput, MissingExtra: As `affekt.collection.process.process`.
    """
    check_timeout(timeout)
    recognizer = recognizer or Recognizer.load()
    recognizer.check_audio_only("a manifest")
    return process(manifest, output, _make_work(recognizer, lenient, timeout), **options)


def _make_work(recognizer: Recognizer, lenient: bool, timeout: float) -> Work:
    """Return what the workers need to know, and the settings that the folder of the results records."""
    folder, setup = recognizer.bundle.folder, describe(recognizer)
    setup |= {"bundle": folder.name} if folder.parent == ASSETS else {}  # its path may differ on other machines
    facts = {"model": recognizer.model, "emotions": list(recognizer.emotions), "applied": recognizer.applied}
    settings = {"profile": None, **recognizer.applied}
    if recognizer.vad != "auto":  # folders of earlier versions have no such field
        settings["vad"] = recognizer.vad
    return Work(
        "recognizing",
        ENTRY,
        {"recognizer": setup, **facts, "lenient": lenient, "timeout": timeout},
        {"task": "recognize", "model": recognizer.model, **settings, "lenient": lenient},
        recognizer.graph.threads,
    )


class RecognitionWorker:
    """Recognizes the clips of a shard in worker processes, which load the model once and are replaced when they die.

    Args:
        setup: The recognizer, the settings and the folder of the manifest.
        jobs: The number of processes.
        machine: The name of this machine, for messages; "" to leave it out.
    """

    def __init__(self, setup: Message, jobs: int, machine: str) -> None:
        self._setup, self._machine = setup, machine
        self._pool: WorkerPool[_Recording] = start_pool(setup["recognizer"], setup["model"], jobs)

    def __enter__(self) -> RecognitionWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)

    def schema(self) -> Any:
        """Return the schema of the tables: that of rows."""
        applied = self._setup["applied"]
        promised = [EMOTION_SET] if "min_probability" in applied.get("decision", {}) else []
        return row_schema(self._setup["emotions"], [*applied, *promised, *NOTES])

    def writer_options(self) -> dict[str, Any]:
        """Return options of the Parquet writer."""
        return {}

    def tables(self, clips: Sequence[Clip], on_clip: Callable[[], None]) -> Iterator[Any]:
        """Yield tables with a row for each clip, in order; a file that occurs several times is recognized once."""
        schema, rows = self.schema(), list[Row]()
        for row in self._rows(clips):
            on_clip()
            rows.append(row)
            if sum(1 + len(row.windows) for row in rows) >= TABLE_ROWS:
                yield to_table(rows, schema)
                rows.clear()
        if rows:
            yield to_table(rows, schema)

    def _rows(self, clips: Sequence[Clip]) -> Iterator[Row]:
        finished = run_in_order(self._pool, clips, self._setup["base"], lambda path: _Recording(path, self._setup))
        for clip, recording in finished:
            row = recording.row(clip) if recording else self._row_without_file()
            yield name_machine(row, self._machine)

    def _row_without_file(self) -> Row:
        error = BadAudio("the manifest names no audio file in this row", code="missing")
        return make_row("", self._setup["model"], error=error, applied=self._setup["applied"])


def name_machine(row: AnyRow, machine: str) -> AnyRow:
    """Add the name of the machine to the error in a row if the file is missing or unreadable there."""
    if machine and row["error"] and row["error"]["code"] in NOT_FOUND:
        row["error"] = row["error"] | {"message": f"{row['error']['message']} (on the worker {machine})"}
    return row


class _Recording(Recording[Row]):
    """A file to recognize."""

    def __init__(self, path: str, setup: Message) -> None:
        super().__init__(path)
        self._setup = setup
        self._source: dict[str, float] | None = None

    def request(self) -> Message:
        """Return the request to send to a process of `affekt.inference.worker`."""
        self._source = None if is_url(self.path) else file_version(Path(self.path))
        if self.is_whole:
            options = {"lenient": self._setup["lenient"], "timeout": self._setup["timeout"], "windows": []}
            return {"do": "recognize", "path": self.path, **options}
        return {"do": "recognize_segments", "path": self.path, "segments": self.segments}

    def read(self, message: Message) -> list[Row] | None:
        """Return the rows in a message of a worker."""
        if "died" in message:
            crashed = crashed_row(self.path, message["died"], self._setup["model"], self._setup["applied"])
            return [crashed] * len(self.segments)
        if "row" in message:
            return [restore_row(message["row"])]
        return [restore_row(row) for row in message["rows"]] if "rows" in message else None

    def row(self, clip: Clip) -> Row:
        """Return the row of a clip, with the file name from the manifest; for a segment that failed, with its times too."""
        assert self.results is not None
        name = name_of(clip.audio)
        row = Row({**self.results[clip.start, clip.end], "file": name})
        if row.error and not clip.is_whole:
            row["start"], row["end"] = clip.start, clip.start if clip.end is None else clip.end
        if row.windows:
            row["windows"] = [Row({**window, "file": name}) for window in row.windows]
        row.source = self._source
        return row
