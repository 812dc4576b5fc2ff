"""A split: who is trained on, who selects, who is scored; with a hash, and the line that is printed with every score."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affekt.config import decode
from affekt.errors import BadConfig, BadOutput
from affekt.utterance import Utterance

INDEPENDENT, DEPENDENT, UNKNOWN = "speaker-independent", "NOT speaker-independent", "speakers unknown"


def key(utterance: Utterance) -> str:
    """An utterance's id, unique over all corpora."""
    return f"{utterance.corpus}/{utterance.id}"


@dataclass(frozen=True)
class Split:
    """Parts by name, each the ids (`corpus/id`) of its utterances, sorted; one fold of a protocol."""

    name: str  # the protocol's, in words
    parts: Mapping[str, tuple[str, ...]]
    speaker_independent: bool  # no speaker stands in two parts, and all are known
    undecided: bool = False  # no known speaker stands in two parts, but not all are known
    fold: str = ""  # which of the protocol's folds; "" where it makes one split
    seed: int | None = None  # None where nothing was drawn
    description: str = ""  # the protocol's settings

    @classmethod
    def of(
        cls,
        utterances: Iterable[Utterance],
        parts: Mapping[str, Iterable[str]],
        name: str,
        *,
        fold: str = "",
        seed: int | None = None,
        description: str = "",
    ) -> Split:
        """A split of these utterances, which finds out by itself whether anybody stands in two parts."""
        people = {key(utterance): utterance.person if utterance.speaker else "" for utterance in utterances}
        ids = {part: tuple(sorted(ids)) for part, ids in parts.items()}
        heard = [{people[one] for one in part} for part in ids.values()]
        known = [part - {""} for part in heard]
        apart = sum(map(len, known)) == len(set().union(*known))
        unknown = any("" in part for part in heard)
        return cls(name, ids, apart and not unknown, apart and unknown, fold, seed, description)

    @property
    def verdict(self) -> str:
        """One of "speaker-independent", "NOT speaker-independent", "speakers unknown"."""
        return INDEPENDENT if self.speaker_independent else UNKNOWN if self.undecided else DEPENDENT

    @property
    def title(self) -> str:
        """The protocol, the fold and the seed, as they are printed."""
        fold = f", fold {self.fold}" if self.fold else ""
        return self.name + fold + ("" if self.seed is None else f", seed {self.seed}")

    def line(self, part: str) -> str:
        """What is printed with every score on a part."""
        return f"{self.title}, part {part!r}: {len(self.parts[part])} utterances, {self.verdict}, split {self.hash}"

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits of the hash of who stands where; the same on every machine."""
        canonical = json.dumps({name: list(ids) for name, ids in self.parts.items()}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def save(self, path: Path) -> None:
        content = {"hash": self.hash, **dataclasses.asdict(self)}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read a split. Raises `BadConfig` for what is none, and for one whose hash does not fit its parts."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadConfig(f"{path} does not exist: expected a split") from None
        except ValueError as error:
            raise BadConfig(f"{path} is no split: it is not JSON ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("hash"), str):
            raise BadConfig(f"{path} is no split: expected an object with name, hash, parts and speaker_independent")
        split = decode(cls, {name: value for name, value in content.items() if name != "hash"}, f"split {path}")
        if split.hash != content["hash"]:
            raise BadConfig(f"{path} was changed: its parts hash to {split.hash}, it says {content['hash']}")
        return split


def combined_hash(splits: Iterable[Split]) -> str:
    """A split's hash; of several folds, the hash of their hashes. A fold that stands twice (for two seeds) counts once."""
    hashes = sorted({split.hash for split in splits})
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:12]


def save_folds(folds: Sequence[Split], folder: Path) -> list[Path]:
    """Write folds as fold-01.json, ...; a folder that holds other JSON files is refused, so that no two sets mix."""
    digits = max(2, len(str(len(folds))))
    paths = [folder / f"fold-{number:0{digits}}.json" for number in range(1, len(folds) + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    if strangers := sorted(set(folder.glob("*.json")) - set(paths)):
        raise BadOutput(f"{folder} holds {strangers[0].name}, which is none of these folds: give an empty folder")
    for split, path in zip(folds, paths, strict=True):
        split.save(path)
    return paths
