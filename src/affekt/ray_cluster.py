"""The connection to a Ray cluster. The package Ray, from the extra `ray`, is imported when the connection is opened.

Ray's usage statistics are switched off. Messages of Ray do not reach the terminal; those of the nodes are logged at level
DEBUG.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from affekt.audio.decoder_messages import silent_decoders
from affekt.errors import BadConfig
from affekt.extras import need

logger = logging.getLogger(__name__)

AUTO = "auto"
"""The address for the cluster that this machine belongs to. If it belongs to none, Ray is started on this machine."""
START = "ray start --head --disable-usage-stats --include-dashboard=false"
"""The command that error messages suggest."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment variables for Ray: no usage statistics, no progress bars, and no warning that num_gpus=0 will get another
meaning in a later version."""
PRINT = "print_to_stdstream"
"""Name of the function in ray._private.worker that prints the messages of a cluster's nodes."""
TOKEN = "~/.ray/auth_token"
"""File with the user's token for Ray's authentication. A cluster may require one."""
CONNECT_SECONDS = 10.0
"""Longest wait for the head of a cluster, in seconds."""


@contextmanager
def connect(address: str = AUTO, *, purpose: str = "a Ray cluster") -> Iterator[ModuleType]:
    """Connect to a cluster and yield the module `ray`; disconnect afterwards, unless this process was connected before.

    Args:
        address: HOST:PORT of the head node, or "auto" for the cluster that this machine belongs to. If it belongs to none,
            Ray is started on this machine and ended with the connection.
        purpose: What Ray is needed for, for the error message if it is not installed.

    Raises:
        BadConfig: There is no cluster at the address, or it cannot be used from here.
        MissingExtra: Ray is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    _use_token()
    ray = need("ray", extra="ray", purpose=purpose)
    if ray.is_initialized():
        yield ray
        return
    _log_messages(ray)
    with silent_decoders():  # on the command line, this hides messages of Ray's C++ code too
        try:
            _init(ray, address)
            yield ray
        finally:
            ray.shutdown()


def _use_token() -> None:
    """Let Ray send the user's token, if there is one and Ray is not imported yet. Clusters without authentication ignore
    it."""
    if "ray" not in sys.modules and os.path.exists(os.path.expanduser(TOKEN)):  # noqa: PTH110, PTH111
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _init(ray: ModuleType, address: str) -> None:
    _check_address(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "namespace": "affekt"}
    try:
        try:
            ray.init(address=address, **options)  # "auto" may mean RAY_ADDRESS, which Ray reads itself
        except ConnectionError:
            if address != AUTO:
                raise
            ray.init(address="local", include_dashboard=False, **options)
            logger.info("no Ray cluster is running: started Ray on this machine")
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "InvalidAuthToken" in f"{error} {error.__cause__}":
            reason = f"its authentication token differs from yours: copy {TOKEN} from its head node"
        raise BadConfig(
            f"--ray {address}: the Ray cluster cannot be used ({reason}): run the command on one of its nodes, with the "
            "same versions of Python and Ray as the other nodes"
        ) from error


def _check_address(address: str) -> None:
    """Raise `BadConfig` unless something listens at the address. Ray itself would try for minutes and print each attempt."""
    given = address
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS", AUTO)
        given = f"{AUTO} (RAY_ADDRESS={address})"
    if address == AUTO:
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not (host and colon and port.isdecimal()):
        raise BadConfig(f"--ray {given}: expected auto, or HOST:PORT of the head node, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BadConfig(
            f"--ray {given}: nothing answers there ({getattr(error, 'strerror', None) or error}); expected a head node, "
            f"started with {START} --port={port}"
        ) from error


def _log_messages(ray: ModuleType) -> None:
    """Write the messages of a cluster's nodes to the log.

    Ray prints them to standard output, where results are printed, and has no option for this.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)

    def log(data: Mapping[str, Any], *_: object, **__: object) -> None:
        for line in data.get("lines", ()):
            logger.debug("Ray: %s", line)

    worker = importlib.import_module(f"{ray.__name__}._private.worker")
    if hasattr(worker, PRINT):
        setattr(worker, PRINT, log)


def worker_name() -> str:
    """Return this machine's address in the cluster and its host name, for messages."""
    ray = importlib.import_module("ray")
    return f"{ray.util.get_node_ip_address()} ({socket.gethostname()})"
