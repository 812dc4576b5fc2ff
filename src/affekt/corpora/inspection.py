"""What a corpus holds, and whether it is whole: `describe` reads headers only, `check` hears every file."""

from __future__ import annotations

import filecmp
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from affekt.audio.read import MEDIA_SUFFIXES, SAMPLE_RATE, Waveform, check_length, load
from affekt.corpora.base import Published, some
from affekt.corpora.source import Source
from affekt.errors import BadAudio
from affekt.extras import need
from affekt.labels import LabelSet, label_set
from affekt.utterance import Utterance

STEP = 2.0**-15  # one step of 16-bit audio: what never moves by as much is digital silence
ROUNDING = 0.01  # seconds, to which tables round their times
POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Description:
    """What a corpus holds. Counts are of utterances, by name, sorted; hours are of sound."""

    corpus: str
    utterances: int
    hours: float
    emotions: Mapping[str, int]
    sessions: Mapping[str, int]
    speakers: Mapping[str, int]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """What is wrong with a corpus: ids of utterances, and a sentence for each kind of fault."""

    corpus: str
    utterances: int
    files: int
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]  # id -> why
    silent: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]  # groups of utterances with the same sound
    problems: tuple[str, ...]


def describe(source: Source, labels: LabelSet | None = None) -> Description:
    """Count a corpus, or those of its utterances that are in a label set, and compare it with what was published."""
    everything = source.read()
    utterances = everything if labels is None else _labelled(everything, labels)
    seconds, unread = _seconds(utterances)
    missing = [utterance.id for utterance in utterances if unread.get(utterance.id) == "missing"]
    faults = {name: reason for name, reason in unread.items() if reason != "missing"}
    return Description(
        source.id,
        len(utterances),
        round(seconds / 3600, 4),
        _counts(utterance.emotion for utterance in utterances),
        _counts(utterance.session for utterance in utterances),
        _counts(utterance.speaker for utterance in utterances),
        (*differences(source, everything), *_missing(missing), *_unreadable(faults)),
    )


def check(source: Source, progress: Callable[[int, int], None] | None = None) -> Check:
    """Hear every file of a corpus. progress: called after each file with how many are done, of how many."""
    utterances = source.read()
    by_file: dict[Path, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.audio:
            by_file[utterance.audio].append(utterance)
    heard = _Heard()
    for done, (path, within) in enumerate(by_file.items(), start=1):
        heard.add(path, within)
        if progress:
            progress(done, len(by_file))
    return Check(
        source.id,
        len(utterances),
        len(by_file),
        tuple(heard.missing),
        heard.unreadable,
        tuple(heard.silent),
        tuple(tuple(utterance.id for utterance in group) for group in heard.duplicates()),
        (*differences(source, utterances), *heard.problems()),
    )


class _Heard:
    """What was found by hearing files."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.unreadable: dict[str, str] = {}
        self.silent: list[str] = []
        self.same: dict[str, list[Utterance]] = defaultdict(list)  # by the hash of the samples

    def add(self, path: Path, utterances: Sequence[Utterance]) -> None:
        if not path.is_file():
            self.missing += [utterance.id for utterance in utterances]
            return
        try:
            whole = load(path)
        except BadAudio as error:
            self.unreadable.update({utterance.id: _reason(path, error) for utterance in utterances})
            return
        for utterance in utterances:
            try:
                sound = stretch(utterance, whole)
            except BadAudio as error:
                self.unreadable[utterance.id] = str(error)
                continue
            if np.ptp(sound) < STEP:
                self.silent.append(utterance.id)
            else:
                self.same[hashlib.sha256(sound.tobytes()).hexdigest()].append(utterance)

    def duplicates(self) -> list[list[Utterance]]:
        return [group for group in self.same.values() if len(group) > 1]

    def problems(self) -> list[str]:
        silent = [f"{len(self.silent)} silent: {some(self.silent)}"] if self.silent else []
        same = [_duplicate(group) for group in self.duplicates()]
        return [*_missing(self.missing), *_unreadable(self.unreadable), *silent, *same]


def stretch(utterance: Utterance, whole: Waveform) -> Waveform:
    """An utterance's sound in that of its file; `BadAudio` where the file ends before it does, or there is too little."""
    end = whole.size if utterance.end is None else round(utterance.end * SAMPLE_RATE)
    if end > whole.size + ROUNDING * SAMPLE_RATE:
        length = whole.size / SAMPLE_RATE
        raise BadAudio(f"{utterance.audio} lasts {length:.2f} s; the utterance ends at {utterance.end} s")
    part = whole[round(utterance.start * SAMPLE_RATE) : end]
    check_length(part.size, utterance.id)
    return part


def differences(source: Source, utterances: Sequence[Utterance]) -> list[str]:
    """Where a source's utterances are not what was published of their corpus, in sentences that name what differs."""
    corpus, found = source.corpus, []
    if source.without:  # what the user leaves out is no fault of the corpus
        utterances = replace(source, without=()).read()
    if corpus.names:
        names, there = set(corpus.names()), {utterance.id for utterance in utterances}
        if missing := sorted(names - there):
            found.append(f"{len(missing)} of {len(names)} published utterances are missing: {some(missing)}")
        if extra := sorted(there - names):
            found.append(f"{len(extra)} utterances are not among the published: {some(extra)}")
    if corpus.published and not any(utterance.audio for utterance in utterances):
        found.append("no audio is there: the corpus is read as text")
    found += [text for published in corpus.published if (text := _difference(published, utterances))]
    return found + (corpus.remarks(source.path, utterances) if corpus.remarks else [])


def _difference(published: Published, utterances: Sequence[Utterance]) -> str:
    if published.labels:
        utterances = _labelled(utterances, label_set(published.labels))
    counted = [utterance for utterance in utterances if published.split in ("", utterance.split)]
    pairs = [
        *_unequal("", {"utterances": len(counted)}, {"utterances": published.utterances}),
        *_unequal("", _counts(u.emotion for u in counted), published.emotions),
        *_unequal("session ", _counts(u.session for u in counted), published.sessions),
        *_unequal("speaker ", _counts(u.speaker for u in counted), published.speakers),
    ]
    if published.dialogues is not None:
        dialogues = len({utterance.dialogue for utterance in counted})
        pairs += _unequal("", {"dialogues": dialogues}, {"dialogues": published.dialogues})
    where = " ".join(part for part in (published.split, published.labels) if part)
    return f"{where + ': ' if where else ''}not as published: {some(pairs)}" if pairs else ""


def _unequal(kind: str, counted: Mapping[str, int], published: Mapping[str, int]) -> list[str]:
    """Every count that is not the published one, "angry 1268 of 1271"; nothing where nothing was published."""
    names = sorted({*counted, *published}) if published else []
    both = ((name, counted.get(name, 0), published.get(name, 0)) for name in names)
    return [f"{kind}{name} {here} of {there}" for name, here, there in both if here != there]


def _labelled(utterances: Sequence[Utterance], labels: LabelSet) -> list[Utterance]:
    """The utterances of a label set, with its emotions."""
    indices = ((utterance, labels.index_of(utterance)) for utterance in utterances)
    return [replace(u, emotion=labels.emotions[index]) for u, index in indices if index is not None]


def _counts(names: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(name for name in names if name).items()))


def _seconds(utterances: Sequence[Utterance]) -> tuple[float, dict[str, str]]:
    """How long the utterances last together, by their files' headers, and why those that do not count could not."""
    lengths: dict[Path, float | str] = {}
    total, unread = 0.0, dict[str, str]()
    for utterance in utterances:
        if utterance.audio is None:
            continue
        if utterance.audio not in lengths:
            lengths[utterance.audio] = _length(utterance.audio)
        length = lengths[utterance.audio]
        if isinstance(length, str):
            unread[utterance.id] = length
        else:
            total += max(0.0, min(length, utterance.end or length) - utterance.start)
    return total, unread


def _length(path: Path) -> float | str:
    """Seconds, or what is wrong with the file."""
    if not path.is_file():
        return "missing"
    try:
        return _media_length(path) if path.suffix.lower() in MEDIA_SUFFIXES else soundfile.info(str(path)).duration
    except (BadAudio, soundfile.SoundFileError) as error:
        return _reason(path, error)


def _reason(path: Path, error: Exception) -> str:
    """What is wrong with a file; CREMA-D above all is often had as pointers in the place of its files."""
    with suppress(OSError), path.open("rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            return f"{path} is a Git LFS pointer in the place of the sound: run git lfs pull"
    return str(error)


def _media_length(path: Path) -> float:
    av = need("av", extra="media", purpose=f"reading {path}")
    try:
        with av.open(str(path)) as container:
            return float((container.duration or 0) / av.time_base)
    except av.FFmpegError as error:
        raise BadAudio(f"{path} is not audio that can be read: {error.strerror}", code="not_audio") from error


def _missing(names: Sequence[str]) -> list[str]:
    return [f"{len(names)} audio files are missing: {some(names)}"] if names else []


def _unreadable(reasons: Mapping[str, str]) -> list[str]:
    names = sorted(reasons)
    return [f"{len(names)} cannot be read: {some(names)}; the first: {reasons[names[0]]}"] if names else []


def _duplicate(group: Sequence[Utterance]) -> str:
    paths = [utterance.audio for utterance in group if utterance.audio]
    equal = all(filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:])
    labels = {utterance.emotion for utterance in group}
    differ = f", labelled {' and '.join(sorted(labels))}" if len(labels) > 1 else ""
    return f"the same sound{' and bytes' if equal else ''}{differ}: {some([utterance.id for utterance in group])}"
