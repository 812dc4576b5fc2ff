"""Tables of the user's own data as they really are: names of columns, missing values, times and several annotators."""

import json
import logging

import pytest

from affekt.corpora.inspection import check, describe
from affekt.corpora.source import Source
from affekt.errors import BadConfig, BadCorpus
from tests.commands import affekt
from tests.corpora.trees import touch, write, write_noise


def table(path, text, **settings):
    write(path, text)
    return Source("table", str(path), **settings).read()


# Columns


@pytest.mark.parametrize("audio", ["file", "path", "filename", "file_name", "audio", "wav", "File Name"])
@pytest.mark.parametrize("emotion", ["label", "emotion", "category", "Emotion"])
@pytest.mark.parametrize("speaker", ["speaker", "speaker_id", "spk"])
def test_usual_names_of_columns_are_known(audio, emotion, speaker, tmp_path):
    (utterance,) = table(tmp_path / "t.csv", f"{audio},{emotion},{speaker},transcription\na.wav,sad,7,Well.\n")
    assert (utterance.audio, utterance.emotion, utterance.speaker) == (tmp_path / "a.wav", "sad", "7")
    assert utterance.text == "Well."


def test_a_column_of_audio_files_that_is_not_read_is_an_error(tmp_path):
    rows = "clip,text,emotion\na.wav,Well.,sad\nb.MP3,No.,happy\n"
    with pytest.raises(BadCorpus, match="column 'clip' contains audio files and is not read"):
        table(tmp_path / "t.csv", rows)
    assert table(tmp_path / "t.csv", rows, columns={"audio": "clip"})[0].audio == tmp_path / "a.wav"
    assert table(tmp_path / "t.csv", rows, columns={"audio": ""})[0].audio is None


def test_two_columns_of_the_same_name_are_refused(tmp_path):
    with pytest.raises(BadCorpus, match="has several columns 'emotion'"):
        table(tmp_path / "t.csv", "file,emotion,emotion\na.wav,sad,happy\n")
    with pytest.raises(BadCorpus, match="has columns 'Emotion' and 'emotion'"):
        table(tmp_path / "t.csv", "file,Emotion,emotion\na.wav,sad,happy\n")
    with pytest.raises(BadCorpus, match=r"has columns 'emotion' and 'emotion\.1'"):  # as pandas renames it
        table(tmp_path / "t.csv", "file,emotion,emotion.1\na.wav,sad,happy\n")


def test_a_misspelled_key_in_a_line_of_json_is_named(tmp_path):
    lines = '{{"file": "a.wav", "emotion": "sad", "speaker": "x"}}\n{{"file": "b.wav", "emotion": "sad", "{}": "y"}}\n'
    with pytest.raises(BadCorpus, match="line 2: has 'speker' but no 'speaker'"):
        table(tmp_path / "t.jsonl", lines.format("speker"))
    assert [u.speaker for u in table(tmp_path / "t.jsonl", lines.format("age"))] == ["x", ""]


def test_a_delimiter_is_a_setting_and_an_option(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    assert len(table(tmp_path / "t.csv", "file:emotion\na.wav:sad\nb.wav:happy\n", delimiter=":")) == 2
    with pytest.raises(BadCorpus, match="Another delimiter can be given"):
        table(tmp_path / "t.csv", "file:emotion\na.wav:sad\n")
    with pytest.raises(BadConfig, match="delimiter '::': expected one character"):
        Source("table", "t.csv", delimiter="::")
    with pytest.raises(BadConfig, match="corpus 'emodb' has no option delimiter"):
        Source("emodb", delimiter=";")
    write(tmp_path / "split.csv", "file:split\na.wav:train\nb.wav:test\n")
    write(tmp_path / "t.csv", "file:emotion\na.wav:sad\nb.wav:happy\n")
    output = tmp_path / "out.jsonl"
    run = affekt("corpus", "export", "table", tmp_path / "t.csv", output, "--delimiter", ":")
    assert (run.returncode, len(output.read_text().splitlines())) == (0, 2)
    run = affekt("audit", tmp_path / "split.csv", f"table:{tmp_path / 't.csv'}", "--delimiter", ":", "--json")
    assert run.returncode == 1, run.stderr
    assert [subset["utterances"] for subset in json.loads(run.stdout)[0]["subsets"]] == [1, 1]


# Rows


MISSING = ["", " ", "nan", "NaN", "NA", "N/A", "None", "null", "-", "<NA>"]


@pytest.mark.parametrize("word", MISSING)
def test_missing_labels_are_not_emotions(word, tmp_path):
    with pytest.raises(BadCorpus, match="line 3: has no emotion"):
        table(tmp_path / "t.csv", f"file,emotion\na.wav,happy\nb.wav,{word}\n")


@pytest.mark.parametrize(("name", "delimiter"), [("t.tsv", "\t"), ("t.csv", ",")])
def test_a_lone_quote_in_a_label_is_an_error(name, delimiter, tmp_path):
    with pytest.raises(BadCorpus, match="line 2: the emotion 'sad\"' contains a quote"):
        table(tmp_path / name, 'file,emotion\na.wav,sad"\nb.wav,happy\n'.replace(",", delimiter))


def test_a_word_for_a_missing_value_is_a_label_if_it_is_mapped(tmp_path):
    rows = "file,emotion\na.wav,None\nb.wav,sad\n"
    assert [u.emotion for u in table(tmp_path / "t.csv", rows, emotions={"none": "neutral"})] == ["neutral", "sad"]


@pytest.mark.parametrize("word", ["nan", "None", "NA", "-"])
def test_a_folder_named_like_a_missing_value_is_no_emotion(word, tmp_path):
    touch(tmp_path, f"anna/{word}/1.wav", "anna/sad/2.wav", "ben/happy/3.wav")
    with pytest.raises(BadCorpus, match=f"'{word}' is a word for a missing value"):
        Source("folder", str(tmp_path)).read()
    mapped = Source("folder", str(tmp_path), emotions={word: "neutral"}).read()
    assert sorted(u.emotion for u in mapped) == ["happy", "neutral", "sad"]


def test_a_label_cannot_be_mapped_to_a_missing_value():
    with pytest.raises(BadConfig, match="or a word for a missing value"):
        Source("table", "t.csv", emotions={"furious": "nan"})


@pytest.mark.parametrize("word", MISSING)
def test_missing_speakers_splits_times_and_votes_are_empty(word, tmp_path):
    columns = ["speaker", "split", "start", "end", "gender", "session", "votes", "id", "language"]
    (utterance,) = table(
        tmp_path / "t.csv", f"file,emotion,{','.join(columns)}\na.wav,sad{f',{word}' * len(columns)}\n"
    )
    assert (utterance.speaker, utterance.split, utterance.start, utterance.end) == ("", "", 0.0, None)
    assert (utterance.gender, utterance.session, utterance.votes, utterance.id) == ("", "", {}, "a.wav")


def test_numbers_that_do_not_exist_in_json_are_missing(tmp_path):
    rows = '{"file": "a.wav", "emotion": "sad", "start": NaN, "end": null, "speaker": NaN, "text": NaN}\n'
    (utterance,) = table(tmp_path / "t.jsonl", rows)
    assert (utterance.start, utterance.end, utterance.speaker, utterance.text) == (0.0, None, "", "")
    with pytest.raises(BadCorpus, match="line 1: has no emotion"):
        table(tmp_path / "t.jsonl", rows.replace('"sad"', "NaN"))


def test_votes_for_a_missing_label_are_not_counted_and_synonyms_are(tmp_path):
    rows = '{"file": "a.wav", "emotion": "joy", "votes": {"joy": 2, "Happy": 1, "nan": 5, "sad": NaN, "angry": 1}}\n'
    assert table(tmp_path / "t.jsonl", rows)[0].votes == {"happy": 0.75, "angry": 0.25}
    with pytest.raises(BadCorpus, match="line 1: votes"):
        table(tmp_path / "t.jsonl", rows.replace("NaN", "Infinity"))


def test_a_row_without_audio_and_text_is_an_error(tmp_path):
    with pytest.raises(BadCorpus, match=r"line 2: has neither audio nor text \('nan' is a missing value\)"):
        table(tmp_path / "t.csv", "file,text,emotion\nnan,,sad\n")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1e-05", 1e-05),
        ("1E2", 100.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("0", 0.0),
        ("-0.0", 0.0),
        ("0 days 00:00:01.500000000", 1.5),
        ("00:01:01", 61.0),
    ],
)
def test_times_are_numbers_in_any_notation(text, seconds, tmp_path):
    assert table(tmp_path / "t.csv", f"file,emotion,start\na.wav,sad,{text}\n")[0].start == seconds


@pytest.mark.parametrize("text", ["inf", "-1", "1e999", "1_000", "1:30", "soon", "1,5"])
def test_other_times_are_errors(text, tmp_path):
    with pytest.raises(BadCorpus, match=r"line 2: start '.*': expected seconds"):
        table(tmp_path / "t.csv", f'file,emotion,start\na.wav,sad,"{text}"\n')


def test_genders_may_be_other_than_female_and_male(tmp_path):
    words = {"F": "female", "Woman": "female", "m": "male", "other": "other", "Non-binary": "other", "unknown": ""}
    words |= {"female_feminine": "female", "male_masculine": "male", "diverse": "other", "-": ""}
    rows = "".join(f"{number}.wav,sad,{word}\n" for number, word in enumerate(words))
    assert [u.gender for u in table(tmp_path / "t.csv", "file,emotion,sex\n" + rows)] == list(words.values())


def test_windows_punctuation_is_repaired_in_every_format(tmp_path):
    assert table(tmp_path / "t.csv", "text,emotion\ndon\x92t\x85,sad\n")[0].text == "don\u2019t\u2026"
    assert table(tmp_path / "t.jsonl", '{"text": "don\\u0092t", "emotion": "sad"}\n')[0].text == "don\u2019t"


# Several annotators


ANNOTATED = (
    "file,emotion,speaker\na.wav,happy,\na.wav,joy,p1\na.wav,sad,p1\nb.wav,sad,p2\nc.wav,angry,p3\nc.wav,sad,p3\n"
)


def test_several_rows_of_a_segment_are_an_error_by_default(tmp_path):
    with pytest.raises(BadCorpus, match=r'line 2 and line 3 are the same segment .*annotators = "majority" or "votes"'):
        table(tmp_path / "t.csv", ANNOTATED)


def test_the_majority_of_the_annotators_is_the_label_and_ties_are_left_out(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        utterances = table(tmp_path / "t.csv", ANNOTATED, annotators="majority")
    assert [(u.id, u.emotion, u.speaker, u.votes) for u in utterances] == [
        ("a.wav", "happy", "p1", {}),
        ("b.wav", "sad", "p2", {}),
    ]
    assert "left out 1 utterance without a majority: c.wav" in caplog.text
    with pytest.raises(BadCorpus, match="no emotion has a majority in any segment"):
        table(tmp_path / "t.csv", "file,emotion\na.wav,sad\na.wav,happy\n", annotators="majority")


def test_rows_become_votes_and_the_first_of_tied_emotions_is_the_label(tmp_path):
    utterances = table(tmp_path / "t.csv", ANNOTATED, annotators="votes")
    assert [(u.id, u.emotion, u.votes) for u in utterances] == [
        ("a.wav", "happy", {"happy": 2 / 3, "sad": 1 / 3}),
        ("b.wav", "sad", {"sad": 1.0}),
        ("c.wav", "angry", {"angry": 0.5, "sad": 0.5}),
    ]


def test_segments_and_texts_are_annotated_too(tmp_path):
    rows = "file,emotion,start,end\na.wav,sad,0,1\na.wav,sad,0.0,1.0\na.wav,happy,1,2\n"
    assert [u.emotion for u in table(tmp_path / "t.csv", rows, annotators="majority")] == ["sad", "happy"]
    rows = "id,text,emotion\n7,Well.,sad\n7,Well.,sad\n7,Well.,happy\n"
    assert [(u.id, u.text, u.emotion) for u in table(tmp_path / "t.csv", rows, annotators="majority")] == [
        ("7", "Well.", "sad")
    ]


@pytest.mark.parametrize("rule", ["majority", "votes"])
def test_rows_of_a_segment_that_contradict_each_other_are_named(rule, tmp_path):
    with pytest.raises(BadCorpus, match="line 3: speaker 'p2', but line 2 of the same segment has 'p1'"):
        table(tmp_path / "t.csv", "file,emotion,speaker\na.wav,sad,p1\na.wav,sad,p2\n", annotators=rule)
    rows = '{"file": "a.wav", "emotion": "sad", "votes": {"sad": 1}}\n{"file": "a.wav", "emotion": "sad"}\n'
    with pytest.raises(BadCorpus, match="line 1: has votes, but its segment has other rows too"):
        table(tmp_path / "t.jsonl", rows, annotators=rule)


def test_the_rule_for_annotators_is_an_option(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        write_noise(tmp_path / f"{name}.wav", seed)
    write(tmp_path / "t.csv", ANNOTATED)
    run = affekt("corpus", "describe", "table", tmp_path / "t.csv", "--annotators", "majority", "--json")
    assert json.loads(run.stdout)["emotions"] == {"happy": 1, "sad": 1}
    assert "left out 1 utterance without a majority: c.wav" in run.stderr
    run = affekt("corpus", "describe", "table", tmp_path / "t.csv", "--annotators", "vote")
    assert (run.returncode, run.stdout) == (2, "")
    assert "did you mean 'votes'?" in run.stderr


# Tables written by other programs and on other systems


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        ("start_time,end_time", "0.5,1", "'start_time' looks like times.*--column start=start_time"),
        ("StartTime", "0:00:01.5", "'StartTime' looks like times"),
        ("start_ms", "500", "'start_ms' looks like times.*write seconds"),
        ("start,duration", "0.5,1", "'duration' looks like times.*start . duration"),
        ("offset,duration", "0.5,1", "'offset' looks like times.*--column start=offset"),
        ("Segment Start,end", "0.5,1", "'Segment Start' looks like times"),
        ("Start (s)", "0.5", "'Start \\(s\\)' looks like times"),
        ("start[ms]", "500", "'start\\[ms\\]' looks like times.*write seconds"),
        ("start,stop", "0.5,1", "'stop' looks like times.*--column end=stop"),
    ],
)
def test_times_in_a_column_of_another_name_are_an_error(columns, values, message, tmp_path):
    with pytest.raises(BadCorpus, match=message):
        table(tmp_path / "t.csv", f"file,emotion,{columns}\na.wav,sad,{values}\n")


def test_columns_of_times_can_be_mapped_or_ignored_and_zeros_have_no_meaning(tmp_path):
    rows = "file,emotion,onset,offset\na.wav,sad,0.5,1\n"
    (utterance,) = table(tmp_path / "t.csv", rows, columns={"start": "onset", "end": "offset"})
    assert (utterance.start, utterance.end) == (0.5, 1.0)
    with pytest.raises(BadCorpus, match=r"'offset' looks like times.*--column end=offset"):
        table(tmp_path / "t.csv", rows, columns={"start": "onset"})
    assert table(tmp_path / "t.csv", rows, columns={"start": "", "end": ""})[0].end is None
    assert table(tmp_path / "t.csv", "file,emotion,offset,duration\na.wav,sad,0.00,1\n")[0].start == 0


def test_a_file_is_found_by_other_spellings_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch(tmp_path, "sub/a.wav", "b c.wav", "caf\u00e9.wav", "cafe\u0301 2.wav", "home/d.wav")
    names = ["sub\\a.wav", f"file://{tmp_path}/b%20c.wav", "cafe\u0301.wav", "caf\u00e9 2.wav", "~/d.wav", "no\\e.wav"]
    utterances = table(tmp_path / "t.csv", "file,emotion\n" + "".join(f"{name},sad\n" for name in names))
    assert {u.id for u in utterances} == set(names)
    assert [u.id for u in utterances if not u.audio.is_file()] == ["no\\e.wav"]


def test_a_url_and_a_name_in_single_quotes_are_errors(tmp_path):
    with pytest.raises(BadCorpus, match=r"line 2: audio 'https://example.org/a.wav' is a URL: download"):
        table(tmp_path / "t.csv", "file,emotion\nhttps://example.org/a.wav,sad\n")
    with pytest.raises(BadCorpus, match=r"line 2: audio .'a.wav'. is in quotes"):
        table(tmp_path / "t.csv", "file,emotion\n'a.wav','sad'\n")
    for quoted in ("'sad'", "\u201csad\u201d", "\u00absad\u00bb"):
        with pytest.raises(BadCorpus, match=r"line 2: the emotion .* contains a quote"):
            table(tmp_path / "t.csv", f"file,emotion\na.wav,{quoted}\n")


def test_a_name_that_is_too_long_is_a_missing_file(tmp_path):
    write(tmp_path / "t.csv", f"file,emotion\n{'x' * 300}.wav,sad\n")
    assert any(
        "audio file is missing" in problem for problem in describe(Source("table", str(tmp_path / "t.csv"))).problems
    )
    assert check(Source("table", str(tmp_path / "t.csv"))).missing


def test_invisible_characters_are_removed_around_values(tmp_path):
    rows = "\u200bfile\u00a0,emotion,speaker\na.wav\u200b,happy\u00ad,anna\u200b\n"
    rows += "b.wav,\u200ehappy,Jose\u0301\nc.wav,sad,\u200b\n"
    first, second, third = table(tmp_path / "t.csv", rows)
    assert (first.id, first.emotion, first.speaker) == ("a.wav", "happy", "anna")
    assert (second.emotion, second.speaker, third.speaker) == ("happy", "Jos\u00e9", "")
    with pytest.raises(BadCorpus, match="has no emotion"):
        table(tmp_path / "t.csv", "file,emotion\na.wav,\u200b\n")


@pytest.mark.parametrize("word", ["unknown", "Unidentified", "?"])
def test_an_unknown_speaker_is_missing(word, tmp_path):
    assert table(tmp_path / "t.csv", f"file,emotion,speaker\na.wav,sad,{word}\n")[0].speaker == ""


@pytest.mark.parametrize("word", ["unlabeled", "Not labeled", "#NAME?", "?", "undefined"])
def test_words_for_a_missing_label_are_not_emotions(word, tmp_path):
    with pytest.raises(BadCorpus, match="line 2: has no emotion"):
        table(tmp_path / "t.csv", f"file,emotion\na.wav,{word}\n")
    assert table(tmp_path / "t.csv", f"file,emotion\na.wav,{word}\n", emotions={word: "calm"})[0].emotion == "calm"


def test_numbers_as_labels_and_speakers_are_equal_as_floats(tmp_path):
    lines = '{"file": "a.wav", "label": 1, "speaker": 7}\n{"file": "b.wav", "label": 1.0, "speaker": 7.0}\n'
    assert {(u.emotion, u.speaker) for u in table(tmp_path / "t.jsonl", lines)} == {("1", "7")}
    labels = [u.emotion for u in table(tmp_path / "t.csv", "file,label\na,1\nb,1.0\nc,-1\nd,-1.50\ne,10\n")]
    assert labels == ["1", "1", "-1", "-1.5", "10"]


def test_names_of_columns_may_be_in_camel_case(tmp_path):
    (utterance,) = table(tmp_path / "t.csv", "fileName,Emotion,speakerID\na.wav,sad,1\n")
    assert (utterance.audio, utterance.speaker) == (tmp_path / "a.wav", "1")


def test_utterances_without_audio_or_subset_are_reported_if_others_have_them(tmp_path):
    write_noise(tmp_path / "a.wav")
    write(tmp_path / "t.csv", "file,emotion,text,split\na.wav,sad,Well.,train\n,sad,No.,test\n")
    assert describe(Source("table", str(tmp_path / "t.csv"))).problems == ("1 of 2 utterances have no audio: row 2",)
    write(tmp_path / "t.csv", "file,emotion,text,split\n,sad,Well.,train\n,sad,No.,\n")
    assert describe(Source("table", str(tmp_path / "t.csv"))).problems == ("1 of 2 utterances have no subset: row 2",)
    write(tmp_path / "t.csv", "file,emotion,text,split\n,sad,Well.,\n,sad,No.,test\n")  # the others are for training
    assert describe(Source("table", str(tmp_path / "t.csv"))).problems == ()


def test_spaces_around_signs_in_a_label_have_no_meaning(tmp_path):
    (first, second) = table(tmp_path / "t.csv", "file,emotion\na.wav,happy / excited\nb.wav,Happy/Excited\n")
    assert first.emotion == second.emotion == "happy/excited"
