"""Write docs/speed.md from the results of the benchmarks: `make speed`.

python benchmarks/speed_page.py FILE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scale_page import RESULTS, fill, table

TEMPLATE = Path(__file__).with_name("speed_page.md")
NAMES = ("recognize", "cold_start", "quantized", "fewer_frames", "folder", "encoder_runtimes", "small-presets")
"""The results that the page is made from."""

Results = Mapping[str, Any]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("expected the path of the page to write")
    Path(sys.argv[1]).write_text(page(read(RESULTS)), encoding="utf-8")
    print(f"wrote {sys.argv[1]}")


def read(folder: Path) -> dict[str, Results]:
    """Return the results by name."""
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES}


def page(results: Mapping[str, Results]) -> str:
    """Return the page: the template with the tables filled in."""
    machines = {f"{name}_machine": "{processor}, {cores} cores".format(**results[name]["machine"]) for name in NAMES}
    runtimes = results["encoder_runtimes"]
    parts = {
        **machines,
        "recognize": recognize_table(results["recognize"]),
        "cold_start": milliseconds("cold start and one clip", results["cold_start"]["parts_ms"]),
        "loading": milliseconds("ways to load the graph", results["cold_start"]["loading_ms"]),
        "quantized": variants_table(results["quantized"]["variants"]),
        "quantized_clips": f"{results['quantized']['clips']:,}",
        "fewer_frames": variants_table(results["fewer_frames"]["variants"]),
        "fewer_frames_clips": f"{results['fewer_frames']['clips']:,}",
        "folder": folder_table(results["folder"]["folders"]),
        "encoder_runtimes": runtimes_table(runtimes["sides"]),
        "tolerance": f"{runtimes['tolerance']:.1g}",
        "training": table(
            ["model", "utterances per second"],
            [[name, f"{side['now']:.0f}"] for name, side in results["small-presets"]["utterances_per_second"].items()],
        ),
    }
    return fill(TEMPLATE.read_text(encoding="utf-8"), parts)


def recognize_table(result: Results) -> str:
    """Return the table of one clip, whose rows README.md quotes too."""
    return table(["", "affekt", "transformers"], [[name, *cells] for name, cells in recognize_rows(result).items()])


def recognize_rows(result: Results) -> dict[str, list[str]]:
    cold, warm, peak = result["cold"], result["warm"], result["peak_mb"]
    sides = ("affekt", "transformers")
    return {
        "cold start and a clip of 2.5 s": [f"{cold[side]['seconds']:.2g} s" for side in sides],
        "warm, CPU seconds per second of audio, clip of 2.5 s": [f"{warm[side]['2.5']:.2g}" for side in sides],
        "warm, CPU seconds per second of audio, clip of 30 s": [f"{warm[side]['30.0']:.2g}" for side in sides],
        "peak memory, clip of 30 s": [f"{peak[side]['30.0']:.0f} MB" for side in sides],
        "`affekt --help`": [f"{result['help']['seconds']:.2g} s", ""],
    }


def milliseconds(title: str, times: Mapping[str, float]) -> str:
    return table([title, "CPU ms"], [[name, f"{time:.0f}"] for name, time in times.items()])


def variants_table(variants: Mapping[str, Results]) -> str:
    """Return the table of variants of the shipped model; the size of the file is a column if the benchmark states it."""
    first = next(iter(variants.values()))
    sizes, corpora = ["megabytes"] * ("megabytes" in first), list(first["ua"])
    rows = [
        [
            name,
            f"{side['cpu_seconds_per_second']:.4f}",
            *(f"{side[size]:.1f}" for size in sizes),
            f"{100 * side['agreement']:.1f} %",
            *(f"{side['ua'][corpus]:.1f}" for corpus in corpora),
        ]
        for name, side in variants.items()
    ]
    columns = ["CPU s per s of speech", *("MB" for _ in sizes), "same emotion as shipped"]
    return table(["", *columns, *(f"UA, {corpus}" for corpus in corpora)], rows)


def folder_table(folders: Mapping[str, Results]) -> str:
    rows = []
    for what, folder in folders.items():
        of_one_job = next(iter(folder["sides"].values()))["files_per_second"]
        for name, side in folder["sides"].items():
            rows.append(
                [
                    what,
                    str(folder["files"]),
                    name,
                    f"{side['files_per_second']:.3g}",
                    f"{side['speech_seconds_per_second']:.0f}",
                    f"{side['cpu_seconds_per_second']:.4f}",
                    f"{side['files_per_second'] / of_one_job:.2f}" if "job" in name else "",
                ]
            )
    columns = ["folder of", "files", "", "files per s", "hours of audio per hour", "CPU s per s of audio", "speed-up"]
    return table(columns, rows)


def runtimes_table(sides: Mapping[str, Results]) -> str:
    rows = [
        [
            name,
            f"{side['cpu_seconds_per_second']:.3f}",
            f"{100 * side['fraction_of_peak']:.0f} %",
            f"{side['largest_difference']:.1g}",
        ]
        for name, side in sides.items()
    ]
    return table(["", "CPU s per s of speech", "of the peak", "largest difference of a state"], rows)


if __name__ == "__main__":
    main()
