"""The readers: on small trees made here, and on the real corpora where they are at hand."""

from collections import Counter

import pytest

from affekt.corpora import corpora
from affekt.errors import BadCorpus
from affekt.labels import EMOTIONS, LabelSet, label_set


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_cremad_is_read_from_its_names(tmp_path):
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_IEO_HAP_LO.wav", "AudioWAV/readme.txt")
    (tmp_path / "VideoDemographics.csv").write_text('"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n')
    first, second = corpora["cremad"].read(tmp_path)
    assert (first.id, first.speaker, first.emotion, first.gender) == ("1001_DFA_ANG_XX", "1001", "angry", "male")
    assert (second.person, second.emotion, second.text) == ("cremad/1002", "happy", "It's eleven o'clock.")
    assert corpora["cremad"].note(tmp_path) == ""
    touch(tmp_path, "REBUILT.md")
    assert corpora["cremad"].note(tmp_path) == "rebuilt audio"


def test_emodb_is_read_from_its_names(tmp_path):
    touch(tmp_path, "wav/03a01Fa.wav", "wav/16b10Lb.wav")
    first, second = corpora["emodb"].read(tmp_path)
    assert (first.speaker, first.emotion, first.gender, first.language) == ("03", "happy", "male", "de")
    assert (second.speaker, second.emotion, second.gender) == ("16", "bored", "female")


@pytest.mark.parametrize("name", corpora)
def test_what_is_not_the_corpus_is_refused(name, tmp_path):
    with pytest.raises(BadCorpus, match="is no folder"):
        corpora[name].read(tmp_path / "nowhere")
    with pytest.raises(BadCorpus, match="own folder"):
        corpora[name].read(tmp_path)
    folder = {"cremad": "audio", "emodb": "wav"}[name]
    (tmp_path / folder).mkdir()
    with pytest.raises(BadCorpus, match="holds no utterance"):
        corpora[name].read(tmp_path)
    touch(tmp_path, f"{folder}/holiday.wav")
    with pytest.raises(BadCorpus, match=r"holiday\.wav: expected"):
        corpora[name].read(tmp_path)


def test_real_cremad_has_its_published_people_and_emotions(cremad):
    utterances = corpora["cremad"].read(cremad)
    emotions = Counter(utterance.emotion for utterance in utterances)
    assert len({utterance.speaker for utterance in utterances}) == 91
    assert len({utterance.text for utterance in utterances}) == 12
    assert set(emotions) == {"angry", "disgust", "fear", "happy", "neutral", "sad"}
    assert 7400 <= len(utterances) <= 7442
    assert Counter(u.gender for u in {u.speaker: u for u in utterances}.values()) == {"male": 48, "female": 43}


def test_real_emodb_has_its_published_counts(emodb):
    utterances = corpora["emodb"].read(emodb)
    assert Counter(utterance.emotion for utterance in utterances) == {
        "angry": 127, "bored": 81, "disgust": 46, "fear": 69, "happy": 71, "sad": 62, "neutral": 79,
    }  # fmt: skip
    assert len({utterance.speaker for utterance in utterances}) == 10


@pytest.mark.parametrize("name", corpora)
def test_readers_speak_the_common_words(name):
    module = __import__(f"affekt.corpora.{name}", fromlist=["EMOTIONS"])
    assert set(module.EMOTIONS.values()) <= set(EMOTIONS)


def test_a_label_set_merges_and_leaves_out():
    labels = LabelSet("four", ("angry", "happy", "sad", "neutral"), {"excited": "happy"})
    assert [labels.index(emotion) for emotion in ("excited", "happy", "fear")] == [1, 1, None]
    with pytest.raises(ValueError, match=r"no label set 'sixx'; did you mean 'six'\?"):
        label_set("sixx")
    with pytest.raises(ValueError, match="each once"):
        LabelSet("twice", ("sad", "sad"))
