"""Every pair side by side, one benchmark after another; each prints its tables and writes results/NAME.json.

    make bench                                        all of them
    python benchmarks [--only NAME ...] [--quick]     some of them; --quick is to see that all work, and keeps no results

Of `lengths.py` the first minute alone, under another name: its own results, to 20 min of speech, take an hour (make
lengths). What compares on a GPU (`fractal_gpu.py`), needs an earlier state of the code (`training.py`, by make throughput) or
corpora (`extraction.py`, `shifts.py`, `speakers.py`) is started by itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
# Name, its options, and those instead where it is to be quick.
ALL: dict[str, tuple[list[str], list[str]]] = {
    "recognize": ([], ["--runs", "1"]),
    "attention": (["--threads", "1", "2"], ["--runs", "1", "--only", "sizes", "lengths"]),
    "lengths": (
        ["--up-to", "60", "--name", "lengths-minute"],
        ["--runs", "1", "--up-to", "5", "--name", "lengths-minute"],
    ),
    "exported": ([], ["--runs", "1"]),
    "key_sparse": ([], ["--runs", "1"]),
    "recurrent": ([], ["--runs", "1", "--sizes", "small"]),
    "search": ([], ["--runs", "1"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(ALL), default=list(ALL))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **({"BENCHMARK_RESULTS": folder} if options.quick else {})}
        for name in options.only:
            print(f"\n## {name}\n", flush=True)
            script = [sys.executable, str(FOLDER / f"{name}.py"), *ALL[name][options.quick]]
            if subprocess.run(script, check=False, env=environment).returncode:
                failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
