"""Recognize many files, resuming from a results file."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack
from pathlib import Path

from affekt.audio.read import name_of
from affekt.inference.recognizer import Recognizer, expand_folders
from affekt.inference.results_file import ResultsFile
from affekt.inference.row import Row
from affekt.progress import Progress


def recognize_files(
    inputs: Iterable[str | Path],
    output: str | Path | None = None,
    *,
    recognizer: Recognizer | None = None,
    lenient: bool = False,
    progress: Progress | None = None,
) -> Generator[Row, None, None]:
    """Recognize files one after another and yield a row for each; a file that fails yields a row with status "error".

    With `output`, rows are also written to a file. Files that are already in it are not recognized again, and their rows
    have `resumed` set; failed files are retried. If iteration stops early, the next call with the same output resumes.

    Args:
        inputs: audio files, and folders, which are searched for audio files.
        output: a .jsonl, .csv or .parquet file.
        recognizer: the recognizer to use; by default the one that ships with affekt.
        lenient: read what exists of a file that is damaged or cut off.
        progress: called after each file.

    Raises:
        BadAudio: a name in `inputs` is empty.
        BadBundle: the default bundle cannot be loaded.
        BadOutput: `output` cannot be written, or contains something other than rows of the same model.
    """
    paths = {name_of(path): path for path in expand_folders(inputs)}
    recognizer = recognizer or Recognizer.load()
    with ExitStack() as stack:
        results = stack.enter_context(ResultsFile(Path(output), recognizer.model)) if output else None
        for done, (name, path) in enumerate(paths.items(), start=1):
            row = results.find(name) if results else None
            if row is None:
                row = next(recognizer.rows([path], lenient=lenient))
                if results:
                    results.append(row)
            if progress:
                progress("recognizing", done, len(paths))
            yield row
