"""The options of `affekt recognize --timeline`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.inference.recognizer import Recognizer
    from affekt.inference.transcript import TextSource
    from affekt.interval import Interval
    from affekt.timeline.timeline import Timeline
    from affekt.timeline.track import Segmentation
    from affekt.workflows.make_timelines import Division

IsTimeline = Annotated[
    bool,
    typer.Option(
        "--timeline",
        help="Print the emotions of each recording over time, segment by segment, and a summary. With --output, the "
        "file has a row for each segment; after an interruption, the same command continues.",
    ),
]
Window = Annotated[
    float | None,
    typer.Option(
        "--window",
        metavar="SECONDS",
        help="With --timeline: divide into windows of this length, at most 8 s; default: segments of speech.",
    ),
]
Hop = Annotated[
    float | None,
    typer.Option(
        "--hop",
        metavar="SECONDS",
        help="With --timeline: time from the start of a window to that of the next one; default: half of a window.",
    ),
]
Transcript = Annotated[
    Path | None,
    typer.Option(
        "--transcript",
        metavar="FILE",
        help="What is said, with times: .srt, .vtt, .json of faster-whisper or WhisperX, .TextGrid, .eaf. With --timeline, "
        "the recording is divided into its sentences.",
    ),
]
Segments = Annotated[
    Path | None,
    typer.Option(
        "--segments",
        metavar="TABLE",
        help="With --timeline: divide into the segments of a table with columns start and end, in seconds, and "
        "optionally speaker and text: .csv, .tsv, .jsonl or .parquet.",
    ),
]
Tiers = Annotated[
    list[str] | None,
    typer.Option(
        "--tier",
        metavar="NAME",
        help="With --transcript: a tier of a .TextGrid or .eaf to read; default: those with text. Repeatable.",
    ),
]
MinSpeech = Annotated[
    float | None,
    typer.Option(
        "--min-speech",
        metavar="SECONDS",
        help="With --timeline: segments with less speech are joined to the next one if the pause is at most 1.5 s; "
        "default: 1.",
    ),
]
MaxLength = Annotated[
    float | None,
    typer.Option(
        "--max-length",
        metavar="SECONDS",
        help="With --timeline: longer segments are cut where speech is least probable; default: 6, or 8 for given "
        "segments.",
    ),
]
ChannelMode = Annotated[
    str,
    typer.Option(
        "--channels",
        metavar="mix|separate",
        help="With --timeline: recognize the mean of the channels, or each channel on its own, such as the two sides of"
        " a call.",
    ),
]
Rttm = Annotated[
    Path | None,
    typer.Option(
        "--rttm",
        metavar="FILE",
        help="With --timeline: assign segments to the speakers of a diarization, by the largest overlap; segments of "
        "speech are also cut where the speaker changes.",
    ),
]
Exports = Annotated[
    list[Path] | None,
    typer.Option(
        "--export",
        metavar="FILE",
        help="With --timeline: write the timeline of one recording as .json, .csv, .parquet, .vtt, .txt (labels of "
        "Audacity), .rttm or .TextGrid; a name without suffix is a folder of audformat. Repeatable.",
    ),
]
Plots = Annotated[
    list[Path] | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="With --timeline: draw the timeline of one recording: .png, .svg, or .html, which plays the recording. "
        "Repeatable.",
    ),
]

NAMES = {
    "window": "--window",
    "hop": "--hop",
    "transcript": "--transcript",
    "segments": "--segments",
    "tiers": "--tier",
    "min_speech": "--min-speech",
    "max_length": "--max-length",
    "rttm": "--rttm",
    "exports": "--export",
    "plots": "--plot",
}
"""Field -> option."""


@dataclass(frozen=True)
class TimelineOptions:
    """The values of the options."""

    timeline: bool
    window: float | None = None
    hop: float | None = None
    transcript: Path | None = None
    segments: Path | None = None
    tiers: Sequence[str] | None = None
    min_speech: float | None = None
    max_length: float | None = None
    channels: str = "mix"
    rttm: Path | None = None
    exports: Sequence[Path] | None = None
    plots: Sequence[Path] | None = None
    texts: TextSource | None = None
    """Recognizes the words, if the recordings are divided into their sentences."""

    def are_used(self, excluded: Mapping[str, object]) -> bool:
        """Return whether timelines are asked for.

        Args:
            excluded: Other options that timelines exclude, with their values.

        Raises:
            BadConfig: The options contradict one another.
        """
        given = {
            option: value for field, option in NAMES.items() if (value := getattr(self, field)) not in (None, [], ())
        }
        if self.channels != "mix":
            given["--channels"] = self.channels
        if not self.timeline:
            given = {option: value for option, value in given.items() if option not in ("--transcript", "--tier")}
            if given:
                raise BadConfig(f"{next(iter(given))} is an option of timelines: it needs --timeline")
            return False
        if refused := [option for option, value in excluded.items() if value]:
            raise BadConfig(f"{refused[0]} cannot be used with --timeline")
        if self.channels not in ("mix", "separate"):
            raise BadConfig(f"--channels {self.channels}: expected mix or separate")
        if len(ways := [name for name in ("--window", "--transcript", "--segments") if name in given]) > 1:
            raise BadConfig(f"{ways[0]} and {ways[1]} both say how to divide the recording: use one of them")
        self._check_details(given, ways)
        return True

    def _check_details(self, given: Mapping[str, Any], ways: Sequence[str]) -> None:
        """Raise `BadConfig` if an option belongs to another way of dividing."""
        for option, needed in {"--hop": ["--window"], "--tier": ["--transcript"]}.items():
            if option in given and ways != needed:
                raise BadConfig(f"{option} is for {needed[0]}")
        if "--min-speech" in given and ways:
            raise BadConfig(f"--min-speech is for segments of speech: leave it out, or {ways[0]}")
        if "--max-length" in given and ways == ["--window"]:
            raise BadConfig("--max-length is for segments of speech and given segments: leave it out, or --window")
        if "--rttm" in given and ways in (["--transcript"], ["--segments"]):
            raise BadConfig(f"--rttm assigns speakers to segments of speech or windows, not to those of {ways[0]}")

    def check_recordings(self, names: Sequence[str]) -> None:
        """Raise `BadConfig` if there are several recordings for files of one, `BadOutput` if a file has no format."""
        for option, paths in (("--export", self.exports), ("--plot", self.plots)):
            if paths and len(names) != 1:
                raise BadConfig(f"{option} writes the timeline of one recording, but there are {len(names)}")
        if self.transcript and len(names) != 1:
            raise BadConfig(
                f"--transcript has the sentences of one recording, but there are {len(names)}; a table for --segments may "
                "have those of several"
            )
        if self.exports:
            from affekt.timeline.exports import format_of

            for path in self.exports:
                format_of(path)
        if self.plots:
            from affekt.timeline.plot import check_plot

            for path in self.plots:
                check_plot(path)

    def divide(self, path: Path) -> Division:
        """Return how a recording is divided.

        Raises:
            BadConfig: A setting is impossible.
            BadTranscript: The transcript, table or diarization cannot be read.
        """
        from affekt.workflows.make_timelines import Division

        turns = []
        if self.rttm:
            from affekt.timeline.transcripts import read_rttm

            turns = read_rttm(self.rttm, file_id=str(path))
        return Division(self._segmentation(path, turns), turns)

    def _segmentation(self, path: Path, turns: Sequence[Interval]) -> Segmentation:
        limit = {} if self.max_length is None else {"max_length": self.max_length}
        if self.texts:
            from affekt.timeline.given_intervals import GivenIntervals

            sentences = self.texts.find(path).intervals
            return GivenIntervals(sentences, **limit, name="recognized sentences", text_by=self.texts.name)
        if self.window is not None:
            from affekt.timeline.windows import FixedWindows

            return FixedWindows(self.window, self.window / 2 if self.hop is None else self.hop)
        if table := self.transcript or self.segments:
            from affekt.timeline.given_intervals import GivenIntervals
            from affekt.timeline.transcripts import read_intervals

            intervals = read_intervals(table, file_id=str(path), tiers=self.tiers or None)
            return GivenIntervals(tuple(intervals), **limit, name=f"segments of {table}", text_by=table.name)
        from affekt.timeline.speakers import find_changes
        from affekt.timeline.speech_segments import SpeechSegments

        if self.min_speech is not None:
            limit["min_speech"] = self.min_speech
        return SpeechSegments(**limit, changes=find_changes(turns))


def print_timelines(
    files: Sequence[Path],
    names: Sequence[str],
    recognizer: Recognizer,
    options: TimelineOptions,
    *,
    output: Path | None,
    json: bool,
    lenient: bool,
    timeout: float,
) -> int:
    """Make, print and write the timelines of recordings, and return the exit status.

    Raises:
        BadConfig: An option is impossible.
    """
    from affekt.cli.timeline_display import TimelineDisplay
    from affekt.timeline.timeline import Timeline
    from affekt.timeline.track import check_segmentation
    from affekt.workflows.make_timelines import make_timelines

    options.check_recordings(names)
    divided: dict[Path, Division] = {}
    if options.texts is None and files:  # an impossible option ends the command before any recording is read
        divided[files[0]] = options.divide(files[0])
        check_segmentation(recognizer, divided[files[0]].segmentation)
    with TimelineDisplay(files, names, recognizer.emotions, json=json, output=output) as display:
        results = make_timelines(
            files,
            output,
            recognizer=recognizer,
            divide=lambda path: divided.pop(path, None) or options.divide(path),
            channels=options.channels,  # type: ignore[arg-type]
            lenient=lenient,
            timeout=timeout,
            on_segment=display.show_segment,
        )
        for path, result in zip(files, results, strict=True):
            display.show(result)
            if isinstance(result, Timeline):
                _write(result, options, path)
    return 2 if display.failed else 0


def _write(timeline: Timeline, options: TimelineOptions, path: Path) -> None:
    from affekt.audio.streams import STANDARD_INPUT

    for target in options.exports or ():
        from affekt.timeline.exports import export_timeline

        export_timeline(timeline, target)
    for target in options.plots or ():
        from affekt.timeline.plot import save_plot

        save_plot(timeline, target, None if str(path) == STANDARD_INPUT else path)
