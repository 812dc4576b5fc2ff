"""Inspection of a corpus: `describe` counts its contents from headers; `check` decodes every file to find faults."""

from __future__ import annotations

import filecmp
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from affekt.audio.read import Notes, duration, is_silent
from affekt.corpora.base import Published, join_names
from affekt.corpora.similar_names import similar_names
from affekt.corpora.source import OWN, Source
from affekt.corpora.subsets import name_subsets
from affekt.corpora.waveforms import read_waveforms, seconds_cut
from affekt.errors import BadAudio
from affekt.labels import LabelSet, label_set
from affekt.plural import quantity
from affekt.progress import Progress
from affekt.utterance import Utterance

LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Description:
    """The contents of a corpus. Counts are numbers of utterances by name, sorted."""

    corpus: str
    utterances: int
    hours: float
    """Duration of the audio."""
    emotions: Mapping[str, int]
    sessions: Mapping[str, int]
    speakers: Mapping[str, int]
    splits: Mapping[str, int]
    """Subsets as the corpus names them."""
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """The faults of a corpus: ids of utterances, and a message for each kind of fault."""

    corpus: str
    utterances: int
    files: int
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]
    """Id -> reason, for every utterance whose audio exists but cannot be used for training."""
    silent: tuple[str, ...]
    duplicates: tuple[tuple[str, ...], ...]
    """Groups of utterances with the same samples."""
    cut: Mapping[str, float]
    """Id -> seconds after the end of the file, for every utterance that ends after its file but within the tolerance."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    """Remarks that are not faults."""


def describe(source: Source, labels: LabelSet | None = None) -> Description:
    """Count the utterances of a corpus, or of a label set in it, and compare the counts with the published ones."""
    all_utterances = source.read()
    utterances = all_utterances if labels is None else _labeled(all_utterances, labels)
    seconds, unread = _seconds(utterances)
    missing = [utterance.id for utterance in utterances if unread.get(utterance.id) == "missing"]
    unreadable = {name: reason for name, reason in unread.items() if reason != "missing"}
    return Description(
        source.id,
        len(utterances),
        round(seconds / 3600, 4),
        _counts(utterance.emotion for utterance in utterances),
        _counts(utterance.session for utterance in utterances),
        _counts(utterance.speaker for utterance in utterances),
        _counts(utterance.split for utterance in utterances),
        (*differences(source, all_utterances), *_missing(missing), *_unreadable(unreadable)),
    )


def check(source: Source, progress: Progress | None = None) -> Check:
    """Decode all audio of a corpus, as training would, and compare its counts with the published ones.

    Args:
        source: The corpus.
        progress: Called after each file.
    """
    utterances = source.read()
    by_file: dict[Path, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.audio:
            by_file[utterance.audio].append(utterance)
    findings = _Findings()
    for done, (path, group) in enumerate(by_file.items(), start=1):
        findings.add(path, group)
        if progress:
            progress("checking", done, len(by_file))
    return Check(
        source.id,
        len(utterances),
        len(by_file),
        tuple(findings.missing),
        findings.unreadable,
        tuple(findings.silent),
        tuple(tuple(utterance.id for utterance in group) for group in findings.duplicates()),
        findings.cut,
        (*differences(source, utterances), *findings.problems()),
        tuple(findings.notes()),
    )


class _Findings:
    """The findings in the files read so far, in the order of the utterances."""

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.unreadable: dict[str, str] = {}
        self.silent: list[str] = []
        self.cut: dict[str, float] = {}
        self.file_notes: dict[Path, Notes] = {}
        self.by_hash: dict[str, list[Utterance]] = defaultdict(list)  # by the hash of the samples

    def add(self, path: Path, utterances: Sequence[Utterance]) -> None:
        if not _is_file(path):
            self.missing += [utterance.id for utterance in utterances]
            return
        results: dict[int, tuple[str, float] | BadAudio] = {}  # hash of the samples, "" for silence; seconds cut
        for index, waveform in read_waveforms(dict(enumerate(utterances)), self.file_notes):
            if isinstance(waveform, BadAudio):
                results[index] = waveform
            else:
                digest = "" if is_silent(waveform) else hashlib.sha256(waveform.tobytes()).hexdigest()
                results[index] = digest, seconds_cut(utterances[index], waveform)
        for index, utterance in enumerate(utterances):
            result = results[index]
            if isinstance(result, BadAudio):
                self.unreadable[utterance.id] = _reason(path, result)
                continue
            digest, seconds = result
            if digest:
                self.by_hash[digest].append(utterance)
            else:
                self.silent.append(utterance.id)
            if seconds > 0:
                self.cut[utterance.id] = seconds

    def duplicates(self) -> list[list[Utterance]]:
        return [group for group in self.by_hash.values() if len(group) > 1]

    def problems(self) -> list[str]:
        silent = [f"{quantity(len(self.silent), 'silent utterance')}: {join_names(self.silent)}"] if self.silent else []
        duplicates = [_duplicate(group) for group in self.duplicates()]
        return [*_missing(self.missing), *_unreadable(self.unreadable), *silent, *duplicates]

    def notes(self) -> list[str]:
        truncated = [path for path, notes in self.file_notes.items() if notes.truncated]
        mixed = [path for path, notes in self.file_notes.items() if notes.channels]
        notes = []
        if self.cut:
            most = max(self.cut.values())
            notes.append(
                f"{quantity(len(self.cut), 'utterance')} cut at the end of the file (by at most {most:.3f} s): "
                f"{join_names(list(self.cut))}"
            )
        if truncated:
            notes.append(
                f"{quantity(len(truncated), 'file')} slightly shorter than the header declares: {_join_paths(truncated)}"
            )
        if mixed:
            first = self.file_notes[mixed[0]].channels
            notes.append(
                f"{quantity(len(mixed), 'file')} whose channels cancel each other, read from a single channel: "
                f"{_join_paths(mixed)}; the first one: {first}"
            )
        return notes


def _join_paths(paths: Sequence[Path]) -> str:
    return join_names([path.name for path in paths])


def differences(source: Source, utterances: Sequence[Utterance]) -> list[str]:
    """Return a message for each difference between a source's utterances and the published corpus."""
    corpus, problems = source.corpus, []
    if source != source.whole:  # utterances that the user excludes are not missing from the corpus
        utterances = source.whole.read()
    if corpus.published_ids:
        published, present = set(corpus.published_ids()), {utterance.id for utterance in utterances}
        if missing := sorted(published - present):
            problems.append(
                f"{len(missing)} of {len(published)} published utterances are missing: {join_names(missing)}"
            )
        if extra := sorted(present - published):
            problems.append(f"{quantity(len(extra), 'utterance')} not in the published corpus: {join_names(extra)}")
    if corpus.published and not any(utterance.audio for utterance in utterances):
        problems.append("no audio: the corpus is read as text")
    problems += [text for counts in corpus.published if (text := _difference(counts, utterances))]
    problems += similar_names(source, utterances)
    if source.name in OWN:
        problems += _incomplete(utterances)
    return problems + (corpus.remarks(source.path, utterances) if corpus.remarks else [])


def _incomplete(utterances: Sequence[Utterance]) -> list[str]:
    """Return a message for each field that only some of the utterances have, although training needs it for all."""
    names = {}
    if any(utterance.audio for utterance in utterances):
        names["no audio"] = [utterance.id for utterance in utterances if not utterance.audio]
    if "train" in name_subsets(utterance.split for utterance in utterances).values():
        names["no subset"] = [utterance.id for utterance in utterances if not utterance.split]
    return [
        f"{len(missing)} of {quantity(len(utterances), 'utterance')} have {field}: {join_names(missing)}"
        for field, missing in names.items()
        if missing
    ]


def _difference(published: Published, utterances: Sequence[Utterance]) -> str:
    if published.labels:
        utterances = _labeled(utterances, label_set(published.labels))
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
    return f"{where + ': ' if where else ''}not as published: {join_names(pairs)}" if pairs else ""


def _unequal(kind: str, counted: Mapping[str, int], published: Mapping[str, int]) -> list[str]:
    """Return each count that differs from the published one, as "angry 1268 of 1271"; [] if none was published."""
    names = sorted({*counted, *published}) if published else []
    counts = ((name, counted.get(name, 0), published.get(name, 0)) for name in names)
    return [f"{kind}{name} {count} of {expected}" for name, count, expected in counts if count != expected]


def _labeled(utterances: Sequence[Utterance], labels: LabelSet) -> list[Utterance]:
    """Return the utterances that belong to a label set, with the emotions of the set."""
    indices = ((utterance, labels.index_of(utterance)) for utterance in utterances)
    return [replace(u, emotion=labels.emotions[index]) for u, index in indices if index is not None]


def _counts(names: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(name for name in names if name).items()))


def _seconds(utterances: Sequence[Utterance]) -> tuple[float, dict[str, str]]:
    """Return the total duration according to the files' headers, and id -> reason for each utterance that is not counted."""
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
    """Return the duration in seconds, or the reason why the file cannot be read."""
    if not _is_file(path):
        return "missing"
    try:
        return duration(path)
    except BadAudio as error:
        return _reason(path, error)


def _is_file(path: Path) -> bool:
    """Return whether a file exists; unlike `Path.is_file`, this does not raise if its name is too long."""
    return os.path.isfile(path)  # noqa: PTH113


def _reason(path: Path, error: Exception) -> str:
    """Return the reason why a file cannot be read. Copies of CREMA-D often contain Git LFS pointers instead of audio."""
    with suppress(OSError), path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            return f"{path} is a Git LFS pointer instead of audio: run git lfs pull"
    return str(error)


def _missing(names: Sequence[str]) -> list[str]:
    return [f"{quantity(len(names), 'utterance')} whose audio file is missing: {join_names(names)}"] if names else []


def _unreadable(reasons: Mapping[str, str]) -> list[str]:
    names = sorted(reasons)
    return (
        [f"{quantity(len(names), 'unreadable utterance')}: {join_names(names)}; the first one: {reasons[names[0]]}"]
        if names
        else []
    )


def _duplicate(group: Sequence[Utterance]) -> str:
    paths = [utterance.audio for utterance in group if utterance.audio]
    equal = all(filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:])
    labels = {utterance.emotion for utterance in group}
    differ = f", labeled {' and '.join(sorted(labels))}" if len(labels) > 1 else ""
    return f"the same audio{' and bytes' if equal else ''}{differ}: {join_names([utterance.id for utterance in group])}"
