"""Sources of utterances: a published corpus, or the user's own folder or table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from affekt.config import decode
from affekt.corpora import corpora
from affekt.corpora.annotators import check_rule
from affekt.corpora.base import Corpus, data_root
from affekt.corpora.clip_list import select_clips
from affekt.corpora.corpus_part import check_part, describe_part, select_fraction, select_where
from affekt.corpora.layout import parse_layout
from affekt.corpora.remote import fetch_corpus
from affekt.errors import BadConfig, BadCorpus
from affekt.registry import did_you_mean
from affekt.storage import is_url, local_path
from affekt.tabular.delimited import parse_delimiter
from affekt.tabular.missing import is_missing
from affekt.utterance import Utterance

OWN = ("folder", "table")
"""Layouts of the user's own data."""


@dataclass(frozen=True)
class Source:
    """A corpus and its location. The short form is "cremad", "folder:calls" or "table:calls.csv" (`Source.parse`)."""

    name: str
    """Name of a corpus, or "folder" or "table"."""
    root: str = ""
    """Folder or file, relative to the current folder, or the URL of a folder in an object store, such as s3://BUCKET/NAME; by
    default the folder of the corpus's name below AFFEKT_DATA."""
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    """For tables: field -> column."""
    emotions: Mapping[str, str] = field(default_factory=dict, hash=False)
    """For folders and tables: custom label -> emotion."""
    language: str = ""
    """For folders and tables: ISO 639-1."""
    without: tuple[str, ...] = ()
    """Ids of utterances to exclude, such as those with damaged audio."""
    only: str = ""
    """A file that lists the utterances to read, relative to the current folder (`affekt.corpora.clip_list`); "" for all."""
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Read only utterances whose fields have one of these values, such as `{session = ["Ses01"]}`
    (`affekt.corpora.corpus_part.FIELDS`)."""
    fraction: float = 1.0
    """Read only this fraction of the utterances of each emotion, after `without`, `only` and `where`."""
    delimiter: str = ""
    """For tables in CSV or TSV: a character, or "tab", "semicolon", ...; "" to detect it."""
    annotators: str = "error"
    """For tables with several rows of the same segment: "error", "majority" or "votes"; see `corpora.annotators.combine`."""
    layout: str = ""
    """For folders: what the folders name, from the outermost to the innermost, such as "emotion/speaker" or
    "speaker/emotion/split"; by default it is recognized."""

    def __post_init__(self) -> None:
        if self.name not in corpora:
            own = f"; for your own data: {' or '.join(f'{name}:{self.name}' for name in OWN)}"
            near = did_you_mean(self.name, corpora) or (own if Path(self.name).exists() else "")
            raise BadConfig(f"there is no corpus {self.name!r}{near} (known: {', '.join(corpora)})")
        if self.name in OWN and not self.root:
            raise BadConfig(f"{self.name!r} needs a path: {self.name}:PATH")
        for label, emotion in self.emotions.items():
            if is_missing(emotion):
                raise BadConfig(
                    f"emotions maps {label!r} to an empty name or a word for a missing value: expected an emotion"
                )
        if self.layout:
            parse_layout(self.layout)
        check_rule(self.annotators)
        check_part(self.where, self.fraction)
        if self.delimiter:
            parse_delimiter(self.delimiter)
        for option in set(self._options) - set(self.corpus.options):
            raise BadConfig(f"corpus {self.name!r} has no option {option}: it is read as published")

    @classmethod
    def parse(cls, text: str) -> Source:
        """Parse the short form, "NAME" or "NAME:PATH"."""
        name, _, root = text.partition(":")
        return cls(name, root)

    @classmethod
    def of(cls, entry: str | Source | Mapping[str, object]) -> Source:
        """Return the source for an entry of a recipe's `corpora`: its short form, a source or a TOML table."""
        if isinstance(entry, Source):
            return entry
        return cls.parse(entry) if isinstance(entry, str) else decode(cls, entry, "corpora")

    @property
    def corpus(self) -> Corpus:
        """The registered corpus."""
        corpus: Corpus = corpora[self.name]
        return corpus

    @property
    def path(self) -> Path:
        """The folder or file; of a URL, its local copy. Raises `BadCorpus` if AFFEKT_DATA is needed but not set."""
        root = self.root or data_root(self.name)
        if not is_url(root):
            return Path(local_path(root)).expanduser()
        if self.corpus.is_file:
            raise BadCorpus(f"{self.name}:{root}: a table must be a local file, whose audio is local too")
        return fetch_corpus(root)

    @property
    def id(self) -> str:
        """The value of `Utterance.corpus`: the corpus's name, or the name of the folder or table."""
        if self.name not in OWN:
            return self.name
        return self.path.stem if self.corpus.is_file else self.path.resolve().name

    @property
    def title(self) -> str:
        """The corpus's title, or the name of the folder or table."""
        return self.path.name if self.name in OWN else self.corpus.title

    @property
    def note(self) -> str:
        """A note to show with every result on this copy of the corpus; "" for all of the original."""
        part = describe_part(self.where, self.fraction)
        return ", ".join(filter(None, [self.corpus.note(self.path), f"in part ({part})" if part else ""]))

    @property
    def is_altered(self) -> bool:
        """True if this copy of the corpus differs from the original, apart from utterances that are left out."""
        return bool(self.corpus.note(self.path))

    @property
    def whole(self) -> Source:
        """The same source with all utterances."""
        return replace(self, without=(), only="", where={}, fraction=1.0)

    @property
    def _options(self) -> dict[str, object]:
        options = {
            "columns": self.columns,
            "emotions": self.emotions,
            "language": self.language,
            "layout": self.layout,
            "delimiter": self.delimiter,
            "annotators": self.annotators if self.annotators != "error" else "",
        }
        return {option: value for option, value in options.items() if value}

    def read(self) -> list[Utterance]:
        """Return the utterances, sorted by id; raise `BadCorpus` if they cannot be read."""
        utterances = self.corpus.read(self.path, **self._options)
        ids = {utterance.id for utterance in utterances}
        for name in self.without:
            if name not in ids:
                raise BadCorpus(f"without names {name!r}, which {self.title} does not have{did_you_mean(name, ids)}")
        if self.only:
            utterances = select_clips(utterances, Path(self.only).expanduser())
        utterances = [utterance for utterance in utterances if utterance.id not in self.without]
        if self.where:
            utterances = select_where(utterances, self.where)
        return select_fraction(utterances, self.fraction) if self.fraction < 1 else utterances


def read_all(sources: Sequence[Source]) -> list[Utterance]:
    """Return the utterances of several sources; raise `BadCorpus` if two sources have the same id."""
    by_id: dict[str, Source] = {}
    for source in sources:
        if (other := by_id.setdefault(source.id, source)) is not source:
            raise BadCorpus(f"{other.path} and {source.path} are both called {source.id!r}: rename one of them")
    return [utterance for source in sources for utterance in source.read()]
