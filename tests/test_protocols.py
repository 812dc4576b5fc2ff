import json
from dataclasses import replace

import pytest

from affekt.errors import BadConfig
from affekt.protocols import Split, held_out_people, key
from affekt.utterance import Utterance


def utterances(speakers=("1", "2", "3"), each=2):
    return [Utterance(f"{s}-{n}", "made", None, "happy", speaker=s) for s in speakers for n in range(each)]


def test_everybody_stands_in_one_part():
    split = held_out_people(utterances(), {"test": ["made/3"], "validation": ["made/1"]})
    assert split.parts == {
        "train": ("made/2-0", "made/2-1"),
        "test": ("made/3-0", "made/3-1"),
        "validation": ("made/1-0", "made/1-1"),
    }
    assert split.speaker_independent
    assert sorted(id for part in split.parts.values() for id in part) == sorted(map(key, utterances()))


def test_unknown_speakers_are_not_called_independent():
    people = [*utterances(), replace(utterances()[0], id="x", speaker="")]
    assert not held_out_people(people, {"test": ["made/3"]}).speaker_independent


def test_who_is_named_must_exist_and_stand_once():
    with pytest.raises(BadConfig, match="names made/9, of whom there is no utterance"):
        held_out_people(utterances(), {"test": ["made/9"]})
    with pytest.raises(BadConfig, match="made/1 stands in 'validation' and in 'test'"):
        held_out_people(utterances(), {"validation": ["made/1"], "test": ["made/1"]})


def test_the_hash_is_of_who_stands_where_and_of_nothing_else():
    one = held_out_people(utterances(), {"test": ["made/3"]})
    same = held_out_people(utterances()[::-1], {"test": ["made/3"]})
    other = held_out_people(utterances(), {"test": ["made/2"]})
    assert one.hash == same.hash != other.hash
    assert one.hash == "01d1c07d1ba5"  # the same on every machine


def test_a_saved_split_is_read_back_and_a_changed_one_refused(tmp_path):
    split = held_out_people(utterances(), {"test": ["made/3"]})
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    content = json.loads((tmp_path / "split.json").read_text())
    content["parts"]["train"].pop()
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(BadConfig, match="was changed"):
        Split.load(tmp_path / "split.json")
