"""Draw the unlabeled recordings of a corpus that a bundle is adapted to, before it is scored on the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affekt.errors import BadCorpus
from affekt.protocols import utterance_key
from affekt.utterance import Utterance

SEED = 0
"""Seed by which recordings are drawn and speakers are divided into two halves."""
MIN_SPEAKERS = 4
"""With this number of speakers or more, the drawn recordings are of other speakers than the scored utterances."""
TRANSDUCTIVE = "transductive"
"""The drawn recordings may be among the scored utterances."""
DISJOINT = "of other speakers of the same corpus"
"""The drawn recordings are of other speakers than the scored utterances."""


@dataclass(frozen=True)
class Draw:
    """The recordings that a profile is learned from, and the utterances that are scored with it."""

    recordings: tuple[Utterance, ...]
    keys: frozenset[str]
    """Keys of the utterances to score."""


def check_number(utterances: Sequence[Utterance], number: int) -> None:
    """Raise `BadCorpus` if there are fewer utterances than are to be drawn."""
    if len(utterances) < number:
        corpus = f"{utterances[0].corpus} has" if utterances else "there are"
        raise BadCorpus(f"{corpus} {len(utterances)} recordings, but {number} are to be drawn (--adapt)")


def draw_recordings(utterances: Sequence[Utterance], number: int) -> tuple[str, list[Draw]]:
    """Return TRANSDUCTIVE or DISJOINT, and the draws, which together score every utterance once.

    Emotions are ignored. If there are enough speakers, they are divided at random into two halves with about equal
    numbers of recordings; each half is scored with a profile of recordings of the other half. Otherwise, all utterances are
    scored with a profile of recordings that may be among them.

    Args:
        utterances: All utterances of a corpus that can be read.
        number: The number of recordings of a profile.

    Raises:
        BadCorpus: The corpus has fewer recordings.
    """
    utterances = sorted(utterances, key=utterance_key)
    check_number(utterances, number)
    generator = np.random.default_rng(SEED)

    def draw(pool: Sequence[Utterance]) -> tuple[Utterance, ...]:
        return tuple(pool[index] for index in sorted(generator.choice(len(pool), number, replace=False)))

    speakers = sorted({utterance.speaker for utterance in utterances})
    if "" not in speakers and len(speakers) >= MIN_SPEAKERS:
        halves: tuple[list[Utterance], list[Utterance]] = ([], [])
        for speaker in generator.permutation(np.array(speakers)):
            min(halves, key=len).extend(utterance for utterance in utterances if utterance.speaker == speaker)
        if min(map(len, halves)) >= number:
            pairs = (halves, halves[::-1])
            return DISJOINT, [Draw(draw(pool), frozenset(map(utterance_key, scored))) for pool, scored in pairs]
    return TRANSDUCTIVE, [Draw(draw(utterances), frozenset(map(utterance_key, utterances)))]
