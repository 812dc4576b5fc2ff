"""Where utterances come from: a published corpus, or a folder or a table of one's own, as a recipe writes it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from affekt.corpora import corpora
from affekt.corpora.base import Corpus, data_root
from affekt.errors import BadConfig, BadCorpus
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

OWN = ("folder", "table")


@dataclass(frozen=True)
class Source:
    """A corpus and where it is: `Source.parse("cremad")`, `"folder:calls"`, `"table:calls.csv"`; or these settings.

    A path is relative to the current folder.
    """

    name: str  # of a corpus, "folder" or "table"
    root: str = ""  # its folder or file; "" means the folder of its name below AFFEKT_DATA
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)  # of a table: field -> column
    emotions: Mapping[str, str] = field(default_factory=dict, hash=False)  # of one's own data: its word -> the emotion
    language: str = ""  # of one's own data, ISO 639-1
    without: tuple[str, ...] = ()  # ids of utterances to leave out: those whose sound is known to be damaged, say

    def __post_init__(self) -> None:
        if self.name not in corpora:
            own = f"; for one's own data: {' or '.join(f'{name}:{self.name}' for name in OWN)}"
            near = did_you_mean(self.name, corpora) or (own if Path(self.name).exists() else "")
            raise BadConfig(f"there is no corpus {self.name!r}{near} (known: {', '.join(corpora)})")
        if self.name in OWN and not self.root:
            raise BadConfig(f"{self.name!r} needs a path: {self.name}:PATH")
        for word, emotion in self.emotions.items():
            if not emotion.strip():
                raise BadConfig(f"emotions maps {word!r} to nothing: name an emotion")
        for option in set(self._options) - set(self.corpus.options):
            raise BadConfig(f"corpus {self.name!r} takes no {option}: it is read as published")

    @classmethod
    def parse(cls, text: str) -> Source:
        """A source from its short form, "NAME" or "NAME:PATH"."""
        name, _, root = text.partition(":")
        return cls(name, root)

    @property
    def corpus(self) -> Corpus:
        found: Corpus = corpora[self.name]
        return found

    @property
    def path(self) -> Path:
        """The folder or file. Raises `BadCorpus` for a corpus below AFFEKT_DATA if that is not set."""
        return Path(self.root).expanduser() if self.root else data_root(self.name)

    @property
    def id(self) -> str:
        """What its utterances have as `corpus`: the corpus's name, or that of one's own folder or table."""
        if self.name not in OWN:
            return self.name
        return self.path.stem if self.corpus.is_file else self.path.resolve().name

    @property
    def title(self) -> str:
        return self.path.name if self.name in OWN else self.corpus.title

    @property
    def note(self) -> str:
        """What has to be said wherever a figure on this copy is printed; "" for the original."""
        return self.corpus.note(self.path)

    @property
    def _options(self) -> dict[str, object]:
        given = {"columns": self.columns, "emotions": self.emotions, "language": self.language}
        return {option: value for option, value in given.items() if value}

    def read(self) -> list[Utterance]:
        """The utterances, sorted by id. Raises `BadCorpus`."""
        utterances = self.corpus.read(self.path, **self._options)
        ids = {utterance.id for utterance in utterances}
        for one in self.without:
            if one not in ids:
                raise BadCorpus(f"without names {one!r}, which {self.title} does not have{did_you_mean(one, ids)}")
        return [utterance for utterance in utterances if utterance.id not in self.without]


def read_all(sources: Sequence[Source]) -> list[Utterance]:
    """The utterances of several sources. Two of one name, whose ids could not be told apart, raise `BadCorpus`."""
    by_id: dict[str, Source] = {}
    for source in sources:
        if (other := by_id.setdefault(source.id, source)) is not source:
            raise BadCorpus(f"{other.path} and {source.path} are both called {source.id!r}: rename one of them")
    return [utterance for source in sources for utterance in source.read()]
