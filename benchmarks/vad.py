"""Compare a bundle's speech detector with Silero's voice activity detector, on sounds and on emotional clips.

    python benchmarks/vad.py silero_vad_16k_op15.onnx --model BUNDLE cremad/audio esc10/audio music/audio

The recordings in each folder below AFFEKT_DATA are cut into pieces of at most 5 s. For each folder, prints the fraction of
pieces in which the bundle finds no speech, and that in which Silero finds none: no frame of 32 ms has a probability of speech
of at least 0.5.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

from affekt.audio.read import SAMPLE_RATE, find_files, is_silent, load
from affekt.bundle.folder import DEFAULT
from affekt.corpora.base import data_root
from affekt.inference.recognizer import Recognizer
from affekt.tables import table

FRAME, CONTEXT = 512, 64
"""Samples of one of Silero's frames, and of the end of the frame before it, which is part of its input."""
PIECE = 5 * SAMPLE_RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("silero", type=Path, help="Silero VAD 6 for 16 kHz, as ONNX")
    parser.add_argument("--model", default=DEFAULT, help="a bundle's folder, or the name of a shipped bundle")
    parser.add_argument("--files", type=int, default=100, help="number of files of each folder, evenly spaced")
    parser.add_argument("folders", nargs="+", help="folders below AFFEKT_DATA")
    arguments = parser.parse_args()
    recognizer, silero = Recognizer.load(arguments.model), onnxruntime.InferenceSession(arguments.silero)
    rows = []
    for name in arguments.folders:
        files = find_files(Path(data_root(name)))
        chosen = sorted({round(index) for index in np.linspace(0, len(files) - 1, arguments.files)})
        pieces = [piece for index in chosen for piece in cut(load(files[index]))]
        by_model = np.mean([is_silent(piece) or not any(recognizer.infer(piece)) for piece in pieces])
        by_silero = np.mean([silero_probability(silero, piece) < 0.5 for piece in pieces])
        rows.append([name, str(len(pieces)), f"{by_model:.1%}", f"{by_silero:.1%}"])
    print(table(["folder", "recordings", recognizer.model, "Silero"], rows))


def cut(waveform: np.ndarray) -> list[np.ndarray]:
    """Cut a recording into pieces of at most `PIECE` samples; without those that are shorter than half a second."""
    pieces = np.array_split(waveform, max(1, -(-waveform.size // PIECE)))
    return [piece for piece in pieces if piece.size >= SAMPLE_RATE // 2]


def silero_probability(session: onnxruntime.InferenceSession, waveform: np.ndarray) -> float:
    """Return the largest probability of speech of a recording's frames."""
    state, context, largest = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32), 0.0
    for start in range(0, waveform.size - FRAME + 1, FRAME):
        frame = np.concatenate([context, waveform[start : start + FRAME]]).astype(np.float32)
        output, state = session.run(None, {"input": frame[None], "state": state, "sr": np.array(SAMPLE_RATE, np.int64)})
        context, largest = frame[-CONTEXT:], max(largest, float(output[0, 0]))
    return largest


if __name__ == "__main__":
    main()
