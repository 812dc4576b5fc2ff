"""Compute the embeddings of many files, in this process or in several, resuming from an interrupted run."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affekt.audio.folders import expand_folders
from affekt.audio.read import name_of
from affekt.audio.time_limit import TIMEOUT, check_timeout
from affekt.cores import check_jobs
from affekt.errors import BadAudio
from affekt.inference.embedding import Embedding, check_statistics, embed_or_fail, failed
from affekt.inference.embeddings_file import EmbeddingsFile
from affekt.inference.recognizer import Recognizer
from affekt.inference.worker_pool import choose_jobs, is_shared, recognition_pool
from affekt.progress import Progress
from affekt.workflows.recognize_files import file_version

if TYPE_CHECKING:
    from affekt.processes import Message
    from affekt.worker_pool import WorkerPool


def embed_files(
    inputs: Iterable[str | Path],
    output: str | Path | None = None,
    *,
    recognizer: Recognizer | None = None,
    lenient: bool = False,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
    jobs: int | None = 1,
) -> Generator[Embedding, None, None]:
    """Yield the embedding of each file, in order; that of a file that fails has the status "error".

    With `output`, they are also written to a file. If iteration stops early, the next call with the same output continues.

    Args:
        inputs: Audio files, and folders, which are searched for audio files.
        output: A .parquet, .npy or .csv file, which must not exist yet.
        recognizer: The recognizer to use; by default the one that ships with affekt.
        lenient: Whether to read as much as possible of a file that is damaged or cut off.
        progress: Called after each file.
        timeout: The limit for one file in seconds.
        jobs: The number of worker processes, as for `recognize_files`.

    Raises:
        BadAudio: A name in `inputs` is empty.
        BadBundle: The model has no embeddings, or the default bundle cannot be loaded.
        BadConfig: `timeout` is not positive, or `jobs` is out of range.
        BadOutput: `output` exists, cannot be written, or is being written by another run.
    """
    check_timeout(timeout)
    paths = {name_of(path): path for path in expand_folders(inputs)}
    recognizer = recognizer or Recognizer.load()
    recognizer.check_audio_only("an embedding")
    check_statistics(recognizer)
    check_jobs(jobs, recognizer.graph.threads)
    with ExitStack() as stack:
        size = recognizer.graph.statistics_size
        file = stack.enter_context(EmbeddingsFile(Path(output), size)) if output else None
        tasks = [_File(name, path, recognizer, lenient, timeout, file) for name, path in paths.items()]
        waiting = [task for task in tasks if task.embedding is None]
        number = choose_jobs(jobs, [task.path for task in waiting], recognizer.graph.threads) if jobs != 1 else 1
        for done, task in enumerate(_run(tasks, recognizer, number), start=1):
            assert task.embedding is not None
            if file:
                file.append(task.embedding, task.version)
            if progress:
                progress("embedding", done, len(tasks))
            yield task.embedding


def _run(tasks: list[_File], recognizer: Recognizer, jobs: int) -> Iterator[_File]:
    """Yield the files in order, each with its embedding."""
    shared = [task for task in tasks if task.embedding is None and is_shared(task.path)] if jobs > 1 else []
    ids = {id(task) for task in shared}
    pool: WorkerPool[_File] = recognition_pool(recognizer, jobs)
    with pool:
        messages = pool.run(shared)
        for task in tasks:
            while task.embedding is None and id(task) in ids:
                receiver, message = next(messages)
                receiver.receive(message)
            if task.embedding is None:
                task.compute()
            yield task


@dataclass(eq=False)
class _File:
    """A file whose embedding is computed."""

    name: str
    path: Path
    recognizer: Recognizer
    lenient: bool
    timeout: float
    output: EmbeddingsFile | None
    embedding: Embedding | None = None
    version: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        self.version = file_version(self.path)
        if self.output:
            self.embedding = self.output.find(self.name, self.recognizer.model, self.version)

    def compute(self) -> None:
        """Compute the embedding in this process."""
        options = {"lenient": self.lenient, "timeout": self.timeout}
        self.embedding = embed_or_fail(self.recognizer, self.path, **options)  # type: ignore[arg-type]

    def request(self) -> Message:
        """Return the request to compute the embedding, for a worker."""
        return {"do": "embed", "path": str(self.path), "lenient": self.lenient, "timeout": self.timeout}

    def receive(self, message: Message) -> None:
        """Store what a worker sent."""
        if "died" in message:
            error = BadAudio(
                f"{self.name} has no embedding: two worker processes died while reading it (the second with "
                f"{message['died']})",
                code="crashed",
            )
            self.embedding = failed(self.name, self.recognizer.model, error)
        elif "embedding" in message:
            self.embedding = Embedding.from_message(message["embedding"])
