"""Connect to a Ray cluster. Ray, from the extra `ray`, is imported only when this is called.

Nothing is started on a cluster beyond what is asked for: the dashboard and the usage statistics are off. The messages of Ray
do not reach the terminal, but the log, at level DEBUG.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from affekt.audio.decoder_messages import silent_decoders
from affekt.errors import BadConfig
from affekt.extras import need

logger = logging.getLogger(__name__)

AUTO = "auto"
"""The address of the cluster that this machine belongs to; without one, Ray is started on this machine."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Settings of Ray: no usage statistics, no progress bars; and today's meaning of zero GPUs, without a warning about it."""
PRINT = "print_to_stdstream"
"""Name of the function in ray._private.worker that prints the messages of a cluster's nodes."""
CONNECT_SECONDS = 10.0
"""Longest wait for the head of a cluster, in seconds."""


@contextmanager
def connect(address: str = AUTO, *, purpose: str = "a Ray cluster") -> Iterator[ModuleType]:
    """Connect to a cluster and yield the module `ray`; disconnect afterwards, unless this process was connected before.

    Args:
        address: HOST:PORT of the cluster's head, or "auto".
        purpose: What needs Ray, for the message if it is not installed.

    Raises:
        BadConfig: There is no cluster at this address.
        MissingExtra: Ray is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ray = need("ray", extra="ray", purpose=purpose)
    if ray.is_initialized():
        yield ray
        return
    _log_messages(ray)
    with silent_decoders():  # on the command line, which keeps the messages of Ray's C++ code off standard error too
        try:
            _init(ray, address)
            yield ray
        finally:
            ray.shutdown()


def _init(ray: ModuleType, address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    try:
        if address != AUTO:
            _check_address(address)
        try:
            ray.init(address=address, **options)
        except ConnectionError:
            if address != AUTO:
                raise
            ray.init(address="local", include_dashboard=False, **options)
            logger.info("no Ray cluster is running: started Ray on this machine, with %g cores", num_cores(ray))
    except (RuntimeError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadConfig(
            f"no connection to the Ray cluster {address!r} ({reason}): expected HOST:PORT of a cluster that "
            "`ray start --head` has started with the same versions of Ray and Python, or 'auto'"
        ) from error


def _check_address(address: str) -> None:
    """Raise `ValueError` or `OSError` unless something listens at an address; Ray would wait for minutes."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()) or "/" in host:
        raise ValueError("this is not an address")
    socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _log_messages(ray: ModuleType) -> None:
    """Write the messages of a cluster's nodes to the log. Ray has no public way to keep them from standard output."""

    def log(data: Mapping[str, Any], **_: object) -> None:
        logger.debug("%s", "\n".join(data["lines"]))

    worker = importlib.import_module(f"{ray.__name__}._private.worker")
    if hasattr(worker, PRINT):
        setattr(worker, PRINT, log)


def num_cores(ray: ModuleType) -> float:
    """Return the number of cores of the cluster, free or not."""
    return float(ray.cluster_resources().get("CPU", 0.0))


def worker_name() -> str:
    """Return the name of the machine that this code runs on, for messages: its address in the cluster and its host name."""
    ray = importlib.import_module("ray")
    return f"{ray.util.get_node_ip_address()} ({socket.gethostname()})"
