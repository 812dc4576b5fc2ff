"""Measure a bundle's UA with noise, reverb, limited bandwidth and codecs: `make shifts`.

Every utterance of the bundle's test subset is recognized unchanged, softer, clipped, with noise, with reverb, low-pass
filtered and through codecs. Noise and reverb have a fixed seed. Prints a Markdown table of UA, and writes
benchmarks/results/shifts.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from affekt.bundle.folder import DEFAULT, Bundle
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.evaluation.metrics import confusion, ua
from affekt.features.augment import add_reverb, apply_codec, apply_lowpass, make_noise
from affekt.inference.recognizer import Recognizer
from affekt.protocols import Split, utterance_key

Shift = Callable[[np.ndarray, np.random.Generator], np.ndarray]

SHIFTS: dict[str, Shift] = {
    "unchanged": lambda x, _: x,
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
RESULTS = Path(__file__).parent / "results" / "shifts.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT, help="a bundle's folder, or the name of a shipped bundle")
    parser.add_argument("corpora", nargs="*", default=["cremad", "emodb"])
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.model)
    table = {name: scores(bundle, Source.parse(name)) for name in arguments.corpora}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"model": bundle.id, "UA": table}, indent=1) + "\n", encoding="utf-8")
    print(f"UA of {bundle.id} on its test subset, in percent\n")
    print("| audio | " + " | ".join(table) + " |\n|" + " --- |" * (len(table) + 1))
    for shift in SHIFTS:
        print(f"| {shift} | " + " | ".join(f"{100 * column[shift]:.1f}" for column in table.values()) + " |")


def scores(bundle: Bundle, corpus: Source) -> dict[str, float]:
    """Return UA by shift, on the utterances of the bundle's test subset."""
    test = set(Split.load(bundle.file("split.json")).subsets["test"])
    utterances = [utterance for utterance in corpus.read() if utterance_key(utterance) in test]
    labels = np.array([bundle.emotions.index(utterance.emotion) for utterance in utterances])
    waveforms, recognizer = [read_waveform(utterance) for utterance in utterances], Recognizer.load(bundle.folder)
    result = {}
    for name, shift in SHIFTS.items():
        generator = np.random.default_rng(0)
        shifted = (np.asarray(shift(waveform, generator), np.float32) for waveform in waveforms)
        predicted = [int(np.argmax(recognizer.infer(waveform))) for waveform in shifted]
        result[name] = ua(confusion(labels, np.array(predicted), len(bundle.emotions)))
    return result


if __name__ == "__main__":
    main()
