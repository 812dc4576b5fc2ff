"""Pictures of timelines: PNG and SVG by matplotlib, and a page of HTML that plays the recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import AudioSource
from affekt.errors import BadOutput
from affekt.files import atomic_write
from affekt.reports.figures.base import GROUND, INK, QUIET, new_drawing, plain, shorten, styled
from affekt.timeline.colors import emotion_colors
from affekt.timeline.picture import (
    MAX_BANDS,
    NUM_COLUMNS,
    SUMMARIZED,
    Lane,
    highest_column,
    labels_of,
    make_lanes,
    read_peaks,
    summarize,
)
from affekt.timeline.segment import UNKNOWN
from affekt.timeline.timeline import Timeline

SUFFIXES = (".png", ".svg", ".html")
WIDTH = 12.0
"""Inches."""
MAX_TURNS = 200
"""Number of turning points of a lane up to which they are marked in a drawing; more of them would cover each other."""


def save_plot(timeline: Timeline, path: Path, source: AudioSource | None = None) -> None:
    """Write a picture of a timeline: the waveform, and below it a lane of emotions for each speaker or channel.

    Args:
        timeline: The timeline.
        path: A file ending in .png, .svg or .html. The page needs no other file, except a recording that is too long to be
            embedded, to which it refers; it plays the recording, and shows each segment with its text.
        source: The recording, for its waveform and sound; None for a picture without them.

    Raises:
        BadOutput: The suffix is another one, or the file cannot be written.
        BadAudio: The recording cannot be read.
        MissingExtra: .png and .svg need matplotlib.
    """
    path = Path(path)
    suffix = check_plot(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".html":
            from affekt.timeline.page.page import write_page

            write_page(timeline, path, source)
        else:
            drawing = draw_timeline(timeline, source)
            with atomic_write(path) as temporary:
                _save(drawing, temporary, suffix[1:])
    except OSError as error:
        raise BadOutput(f"{path} cannot be written: {error.strerror or error}") from error


def check_plot(path: Path) -> str:
    """Return the suffix of a picture's path, in lower case.

    Raises:
        BadOutput: It is that of no format.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise BadOutput(f"{path}: expected a name ending in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    return suffix


@styled
def _save(drawing: Any, path: Path, file_format: str) -> None:
    drawing.savefig(path, format=file_format, metadata={"Date": None} if file_format == "svg" else None)


@styled
def draw_timeline(timeline: Timeline, source: AudioSource | None = None) -> Any:
    """Return the drawing as a matplotlib figure; arguments and errors as for `save_plot`."""
    lanes = make_lanes(timeline)
    peaks = [] if source is None else read_peaks(timeline, lanes, source)
    is_separate = len(peaks) > 1
    heights = [0.7, 0.5] * len(lanes) if is_separate else [1.4] * len(peaks) + [0.5] * len(lanes)
    drawing = new_drawing(WIDTH, 1.5 + sum(heights) + 0.1 * len(lanes))
    axes = list(
        drawing.subplots(max(len(heights), 1), 1, sharex=True, squeeze=False, height_ratios=heights or [1])[:, 0]
    )
    axes[-1].set(xlim=(0, timeline.duration))
    for panel, values in zip(axes[: 2 * len(lanes) : 2] if is_separate else axes[: len(peaks)], peaks, strict=True):
        _draw_waveform(panel, values, timeline.duration)
    highest = highest_column(lanes, labels_of(timeline), timeline.duration)
    for panel, lane in zip(axes[1::2] if is_separate else axes[len(axes) - len(lanes) :], lanes, strict=True):
        _draw_lane(panel, lane, timeline, highest)
    for panel in axes:
        panel.set(yticks=[])
        panel.spines["left"].set_visible(False)
        panel.tick_params(bottom=panel is axes[-1])
        panel.spines["bottom"].set_visible(panel is axes[-1])
    axes[-1].xaxis.set_major_formatter(lambda seconds, _: format_time(seconds))
    axes[-1].xaxis.set_major_locator(_locator(timeline.duration))
    axes[0].set_title(plain(_title(timeline, lanes)), loc="left")
    _draw_legend(drawing, timeline, len(timeline.segments) <= MAX_BANDS and any(map(_marked_turns, lanes)))
    return drawing


def _title(timeline: Timeline, lanes: Sequence[Lane]) -> str:
    name = shorten(Path(timeline.file).name, 80)
    if len(timeline.segments) <= MAX_BANDS:
        return name
    return f"{name}: " + explain_columns(timeline, lanes)


def _draw_waveform(panel: Any, peaks: NDArray[np.float32], duration: float) -> None:
    times = (np.arange(peaks.size) + 0.5) * duration / peaks.size
    panel.fill_between(times, -peaks, peaks, color=QUIET, linewidth=0)
    panel.set(ylim=(-1.05, 1.05))


def _draw_lane(panel: Any, lane: Lane, timeline: Timeline, highest: float) -> None:
    if len(timeline.segments) > MAX_BANDS:
        _draw_fractions(panel, lane, timeline, highest)
    else:
        panel.set(ylim=(0, 1.35))
        for label in sorted(lane.labels):
            ranges = [(band.start, band.end - band.start) for band in lane.bands if band.label == label]
            panel.broken_barh(ranges, (0, 1), **_look(label, timeline))
        if times := _marked_turns(lane):
            panel.plot(times, [1.18] * len(times), "v", color=INK, markersize=4, clip_on=False)
    panel.set_ylabel(plain(shorten(lane.name, 18)), rotation=0, ha="right", va="center")


def _marked_turns(lane: Lane) -> list[float]:
    """Return the times of turning points that are marked."""
    points = lane.summary.turning_points
    return [point.time for point in points] if len(points) <= MAX_TURNS else []


def _draw_fractions(panel: Any, lane: Lane, timeline: Timeline, highest: float) -> None:
    """Draw columns whose height is the fraction of time with speech, divided by labels."""
    labels = labels_of(timeline)
    fractions = summarize(lane.bands, labels, timeline.duration)
    edges = np.linspace(0, timeline.duration, fractions.shape[1] + 1)
    bottom = np.zeros(fractions.shape[1])
    for label, heights in zip(labels, fractions, strict=True):
        panel.stairs(bottom + heights, edges, baseline=bottom, fill=True, **_look(label, timeline))
        bottom = bottom + heights
    panel.set(ylim=(0, highest))


def _look(label: str, timeline: Timeline) -> dict[str, Any]:
    """Return the style of a band; the border separates neighbors of one emotion."""
    if label == UNKNOWN and label not in timeline.emotions:
        return {"facecolor": "none", "edgecolor": QUIET, "hatch": "////", "linewidth": 0.5}
    color = emotion_colors(timeline.emotions)[label]
    return {
        "facecolor": color,
        "edgecolor": GROUND,
        "linewidth": 0.3 if len(timeline.segments) <= MAX_BANDS // 4 else 0,
    }


def _draw_legend(drawing: Any, timeline: Timeline, has_turns: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(**_look(label, timeline), label=plain(label)) for label in labels_of(timeline)]
    if has_turns:
        handles.append(Line2D([], [], marker="v", color=INK, linestyle="none", markersize=4, label="turning point"))
    if handles:
        drawing.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 9))


def _locator(duration: float) -> Any:
    from matplotlib.ticker import MultipleLocator

    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
    return MultipleLocator(next((step for step in steps if duration / step <= 12), 7 * 86400))


def explain_columns(timeline: Timeline, lanes: Sequence[Lane]) -> str:
    """Return what the columns of a long timeline show."""
    highest = highest_column(lanes, labels_of(timeline), timeline.duration)
    return SUMMARIZED.format(width=format_time(timeline.duration / NUM_COLUMNS), highest=highest)


def format_time(seconds: float) -> str:
    """Return a time as 1:02:03 or 2:03, with tenths only if there are any."""
    tenths = round(seconds * 10)
    hours, rest = divmod(tenths, 36_000)
    minutes, rest = divmod(rest, 600)
    second = f"{rest // 10:02}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02}:{second}" if hours else f"{minutes}:{second}"
