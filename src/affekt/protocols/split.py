"""A split into training, validation and test subsets, with its hash and the line that accompanies every score."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affekt.config import decode
from affekt.errors import BadConfig, BadOutput
from affekt.files import atomic_write_text
from affekt.json_text import to_json
from affekt.utterance import Utterance

INDEPENDENT, DEPENDENT, UNKNOWN = "speaker-independent", "NOT speaker-independent", "speakers unknown"


def utterance_key(utterance: Utterance) -> str:
    """Return an utterance's id, unique over all corpora: "corpus/id"."""
    return f"{utterance.corpus}/{utterance.id}"


@dataclass(frozen=True)
class Split:
    """One fold of a protocol: the sorted keys of the utterances of each subset ("train", "validation", "test")."""

    name: str
    """The protocol's title."""
    subsets: Mapping[str, tuple[str, ...]]
    speaker_independent: bool
    """True if no speaker of the test subset is in another subset, and all speakers are known."""
    undecided: bool = False
    """True if no known speaker of the test subset is in another subset, but some utterances have no speaker."""
    validation_verdict: str = ""
    """The verdict on the validation subset against the training subset; "" without one, and in files of earlier versions. It
    does not decide whether the score is speaker-independent."""
    fold: str = ""
    """Name of the fold; "" if the protocol makes a single split."""
    seed: int | None = None
    """None if the protocol uses no randomness."""
    description: str = ""
    """The protocol's settings."""

    @classmethod
    def of(
        cls,
        utterances: Iterable[Utterance],
        subsets: Mapping[str, Iterable[str]],
        name: str,
        *,
        fold: str = "",
        seed: int | None = None,
        description: str = "",
    ) -> Split:
        """Make a split of these utterances, and determine whether any speaker of the test subset is in another one.

        A split without a subset "test" is speaker-independent if no speaker is in two subsets.

        Args:
            utterances: All utterances of the split.
            subsets: Subset -> keys of its utterances.
            name: The name of the protocol.
            fold: The name of the fold; "" if there is only one.
            seed: The seed of random choices; None if there are none.
            description: The settings of the protocol in one line.
        """
        speakers = {
            utterance_key(utterance): utterance.speaker_key if utterance.speaker else "" for utterance in utterances
        }
        sorted_keys = {subset: tuple(sorted(keys)) for subset, keys in subsets.items()}
        present = {subset: {speakers[key] for key in keys} for subset, keys in sorted_keys.items()}
        if "test" in present:
            others = set[str]().union(*(names for subset, names in present.items() if subset != "test"))
            verdict = judge([present["test"], others])
        else:
            verdict = judge(present.values())
        both = [present[subset] for subset in ("train", "validation") if subset in present]
        return cls(
            name,
            sorted_keys,
            speaker_independent=verdict == INDEPENDENT,
            undecided=verdict == UNKNOWN,
            validation_verdict=judge(both) if len(both) == 2 else "",
            fold=fold,
            seed=seed,
            description=description,
        )

    @property
    def verdict(self) -> str:
        """One of "speaker-independent", "NOT speaker-independent", "speakers unknown"."""
        return INDEPENDENT if self.speaker_independent else UNKNOWN if self.undecided else DEPENDENT

    @property
    def title(self) -> str:
        """The protocol, the fold and the seed in one line."""
        fold = f", fold {self.fold}" if self.fold else ""
        return self.name + fold + ("" if self.seed is None else f", seed {self.seed}")

    def line(self, subset: str) -> str:
        """Return the line that accompanies every score on a subset."""
        number = len(self.subsets[subset])
        verdict = describe_verdicts([self])
        return f"{self.title}, subset {subset!r}: {number} utterances, {verdict}, split {self.hash}"

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits of the hash of the subsets, the same on every machine."""
        canonical = json.dumps({name: list(keys) for name, keys in self.subsets.items()}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def save(self, path: Path) -> None:
        """Write the split with its hash as JSON."""
        content = {"hash": self.hash, **dataclasses.asdict(self)}
        atomic_write_text(path, to_json(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read a split; older files, which have "parts" instead of "subsets", can be read too.

        Raises:
            BadConfig: The file is missing or is not a split, or its hash does not match its subsets.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadConfig(f"{path} does not exist: expected a split") from None
        except ValueError as error:
            raise BadConfig(f"{path} is not a split: it is not JSON ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("hash"), str):
            raise BadConfig(
                f"{path} is not a split: expected an object with name, hash, subsets and speaker_independent"
            )
        if "subsets" not in content and "parts" in content:
            content["subsets"] = content.pop("parts")
        split = decode(cls, {name: value for name, value in content.items() if name != "hash"}, f"split {path}")
        if split.hash != content["hash"]:
            raise BadConfig(
                f"{path} was edited: its subsets have the hash {split.hash}, but it states {content['hash']}"
            )
        return split


def judge(subsets: Iterable[set[str]]) -> str:
    """Return the verdict on subsets of speakers, of which "" is an unknown one: whether any speaker is in two of them."""
    subsets = list(subsets)
    known = [subset - {""} for subset in subsets]
    if sum(map(len, known)) > len(set[str]().union(*known)):
        return DEPENDENT
    return UNKNOWN if any("" in subset for subset in subsets) else INDEPENDENT


def combined_verdict(verdicts: Iterable[str]) -> str:
    """Return the verdict on several folds together: the worst of theirs."""
    present = set(verdicts)
    return next((verdict for verdict in (DEPENDENT, UNKNOWN) if verdict in present), INDEPENDENT)


def describe_verdicts(splits: Sequence[Split]) -> str:
    """Return the verdict on one or several folds, followed by that on their validation subsets if it is another one."""
    verdict = combined_verdict(split.verdict for split in splits)
    validation = combined_verdict(split.validation_verdict for split in splits)
    if verdict == validation or not all(split.validation_verdict for split in splits):
        return verdict
    return f"{verdict} (validation against training: {validation})"


def combined_title(splits: Sequence[Split]) -> str:
    """Return the protocol of one split, or of several folds, in one line."""
    first, distinct = splits[0], {split.hash: split for split in splits}
    if len(distinct) == 1:
        return first.title
    description = f" ({first.description})" if first.description else ""
    seed = "" if first.seed is None else f", seed {first.seed}"
    return f"{first.name}{description}{seed}, {len(distinct)} folds"


def combined_hash(splits: Iterable[Split]) -> str:
    """Return the hash of one split, or the hash of the hashes of several. Equal splits count once, as those of two seeds."""
    hashes = sorted({split.hash for split in splits})
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:12]


def save_folds(folds: Sequence[Split], folder: Path) -> list[Path]:
    """Write folds as fold-01.json, ... and return their paths.

    Raises:
        BadOutput: The folder has other JSON files, with which these folds would be mixed.
    """
    digits = max(2, len(str(len(folds))))
    paths = [folder / f"fold-{number:0{digits}}.json" for number in range(1, len(folds) + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    if others := sorted(set(folder.glob("*.json")) - set(paths)):
        raise BadOutput(f"{folder} has {others[0].name}, which is not one of these folds: choose an empty folder")
    for split, path in zip(folds, paths, strict=True):
        split.save(path)
    return paths
