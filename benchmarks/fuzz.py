"""Decode damaged files, and count the errors that are not ours, the hangs and the crashes; all three must be 0.

    make fuzz                                           20,000 files, a few minutes
    python benchmarks/fuzz.py [--seed N] [--mutants N] [--keep FOLDER]

A mutant is a small file of one of the formats in SEEDS, damaged in one to three ways (MUTATIONS). Its number and the seed
determine it. Files are decoded as `affekt recognize` decodes them, half of them with --lenient, without the model. The
decoding is in a worker process, so that a crash is counted and the next mutants are decoded by a new worker. With --keep,
the mutants with findings are written to a folder, and so are those with our error "undecodable", which means that a decoder
failed in an undocumented way.
"""

from __future__ import annotations

import argparse
import collections
import functools
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from affekt.audio.decoder_messages import separate_streams
from affekt.audio.read import describe_error
from affekt.audio.time_limit import limited_blocks
from affekt.errors import AffektError

SECONDS = 0.6
"""Duration of the undamaged files."""
LIMIT = 10.0
"""Seconds after which a mutant counts as a hang. A good file takes milliseconds."""
KILL_AFTER = 60.0
"""Seconds without progress after which a worker is killed: it hangs in a way that not even the time limit ends."""
MAX_MEMORY = 4 << 30
"""Bytes of address space beyond which a worker's allocations fail."""

SOUNDFILE_SEEDS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "adpcm.wav": ("WAV", "MS_ADPCM"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "alac.caf": ("CAF", "ALAC_16"),
    "w64": ("W64", "PCM_16"),
}
"""Suffix -> format and encoding of libsndfile."""
MEDIA_SEEDS = {
    "m4a": ("ipod", "aac"),
    "mp4": ("mp4", "aac"),
    "mka": ("matroska", "aac"),
    "webm": ("webm", "libopus"),
    "3gp": ("3gp", "aac"),
    "wma": ("asf", "wmav2"),
    "avi": ("avi", "aac"),
    "aac": ("adts", "aac"),
    "flv": ("flv", "aac"),
}
"""Suffix -> container and codec of ffmpeg."""
SEEDS = [*SOUNDFILE_SEEDS, *MEDIA_SEEDS]


@functools.cache
def seed_file(suffix: str) -> bytes:
    """Return a good file of a format, with tags."""
    generator = np.random.default_rng(0)
    rate = 44_100 if suffix in MEDIA_SEEDS else 16_000
    rate = 48_000 if suffix == "webm" else rate
    samples = (0.3 * generator.standard_normal(round(SECONDS * rate)).clip(-3, 3)).astype(np.float32)
    return _encode_media(suffix, samples, rate) if suffix in MEDIA_SEEDS else _encode_sound(suffix, samples, rate)


def _encode_sound(suffix: str, samples: np.ndarray, rate: int) -> bytes:
    container, encoding = SOUNDFILE_SEEDS[suffix]
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", rate, 1, format=container, subtype=encoding) as file:
        if container not in ("W64",):
            file.title = "ä title"
        file.write(samples)
    return stream.getvalue()


def _encode_media(suffix: str, samples: np.ndarray, rate: int) -> bytes:
    container, codec = MEDIA_SEEDS[suffix]
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        file.metadata["title"] = "ä title"
        track: Any = file.add_stream(codec, rate=rate, layout="mono")
        track.bit_rate = 64_000
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[np.newaxis, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return stream.getvalue()


Mutation = Callable[[bytearray, np.random.Generator], bytearray]


def truncate(data: bytearray, generator: np.random.Generator) -> bytearray:
    """Cut the file off at a random position."""
    return data[: generator.integers(1, len(data) + 1)]


def flip_bits(data: bytearray, generator: np.random.Generator) -> bytearray:
    """Invert a bit in up to 32 random bytes."""
    for position in generator.integers(0, len(data), generator.integers(1, 33)):
        data[position] ^= 1 << int(generator.integers(8))
    return data


def randomize_bytes(data: bytearray, generator: np.random.Generator) -> bytearray:
    """Replace up to 64 consecutive bytes, from a random position, by random ones."""
    start = int(generator.integers(len(data)))
    count = min(len(data) - start, int(generator.integers(1, 65)))
    data[start : start + count] = generator.bytes(count)
    return data


def randomize_head(data: bytearray, generator: np.random.Generator) -> bytearray:
    """Replace bytes among the first few hundred, where most of a header is."""
    end = min(len(data), 512)
    for position in generator.integers(0, end, generator.integers(1, 17)):
        data[position] = int(generator.integers(256))
    return data


def change_size(data: bytearray, generator: np.random.Generator) -> bytearray:
    """Write an extreme number of 16, 32 or 64 bits over a field, preferably in the header."""
    width = int(generator.choice([2, 4, 8]))
    end = max(1, min(len(data), 1024 if generator.random() < 0.7 else len(data)) - width)
    start = int(generator.integers(end))
    values = [0, 1, 2, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1, (1 << 8 * width) - 1, len(data), 2 * len(data)]
    value = values[int(generator.integers(len(values)))] % (1 << 8 * width)
    order = "big" if generator.random() < 0.5 else "little"
    data[start : start + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
    return data


def splice(data: bytearray, generator: np.random.Generator) -> bytearray:
    """Insert a block of the same file, or of another seed, or remove one."""
    source = data if generator.random() < 0.6 else bytearray(seed_file(SEEDS[int(generator.integers(len(SEEDS)))]))
    start, position = int(generator.integers(len(source))), int(generator.integers(len(data)))
    block = source[start : start + int(generator.integers(1, 4097))]
    match int(generator.integers(3)):
        case 0:
            return data[:position] + block + data[position:]
        case 1:
            return data[:position] + block + data[position + len(block) :]
        case _:
            return data[:position] + data[position + len(block) :]


MUTATIONS: tuple[Mutation, ...] = (truncate, flip_bits, randomize_bytes, randomize_head, change_size, splice)


def mutant(seed: int, number: int) -> tuple[str, bytes]:
    """Return the suffix and the content of a mutant. Consecutive numbers go through the formats."""
    generator = np.random.default_rng((seed, number))
    suffix = SEEDS[number % len(SEEDS)]
    data = bytearray(seed_file(suffix))
    for index in generator.integers(len(MUTATIONS), size=generator.integers(1, 4)):
        data = MUTATIONS[index](data, generator) or bytearray(b"\x00")
    return suffix, bytes(data)


class NamedStream(io.BytesIO):
    """A file in memory whose name has a suffix, by which formats are recognized too."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def decode(suffix: str, data: bytes, *, lenient: bool = False) -> str:
    """Return the outcome of a mutant: "ok", the code of an error of ours, or "escaped" with the error."""
    try:
        for _ in limited_blocks(NamedStream(data, f"mutant.{suffix}"), timeout=LIMIT, lenient=lenient):
            pass
    except AffektError as error:
        return f"{error.code} {describe_error(error)}" if error.code == "undecodable" else error.code
    except Exception as error:
        return f"escaped {describe_error(error)}"
    return "ok"


def work(seed: int, start: int, stop: int) -> None:
    """Decode mutants and print a line before and after each: the main function of a worker."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    separate_streams()
    for number in range(start, stop):
        print(json.dumps({"started": number}), flush=True)
        suffix, data = mutant(seed, number)
        before = time.monotonic()
        lenient = number // len(SEEDS) % 2 == 1  # which gets past the first error
        outcome = decode(suffix, data, lenient=lenient)
        print(json.dumps({"outcome": outcome, "seconds": round(time.monotonic() - before, 3)}), flush=True)
    os._exit(0)  # a decoder that hangs does not let the interpreter end


def run_worker(seed: int, start: int, stop: int) -> tuple[dict[int, tuple[str, float]], int, str]:
    """Run a worker; return the outcomes, the number of the last mutant it started, and why it ended early."""
    outcomes: dict[int, tuple[str, float]] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        command = [sys.executable, __file__, "--worker", str(start), str(stop), "--seed", str(seed)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        size, changed = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(0.05)
            if (now := os.fstat(output.fileno()).st_size) != size:
                size, changed = now, time.monotonic()
            elif time.monotonic() - changed > KILL_AFTER:
                process.kill()
                process.wait()
        output.seek(0)
        started = start
        for line in output:
            message = json.loads(line)
            if "started" in message:
                started = message["started"]
            else:
                outcomes[started] = message["outcome"], message["seconds"]
    code = process.returncode
    ended = "" if code == 0 else "hang killed" if code == -9 else f"crash status {code}"
    return outcomes, started, ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--keep", type=Path, help="folder for the mutants with findings")
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.seed, *options.worker)
    outcomes: dict[int, tuple[str, float]] = {}
    start = 0
    while start < options.mutants:
        new, last, ended = run_worker(options.seed, start, min(start + 1000, options.mutants))
        if ended:
            new[last] = ended, 0.0
        outcomes |= new
        start = last + 1
        print(f"\r{start} of {options.mutants}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    findings = report(outcomes, options.seed, options.keep)
    sys.exit(1 if findings else 0)


def report(outcomes: dict[int, tuple[str, float]], seed: int, folder: Path | None) -> int:
    """Print the outcomes by format; return the number of escaped errors, hangs and crashes."""
    kinds = sorted({outcome.split()[0] for outcome, _ in outcomes.values()})
    counts: dict[str, collections.Counter[str]] = {suffix: collections.Counter() for suffix in SEEDS}
    for number, (outcome, _) in outcomes.items():
        counts[SEEDS[number % len(SEEDS)]][outcome.split()[0]] += 1
    width = max(map(len, (*kinds, *SEEDS))) + 1
    print(f"seed {seed}: {len(outcomes)} mutants, the slowest {max(seconds for _, seconds in outcomes.values()):.2f} s")
    print("".join(f"{name:>{width}}" for name in ("format", *kinds)))
    for suffix in SEEDS:
        print(f"{suffix:>{width}}" + "".join(f"{counts[suffix][kind]:>{width}}" for kind in kinds))
    total = sum(counts.values(), collections.Counter[str]())
    print(f"{'all':>{width}}" + "".join(f"{total[kind]:>{width}}" for kind in kinds))
    bad = {"escaped", "timeout", "crash", "hang"}
    for number, (outcome, _) in outcomes.items():
        if outcome.split()[0] in bad | {"undecodable"}:
            print(f"{number:>6} {SEEDS[number % len(SEEDS)]:<10} {outcome}")
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                suffix, data = mutant(seed, number)
                (folder / f"{number}.{suffix}").write_bytes(data)
    findings = sum(total[kind] for kind in bad)
    print(f"{findings} findings (errors that are not ours, hangs and crashes)")
    return findings


if __name__ == "__main__":
    main()
