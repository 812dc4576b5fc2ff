"""Process the audio files of a shard by a pool of worker processes, and return the results in the order of the clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from affekt.collection.manifest import Clip, locate
from affekt.processes import Message
from affekt.worker_pool import WorkerPool

Result = TypeVar("Result")
Segment = tuple[float, float | None]
"""Start and end in seconds; None for the end of the file."""
WHOLE: Segment = (0.0, None)


class Recording(Generic[Result]):
    """An audio file, and the clips of a shard that are in it: segments, or the whole file.

    Args:
        path: The path or URL of the file.
    """

    def __init__(self, path: str) -> None:
        self.path = self.name = path
        self.segments: list[Segment] = []
        self.results: dict[Segment, Result] | None = None
        """The results by segment; None before the file is finished."""

    @property
    def is_whole(self) -> bool:
        """Whether its only clip is the whole file."""
        return self.segments == [WHOLE]

    def request(self) -> Message:
        """Return the request to send to a worker."""
        raise NotImplementedError

    def read(self, message: Message) -> Sequence[Result] | None:
        """Return the results in a message of a worker, in the order of the segments; None if it contains none.

        A message with the key "died" means that two workers died while processing the file.
        """
        raise NotImplementedError

    def receive(self, message: Message) -> None:
        """Store the results in a message of a worker."""
        results = self.read(message)
        if results is not None:
            self.results = dict(zip(self.segments, results, strict=True))


AnyRecording = TypeVar("AnyRecording", bound=Recording)  # type: ignore[type-arg]


def run_in_order(
    pool: WorkerPool[AnyRecording], clips: Sequence[Clip], base: str, make: Callable[[str], AnyRecording]
) -> Iterator[tuple[Clip, AnyRecording | None]]:
    """Let a pool process the files of some clips; yield each clip, in order, with its finished file.

    Args:
        pool: The pool.
        clips: The clips. A clip without a file is yielded with None.
        base: The folder of the manifest.
        make: Creates a recording from a path.
    """
    files: dict[tuple[str, bool], AnyRecording] = {}  # by path, and whether the whole file is the clip
    pairs = []
    for clip in clips:
        recording = None
        if clip.audio:
            path = locate(base, clip.audio)
            recording = files.setdefault((path, clip.is_whole), make(path))
            if (clip.start, clip.end) not in recording.segments:
                recording.segments.append((clip.start, clip.end))
        pairs.append((clip, recording))
    messages = pool.run(files.values())
    for clip, recording in pairs:
        while recording is not None and recording.results is None:
            receiver, message = next(messages)
            receiver.receive(message)
        yield clip, recording
    for receiver, message in messages:
        receiver.receive(message)
