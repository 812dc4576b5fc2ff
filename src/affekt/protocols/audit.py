"""The auditor: what the parts of a split share. Whoever is trained on and scored, flatters the score.

Speakers decide whether a score is speaker-independent. Sessions and dialogues carry a room, a microphone and a topic;
sentences, in acted corpora, what is said; identical audio and identical ids are plain mistakes. What a corpus does not say
is unknown, and never counted as nothing shared.
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
from affekt.protocols.split import DEPENDENT, INDEPENDENT, UNKNOWN, Split, key
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

EXAMPLES = 3
SAME = {"utterance": "utterances", "audio": "recordings"}  # kinds that no two parts may share, as they are printed
# They join what they stand between. The last is what tables in Windows-1252, read as Latin-1, have for one.
APOSTROPHES = dict.fromkeys(
    map(ord, "'`\N{ACUTE ACCENT}\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}\x92")
)
TINY = 30  # utterances of a part that is scored: one of them is more than 3 points of accuracy
RARE = 5  # of an emotion in such a part: one of them is more than 20 points of its recall


@cache
def plain(text: str) -> str:
    """A sentence without case, punctuation and spaces that tell nothing: "Don't  forget!" is "dont forget"."""
    kept = []
    for character in unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).casefold():
        kept.append(character if unicodedata.category(character)[0] in "LNM" else " ")
    return " ".join("".join(kept).split())


# What is compared: a value that is the same on both sides tells of an overlap, "" that the corpus does not say.
KINDS: dict[str, Callable[[Utterance], str]] = {
    "speaker": lambda utterance: utterance.person if utterance.speaker else "",
    "session": lambda utterance: f"{utterance.corpus}/{utterance.session}" if utterance.session else "",
    "dialogue": lambda utterance: f"{utterance.corpus}/{utterance.dialogue}" if utterance.dialogue else "",
    "sentence": lambda utterance: plain(utterance.text),
    "utterance": key,
}


def _audio() -> Callable[[Utterance], str]:
    """Gives the hash of the file's bytes and the segment, "" for a corpus without sound; reads a file once."""
    from affekt.features.store import audio_key, file_hash

    content = cache(file_hash)

    def value(utterance: Utterance) -> str:
        if utterance.audio is None:
            return ""
        try:
            return audio_key(utterance, content)
        except OSError as error:
            raise BadCorpus(f"{key(utterance)}: {utterance.audio} cannot be read ({error.strerror})") from error

    return value


@dataclass(frozen=True)
class Overlap:
    """What two parts share of one kind. `second` is the part that is scored, or scored later."""

    kind: str
    first: str
    second: str
    shared: int | None  # different speakers, say, that stand in both; None: none was found, but not all are known
    of: int  # that stand in the second part
    touched: int  # utterances of the second part that have one of the shared
    utterances: int  # of the second part
    unknown: int  # utterances of either part of which the corpus does not say it
    examples: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """The share of the second part's utterances that is touched."""
        return None if self.shared is None else self.touched / self.utterances

    def __str__(self) -> str:
        if self.shared is None:
            return "unknown"
        return f"{'at least ' if self.unknown else ''}{self.shared} of {self.of}"


@dataclass(frozen=True)
class Part:
    name: str
    utterances: int
    speakers: int | None  # None where not all are known
    emotions: Mapping[str, int]


@dataclass(frozen=True)
class Audit:
    """A split, looked at from all sides."""

    split: Split
    parts: tuple[Part, ...]  # "train" first, "test" last
    overlaps: tuple[Overlap, ...]  # of every pair of parts, of every kind
    warnings: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What was found, whatever is claimed: "speaker-independent", "NOT speaker-independent", "speakers unknown"."""
        shared = [overlap.shared for overlap in self.overlaps if overlap.kind == "speaker"]
        return DEPENDENT if any(shared) else UNKNOWN if None in shared else INDEPENDENT

    @property
    def repeated(self) -> list[Overlap]:
        """The overlaps that are plain mistakes: the same utterance, or where compared the same audio, in two parts."""
        return [overlap for overlap in self.overlaps if overlap.kind in SAME and overlap.shared]

    @property
    def line(self) -> str:
        """The verdict, with its reason where it is a bad one, and what is repeated."""
        again = [
            f"{overlap} {overlap.second} {SAME[overlap.kind]} also in {overlap.first}" for overlap in self.repeated
        ]
        return "; ".join([self._verdict_with_reason, *again])

    @property
    def _verdict_with_reason(self) -> str:
        speakers = [overlap for overlap in self.overlaps if overlap.kind == "speaker"]
        worst = max(speakers, key=lambda o: (bool(o.shared), o.first == "train", o.second == "test", o.touched))
        if self.verdict == DEPENDENT:
            return f"{DEPENDENT}: {worst} {worst.second} speakers also in {worst.first}"
        if self.verdict == UNKNOWN:
            unknown = max(overlap.unknown for overlap in speakers)
            return f"{UNKNOWN}: {unknown} utterances do not say who speaks"
        return INDEPENDENT

    @property
    def clean(self) -> bool:
        """Whether the split is known to share no speaker, no utterance and, where compared, no audio."""
        return self.verdict == INDEPENDENT and not self.repeated

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.split.name,
            "fold": self.split.fold,
            "seed": self.split.seed,
            "description": self.split.description,
            "split_hash": self.split.hash,
            "speaker_independent": None if self.verdict == UNKNOWN else self.verdict == INDEPENDENT,
            "line": self.line,
            "parts": [asdict(part) for part in self.parts],
            "overlaps": [{**asdict(overlap), "share": overlap.share} for overlap in self.overlaps],
            "warnings": list(self.warnings),
        }


class Auditor:
    """Audits splits of the same utterances. audio: compare the files' bytes too, which reads every file."""

    def __init__(self, utterances: Sequence[Utterance], *, audio: bool = False) -> None:
        self.utterances = {key(utterance): utterance for utterance in utterances}
        self.kinds = {**KINDS, "audio": _audio()} if audio else KINDS

    @cached_property
    def values(self) -> dict[str, dict[str, str]]:
        """Kind -> id -> value."""
        return {kind: {one: value(u) for one, u in self.utterances.items()} for kind, value in self.kinds.items()}

    def audit(self, split: Split) -> Audit:
        """Raises `BadConfig` for a split of other utterances, and for one of fewer than two parts."""
        self._check(split)
        names = sorted(split.parts, key=lambda name: (name == "test", name != "train", name != "validation"))
        parts = tuple(self._part(name, split.parts[name]) for name in names)
        overlaps = [
            self._overlap(kind, values, first, second, split)
            for first, second in combinations(names, 2)
            for kind, values in self.values.items()
        ]
        found = Audit(split, parts, tuple(overlaps), ())
        return replace(found, warnings=tuple(self._warnings(found)))

    def _check(self, split: Split) -> None:
        if len(split.parts) < 2 or not all(split.parts.values()):
            sizes = ", ".join(f"{name} {len(ids)}" for name, ids in split.parts.items()) or "none"
            raise BadConfig(f"{split.title}: expected two parts or more, none of them empty; got {sizes}")
        unknown = [one for ids in split.parts.values() for one in ids if one not in self.utterances]
        if unknown:
            near = did_you_mean(unknown[0], self.utterances) if len(unknown) < 100 else ""
            total = sum(map(len, split.parts.values()))
            raise BadConfig(
                f"{split.title}: {len(unknown)} of {total} utterances are not in the corpora given, first "
                f"{unknown[0]}{near}: give every corpus that the split was made of"
            )

    def _part(self, name: str, ids: Sequence[str]) -> Part:
        people = {self.values["speaker"][one] for one in ids}
        emotions = Counter(self.utterances[one].emotion for one in ids)
        return Part(name, len(ids), None if "" in people else len(people), dict(sorted(emotions.items())))

    @staticmethod
    def _overlap(kind: str, values: Mapping[str, str], first: str, second: str, split: Split) -> Overlap:
        one, other = (Counter(values[each] for each in split.parts[part]) for part in (first, second))
        unknown = one.pop("", 0) + other.pop("", 0)
        shared = sorted(one.keys() & other.keys(), key=lambda value: (-other[value], value))
        return Overlap(
            kind,
            first,
            second,
            shared=None if unknown and not shared else len(shared),
            of=len(other),
            touched=sum(other[value] for value in shared),
            utterances=len(split.parts[second]),
            unknown=unknown,
            examples=tuple(shared[:EXAMPLES]),
        )

    def _warnings(self, found: Audit) -> Iterable[str]:
        split = found.split
        if split.verdict != found.verdict:
            yield f"the split says of itself {split.verdict!r}, which is not so"
        placed = {one for ids in split.parts.values() for one in ids}
        if left := Counter(u.emotion for one, u in self.utterances.items() if one not in placed):
            emotions = ", ".join(f"{emotion} {number}" for emotion, number in sorted(left.items()))
            yield f"{left.total()} of {len(self.utterances)} utterances stand in no part ({emotions})"
        everywhere = sorted({emotion for part in found.parts for emotion in part.emotions})
        for part in found.parts:
            if absent := [emotion for emotion in everywhere if emotion not in part.emotions]:
                yield f"part {part.name!r} has no {', '.join(absent)}"
            if part.name == "train":
                continue
            if part.utterances < TINY:
                points = 100 / part.utterances
                yield f"part {part.name!r} is small: one of its {part.utterances} is {points:.1f} points of accuracy"
            if rare := [f"{emotion} ({number})" for emotion, number in part.emotions.items() if number < RARE]:
                yield f"part {part.name!r} has few utterances of {', '.join(rare)}"


def audit(split: Split, utterances: Sequence[Utterance], *, audio: bool = False) -> Audit:
    """What the parts of a split of these utterances share.

    Raises `BadConfig` for a split of other utterances, `BadCorpus` for audio that cannot be read.
    """
    return Auditor(utterances, audio=audio).audit(split)
