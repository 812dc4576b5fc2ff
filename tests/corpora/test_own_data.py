"""The user's own recordings in folders and tables, and the sources that locate them."""

import json

import pytest

from affekt.config import decode, encode
from affekt.corpora import corpora
from affekt.corpora.source import Source, read_all
from affekt.errors import BadConfig, BadCorpus, UnknownName
from affekt.labels import LabelSet
from tests.corpora.trees import touch, write


def table(path, text, **settings):
    write(path, text)
    return Source("table", str(path), **settings).read()


# Folders


def test_folders_are_named_after_emotions_and_speakers(tmp_path):
    root = tmp_path / "calls"
    touch(root, "happiness/1.wav", "anna/Anger/1.wav", "test/ben/bored/1.mp3", "anna/Anger/notes.txt")
    anna, happy, ben = Source.parse(f"folder:{root}").read()
    assert [u.emotion for u in (anna, happy, ben)] == ["angry", "happy", "bored"]
    assert [u.speaker for u in (anna, happy, ben)] == ["anna", "", "ben"]
    assert [u.split for u in (anna, happy, ben)] == ["", "", "test"]
    assert [u.id for u in (anna, happy)] == ["anna/Anger/1.wav", "happiness/1.wav"]
    assert {u.corpus for u in (anna, happy, ben)} == {"calls"}
    assert anna.audio == root / "anna/Anger/1.wav"


def test_custom_labels_are_kept_or_mapped(tmp_path):
    touch(tmp_path, "content/1.wav", "furious/1.wav")
    root = str(tmp_path)
    assert LabelSet.all_of(Source("folder", root).read()).emotions == ("content", "furious")
    mapped = Source("folder", root, emotions={"furious": "angry"}, language="nl").read()
    assert [(u.emotion, u.language) for u in mapped] == [("content", "nl"), ("angry", "nl")]
    with pytest.raises(BadCorpus, match=r"maps 'furius', which .* does not have; did you mean 'furious'\?"):
        Source("folder", root, emotions={"furius": "angry"}).read()


@pytest.mark.parametrize("path", ["1.wav", "a/b/happy/1.wav", "train/1.wav"])
def test_a_file_outside_the_expected_folders_is_refused(path, tmp_path):
    touch(tmp_path, path, "happy/1.wav")
    with pytest.raises(BadCorpus, match="expected EMOTION/FILE or SPEAKER/EMOTION/FILE"):
        Source("folder", str(tmp_path)).read()


def test_speaker_folders_inside_emotion_folders_are_refused(tmp_path):
    touch(tmp_path / "wrong", "happy/anna/1.wav", "sad/anna/2.wav")
    with pytest.raises(BadCorpus, match="speaker's folder inside the emotion's"):
        Source("folder", str(tmp_path / "wrong")).read()
    touch(tmp_path / "right", "joy/happy/1.wav", "anna/sad/2.wav")
    assert {u.speaker for u in Source("folder", str(tmp_path / "right")).read()} == {"joy", "anna"}


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadCorpus, match="has no utterance"):
        Source("folder", str(tmp_path)).read()


# Tables


ROWS = [
    {
        "id": "a",
        "audio": "x/1.wav",
        "emotion": "joy",
        "speaker": "s1",
        "start": 0.5,
        "end": 2.0,
        "gender": "F",
        "text": None,
    },
    {"id": "b", "audio": "x/1.wav", "emotion": "content", "speaker": "s1", "start": 2.0, "text": "Well, yes"},
]


def write_rows(path):
    columns = list(dict.fromkeys(name for row in ROWS for name in row))
    if path.suffix == ".jsonl":
        write(path, "".join(json.dumps(row) + "\n" for row in ROWS))
    elif path.suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(ROWS), path)
    else:
        cells = [[f'"{row.get(name) or ""}"' for name in columns] for row in ROWS]
        write(path, "\n".join({".csv": ",", ".tsv": "\t"}[path.suffix].join(row) for row in [columns, *cells]) + "\n")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_table_format_gives_the_same_utterances(suffix, tmp_path):
    path = tmp_path / f"calls{suffix}"
    write_rows(path)
    first, second = Source("table", str(path)).read()
    assert (first.id, first.corpus, first.emotion, first.gender) == ("a", "calls", "happy", "female")
    assert (first.start, first.end, second.start, second.end) == (0.5, 2.0, 2.0, None)
    assert (second.emotion, second.text, second.gender) == ("content", "Well, yes", "")
    assert first.audio == second.audio == tmp_path / "x/1.wav"


def test_columns_with_other_names_are_mapped(tmp_path):
    rows = "clip,feeling,who,session\n1.wav,sad,7,x\n"
    columns = {"audio": "clip", "emotion": "feeling", "speaker": "who", "session": ""}
    (utterance,) = table(tmp_path / "t.csv", rows, columns=columns)
    assert (utterance.id, utterance.emotion, utterance.speaker, utterance.session) == ("1.wav", "sad", "7", "")


def test_times_in_audformats_notation_are_read(tmp_path):
    rows = "file,start,end,emotion\na.wav,0 days 00:01:01.500000,1 days 00:00:00,sad\na.wav,0 days,NaT,sad\n"
    whole, segment = table(tmp_path / "t.csv", rows)
    assert (segment.start, segment.end) == (61.5, 86_400.0)
    assert (whole.start, whole.end) == (0.0, None)
    assert [whole.id, segment.id] == ["a.wav", "a.wav#61.5-86400"]


def test_votes_become_fractions(tmp_path):
    rows = '{"audio": "a.wav", "emotion": "sad", "votes": {"sad": 3, "happy": 1, "angry": 0}}\n'
    assert table(tmp_path / "t.jsonl", rows)[0].votes == {"sad": 0.75, "happy": 0.25}


def test_a_table_without_audio_is_read_as_text(tmp_path):
    (utterance,) = table(tmp_path / "t.csv", "text,label\nWell.,joy\n")
    assert (utterance.audio, utterance.text, utterance.emotion) == (None, "Well.", "happy")


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ("audio,emotion\n1.wav,\n", {}, "row 1: has no emotion"),
        ("audio,emotion\n1.wav,sad\n1.wav,sad\n", {}, "rows 1 and 2 are the same segment"),
        ("audio,emotion,id\n1.wav,sad,a\n2.wav,sad,a\n", {}, "two utterances 'a'"),
        ("audio,emotion,start,end\n1.wav,sad,2,1\n", {}, "row 1: start 2.0 s, end 1.0 s: expected an end after"),
        ("audio,emotion,start\n1.wav,sad,soon\n", {}, "row 1: start 'soon': expected seconds"),
        ("audio,emotion,gender\n1.wav,sad,x\n", {}, "gender 'x': expected female, male"),
        ("audio,emotion,votes\n1.wav,sad,many\n", {}, "row 1: votes 'many': expected"),
        ('audio,emotion,votes\n1.wav,sad,"{""sad"": -1}"\n', {}, "expected no negative numbers"),
        ("sound,feeling\n1.wav,sad\n", {}, "needs columns for emotion and for audio or text; it has: sound, feeling"),
        ("audio,emotion,speakers\n1.wav,sad,a\n", {}, r"'speakers' is not read; did you mean 'speaker'\?"),
        ("audio,emotion,who\n1.wav,sad,a\n", {"speaker": "whom"}, r"no column 'whom'; did you mean 'who'\?"),
        ("audio,emotion\n1.wav,sad\n", {"speakr": "audio"}, r"no field 'speakr'; did you mean 'speaker'\?"),
        ("audio,emotion\n", {}, "has no utterance"),
    ],
)
def test_errors_in_a_table_are_explained(rows, settings, message, tmp_path):
    with pytest.raises(BadCorpus, match=message):
        table(tmp_path / "t.csv", rows, columns=settings)


def test_a_column_that_resembles_a_field_can_be_ignored(tmp_path):
    (utterance,) = table(tmp_path / "t.csv", "audio,emotion,speakers\n1.wav,sad,2\n", columns={"speaker": ""})
    assert utterance.speaker == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", "[1]\n", "line 1: expected an object"),
        ("t.jsonl", '{"audio": "1.wav", "emotion": "sad"}\n{\n', "line 2, is not JSON"),
        ("t.txt", "audio,emotion\n", r"is not a table: expected a name ending in \.csv"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(name, content, message, tmp_path):
    with pytest.raises(BadCorpus, match=message):
        table(tmp_path / name, content)


def test_a_file_that_is_not_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow.parquet")
    with pytest.raises(BadCorpus, match="is not Parquet"):
        table(tmp_path / "t.parquet", "audio,emotion\n")


# Sources


def test_a_source_is_parsed_from_its_short_form(monkeypatch, tmp_path):
    monkeypatch.setenv("AFFEKT_DATA", str(tmp_path))
    assert Source.parse("cremad").path == tmp_path / "cremad"
    assert Source.parse("cremad:elsewhere") == Source("cremad", "elsewhere")
    assert Source.parse("table:a/calls.csv").id == "calls"
    assert (Source.parse("folder:a/calls/").id, Source.parse("folder:a/calls/").title) == ("calls", "calls")
    assert (Source.parse("cremad").id, Source.parse("cremad").title) == ("cremad", "CREMA-D")
    assert Source.parse("cremad").corpus is corpora["cremad"]


def test_a_source_without_a_folder_needs_the_variable(monkeypatch):
    monkeypatch.delenv("AFFEKT_DATA", raising=False)
    with pytest.raises(BadCorpus, match="AFFEKT_DATA, which is not set"):
        _ = Source.parse("cremad").path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cremadd"}, r"no corpus 'cremadd'; did you mean 'cremad'\?"),
        ({"name": "table"}, "'table' needs a path: table:PATH"),
        ({"name": "emodb", "language": "de"}, "corpus 'emodb' has no option language"),
        ({"name": "folder", "root": "x", "columns": {"audio": "a"}}, "corpus 'folder' has no option columns"),
        ({"name": "folder", "root": "x", "emotions": {"furious": ""}}, "maps 'furious' to an empty name"),
    ],
)
def test_an_invalid_source_is_refused_before_anything_is_read(settings, message):
    with pytest.raises(BadConfig, match=message):
        Source(**settings)


def test_a_path_in_place_of_a_corpus_name_is_explained(tmp_path):
    with pytest.raises(BadConfig, match=f"folder:{tmp_path} or table:{tmp_path}"):
        Source.parse(str(tmp_path))


def test_a_source_is_read_back_from_a_recipe():
    source = Source("table", "calls.csv", {"audio": "path"}, {"furious": "angry"}, "nl", ("a",))
    decoded = decode(Source, json.loads(json.dumps(encode(source))), "corpora")
    assert decoded == source
    assert hash(decoded) == hash(source)
    with pytest.raises(BadConfig, match=r"unknown key 'colums'; did you mean 'columns'\?"):
        decode(Source, {"name": "table", "root": "calls.csv", "colums": {}}, "corpora")


def test_without_excludes_utterances_and_requires_that_they_exist(tmp_path):
    touch(tmp_path, "happy/1.wav", "happy/2.wav")
    remaining = Source("folder", str(tmp_path), without=("happy/1.wav",)).read()
    assert [utterance.id for utterance in remaining] == ["happy/2.wav"]
    with pytest.raises(BadCorpus, match=r"without names 'happy/3.wav', .*did you mean 'happy/\d.wav'\?"):
        Source("folder", str(tmp_path), without=("happy/3.wav",)).read()


def test_two_sources_with_the_same_name_are_refused(tmp_path):
    touch(tmp_path, "a/calls/happy/1.wav", "b/calls/happy/1.wav", "c/sad/1.wav")
    first, second, third = (Source("folder", str(tmp_path / name)) for name in ("a/calls", "b/calls", "c"))
    assert [utterance.corpus for utterance in read_all([first, third])] == ["calls", "c"]
    with pytest.raises(BadCorpus, match="both called 'calls'"):
        read_all([first, second])


def test_an_unknown_corpus_is_refused_with_a_suggestion():
    with pytest.raises(UnknownName, match=r"did you mean 'emodb'\?"):
        corpora["emodbb"]
