"""The description of a corpus: its name, its source, a reader of its layout, and its published counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from affekt.errors import BadCorpus
from affekt.storage import join
from affekt.tabular.record import Record
from affekt.tabular.table import open_table
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


OPEN_LICENSES = ("CC0", "CC BY 4.0", "Open Database License", "Apache-2.0")
"""Beginnings of open licenses. Bundles that ship with affekt are trained on corpora with such a license only."""


@dataclass(frozen=True)
class Corpus:
    """A published corpus, or a layout of the user's own data."""

    name: str
    title: str
    language: str
    """ISO 639-1."""
    license: str
    source: str
    """Authors, and where to get the corpus."""
    style: str
    """How the emotions were elicited: "acted", ..."""
    reader: Callable[..., list[Utterance]]
    """Returns the utterances; called with the root, and with options by name."""
    speech: bool = True
    """False for sounds without words, on which a model is scored separately."""
    alteration: str = ""
    """Notice required by the license for a copy whose audio was rebuilt."""
    published: tuple[Published, ...] = ()
    published_ids: Callable[[], Collection[str]] | None = None
    """Returns the ids of the published utterances, if they are known."""
    remarks: Callable[[Path, Sequence[Utterance]], list[str]] | None = None
    """Returns problems that only this corpus's reader can detect."""
    options: tuple[str, ...] = ()
    """Names of the reader's options."""
    is_file: bool = False
    """True if the root is a file instead of a folder."""

    @property
    def is_open(self) -> bool:
        """Whether the license allows anybody to use a model that was trained on the corpus for any purpose."""
        return self.license.startswith(OPEN_LICENSES)

    def read(self, root: Path, **options: Any) -> list[Utterance]:
        """Return the utterances, sorted by id.

        Args:
            root: The corpus's folder, or the file of a table.
            options: Options of the reader.

        Raises:
            BadCorpus: The root is not this corpus, or two utterances have the same id.
        """
        if not (root.is_file() if self.is_file else root.is_dir()):
            kind = "file" if self.is_file else "folder"
            raise BadCorpus(f"{root} is not a {kind}; expected {self.title} ({self.source})")
        utterances = sorted(self.reader(root, **options), key=lambda utterance: utterance.id)
        if not utterances:
            raise BadCorpus(f"{root} has no utterance of {self.title}; expected its published layout ({self.source})")
        for utterance, following in pairwise(utterances):
            if utterance.id == following.id:
                files = f" ({utterance.audio}, {following.audio})" if utterance.audio and following.audio else ""
                raise BadCorpus(f"{root} has two utterances {utterance.id!r}{files}: keep one of them")
        return utterances

    def note(self, root: Path) -> str:
        """Return a note to show with every result on this copy of the corpus; "" for the original."""
        return "rebuilt audio" if (root / "REBUILT.md").is_file() else ""


def data_root(name: str) -> str:
    """Return the folder of a corpus below AFFEKT_DATA, which may be a URL; raise `BadCorpus` if the variable is not set."""
    root = os.environ.get("AFFEKT_DATA")
    if not root:
        raise BadCorpus(
            f"corpus {name!r} needs AFFEKT_DATA, which is not set: set it to the folder that contains {name}/, "
            "or give the path"
        )
    return join(root, name)


def visible_files(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Yield the files of a folder with one of these suffixes.

    Hidden files ("._name", written by macOS), other files and folders are skipped.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and not path.is_dir():
            yield path


def read_rows(path: Path, required: Sequence[str]) -> list[Record]:
    """Read a table of a published corpus; raise `BadCorpus` if a row is damaged or a required column is missing."""
    table = open_table(path)
    table.require(required)
    return table.records(required)


def join_names(names: Sequence[str], limit: int = 20) -> str:
    """Join names for a message: all of them, or the first ones and the number of the others."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
