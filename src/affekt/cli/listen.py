"""`affekt listen`: recognize live speech from a microphone or from standard input."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affekt.cli.decision_options import CalibrationFile, ChosenEmotions, ErrorRate, Threshold, parse_emotions
from affekt.cli.recognition_options import Model, ProfileFile, Threads, VadOption
from affekt.errors import BadAudio, BadConfig

if TYPE_CHECKING:
    from affekt.timeline.stream import Event, Stream


def listen(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="-",
            help="Read raw samples from standard input, 16-bit little-endian; default: a microphone (extra mic).",
            show_default=False,
        ),
    ] = None,
    model: Model = "default",
    rate: Annotated[int, typer.Option(metavar="HZ", help="Sample rate of the source.")] = 16_000,
    channels: Annotated[int, typer.Option(metavar="N", min=1, help="Number of channels; their mean is used.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The microphone; python -m sounddevice lists them.", show_default=False),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Divide into windows of this length, at most 8 s; default: segments of speech."
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="With --window: time from the start of a window to that of the next one; default: half of a window.",
        ),
    ] = None,
    update: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Time between the provisional results of a segment; 0 for none."),
    ] = 1.0,
    threshold: Threshold = None,
    emotions: ChosenEmotions = "",
    error_rate: ErrorRate = None,
    calibration: CalibrationFile = None,
    profile: ProfileFile = None,
    vad: VadOption = "auto",
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per event, one per line, instead of the live view.")
    ] = False,
    threads: Threads = 1,
) -> None:
    """Recognize the emotion in live speech.

    On a terminal, a live view shows the loudness, the current emotion and the last minute. Otherwise, or with --json, each
    event is printed: segments that are complete, provisional results of the segment that is not, and gaps, where audio was
    lost. Ctrl-C ends the command.

    \b
    ffmpeg -i URL -f s16le -ac 1 -ar 16000 - | affekt listen -
    """
    from affekt.cli.microphone import read_input, read_microphone
    from affekt.inference.recognizer import Recognizer
    from affekt.timeline.stream import Stream, StreamSettings
    from affekt.timeline.windows import FixedWindows

    if source not in (None, "-"):
        raise BadConfig(
            f"{source} is not a live source: expected - or nothing; for a file, use affekt recognize --timeline"
        )
    if source and device:
        raise BadConfig("--device names a microphone, but - reads standard input: use one of them")
    if hop is not None and window is None:
        raise BadConfig("--hop is for --window")
    divided: dict[str, Any] = {}
    if window is not None:
        divided = {"segmentation": FixedWindows(window, window / 2 if hop is None else hop)}
    settings = StreamSettings(sample_rate=rate, channels=channels, update=update, **divided)
    recognizer = Recognizer.load(
        model,
        threads=threads,
        profile=profile,
        threshold=threshold,
        emotions=parse_emotions(emotions),
        error_rate=error_rate,
        calibration=calibration,
        vad=vad,
    )
    stream = Stream(recognizer, settings)
    chunks: Iterable[Any] = read_input(rate, channels) if source else read_microphone(device, rate, channels)
    with contextlib.suppress(KeyboardInterrupt):
        if json or not sys.stdout.isatty():
            _print_events(stream, chunks, json=json)
        else:
            _show(stream, chunks)
        if not stream.seconds:
            raise BadAudio("no samples arrived on standard input; expected raw 16-bit samples", code="empty")


def _print_events(stream: Stream, chunks: Iterable[Any], *, json: bool) -> None:
    """Print each event on a line; also those of the last segment, if the source ends or the program is interrupted."""
    try:
        for chunk in chunks:
            for event in stream.add(chunk):
                print(_line(event, json), flush=True)
    finally:
        for event in stream.finish():
            print(_line(event, json), flush=True)


def _line(event: Event, json: bool) -> str:
    from dataclasses import asdict

    from affekt.inference.row import to_json_line

    if json:
        return to_json_line({**asdict(event), "row": event.row}).rstrip("\n")
    head = f"{event.start:8.2f} - {event.end:8.2f} s  {event.kind:<11}"
    if event.row is None:
        lost = "an unknown time" if event.seconds_lost is None else f"{event.seconds_lost:.2f} s"
        return f"{head}  {lost} of audio is missing"
    row = event.row
    if row.probabilities is None:
        return f"{head}  {row.error['message'] if row.error else row.status.replace('_', ' ')}"
    ranked = "  ".join(f"{emotion} {p:.0%}" for emotion, p in row.top(3))
    steady = row.get("steady_emotion")
    return f"{head}  {ranked}" + (f"  (steady: {steady})" if steady and steady != row.emotion else "")


def _show(stream: Stream, chunks: Iterable[Any]) -> None:
    """Show the live view until the source ends."""
    from rich.console import Console

    from affekt.cli.live_view import LiveView, loudness_samples

    with LiveView(Console()) as view:
        for chunk in chunks:
            events = stream.add(chunk)
            view.show(loudness_samples(chunk), stream.seconds, events)
        view.show(loudness_samples(b""), stream.seconds, stream.finish())
