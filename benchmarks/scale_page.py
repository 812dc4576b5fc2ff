"""Write docs/scale.md, on the cost of large collections, calculated from the rates that benchmarks have measured.

    make scale                              measure the rates, and write the page
    python benchmarks/scale_page.py FILE    write the page from results/{rates,folder,encoder_runtimes}.json

The page says which of its figures were measured, which were calculated from them, and which were simulated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
TEMPLATE = Path(__file__).with_name("scale_page.md")
CORES = 16
"""Number of cores of each machine in the calculations."""
MACHINES = (1, 10, 100)
"""Numbers of machines for which the page states times."""
BLOCKS = 12
"""Number of blocks of a speech encoder of base size."""
DISK_BYTES = 1e9
"""Bytes per second that the storage is assumed to deliver."""
GPU_OPERATIONS = 100e12
"""Operations per second that a GPU is assumed to sustain in the simulation, in 16 bits."""
HOUR = 3600.0


@dataclass(frozen=True)
class Collection:
    """A collection of recordings."""

    name: str
    hours: float
    """Hours of audio in total."""
    recordings: float
    audio_format: str
    """A format in rates.json."""
    kind: str
    """A kind of recognition in rates.json."""


COLLECTIONS = (
    Collection("10,000 hours of calls of 5 min", 10_000, 120_000, "WAV, 8 kHz, mono, mu-law", "long recordings"),
    Collection("100 million clips of 3 s", 100e6 * 3 / HOUR, 100e6, "MP3, 44.1 kHz, stereo", "clips"),
)


@dataclass(frozen=True)
class Rates:
    """The measured rates."""

    rates: Mapping[str, Any]
    folder: Mapping[str, Any]
    runtimes: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Rates:
        names = ("rates", "folder", "encoder_runtimes")
        return cls(*(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names))

    @property
    def efficiency(self) -> float:
        """The speed of two jobs on recordings, divided by twice the speed of one."""
        sides = self.folder["folders"]["recordings of 15 min"]["sides"]
        return float(sides["2 jobs"]["files_per_second"] / sides["1 job"]["files_per_second"] / 2)

    @property
    def encoder_seconds(self) -> float:
        """CPU seconds of an encoder of base size for one second of speech."""
        return float(self.runtimes["sides"]["torch, one by one"]["cpu_seconds_per_second"])

    def decode_seconds(self, collection: Collection) -> float:
        return float(self.rates["formats"][collection.audio_format]["cpu_seconds_per_second"])

    def model_seconds(self, collection: Collection) -> float:
        return float(self.rates["recognition_cpu_seconds_per_second"][collection.kind])

    def bytes_of_audio(self, collection: Collection) -> float:
        return float(self.rates["formats"][collection.audio_format]["bytes_per_second"]) * HOUR * collection.hours

    def feature_bytes(self, collection: Collection) -> float:
        return float(self.rates["feature_bytes_per_second"]) * HOUR * collection.hours


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("expected the path of the page to write")
    Path(sys.argv[1]).write_text(page(Rates.read(RESULTS)), encoding="utf-8")
    print(f"wrote {sys.argv[1]}")


def page(rates: Rates) -> str:
    """Return the page: the template with the tables filled in."""
    parts = {
        "machine": "{processor}, {cores} cores".format(**rates.rates["machine"]),
        "measured": measured(rates),
        "costs": costs(rates),
        "machines": machines(rates),
        "bottleneck": bottleneck(rates),
        "gpu": simulate_gpu(rates),
        "cores": str(CORES),
        "gpu_operations": f"{GPU_OPERATIONS / 1e12:.0f}",
    }
    return fill(TEMPLATE.read_text(encoding="utf-8"), parts)


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Replace each {{NAME}} of a template by the part of this name."""
    for name, value in parts.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def measured(rates: Rates) -> str:
    """Return the table of measured rates, each with the benchmark that it comes from."""
    rows = [
        [f"decoding {name}", f"{HOUR * entry['cpu_seconds_per_second']:.1f} CPU s per hour of audio", "rates.py"]
        for name, entry in rates.rates["formats"].items()
    ]
    recognition = rates.rates["recognition_cpu_seconds_per_second"]
    rows += [
        [f"recognition, {name}", f"{HOUR * rate:.0f} CPU s per hour", "rates.py"] for name, rate in recognition.items()
    ]
    runtimes = rates.runtimes
    peak = runtimes["sides"]["torch, one by one"]["fraction_of_peak"]
    rows += [
        [
            "extraction, encoder of base size",
            f"{HOUR * rates.encoder_seconds:.0f} CPU s per hour, {100 * peak:.0f} % of the processor's peak",
            "encoder_runtimes.py",
        ],
        ["two jobs instead of one", f"{2 * rates.efficiency:.2f} times as fast", "folder.py"],
        ["one block's features", f"{rates.rates['feature_bytes_per_second'] / 1000:.1f} kB per second", "rates.py"],
        ["a row of a manifest", f"{1e6 * rates.rates['manifest_seconds_per_row']:.0f} CPU microseconds", "rates.py"],
        ["a row in Parquet", f"{rates.rates['row_bytes']:.0f} bytes", "rates.py"],
    ]
    return table(["what", "rate", "benchmark"], rows)


def costs(rates: Rates) -> str:
    """Return the table of core hours and disk."""
    lines: list[tuple[str, list[str]]] = [
        ("audio to read", [size(rates.bytes_of_audio(c)) for c in COLLECTIONS]),
        ("hours of audio", [f"{c.hours:,.0f}" for c in COLLECTIONS]),
        ("core hours, decoding", [f"{c.hours * rates.decode_seconds(c):,.1f}" for c in COLLECTIONS]),
        ("core hours, recognition", [f"{c.hours * rates.model_seconds(c):,.0f}" for c in COLLECTIONS]),
        ("core hours, extraction instead", [f"{c.hours * rates.encoder_seconds:,.0f}" for c in COLLECTIONS]),
        (
            "hours in which one process reads the manifest",
            [f"{c.recordings * rates.rates['manifest_seconds_per_row'] / HOUR:.2g}" for c in COLLECTIONS],
        ),
        ("rows in Parquet", [size(c.recordings * rates.rates["row_bytes"]) for c in COLLECTIONS]),
        ("features of one block, 16 bits", [size(rates.feature_bytes(c)) for c in COLLECTIONS]),
        (f"features of all {BLOCKS} blocks", [size(BLOCKS * rates.feature_bytes(c)) for c in COLLECTIONS]),
    ]
    return table(["", *(c.name for c in COLLECTIONS)], [[name, *values] for name, values in lines])


def machines(rates: Rates) -> str:
    """Return the table of elapsed time and network traffic, for several numbers of machines."""
    rows = []
    for collection in COLLECTIONS:
        seconds = {
            "recognition": rates.decode_seconds(collection) + rates.model_seconds(collection),
            "extraction": rates.decode_seconds(collection) + rates.encoder_seconds,
        }
        for what, each in seconds.items():
            for count in MACHINES:
                elapsed = collection.hours * each / (count * CORES * rates.efficiency)
                network = rates.bytes_of_audio(collection) / (elapsed * HOUR)
                written = rates.feature_bytes(collection) / (elapsed * HOUR) if what == "extraction" else 0
                rows.append([collection.name, what, str(count), duration(elapsed), rate(network), rate(written)])
    return table(["", "", "machines", "elapsed", "read", "write, one block"], rows)


def bottleneck(rates: Rates) -> str:
    """Return the table of the fraction of the CPU time that is decoding, and of how many machines the storage can supply."""
    rows = []
    for collection in COLLECTIONS:
        decoding = rates.decode_seconds(collection)
        for what, model in (("recognition", rates.model_seconds(collection)), ("extraction", rates.encoder_seconds)):
            speed = CORES * rates.efficiency / (decoding + model)
            traffic = rates.bytes_of_audio(collection) / collection.hours / HOUR
            if what == "extraction":
                traffic += rates.feature_bytes(collection) / collection.hours / HOUR
            supplied = f"{DISK_BYTES / (speed * traffic):,.0f}"
            rows.append([collection.name, what, f"{100 * decoding / (decoding + model):.1f} %", supplied])
    return table(
        ["", "", "CPU time that is decoding and resampling", "machines that storage of 1 GB/s can supply"], rows
    )


def simulate_gpu(rates: Rates) -> str:
    """Return the table of the simulated extraction by a GPU that sustains GPU_OPERATIONS."""
    per_second = GPU_OPERATIONS / rates.runtimes["operations_per_second_of_speech"]
    rows = [
        [
            collection.name,
            f"{per_second:,.0f}",
            duration(collection.hours * HOUR / per_second / HOUR),
            f"{per_second * rates.decode_seconds(collection):,.1f}",
            rate(per_second * rates.rates["formats"][collection.audio_format]["bytes_per_second"]),
            rate(per_second * rates.rates["feature_bytes_per_second"]),
        ]
        for collection in COLLECTIONS
    ]
    columns = ["", "s of speech per s", "elapsed, one GPU", "cores needed for decoding", "read", "write, one block"]
    return table(columns, rows)


def size(count: float) -> str:
    """Return a number of bytes in MB, GB or TB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if count >= unit:
            return f"{two_digits(count / unit)} {name}"
    return f"{two_digits(count / 1e6)} MB"


def rate(count: float) -> str:
    """Return a number of bytes per second."""
    return f"{size(count)}/s" if count else ""


def two_digits(value: float) -> str:
    """Return a number with at least two digits, without an exponent."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def duration(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
