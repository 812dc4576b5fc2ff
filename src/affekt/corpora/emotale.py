"""EmoTale (Hjuler et al., ASRU 2025): 18 speakers say five sentences in 5 emotions, in Danish and (14 of them) in English.

`DK_004_A_5.wav`: language (DK or EN), speaker, emotion by its initial, sentence; in any folder below the root.
`annotations.csv`: the emotion that each of three annotators chose. `speaker_info.csv`: the speakers' sex; its columns are
found by the usual names, such as "speaker" and "gender". Both tables may be missing.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

from affekt.audio.read import find_files
from affekt.corpora.base import Corpus, Published, read_rows
from affekt.corpora.genders import parse_gender
from affekt.errors import BadCorpus
from affekt.tabular.columns import NAMES, find_column
from affekt.tabular.record import Record
from affekt.tabular.table import open_table
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

EMOTIONS = {"A": "angry", "B": "bored", "H": "happy", "N": "neutral", "S": "sad"}
LANGUAGES = {"DK": "da", "EN": "en"}
ANNOTATORS = ("a1_cat", "a2_cat", "a3_cat")
NAME = re.compile(rf"({'|'.join(LANGUAGES)})_(\d+)_([{''.join(EMOTIONS)}])_([1-5])")
SENTENCES = {
    "da": (
        "Dugen ligger på køleskabet.",
        "Det sorte ark papir er placeret deroppe ved siden af tømmerstykket.",
        "De bar det bare ovenpå og nu skal de ned igen.",
        "Det vil være på det sted, hvor vi altid opbevarer det.",
        "Om syv timer er det morgen.",
    ),
    "en": (
        "The tablecloth is lying on the fridge.",
        "The black sheet of paper is located up there besides the piece of timber.",
        "They just carried it upstairs and now they are going down again.",
        "It will be in the place where we always store it.",
        "In seven hours it will be morning.",
    ),
}


def read(root: Path) -> list[Utterance]:
    """Read EmoTale.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    paths = find_files(root)
    if not any(NAME.fullmatch(path.stem) for path in paths):
        raise BadCorpus(f"{root} has no DK_004_A_5.wav or the like: expected the folder of EmoTale")
    votes, genders = _votes(root / "annotations.csv"), _genders(root / "speaker_info.csv")
    utterances = []
    for path in paths:
        match = NAME.fullmatch(path.stem)
        if match is None:
            raise BadCorpus(
                f"{path}: expected language, speaker, emotion and sentence, as in DK_004_A_5.wav; move a file of another "
                "kind elsewhere"
            )
        language, speaker, letter, sentence = match.groups()
        utterances.append(
            Utterance(
                path.stem,
                "emotale",
                path,
                EMOTIONS[letter],
                speaker=speaker,
                gender=genders.get(int(speaker), ""),
                language=LANGUAGES[language],
                text=SENTENCES[LANGUAGES[language]][int(sentence) - 1],
                votes=votes.get(path.stem, {}),
            )
        )
    return utterances


def _votes(table: Path) -> dict[str, dict[str, float]]:
    """Return name of a clip -> fraction of the annotators for each emotion; {} without a table."""
    if not table.is_file():
        return {}
    rows = read_rows(table, required=("file", *ANNOTATORS))
    return {Path(row.text("file")).stem: _fractions(row) for row in rows}


def _fractions(row: Record) -> dict[str, float]:
    letters = [letter for column in ANNOTATORS if (letter := row.text(column))]
    if unknown := sorted(set(letters) - set(EMOTIONS)):
        raise row.error(f"emotion {unknown[0]!r}: expected one of {', '.join(EMOTIONS)}")
    return {EMOTIONS[letter]: count / len(letters) for letter, count in Counter(letters).items()}


def _genders(table: Path) -> dict[int, str]:
    """Return number of a speaker -> sex; {} without a table in which both can be found."""
    if not table.is_file():
        return {}
    columns = open_table(table).columns
    speaker, gender = find_column((*NAMES["speaker"], "id"), columns), find_column(NAMES["gender"], columns)
    if speaker is None or gender is None:
        logger.warning("%s has no columns of speakers and their sex, which is therefore not known", table)
        return {}
    return {row.number(speaker): parse_gender(row, gender) for row in read_rows(table, required=(speaker, gender))}


EMOTALE = Corpus(
    name="emotale",
    title="EmoTale",
    language="da",
    license="none stated by the authors",
    source="Hjuler et al. 2025, github.com/snehadas/EmoTale",
    style="acted",
    reader=read,
    published=(Published(800, emotions=dict.fromkeys(EMOTIONS.values(), 160)),),
)
