"""A worker process: `python -m affekt.serving.worker DESCRIPTOR`, with the settings on standard input."""

from __future__ import annotations

import socket
import sys

from affekt.errors import AffektError
from affekt.serving.run import CANNOT_START, run_worker
from affekt.serving.settings import ServiceSettings


def main() -> None:
    """Serve on an inherited socket."""
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        try:
            run_worker(ServiceSettings.from_json(sys.stdin.read()), listener)
        except AffektError as error:
            sys.stderr.write(f"affekt: {error}\n")
            sys.exit(CANNOT_START)


if __name__ == "__main__":
    main()
