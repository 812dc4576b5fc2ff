"""Tags before and after the audio of a file: ID3 (id3.org), APE and Lyrics3, which programs add to any format."""

from __future__ import annotations

from typing import IO

ID3V1 = 128
"""Size of an ID3v1 tag at the end of a file."""
ID3V2_HEADER = 10
"""Size of an ID3v2 tag's header."""
APE_FOOTER = 32
"""Size of an APE tag's footer, and of its header."""
APE_IS_HEADER = 0x20
"""Flag, in the last byte of the flags, of an APE tag's header; a footer lacks it."""
LYRICS_FOOTER = 15
"""Size of the end of a Lyrics3 tag: six digits of its size, and LYRICS200."""


def skip_leading_tags(stream: IO[bytes], start: int = 0) -> int:
    """Return the position after the ID3v2 and APE tags that begin at a position."""
    while True:
        stream.seek(start)
        header = stream.read(APE_FOOTER)
        if len(header) >= ID3V2_HEADER and header[:3] == b"ID3" and header[3] != 0xFF:
            footer = ID3V2_HEADER if header[5] & 0x10 else 0
            # The length is in four bytes of seven bits.
            length = sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(header[6:ID3V2_HEADER]))
            start += ID3V2_HEADER + length + footer
        elif len(header) == APE_FOOTER and header.startswith(b"APETAGEX") and header[23] & APE_IS_HEADER:
            start += APE_FOOTER + int.from_bytes(header[12:16], "little")
        else:
            return start


def find_audio_end(stream: IO[bytes], size: int) -> int:
    """Return the position where the audio ends: that of the first tag after it, or the end of the file."""
    end = size
    while tag := _trailing_tag(stream, end):
        end -= tag
    return end


def _trailing_tag(stream: IO[bytes], end: int) -> int:
    """Return the size of the tag that ends at a position; 0 if there is none."""
    stream.seek(max(0, end - ID3V1))
    tail = stream.read(min(end, ID3V1))
    if len(tail) == ID3V1 and tail.startswith(b"TAG"):
        return ID3V1
    if tail[-APE_FOOTER:].startswith(b"APETAGEX"):
        length = int.from_bytes(tail[-APE_FOOTER + 12 : -APE_FOOTER + 16], "little")
        has_header = tail[-APE_FOOTER + 23] & 0x80
        length += APE_FOOTER if has_header else 0
    elif tail.endswith(b"LYRICS200") and tail[-LYRICS_FOOTER : -LYRICS_FOOTER + 6].isdigit():
        length = int(tail[-LYRICS_FOOTER : -LYRICS_FOOTER + 6]) + LYRICS_FOOTER
    else:
        return 0
    return length if length <= end else 0
