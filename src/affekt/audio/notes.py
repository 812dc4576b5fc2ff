"""Remarks on a recording that is read although something is wrong with it, and the rule that decides whether it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from affekt.errors import BadAudio

TOLERATED_FRACTION = 0.01
TOLERATED_SECONDS = 1.0
"""A file that lacks at most this fraction of its audio, and at most this many seconds, is read with a note."""
ROUNDING = 1e-6
"""Seconds by which a limit may be exceeded because of rounding."""
CURE = "--lenient (lenient=True in Python) reads the part that exists"


@dataclass
class Notes:
    """Remarks on one source, filled while it is read; complete after its last block."""

    truncated: bool = False
    """Whether the source is damaged or shorter than its header declares."""
    seconds_lost: float | None = 0.0
    """Seconds that are missing in a truncated source; None if the file does not show it."""
    channels: str | None = None
    """The channel that is used instead of the mean of the channels, and why."""

    def fields(self) -> dict[str, Any]:
        """Return the fields of the row; {} if there is nothing to remark."""
        fields: dict[str, Any] = {}
        if self.truncated:
            seconds = self.seconds_lost
            fields |= {"truncated": True, "seconds_lost": None if seconds is None else round(seconds, 4)}
        if self.channels:
            fields["channels"] = self.channels
        return fields


@dataclass
class Reading:
    """The reading of one source: its name in messages, whether it is lenient, and its notes."""

    name: str
    lenient: bool = False
    notes: Notes = field(default_factory=Notes)
    fraction_lost: float = 0.0
    """The fraction of its bytes that the container lacks; a decoder's error is then expected."""
    separate: bool = False
    """Whether channels are kept separate instead of being mixed."""
    channels: int | None = None
    """The number of separate channels, once it is known."""
    _reason: str = ""
    channel_seconds: dict[int, float] = field(default_factory=dict)
    """Index of a channel -> seconds for which it is used instead of the mean."""

    def expect_loss(self, reason: str, fraction: float | None) -> None:
        """Note that the container lacks this fraction of its bytes, or raise if that is more than is tolerated.

        Args:
            reason: The reason, for the message.
            fraction: The fraction; None if nothing can be decoded.
        """
        if fraction is None:
            raise BadAudio(f"{self.name} is cut off: {reason}", code="truncated")
        if fraction > TOLERATED_FRACTION:
            self.report_loss(reason)
        self.fraction_lost, self._reason = fraction, reason

    def settle(self, seconds: float) -> None:
        """Note the loss that was expected, now that the duration of what exists is known, or raise if it is too large."""
        if self.fraction_lost:
            total = seconds / max(1e-9, 1 - self.fraction_lost)
            self.notes.seconds_lost, self.notes.truncated = 0.0, False
            self.report_loss(self._reason, total - seconds, total)

    def use_channel(self, channel: int, channels: int, seconds: float) -> None:
        """Note that a channel is used instead of the mean of the channels, for this time."""
        used = self.channel_seconds
        used[channel] = used.get(channel, 0.0) + seconds
        numbers = " and ".join(str(index + 1) for index in sorted(used))
        self.notes.channels = (
            f"channel {numbers} of {channels} is used for {sum(used.values()):.1f} s, "
            "where the mean of the channels is more than 20 dB softer"
        )

    def report_loss(
        self,
        reason: str,
        seconds: float | None = None,
        total: float = 0.0,
        *,
        slack: float = 0.0,
        cut: bool = True,
        cause: Exception | None = None,
    ) -> None:
        """Note that audio is missing, or raise if more is missing than is tolerated.

        Args:
            reason: The reason, for the message.
            seconds: The duration of the missing audio; None if it is unknown.
            total: The duration of the whole, in seconds, with the missing audio.
            slack: Seconds that may be missing in any case.
            cut: Whether the audio is certainly cut off; otherwise, it may be damaged.
            cause: The error of a decoder.

        Raises:
            BadAudio: The loss is unknown or too large, and reading is not lenient.
        """
        if seconds is None and self.fraction_lost:
            return
        tolerated = (
            seconds is not None and seconds <= max(slack, min(TOLERATED_FRACTION * total, TOLERATED_SECONDS)) + ROUNDING
        )
        if not (tolerated or self.lenient):
            fault = "cut off" if cut else "damaged or cut off"
            raise BadAudio(f"{self.name} is {fault}: {reason}; {CURE}", code="truncated") from cause
        notes = self.notes
        notes.truncated = True
        known = seconds is not None and notes.seconds_lost is not None
        notes.seconds_lost = (notes.seconds_lost or 0.0) + (seconds or 0.0) if known else None
