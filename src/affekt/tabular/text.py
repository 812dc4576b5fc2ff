"""The characters and lines of text files: encodings, byte-order marks, and Windows punctuation."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from affekt.errors import BadCorpus

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte-order marks; the mark of UTF-32 begins with that of UTF-16."""


def _windows(code: int) -> str:
    """Return the character of Windows-1252; the five unassigned codes are kept."""
    return bytes([code]).decode("cp1252", errors="ignore") or chr(code)


CONTROLS = {code: _windows(code) for code in range(0x80, 0xA0)}
"""The control characters U+0080 to U+009F, which occur where Windows-1252 was read as Latin-1: U+0092 is an apostrophe."""


def repair(text: str) -> str:
    """Replace control characters that were meant as Windows punctuation, such as the apostrophes of old copies of MELD."""
    return text if text.isascii() else text.translate(CONTROLS)


def read_text(path: Path) -> str:
    """Read a text file.

    The encoding is UTF-8, or UTF-16 or UTF-32 with a byte-order mark. Lines that are not valid UTF-8 are read as
    Windows-1252, which older corpora use.

    Raises:
        BadCorpus: The file cannot be read, or is not text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadCorpus(f"{path} cannot be read: {error.strerror or error}") from error
    text = repair(_decode(path, data))
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise _nul_character(path, line)
    return text


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, without their ends (LF, CRLF or CR)."""
    return [line.rstrip("\r\n") for line in split_lines(read_text(path))]


def split_lines(text: str) -> list[str]:
    """Split a text after LF, CRLF and CR only; `str.splitlines` also splits at characters that occur inside of fields."""
    return list(io.StringIO(text, newline=""))


def stream_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file with their ends, decoded as `read_text` does; only a line is in memory at a time.

    A file in UTF-16 or UTF-32 is read as a whole.

    Raises:
        BadCorpus: The file cannot be read, or is not text.
    """
    try:
        with path.open("rb") as stream:
            first = stream.peek(4)[:4]
            if any(first.startswith(mark) for mark, _ in MARKS):
                yield from split_lines(read_text(path))
                return
            stream.seek(len(codecs.BOM_UTF8) if first.startswith(codecs.BOM_UTF8) else 0)
            number = 1
            for data in stream:
                text = repair(_decode_line(path, number, data))
                if "\0" in text:
                    raise _nul_character(path, number)
                lines = split_lines(text) if "\r" in text else [text]  # CR alone may end a line
                yield from lines
                number += len(lines)
    except OSError as error:
        raise BadCorpus(f"{path} cannot be read: {error.strerror or error}") from error


def _nul_character(path: Path, line: int) -> BadCorpus:
    return BadCorpus(f"{path}, line {line}, contains a NUL character: expected text; save the file as UTF-8")


def _decode(path: Path, data: bytes) -> str:
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise BadCorpus(f"{path} is damaged: it is marked as {encoding}, but {error.reason}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
        return "\n".join(_decode_line(path, number, line) for number, line in enumerate(lines, start=1))


def _decode_line(path: Path, number: int, line: bytes) -> str:
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise BadCorpus(f"{path}, line {number}, is neither UTF-8 nor Windows-1252: save the file as UTF-8")
