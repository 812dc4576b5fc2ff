"""The user's own recordings in folders and tables, and the sources that locate them."""

import json

import pytest

from affekt.config import decode, encode
from affekt.corpora import corpora
from affekt.corpora.inspection import describe
from affekt.corpora.similar_names import similar_labels, similar_names
from affekt.corpora.source import Source, read_all
from affekt.corpora.subsets import name_subsets
from affekt.errors import BadConfig, BadCorpus, UnknownName
from affekt.labels import LabelSet
from tests.corpora.trees import touch, write
from tests.logs import logged


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


@pytest.mark.parametrize(
    ("clips", "emotions", "speakers"),
    [
        (["happy/anna/1.wav", "sad/anna/2.wav"], {"happy", "sad"}, {"anna"}),
        (
            ["happy/anna/1.wav", "happy/ben/1.wav", "confused/anna/1.wav", "confused/ben/1.wav"],
            {"happy", "confused"},
            {"anna", "ben"},
        ),
        (["anna/happy/1.wav", "ben/happy/1.wav", "anna/confused/1.wav"], {"happy", "confused"}, {"anna", "ben"}),
        (["joy/happy/1.wav", "anna/sad/2.wav"], {"happy", "sad"}, {"joy", "anna"}),
        (["content/spk1/1.wav", "furious/spk1/1.wav", "content/spk2/1.wav"], {"content", "furious"}, {"spk1", "spk2"}),
        (["0011/Content/1.wav", "0012/Content/1.wav", "0012/Furious/1.wav"], {"content", "furious"}, {"0011", "0012"}),
        (
            [f"{'content' if number % 2 else 'furious'}/{name}/1.wav" for number, name in enumerate("abcdefghijklm")],
            {"content", "furious"},
            set("abcdefghijklm"),
        ),
        (["anna/01_happy/1.wav", "anna/02_sad/1.wav", "ben/01_happy/1.wav"], {"01_happy", "02_sad"}, {"anna", "ben"}),
        (["unknown/happy/1.wav", "anna /sad/1.wav"], {"happy", "sad"}, {"", "anna"}),
        (["content/1.wav", "content/anna/1.wav", "furious/anna/1.wav"], {"content", "furious"}, {"", "anna"}),
    ],
)  # fmt: skip
def test_the_order_of_speakers_and_emotions_is_recognized(clips, emotions, speakers, tmp_path):
    touch(tmp_path, *clips)
    utterances = Source("folder", str(tmp_path)).read()
    assert {u.emotion for u in utterances} == emotions
    assert {u.speaker for u in utterances} == speakers


def test_an_unusual_order_of_folders_is_logged(tmp_path):
    touch(tmp_path / "calls", "happy/anna/1.wav", "sad/anna/2.wav")
    with logged() as messages:
        Source("folder", str(tmp_path / "calls")).read()
    assert messages == ["calls: folders are read as emotion/speaker"]


@pytest.mark.parametrize(
    "clips",
    [
        ["content/anna/1.wav", "content/ben/1.wav", "furious/anna/1.wav", "furious/ben/1.wav"],
        ["content/joy/1.wav", "content/ben/1.wav", "furious/joy/1.wav", "furious/ben/1.wav"],
        ["happy/sad/1.wav", "sad/happy/1.wav"],
        ["content/anna/1.wav", "content/bert/1.wav", "furious/cem/1.wav"],
        ["anna/content/1.wav", "anna/furious/1.wav"],
        ["content/anna/1.wav", "content/bert/1.wav"],
        ["anna/Content/1.wav", "anna/Furious/1.wav", "ben/content/1.wav", "ben/furious/1.wav"],
        ["anna/1/1.wav", "anna/2/1.wav", "ben/1/1.wav", "ben/2/1.wav"],
    ],
)
def test_an_order_that_cannot_be_told_asks_for_the_layout(clips, tmp_path):
    touch(tmp_path, *clips)
    with pytest.raises(BadCorpus, match="--layout emotion/speaker or --layout speaker/emotion"):
        Source("folder", str(tmp_path)).read()
    outer, inner = {clip.split("/")[0] for clip in clips}, {clip.split("/")[1] for clip in clips}
    for layout, speakers in (("emotion/speaker", inner), ("speaker/emotion", outer), ("speaker/emotion/file", outer)):
        assert {u.speaker for u in Source("folder", str(tmp_path), layout=layout).read()} == speakers
    mapped = Source("folder", str(tmp_path), emotions={"content": "calm"}) if "content/ben/1.wav" in clips else None
    assert mapped is None or {u.emotion for u in mapped.read()} == {"calm", "furious"}


def test_a_layout_states_what_every_folder_is(tmp_path):
    touch(tmp_path, "test/wav/s1/anna/Neutral/1.wav", "train/wav/s2/ben/Sad/1.wav")
    first, second = Source("folder", str(tmp_path), layout="split/*/session/speaker/emotion").read()
    assert (first.split, first.session, first.speaker, first.emotion) == ("test", "s1", "anna", "neutral")
    assert second.emotion == "sad"
    assert (
        len(Source("folder", str(tmp_path), layout="*/session/speaker/emotion").read()) == 2
    )  # the split is recognized
    with pytest.raises(BadCorpus, match=r"expected SPEAKER/EMOTION/FILE, the layout that was given"):
        Source("folder", str(tmp_path), layout="speaker/emotion").read()


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("speaker", "expected 'emotion', and each level at most once"),
        ("emotion/emotion", "each level at most once"),
        ("speeker/emotion", r"no level 'speeker'; did you mean 'speaker'\?"),
        ("/", "no level ''"),
    ],
)
def test_an_invalid_layout_is_refused(layout, message):
    with pytest.raises(BadConfig, match=message):
        Source("folder", "x", layout=layout)


@pytest.mark.parametrize(
    "word",
    ["val", "valid", "validation", "dev", "devel", "development", "eval", "evaluation", "train", "training", "test",
     "testing", "Test", "TRAIN", "train_set", "Test-Set"],
)  # fmt: skip
def test_a_folder_named_after_a_subset_is_the_split_at_any_level(word, tmp_path):
    clips = ["{}/happy/1.wav", "sad/{}/1.wav", "{}/anna/happy/1.wav", "anna/{}/sad/1.wav", "ben/sad/{}/1.wav"]
    touch(tmp_path, *[clip.format(word) for clip in clips])
    utterances = Source("folder", str(tmp_path)).read()
    assert {u.split for u in utterances} == {word}
    assert {u.emotion for u in utterances} == {"happy", "sad"}
    assert {u.speaker for u in utterances} == {"", "anna", "ben"}


def test_a_subset_below_an_emotion_above_a_speaker_is_the_split(tmp_path):
    touch(tmp_path, "happy/anna/train/1.wav", "sad/anna/train/1.wav", "happy/ben/evaluation/1.wav")
    assert [(u.speaker, u.split) for u in Source("folder", str(tmp_path)).read()] == [
        ("anna", "train"),
        ("ben", "evaluation"),
        ("anna", "train"),
    ]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (["dev/happy/1.wav", "anna/sad/1.wav"], "is 'dev' a subset or a speaker.*--layout speaker/emotion"),
        (["train/dev/happy/1.wav", "train/anna/sad/1.wav"], "both 'train' and 'dev' are names of subsets"),
        (["test1/happy/1.wav", "test1/sad/1.wav"], "is 'test1' a subset"),
        (["train-clean/happy/1.wav", "anna/sad/1.wav"], "is 'train-clean' a subset"),
    ],
)
def test_a_folder_that_may_be_a_subset_asks_for_the_layout(clips, message, tmp_path):
    touch(tmp_path, *clips)
    with pytest.raises(BadCorpus, match=message):
        Source("folder", str(tmp_path)).read()
    layout = "split/speaker/emotion" if clips[0].count("/") == 3 else "speaker/emotion"
    assert all(u.speaker for u in Source("folder", str(tmp_path), layout=layout).read())


@pytest.mark.parametrize(
    "name", ["data", "female", "Fold1", "session_2", "part 3", "wavs", "holdout", "high", "German"]
)
def test_a_folder_that_is_probably_not_a_speaker_asks_for_the_layout(name, tmp_path):
    touch(tmp_path, f"{name}/happy/1.wav", f"{name}/sad/1.wav", "anna/sad/1.wav")
    with pytest.raises(
        BadCorpus, match=rf"is '{name}' a speaker.*--layout speaker/emotion or --layout '\*/emotion' or"
    ):
        Source("folder", str(tmp_path)).read()
    assert {u.speaker for u in Source("folder", str(tmp_path), layout="*/emotion").read()} == {""}
    assert name in {u.speaker for u in Source("folder", str(tmp_path), layout="speaker/emotion").read()}


def test_folders_of_operating_systems_are_skipped(tmp_path):
    touch(
        tmp_path, "happy/1.wav", "sad/1.wav", "__MACOSX/happy/1.wav", "@eaDir/happy/1.wav", "happy/._1.wav", "happy.zip"
    )
    assert [u.id for u in Source("folder", str(tmp_path)).read()] == ["happy/1.wav", "sad/1.wav"]


def test_a_folder_of_clips_without_labels_is_no_emotion(tmp_path):
    touch(tmp_path, "happy/1.wav", "Unlabeled/1.wav")
    with pytest.raises(BadCorpus, match="'Unlabeled' is a word for a missing value, not an emotion"):
        Source("folder", str(tmp_path)).read()


def test_eval_is_the_test_subset_unless_another_subset_is():
    assert name_subsets(["train", "eval"])["eval"] == "test"
    assert name_subsets(["train", "dev", "Evaluation"])["Evaluation"] == "test"
    assert name_subsets(["train", "test", "evaluation"])["evaluation"] == "validation"
    assert name_subsets(["Dev", " val ", "TRAINING", "test2 "]) == {
        "Dev": "validation",
        " val ": "validation",
        "TRAINING": "train",
        "test2 ": "test2",
    }


def test_spellings_of_a_label_are_merged_and_the_merge_is_logged(tmp_path):
    root = tmp_path / "calls"
    touch(
        root,
        "p1/Very-Happy/1.wav",
        "p2/very_happy/1.wav",
        "p2/very happy/2.wav",
        "p1/Fear/1.wav",
        "p1/\u00c4rger/1.wav",
    )
    touch(root, "p2/A\u0308rger/1.wav")
    with logged() as messages:
        utterances = Source("folder", str(root)).read()
    assert {u.emotion for u in utterances} == {"very_happy", "fear", "\u00e4rger"}
    assert "calls: 'Very-Happy' (1), 'very happy' (1), 'very_happy' (1) are read as very_happy" in messages
    assert len(messages) == 2
    mapped = Source("folder", str(root), emotions={"VERY HAPPY": "Joy"}).read()
    assert {u.emotion for u in mapped} == {"happy", "fear", "\u00e4rger"}


def test_labels_of_a_table_fold_like_those_of_a_folder(tmp_path):
    rows = table(tmp_path / "t.csv", "audio,emotion\n1.wav, Confused\n2.wav,confused \n3.wav,CON-FUSED\n")
    assert {u.emotion for u in rows} == {"confused", "con_fused"}


def test_labels_one_letter_apart_are_pointed_out(tmp_path):
    touch(
        tmp_path,
        "p1/happy/1.wav",
        "p1/hapy/2.wav",
        "p2/confused/3.wav",
        "p2/cnofused/4.wav",
        "p2/mad/5.wav",
        "P1/sad/6.wav",
    )
    source = Source("folder", str(tmp_path))
    problems = similar_names(source, source.read())
    assert [problem.partition(" differ")[0] for problem in problems] == [
        "labels 'cnofused' (1) and 'confused' (1)",
        "labels 'happy' (1) and 'hapy' (1)",
        "labels 'mad' (1) and 'sad' (1)",
        "speakers 'P1' and 'p1'",
    ]
    assert not similar_labels(["mad", "sad"], deliberate=["mad"])
    assert not similar_labels(["class1", "class2"])
    assert problems[0] in describe(source).problems


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
        ("audio,emotion\n1.wav,\n", {}, "line 2: has no emotion"),
        ("audio,emotion\n1.wav,sad\n1.wav,sad\n", {}, "line 2 and line 3 are the same segment"),
        ("audio,emotion,id\n1.wav,sad,a\n2.wav,sad,a\n", {}, "two utterances 'a'"),
        ("audio,emotion,start,end\n1.wav,sad,2,1\n", {}, "line 2: start 2.0 s, end 1.0 s: expected an end after"),
        ("audio,emotion,start\n1.wav,sad,soon\n", {}, "line 2: start 'soon': expected seconds"),
        ("audio,emotion,gender\n1.wav,sad,q\n", {}, "gender 'q': expected female, male"),
        ("audio,emotion,votes\n1.wav,sad,many\n", {}, "line 2: votes 'many': expected"),
        ('audio,emotion,votes\n1.wav,sad,"{""sad"": -1}"\n', {}, "expected finite numbers that are not negative"),
        ("sound,feeling\n1.wav,sad\n", {}, "needs columns for emotion and for audio or text; it has: sound, feeling"),
        ("audio,emotion,speakers\n1.wav,sad,a\n", {}, r"'speakers' is not read; did you mean 'speaker'\?"),
        ("audio,emotion,who\n1.wav,sad,a\n", {"speaker": "whom"}, r"no column 'whom'; did you mean 'who'\?"),
        ("audio,emotion\n1.wav,sad\n", {"speakr": "audio"}, r"no field 'speakr'; did you mean 'speaker'\?"),
        ("audio,emotion\n", {}, "has no rows"),
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
        ("t.xlsx", "audio,emotion\n", r"is not a table: expected a name ending in \.csv"),
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
