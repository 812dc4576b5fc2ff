"""Timelines made for tests."""

from affekt.inference.row import make_row
from affekt.timeline.timeline import Timeline

EMOTIONS = ("angry", "happy", "neutral")
MODEL = "default@01234567"


def make_segment(start, end, emotion=None, *, probability=0.8, threshold=None, **fields):
    """Return a segment: without an emotion, one without speech."""
    rest = (1 - probability) / (len(EMOTIONS) - 1)
    row = make_row(
        "calls/my call.wav",
        MODEL,
        start=start,
        end=end,
        probabilities={name: probability if name == emotion else rest for name in EMOTIONS} if emotion else None,
        status_without_emotion="no_speech",
        applied={"decision": {"threshold": threshold}} if threshold else None,
    )
    row["speech"] = row.duration if emotion else 0.0
    row.update({"steady_emotion": emotion} if row.status == "ok" else {})
    row.update(fields)
    return row


def make_timeline(segments, duration=10.0):
    return Timeline("calls/my call.wav", duration, MODEL, EMOTIONS, "sentences of talk.srt", tuple(segments))


TRICKY = 'so "good" & <b>bold</b> --> 100 %, naïve\N{EN DASH}\N{GRINNING FACE}; ok? $5'
WORDS = [{"start": 0.5, "end": 1.0, "text": "so"}]


def call():
    """Return the timeline of a call of two speakers, who overlap, with a pause and an uncertain segment."""
    return make_timeline(
        [
            make_segment(0.5, 2.25, "happy", speaker="Anna Lee", text=TRICKY, words=WORDS),
            make_segment(2.0, 3.5, "angry", speaker="Bob", text="No."),
            make_segment(2.25, 4.0, "neutral", speaker="Anna Lee", steady_emotion="happy"),
            make_segment(4.0, 6.0),
            make_segment(6.0, 7.5, "angry", speaker="Bob", threshold=0.9, text="Well,\nwell.\t"),
        ]
    )
