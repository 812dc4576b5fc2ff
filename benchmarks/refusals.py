"""Measure which recordings a bundle refuses because they have no speech, and which it calls unlike its training data.

    python benchmarks/refusals.py --model BUNDLE --sounds music=FOLDER --record --page docs/confidence.md

Emotional speech of the bundle's test speakers should be recognized; music, environmental sounds, generated sounds and vocal
bursts should be refused. Only sounds on which the bundle's detector of speech was not trained are counted: of the folders in
its recipe, those that are held out (`affekt.workflows.train_detector`). Vocal bursts (EmoGator) are listed by category, since
laughter and screams come from a voice. Each recording is recognized with each setting of voice activity detection; those that
are called unlike the training data are counted with detection off, where all recordings get an emotion.

Prints a Markdown table and the two criteria, and writes benchmarks/results/refusals.json. With --record, the table also
becomes part of the bundle and its card; with --page, a shorter one replaces that between the markers in a page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from affekt.audio.read import SAMPLE_RATE, Waveform, find_files, load
from affekt.bundle.folder import DEFAULT, REFUSALS, Bundle, write_sums
from affekt.config import decode
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.features.augment import add_reverb, apply_codec, apply_lowpass, make_noise
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import UNFAMILIAR
from affekt.json_text import to_json
from affekt.protocols import Split, utterance_key
from affekt.reports.card import card
from affekt.reports.refusals import BURSTS, OTHER, SOUNDS, SPEECH, measured_table, merge_folders, summarize
from affekt.training.detection import DetectorConfig
from affekt.workflows.train_detector import cut_pieces, held_out_sounds

RESULTS = Path(__file__).parent / "results" / "refusals.json"
BEGIN, END = "<!-- Written by make refusals: -->", "<!-- End of what make refusals writes. -->"
MODES = ("off", "auto", "on")
CATEGORIES = {
    "02": "amusement",
    "03": "anger",
    "10": "disgust",
    "13": "elation",
    "15": "fear",
    "18": "neutral",
    "24": "sadness",
}
"""Number of a category of EmoGator -> its name, for those that common excerpts have."""
Alteration = Callable[[Waveform, np.random.Generator], Any]
ALTERATIONS: dict[str, Alteration] = {
    "telephone band, Opus at its lowest rate": lambda x, _: apply_codec(apply_lowpass(x, 3400.0), ("OGG", "OPUS"), 1.0),
    "noise, SNR 10 dB": lambda x, generator: x + make_noise(x, 10.0, generator),
    "reverb, 0.5 s": lambda x, generator: add_reverb(x, 0.5, generator),
}
Recording = tuple[str, str, Waveform]
"""Group, kind and waveform."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT, help="a bundle's folder, or the name of a shipped bundle")
    parser.add_argument("--step", type=int, default=1, help="measure every n-th recording of each kind")
    parser.add_argument(
        "--sounds", action="append", default=[], metavar="KIND=FOLDER", help="further sounds, not speech"
    )
    parser.add_argument("--record", action="store_true", help="write the table to the bundle and its card")
    parser.add_argument("--page", type=Path, help="a page with the markers of the table")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.model)
    content = {"model": bundle.id, "modes": list(MODES), "kinds": measure(bundle, arguments.sounds, arguments.step)}
    text = to_json(content, indent=1) + "\n"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")
    if arguments.record:
        (bundle.folder / REFUSALS).write_text(text, encoding="utf-8")
        (bundle.folder / "README.md").write_text(card(Bundle.open(arguments.model)), encoding="utf-8")
        write_sums(bundle.folder)
    if arguments.page:
        write_page(content, arguments.page)
    print(f"{bundle.id}\n\n{measured_table(content)}\n{summarize(content)}")


def write_page(content: dict[str, Any], path: Path) -> None:
    """Replace the text between the markers of a page by a table in which the kinds of one folder are merged."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    table = f"For {content['model']}, in percent:\n\n{measured_table(merge_folders(content))}\n{summarize(content)}"
    path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def measure(bundle: Bundle, sounds: list[str], step: int) -> list[dict[str, Any]]:
    """Return an entry for each kind of recordings: how many there are, and how many are refused in each mode."""
    recognizers = {mode: Recognizer.load(bundle.folder, vad=mode) for mode in MODES}
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    seen: dict[tuple[str, str], int] = {}
    for group, kind, waveform in recordings(bundle, sounds):
        number = seen[group, kind] = seen.get((group, kind), -1) + 1
        if number % step:
            continue
        empty = {"group": group, "kind": kind, "recordings": 0, "refused": dict.fromkeys(MODES, 0), "unlike": 0}
        entry = entries.setdefault((group, kind), empty)
        if not entry["recordings"]:
            print(f"{group}: {kind}", flush=True)
        entry["recordings"] += 1
        for mode, recognizer in recognizers.items():
            row = recognizer((np.asarray(waveform, np.float32), SAMPLE_RATE))
            entry["refused"][mode] += row.status in ("silence", "no_speech")
            entry["unlike"] += mode == "off" and UNFAMILIAR in row
    return list(entries.values())


def recordings(bundle: Bundle, sounds: list[str]) -> Iterator[Recording]:
    """Yield all recordings."""
    test = set(Split.load(bundle.file("split.json")).subsets["test"])
    for name in bundle.config["recipe"]["corpora"]:
        source = Source.parse(name if isinstance(name, str) else name["name"])
        waveforms = [read_waveform(utterance) for utterance in source.read() if utterance_key(utterance) in test]
        yield from ((SPEECH, source.title, waveform) for waveform in waveforms)
        for alteration, alter in ALTERATIONS.items():
            generator = np.random.default_rng(0)
            for waveform in waveforms[::5]:
                yield OTHER, f"{source.title}: {alteration}", alter(waveform, generator)
    config = decode(DetectorConfig, bundle.config["recipe"].get("detector") or {}, "detector")
    for kind, is_speech, piece in held_out_sounds(config):
        yield OTHER if is_speech else SOUNDS, kind, piece
    yield from ((SOUNDS, "digital silence", np.zeros(size, np.float32)) for size in range(16_000, 96_000, 8_000))
    for option in sounds:
        kind, _, folder = option.partition("=")
        for path in find_files(Path(folder)):
            yield from ((SOUNDS, kind, piece) for piece in cut_pieces(load(path)))
    for utterance in Source.parse("emogator").read():
        category = utterance.id.split("-")[1]
        yield BURSTS, f"EmoGator, {CATEGORIES.get(category, category)}", read_waveform(utterance)


if __name__ == "__main__":
    main()
