"""The log of the commands on standard error."""

from __future__ import annotations

import logging
import sys

from affekt.terminal import escape_controls


class _PlainHandler(logging.Handler):
    """A log handler that prints to the current `sys.stderr`, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        print(escape_controls(self.format(record), keep="\n"), file=sys.stderr, flush=True)


def show_log(*, debug: bool = False) -> None:
    """Print the package's log to standard error: one message per line, without level or time.

    Messages of level INFO and above are printed; with `debug` also those of level DEBUG, such as tracebacks.
    """
    logger = logging.getLogger("affekt")
    if not any(isinstance(handler, _PlainHandler) for handler in logger.handlers):
        logger.addHandler(_PlainHandler())
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
