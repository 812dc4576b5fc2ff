"""Compare a bundle's speech detector with Silero's voice activity detector, on sounds and on emotional clips.

    python benchmarks/vad.py --model BUNDLE cremad/audio esc10/audio music/audio

The recordings in each folder below AFFEKT_DATA are cut into pieces of at most 5 s. For each folder, prints the fraction of
pieces in which the bundle's detector finds no speech, that in which voice activity detection finds none
(`affekt.inference.voice_activity.has_speech`), and that in which one of the two finds none, as with `--vad on`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from affekt.audio.read import SAMPLE_RATE, find_files, is_silent, load
from affekt.bundle.folder import DEFAULT
from affekt.corpora.base import data_root
from affekt.inference.recognizer import Recognizer
from affekt.inference.voice_activity import has_speech
from affekt.tables import table

PIECE = 5 * SAMPLE_RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT, help="a bundle's folder, or the name of a shipped bundle")
    parser.add_argument("--files", type=int, default=100, help="number of files of each folder, evenly spaced")
    parser.add_argument("folders", nargs="+", help="folders below AFFEKT_DATA")
    arguments = parser.parse_args()
    recognizer, rows = Recognizer.load(arguments.model), []
    for name in arguments.folders:
        files = find_files(Path(data_root(name)))
        chosen = sorted({round(index) for index in np.linspace(0, len(files) - 1, arguments.files)})
        pieces = [piece for index in chosen for piece in cut(load(files[index]))]
        by_model = np.array([is_silent(piece) or not any(recognizer.infer(piece)) for piece in pieces])
        by_activity = np.array([not has_speech(piece) for piece in pieces])
        fractions = [by_model.mean(), by_activity.mean(), (by_model | by_activity).mean()]
        rows.append([name, str(len(pieces)), *(f"{fraction:.1%}" for fraction in fractions)])
    print(table(["folder", "recordings", recognizer.model, "voice activity", "either"], rows))


def cut(waveform: np.ndarray) -> list[np.ndarray]:
    """Cut a recording into pieces of at most `PIECE` samples; without those that are shorter than half a second."""
    pieces = np.array_split(waveform, max(1, -(-waveform.size // PIECE)))
    return [piece for piece in pieces if piece.size >= SAMPLE_RATE // 2]


if __name__ == "__main__":
    main()
