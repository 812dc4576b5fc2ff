"""Run the benchmarks one after another; each prints its tables and writes results/NAME.json.

    make bench                                        all of them
    python benchmarks [--only NAME ...] [--quick]     some of them; --quick checks that they work and keeps no results

`lengths.py` runs up to one minute of speech here and writes lengths-minute.json; `make lengths` runs it up to 20 min, which
takes an hour. `training.py` times the small presets of the papers' models here; `make throughput` compares it with an earlier
commit. Not included are the benchmarks that need a GPU (`fractal_gpu.py`) or corpora (`extraction.py`,
`fewer_frames.py`, `quantized.py`, `shifts.py`, `speakers.py`), and the fuzzer (`fuzz.py`; use `make fuzz`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
# The options of each benchmark, and those for --quick.
BENCHMARKS: dict[str, tuple[list[str], list[str]]] = {
    "recognize": ([], ["--runs", "1"]),
    "cold_start": ([], ["--runs", "1"]),
    "attention": (["--threads", "1", "2"], ["--runs", "1", "--only", "sizes", "lengths"]),
    "lengths": (
        ["--up-to", "60", "--name", "lengths-minute"],
        ["--runs", "1", "--up-to", "5", "--name", "lengths-minute"],
    ),
    "exported": ([], ["--runs", "1"]),
    "key_sparse": ([], ["--runs", "1"]),
    "recurrent": ([], ["--runs", "1", "--sizes", "small"]),
    "search": ([], ["--runs", "1"]),
    "training": (
        ["--cases", "small", "--name", "small-presets"],
        ["--runs", "1", "--cases", "small", "--name", "small-presets"],
    ),
    "encoder_runtimes": ([], ["--runs", "1"]),
    "rates": ([], ["--runs", "1", "--rows", "20"]),
    "folder": ([], ["--runs", "1", "--part", "0.1"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **({"BENCHMARK_RESULTS": folder} if options.quick else {})}
        for name in options.only:
            print(f"\n## {name}\n", flush=True)
            script = [sys.executable, str(FOLDER / f"{name}.py"), *BENCHMARKS[name][options.quick]]
            if subprocess.run(script, check=False, env=environment).returncode:
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
