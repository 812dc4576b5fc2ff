"""The description of a corpus: its name, its source, a reader of its layout, and its published counts."""

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
    """Published counts of a corpus, or of a subset of it; empty fields are not compared."""

    utterances: int
    emotions: Mapping[str, int] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    speakers: Mapping[str, int] = field(default_factory=dict)
    labels: str = ""
    """Label set to which the counts refer; "" for all emotions."""
    split: str = ""
    """Subset of the official split to which the counts refer; "" for all."""
    dialogues: int | None = None


@dataclass(frozen=True)
class Corpus:
    """A published corpus, or a layout of the user's own data."""

    name: str
    title: str
    language: str
    """ISO 639-1."""
    license: str
    source: str
    """Authors, and where to get it."""
    style: str
    """How its emotions were elicited: "acted", ..."""
    reader: Callable[..., list[Utterance]]
    """Called with the root, and with options by name."""
    alteration: str = ""
    """Notice required for a copy whose audio was rebuilt."""
    published: tuple[Published, ...] = ()
    names: Callable[[], Collection[str]] | None = None
    """Returns the ids of the published utterances, if known."""
    remarks: Callable[[Path, Sequence[Utterance]], list[str]] | None = None
    """Returns problems that only this corpus's reader can detect."""
    options: tuple[str, ...] = ()
    """Options of the reader."""
    is_file: bool = False
    """If true, the root is a file."""

    def read(self, root: Path, **options: Any) -> list[Utterance]:
        """Return the utterances below the corpus's root, sorted by id. Raises `BadCorpus`."""
        if not (root.is_file() if self.is_file else root.is_dir()):
            kind = "file" if self.is_file else "folder"
            raise BadCorpus(f"{root} is not a {kind}; expected {self.title} ({self.source})")
        utterances = sorted(self.reader(root, **options), key=lambda utterance: utterance.id)
        if not utterances:
            raise BadCorpus(f"{root} has no utterance of {self.title}; expected its published layout ({self.source})")
        for utterance, following in pairwise(utterances):
            if utterance.id == following.id:
                raise BadCorpus(
                    f"{root} has two utterances {utterance.id!r} ({utterance.audio}, {following.audio}): keep one of them"
                )
        return utterances

    def note(self, root: Path) -> str:
        """Return a note to print with every result on this copy of the corpus; "" for the original."""
        return "rebuilt audio" if (root / "REBUILT.md").is_file() else ""


def data_root(name: str) -> Path:
    """Return the folder of a corpus below AFFEKT_DATA. Raises `BadCorpus` if the variable is not set."""
    root = os.environ.get("AFFEKT_DATA")
    if not root:
        raise BadCorpus(
            f"corpus {name!r} needs AFFEKT_DATA, which is not set: set it to the folder that contains {name}/, "
            "or give the path"
        )
    return Path(root) / name


def visible_files(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Yield the files of a folder with one of these suffixes; hidden files ("._name", left by macOS) are skipped."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            yield path


def read_text(path: Path) -> str:
    """Read a text file as UTF-8, or, if it is not valid UTF-8, as Windows-1252, which older corpora use."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_rows(path: Path, delimiter: str = ",", required: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read the rows of a CSV file as column name -> field; fields that a short row lacks are empty.

    Raises:
        BadCorpus: A required column is missing.
    """
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, restval="")
    if missing := [name for name in required if name not in (rows.fieldnames or ())]:
        raise BadCorpus(f"{path} has no column {', '.join(map(repr, missing))}: expected the corpus's original table")
    return list(rows)


def some(names: Sequence[str], limit: int = 20) -> str:
    """Format names for a message: all of them, or the first ones and the number of the others."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
