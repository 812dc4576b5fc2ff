"""Measure a bundle's UA on altered recordings: `make shifts`.

Utterances of the bundle's test subset are recognized unchanged, softer, clipped, with noise, with reverb, low-pass
filtered and through codecs; with silence and noise before, after and around them, and with pauses inside; and concatenated
to recordings of over 30 s of one emotion. Random numbers have a fixed seed. Prints Markdown tables of UA and of how many
recordings are refused because no speech is found, and writes benchmarks/results/shifts.json. With --record, the table also
becomes part of the bundle and its card.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.folder import DEFAULT, SHIFTS, Bundle, write_sums
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.evaluation.metrics import confusion, is_refused, most_probable, ua
from affekt.features.augment import add_reverb, apply_codec, apply_lowpass, make_noise, quietest_point
from affekt.inference.recognizer import Recognizer
from affekt.protocols import Split, utterance_key
from affekt.reports.card import card
from affekt.reports.shifts import UNCHANGED, largest_loss, shifts_table
from affekt.utterance import Utterance

Waveform = np.ndarray
Shift = Callable[[Waveform, np.random.Generator], Waveform]

ALTERATIONS: dict[str, Shift] = {
    UNCHANGED: lambda x, _: x,
    "40 dB softer": lambda x, _: x / 100,
    "12 dB louder, clipped": lambda x, _: np.clip(4 * x, -1, 1),
    "noise, SNR 20 dB": lambda x, generator: x + make_noise(x, 20.0, generator),
    "noise, SNR 10 dB": lambda x, generator: x + make_noise(x, 10.0, generator),
    "reverb, 0.5 s": lambda x, generator: add_reverb(x, 0.5, generator),
    "low-pass at 3.4 kHz": lambda x, _: apply_lowpass(x, 3400.0),
    "telephone: low-pass, Opus at its lowest rate": lambda x, _: apply_codec(
        apply_lowpass(x, 3400.0), ("OGG", "OPUS"), 1.0
    ),
    "MP3 at its lowest rate": lambda x, _: apply_codec(x, ("MP3", "MPEG_LAYER_III"), 1.0),
}
BACKGROUNDS = {"zeros": None, "noise of -60 dBFS": -60.0, "noise of -40 dBFS": -40.0}
"""Sounds around the speech, with their power in dB relative to full scale; None for zeros."""
PADDING = (1, 2, 5, 27)
"""Durations of what is put before and after the speech, in seconds."""
PAUSES = (1, 2)
"""Durations of pauses inside the speech, in seconds."""
LONG = 31 * SAMPLE_RATE
"""Minimum length of the recordings that are put together, in samples."""
LONG_PAUSES = (0, 1, 2)
"""Durations of pauses between the utterances of long recordings, in seconds."""
RESULTS = Path(__file__).parent / "results" / "shifts.json"


def background(seconds: float, decibels: float | None, generator: np.random.Generator) -> Waveform:
    """Return noise of a power in dBFS, or zeros for None, (samples,) at 16 kHz."""
    size = round(seconds * SAMPLE_RATE)
    return np.zeros(size) if decibels is None else 10 ** (decibels / 20) * generator.normal(size=size)


def pad(seconds: float, decibels: float | None, *, before: bool, after: bool) -> Shift:
    """Return the shift that puts silence or noise before and after the speech."""

    def shift(waveform: Waveform, generator: np.random.Generator) -> Waveform:
        first, last = (background(seconds * use, decibels, generator) for use in (before, after))
        return np.concatenate([first, waveform, last])

    return shift


def pause(seconds: float, decibels: float | None) -> Shift:
    """Return the shift that inserts a pause at the quietest point near the middle."""

    def shift(waveform: Waveform, generator: np.random.Generator) -> Waveform:
        middle = quietest_point(waveform)
        return np.concatenate([waveform[:middle], background(seconds, decibels, generator), waveform[middle:]])

    return shift


def all_shifts() -> dict[str, Shift]:
    """Return all conditions under which single utterances are recognized."""
    shifts = dict(ALTERATIONS)
    for sound, decibels in BACKGROUNDS.items():
        for seconds in PADDING:
            shifts[f"{seconds} s of {sound}, before"] = pad(seconds, decibels, before=True, after=False)
            shifts[f"{seconds} s of {sound}, after"] = pad(seconds, decibels, before=False, after=True)
            shifts[f"{seconds} s of {sound}, both"] = pad(seconds, decibels, before=True, after=True)
    for sound, decibels in BACKGROUNDS.items():
        for seconds in PAUSES:
            shifts[f"a pause of {seconds} s, {sound}"] = pause(seconds, decibels)
    return shifts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT, help="a bundle's folder, or the name of a shipped bundle")
    parser.add_argument("--clips", type=int, default=0, help="number of utterances of each corpus; 0 for all")
    parser.add_argument("--record", action="store_true", help="write the table to the bundle and its card")
    parser.add_argument("corpora", nargs="*", default=["cremad", "emodb"])
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.model)
    corpora = {name: measure(bundle, Source.parse(name), arguments.clips) for name in arguments.corpora}
    content = {"model": bundle.id, "corpora": corpora}
    text = json.dumps(content, indent=1) + "\n"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")
    if arguments.record:
        (bundle.folder / SHIFTS).write_text(text, encoding="utf-8")
        (bundle.folder / "README.md").write_text(card(Bundle.open(arguments.model)), encoding="utf-8")
        write_sums(bundle.folder)
    for key in ("UA", "refused"):
        print(f"{key} of {bundle.id} on its test subset, in percent\n\n{shifts_table(content, key)}")
    for name, entry in corpora.items():
        print(f"{name}: {largest_loss(entry['UA'])}")


def measure(bundle: Bundle, corpus: Source, clips: int) -> dict[str, Any]:
    """Return UA and the fraction of refused recordings by condition, on utterances of the bundle's test subset.

    Args:
        clips: Number of utterances, evenly spaced in the test subset; 0 for all.
    """
    test = set(Split.load(bundle.file("split.json")).subsets["test"])
    utterances = [utterance for utterance in corpus.read() if utterance_key(utterance) in test]
    if 0 < clips < len(utterances):
        utterances = [utterances[index] for index in np.linspace(0, len(utterances) - 1, clips).astype(int)]
    waveforms, recognizer = [read_waveform(utterance) for utterance in utterances], Recognizer.load(bundle.folder)
    labels = np.array([bundle.emotions.index(utterance.emotion) for utterance in utterances])
    scores: dict[str, dict[str, float]] = {"UA": {}, "refused": {}}

    def score(name: str, labels: np.ndarray, recordings: Iterator[Waveform]) -> None:
        rows = [recognizer((np.asarray(recording, np.float32), SAMPLE_RATE)).probabilities for recording in recordings]
        predictions = np.array([list(row.values()) if row else [0.0] * len(bundle.emotions) for row in rows])
        scores["UA"][name] = ua(confusion(labels, most_probable(predictions), len(bundle.emotions)))
        scores["refused"][name] = float(is_refused(predictions).mean())
        print(f"{corpus.id}, {name}: UA {scores['UA'][name]:.3f}", flush=True)

    for name, shift in all_shifts().items():
        generator = np.random.default_rng(0)
        score(name, labels, (shift(waveform, generator) for waveform in waveforms))
    groups = list(long_groups(utterances, waveforms))
    long_labels = np.array([bundle.emotions.index(utterances[group[0]].emotion) for group in groups])
    for seconds in LONG_PAUSES if groups else ():
        recordings = (join([waveforms[index] for index in group], seconds) for group in groups)
        score(f"over 30 s of one emotion, pauses of {seconds} s", long_labels, recordings)
    return {"title": corpus.title, "utterances": len(utterances), "long": len(groups), **scores}


def long_groups(utterances: Sequence[Utterance], waveforms: Sequence[Waveform]) -> Iterator[list[int]]:
    """Yield groups of utterances of one emotion that together last over 30 s, of as few speakers as possible."""
    for emotion in sorted({utterance.emotion for utterance in utterances}):
        group: list[int] = []
        indices = [index for index, utterance in enumerate(utterances) if utterance.emotion == emotion]
        for index in sorted(indices, key=lambda index: (utterances[index].speaker, index)):
            group.append(index)
            if sum(waveforms[member].size for member in group) >= LONG:
                yield group
                group = []


def join(waveforms: Sequence[Waveform], seconds: float) -> Waveform:
    """Concatenate waveforms, with a pause of zeros after each."""
    silence = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    return np.concatenate([part for waveform in waveforms for part in (waveform, silence)])


if __name__ == "__main__":
    main()
