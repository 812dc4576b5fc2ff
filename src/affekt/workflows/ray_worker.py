"""The functions that run on the nodes of a Ray cluster: a check of the node, and training jobs in processes of the node.

Arguments and results are JSON text. The Ray worker itself does not train: it starts worker processes (`job_worker`), one for
each GPU of the job but at least one, and forwards their messages. When the Ray worker ends for any reason, so do these
processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from affekt.json_text import to_json
from affekt.processes import Message, WorkerProcess
from affekt.ray_cluster import worker_name
from affekt.workflows.node_requirements import NodeRequirements

ENTRY = "affekt.workflows.job_worker:work"
"""The main function of the processes that train."""
GRACE = 1.0
"""Longest wait for the exit of a process that has closed its output, in seconds. After that, the process is killed."""


def check_node(requirements: str) -> str:
    """Return what this node lacks to run jobs; "" if nothing. The argument is the JSON text of `NodeRequirements`."""
    return NodeRequirements(**json.loads(requirements)).find_problem()


def run_job(request: str) -> Iterator[str]:
    """Run a job on this node.

    Args:
        request: JSON text with the keys "requirements", "setup" and "job" of `job_worker`, and "ranks", the number of
            processes that train the model together.

    Yields:
        JSON texts. The first has the key "node", the following ones are log messages, and the last has one of these keys:
        "ends"; "died", with the exit status of a process; "refused", with what the node lacks.
    """
    content = json.loads(request)
    requirements = NodeRequirements(**content["requirements"])
    yield to_json({"node": worker_name()})
    if problem := requirements.find_problem():
        yield to_json({"refused": problem})
        return
    os.environ.update(requirements.environment)
    with contextlib.suppress(OSError):
        os.chdir(requirements.folder)
    for message in _find_group(content["setup"], content["ranks"]).run(content["job"]):
        yield to_json(message)


_groups: dict[str, _Group] = {}
"""Setup as JSON text -> the processes that this Ray worker has started. They are kept for the next job, since they have its
corpora and features in memory."""


def _find_group(setup: Mapping[str, Any], ranks: int) -> _Group:
    key = to_json([setup, ranks, os.environ.get("CUDA_VISIBLE_DEVICES")])
    for other in [other for other, group in _groups.items() if other != key or group.has_ended]:
        _groups.pop(other).end()
    if key not in _groups:
        _groups[key] = _Group(setup, ranks)
    return _groups[key]


class _Group:
    """Worker processes on this node that train one model together, with the environment variables that torchrun sets. Most
    groups have a single process."""

    def __init__(self, setup: Mapping[str, Any], ranks: int) -> None:
        self._events: queue.SimpleQueue[tuple[int, Message | None]] = queue.SimpleQueue()
        self.has_ended = False
        shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        self._processes = [
            WorkerProcess(ENTRY, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {})
            for rank in range(ranks)
        ]
        for rank, process in enumerate(self._processes):
            process.send(setup)
            threading.Thread(target=self._forward, args=(rank, process), daemon=True).start()

    def _forward(self, rank: int, process: WorkerProcess) -> None:
        while (message := process.receive()) is not None:
            self._events.put((rank, message))
        self._events.put((rank, None))

    def run(self, job: Mapping[str, Any]) -> Iterator[Message]:
        """Run a job and yield the messages about it. If one of several processes fails, end the others: they wait for it."""
        for process in self._processes:
            process.send(job)
        working = set(range(len(self._processes)))
        result: Message = {}
        while working and "failed" not in result:
            rank, message = self._events.get()
            if message is None:
                yield {"died": self.end(rank)}
                return
            if "ends" in message:
                working.discard(rank)
                result = message if "failed" in message or not result else result
            elif "log" in message:
                yield message
        if working or len(self._processes) > 1:
            self.end()
        yield result

    def end(self, ended: int | None = None) -> str:
        """End all processes. Return the exit status of process `ended`, which has ended already, by default of the first."""
        self.has_ended = True
        statuses = [process.end(GRACE if rank == ended else 0.0) for rank, process in enumerate(self._processes)]
        return statuses[ended or 0]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
