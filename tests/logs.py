"""Collect what affekt logs."""

import contextlib
import logging


class _Collector(logging.Handler):
    def __init__(self):
        super().__init__()
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def logged():
    """Yield a list to which every message of affekt's logger is appended, from level INFO up."""
    logger, collector = logging.getLogger("affekt"), _Collector()
    level = logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    try:
        yield collector.messages
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
