"""A published list of clips, to which a corpus can be restricted: `Source.only`.

The list is a text file with a name per line, or a table (CSV, TSV, JSON lines or Parquet) with a column of names, such as the
test sets of EmoBox. A name is an utterance's id or the name of its file, with or without folders and suffix.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from affekt.corpora.base import join_names
from affekt.errors import BadCorpus
from affekt.plural import quantity
from affekt.tabular.columns import NAMES, find_column
from affekt.tabular.table import SUFFIXES as TABLES
from affekt.tabular.table import open_table
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

COLUMNS = (*NAMES["audio"], "wav_filename", "clip", "name", "id", "key", "utterance")
"""Names of a table's column of clips, in order of preference."""


def select_clips(utterances: Sequence[Utterance], path: Path) -> list[Utterance]:
    """Return the utterances that a list names, in the order of the utterances.

    Raises:
        BadCorpus: The list cannot be read or is empty, or names a clip that does not exist, a clip twice, or one ambiguously.
    """
    by_name: dict[str, dict[str, Utterance]] = defaultdict(dict)
    for utterance in utterances:
        for name in {utterance.id, _bare_name(utterance.id), *([utterance.audio.stem] if utterance.audio else [])}:
            by_name[name][utterance.id] = utterance
    selected: dict[str, str] = {}
    missing = []
    for name in read_clip_list(path):
        matches = by_name.get(name) or by_name.get(_bare_name(name)) or {}
        if not matches:
            missing.append(name)
        elif len(matches) > 1:
            raise BadCorpus(f"{path}: {name!r} is ambiguous ({join_names(sorted(matches), 3)}): write the whole id")
        elif (other := selected.setdefault(next(iter(matches)), name)) is not name:
            raise BadCorpus(
                f"{path} names the clip {next(iter(matches))!r} twice, as {other!r} and {name!r}: keep one of them"
            )
    if missing:
        raise BadCorpus(
            f"{path} names {quantity(len(missing), 'clip')} that this copy of {utterances[0].corpus} does not have: "
            f"{join_names(missing, 5)}; expected names of its {len(utterances)} utterances, such as {utterances[0].id}"
        )
    logger.info("%s: %d of %d utterances, those of %s", utterances[0].corpus, len(selected), len(utterances), path.name)
    return [utterance for utterance in utterances if utterance.id in selected]


def read_clip_list(path: Path) -> list[str]:
    """Return the names in a list of clips; empty lines are skipped. Raises `BadCorpus`."""
    if not path.is_file():
        raise BadCorpus(f"{path} is not a file; expected a list of clips, one name per line, or a table of them")
    if path.suffix.lower() in TABLES and path.suffix.lower() != ".txt":
        table = open_table(path)
        column = find_column(COLUMNS, table.columns)
        if column is None:
            raise BadCorpus(f"{path} has no column of names of clips: expected one of {', '.join(COLUMNS)}")
        names = [record.text(column) for record in table.records([column])]
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise BadCorpus(f"{path} cannot be read as text ({error}); expected a name of a clip per line") from error
        names = [line.strip() for line in lines]
    names = [name for name in names if name]
    if not names:
        raise BadCorpus(f"{path} names no clip; expected a name per line")
    return names


def _bare_name(name: str) -> str:
    """Return the name of a file without folders and the suffix of an audio file."""
    from affekt.audio.read import SUFFIXES  # not needed without a list; it imports numpy

    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in SUFFIXES else path.name
