"""The engine: the recognizer of one worker process, and the threads in which it works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TypeVar

from affekt.errors import AffektError, BadConfig
from affekt.inference.decision import Decision
from affekt.inference.profile import Profile
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row
from affekt.serving.admission import Admission
from affekt.serving.options import RecognizeOptions, SharedOptions
from affekt.serving.refusal import Refusal
from affekt.serving.settings import ServiceSettings
from affekt.serving.uploads import Upload

Result = TypeVar("Result")
MAX_VARIANTS = 64
"""Number of recognizers with different options that are kept. They share one graph."""


class Engine:
    """Recognizes the uploads of requests, a bounded number at a time.

    Attributes:
        recognizer: The recognizer without options.
        profiles: The registered profiles.

    Raises:
        BadBundle: The bundle cannot be opened.
        BadConfig: A profile cannot be read or is of another model, or the model needs words.
    """

    def __init__(self, settings: ServiceSettings, admission: Admission) -> None:
        self.recognizer = Recognizer.load(settings.model, threads=settings.threads)
        if self.recognizer.needs_text:
            raise BadConfig(
                f"{self.recognizer.model} needs words, which the service does not take: serve another model"
            )
        self.profiles = {name: Profile.read(file) for name, file in settings.profiles.items()}
        for profile in self.profiles.values():
            self.recognizer.adapt(profile)  # raises if it is of another model
        self._limits, self._admission = settings.limits, admission
        self._pool = ThreadPoolExecutor(settings.limits.concurrency, "recognize")
        self._streams = ThreadPoolExecutor(max(1, settings.limits.max_streams), "stream")
        self._variant = lru_cache(MAX_VARIANTS)(self._make_variant)

    def variant(self, options: SharedOptions) -> Recognizer:
        """Return the recognizer with the options of a request. Raises `Refusal` if they are not those of the model."""
        emotions = tuple(name.strip() for name in options.emotions.split(",")) if options.emotions else ()
        if options.profile and options.profile not in self.profiles:
            known = ", ".join(self.profiles) or "none"
            raise Refusal("bad_option", f"profile {options.profile!r} is not registered (known: {known})")
        try:
            return self._variant(options.threshold, emotions, options.vad, options.profile)
        except BadConfig as error:
            raise Refusal("bad_option", str(error)) from error

    def _make_variant(self, threshold: float | None, emotions: tuple[str, ...], vad: str, profile: str) -> Recognizer:
        graph = self.recognizer.graph
        if profile:
            graph = graph.adapt(self.profiles[profile])
        return Recognizer(graph, Decision(threshold, emotions), vad)

    async def recognize(self, uploads: Sequence[Upload], options: RecognizeOptions) -> list[Row]:
        """Return the rows of uploads; a file that cannot be read has a row with the status "error".

        Raises:
            Refusal: An option is invalid, a file is too long, or the time limit is exceeded.
        """
        recognizer = self.variant(options)
        deadline = time.monotonic() + self._limits.timeout
        future = self._pool.submit(self._recognize_all, recognizer, uploads, options, deadline)
        try:
            async with asyncio.timeout(self._limits.timeout):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise self._late() from None
        finally:
            future.cancel()  # it still waits if the client has gone or the time is over

    def _recognize_all(
        self, recognizer: Recognizer, uploads: Sequence[Upload], options: RecognizeOptions, deadline: float
    ) -> list[Row]:
        started = time.monotonic()
        rows = [row for upload in uploads for row in self._recognize(recognizer, upload, options, deadline)]
        self._admission.observe(time.monotonic() - started)
        return [keep_top(row, options.top) for row in rows]

    def _recognize(
        self, recognizer: Recognizer, upload: Upload, options: RecognizeOptions, deadline: float
    ) -> Sequence[Row]:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise self._late()
        lenient, max_seconds = options.lenient, self._limits.max_duration
        try:
            if options.timeline:
                return recognizer.timeline(
                    upload, channels=options.channels, lenient=lenient, timeout=remaining, max_seconds=max_seconds
                ).segments
            return [recognizer(upload, lenient=lenient, timeout=remaining, max_seconds=max_seconds)]
        except AffektError as error:
            if error.code == "timeout":
                raise self._late() from error
            if error.code == "too_long":
                raise Refusal(error.code, str(error)) from error
            return [recognizer.error_row(upload, error)]

    def _late(self) -> Refusal:
        return Refusal(
            "timeout", f"the recordings were not recognized within {self._limits.timeout:g} s", retry_after=5
        )

    async def run_stream(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Run a step of a stream in a thread, so that neither requests nor other streams wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._streams, partial(function, *arguments))

    def close(self) -> None:
        """End the threads, after what they are doing."""
        self._pool.shutdown()
        self._streams.shutdown()


def keep_top(row: Row, top: int | None) -> Row:
    """Return a row, and its windows, with the most probable emotions only."""
    if top is None or row.probabilities is None:
        return row
    kept = Row({**row, "probabilities": dict(row.top(top))})
    if row.windows:
        kept["windows"] = [keep_top(window, top) for window in row.windows]
    return kept
