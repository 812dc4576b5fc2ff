"""Corpora that are read in part."""

import math

import pytest

from affekt.corpora.inspection import differences
from affekt.corpora.source import Source
from affekt.errors import BadConfig, BadCorpus
from tests.corpora.trees import touch, write

CLIPS = [
    f"{actor}_{text}_{emotion}_XX"
    for actor in (1001, 1002, 1003)
    for text in ("DFA", "IEO")
    for emotion in ("ANG", "SAD")
]


@pytest.fixture
def root(tmp_path):
    touch(tmp_path, *(f"AudioWAV/{clip}.wav" for clip in CLIPS), "REBUILT.md")
    write(
        tmp_path / "VideoDemographics.csv",
        '"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n1003,30,"Female"\n',
    )
    return str(tmp_path)


def read_ids(root, **settings):
    return [utterance.id for utterance in Source.of({"name": "cremad", "root": root, **settings}).read()]


def test_utterances_are_selected_by_several_values_and_fields(root):
    assert read_ids(root, where={"speaker": ["1001", "1003"]}) == [clip for clip in CLIPS if clip[3] in "13"]
    women = {"gender": ["female"], "emotion": ["sad"]}
    assert read_ids(root, where=women) == [clip for clip in CLIPS if clip[3] in "23" and "SAD" in clip]


def test_a_fraction_is_taken_of_each_emotion_and_is_part_of_a_larger_one(root):
    whole, half, sixth = (set(read_ids(root, fraction=fraction)) for fraction in (1.0, 0.5, 1 / 6))
    assert sixth < half < whole == set(CLIPS)
    for part, count in ((half, 3), (sixth, 1)):
        assert [sum(emotion in clip for clip in part) for emotion in ("ANG", "SAD")] == [count, count]


def test_the_note_of_the_corpus_is_kept_beside_the_part(root):
    part = Source("cremad", root, where={"session": ("1", "2"), "gender": ("male",)}, fraction=0.25)
    assert part.note == "rebuilt audio, in part (25 % of session 1 or 2 and gender male)"
    assert part.is_altered
    assert Source("cremad", root).note == "rebuilt audio"


def test_utterances_that_are_left_out_on_purpose_are_not_missing(root):
    whole, part = Source("cremad", root), Source("cremad", root, where={"speaker": ("1001",)}, fraction=0.5)
    assert differences(part, part.read()) == differences(whole, whole.read())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"where": {"speker": ["1001"]}}, "where names the field 'speker'; did you mean 'speaker'"),
        ({"where": {"speaker": []}}, "where gives no value for speaker"),
        ({"fraction": 0}, "fraction = 0.0: expected more than 0"),
        ({"fraction": math.nan}, "fraction = nan: expected more than 0"),
        ({"fraction": 25}, "fraction = 25.0: expected more than 0 and at most 1"),
    ],
)
def test_impossible_parts_are_refused_before_a_file_is_read(settings, message):
    with pytest.raises(BadConfig, match=message):
        Source.of({"name": "cremad", "root": "nowhere", **settings})


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"speaker": ["1004"]}, "speaker '1004', which no utterance has; did you mean"),
        ({"session": ["1"]}, "session '1', which no utterance has .expected: none, since the corpus does not state it"),
        ({"speaker": ["1001"], "gender": ["female"]}, "no utterance has speaker 1001 and gender female"),
    ],
)
def test_values_that_no_utterance_has_are_errors(root, where, message):
    with pytest.raises(BadCorpus, match=message):
        read_ids(root, where=where)
