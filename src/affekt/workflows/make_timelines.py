"""Make the timelines of many recordings, resuming from a file of segments."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from affekt.audio.folders import expand_folders
from affekt.audio.read import name_of
from affekt.audio.time_limit import TIMEOUT, check_timeout
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row
from affekt.interval import Interval
from affekt.timeline.hysteresis import DEFAULT_HYSTERESIS, Hysteresis
from affekt.timeline.make_timeline import Channels, make_timeline
from affekt.timeline.segments_file import SegmentsFile
from affekt.timeline.timeline import Timeline
from affekt.timeline.track import DEFAULT_SEGMENTATION, Segmentation, check_segmentation
from affekt.workflows.recognize_files import file_version, is_stream


@dataclass(frozen=True)
class Division:
    """How one recording is divided."""

    segmentation: Segmentation = DEFAULT_SEGMENTATION
    turns: Sequence[Interval] = ()
    """The turns of a diarization, which assign speakers to segments."""


def default_division(path: Path) -> Division:  # noqa: ARG001
    """Return the division of a recording into speech segments."""
    return Division()


def make_timelines(
    inputs: Iterable[str | Path],
    output: str | Path | None = None,
    *,
    recognizer: Recognizer | None = None,
    divide: Callable[[Path], Division] = default_division,
    channels: Channels = "mix",
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
    lenient: bool = False,
    timeout: float = TIMEOUT,
    on_segment: Callable[[Row, float], None] | None = None,
) -> Generator[Timeline | Row, None, None]:
    """Yield the timeline of each recording, in order; for one that fails, a row with status "error".

    With `output`, the rows of all segments are also written to a file, as soon as they are recognized. If iteration stops
    early, the next call with the same output recognizes only segments that are missing.

    Args:
        inputs: Audio files, and folders, which are searched for audio files.
        output: A .jsonl, .csv or .parquet file.
        recognizer: The recognizer to use; by default the one that ships with affekt.
        divide: Returns how a recording is divided.
        channels: As for `make_timeline`, like the further arguments.
        hysteresis: The settings of the steady emotion.
        lenient: Whether to recognize the readable part of a file that is damaged or cut off.
        timeout: The limit for one recording in seconds.
        on_segment: Called with the row of each segment and the seconds of the recording that have been read.

    Raises:
        BadAudio: A name in `inputs` is empty.
        BadConfig: The timeout is not positive.
        BadOutput: `output` cannot be written, or contains rows of another model, profile or decision.
    """
    check_timeout(timeout)
    recognizer = recognizer or Recognizer.load()
    with ExitStack() as stack:
        file = None
        if output:
            file = stack.enter_context(SegmentsFile(Path(output), recognizer.model, recognizer.applied))
        for path in expand_folders(inputs):
            name, version = name_of(path), None if is_stream(path) else file_version(path)
            finished = file.begin(name, version) if file else None
            try:
                division = divide(path)
                check_segmentation(recognizer, division.segmentation)
                result: Timeline | Row = make_timeline(
                    recognizer,
                    path,
                    segmentation=division.segmentation,
                    turns=division.turns,
                    channels=channels,
                    hysteresis=hysteresis,
                    lenient=lenient,
                    timeout=timeout,
                    finished=finished,
                    on_segment=on_segment,
                )
            except Exception as error:
                result = recognizer.error_row(path, error)
            if file and isinstance(result, Timeline):
                file.finish(name, result.segments)
            elif file and isinstance(result, Row):
                file.fail(result)
            yield result
