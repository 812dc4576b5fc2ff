"""Properties that must be true for all inputs; hypothesis generates the inputs."""

import csv
import json
import string
import tempfile
import tomllib
import unicodedata
from collections import Counter
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from affekt.audio.read import SAMPLE_RATE
from affekt.config import override, to_toml
from affekt.corpora import table
from affekt.errors import BadConfig
from affekt.inference.segments import LONGEST, cut_segments
from affekt.invisible import strip_invisible
from affekt.protocols import protocols, utterance_key
from affekt.tabular.missing import is_missing_speaker, is_missing_transcript
from affekt.utterance import Utterance

# Settings

KEYS = st.text(string.ascii_lowercase + "_", min_size=1, max_size=6)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8),
)
SECTIONS = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=4),
    lambda inner: st.dictionaries(KEYS, st.one_of(VALUES, inner), max_size=4),
    max_leaves=12,
)


def assignment(path, value):
    return ".".join(path) + to_toml({"v": value}).strip().removeprefix("v ").replace("= ", "=", 1)


def lookup(data, path):
    for step in path:
        data = data[step]
    return data


@pytest.mark.slow
@given(SECTIONS, st.lists(KEYS, min_size=1, max_size=3), VALUES)
def test_an_override_sets_its_key_and_nothing_else(data, path, value):
    before = deepcopy(data)
    try:
        result = override(data, [assignment(path, value)])
    except BadConfig:  # the path needs a section, but there is a value
        parents = [path[:depth] for depth in range(1, len(path))]
        assert any(not isinstance(lookup_or_section(before, parent), dict) for parent in parents)
        return
    assert data == before
    assert lookup(result, path) == value
    assert type(lookup(result, path)) is type(value)
    level = result
    for step in path[:-1]:
        level = level[step]
    del level[path[-1]]
    assert without_empty(result) == without_empty(removed(before, path))


def lookup_or_section(data, path):
    for step in path:
        if not isinstance(data, dict):
            return data
        data = data.get(step, {})
    return data


def removed(data, path):
    data, level = (copy := deepcopy(data)), copy
    for step in path[:-1]:
        level = level.get(step, {})
    level.pop(path[-1], None)
    return data


def without_empty(data):
    """Return the data without empty sections, which an override may have added."""
    if not isinstance(data, dict):
        return data
    inner = {name: without_empty(value) for name, value in data.items()}
    return {name: value for name, value in inner.items() if value != {}}


@pytest.mark.slow
@given(SECTIONS, st.lists(KEYS, min_size=1, max_size=2), VALUES, VALUES)
def test_the_last_override_of_a_key_wins(data, path, first, second):
    try:
        expected = override(data, [assignment(path, second)])
    except BadConfig:
        assume(False)
    assert override(data, [assignment(path, first), assignment(path, second)]) == expected


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12))
def test_a_value_is_toml_or_a_plain_string(text):
    try:
        expected = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        expected = {"value": text}
    assert override({}, [f"a={text}"]) == {"a": expected["value"]}


# Tables

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12).map(str.strip)
SPEAKERS = WORDS.map(lambda word: unicodedata.normalize("NFC", strip_invisible(word)))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "emotion": st.sampled_from(["angry", "sad", "happy", "neutral"]),
            "speaker": SPEAKERS,
            "text": WORDS,
            "start": st.integers(0, 10_000).map(lambda ms: ms / 1000),
            "duration": st.integers(1, 10_000).map(lambda ms: ms / 1000),
        }
    ),
    min_size=1,
    max_size=6,
)


def write_csv(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_tsv(path, rows):
    write_csv(path, rows, "\t")


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path, rows):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "write"),
    [(".csv", write_csv), (".tsv", write_tsv), (".jsonl", write_jsonl), (".parquet", write_parquet)],
)
@settings(max_examples=30)
@given(rows=ROWS)
def test_every_table_format_is_read_as_it_was_written(suffix, write, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"calls{suffix}"
        write(
            path,
            [
                {
                    "file": f"{number}.wav",
                    "emotion": row["emotion"],
                    "speaker": row["speaker"],
                    "text": row["text"],
                    "start": row["start"],
                    "end": row["start"] + row["duration"],
                }
                for number, row in enumerate(rows)
            ],
        )
        utterances = table.read(path)
    assert len(utterances) == len(rows)
    assert len({utterance.id for utterance in utterances}) == len(rows)
    for number, (utterance, row) in enumerate(zip(utterances, rows, strict=True)):
        assert utterance.audio == Path(folder) / f"{number}.wav"
        assert utterance.emotion == row["emotion"]
        # Hypothesis also generates words for missing values, such as "NaT", which are read as "".
        assert utterance.text == ("" if is_missing_transcript(row["text"]) else row["text"])
        assert utterance.speaker == ("" if is_missing_speaker(row["speaker"]) else row["speaker"])
        assert (utterance.start, utterance.end) == (row["start"], row["start"] + row["duration"])


# Protocols

SETTINGS = {
    "speaker-folds": {"k": 3, "validation": 0.25},
    "leave-one-speaker-out": {"validation": "next"},
    "leave-one-session-out": {"validation": 0.3},
    "random-folds": {"k": 3, "validation": 0.2},
    "random-hold-out": {},
    "held-out-speakers": {"test": ("made/0", "made/1"), "validation": ("made/2",)},
}
SPEAKER_INDEPENDENT = {"speaker-folds", "leave-one-speaker-out", "leave-one-session-out", "held-out-speakers"}


@st.composite
def corpora_of_utterances(draw):
    """Draw six to nine speakers in three sessions, each with several utterances of random emotions."""
    utterances = []
    for speaker in range(draw(st.integers(6, 9))):
        emotions = draw(st.lists(st.sampled_from(["angry", "happy", "sad"]), min_size=3, max_size=7))
        for number, emotion in enumerate(emotions):
            utterances.append(
                Utterance(f"{speaker}-{number}", "made", None, emotion, speaker=str(speaker), session=str(speaker % 3))
            )
    return utterances


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=20)
@given(utterances=corpora_of_utterances(), seed=st.integers(0, 2**31), data=st.data())
def test_a_split_is_a_partition_and_does_not_depend_on_the_order(name, utterances, seed, data):
    protocol = protocols[name](**SETTINGS[name])
    splits = protocol.folds(utterances, seed)
    speakers = {utterance_key(utterance): utterance.speaker_key for utterance in utterances}
    for split in splits:
        ids = Counter(id for subset in split.subsets.values() for id in subset)
        assert ids == Counter(speakers.keys())
        assert all(split.subsets.values())
        speakers_of_subsets = [{speakers[id] for id in ids} for ids in split.subsets.values()]
        disjoint = sum(map(len, speakers_of_subsets)) == len(set().union(*speakers_of_subsets))
        assert split.speaker_independent == disjoint
        if name in SPEAKER_INDEPENDENT:
            train_and_validation = set().union(*(ids for subset, ids in split.subsets.items() if subset != "test"))
            assert not {speakers[id] for id in split.subsets["test"]} & {speakers[id] for id in train_and_validation}
    if len(splits) > 1:  # the folds' test subsets are a partition too
        assert Counter(id for split in splits for id in split.subsets["test"]) == Counter(speakers.keys())
    assert protocol.folds(data.draw(st.permutations(utterances)), seed) == splits


# Windows of a recording

BLOCKS = st.lists(st.integers(0, LONGEST), max_size=6)


@given(BLOCKS, st.integers(SAMPLE_RATE // 10, 2 * LONGEST))
@settings(max_examples=25)
def test_windows_cover_the_recording_and_do_not_depend_on_the_blocks(sizes, block):
    generator = np.random.default_rng(len(sizes))
    gains = generator.choice([0.0, 1e-3, 0.3, 1.0], sum(sizes) // 8000 + 1).astype(np.float32)
    waveform = np.repeat(gains, 8000)[: sum(sizes)] * generator.uniform(-1, 1, sum(sizes)).astype(np.float32)
    result = list(cut_segments(np.split(waveform, np.cumsum(sizes)[:-1]) if sizes else []))
    np.testing.assert_array_equal(np.concatenate([segment.waveform for segment in result]), waveform)
    by_block = cut_segments(waveform[start : start + block] for start in range(0, waveform.size, block))
    assert [segment.waveform.size for segment in by_block] == [segment.waveform.size for segment in result]
    if len(result) > 1:
        assert min(segment.waveform.size for segment in result) >= SAMPLE_RATE // 5
        assert max(segment.waveform.size for segment in result) <= 20 * SAMPLE_RATE + SAMPLE_RATE
