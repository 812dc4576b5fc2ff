"""Collect the model's outputs for the clips of many sources, in this process or in several, to learn a profile from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from affekt.audio.read import AudioSource, name_of
from affekt.cores import check_jobs
from affekt.inference.clips import Clip, describe_failure, observe_clips
from affekt.inference.recognizer import Recognizer

if TYPE_CHECKING:
    from affekt.processes import Message
    from affekt.worker_pool import WorkerPool


def observe_sources(
    recognizer: Recognizer, sources: Sequence[AudioSource], *, lenient: bool, timeout: float | None, jobs: int | None
) -> Iterator[list[Clip] | str]:
    """Yield the clips of each source, in order, or why it cannot be read.

    Args:
        recognizer: The recognizer.
        sources: The sources.
        lenient: As for calling the recognizer.
        timeout: As for calling the recognizer.
        jobs: The number of worker processes, as for `recognize_files`.
    """
    check_jobs(jobs, recognizer.graph.threads)
    if jobs != 1:
        from affekt.inference.worker_pool import choose_jobs

        jobs = choose_jobs(jobs, sources, recognizer.graph.threads)
        if jobs > 1:
            yield from _observe_in_workers(recognizer, sources, jobs, lenient=lenient, timeout=timeout)
            return
    for source in sources:
        yield _observe(recognizer, source, lenient=lenient, timeout=timeout)


def _observe(recognizer: Recognizer, source: AudioSource, *, lenient: bool, timeout: float | None) -> list[Clip] | str:
    try:
        return observe_clips(recognizer, source, lenient=lenient, timeout=timeout)
    except Exception as error:  # as in `Recognizer.row`: a file that fails does not stop the others
        return describe_failure(error)


def _observe_in_workers(
    recognizer: Recognizer, sources: Sequence[AudioSource], jobs: int, *, lenient: bool, timeout: float | None
) -> Iterator[list[Clip] | str]:
    from affekt.inference.worker_pool import is_shared, recognition_pool

    tasks = [
        _Source(index, source, lenient, timeout)
        for index, source in enumerate(sources)
        if isinstance(source, str | Path) and is_shared(source)
    ]
    shared, results = {task.index for task in tasks}, dict[int, list[Clip] | str]()
    pool: WorkerPool[_Source] = recognition_pool(recognizer, jobs)
    with pool:
        messages = pool.run(tasks)
        for index, source in enumerate(sources):
            while index in shared and index not in results:
                task, message = next(messages)
                results[task.index] = task.result(message)
            yield (
                results.pop(index)
                if index in results
                else _observe(recognizer, source, lenient=lenient, timeout=timeout)
            )


class _Source:
    """A file whose clips a worker observes."""

    def __init__(self, index: int, path: str | Path, lenient: bool, timeout: float | None) -> None:
        self.index, self.name = index, name_of(path)
        self._request = {"do": "observe", "path": str(path), "lenient": lenient, "timeout": timeout}

    def request(self) -> Message:
        """Return the request to observe the file."""
        return dict(self._request)

    def result(self, message: Message) -> list[Clip] | str:
        """Return the clips that a worker sent, or why there are none."""
        if "clips" in message:
            return [Clip.from_message(clip) for clip in message["clips"]]
        if "died" in message:
            return f"{self.name}: two worker processes died while reading it (the second with {message['died']})"
        return str(message["failure"])
