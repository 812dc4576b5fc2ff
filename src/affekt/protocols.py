"""Who is trained on, who selects, who is scored: splits with a hash, and the line that is printed with every score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affekt.errors import BadConfig
from affekt.utterance import Utterance


@dataclass(frozen=True)
class Split:
    """Parts by name, each the ids (`corpus/id`) of its utterances, sorted."""

    name: str
    parts: Mapping[str, tuple[str, ...]]
    speaker_independent: bool  # no speaker stands in two parts, and all are known

    def line(self, part: str) -> str:
        """What is printed with every score on a part."""
        kind = "speaker-independent" if self.speaker_independent else "NOT speaker-independent"
        return f"{self.name}, part {part!r}: {len(self.parts[part])} utterances, {kind}, split {self.hash}"

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits of the hash of who stands where; the same on every machine."""
        canonical = json.dumps({name: list(ids) for name, ids in self.parts.items()}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def save(self, path: Path) -> None:
        content = {
            "name": self.name,
            "hash": self.hash,
            "speaker_independent": self.speaker_independent,
            "parts": {name: list(ids) for name, ids in self.parts.items()},
        }
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read a split; one whose hash does not fit its parts raises `BadConfig`."""
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: tuple(ids) for name, ids in content["parts"].items()}
        split = cls(content["name"], parts, content["speaker_independent"])
        if split.hash != content["hash"]:
            raise BadConfig(f"{path} was changed: its parts hash to {split.hash}, it says {content['hash']}")
        return split


def key(utterance: Utterance) -> str:
    """An utterance's id, unique over all corpora."""
    return f"{utterance.corpus}/{utterance.id}"


def held_out_people(utterances: Sequence[Utterance], held_out: Mapping[str, Iterable[str]]) -> Split:
    """Every part but "train" by the people in it ("cremad/1005"); everybody else is trained on.

    Raises `BadConfig` for a person who stands in two parts or does not occur: a part may not be smaller than it reads.
    """
    everyone = {utterance.person for utterance in utterances}
    part_of: dict[str, str] = {}
    for part, people in held_out.items():
        for person in people:
            if person in part_of:
                raise BadConfig(f"{person} stands in {part_of[person]!r} and in {part!r}")
            if person not in everyone:
                raise BadConfig(f"{part!r} names {person}, of whom there is no utterance")
            part_of[person] = part
    parts: dict[str, list[str]] = {"train": [], **{part: [] for part in held_out}}
    for utterance in utterances:
        parts[part_of.get(utterance.person, "train")].append(key(utterance))
    return _split("held-out people", utterances, parts)


def _split(name: str, utterances: Sequence[Utterance], parts: Mapping[str, Iterable[str]]) -> Split:
    """A split of these utterances, which finds out by itself whether anybody stands in two parts."""
    people = {key(utterance): utterance.person if utterance.speaker else "" for utterance in utterances}
    heard = [{people[one] for one in ids} for ids in parts.values()]
    known = all("" not in part for part in heard)
    apart = sum(map(len, heard)) == len(set().union(*heard))
    return Split(name, {part: tuple(sorted(ids)) for part, ids in parts.items()}, known and apart)
