"""Check the headers of all audio files at once, before hours of feature extraction stop at one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from affekt.audio.notes import CURE
from affekt.audio.read import SHORTEST, duration
from affekt.corpora.base import join_names
from affekt.corpora.waveforms import TOLERANCE
from affekt.errors import BadAudio, BadCorpus
from affekt.utterance import Utterance


def check_headers(utterances: Iterable[Utterance]) -> None:
    """Raise `BadCorpus` if an utterance's file cannot be opened, is cut off, is too short, or ends before the utterance.

    The message lists all such utterances, and the setting `without` that leaves them out.
    """
    seconds: dict[Path, float | str] = {}
    reasons: dict[str, dict[str, str]] = defaultdict(dict)
    total = 0
    for utterance in utterances:
        if utterance.audio is None:
            continue
        total += 1
        if utterance.audio not in seconds:
            seconds[utterance.audio] = _seconds(utterance.audio)
        if reason := _find_fault(utterance, seconds[utterance.audio]):
            reasons[utterance.corpus][utterance.id] = reason
    if not reasons:
        return
    faults = [f"{name} ({reason})" for by_id in reasons.values() for name, reason in by_id.items()]
    without = "; ".join(f"{corpus}: without = {list(by_id)}" for corpus, by_id in reasons.items())
    raise BadCorpus(
        f"{len(faults)} of {total} utterances have no usable audio: {join_names(faults, 5)}; repair the files, or leave "
        f"them out with the corpus's setting `without` in the recipe ({without})"
    )


def _seconds(path: Path) -> float | str:
    """Return the duration that the header states, or the reason why there is none."""
    try:
        return duration(path, complete=True)
    except BadAudio as error:
        return str(error).removesuffix(f"; {CURE}")  # a setting of recognition


def _find_fault(utterance: Utterance, seconds: float | str) -> str:
    if isinstance(seconds, str):
        return seconds
    end = seconds if utterance.end is None else utterance.end
    if end > seconds + TOLERANCE:
        return f"ends at {end:.2f} s, its file at {seconds:.2f} s"
    length = max(min(end, seconds) - utterance.start, 0)
    return f"{length:.2f} s, shorter than {SHORTEST} s" if length < SHORTEST else ""
