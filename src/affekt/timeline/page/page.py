"""Write the page of a timeline: the waveform, lanes of emotions, the sound, and a list of the segments with their
texts."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import AudioSource
from affekt.files import atomic_write_text
from affekt.inference.row import Row
from affekt.json_text import to_json
from affekt.plural import quantity
from affekt.reports.page.render import style
from affekt.storage import is_url
from affekt.timeline.colors import emotion_colors
from affekt.timeline.page.sound import Sound
from affekt.timeline.picture import (
    MAX_BANDS,
    NUM_COLUMNS,
    Lane,
    highest_column,
    labels_of,
    make_lanes,
    read_peaks,
    summarize,
)
from affekt.timeline.plot import explain_columns, format_time
from affekt.timeline.segment import UNKNOWN, label_of, shown_tracks, text_of
from affekt.timeline.timeline import Timeline

PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
BLACK_ON = 0.18
"""Relative luminance of a color above which black text on it has more contrast than white."""


def write_page(timeline: Timeline, path: Path, source: AudioSource | None) -> None:
    """Write the page; arguments and errors as for `affekt.timeline.plot.save_plot`."""
    lanes, labels = make_lanes(timeline), labels_of(timeline)
    peaks, url = _read(timeline, lanes, path, source)
    name = Path(timeline.file).name
    contents = {
        "title": html.escape(name),
        "style": style() + _read_file("style.css") + _label_styles(timeline, labels),
        "facts": html.escape(_facts(timeline)),
        "summary": _summary(lanes, labels),
        "legend": _legend(lanes, labels),
        "player": _player(url, source),
        "waveform": _waveform(peaks[0]) if len(peaks) == 1 else "",
        "lanes": _lanes(lanes, timeline, labels, peaks if len(peaks) > 1 else []),
        "note": html.escape(_note(timeline, lanes)),
        "data": _data(timeline, lanes, labels),
        "script": _read_file("script.js"),
    }
    template = _read_file("page.html")
    atomic_write_text(path, PLACEHOLDER.sub(lambda match: contents[match[1]], template))


def _read_file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _read(
    timeline: Timeline, lanes: Sequence[Lane], path: Path, source: AudioSource | None
) -> tuple[list[NDArray[np.float32]], str | None]:
    """Return the envelopes of the waveform and the URL of the sound, in one pass over the recording."""
    if source is None:
        return [], None
    sound = Sound(timeline.duration)
    peaks = read_peaks(timeline, lanes, source, sound.write)
    return peaks, sound.url() or _reference(source, path)


def _reference(source: AudioSource, path: Path) -> str | None:
    """Return the URL of a recording relative to the page's folder; None if it is no file."""
    if not isinstance(source, str | PathLike) or source == "-":
        return None
    name = os.fspath(source)
    if is_url(name):
        return name
    try:
        relative = os.path.relpath(name, path.parent)
    except ValueError:  # another drive
        return Path(name).absolute().as_uri()
    return quote(Path(relative).as_posix())


def _facts(timeline: Timeline) -> str:
    number = quantity(len(timeline.segments), "segment")
    facts = (format_time(timeline.duration), f"{number}: {timeline.segmentation}", timeline.model)
    return " \N{MIDDLE DOT} ".join(facts)


def _note(timeline: Timeline, lanes: Sequence[Lane]) -> str:
    if len(timeline.segments) <= MAX_BANDS:
        return ""
    pale = ", its pale top unknown emotions" if any(UNKNOWN in lane.labels for lane in lanes) else ""
    return f"Zoomed out, {explain_columns(timeline, lanes)}{pale}. Zoom in to see single segments."


def _label_styles(timeline: Timeline, labels: Sequence[str]) -> str:
    colors = emotion_colors(timeline.emotions)
    rules = []
    for index, label in enumerate(labels):
        if label in colors:
            ink = "#000" if _luminance(colors[label]) > BLACK_ON else "#fff"
            rules.append(f".e{index} {{ background: {colors[label]}; fill: {colors[label]}; color: {ink}; }}")
    return "\n".join(rules)


def _luminance(color: str) -> float:
    """Return the relative luminance of a color, as the Web Content Accessibility Guidelines define it."""
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _css(labels: Sequence[str], label: str) -> str:
    return f"e{labels.index(label)}" + (" unknown" if label == UNKNOWN else "")


def _legend(lanes: Sequence[Lane], labels: Sequence[str]) -> str:
    keys = [
        f'<span class="key"><span class="swatch {_css(labels, label)}"></span>{html.escape(label)}</span>'
        for label in labels
    ]
    if any(lane.summary.turning_points for lane in lanes):
        keys.append(
            '<span class="key"><span class="mark">\N{BLACK DOWN-POINTING SMALL TRIANGLE}</span>turning point</span>'
        )
    return "".join(keys)


def _summary(lanes: Sequence[Lane], labels: Sequence[str]) -> str:
    """Return a bar per lane: the fractions of its speech that emotions have."""
    return "".join(_fractions(lane, labels, len(lanes)) for lane in lanes if lane.summary.speech)


def _fractions(lane: Lane, labels: Sequence[str], num_lanes: int) -> str:
    summary = lane.summary
    parts = "".join(
        f'<i class="{_css(labels, label)}" style="flex-grow:{summary.emotions[label]:.4f}"></i>'
        for label in labels
        if label in summary.emotions
    )
    speech = f"{format_time(round(summary.speech))} of speech" + (
        f" ({summary.talk_ratio:.0%})" if num_lanes > 1 else ""
    )
    words = [f"{label} {fraction:.0%}" for label, fraction in summary.emotions.items()]
    if unknown := summary.statuses.get(UNKNOWN):
        words.append(f"{quantity(unknown, 'segment')} unknown")
    name, text = html.escape(lane.name or "Speech"), html.escape(f"{speech}: {', '.join(words)}")
    return (
        f'<div class="share"><b>{name}</b><span class="bar" aria-hidden="true">{parts}</span>'
        f'<span class="small">{text}</span></div>'
    )


def _player(url: str | None, source: AudioSource | None) -> str:
    if url is not None:
        return f'<audio id="audio" controls preload="metadata" src="{html.escape(url)}"></audio>'
    reason = (
        "the recording is too long to be part of the page"
        if source is not None
        else "it was made without the recording"
    )
    return f'<p class="small">No sound: {reason}.</p>'


def _waveform(peaks: NDArray[np.float32]) -> str:
    heights = np.round(peaks * 100).astype(int).tolist()
    upper = " ".join(f"{x},{100 - height}" for x, height in enumerate(heights))
    lower = " ".join(f"{x},{100 + height}" for x, height in reversed(list(enumerate(heights))))
    return (
        f'<svg class="wave" viewBox="0 0 {len(heights) - 1} 200" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon points="{upper} {lower}"/></svg>'
    )


def _lanes(
    lanes: Sequence[Lane], timeline: Timeline, labels: Sequence[str], peaks: Sequence[NDArray[np.float32]]
) -> str:
    """Return the lanes, each below the waveform of its channel if there are several."""
    highest = highest_column(lanes, labels, timeline.duration)
    is_long = len(timeline.segments) > MAX_BANDS
    parts = []
    for index, lane in enumerate(lanes):
        if lane.name:
            parts.append(f'<div class="name">{html.escape(lane.name)}</div>')
        if peaks:
            parts.append(f'<div class="part">{_waveform(peaks[index])}</div>')
        bands = _columns(lane, timeline, labels, highest) if is_long else _bands(lane, timeline, labels)
        parts.append(f'<div class="lane" data-track="{index}">{bands}{_turns(lane, timeline, is_long)}</div>')
    return "".join(parts)


def _bands(lane: Lane, timeline: Timeline, labels: Sequence[str]) -> str:
    return "".join(
        f'<i class="band {_css(labels, band.label)}" style="left:{_percent(band.start, timeline)};'
        f'width:{_percent(band.end - band.start, timeline)}"><span>{html.escape(band.label)}</span></i>'
        for band in lane.bands
    )


def _turns(lane: Lane, timeline: Timeline, is_long: bool) -> str:
    """Return the marks of turning points; in a long timeline, the list names them."""
    if is_long:
        return ""
    return "".join(
        f'<i class="turn" style="left:{_percent(point.time, timeline)}" title="{format_time(point.time)}: '
        f'{html.escape(point.before)} \N{RIGHTWARDS ARROW} {html.escape(point.after)}"></i>'
        for point in lane.summary.turning_points
    )


def _columns(lane: Lane, timeline: Timeline, labels: Sequence[str], highest: float) -> str:
    """Return a path for each label: rectangles over the columns, stacked."""
    heights = np.round(1000 / highest * np.cumsum(summarize(lane.bands, labels, timeline.duration), axis=0)).astype(int)
    paths, bottom = [], np.zeros(NUM_COLUMNS, int)
    for label, top in zip(labels, heights, strict=True):
        steps = "".join(
            f"M{x} {1000 - top[x]}h1v{top[x] - bottom[x]}h-1z" for x in np.flatnonzero(top > bottom).tolist()
        )
        paths.append(f'<path class="{_css(labels, label)}" d="{steps}"/>')
        bottom = top
    return f'<svg class="columns" viewBox="0 0 {NUM_COLUMNS} 1000" preserveAspectRatio="none">{"".join(paths)}</svg>'


def _percent(seconds: float, timeline: Timeline) -> str:
    return f"{100 * seconds / timeline.duration:.4f}%"


def _data(timeline: Timeline, lanes: Sequence[Lane], labels: Sequence[str]) -> str:
    """Return the data of the page's script as JSON that cannot end the script element."""
    track_of = {id(segment): name for name, track in shown_tracks(timeline).items() for segment in track}
    names = [lane.name for lane in lanes]
    turns = {(lane.name, point.time): point.before for lane in lanes for point in lane.summary.turning_points}
    segments = []
    for segment in timeline.segments:
        if label_of(segment) or text_of(segment) or segment.error:
            track = track_of.get(id(segment))
            index = -1 if track is None else names.index(track)
            segments.append(_segment_data(segment, index, labels, turns.get((track or "", segment.start), "")))
    content: Mapping[str, Any] = {
        "duration": timeline.duration,
        "labels": labels,
        "tracks": names,
        "summarized": len(timeline.segments) > MAX_BANDS,
        "segments": segments,
    }
    text = to_json(content, ascii_only=False).replace("<", "\\u003c")
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _segment_data(segment: Row, track: int, labels: Sequence[str], before: str) -> list[Any]:
    """Return a segment as the script reads it; `before` is the emotion before a turning point, "" elsewhere."""
    label, probabilities = label_of(segment), segment.probabilities or {}
    own = max(probabilities, key=lambda emotion: probabilities[emotion], default="")
    return [
        round(segment.start, 2),
        round(segment.end, 2),
        track,
        labels.index(label) if label else -1,
        round(100 * probabilities.get(own, 0)),
        f"not recognized: {segment.error['message']}" if segment.error else text_of(segment),
        before,
        "" if own == label else own,
    ]
