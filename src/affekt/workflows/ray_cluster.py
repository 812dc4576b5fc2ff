"""The connection to a Ray cluster, and its nodes."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affekt.errors import BadConfig
from affekt.extras import need
from affekt.json_text import to_json
from affekt.workflows.node_requirements import NodeRequirements
from affekt.workflows.ray_worker import check_node

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
CHECK_SECONDS = 180.0
"""How long a node may take to answer; it starts a Python process for it."""
MAX_NAMED_NODES = 3
"""Nodes that an error names; the others are counted."""
START = "ray start --head --disable-usage-stats --include-dashboard=false"
"""The command that the errors propose."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    id: str
    name: str
    """Host name and address."""
    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.name} with {self.cpus:g} CPUs and {self.gpus:g} GPUs"


class RayCluster:
    """A Ray cluster that this process is connected to. Ray's own messages are not shown; `close` ends the connection.

    A connection that the process has already is used and left open.

    Args:
        address: HOST:PORT of the head node, or "auto" for the cluster that this machine belongs to.

    Raises:
        BadConfig: There is no cluster at the address.
        MissingExtra: Ray is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self.ray: Any = need("ray", extra="ray", purpose="training on a cluster")
        self._is_own = not self.ray.is_initialized()
        if self._is_own:
            _check_address(address)
            self._connect()

    def _connect(self) -> None:
        _silence()
        try:
            self.ray.init(address=self.address, log_to_driver=False, logging_level=logging.CRITICAL, namespace="affekt")
        except (ConnectionError, RuntimeError, ValueError) as error:
            if self.address == "auto":
                message = (
                    f"this machine belongs to no Ray cluster: start one ({START}), or give the head node's HOST:PORT"
                )
            else:
                first_line = str(error).strip().partition("\n")[0]
                message = (
                    f"cannot use the Ray cluster at {self.address} ({first_line}): run the command on one of its nodes, and "
                    "with their versions of Python and Ray"
                )
            raise BadConfig(f"--ray {self.address}: {message}") from error

    def close(self) -> None:
        """End the connection; Ray then ends all work of this process in the cluster."""
        if self._is_own:
            self.ray.shutdown()

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        return [
            Node(
                entry["NodeID"],
                f"{entry['NodeManagerHostname']} ({entry['NodeManagerAddress']})",
                entry["Resources"].get("CPU", 0.0),
                entry["Resources"].get("GPU", 0.0),
            )
            for entry in self.ray.nodes()
            if entry["Alive"]
        ]

    def find_nodes(self, cpus: float, gpus: float) -> list[Node]:
        """Return the nodes that have enough CPUs and GPUs for a job. Raises `BadConfig` if there is none."""
        nodes = self.nodes()
        suitable = [node for node in nodes if node.cpus >= cpus and node.gpus >= gpus]
        if not suitable:
            present = _name(list(map(str, nodes)))
            raise BadConfig(
                f"no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs for a job (it has {present}): lower "
                "--cpus-per-job or --gpus-per-job, or add such a node"
            )
        return suitable

    def check(self, nodes: Sequence[Node], requirements: NodeRequirements) -> None:
        """Raise `BadConfig` if a node cannot run jobs, such as one that does not see the run folder."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        function, text = self.ray.remote(check_node), to_json(requirements.to_message())
        answers = {}
        for node in nodes:
            strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
            answers[node.id] = function.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(text)
        if problems := [text for node in nodes if (text := self._problem(node, answers[node.id]))]:
            raise BadConfig(_name(problems))

    def _problem(self, node: Node, answer: Any) -> str:
        try:
            problem = self.ray.get(answer, timeout=CHECK_SECONDS)
        except self.ray.exceptions.GetTimeoutError:
            problem = f"did not answer in {CHECK_SECONDS:.0f} s: look at it with `ray status`, or remove it"
        except (self.ray.exceptions.NodeDiedError, self.ray.exceptions.TaskUnschedulableError):
            logger.warning("node %s of the Ray cluster has died", node.name)
            return ""
        except self.ray.exceptions.RayError as error:
            problem = describe_missing_package(error) or f"does not work: {last_line(error)}"
        return f"node {node.name} of the Ray cluster {problem}" if problem else ""


def describe_missing_package(error: Exception) -> str:
    """Return what is wrong with a node on which affekt cannot be imported; "" for any other error."""
    if "No module named 'affekt" not in str(error):
        return ""
    return "has no affekt, or an earlier version, where Ray was started: pip install 'affekt[train,ray]' there"


def last_line(error: Exception) -> str:
    """Return the last line of an error of Ray, which is the original error's message after its traceback."""
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def _name(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - MAX_NAMED_NODES} more" if len(texts) > MAX_NAMED_NODES else ""
    return "; ".join(texts[:MAX_NAMED_NODES]) + more


def _check_address(address: str) -> None:
    """Raise `BadConfig` unless an address can be reached; Ray itself would try for minutes and print its attempts."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not host or not port.isdecimal():
        raise BadConfig(f"--ray {address}: expected auto, or HOST:PORT of the head node, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BadConfig(
            f"--ray {address}: nothing answers there ({error}); expected a head node, started with {START} --port={port}"
        ) from error


def _silence() -> None:
    """Keep Ray from printing the errors of its nodes to standard output, where results are printed.

    Ray has no option for this. Without this function of Ray's own, the messages would appear.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    module = importlib.import_module("ray._private.worker")
    if hasattr(module, "print_to_stdstream"):
        vars(module)["print_to_stdstream"] = _log_message


def _log_message(data: Mapping[str, Any], *_: object, **__: object) -> None:
    for line in data.get("lines", ()):
        logger.debug("Ray: %s", line)
