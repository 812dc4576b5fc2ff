"""The summary of a timeline: seconds of speech, emotions, turning points and talk ratios, per track and overall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from affekt.inference.row import Row
from affekt.timeline.hysteresis import Coverage


@dataclass(frozen=True)
class TurningPoint:
    """A change of the steady emotion."""

    time: float
    """The start of the first segment with the new emotion, in seconds."""
    before: str
    after: str


@dataclass(frozen=True)
class TrackSummary:
    """The summary of one track: a speaker, a channel, or the whole recording."""

    speech: float
    """Seconds of speech; what overlapping segments have in common is counted once."""
    talk_ratio: float
    """Fraction of the speech of all tracks that this track has; 0 without speech."""
    emotions: Mapping[str, float]
    """Emotion -> fraction of the speech that has an emotion, by the steady emotion; most frequent first."""
    turning_points: tuple[TurningPoint, ...]
    statuses: Mapping[str, int]
    """Status -> number of segments."""


@dataclass(frozen=True)
class Summary:
    """The summary of a timeline."""

    duration: float
    """Seconds."""
    total: TrackSummary
    """All tracks together. Its turning points are those of the tracks, by time."""
    tracks: Mapping[str, TrackSummary]
    """Name of the track (`Timeline.tracks`) -> its summary."""


def summarize(duration: float, tracks: Mapping[str, Sequence[Row]]) -> Summary:
    """Return the summary of the segments of each track, by start."""
    speech = {name: _weigh(segments) for name, segments in tracks.items()}
    total = sum(map(sum, speech.values()))
    summaries = {name: _summarize(tracks[name], speech[name], total) for name in tracks}
    every = [segment for segments in tracks.values() for segment in segments]
    points = sorted((p for s in summaries.values() for p in s.turning_points), key=lambda point: point.time)
    overall = _summarize(every, [seconds for name in tracks for seconds in speech[name]], total, points)
    # Who says nothing is no speaker: pauses between the turns of speakers are no track of the summary.
    spoken = {name: summary for name, summary in summaries.items() if name or summary.speech or len(tracks) == 1}
    return Summary(duration, overall, spoken)


def _weigh(segments: Sequence[Row]) -> list[float]:
    """Return the seconds of speech of each segment that the segments before it do not have."""
    coverage = Coverage()
    return [coverage.add(segment) * segment.get("speech", 0.0) for segment in segments]


def _summarize(
    segments: Sequence[Row], speech: Sequence[float], total: float, points: Sequence[TurningPoint] | None = None
) -> TrackSummary:
    seconds = Counter[str]()
    for segment, weight in zip(segments, speech, strict=True):
        if emotion := segment.get("steady_emotion"):
            seconds[emotion] += weight  # type: ignore[assignment]
    scored = sum(seconds.values())
    return TrackSummary(
        speech=round(sum(speech), 3),
        talk_ratio=round(sum(speech) / total, 4) if total else 0.0,
        emotions={emotion: round(weight / scored, 4) for emotion, weight in seconds.most_common() if scored},
        turning_points=tuple(_find_turning_points(segments) if points is None else points),
        statuses=dict(sorted(Counter(segment.status for segment in segments).items())),
    )


def _find_turning_points(segments: Sequence[Row]) -> list[TurningPoint]:
    points, last = list[TurningPoint](), None
    for segment in segments:
        emotion = segment.get("steady_emotion")
        if emotion and last and emotion != last:
            points.append(TurningPoint(segment.start, last, emotion))
        last = emotion or last
    return points
