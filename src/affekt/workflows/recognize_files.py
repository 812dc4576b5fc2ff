"""Recognize many files, resuming from a results file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from affekt.audio.read import name_of
from affekt.audio.streams import STANDARD_INPUT
from affekt.audio.time_limit import TIMEOUT, check_timeout
from affekt.inference.recognizer import Recognizer, expand_folders
from affekt.inference.row import Row
from affekt.inference.window_journal import WindowJournal
from affekt.progress import Progress

if TYPE_CHECKING:
    from affekt.inference.results_file import ResultsFile


def recognize_files(
    inputs: Iterable[str | Path],
    output: str | Path | None = None,
    *,
    recognizer: Recognizer | None = None,
    lenient: bool = False,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
    on_window: Callable[[Row], None] | None = None,
) -> Generator[Row, None, None]:
    """Recognize files one after another and yield a row for each; a file that fails yields a row with status "error".

    With `output`, rows are also written to a file. Files that are already in it are not recognized again unless their size
    or time of change differs, and their rows have `resumed` set; failed files are retried. If iteration stops early, the
    next call with the same output resumes, also in the middle of a long file.

    Args:
        inputs: Audio files, and folders, which are searched for audio files.
        output: A .jsonl, .csv or .parquet file.
        recognizer: The recognizer to use; by default the one that ships with affekt.
        lenient: Recognize the readable part of a file that is damaged or cut off.
        progress: Called after each file.
        timeout: The limit for one file in seconds. A file that takes longer yields a row with the error "timeout".
        on_window: Called with the row of each window of a long file.

    Raises:
        BadAudio: A name in `inputs` is empty.
        BadBundle: The default bundle cannot be loaded.
        BadConfig: `timeout` is not positive.
        BadOutput: `output` cannot be written, is being written by another run, or contains something other than rows of
            the same model with the same profile, or without one.
    """
    check_timeout(timeout)
    paths = {name_of(path): path for path in expand_folders(inputs)}
    recognizer = recognizer or Recognizer.load()
    with ExitStack() as stack:
        results = stack.enter_context(_results_file(Path(output), recognizer)) if output else None
        for done, (name, path) in enumerate(paths.items(), start=1):
            version = _version(path)
            row = results.find(name, version) if results and not is_stream(path) else None
            if row is None:
                journal = (
                    results.window_journal(name, version, on_window)
                    if results
                    else WindowJournal(None, name, recognizer.model, None, on_window)
                )
                with journal:
                    row = recognizer.row(path, lenient=lenient, timeout=timeout, finished=journal)
                row.source = version
                if results:
                    results.append(row)
            if progress:
                progress("recognizing", done, len(paths))
            yield row


def _results_file(path: Path, recognizer: Recognizer) -> ResultsFile:
    from affekt.inference.results_file import ResultsFile  # not needed without an output, which should start fast

    return ResultsFile(path, recognizer.model, recognizer.profile.row_field() if recognizer.profile else None)


def is_stream(path: Path) -> bool:
    """Return whether a path is standard input, a pipe or a device, which may give something else in each run."""
    if str(path) == STANDARD_INPUT:
        return True
    # Unlike those of `Path`, these functions take any name.
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))  # noqa: PTH110, PTH112, PTH113


def _version(path: Path) -> dict[str, float] | None:
    """Return the size and the time of change of a file; None for a pipe or a file that does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return {"size": status.st_size, "modified": round(status.st_mtime_ns / 1e9, 6)}
