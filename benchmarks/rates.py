"""Measure the rates from which docs/scale.md is calculated: decoding, recognition, and the sizes of features and results.

    python benchmarks/rates.py    prints tables, and writes benchmarks/results/rates.json

For each format, one minute of the speech in samples/ is encoded with the format's usual sample rate and channels, and read as
the recognizer reads it: decoded, mixed to mono and resampled to 16 kHz. Times are medians of processor time with one thread.
Sizes are those of files that affekt itself writes: an array of the feature store, and a Parquet file of the rows of
recognized clips.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import soundfile
import soxr
from folder import join_samples

from affekt import Recognizer
from affekt.audio.read import SAMPLE_RATE, load
from affekt.collection.manifest import open_manifest
from affekt.collection.shards import divide
from affekt.features.store import FeatureStore
from affekt.workflows.recognize_files import recognize_files

MINUTE = 60
FORMATS = {
    "WAV, 8 kHz, mono, mu-law": ("wav", "ULAW", 8_000, 1),
    "WAV, 16 kHz, mono": ("wav", "PCM_16", 16_000, 1),
    "FLAC, 44.1 kHz, stereo": ("flac", "PCM_16", 44_100, 2),
    "MP3, 44.1 kHz, stereo": ("mp3", "MPEG_LAYER_III", 44_100, 2),
    "Ogg Opus, 48 kHz, mono": ("ogg", "OPUS", 48_000, 1),
}
"""Name -> suffix, encoding, sample rate in Hz and channels."""
DIM, FRAMES_PER_SECOND = 768, 50
"""Features of a frame, and frames per second, of one block of a speech encoder of base size."""
CLIP_SECONDS, ROWS = 3.0, 1000
MANIFEST_ROWS = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--rows", type=int, default=ROWS, help="number of clips whose rows are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, speech = Path(name), np.resize(join_samples(), MINUTE * SAMPLE_RATE).astype(np.float32)
        result = {
            "formats": measure_formats(speech, folder, arguments.runs),
            "recognition_cpu_seconds_per_second": measure_recognition(speech, arguments.runs),
            "feature_bytes_per_second": measure_features(folder),
            "row_bytes": measure_rows(speech, folder / "clips", arguments.rows),
            "manifest_seconds_per_row": measure_manifest(folder / "manifest.csv"),
        }
    show(result)
    print(f"\nwrote {harness.write('rates', result)}")


def measure_formats(speech: np.ndarray[Any, Any], folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Return bytes and CPU seconds for one second of audio in each format."""
    paths = {}
    for name, (suffix, encoding, rate, channels) in FORMATS.items():
        paths[name] = folder / f"{encoding}-{rate}.{suffix}"
        samples = soxr.resample(speech, SAMPLE_RATE, rate)
        frames = np.repeat(samples[:, None], channels, axis=1)
        with soundfile.SoundFile(paths[name], "w", rate, channels, encoding) as file:
            for start in range(0, len(frames), rate):  # libsndfile's Opus encoder overflows the stack on a whole minute
                file.write(frames[start : start + rate])
    times = harness.interleaved({name: partial(load, path) for name, path in paths.items()}, runs)
    return {
        name: {
            "bytes_per_second": paths[name].stat().st_size / MINUTE,
            "cpu_seconds_per_second": milliseconds / 1000 / MINUTE,
        }
        for name, milliseconds in times.items()
    }


def measure_recognition(speech: np.ndarray[Any, Any], runs: int) -> dict[str, float]:
    """Return CPU seconds for one second of decoded audio: in clips, and in windows of a long recording."""
    recognizer = Recognizer.load()
    clip = speech[: int(CLIP_SECONDS * SAMPLE_RATE)]
    times = harness.interleaved(
        {"clips": lambda: recognizer(clip, SAMPLE_RATE), "long recordings": lambda: recognizer(speech, SAMPLE_RATE)},
        runs,
    )
    return {"clips": times["clips"] / 1000 / CLIP_SECONDS, "long recordings": times["long recordings"] / 1000 / MINUTE}


def measure_features(folder: Path) -> float:
    """Return the bytes of one block's features for one second of audio, measured with an array of ten seconds."""
    seconds = 10
    store = FeatureStore("made", {}, folder)
    store["0" * 64] = np.zeros((FRAMES_PER_SECOND * seconds, DIM))
    return store.path("0" * 64).stat().st_size / seconds


def measure_rows(speech: np.ndarray[Any, Any], folder: Path, count: int) -> float:
    """Return the bytes of one clip's row, measured with a Parquet file of many rows."""
    folder.mkdir()
    generator, size = np.random.default_rng(0), int(CLIP_SECONDS * SAMPLE_RATE)
    for number in range(count):
        start = int(generator.integers(len(speech) - size))
        soundfile.write(folder / f"{number:06}.wav", speech[start : start + size], SAMPLE_RATE)
    output = folder.with_suffix(".parquet")
    for _ in recognize_files([folder], output=output, recognizer=Recognizer.load()):
        pass
    return output.stat().st_size / count


def measure_manifest(path: Path) -> float:
    """Return the CPU seconds in which a row of a manifest is read and put into a shard."""
    path.write_text(
        "audio\n" + "".join(f"calls/{number:09}.wav\n" for number in range(MANIFEST_ROWS)), encoding="utf-8"
    )
    start = time.process_time()
    with open_manifest(str(path)) as manifest:
        for _ in divide(manifest.clips, 1000, {}):
            pass
    return (time.process_time() - start) / MANIFEST_ROWS


def show(result: dict[str, Any]) -> None:
    print("{processor}, {cores} cores, Python {python}\n".format(**harness.machine()))
    rows = [
        [name, f"{3600 * entry['bytes_per_second'] / 1e6:.1f}", f"{3600 * entry['cpu_seconds_per_second']:.1f}"]
        for name, entry in result["formats"].items()
    ]
    harness.table(["format", "MB per hour", "CPU s to decode an hour"], rows)
    print()
    rates = result["recognition_cpu_seconds_per_second"]
    harness.table(["recognition", "CPU s per hour"], [[name, f"{3600 * rate:.1f}"] for name, rate in rates.items()])
    print(f"\nfeatures of one block: {3600 * result['feature_bytes_per_second'] / 1e6:.0f} MB per hour")
    print(f"row of a clip: {result['row_bytes']:.0f} bytes")
    print(f"row of a manifest: {1e6 * result['manifest_seconds_per_row']:.0f} CPU microseconds")


if __name__ == "__main__":
    main()
