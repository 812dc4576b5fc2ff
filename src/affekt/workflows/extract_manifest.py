"""Extract the features of the clips of a manifest, on this machine or on a Ray cluster, and write Parquet files."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import name_of
from affekt.collection.manifest import Clip
from affekt.collection.process import ProcessOptions, Summary, Work, process
from affekt.collection.recordings import Recording, run_in_order
from affekt.config import encode
from affekt.cores import check_threads
from affekt.errors import BadConfig
from affekt.features.extract import check_device, description
from affekt.json_text import to_json
from affekt.processes import Message
from affekt.registry import did_you_mean
from affekt.training.plan import Plan
from affekt.worker_pool import WorkerPool
from affekt.workflows.extraction_worker import ENTRY as PROCESS
from affekt.workflows.recognize_manifest import name_machine

ENTRY = f"{__name__}:ExtractionWorker"
TABLE_BYTES = 1 << 26
"""Number of bytes of features that are collected before they are written to the file."""


def extract_manifest(
    plan: Plan,
    manifest: str,
    output: str,
    *,
    stream: str = "",
    device: str = "cpu",
    threads: int = 1,
    gpus_per_job: float = 1.0,
    **options: Unpack[ProcessOptions],
) -> Summary:
    """Compute the features of the clips that a manifest lists, and write a folder of Parquet files with a row for each clip.

    The column "features" is a list of frames * dim 16-bit floats, frame after frame; the columns "frames" and "dim" have its
    shape. The hidden states of several layers are concatenated along dim, as in the feature store. A clip that fails has a
    row with status "error"; its error is "crashed" if two worker processes died while processing the file.

    Args:
        plan: The plan of a recipe, one of whose streams is extracted.
        manifest: A table of audio files, or a folder, or the URL of either (`affekt.collection.manifest.open_manifest`).
        output: The folder of the results, or its URL.
        stream: The recipe's stream; by default the only one that is computed from audio.
        device: "cpu" or "cuda".
        threads: The number of cores of each process.
        gpus_per_job: On a cluster with device "cuda": the GPUs that each process reserves, such as 0.25.
        options: Further arguments of `affekt.collection.process.process`: `shard_rows`, `columns` (of "audio", "start" and
            "end"), `delimiter`, `retry_failed`, `jobs`, `ray` and `progress`.

    Raises:
        BadConfig, BadCorpus, BadOutput, MissingExtra: As `affekt.collection.process.process`; `BadConfig` also if the recipe
            has no such stream.
    """
    check_threads(threads)
    if options.get("ray") is None:
        check_device(device)
    stream = _find_stream(plan, stream)
    feature, name = plan.frozen_features[stream], plan.features[stream].name
    content = description(feature, name, None) | {"device": device.partition(":")[0], "threads": threads}
    setup = {
        "recipe": to_json(encode(plan.recipe)),
        "stream": stream,
        "device": device,
        "threads": threads,
        "weights": content["weights"],
        "models": os.environ.get("AFFEKT_MODELS", ""),
        "log": logging.getLogger("affekt").getEffectiveLevel(),
    }
    settings = {"task": "extract", **content, "states": feature.num_states, "frame_rate": feature.frame_rate}
    work = Work("extracting", ENTRY, setup, settings, threads, 0.0 if device == "cpu" else gpus_per_job)
    return process(manifest, output, work, **options)


def _find_stream(plan: Plan, stream: str) -> str:
    streams = [name for name, choice in plan.features.items() if choice.kind.input == "audio"]
    if stream in streams or (not stream and len(streams) == 1):
        return stream or streams[0]
    if not streams:
        raise BadConfig(f"the recipe {plan.recipe.name} has no stream that is computed from audio")
    problem = (
        f"no stream {stream!r} that is computed from audio"
        if stream
        else "several streams that are computed from audio"
    )
    hint = did_you_mean(stream, streams) if stream else ""
    raise BadConfig(f"the recipe {plan.recipe.name} has {problem}{hint} (expected --stream {' or '.join(streams)})")


class ExtractionWorker:
    """Computes the features of the clips of a shard in worker processes, which load the encoder once.

    Args:
        setup: The recipe, the stream, the device and the folder of the manifest.
        jobs: The number of processes.
        machine: The name of this machine, for messages; "" to leave it out.
    """

    def __init__(self, setup: Message, jobs: int, machine: str) -> None:
        self._setup, self._machine = setup, machine
        self._folder = tempfile.TemporaryDirectory()
        self._pool: WorkerPool[_Recording] = WorkerPool(PROCESS, setup, jobs, option="--jobs", check_ready=self._check)

    def _check(self, message: Message) -> None:
        if message["ready"] != self._setup["weights"]:
            raise BadConfig(
                f"the weights of {self._setup['stream']!r} differ from those on the machine that started the run: all "
                "machines need the same files in AFFEKT_MODELS"
            )

    def __enter__(self) -> ExtractionWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, trace)
        self._folder.cleanup()

    def schema(self) -> Any:
        """Return the schema of the tables."""
        import pyarrow as pa

        return pa.schema(
            [
                ("file", pa.string()),
                ("start", pa.float64()),
                ("end", pa.float64()),
                ("status", pa.string()),
                ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
                ("frames", pa.int64()),
                ("dim", pa.int64()),
                ("features", pa.list_(pa.float16())),
            ]
        )

    def writer_options(self) -> dict[str, Any]:
        """Return options of the Parquet writer. A dictionary of the features would save nothing, since none is repeated."""
        return {"use_dictionary": ["file", "status"]}

    def tables(self, clips: Sequence[Clip], on_clip: Callable[[], None]) -> Iterator[Any]:
        """Yield tables with a row for each clip, in order; a file that occurs several times is read once."""
        rows, arrays = list[dict[str, Any]](), list[NDArray[np.float16]]()
        folder = Path(self._folder.name)
        for clip, recording in run_in_order(
            self._pool, clips, self._setup["base"], lambda path: _Recording(path, folder)
        ):
            row, values = recording.row(clip) if recording else _row_without_file()
            rows.append(name_machine(row, self._machine))
            arrays.append(values)
            on_clip()
            if sum(values.nbytes for values in arrays) >= TABLE_BYTES:
                yield self._table(rows, arrays)
                rows.clear()
                arrays.clear()
        if rows:
            yield self._table(rows, arrays)
        for path in folder.iterdir():
            path.unlink()

    def _table(self, rows: Sequence[Mapping[str, Any]], arrays: Sequence[NDArray[np.float16]]) -> Any:
        import pyarrow as pa

        offsets = np.cumsum([0, *(len(values) for values in arrays)], dtype=np.int32)
        values = pa.array(np.concatenate([np.zeros(0, np.float16), *arrays]), pa.float16())
        mask = pa.array([row["status"] == "error" for row in rows], pa.bool_())
        table = pa.Table.from_pylist(list(rows), schema=self.schema().remove(self.schema().get_field_index("features")))
        return table.append_column(
            self.schema().field("features"), pa.ListArray.from_arrays(offsets, values, mask=mask)
        )


def _row_without_file() -> tuple[dict[str, Any], NDArray[np.float16]]:
    error = {"code": "missing", "message": "the manifest names no audio file in this row"}
    return {"file": "", "status": "error", "error": error}, np.zeros(0, np.float16)


class _Recording(Recording[Message]):
    """A file whose features are computed."""

    def __init__(self, path: str, folder: Path) -> None:
        super().__init__(path)
        self._folder = folder

    def request(self) -> Message:
        """Return the request to send to a process of `extraction_worker`."""
        return {"path": self.path, "segments": self.segments, "folder": str(self._folder)}

    def read(self, message: Message) -> list[Message] | None:
        """Return the results in a message of a worker, for each segment either the file of the features or an error."""
        if "died" in message:
            text = (
                f"{self.path} cannot be processed: two worker processes died while reading it (the second with "
                f"{message['died']}); if memory ran out, use fewer jobs, or cut the recording into segments"
            )
            return [{"error": {"code": "crashed", "message": text}}] * len(self.segments)
        return list(message["results"]) if "results" in message else None

    def row(self, clip: Clip) -> tuple[dict[str, Any], NDArray[np.float16]]:
        """Return the row of a clip, and its features (frames * dim,)."""
        assert self.results is not None
        result = self.results[clip.start, clip.end]
        row = {"file": name_of(clip.audio), "start": clip.start, "end": clip.end, "error": result.get("error")}
        if row["error"]:
            return row | {"status": "error"}, np.zeros(0, np.float16)
        values: NDArray[np.float16] = np.load(result["features"], allow_pickle=False)
        shape = {"frames": values.shape[0], "dim": values.shape[1], "end": result["end"]}
        return row | {"status": "ok"} | shape, values.reshape(-1)
