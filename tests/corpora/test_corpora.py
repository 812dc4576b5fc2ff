"""Tests of every corpus in the registry, and of the real corpora where they are available."""

from collections import Counter

import pytest

from affekt.corpora import corpora
from affekt.corpora.source import OWN, Source
from affekt.errors import BadCorpus
from affekt.labels import EMOTIONS, LABEL_SETS
from affekt.training.recipe import load_recipe
from tests.conftest import ROOT, data_folder
from tests.corpora.trees import touch

PUBLISHED = [name for name in corpora if name not in OWN]


@pytest.fixture
def meld():
    return data_folder("AFFEKT_DATA", "meld")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_without_the_corpus_is_refused(name, tmp_path):
    with pytest.raises(BadCorpus, match="is not a folder"):
        corpora[name].read(tmp_path / "nowhere")
    with pytest.raises(BadCorpus, match="expected the folder"):
        corpora[name].read(tmp_path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("cremad", "audio"), ("emodb", "wav"), ("ravdess", "Actor_01"), ("urdu", "Angry"), ("nemo", "samples")],
)
def test_an_empty_corpus_and_a_foreign_file_are_refused(name, folder, tmp_path):
    (tmp_path / folder).mkdir()
    with pytest.raises(BadCorpus, match="has no utterance"):
        corpora[name].read(tmp_path)
    touch(tmp_path, f"{folder}/._holiday.wav", f"{folder}/notes.txt")
    with pytest.raises(BadCorpus, match="has no utterance"):
        corpora[name].read(tmp_path)
    touch(tmp_path, f"{folder}/holiday.wav")
    with pytest.raises(BadCorpus, match=r"holiday\.wav: expected"):
        corpora[name].read(tmp_path)


def test_one_utterance_in_two_files_is_refused(tmp_path):
    touch(tmp_path, "wav/03a01Fa.wav", "wav/03a01Fa.flac")
    with pytest.raises(BadCorpus, match=r"two utterances '03a01Fa' .*keep one"):
        corpora["emodb"].read(tmp_path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_readers_use_the_common_emotion_names(name):
    module = __import__(f"affekt.corpora.{name}", fromlist=["EMOTIONS"])
    assert set(module.EMOTIONS.values()) <= set(EMOTIONS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_are_consistent(name):
    assert corpora[name].published
    for published in corpora[name].published:
        for counts in (published.emotions, published.sessions, published.speakers):
            assert not counts or sum(counts.values()) == published.utterances
        if published.labels:
            assert set(published.emotions) == set(LABEL_SETS[published.labels].emotions)
        else:
            assert set(published.emotions) <= set(EMOTIONS)
    if corpora[name].published_ids:
        assert len(corpora[name].published_ids()) == corpora[name].published[0].utterances


def test_published_counts_of_speakers_and_sessions_agree():
    by_labels = {published.labels: published for published in corpora["iemocap"].published}
    sessions = Counter()
    for speaker, count in by_labels["iemocap-4"].speakers.items():
        sessions[speaker[:5]] += count
    assert sessions == by_labels["iemocap-4"].sessions


def test_real_cremad_has_its_published_speakers_and_emotions(cremad):
    utterances = corpora["cremad"].read(cremad)
    emotions = Counter(utterance.emotion for utterance in utterances)
    assert len({utterance.speaker for utterance in utterances}) == 91
    assert len({utterance.text for utterance in utterances}) == 12
    assert set(emotions) == {"angry", "disgust", "fear", "happy", "neutral", "sad"}
    assert {utterance.id for utterance in utterances} <= corpora["cremad"].published_ids()
    assert Counter(u.gender for u in {u.speaker: u for u in utterances}.values()) == {"male": 48, "female": 43}
    assert all(sum(utterance.votes.values()) == pytest.approx(1) for utterance in utterances)


def test_real_emodb_has_its_published_counts(emodb):
    utterances = corpora["emodb"].read(emodb)
    assert Counter(utterance.emotion for utterance in utterances) == corpora["emodb"].published[0].emotions
    assert Counter(utterance.speaker for utterance in utterances) == corpora["emodb"].published[0].speakers
    assert len({utterance.text for utterance in utterances}) == 10


def test_real_meld_has_its_published_dialogues(meld):
    utterances = Source("meld", str(meld)).read()
    assert Counter(utterance.split for utterance in utterances) == {"train": 9989, "dev": 1109, "test": 2610}
    assert len({utterance.dialogue for utterance in utterances}) == 1038 + 114 + 280
    assert all(
        len({u.session for u in utterances if u.dialogue == name}) == 1 for name in ("train/0", "dev/0", "test/0")
    )


def test_the_documentation_states_the_published_counts():
    text = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")
    for name in corpora:
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        for published in corpora[name].published:
            if not published.labels:
                assert f"{published.utterances:,}" in row
        if name not in OWN:
            cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
            assert cells[-2:] == [corpora[name].license, "yes" if corpora[name].is_open else "no"]
    counts = {published.labels: published.utterances for name in corpora for published in corpora[name].published}
    for labels in LABEL_SETS.values():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{labels.name}` |"))
        assert all(emotion in row for emotion in labels.emotions)
        assert labels.name not in counts or f"{counts[labels.name]:,}" in row


@pytest.mark.parametrize("entry", ["table:t.csv", {"name": "table", "root": "t.csv"}, Source("table", "t.csv")])
def test_a_recipes_entry_makes_a_source_in_each_of_its_forms(entry):
    assert Source.of(entry) == Source("table", "t.csv")


def test_what_ships_is_trained_on_open_corpora_only():
    recipe = load_recipe("default")
    assert all(source.corpus.is_open for source in recipe.sources)
    assert {name for name in PUBLISHED if corpora[name].is_open} == {"cremad", "emodb", "emogator"}
