"""Admission: a bounded number of requests, and of bytes in memory. What exceeds it is refused at once instead of waiting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from affekt.serving.refusal import Refusal
from affekt.serving.settings import Limits

SMOOTHING = 0.1
"""The weight of the newest request in the mean duration of requests."""
MAX_RETRY = 120
"""Largest number of seconds after which a refused request is asked to come again."""


class Admission:
    """The requests of one worker that are being read, wait or are recognized. Used by the event loop only.

    Attributes:
        requests: The number of admitted requests.
        streams: The number of admitted streams.
        buffered: Bytes of the bodies in memory.
        stopping: Whether the service is about to stop: what has been admitted is finished, nothing else is.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.requests = self.streams = self.buffered = 0
        self.stopping = False
        self._mean_seconds = 0.1

    @contextmanager
    def request(self) -> Iterator[None]:
        """Admit a request for the block. Raises `Refusal` if there are too many."""
        if self.requests >= self._limits.concurrency + self._limits.queue:
            raise self._busy(f"{self.requests} requests are in progress")
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Admit a stream for the block. Raises `Refusal` if there are too many, or if the service is about to stop."""
        if self.stopping:
            raise Refusal("stopping", "the service is about to stop; try again", retry_after=1)
        if self.streams >= self._limits.max_streams:
            raise self._busy(f"{self.streams} streams are in progress")
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    def reserve(self, size: int) -> None:
        """Count bytes of a body, which `release` returns. Raises `Refusal` if too many are in memory."""
        if self.buffered + size > self._limits.max_buffered:
            raise self._busy("the memory for recordings is full")
        self.buffered += size

    def release(self, size: int) -> None:
        """Return bytes that `reserve` counted."""
        self.buffered -= size

    def observe(self, seconds: float) -> None:
        """Note how long a recognition took, by which the time of the next attempt is estimated."""
        self._mean_seconds += SMOOTHING * (seconds - self._mean_seconds)

    def _busy(self, reason: str) -> Refusal:
        wait = self.requests * self._mean_seconds / self._limits.concurrency
        seconds = min(MAX_RETRY, max(1, math.ceil(wait)))
        return Refusal("busy", f"{reason}; try again in {seconds} s", retry_after=seconds)
