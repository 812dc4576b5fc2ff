"""Frames of an MP3 file (MPEG audio, ISO/IEC 11172-3, 2.4.1), which show its length where no header states it.

A file may consist of parts: files that were joined, each with its own Xing header, or sections with different sample rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import IO, NamedTuple

from affekt.audio.tags import skip_leading_tags

CHUNK = 1 << 18
"""Bytes read at a time."""
FURTHEST = 1 << 16
"""Bytes after the tags within which the first frame must begin."""
HEADER = 192
"""Bytes of a frame that contain its header and a Xing or VBRI header."""
NUM_CONFIRMING = 2
"""Number of frames of the same kind that must follow a position for it to be accepted as the beginning of a frame."""
VERSIONS = {0: 2.5, 2: 2.0, 3: 1.0}
"""Bits in a frame's header -> version of MPEG."""
DIVISORS = {1.0: 1, 2.0: 2, 2.5: 4}
"""Divisor of a version's sample rates."""
LAYERS = {1: 3, 2: 2, 3: 1}
"""Bits in a frame's header -> layer."""
RATES = (44_100, 48_000, 32_000)
"""Sample rates of version 1 by the bits in a frame's header, in Hz."""
KILOBITS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(Whether the version is 1, layer) -> bit rates in kbit/s, for the indices from 1."""


class Kind(NamedTuple):
    """The properties that are the same in all frames of a part."""

    rate: int
    channels: int
    version: float
    layer: int

    @property
    def samples(self) -> int:
        """Samples per channel of a frame."""
        return 384 if self.layer == 1 else 576 if self.layer == 3 and self.version > 1 else 1152


@dataclass
class MpegPart:
    """Consecutive frames of one kind."""

    start: int
    """Position of the first byte to decode. It is after a VBRI header, and after a Xing header whose number of frames is
    missing or wrong."""
    kind: Kind
    end: int = 0
    frames: int = 0
    """Complete frames with audio."""
    declared: int = 0
    """Frames with audio according to a Xing or VBRI header; 0 if there is none."""
    audio_start: int = 0
    """Position after that header."""
    cut: bool = False
    """Whether an incomplete frame follows."""

    @property
    def seconds(self) -> float:
        """The duration of the complete frames."""
        return self.frames * self.kind.samples / self.kind.rate

    @property
    def seconds_missing(self) -> float:
        """The duration of the frames that a header declares and that do not exist."""
        missing = self.declared - self.frames
        # Some encoders count the header's own frame.
        return missing * self.kind.samples / self.kind.rate if missing > (0 if self.cut else 1) else 0.0

    @property
    def has_length(self) -> bool:
        """Whether the decoder finds a header with the number of frames."""
        return self.start < self.audio_start and self.declared >= self.frames and not self.seconds_missing


def find_parts(stream: IO[bytes], size: int) -> list[MpegPart]:
    """Return the parts of an MP3; [] if the stream is not an MP3, or has frames of free-format bit rate."""
    frames, parts = _Frames(stream, size), list[MpegPart]()
    position, part = frames.find(0, min(size, FURTHEST)), None
    while position is not None and position < size:
        data = frames.read(position)
        kind, length = _parse(data[:4])
        if kind is None or (part and kind != part.kind and not frames.confirm(position)):
            part = None  # other bytes follow: a tag, or damage
            position = frames.find(max(position + 1, skip_leading_tags(stream, position)), size)
            continue
        if position + length > size:
            if part:
                part.cut = True
            break
        declared, is_vbri = _declared_frames(data, kind)
        if part is None or kind != part.kind or declared is not None:
            part = MpegPart(position, kind)
            parts.append(part)
        position += length
        part.end = position
        if declared is None:
            part.frames += 1
        else:
            part.declared, part.audio_start = declared, position
            part.start = position if is_vbri or not declared else part.start
    return [_without_wrong_header(part) for part in parts if part.frames]


def _without_wrong_header(part: MpegPart) -> MpegPart:
    if part.declared < part.frames or part.seconds_missing:
        part.start = max(part.start, part.audio_start)
    if part.declared < part.frames:
        part.declared = 0
    return part


class _Frames:
    """Access to the headers of frames in a stream."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self._chunk, self._start = b"", 0

    def read(self, position: int) -> bytes:
        """Return the first bytes of a frame."""
        index = position - self._start
        if not 0 <= index <= len(self._chunk) - HEADER:
            self._stream.seek(position)
            self._chunk, self._start, index = self._stream.read(CHUNK), position, 0
        return self._chunk[index : index + HEADER]

    def find(self, start: int, end: int) -> int | None:
        """Return the position of the first frame that begins between two positions, after any other bytes."""
        while start < end:
            self._stream.seek(start)
            data = self._stream.read(CHUNK)
            index = data.find(b"\xff")
            while index >= 0:
                if start + index >= end:
                    return None
                if self.confirm(start + index):
                    return start + index
                index = data.find(b"\xff", index + 1)
            if len(data) < CHUNK:
                return None
            start += len(data)
        return None

    def confirm(self, position: int) -> bool:
        """Return whether a frame begins here: others of its kind follow, or the end of the file."""
        first: Kind | None = None
        for _ in range(1 + NUM_CONFIRMING):
            if position == self._size and first:
                return True
            kind, length = _parse(self.read(position)[:4])
            if kind is None or first not in (None, kind):
                return False
            first, position = kind, position + length
        return True


@lru_cache(maxsize=4096)
def _parse(header: bytes) -> tuple[Kind | None, int]:
    """Return the kind and the length of a frame, in bytes; (None, 0) if this is not a header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None, 0
    version, layer = VERSIONS.get(header[1] >> 3 & 3), LAYERS.get(header[1] >> 1 & 3)
    rate_index, bit_rate_index = header[2] >> 2 & 3, header[2] >> 4
    if version is None or layer is None or rate_index == 3 or bit_rate_index in (0, 15):
        return None, 0
    rate = RATES[rate_index] // DIVISORS[version]
    kind = Kind(rate, 1 if header[3] >> 6 == 3 else 2, version, layer)
    bits = 1000 * KILOBITS[version == 1, layer][bit_rate_index - 1]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return kind, (12 * bits // rate + padding) * 4
    return kind, kind.samples // 8 * bits // rate + padding


def _declared_frames(data: bytes, kind: Kind) -> tuple[int | None, bool]:
    """Return the number of frames that a Xing or VBRI header declares (None without one), and whether it is a VBRI header."""
    if data[36:40] == b"VBRI":
        return int.from_bytes(data[50:54], "big"), True
    side = (17 if kind.channels == 1 else 32) if kind.version == 1 else (9 if kind.channels == 1 else 17)
    for start in (4 + side, 6 + side):  # without or with a checksum of 2 bytes
        if data[start : start + 4] in (b"Xing", b"Info"):
            has_frames = data[start + 7 : start + 8] and data[start + 7] & 1
            return int.from_bytes(data[start + 8 : start + 12], "big") if has_frames else 0, False
    return None, False
