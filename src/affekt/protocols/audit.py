"""Audit what the subsets of a split share: whatever is in both the training and the test subset inflates the score.

Shared speakers decide whether a score is speaker-independent. Sessions and dialogues share a room, a microphone and a
topic; acted corpora share sentences; identical audio and identical ids are mistakes. Information that a corpus does
not record is reported as unknown, never as "nothing shared".
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from itertools import combinations
from typing import Any

from affekt.errors import BadConfig, BadCorpus
from affekt.protocols.split import DEPENDENT, INDEPENDENT, UNKNOWN, Split, utterance_key
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

EXAMPLES = 3
"""Number of shared values that an overlap lists."""
REPEATED = {"utterance": "utterances", "audio": "recordings"}
"""Kinds of overlap that are mistakes, with their names in messages."""
# Removed from words rather than replaced by a space. The last occurs in Windows-1252 tables that were read as Latin-1.
APOSTROPHES = dict.fromkeys(
    map(ord, "'`\N{ACUTE ACCENT}\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}\x92")
)
TINY = 30
"""A validation or test subset with fewer utterances is reported: each utterance is more than 3 points of accuracy."""
RARE = 5
"""An emotion with fewer utterances in a validation or test subset is reported: each is more than 20 points of its recall."""


@cache
def normalize(text: str) -> str:
    """Return a sentence without case, punctuation and extra spaces: "Don't  forget!" becomes "dont forget"."""
    characters = []
    for character in unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).casefold():
        characters.append(character if unicodedata.category(character)[0] in "LNM" else " ")
    return " ".join("".join(characters).split())


KINDS: dict[str, Callable[[Utterance], str]] = {
    "speaker": lambda utterance: utterance.speaker_key if utterance.speaker else "",
    "session": lambda utterance: f"{utterance.corpus}/{utterance.session}" if utterance.session else "",
    "dialogue": lambda utterance: f"{utterance.corpus}/{utterance.dialogue}" if utterance.dialogue else "",
    "sentence": lambda utterance: normalize(utterance.text),
    "utterance": utterance_key,
}
"""Functions that return the value to compare, by kind. Equal values in two subsets are an overlap; "" is unknown."""


def _audio_hasher() -> Callable[[Utterance], str]:
    """Return a function that hashes an utterance's audio, "" without audio. It reads each file once."""
    from affekt.features.store import audio_key, file_hash

    content = cache(file_hash)

    def value(utterance: Utterance) -> str:
        if utterance.audio is None:
            return ""
        try:
            return audio_key(utterance, content)
        except OSError as error:
            raise BadCorpus(
                f"{utterance_key(utterance)}: {utterance.audio} cannot be read ({error.strerror})"
            ) from error

    return value


@dataclass(frozen=True)
class Overlap:
    """The items of one kind (speakers, for example) that two subsets share."""

    kind: str
    first: str
    second: str
    """The subset whose scores the overlap inflates: the later of the two in the order train, validation, test."""
    shared: int | None
    """Distinct values in both subsets; None if none is known to be shared, but some are unknown."""
    total: int
    """Distinct values in the second subset."""
    affected: int
    """Utterances of the second subset with a shared value."""
    utterances: int
    """Utterances of the second subset."""
    unknown: int
    """Utterances of either subset whose value the corpus does not record."""
    examples: tuple[str, ...]
    """Some of the shared values."""

    @property
    def fraction(self) -> float | None:
        """The fraction of the second subset's utterances that have a shared value."""
        return None if self.shared is None else self.affected / self.utterances

    def __str__(self) -> str:
        if self.shared is None:
            return "unknown"
        return f"{'at least ' if self.unknown else ''}{self.shared} of {self.total}"


@dataclass(frozen=True)
class Subset:
    """A subset and its counts."""

    name: str
    utterances: int
    speakers: int | None
    """None if not all are known."""
    emotions: Mapping[str, int]


@dataclass(frozen=True)
class Audit:
    """The result of auditing a split."""

    split: Split
    subsets: tuple[Subset, ...]
    """In order, "train" first and "test" last."""
    overlaps: tuple[Overlap, ...]
    """One for each pair of subsets and each kind."""
    warnings: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The auditor's own verdict: "speaker-independent", "NOT speaker-independent" or "speakers unknown".

        It is about the test subset against all other subsets; in a split without one, about all pairs of subsets.
        """
        return _judge(self._speakers)

    @property
    def _speakers(self) -> list[Overlap]:
        """The overlaps of speakers that the verdict is about."""
        overlaps = [overlap for overlap in self.overlaps if overlap.kind == "speaker"]
        return [overlap for overlap in overlaps if overlap.second == "test"] or overlaps

    @property
    def repeated(self) -> list[Overlap]:
        """The overlaps that are mistakes: the same utterance, or the same audio if it was compared, in two subsets."""
        return [overlap for overlap in self.overlaps if overlap.kind in REPEATED and overlap.shared]

    @property
    def line(self) -> str:
        """The verdict, with its reason unless it is speaker-independent, and what is repeated."""
        repeated = [
            f"{overlap} {overlap.second} {REPEATED[overlap.kind]} also in {overlap.first}" for overlap in self.repeated
        ]
        return "; ".join([_describe_verdict(self._speakers), *self._other_verdicts, *repeated])

    @property
    def _other_verdicts(self) -> list[str]:
        """The verdicts on pairs of subsets without the test subset, where they differ from the verdict."""
        others = [o for o in self.overlaps if o.kind == "speaker" and o not in self._speakers]
        verdicts = [(overlap, _describe_verdict([overlap])) for overlap in others if _judge([overlap]) != self.verdict]
        return [f"{overlap.second} against {overlap.first}: {verdict}" for overlap, verdict in verdicts]

    @property
    def clean(self) -> bool:
        """Return True if the verdict is speaker-independent, and no utterance and, if it was compared, no audio is shared."""
        return self.verdict == INDEPENDENT and not self.repeated

    def to_json(self) -> dict[str, Any]:
        """Return the content for JSON."""
        return {
            "name": self.split.name,
            "fold": self.split.fold,
            "seed": self.split.seed,
            "description": self.split.description,
            "split_hash": self.split.hash,
            "speaker_independent": None if self.verdict == UNKNOWN else self.verdict == INDEPENDENT,
            "line": self.line,
            "subsets": [asdict(subset) for subset in self.subsets],
            "overlaps": [{**asdict(overlap), "fraction": overlap.fraction} for overlap in self.overlaps],
            "warnings": list(self.warnings),
        }


def _judge(speakers: Sequence[Overlap]) -> str:
    shared = [overlap.shared for overlap in speakers]
    return DEPENDENT if any(shared) else UNKNOWN if None in shared else INDEPENDENT


def _describe_verdict(speakers: Sequence[Overlap]) -> str:
    """Return the verdict on overlaps of speakers, with its reason unless it is speaker-independent."""
    verdict = _judge(speakers)
    if verdict == DEPENDENT:
        worst = max(speakers, key=lambda overlap: (bool(overlap.shared), overlap.first == "train", overlap.affected))
        return f"{DEPENDENT}: {worst} {worst.second} speakers also in {worst.first}"
    if verdict == UNKNOWN:
        return f"{UNKNOWN}: {max(overlap.unknown for overlap in speakers)} utterances have no speaker"
    return INDEPENDENT


class Auditor:
    """An auditor of splits of the same utterances.

    Args:
        utterances: All utterances of the splits.
        audio: Compare the audio too, which reads every file.
    """

    def __init__(self, utterances: Sequence[Utterance], *, audio: bool = False) -> None:
        self.utterances = {utterance_key(utterance): utterance for utterance in utterances}
        self.kinds = {**KINDS, "audio": _audio_hasher()} if audio else KINDS

    @cached_property
    def values(self) -> dict[str, dict[str, str]]:
        """The values to compare, by kind and key of the utterance."""
        return {kind: {key: value(u) for key, u in self.utterances.items()} for kind, value in self.kinds.items()}

    def audit(self, split: Split) -> Audit:
        """Audit a split.

        Raises:
            BadConfig: The split has other utterances, an empty subset or fewer than two subsets.
        """
        self._check(split)
        names = sorted(split.subsets, key=lambda name: (name == "test", name != "train", name != "validation"))
        subsets = tuple(self._subset(name, split.subsets[name]) for name in names)
        overlaps = [
            self._overlap(kind, values, first, second, split)
            for first, second in combinations(names, 2)
            for kind, values in self.values.items()
        ]
        result = Audit(split, subsets, tuple(overlaps), ())
        return replace(result, warnings=tuple(self._warnings(result)))

    def _check(self, split: Split) -> None:
        if len(split.subsets) < 2 or not all(split.subsets.values()):
            sizes = ", ".join(f"{name} {len(keys)}" for name, keys in split.subsets.items()) or "none"
            raise BadConfig(f"{split.title}: expected at least two subsets, none of them empty; got {sizes}")
        unknown = [key for keys in split.subsets.values() for key in keys if key not in self.utterances]
        if unknown:
            near = did_you_mean(unknown[0], self.utterances) if len(unknown) < 100 else ""
            total = sum(map(len, split.subsets.values()))
            raise BadConfig(
                f"{split.title}: {len(unknown)} of {total} utterances are not in these corpora, first "
                f"{unknown[0]}{near}: name every corpus of the split"
            )

    def _subset(self, name: str, keys: Sequence[str]) -> Subset:
        speakers = {self.values["speaker"][key] for key in keys}
        emotions = Counter(self.utterances[key].emotion for key in keys)
        return Subset(name, len(keys), None if "" in speakers else len(speakers), dict(sorted(emotions.items())))

    @staticmethod
    def _overlap(kind: str, values: Mapping[str, str], first: str, second: str, split: Split) -> Overlap:
        before, after = (Counter(values[key] for key in split.subsets[subset]) for subset in (first, second))
        unknown = before.pop("", 0) + after.pop("", 0)
        shared = sorted(before.keys() & after.keys(), key=lambda value: (-after[value], value))
        return Overlap(
            kind,
            first,
            second,
            shared=None if unknown and not shared else len(shared),
            total=len(after),
            affected=sum(after[value] for value in shared),
            utterances=len(split.subsets[second]),
            unknown=unknown,
            examples=tuple(shared[:EXAMPLES]),
        )

    def _warnings(self, audit: Audit) -> Iterable[str]:
        split = audit.split
        if split.verdict != audit.verdict:
            yield f"the split claims to be {split.verdict!r}, but is not"
        used = {key for keys in split.subsets.values() for key in keys}
        if unused := Counter(u.emotion for key, u in self.utterances.items() if key not in used):
            emotions = ", ".join(f"{emotion} {number}" for emotion, number in sorted(unused.items()))
            yield f"{unused.total()} of {len(self.utterances)} utterances are in no subset ({emotions})"
        all_emotions = sorted({emotion for subset in audit.subsets for emotion in subset.emotions})
        for subset in audit.subsets:
            if absent := [emotion for emotion in all_emotions if emotion not in subset.emotions]:
                yield f"subset {subset.name!r} has no {', '.join(absent)}"
            if subset.name == "train":
                continue
            if subset.utterances < TINY:
                number, points = subset.utterances, 100 / subset.utterances
                yield f"subset {subset.name!r} is small: each of its {number} utterances is {points:.1f} points of accuracy"
            if rare := [f"{emotion} ({number})" for emotion, number in subset.emotions.items() if number < RARE]:
                yield f"subset {subset.name!r} has few utterances of {', '.join(rare)}"


def audit(split: Split, utterances: Sequence[Utterance], *, audio: bool = False) -> Audit:
    """Audit a split of these utterances.

    Args:
        split: The split.
        utterances: All its utterances.
        audio: Compare the audio too, which reads every file.

    Raises:
        BadConfig: The split has other utterances.
        BadCorpus: Audio cannot be read.
    """
    return Auditor(utterances, audio=audio).audit(split)
