"""The worker processes of recognition: each loads the recognizer once and takes one file at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affekt.audio.read import AudioSource
from affekt.audio.streams import STANDARD_INPUT
from affekt.cores import usable_cores
from affekt.errors import BadAudio, BadBundle
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row, make_row
from affekt.inference.worker import ENTRY, describe
from affekt.processes import Message
from affekt.worker_pool import AnyTask, WorkerPool

SECONDS_PER_BYTE = 5e-7
"""Estimated time to recognize one byte of a file, in seconds: 8 ms for a second of speech that takes 16 kB."""
SECONDS_PER_FILE = 0.01
"""Estimated additional time per file, in seconds."""
MIN_SECONDS_PER_WORKER = 1.0
"""A worker is started only for at least this estimated time of work, in seconds; starting it takes about 0.7 seconds."""


def choose_jobs(jobs: int | None, sources: Sequence[AudioSource], threads: int = 1) -> int:
    """Return the number of worker processes to use for files; 1 means that no worker is started.

    Args:
        jobs: The requested number, which is limited to the number of files; None for the number that saves time, at most one
            for each core that this process may use.
        sources: The files. Sources that are not files, or that only this process can read, are not counted.
        threads: The number of threads of each worker.
    """
    paths = [Path(source) for source in sources if isinstance(source, str | Path) and is_shared(source)]
    if jobs is None:
        seconds = sum(SECONDS_PER_FILE + SECONDS_PER_BYTE * _size(path) for path in paths)
        jobs = min(usable_cores() // threads, int(seconds / MIN_SECONDS_PER_WORKER))
    return max(1, min(jobs, len(paths)))


def is_shared(source: AudioSource) -> bool:
    """Return whether a source is a path that other processes can read too: not standard input, a descriptor, or an array."""
    if not isinstance(source, str | Path) or str(source) == STANDARD_INPUT:
        return False
    return Path(source).absolute().parts[1:2] not in (("dev",), ("proc",))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def recognition_pool(recognizer: Recognizer, jobs: int) -> WorkerPool[AnyTask]:
    """Return a pool of workers that load the same recognizer.

    Args:
        recognizer: The recognizer.
        jobs: The number of workers.
    """
    return start_pool(describe(recognizer), recognizer.model, jobs)


def start_pool(setup: Message, model: str, jobs: int) -> WorkerPool[AnyTask]:
    """Return a pool of workers, without loading the recognizer in this process.

    Args:
        setup: The description of the recognizer (`affekt.inference.worker.describe`).
        model: The model's id, which must be that of the bundle.
        jobs: The number of workers.
    """

    def check_model(message: Message) -> None:
        if message["ready"] != model:
            raise BadBundle(
                f"{setup['bundle']} is {message['ready']}, but expected {model}: if it changed while it was in use, start "
                "again; on a cluster, all machines need the same bundle"
            )

    return WorkerPool(ENTRY, setup, jobs, option="--jobs", check_ready=check_model)


def crashed_row(name: str, status: str, model: str, applied: Mapping[str, Any]) -> Row:
    """Return the row of a file if two workers died while processing it.

    Args:
        name: The file.
        status: How the second one ended.
        model: The model's id.
        applied: The fields of the rows on what was applied besides the model (`Recognizer.applied`).
    """
    error = BadAudio(
        f"{name} cannot be recognized: two worker processes died while reading it (the second with {status}); "
        "if memory ran out, use fewer jobs",
        code="crashed",
    )
    return make_row(name, model, error=error, applied=applied)
