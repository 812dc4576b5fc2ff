"""Read audio with a time limit.

A decoder that hangs in a C library cannot be interrupted. It therefore runs in a thread, which is abandoned at the limit. A
thread, unlike a process, costs nothing at the start and passes blocks without copying them. Its price is that an abandoned
decoder occupies a core and its memory until the program exits.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Generator

from affekt.audio.read import AudioSource, Notes, Waveform, blocks, name_of
from affekt.errors import BadAudio, BadConfig

TIMEOUT = 3600.0
"""Default limit for one file, in seconds."""
QUEUE_LENGTH = 4
"""Number of blocks that the decoder may be ahead."""
POLL = 0.2
"""Seconds after which a waiting thread checks whether it is to stop. Windows delivers Ctrl-C only between waits."""

_abandoned: list[threading.Thread] = []


def check_timeout(timeout: float) -> None:
    """Raise `BadConfig` if a limit in seconds is not positive."""
    if not timeout > 0:
        raise BadConfig(f"timeout {timeout}: expected a positive number of seconds")


def limited_blocks(
    source: AudioSource,
    sample_rate: float | None = None,
    *,
    timeout: float,
    with_consumer: bool = False,
    lenient: bool = False,
    notes: Notes | None = None,
    separate: bool = False,
    max_seconds: float | None = None,
) -> Generator[Waveform, None, None]:
    """Yield the blocks of `affekt.audio.read.blocks`; raise `BadAudio` with code "timeout" at the limit.

    Args:
        source: The audio, as for `blocks`.
        sample_rate: The sample rate of an array, as for `blocks`.
        timeout: Seconds that reading the source may take.
        with_consumer: Whether the time that the caller spends with the blocks counts too.
        lenient: As for `blocks`.
        notes: As for `blocks`; complete after the last block.
        separate: As for `blocks`.
        max_seconds: As for `blocks`.
    """
    read = blocks(source, sample_rate, lenient=lenient, notes=notes, separate=separate, max_seconds=max_seconds)
    decoder = _Decoder(read, name_of(source))
    decoder.start()
    try:
        elapsed, resumed = 0.0, time.monotonic()
        while (block := decoder.next_block(resumed + timeout - elapsed, timeout)) is not None:
            received = time.monotonic()
            elapsed += received - resumed
            resumed = received
            yield block
            if not with_consumer:
                resumed = time.monotonic()
    finally:
        decoder.stop()


def decoders_are_abandoned() -> bool:
    """Return whether a decoder is still running after its time limit, so that the interpreter cannot exit normally."""
    return any(thread.is_alive() for thread in _abandoned)


class _Decoder(threading.Thread):
    """A thread that decodes one source into a queue of limited length."""

    def __init__(self, waveforms: Generator[Waveform, None, None], source: str) -> None:
        super().__init__(name="affekt-decoder", daemon=True)
        self.waveforms, self.source = waveforms, source
        self.results: queue.Queue[Waveform | BaseException | None] = queue.Queue(QUEUE_LENGTH)
        self.stopped = threading.Event()

    def run(self) -> None:
        try:
            with contextlib.closing(self.waveforms) as waveforms:
                for block in waveforms:
                    if not self._put(block):
                        return
            self._put(None)
        except BaseException as error:  # raised again in the thread that reads
            self._put(error)

    def _put(self, result: Waveform | BaseException | None) -> bool:
        """Add a result to the queue as soon as it has room; return False if its reader has stopped."""
        while not self.stopped.is_set():
            try:
                self.results.put(result, timeout=POLL)
                return True
            except queue.Full:
                continue
        return False

    def next_block(self, deadline: float, timeout: float) -> Waveform | None:
        """Return the next block, or None at the end of the source."""
        while (remaining := deadline - time.monotonic()) > 0:
            try:
                result = self.results.get(timeout=min(remaining, POLL))
            except queue.Empty:
                continue
            if not isinstance(result, BaseException):
                return result
            try:
                raise result
            finally:
                del result  # its traceback refers to this frame
        _abandoned.append(self)
        raise BadAudio(
            f"{self.source} was not read within the time limit of {timeout:g} s; raise the limit (--timeout) if "
            "the file is only long or slow to read",
            code="timeout",
        )

    def stop(self) -> None:
        """Let the thread end. It gets a moment to close its file, unless it has been abandoned."""
        self.stopped.set()
        with contextlib.suppress(queue.Empty):
            while True:  # the thread may be waiting for room
                self.results.get_nowait()
        if self not in _abandoned:
            self.join(timeout=POLL)
            if self.is_alive():
                _abandoned.append(self)
