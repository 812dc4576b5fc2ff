"""Praat's TextGrid in its long, short and binary form.

https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html describes them. As in Praat, the long and the short
form are the same sequence of numbers, texts in quotes and flags; everything else on a line is a comment. Intervals without
text are the gaps between utterances, and are left out.
"""

from __future__ import annotations

import logging
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from affekt.errors import BadTranscript
from affekt.plural import quantity
from affekt.timeline.transcripts.entries import Entry, clean, read_text_file, shorten
from affekt.timeline.transcripts.tiers import choose_tiers, split_name

BINARY = b"ooBinaryFile\x08TextGrid"
TOKEN = re.compile(r'"(?P<text>(?:[^"]|"")*)"(?!\S)|<(?P<flag>[^<>\s]*)>(?!\S)|(?P<comment>!.*)|(?P<other>\S+)')
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
INTERVALS, POINTS = "IntervalTier", "TextTier"

logger = logging.getLogger(__name__)


@dataclass
class Tier:
    """A tier of intervals: start, end and text of each, with its position for messages."""

    name: str
    intervals: list[tuple[str, float, float, str]] = field(default_factory=list)


class Source(Protocol):
    """The contents of a TextGrid, in either form."""

    def number(self, what: str) -> float: ...

    def count(self, what: str) -> int: ...

    def text(self, what: str) -> str: ...

    def kind(self) -> str:
        """Return the class of the next tier."""
        ...

    def flag(self) -> bool:
        """Return whether there are tiers."""
        ...

    @property
    def position(self) -> str: ...


def read_textgrid(path: Path, *, tiers: Sequence[str] | None = None) -> Iterator[Entry]:
    """Yield the intervals with text of tiers; the name of a tier is the speaker, unless it says what the tier has.

    Raises:
        BadTranscript: The file is not a TextGrid, or a tier does not exist.
    """
    with path.open("rb") as stream:
        is_binary = stream.read(len(BINARY)) == BINARY
    source: Source = BinarySource(path, path.read_bytes()) if is_binary else TextSource(path)
    read = read_tiers(path, source)
    chosen = choose_tiers(path, [tier.name for tier in read], tiers)
    _log_tiers(path, [tier.name for tier in read if tier.name not in chosen])
    gaps = 0
    for tier in read:
        if tier.name not in chosen:
            continue
        for position, start, end, text in tier.intervals:
            if cleaned := clean(text):
                yield Entry(f"{position} (tier {tier.name!r})", start, end, split_name(tier.name)[0], cleaned)
            else:
                gaps += 1
    if gaps:
        logger.info("%s: skipped %s without text", path, quantity(gaps, "interval"))


def _log_tiers(path: Path, others: Sequence[str]) -> None:
    if others:
        logger.info("%s: %s not read: %s", path, quantity(len(others), "tier"), ", ".join(map(repr, others)))


def read_tiers(path: Path, source: Source) -> list[Tier]:
    """Return the tiers of intervals; those of points are logged.

    Raises:
        BadTranscript: The file is damaged or has no tier of intervals.
    """
    source.number("the start of the recording")
    source.number("its end")
    tiers, skipped = list[Tier](), Counter[str]()
    for _ in range(source.count("the number of tiers") if source.flag() else 0):
        kind, name = source.kind(), source.text("the name of a tier")
        source.number("the start of a tier")
        source.number("its end")
        tier = Tier(name)
        for _ in range(source.count("the number of intervals or points")):
            position = source.position
            start = source.number("a time")
            end = source.number("the end of an interval") if kind == INTERVALS else start
            tier.intervals.append((position, start, end, source.text("the text of an interval or point")))
        if kind == INTERVALS:
            tiers.append(tier)
        else:
            skipped[f"{name!r} ({quantity(len(tier.intervals), 'point')})"] += 1
    if skipped:
        logger.warning("%s: tiers of points have no start and end, and are skipped: %s", path, ", ".join(skipped))
    if not tiers:
        raise BadTranscript(f"{path} has no tier of intervals: expected one per speaker")
    if repeated := [name for name, number in Counter(tier.name for tier in tiers).items() if number > 1]:
        raise BadTranscript(f"{path} has several tiers {repeated[0]!r}: rename all but one")
    return tiers


class TextSource:
    """The long and the short form."""

    def __init__(self, path: Path) -> None:
        self._path, self._text = path, read_text_file(path)
        self._tokens = self._scan()
        self._line, self._scanned = 1, 0
        for expected in ("ooTextFile", "TextGrid"):
            if self.text(f'"{expected}"').removesuffix(" short") != expected:
                raise self._error(f'expected "{expected}"; save it in Praat as text file or short text file')

    def _scan(self) -> Iterator[tuple[str, Any]]:
        for match in TOKEN.finditer(self._text):
            self._line += self._text.count("\n", self._scanned, match.start())
            self._scanned = match.start()
            if match["text"] is not None:
                yield "text", match["text"].replace('""', '"')
            elif match["flag"] is not None:
                yield "flag", match["flag"]
            elif match["other"] and match["other"].startswith('"'):
                raise self._error("a quote is opened and never closed, or something follows it; double quotes in texts")
            elif match["other"] and NUMBER.fullmatch(match["other"]):
                yield "number", float(match["other"])

    @property
    def position(self) -> str:
        return f"line {self._line + self._text.count(chr(10), self._scanned, self._next_start())}"

    def _next_start(self) -> int:
        """Return where the line after the present token begins."""
        end = self._text.find("\n", self._scanned)
        return len(self._text) if end < 0 else end + 1

    def _error(self, problem: str) -> BadTranscript:
        return BadTranscript(f"{self._path}, line {self._line}, is not a TextGrid: {problem}")

    def _next(self, kind: str, what: str) -> Any:
        found_kind, value = next(self._tokens, ("the end of the file", None))
        if found_kind != kind:
            shown = shorten(str(value)) if value is not None else found_kind
            raise self._error(f"{shown} is not {what}: expected a {kind}; is a line missing?")
        return value

    def number(self, what: str) -> float:
        return float(self._next("number", what))

    def count(self, what: str) -> int:
        value = self.number(what)
        if value < 0 or not value.is_integer():
            raise self._error(f"{value:g} is not {what}: expected a whole number")
        return int(value)

    def text(self, what: str) -> str:
        return str(self._next("text", what))

    def kind(self) -> str:
        kind = self.text(f"the class of a tier, {INTERVALS} or {POINTS}")
        if kind not in (INTERVALS, POINTS):
            raise self._error(f"{shorten(kind)}: expected the class of a tier, {INTERVALS} or {POINTS}")
        return kind

    def flag(self) -> bool:
        return bool(self._next("flag", "the flag <exists>") == "exists")


class BinarySource:
    """The binary form: big-endian numbers, and texts in ASCII or UTF-16 after their lengths."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._data, self._at = path, data, len(BINARY)

    @property
    def position(self) -> str:
        return f"byte {self._at}"

    def _take(self, size: int, what: str) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise BadTranscript(f"{self._path} ends within {what}: it is cut off; save it again in Praat")
        self._at += size
        return taken

    def _unpack(self, code: str, what: str) -> Any:
        return struct.unpack(f">{code}", self._take(struct.calcsize(code), what))[0]

    def number(self, what: str) -> float:
        return float(self._unpack("d", what))

    def count(self, what: str) -> int:
        number = int(self._unpack("i", what))
        if number < 0:
            raise BadTranscript(f"{self._path}, {self.position}: {number} is not {what}: the file is damaged")
        return number

    def text(self, what: str) -> str:
        size = self._unpack("H", what)
        if size != 0xFFFF:
            return self._take(size, what).decode("latin-1")
        start = self._at + 2  # a text beyond ASCII; its length counts a pair of surrogates as one character
        for _ in range(self._unpack("H", what)):
            if 0xD800 <= self._unpack("H", what) < 0xDC00:
                self._take(2, what)
        try:
            return self._data[start : self._at].decode("utf-16-be")
        except UnicodeDecodeError as error:
            raise BadTranscript(
                f"{self._path}, {self.position}: a text is damaged ({error.reason}); save it again in Praat"
            ) from error

    def kind(self) -> str:
        size = self._unpack("B", "the class of a tier")
        kind = self._take(size, "the class of a tier").decode("latin-1")
        if kind not in (INTERVALS, POINTS):
            raise BadTranscript(
                f"{self._path}, {self.position}: {shorten(kind)} is no class of a tier: the file is damaged"
            )
        return kind

    def flag(self) -> bool:
        return bool(self._unpack("B", "the flag of tiers"))
