"""CREMA-D (Cao et al., IEEE Transactions on Affective Computing 2014): 91 actors say 12 sentences in 6 emotions.

`AudioWAV/1001_DFA_ANG_XX.wav`: actor, sentence, emotion, intensity; `audio/` for a copy in another format.
`VideoDemographics.csv`: the actors' age and sex.
`processedResults/tabulatedVotes.csv`: the votes of about ten raters for each clip and modality; those on the audio alone are
read. `summaryTable.csv`, there or in the root, has only the most frequent answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from affekt.corpora.base import Corpus, Published, read_rows, visible_files
from affekt.corpora.genders import parse_gender
from affekt.errors import BadCorpus
from affekt.tabular.record import Record
from affekt.utterance import Utterance

EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
FOLDERS = ("AudioWAV", "audio")
SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}
LETTERS = {name[0]: emotion for name, emotion in EMOTIONS.items()}  # the columns of the table of votes
INTENSITIES = ("LO", "MD", "HI")  # of sentence IEO, except in emotion NEU; all other clips have XX

# Actors and sentences that were never published: 20 of 91 x 82 clips.
UNPUBLISHED = {("1008", "WSI"), ("1009", "MTI"), ("1019", "ITH")}  # in any emotion
UNPUBLISHED_CLIPS = {"1002_TIE_NEU_XX", "1076_ITS_NEU_XX"}
# A clip that the authors renamed: it has the second name in older copies of the audio, and the first one in their tables and
# in newer copies. Its id is the second name in both.
RENAMED = {"1040_ITH_SAD_XX": "1040_ITH_SAD_X"}


def read(root: Path) -> list[Utterance]:
    """Read CREMA-D.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    folder = next((root / name for name in FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise BadCorpus(f"{root} has none of {', '.join(FOLDERS)}: expected the folder of CREMA-D")
    actors, votes = _actors(root / "VideoDemographics.csv"), _votes(root)
    utterances = []
    for path in visible_files(folder, SUFFIXES):
        match = re.fullmatch(r"(\d+)_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX?)", path.stem)
        if match is None or match[2] not in SENTENCES or match[3] not in EMOTIONS:
            raise BadCorpus(
                f"{path}: expected ACTOR_SENTENCE_EMOTION_INTENSITY, as in 1001_DFA_ANG_XX; move a file of another kind "
                "elsewhere"
            )
        actor, sentence, emotion, intensity = match.groups()
        utterances.append(
            Utterance(
                RENAMED.get(path.stem, path.stem),
                "cremad",
                path,
                EMOTIONS[emotion],
                speaker=actor,
                gender=actors[actor].gender if actor in actors else "",
                age=actors[actor].age if actor in actors else None,
                language="en",
                text=SENTENCES[sentence],
                votes=votes.get(f"{actor}_{sentence}_{emotion}_{intensity:X<2}", {}),
            )
        )
    return utterances


@dataclass(frozen=True)
class Actor:
    """An actor, as far as the table of actors describes them."""

    gender: str
    age: int | None


def _actors(table: Path) -> dict[str, Actor]:
    if not table.is_file():
        return {}
    rows = read_rows(table, required=("ActorID", "Sex"))
    return {
        row.text("ActorID"): Actor(parse_gender(row, "Sex"), row.number("Age") if row.text("Age") else None)
        for row in rows
    }


def _votes(root: Path) -> dict[str, dict[str, float]]:
    """Return the fraction of the votes for each emotion, by clip; {} without a table of votes."""
    tabulated = root / "processedResults" / "tabulatedVotes.csv"
    if tabulated.is_file():
        # A row's number is 100,000 times the modality (1 audio, 2 face, 3 both) plus the number of the clip.
        rows = read_rows(tabulated, required=("", "fileName", *LETTERS))
        return {row.text("fileName"): _fractions(row, _counts(row)) for row in rows if row.number("") // 100_000 == 1}
    for table in (root / "summaryTable.csv", tabulated.with_name("summaryTable.csv")):
        if table.is_file():
            # "A:D" is a tie. The table does not have the votes for other emotions, which count as zero.
            rows = read_rows(table, required=("FileName", "VoiceVote"))
            return {row.text("FileName"): _fractions(row, _most_frequent(row)) for row in rows}
    return {}


def _counts(row: Record) -> dict[str, int]:
    return {letter: row.number(letter) if row.text(letter) else 0 for letter in LETTERS}


def _most_frequent(row: Record) -> dict[str, int]:
    answer = row.text("VoiceVote")
    return dict.fromkeys(answer.split(":"), 1) if answer else {}


def _fractions(row: Record, counts: Mapping[str, int]) -> dict[str, float]:
    """Return the fraction of the votes for each emotion from counts by letter; {} if there are none."""
    if unknown := sorted(set(counts) - set(LETTERS)):
        raise row.error(
            f"VoiceVote {unknown[0]!r}: expected letters of emotions ({', '.join(LETTERS)}), such as A or A:D"
        )
    total = sum(counts.values())
    return {LETTERS[letter]: count / total for letter, count in counts.items() if count}


def published_ids() -> set[str]:
    """Return the ids of the 7,442 published clips."""
    return {
        RENAMED.get(name, name)
        for actor in range(1001, 1092)
        for sentence in SENTENCES
        if (str(actor), sentence) not in UNPUBLISHED
        for emotion in EMOTIONS
        for intensity in (INTENSITIES if sentence == "IEO" and emotion != "NEU" else ("XX",))
        if (name := f"{actor}_{sentence}_{emotion}_{intensity}") not in UNPUBLISHED_CLIPS
    }


# Numbers of clips of the actors who have fewer than 82, since a sentence or a clip was not published.
FEWER_CLIPS = {"1002": 81, "1008": 76, "1009": 76, "1019": 76, "1076": 81}

CREMAD = Corpus(
    name="cremad",
    title="CREMA-D",
    language="en",
    license="Open Database License 1.0, contents under the Database Contents License 1.0",
    source="Cao et al. 2014, github.com/CheyneyComputerScience/CREMA-D",
    style="acted",
    reader=read,
    alteration=(
        "CREMA-D is made available under the Open Database License 1.0 (opendatacommons.org/licenses/odbl/1.0), any rights "
        "in its contents under the Database Contents License 1.0. The copy trained on was altered: its clips were rebuilt "
        "from log-mel spectrograms (16 kHz, first 3 s, 128 mels, 80 dB, 8 bits) by mel inversion and Griffin-Lim, peak set "
        "to 0.6, Opus; so absolute level, true phase and all after 3 s are lost."
    ),
    published=(
        Published(
            7442,
            emotions={"angry": 1271, "disgust": 1271, "fear": 1271, "happy": 1271, "neutral": 1087, "sad": 1271},
            speakers={str(actor): FEWER_CLIPS.get(str(actor), 82) for actor in range(1001, 1092)},
        ),
    ),
    published_ids=published_ids,
)
