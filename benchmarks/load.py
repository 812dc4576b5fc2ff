"""Measure `affekt serve` under load: throughput, latency, processor time, memory, and its behaviour when there is too much.

    python benchmarks/load.py                        1, 8, 50 and 200 connections for 30 s each, and 4 streams
    python benchmarks/load.py --seconds 1800 --connections 8     memory over half an hour
    python benchmarks/load.py --page docs/serving.md             also writes the tables of this page

It needs wrk (`apt-get install wrk`), which sends a multipart form with samples/synthetic-1-even.wav, 3.2 s of speech, again
and again. wrk, the service and whatever else runs share the machine's cores: times depend on that, processor time does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from harness import environment, interleaved, write

from affekt import Recognizer
from affekt.audio.read import load
from affekt.client import AsyncClient

CLIP = Path(__file__).parents[1] / "samples" / "synthetic-1-even.wav"
MARKS = ("<!-- load -->", "<!-- /load -->")
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=load"
local file = io.open("%s", "rb")
wrk.body = "--load\\r\\nContent-Disposition: form-data; name=\\"file\\"; filename=\\"a.wav\\"\\r\\n\\r\\n"
  .. file:read("*all") .. "\\r\\n--load--\\r\\n"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init() ok, busy, retry, other = 0, 0, 0, 0 end
function response(status, headers)
  if status == 200 then ok = ok + 1
  elseif status == 503 then busy = busy + 1; if headers["retry-after"] then retry = retry + 1 end
  else other = other + 1 end
end
function done(summary, latency)
  local t = threads[1]
  local errors = summary.errors
  io.write(string.format('RESULT {"ok": %%d, "busy": %%d, "retry": %%d, "other": %%d, "seconds": %%f, "failed": %%d, ',
    t:get("ok"), t:get("busy"), t:get("retry"), t:get("other"), summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.timeout))
  io.write(string.format('"p50_ms": %%.1f, "p90_ms": %%.1f, "p99_ms": %%.1f}\\n',
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3))
end
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 8, 50, 200])
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"others": os.getloadavg()[0], "alone": time_alone()}
    with serving() as (process, address):
        for _ in range(10):
            httpx2.post(f"{address}/v1/recognize", files={"file": CLIP.read_bytes()}).raise_for_status()
        results["load"] = [measure(process, address, number, arguments.seconds) for number in arguments.connections]
        results["streams"] = asyncio.run(measure_streams(process, address, arguments.streams))
    write("load", results)
    text = "\n".join(describe(results))
    print(text)
    if arguments.page:
        page = arguments.page.read_text(encoding="utf-8")
        before, _, rest = page.partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        arguments.page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}", encoding="utf-8")


def time_alone() -> dict[str, float]:
    """Return the processor time of the recognizer for the clip, in ms, alone and in batches (per clip)."""
    recognizer, data, waveform = Recognizer.load(), CLIP.read_bytes(), load(CLIP)
    sides: dict[str, Any] = {"recognizer": lambda: recognizer(data)}
    for size in (1, 4, 8):
        batch = np.repeat(waveform[np.newaxis], size, axis=0)
        sides[f"batch of {size}"] = lambda batch=batch: recognizer.graph({"waveform": batch})
    times = interleaved(sides, 15)
    return {name: round(ms / int(name.split()[-1] if " " in name else 1), 2) for name, ms in times.items()}


@contextmanager
def serving() -> Iterator[tuple[int, str]]:
    """Yield the process id and the address of a service."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "affekt", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout:
        process.stdout.readline()
        try:
            address = f"http://127.0.0.1:{port}"
            while not is_ready(address):
                time.sleep(0.1)
            yield process.pid, address
        finally:
            process.terminate()
            process.wait()


def is_ready(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/readyz").is_success
    except httpx2.TransportError:
        return False


def cpu_seconds(process: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: int) -> float:
    """Return the memory of a process in MB."""
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert match
    return int(match[1]) / 1024


def measure(process: int, address: str, connections: int, seconds: float) -> dict[str, float]:
    """Return the results of a number of connections that send requests without pause."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % CLIP)
        script.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "--timeout=60s",
            f"-s{script.name}",
        ]
        before, cpu = memory(process), cpu_seconds(process)
        run = subprocess.run([*command, f"{address}/v1/recognize"], capture_output=True, text=True, check=True)
        cpu, after = cpu_seconds(process) - cpu, memory(process)
    counts = json.loads(
        next(line for line in run.stdout.splitlines() if line.startswith("RESULT")).removeprefix("RESULT")
    )
    return {
        "connections": connections,
        "per_second": round(counts["ok"] / counts["seconds"], 1),
        **{f"p{q}_ms": counts[f"p{q}_ms"] for q in (50, 90, 99)},
        "cpu_ms": round(1000 * cpu / max(1, counts["ok"]), 1),
        "busy": counts["busy"],
        "busy_with_retry_after": counts["retry"],
        "failed": counts["other"] + counts["failed"],
        "ok": counts["ok"],
        "mb_before": round(before),
        "mb_after": round(after),
    }


async def measure_streams(process: int, address: str, count: int) -> dict[str, float]:
    """Return the processor time of streams in real time, and the latency of their last results."""
    samples = np.tile((load(CLIP) * 32767).astype("<i2"), 4)
    chunks = [samples[start : start + 1600].tobytes() for start in range(0, len(samples), 1600)]

    async def live() -> float:
        async def paced() -> Any:
            for chunk in chunks:
                yield chunk
                await asyncio.sleep(0.1)
            ended.append(time.monotonic())

        ended: list[float] = []
        async with AsyncClient(address) as client:
            async for _ in client.stream(paced()):
                pass
        return time.monotonic() - ended[0]

    cpu = cpu_seconds(process)
    waits: Sequence[float] = await asyncio.gather(*(live() for _ in range(count)))
    seconds = count * len(samples) / 16_000
    return {
        "streams": count,
        "cpu_ms_per_second": round(1000 * (cpu_seconds(process) - cpu) / seconds, 1),
        "last_result_ms": round(1000 * max(waits)),
    }


def describe(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the page."""
    alone, streams = results["alone"], results["streams"]
    yield f"The recognizer alone needs {alone['recognizer']} ms of processor time for the clip of 3.2 s."
    yield ""
    columns = (
        "connections",
        "answers per second",
        "p50",
        "p90",
        "p99",
        "processor time per answer",
        "503",
        "other errors",
        "memory",
    )
    yield f"| {' | '.join(columns)} |"
    yield "| --- |" + " ---: |" * (len(columns) - 1)
    for row in results["load"]:
        extra = row["cpu_ms"] / alone["recognizer"] - 1
        cells = (
            row["connections"], row["per_second"], *(f"{row[f'p{q}_ms']:.0f} ms" for q in (50, 90, 99)),
            f"{row['cpu_ms']} ms ({extra:+.0%})", f"{row['busy']} of {row['busy'] + row['ok']}", row["failed"],
            f"{row['mb_before']} to {row['mb_after']} MB",
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    busy, retry = (sum(row[name] for row in results["load"]) for name in ("busy", "busy_with_retry_after"))
    yield f"Of {busy} answers with the status 503, {retry} have `Retry-After`. The percentiles count these answers too."
    cpu = streams["cpu_ms_per_second"]
    yield f"{streams['streams']} streams in real time need {cpu} ms of processor time per second of audio;"
    yield f"the last result arrives {streams['last_result_ms']} ms after the end of the speech."
    yield f"In batches of equally long clips, the graph needs {alone['batch of 4']} ms (4 clips) and {alone['batch of 8']} ms"
    yield f"(8 clips) per clip instead of {alone['batch of 1']} ms."


if __name__ == "__main__":
    main()
