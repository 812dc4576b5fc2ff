"""What every corpus is: a name, where it comes from, and a reader from its published layout to utterances."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from affekt.errors import BadCorpus
from affekt.utterance import Utterance


@dataclass(frozen=True)
class Corpus:
    name: str
    title: str
    language: str  # ISO 639-1
    licence: str
    source: str  # who made it, and where it is had
    style: str  # how its emotions came about: "acted", ...
    reader: Callable[[Path], list[Utterance]]
    alteration: str = ""  # what has to be said of a copy that was rebuilt

    def read(self, root: Path) -> list[Utterance]:
        """The utterances below the corpus's folder, sorted by id. Raises `BadCorpus`."""
        if not root.is_dir():
            raise BadCorpus(f"{root} is no folder; expected {self.title} as published ({self.source})")
        utterances = sorted(self.reader(root), key=lambda utterance: utterance.id)
        if not utterances:
            raise BadCorpus(f"{root} holds no utterance of {self.title}; expected its published layout ({self.source})")
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
