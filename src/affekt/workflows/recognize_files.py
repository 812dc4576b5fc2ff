"""Recognize many files, in this process or in several, resuming from a results file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affekt.audio.folders import expand_folders
from affekt.audio.read import name_of
from affekt.audio.streams import STANDARD_INPUT
from affekt.audio.time_limit import TIMEOUT, check_timeout
from affekt.cores import check_jobs
from affekt.errors import AffektError, BadConfig
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row, make_row
from affekt.inference.transcript import TextSource
from affekt.inference.window_journal import WindowJournal
from affekt.progress import Progress

if TYPE_CHECKING:
    from affekt.inference.results_file import ResultsFile
    from affekt.processes import Message
    from affekt.worker_pool import WorkerPool


def recognize_files(
    inputs: Iterable[str | Path],
    output: str | Path | None = None,
    *,
    recognizer: Recognizer | None = None,
    lenient: bool = False,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
    on_window: Callable[[Row], None] | None = None,
    jobs: int | None = 1,
    texts: TextSource | None = None,
) -> Generator[Row, None, None]:
    """Recognize files and yield a row for each, in order; a file that fails yields a row with status "error".

    With `output`, rows are also written to a file. Files that are already in it are not recognized again unless their size
    or time of change differs, and their rows have `resumed` set; failed files are retried. If iteration stops early, the
    next call with the same output resumes, also in the middle of a long file.

    Args:
        inputs: Audio files, and folders, which are searched for audio files.
        output: A .jsonl, .csv or .parquet file.
        recognizer: The recognizer to use; by default the one that ships with affekt.
        lenient: Whether to recognize the readable part of a file that is damaged or cut off.
        progress: Called after each file.
        timeout: The limit for one file in seconds. A file that takes longer yields a row with the error "timeout".
        on_window: Called with the row of each window of a long file.
        jobs: The number of worker processes, each of which recognizes one file at a time; 1 to recognize in this process,
            None to choose the number (`affekt.inference.worker_pool.choose_jobs`). Rows are the same for any number. A
            file yields a row with the error "crashed" if two workers died while processing it.
        texts: The source of the words; then files are recognized in this process, and `jobs` is None or 1.

    Raises:
        BadAudio: A name in `inputs` is empty.
        BadBundle: The default bundle cannot be loaded.
        BadConfig: `timeout` is not positive, or `jobs` is less than 1, too large for this machine, or not 1 with `texts`.
        BadOutput: `output` cannot be written, is being written by another run, or contains something other than rows of
            the same model with the same profile and decision.
    """
    check_timeout(timeout)
    paths = {name_of(path): path for path in expand_folders(inputs)}
    recognizer = recognizer or Recognizer.load()
    check_jobs(jobs, recognizer.graph.threads)
    if texts and jobs not in (None, 1):
        raise BadConfig(f"{jobs} jobs: recordings with words are recognized in this process only; use 1 job")
    with ExitStack() as stack:
        results = stack.enter_context(_results_file(Path(output), recognizer)) if output else None
        batch = _Batch(paths, recognizer, results, lenient, timeout, progress, on_window, texts)
        yield from batch.rows(1 if texts else jobs)


@dataclass
class _Batch:
    """The files to recognize, and the settings for all of them."""

    paths: Mapping[str, Path]
    recognizer: Recognizer
    results: ResultsFile | None
    lenient: bool
    timeout: float
    progress: Progress | None
    on_window: Callable[[Row], None] | None
    texts: TextSource | None
    done: int = 0

    def rows(self, jobs: int | None) -> Iterator[Row]:
        """Yield the row of each file, in order."""
        if jobs != 1 and len(self.paths) > 1:
            from affekt.inference.worker_pool import choose_jobs  # recognition in this process should start fast

            waiting = [path for name, path in self.paths.items() if self._find(name, path) is None]
            jobs = choose_jobs(jobs, waiting, self.recognizer.graph.threads)
            if jobs > 1:
                yield from self._rows_of_workers(jobs)
                return
        for name, path in self.paths.items():
            row = self._find(name, path) or self._recognize(_File(name, path, self))
            self._count()
            yield row

    def _rows_of_workers(self, jobs: int) -> Iterator[Row]:
        from affekt.inference.worker_pool import is_shared, recognition_pool

        rows = {name: row for name, path in self.paths.items() if (row := self._find(name, path))}
        files = [_File(name, path, self) for name, path in self.paths.items() if name not in rows and is_shared(path)]
        for _ in rows:
            self._count()
        pool: WorkerPool[_File] = recognition_pool(self.recognizer, jobs)
        with pool:
            messages = pool.run(files)
            try:
                for name, path in self.paths.items():
                    while name not in rows and is_shared(path):
                        self._receive(*next(messages), rows)
                    if name not in rows:
                        rows[name] = self._recognize(_File(name, path, self))
                        self._count()
                    yield rows.pop(name)
            except BaseException:
                for file, message in pool.received():  # rows that are finished are kept
                    self._receive(file, message, rows)
                raise
        if self.results:
            self.results.sort(self.paths)

    def _receive(self, file: _File, message: Message, rows: dict[str, Row]) -> None:
        """Store what a worker sent about a file; add the file's row to `rows` when it is complete."""
        row = file.receive(message)
        if row is not None:
            rows[file.name] = row
            self._count()

    def _find(self, name: str, path: Path) -> Row | None:
        """Return the row of a file from an earlier run; None if there is none or it is to be recognized again."""
        row = self.results.find(name, file_version(path)) if self.results and not is_stream(path) else None
        has_words = row is not None and (self.texts.made(row) if self.texts else "text_by" not in row)
        return row if has_words else None

    def _recognize(self, file: _File) -> Row:
        """Recognize a file in this process."""
        journal = file.begin()
        try:
            text = self.texts.find(file.path) if self.texts else None
        except AffektError as error:
            return file.finish(make_row(file.name, self.recognizer.model, error=error))
        row = self.recognizer.row(file.path, lenient=self.lenient, timeout=self.timeout, finished=journal, text=text)
        return file.finish(row)

    def _count(self) -> None:
        self.done += 1
        if self.progress:
            self.progress("recognizing", self.done, len(self.paths))


class _File:
    """A file of a batch that is being recognized."""

    def __init__(self, name: str, path: Path, batch: _Batch) -> None:
        self.name, self.path, self._batch = name, path, batch

    def begin(self) -> WindowJournal:
        """Remember which version of the file is read, and return the journal of its windows."""
        self._version = file_version(self.path)
        batch = self._batch
        if batch.results:
            self._journal = batch.results.window_journal(self.name, self._version, batch.on_window)
        else:
            self._journal = WindowJournal(None, self.name, batch.recognizer.model, None, batch.on_window)
        return self._journal

    def finish(self, row: Row) -> Row:
        """Write the row to the results file, delete the journal of windows, and return the row."""
        self._journal.delete()
        row.source = self._version
        if self._batch.results:
            self._batch.results.append(row)
        return row

    def request(self) -> Message:
        """Return the request to recognize this file, for a worker."""
        batch, journal = self._batch, self.begin()
        settings = {"lenient": batch.lenient, "timeout": batch.timeout, "windows": journal.stored}
        return {"do": "recognize", "path": str(self.path), **settings}

    def receive(self, message: Message) -> Row | None:
        """Store what a worker sent, and return the row if the file is finished."""
        if "window" in message:
            self._journal.add(Row(message["window"]))
            return None
        if "died" in message:
            from affekt.inference.worker_pool import crashed_row

            recognizer = self._batch.recognizer
            return self.finish(crashed_row(self.name, message["died"], recognizer.model, recognizer.applied))
        if "row" not in message:
            return None
        from affekt.inference.worker import restore_row

        return self.finish(restore_row(message["row"]))


def _results_file(path: Path, recognizer: Recognizer) -> ResultsFile:
    from affekt.inference.results_file import ResultsFile  # not needed without an output, which should start fast

    return ResultsFile(path, recognizer.model, recognizer.applied)


def is_stream(path: Path) -> bool:
    """Return whether a path is standard input, a pipe or a device, whose contents may differ in each run."""
    if str(path) == STANDARD_INPUT:
        return True
    # Unlike those of `Path`, these functions take any name.
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))  # noqa: PTH110, PTH112, PTH113


def file_version(path: Path) -> dict[str, float] | None:
    """Return the size and the time of change of a file; None for a pipe or a file that does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return {"size": status.st_size, "modified": round(status.st_mtime_ns / 1e9, 6)}
