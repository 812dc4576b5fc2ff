"""Label sets: what they take, and what they count as what."""

import pytest

from affekt.errors import BadConfig
from affekt.labels import EMOTIONS, EVERYDAY, LABEL_SETS, LabelSet, canonical, label_set
from affekt.utterance import Utterance


def said(emotion, dialogue=""):
    return Utterance("1", "made", None, emotion, dialogue=dialogue)


def test_a_label_set_merges_and_leaves_out():
    labels = LabelSet("four", ("angry", "happy", "sad", "neutral"), {"excited": "happy"})
    assert [labels.index(emotion) for emotion in ("excited", "happy", "fear")] == [1, 1, None]
    with pytest.raises(BadConfig, match=r"no label set 'sixx'; did you mean 'six'\?"):
        label_set("sixx")
    with pytest.raises(BadConfig, match="each only once"):
        LabelSet("twice", ("sad", "sad"))
    with pytest.raises(BadConfig, match=r"merges 'exited'; did you mean 'excited'\?"):
        LabelSet("typo", ("happy",), {"exited": "happy"})


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=lambda labels: labels.name)
def test_every_label_set_places_its_own_emotions_in_order(labels):
    assert label_set(labels.name) is labels
    assert set(labels.emotions) <= set(EMOTIONS)
    assert [labels.index(emotion) for emotion in labels.emotions] == list(range(len(labels)))
    assert labels.index("unknown") is None
    assert list(labels.emotions) == sorted(labels.emotions)


def test_excited_is_happy_in_four_classes_its_own_in_seven_and_nothing_when_improvised():
    four, seven, improvised = (label_set(f"iemocap-{name}") for name in ("4", "7", "improvised-4"))
    assert four.index("excited") == four.index("happy")
    assert seven.index("excited") not in (None, seven.index("happy"))
    assert improvised.index("excited") is None


def test_improvised_takes_only_improvised_dialogues():
    labels = label_set("iemocap-improvised-4")
    assert labels.index_of(said("sad", "Ses01F_impro01")) == labels.index("sad")
    assert labels.index_of(said("sad", "Ses01F_script01_1")) is None
    assert labels.index_of(said("fear", "Ses01F_impro01")) is None
    assert label_set("iemocap-4").index_of(said("sad", "Ses01F_script01_1")) is not None


def test_own_data_have_the_emotions_that_occur():
    labels = LabelSet.all_of([said("sad"), said("content"), said("sad")])
    assert labels.emotions == ("content", "sad")
    with pytest.raises(BadConfig, match="needs at least one emotion"):
        LabelSet.all_of([])


def test_everyday_words_are_ours_and_others_stay():
    assert set(EVERYDAY.values()) <= set(EMOTIONS)
    assert not set(EVERYDAY) & set(EMOTIONS)
    assert [canonical(word) for word in ("Happiness", " anger", "SAD", "Content ")] == [
        "happy",
        "angry",
        "sad",
        "Content",
    ]
    assert all(canonical(canonical(word)) == canonical(word) for word in EVERYDAY)
