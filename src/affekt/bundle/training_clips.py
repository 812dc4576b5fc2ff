"""The clips that a bundle was trained on, so that they are recognized in the data of a later training run or evaluation.

training_clips.json in a bundle's folder has hashes of the clips' samples, which do not depend on a file's name or format, and
for a fine-tuned bundle those of the earlier bundles too. Clips of published corpora are also recognized by their names, since
a copy may have been resampled or compressed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affekt.audio.read import Waveform
from affekt.bundle.folder import Bundle, read_json
from affekt.corpora import corpora
from affekt.corpora.source import OWN
from affekt.corpora.waveforms import read_waveforms
from affekt.errors import BadAudio, BadBundle
from affekt.json_text import to_json
from affekt.protocols.split import Split, utterance_key
from affekt.utterance import Utterance

FILE = "training_clips.json"
HASH_DIGITS = 16
"""Hexadecimal digits of a hash. With a million clips, the probability of two equal hashes is below one in ten million."""


@dataclass(frozen=True)
class TrainingClips:
    """The clips that a bundle, and the bundles that it was fine-tuned from, were trained on."""

    hashes: frozenset[str] = frozenset()
    """Hashes of the clips' samples."""
    names: frozenset[str] = frozenset()
    """Ids of clips of published corpora."""

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> TrainingClips:
        """Return the training clips of a bundle; only their names if it was made by an earlier version.

        Raises:
            BadBundle: The file of hashes and names is not valid.
        """
        hashes, names = frozenset[str](), frozenset[str]()
        if (path := bundle.folder / FILE).is_file():
            content = read_json(path)
            if not _is_valid(content):
                raise BadBundle(f"{path} has no valid lists of hashes and names; copy or make the bundle again")
            hashes, names = frozenset(content["hashes"]), frozenset(content["names"])
        if (bundle.folder / "split.json").is_file():
            names |= published_names(Split.load(bundle.file("split.json")).subsets["train"])
        return cls(hashes, names)

    @classmethod
    def of_utterances(cls, utterances: Sequence[Utterance]) -> TrainingClips:
        """Return the training clips of a model that was trained on these utterances."""
        return cls(frozenset(_hashes(utterances).values()), frozenset())

    def __or__(self, other: TrainingClips) -> TrainingClips:
        return TrainingClips(self.hashes | other.hashes, self.names | other.names)

    def write(self, folder: Path) -> None:
        """Write the clips to a bundle's folder."""
        content = {"hashes": sorted(self.hashes), "names": sorted(self.names)}
        (folder / FILE).write_text(to_json(content, indent=0) + "\n", encoding="utf-8")

    def find_names(self, utterances: Sequence[Utterance]) -> set[str]:
        """Return the keys of the utterances that are among these clips by their names; no audio is read."""
        return {utterance_key(u) for u in utterances if self.names & {u.id, u.audio.stem if u.audio else ""}}

    def find(self, utterances: Sequence[Utterance]) -> set[str]:
        """Return the keys of the utterances that are among these clips, by their names or their samples."""
        known = self.find_names(utterances)
        if not self.hashes:
            return known
        others = [utterance for utterance in utterances if utterance_key(utterance) not in known]
        return known | {key for key, digest in _hashes(others).items() if digest in self.hashes}


def published_names(keys: Iterable[str]) -> frozenset[str]:
    """Return the ids of the utterances of published corpora among these keys ("emodb/03a01Fa")."""
    split_keys = (key.partition("/") for key in keys)
    return frozenset(name for corpus, _, name in split_keys if corpus in corpora and corpus not in OWN)


def hash_samples(waveform: Waveform) -> str:
    """Return the hash of a clip's samples at 16 kHz, rounded to 16 bits, so that decoders need not agree in every bit."""
    samples = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype("<i2")
    return hashlib.sha256(samples.tobytes()).hexdigest()[:HASH_DIGITS]


def _is_valid(content: Any) -> bool:
    """Return whether the content of training_clips.json is an object with two lists of strings."""
    return isinstance(content, dict) and all(
        isinstance(content.get(name), list) and all(isinstance(entry, str) for entry in content[name])
        for name in ("hashes", "names")
    )


def _hashes(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Return the hash of each utterance by its key; utterances that cannot be read are left out."""
    with_audio = {utterance_key(utterance): utterance for utterance in utterances if utterance.audio}
    return {
        key: hash_samples(waveform)
        for key, waveform in read_waveforms(with_audio)
        if not isinstance(waveform, BadAudio)
    }
