"""What every corpus is: a name, where it comes from, a reader from its layout to utterances, and its published counts."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from affekt.errors import BadCorpus
from affekt.utterance import Utterance


@dataclass(frozen=True)
class Published:
    """What has been published of a corpus, or of a part of it; what is left empty is not compared."""

    utterances: int
    emotions: Mapping[str, int] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    speakers: Mapping[str, int] = field(default_factory=dict)
    labels: str = ""  # counted after this label set; "" counts every utterance
    split: str = ""  # counted in this part of the official split; "" counts all
    dialogues: int | None = None


@dataclass(frozen=True)
class Corpus:
    """A corpus, or a layout of one's own data."""

    name: str
    title: str
    language: str  # ISO 639-1
    licence: str
    source: str  # who made it, and where it is had
    style: str  # how its emotions came about: "acted", ...
    reader: Callable[..., list[Utterance]]  # given the root, and the options by name
    alteration: str = ""  # what has to be said of a copy that was rebuilt
    published: tuple[Published, ...] = ()
    names: Callable[[], Collection[str]] | None = None  # the published utterances' ids, where they are known
    remarks: Callable[[Path, Sequence[Utterance]], list[str]] | None = None  # problems that only its reader knows of
    options: tuple[str, ...] = ()  # what the reader takes beside the root
    is_file: bool = False  # whether its root is a file

    def read(self, root: Path, **options: Any) -> list[Utterance]:
        """The utterances below the corpus's folder, sorted by id. Raises `BadCorpus`."""
        if not (root.is_file() if self.is_file else root.is_dir()):
            kind = "file" if self.is_file else "folder"
            raise BadCorpus(f"{root} is no {kind}; expected {self.title} ({self.source})")
        utterances = sorted(self.reader(root, **options), key=lambda utterance: utterance.id)
        if not utterances:
            raise BadCorpus(f"{root} holds no utterance of {self.title}; expected its published layout ({self.source})")
        for one, other in pairwise(utterances):
            if one.id == other.id:
                raise BadCorpus(f"{root} has two utterances {one.id!r} ({one.audio}, {other.audio}): keep one of them")
        return utterances

    def note(self, root: Path) -> str:
        """What has to be said wherever a figure on this copy of the corpus is printed; "" for the original."""
        return "rebuilt audio" if (root / "REBUILT.md").is_file() else ""


def data_root(name: str) -> Path:
    """The folder of a corpus below AFFEKT_DATA. Raises `BadCorpus` where the variable is not set."""
    root = os.environ.get("AFFEKT_DATA")
    if not root:
        raise BadCorpus(
            f"corpus {name!r} is looked for in AFFEKT_DATA, which is not set: name the folder that holds {name}/"
        )
    return Path(root) / name


def visible(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """The files of a folder with one of these suffixes; hidden ones ("._name", which macOS leaves) are passed over."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            yield path


def text_of(path: Path) -> str:
    """A text file as UTF-8, as which it is valid, or else as Windows-1252, which older corpora were written in."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def rows_of(path: Path, delimiter: str = ",", needed: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file, by the names of its columns; a field that a short row lacks is empty.

    Raises `BadCorpus` if it has not the columns that are needed.
    """
    rows = csv.DictReader(io.StringIO(text_of(path), newline=""), delimiter=delimiter, restval="")
    if missing := [name for name in needed if name not in (rows.fieldnames or ())]:
        raise BadCorpus(f"{path} has no column {', '.join(map(repr, missing))}: give the corpus's own table")
    return list(rows)


def some(names: Sequence[str], most: int = 20) -> str:
    """Names for a message: all of them, or the first and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
