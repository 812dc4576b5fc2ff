"""Entries of intervals as they are written, their checks, and the errors of files, which all readers share."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from affekt.errors import BadCorpus, BadTranscript
from affekt.interval import Interval, Word
from affekt.invisible import strip_invisible
from affekt.plural import quantity
from affekt.tabular.text import read_text

MAX_BYTES = 256 << 20
"""Limit of a file's size. The transcript of 10 hours with the times of all words has about 20 MB."""
SLACK = 0.1
"""Seconds by which consecutive intervals of a speaker may overlap: recognizers of speech round their times."""
MAX_SHOWN = 60
"""Characters of a line that a message shows."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """An interval as it is written; times may still be impossible."""

    position: str
    """Where it is in the file, for messages: "line 3", "segment 2"."""
    start: float
    end: float
    speaker: str | None = None
    text: str | None = None
    words: tuple[Word, ...] = ()


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Check that a path is a file of bearable size, and raise the errors of text and tables as `BadTranscript`."""
    try:
        if path.is_dir():
            raise BadTranscript(f"{path} is a folder: expected a file")
        size = path.stat().st_size
        if not size:
            raise BadTranscript(f"{path} is empty: expected intervals of a recording")
        if size > MAX_BYTES:
            raise BadTranscript(
                f"{path} has {size / 2**20:.0f} MiB; at most {MAX_BYTES >> 20} MiB are read: is it a transcript? "
                "If so, split it"
            )
        yield
    except BadCorpus as error:
        raise BadTranscript(str(error)) from error
    except OSError as error:
        raise BadTranscript(f"{path} cannot be read: {error.strerror or error}") from error


def read_text_file(path: Path) -> str:
    """Return the text of a file, decoded as tables are (`affekt.tabular.text.read_text`).

    Raises:
        BadCorpus: It is not text, or only white space.
    """
    text = read_text(path)
    if not strip_invisible(text):
        raise BadCorpus(f"{path} has no text: expected intervals of a recording")
    return text


def shorten(text: str) -> str:
    """Return a text for a message: quoted, at most MAX_SHOWN characters."""
    return repr(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "...")


def clean(text: str | None) -> str | None:
    """Return a text on one line without needless spaces; None if nothing remains. Half of a surrogate pair becomes "?"."""
    if not text:
        return None
    valid = text if text.isascii() else text.encode("utf-8", "replace").decode()
    return " ".join(strip_invisible(valid).split()) or None


def log_skipped(path: Path, skipped: Counter[str], total: int) -> None:
    """Log how many intervals of a file were skipped, by reason."""
    if number := sum(skipped.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        logger.warning("%s: skipped %d of %s: %s", path, number, quantity(total, "interval"), reasons)


def collect(path: Path, entries: Iterable[Entry]) -> list[Interval]:
    """Check entries and return them as intervals, by start.

    Raises:
        BadTranscript: A time is negative or not finite, an interval ends before it starts, intervals of a speaker overlap, or
            there are none.
    """
    kept, total = list[Entry](), 0
    for entry in entries:
        total += 1
        _check_times(path, entry)
        if entry.end > entry.start:
            kept.append(entry)
    if not kept:
        raise BadTranscript(
            f"{path} has no intervals: expected at least one, with a start, a later end, and text if any"
        )
    log_skipped(path, Counter({"without length": total - len(kept)}), total)
    kept.sort(key=lambda entry: (entry.start, entry.end))
    return [
        Interval(entry.start, entry.end, entry.speaker, entry.text, entry.words)
        for entry in _separate(path, kept)
        if entry.end > entry.start
    ]


def _check_times(path: Path, entry: Entry) -> None:
    times = f"{path}, {entry.position}: start {entry.start:g} s, end {entry.end:g} s"
    if not (math.isfinite(entry.start) and math.isfinite(entry.end)):
        raise BadTranscript(f"{times}: expected finite times, in seconds from the start of the recording")
    if entry.start < 0:
        raise BadTranscript(
            f"{times}: expected no negative times; they count from the start of the recording: shift all times of the "
            "file"
        )
    if entry.end < entry.start:
        raise BadTranscript(f"{times}: the end is before the start; swap or correct them")


def _separate(path: Path, entries: list[Entry]) -> list[Entry]:
    """Cut intervals that overlap the speaker's next one a little; raise `BadTranscript` if the overlap is longer."""
    last: dict[str | None, int] = {}
    cut = 0
    for index, entry in enumerate(entries):
        previous = last.get(entry.speaker)
        if previous is not None and entries[previous].end > entry.start:
            if entries[previous].end - entry.start > SLACK + 1e-9:
                raise BadTranscript(_overlap(path, entries[previous], entry))
            entries[previous] = _end_at(entries[previous], entry.start)
            cut += 1
        last[entry.speaker] = index
    if cut:
        logger.info("%s: cut %s that overlapped the next by at most %g s", path, quantity(cut, "interval"), SLACK)
    return entries


def _end_at(entry: Entry, end: float) -> Entry:
    words = tuple(Word(min(word.start, end), min(word.end, end), word.text) for word in entry.words)
    return replace(entry, end=end, words=words)


def _overlap(path: Path, first: Entry, second: Entry) -> str:
    who = f"the same speaker, {first.speaker!r}" if first.speaker else "no speaker"
    cure = "correct the times" if first.speaker else "correct the times, or name the speakers if there are several"
    return (
        f"{path}, {second.position}: starts at {second.start:g} s, while {first.position} lasts to {first.end:g} s, "
        "and both "
        f"have {who}: expected intervals that do not overlap; {cure}"
    )


def choose_recording(path: Path, names: Iterable[str], file_id: str | None) -> str | None:
    """Return the name of a recording in a file that may have several; None if the file names none.

    Args:
        path: The file.
        names: The names of recordings in it.
        file_id: The name or path of the recording that is wanted. It need not be known if there is only one.

    Raises:
        BadTranscript: There are several, and it is unknown or is none of them.
    """
    known = list(dict.fromkeys(names))
    if len(known) <= 1:
        return known[0] if known else None
    shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
    if file_id is None:
        raise BadTranscript(f"{path} has {len(known)} recordings ({shown}): name the one that is meant, with file_id=")
    for key in (str, _base_name, _stem):
        if matches := [name for name in known if key(name) == key(file_id)]:
            if len(matches) > 1:
                raise BadTranscript(
                    f"{path} has several recordings that may be {file_id!r}: {', '.join(matches[:5])}; make their "
                    "names differ"
                )
            return matches[0]
    raise BadTranscript(
        f"{path} has {len(known)} recordings ({shown}), but none is called {_stem(file_id)!r}: rename the recording, "
        "or keep "
        "only its lines"
    )


def _base_name(name: str) -> str:
    return PureWindowsPath(name).name  # also of paths with slashes


def _stem(name: str) -> str:
    return PureWindowsPath(name).stem
