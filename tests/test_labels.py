"""Label sets: which utterances belong to them, and with which label. Synonyms of emotions."""

import pytest

from affekt.errors import BadConfig
from affekt.labels import EMOTIONS, LABEL_SETS, SYNONYMS, LabelSet, canonical_emotion, label_set
from affekt.utterance import Utterance


def utterance(emotion, dialogue=""):
    return Utterance("1", "made", None, emotion, dialogue=dialogue)


def test_a_label_set_merges_and_excludes_emotions():
    labels = LabelSet("four", ("angry", "happy", "sad", "neutral"), {"excited": "happy"})
    assert [labels.index(emotion) for emotion in ("excited", "happy", "fear")] == [1, 1, None]
    with pytest.raises(BadConfig, match=r"no label set 'sixx'; did you mean 'six'\?"):
        label_set("sixx")
    with pytest.raises(BadConfig, match="each only once"):
        LabelSet("twice", ("sad", "sad"))
    with pytest.raises(BadConfig, match=r"merges 'exited'; did you mean 'excited'\?"):
        LabelSet("typo", ("happy",), {"exited": "happy"})


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=lambda labels: labels.name)
def test_every_label_set_indexes_its_emotions_in_order(labels):
    assert label_set(labels.name) is labels
    assert set(labels.emotions) <= set(EMOTIONS)
    assert [labels.index(emotion) for emotion in labels.emotions] == list(range(len(labels)))
    assert labels.index("unknown") is None
    assert list(labels.emotions) == sorted(labels.emotions)


def test_excited_is_merged_in_iemocap_4_separate_in_iemocap_7_and_excluded_from_the_improvised_set():
    four, seven, improvised = (label_set(f"iemocap-{name}") for name in ("4", "7", "improvised-4"))
    assert four.index("excited") == four.index("happy")
    assert seven.index("excited") not in (None, seven.index("happy"))
    assert improvised.index("excited") is None


def test_the_improvised_set_contains_improvised_dialogues_only():
    labels = label_set("iemocap-improvised-4")
    assert labels.index_of(utterance("sad", "Ses01F_impro01")) == labels.index("sad")
    assert labels.index_of(utterance("sad", "Ses01F_script01_1")) is None
    assert labels.index_of(utterance("fear", "Ses01F_impro01")) is None
    assert label_set("iemocap-4").index_of(utterance("sad", "Ses01F_script01_1")) is not None


def test_the_label_set_of_own_data_has_the_emotions_that_occur():
    labels = LabelSet.all_of([utterance("sad"), utterance("content"), utterance("sad")])
    assert labels.emotions == ("content", "sad")
    with pytest.raises(BadConfig, match="needs at least one emotion"):
        LabelSet.all_of([])


def test_synonyms_become_canonical_and_other_labels_get_their_common_spelling():
    assert set(SYNONYMS.values()) <= set(EMOTIONS)
    assert not set(SYNONYMS) & set(EMOTIONS)
    assert [canonical_emotion(label) for label in ("Happiness", " anger", "SAD", "Content ")] == [
        "happy",
        "angry",
        "sad",
        "content",
    ]
    assert all(canonical_emotion(canonical_emotion(label)) == canonical_emotion(label) for label in SYNONYMS)


@pytest.mark.parametrize(
    "label",
    [
        "very happy",
        "Very-Happy",
        "VERY_HAPPY",
        " very  happy ",
        "very\u00a0happy",
        "very \u2013 happy",
        "\ufeffvery_happy",
    ],
)
def test_spellings_that_differ_in_case_spaces_hyphens_or_underscores_are_one_label(label):
    assert canonical_emotion(label) == "very_happy"


def test_labels_in_composed_and_decomposed_unicode_are_one_label():
    assert canonical_emotion("\u00c4rger") == canonical_emotion("A\u0308rger") == "\u00e4rger"
    assert canonical_emotion("\u60b2\u3057\u3044") == "\u60b2\u3057\u3044"
    assert canonical_emotion(" - ") == "-"
