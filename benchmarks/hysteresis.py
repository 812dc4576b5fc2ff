"""Choose the settings of the steady emotion on recordings whose emotion changes at known times.

    python benchmarks/hysteresis.py

Needs AFFEKT_DATA. The clips of each of CREMA-D's actors whose number ends in 2 or 6, who belong to the validation
subset of the shipped model, are joined to one recording: runs of 3 to 6 clips of one emotion, with pauses of 0.2 to 1
s. Its timeline is made once; then the steady emotion is computed with several settings. Prints, for each setting: the
fraction of the segments with the right emotion, the mean over emotions of that fraction (UA), the number of changes
per minute, the fraction of the true changes that are noticed before the next one, and the median of the seconds from
these changes to the end of the first segment with the new emotion.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import table, write

from affekt.audio.read import SAMPLE_RATE, Waveform, find_files, load
from affekt.corpora.base import data_root
from affekt.features.augment import apply_lowpass, make_noise
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row
from affekt.timeline.hysteresis import Hysteresis, SteadyEmotion

EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SECONDS = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0)
MARGINS = (0.0, 0.05, 0.1, 0.2)
RUN = (3, 6)
"""Minimum and maximum number of clips of one emotion in a row."""
NOISE = 3e-4
"""Standard deviation of the noise in pauses."""


@dataclass(frozen=True)
class Recording:
    """A joined recording: its segments, and the emotion of each."""

    segments: Sequence[Row]
    truth: Sequence[str]
    changes: Sequence[float]
    """Seconds at which the emotion changes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="a bundle's folder, or the name of a shipped bundle")
    parser.add_argument("--telephone", action="store_true", help="low-pass at 3.4 kHz, and noise at an SNR of 10 dB")
    arguments = parser.parse_args()
    recognizer, actors = Recognizer.load(arguments.model), dict[str, list[Path]]()
    for file in find_files(Path(data_root("cremad")) / "audio"):
        if (actor := file.name[:4])[-1] in "26":
            actors.setdefault(actor, []).append(file)
    recordings = [
        make_recording(recognizer, files, int(actor), arguments.telephone) for actor, files in sorted(actors.items())
    ]
    minutes = sum(recording.segments[-1].end for recording in recordings) / 60
    rows = [["none", *score(recordings, None)]]
    for seconds, margin in itertools.product(SECONDS, MARGINS):
        rows.append([f"{seconds:g} s, {margin:g}", *score(recordings, Hysteresis(seconds, margin))])
    true_rate = sum(len(recording.changes) for recording in recordings) / minutes
    print(
        f"{len(recordings)} recordings, {minutes:.1f} minutes, {true_rate:.1f} changes per minute, {recognizer.model}\n"
    )
    columns = ["seconds, margin", "right", "UA", "changes per minute", "noticed", "delay, s"]
    table(columns, rows)
    write(
        "hysteresis-telephone" if arguments.telephone else "hysteresis",
        {"model": recognizer.model, "true_changes_per_minute": true_rate, "columns": columns, "rows": rows},
    )


def make_recording(recognizer: Recognizer, files: Sequence[Path], seed: int, telephone: bool) -> Recording:
    """Return the joined recording of one actor's clips."""
    rng = np.random.default_rng(seed)
    parts, spans, position = list[Waveform](), list[tuple[float, float, str]](), 0
    for file in order(files, rng):
        pause = (NOISE * rng.standard_normal(int(rng.uniform(0.2, 1.0) * SAMPLE_RATE))).astype(np.float32)
        clip = load(file)
        if telephone:
            clip = add_noise(apply_lowpass(clip, 3400.0), rng)
        spans.append((position / SAMPLE_RATE, (position + clip.size) / SAMPLE_RATE, emotion_of(file)))
        parts += [clip, pause]
        position += clip.size + pause.size
    timeline = recognizer.timeline((np.concatenate(parts), SAMPLE_RATE))
    segments = [segment for segment in timeline.segments if segment.status == "ok"]
    truth = [max(spans, key=lambda span: min(span[1], s.end) - max(span[0], s.start))[2] for s in segments]
    changes = [after[0] for before, after in itertools.pairwise(spans) if before[2] != after[2]]
    return Recording(segments, truth, changes)


def add_noise(clip: Waveform, rng: np.random.Generator) -> Waveform:
    noisy: Waveform = (clip + make_noise(clip, 10.0, rng)).astype(np.float32)
    return noisy


def order(files: Sequence[Path], rng: np.random.Generator) -> list[Path]:
    """Return the clips in runs of one emotion, each clip once."""
    by_emotion: dict[str, list[Path]] = {}
    for index in rng.permutation(len(files)):
        by_emotion.setdefault(emotion_of(files[index]), []).append(files[index])
    ordered, last = list[Path](), ""
    while by_emotion:
        emotion = str(rng.choice([name for name in by_emotion if name != last] or list(by_emotion)))
        count = int(rng.integers(RUN[0], RUN[1] + 1))
        ordered += by_emotion[emotion][:count]
        if not (rest := by_emotion.pop(emotion)[count:]):
            last = emotion
            continue
        by_emotion[emotion], last = rest, emotion
    return ordered


def emotion_of(file: Path) -> str:
    return EMOTIONS[file.stem.split("_")[2]]


def score(recordings: Sequence[Recording], settings: Hysteresis | None) -> list[str]:
    """Return the scores of the emotions by one setting; None for those of the segments themselves."""
    pairs, changes, delays, seconds, total = list[tuple[str, str]](), 0, list[float](), 0.0, 0
    for recording in recordings:
        if settings is None:
            emotions = [str(segment.emotion) for segment in recording.segments]
        else:
            steady = SteadyEmotion(settings)
            emotions = [str(steady.add(segment)) for segment in recording.segments]
        pairs += zip(recording.truth, emotions, strict=True)
        changes += sum(a != b for a, b in itertools.pairwise(emotions))
        seconds += recording.segments[-1].end
        delays += find_delays(recording, emotions)
        total += len(recording.changes)
    right = np.mean([truth == emotion for truth, emotion in pairs])
    recalls = [np.mean([e == emotion for t, e in pairs if t == emotion]) for emotion in sorted(set(EMOTIONS.values()))]
    return [
        f"{right:.1%}",
        f"{np.mean(recalls):.1%}",
        f"{60 * changes / seconds:.1f}",
        f"{len(delays) / total:.0%}",
        f"{statistics.median(delays):.1f}",
    ]


def find_delays(recording: Recording, emotions: Sequence[str]) -> list[float]:
    """Return the seconds from each change to the end of the first segment with the new emotion, if there is one."""
    delays = []
    for start, end in itertools.pairwise([*recording.changes, recording.segments[-1].end]):
        for segment, truth, emotion in zip(recording.segments, recording.truth, emotions, strict=True):
            if start - 0.5 <= segment.start < end - 0.5 and emotion == truth:
                delays.append(segment.end - start)
                break
    return delays


if __name__ == "__main__":
    main()
