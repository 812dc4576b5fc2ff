"""The nodes of a Ray cluster, and whether they can run training jobs."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from affekt.errors import AffektError, BadConfig
from affekt.json_text import to_json
from affekt.workflows.node_requirements import NodeRequirements
from affekt.workflows.ray_worker import check_node

logger = logging.getLogger(__name__)

CHECK_SECONDS = 180.0
"""Longest wait for a node's answer to the check, in seconds. The node first starts a Python process."""
HEAD_SECONDS = 5.0
"""Seconds between two checks of whether the head node answers."""
MAX_HEAD_FAILURES = 7
"""Number of consecutive checks without an answer after which the head node is considered dead."""
ANSWER_SECONDS = 2.0
"""Longest wait for an answer of the head node, in seconds."""
MAX_NAMED_NODES = 3
"""Number of nodes that an error message describes; the others are only counted."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    id: str
    name: str
    """Address and host name, as `affekt.ray_cluster.worker_name` returns them."""
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name} with {self.cpus:g} CPUs and {self.gpus:g} GPUs"


class Head:
    """The head node, which is asked now and then whether it is alive.

    A minute after it has died, Ray ends this process without a message.
    """

    def __init__(self, ray: Any) -> None:
        self._ray, self._num_failures, self._next_check = ray, 0, 0.0

    def check(self) -> None:
        """Raise `AffektError` if the head node has not answered several times."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + HEAD_SECONDS
        host, _, port = self._ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
            self._num_failures = 0
        except OSError as error:
            self._num_failures += 1
            if self._num_failures == MAX_HEAD_FAILURES:
                raise AffektError(
                    f"the head node of the Ray cluster, {host}:{port}, does not answer ({error}): start the cluster again, "
                    "and run the same command to resume"
                ) from error


def list_nodes(ray: Any) -> list[Node]:
    """Return the nodes that are alive."""
    return [
        Node(
            entry["NodeID"],
            f"{entry['NodeManagerAddress']} ({entry['NodeManagerHostname']})",
            entry["Resources"].get("CPU", 0.0),
            entry["Resources"].get("GPU", 0.0),
        )
        for entry in ray.nodes()
        if entry["Alive"]
    ]


def find_nodes(ray: Any, cpus: float, gpus: float) -> list[Node]:
    """Return the nodes that have enough CPUs and GPUs for a job. Raises `BadConfig` if there is none."""
    nodes = list_nodes(ray)
    suitable = [node for node in nodes if node.cpus >= cpus and node.gpus >= gpus]
    if not suitable:
        present = _join([str(node) for node in nodes])
        raise BadConfig(
            f"no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs for a job (it has {present}): "
            "lower --cpus-per-job or --gpus-per-job, or add such a node"
        )
    return suitable


def check_nodes(ray: Any, nodes: Sequence[Node], requirements: NodeRequirements) -> None:
    """Raise `BadConfig` if one of the nodes cannot run jobs, for example because it does not see the run folder."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    function, text = ray.remote(check_node), to_json(requirements.to_message())
    answers = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
        answers[node.id] = function.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(text)
    if problems := [problem for node in nodes if (problem := _problem(ray, node, answers[node.id]))]:
        raise BadConfig(_join(problems))


def _problem(ray: Any, node: Node, answer: Any) -> str:
    try:
        problem = ray.get(answer, timeout=CHECK_SECONDS)
    except ray.exceptions.GetTimeoutError:
        problem = (
            f"did not answer within {CHECK_SECONDS:.0f} s: check it with `ray status`, or remove it from the cluster"
        )
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
        logger.warning("node %s of the Ray cluster has died", node.name)
        return ""
    except ray.exceptions.RayError as error:
        problem = describe_missing_package(error) or f"does not work: {last_line(error)}"
    return f"node {node.name} of the Ray cluster {problem}" if problem else ""


def describe_missing_package(error: Exception) -> str:
    """Return a message with a cure if the error is that a node cannot import affekt; "" for any other error."""
    if "No module named 'affekt" not in str(error):
        return ""
    return "lacks this version of affekt in the environment in which Ray was started: pip install 'affekt[train,ray]' there"


def last_line(error: Exception) -> str:
    """Return the last line of Ray's error: Ray appends the original error's traceback, which ends with its message."""
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def _join(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - MAX_NAMED_NODES} more" if len(texts) > MAX_NAMED_NODES else ""
    return "; ".join(texts[:MAX_NAMED_NODES]) + more
