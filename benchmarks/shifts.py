"""What a bundle keeps of its accuracy when the line or the room changes: `make shifts`.

Every utterance of the bundle's test part is heard as it is, softer, clipped, in noise, in a room, through a telephone's band
and through codecs. The draws are seeded. Prints a Markdown table of UA, and writes benchmarks/results/shifts.json.
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
from affekt.protocols import Split, key

Shift = Callable[[np.ndarray, np.random.Generator], np.ndarray]

SHIFTS: dict[str, Shift] = {
    "as it is": lambda x, _: x,
    "40 dB softer": lambda x, _: x / 100,
    "12 dB louder, clipped": lambda x, _: np.clip(4 * x, -1, 1),
    "noise, 20 dB below": lambda x, draw: x + make_noise(x, 20.0, draw),
    "noise, 10 dB below": lambda x, draw: x + make_noise(x, 10.0, draw),
    "a room, 0.5 s": lambda x, draw: add_reverb(x, 0.5, draw),
    "band to 3.4 kHz": lambda x, _: apply_lowpass(x, 3400.0),
    "telephone: band, Opus at its lowest": lambda x, _: apply_codec(apply_lowpass(x, 3400.0), ("OGG", "OPUS"), 1.0),
    "MP3 at its lowest": lambda x, _: apply_codec(x, ("MP3", "MPEG_LAYER_III"), 1.0),
}
RESULTS = Path(__file__).parent / "results" / "shifts.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT, help="a bundle's folder, or a shipped name")
    parser.add_argument("corpora", nargs="*", default=["cremad", "emodb"])
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.model)
    table = {name: scores(bundle, Source.parse(name)) for name in arguments.corpora}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"model": bundle.id, "UA": table}, indent=1) + "\n", encoding="utf-8")
    print(f"UA of {bundle.id} on its test part, in percent\n")
    print("| heard | " + " | ".join(table) + " |\n|" + " --- |" * (len(table) + 1))
    for shift in SHIFTS:
        print(f"| {shift} | " + " | ".join(f"{100 * column[shift]:.1f}" for column in table.values()) + " |")


def scores(bundle: Bundle, corpus: Source) -> dict[str, float]:
    """UA by shift, on the utterances of the bundle's test part."""
    test = set(Split.load(bundle.file("split.json")).subsets["test"])
    heard = [one for one in corpus.read() if key(one) in test]
    truth = np.array([bundle.emotions.index(one.emotion) for one in heard])
    sounds, recognizer = [read_waveform(one) for one in heard], Recognizer.load(bundle.folder)
    result = {}
    for name, shift in SHIFTS.items():
        draw = np.random.default_rng(0)
        answers = [int(np.argmax(recognizer.infer(np.asarray(shift(sound, draw), np.float32)))) for sound in sounds]
        result[name] = ua(confusion(truth, np.array(answers), len(bundle.emotions)))
    return result


if __name__ == "__main__":
    main()
