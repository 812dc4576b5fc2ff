"""The readers of corpora that users score models on, on folders with a few files, and lists of clips."""

import pytest

from affekt.corpora import corpora
from affekt.corpora.clip_list import read_clip_list
from affekt.corpora.inspection import describe
from affekt.corpora.source import Source
from affekt.errors import BadConfig, BadCorpus
from tests.corpora.trees import touch, write
from tests.logs import logged


def read_single(name, root):
    (utterance,) = corpora[name].read(root)
    return utterance


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "OAF_angry/",
        "TESS Toronto emotional speech set data/",
        "TESS Toronto emotional speech set data/OAF_angry/",
        "a/b/OAF_angry/",
    ],
)
def test_tess_is_read_from_its_names(folder, tmp_path):
    touch(tmp_path, f"{folder}OAF_back_angry.wav", f"{folder}readme.txt")
    utterance = read_single("tess", tmp_path)
    assert (utterance.id, utterance.emotion, utterance.speaker) == ("OAF_back_angry", "angry", "OAF")
    assert (utterance.gender, utterance.language, utterance.text) == ("female", "en", "Say the word back.")


def test_tess_surprise_its_misspelled_clip_and_its_second_copy(tmp_path):
    touch(
        tmp_path,
        "OAF_neutral/OA_bite_neutral.wav",
        "YAF_pleasant_surprised/YAF_food_ps.wav",
        "TESS Toronto emotional speech set data/YAF_pleasant_surprised/YAF_food_ps.wav",
    )
    neutral, surprise = corpora["tess"].read(tmp_path)
    assert (neutral.id, neutral.speaker, neutral.emotion) == ("OAF_bite_neutral", "OAF", "neutral")
    assert (surprise.speaker, surprise.emotion) == ("YAF", "surprise")


@pytest.mark.parametrize("clip", ["AudioData/DC/sa03.wav", "DC/sa03.wav", "ALL/DC_sa03.wav", "DC_sa03.wav"])
def test_savee_is_read_in_every_layout(clip, tmp_path):
    touch(tmp_path, clip, "AudioData/Info.txt")
    utterance = read_single("savee", tmp_path)
    assert (utterance.id, utterance.emotion, utterance.speaker, utterance.gender) == ("DC_sa03", "sad", "DC", "male")
    assert utterance.id in corpora["savee"].published_ids()


@pytest.mark.parametrize("clip", ["Angry/SM4_F48_A0100.wav", "angry/SM4/SM4_F48_A0100.wav"])
def test_urdu_is_read_with_and_without_folders_of_speakers(clip, tmp_path):
    touch(tmp_path, clip, "Happy/SF1_F1_H01.wav", "README.md", "Angry/notes/x.wav")
    happy, angry = corpora["urdu"].read(tmp_path)
    assert (angry.id, angry.emotion, angry.speaker, angry.gender) == ("SM4_F48_A0100", "angry", "SM4", "male")
    assert (happy.emotion, happy.speaker, happy.gender, happy.language) == ("happy", "SF1", "female", "ur")
    assert {"SM4_F48_A0100", "SF1_F1_H01", "SM2_F1_A023", "SM5_F72_N0100"} <= corpora["urdu"].published_ids()


def test_nemo_is_read_from_its_names_and_its_table(tmp_path):
    touch(tmp_path, "samples/EB0_anger_1.wav", "samples/WR0_surprised_64.wav")
    angry, surprise = corpora["nemo"].read(tmp_path)
    assert (angry.emotion, angry.speaker, angry.gender, angry.language) == ("angry", "EB0", "female", "pl")
    assert (surprise.emotion, surprise.gender, surprise.text) == ("surprise", "male", "")
    header = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
    text = "„Ród smoka” to serial telewizyjny."
    write(tmp_path / "data.tsv", f"{header}EB0_anger_1.wav\tanger\t{text}\tx\t        EB0\tfemale\t27\n")
    assert [utterance.text for utterance in corpora["nemo"].read(tmp_path)] == [text, ""]


def test_nemo_without_its_folder_of_samples_is_read(tmp_path):
    touch(tmp_path, "IC0_fear_63.flac")
    assert read_single("nemo", tmp_path).emotion == "fear"


def test_emotale_is_read_from_its_names_and_tables(tmp_path):
    touch(tmp_path, "audio/DK_004_A_5.wav", "audio/EN_004_B_1.wav")
    danish, english = corpora["emotale"].read(tmp_path)
    assert (danish.emotion, danish.speaker, danish.language, danish.gender) == ("angry", "004", "da", "")
    assert (english.emotion, english.language, english.votes) == ("bored", "en", {})
    assert danish.text == "Om syv timer er det morgen."
    write(
        tmp_path / "annotations.csv",
        "file,a1_A,a1_cat,a2_cat,a3_cat,gt_emotion\nDK_004_A_5.wav,4.0,A,A,N,A\nEN_004_B_1.wav,1.0,B,B,B,B\n",
    )
    write(tmp_path / "speaker_info.csv", "speaker_id,gender,age\n4,F,23\n")
    danish, english = corpora["emotale"].read(tmp_path)
    assert danish.votes == pytest.approx({"angry": 2 / 3, "neutral": 1 / 3})
    assert danish.gender == english.gender == "female"


def test_unknown_columns_and_votes_of_emotale_are_reported(tmp_path):
    touch(tmp_path, "DK_004_A_5.wav")
    write(tmp_path / "speaker_info.csv", "who,what\n4,F\n")
    with logged() as messages:
        assert read_single("emotale", tmp_path).gender == ""
    assert "no columns of speakers and their sex" in messages[0]
    write(tmp_path / "annotations.csv", "file,a1_cat,a2_cat,a3_cat\nDK_004_A_5.wav,A,A,Q\n")
    with pytest.raises(BadCorpus, match="line 2: emotion 'Q'"):
        corpora["emotale"].read(tmp_path)


@pytest.mark.parametrize("folder", ["data/mp3/", "audio/", ""])
def test_emogator_is_read_as_sounds_that_are_not_speech(folder, tmp_path):
    touch(tmp_path, f"{folder}000003-02-1.mp3", f"{folder}000003-05-3.mp3")
    amusement, confusion = corpora["emogator"].read(tmp_path)
    assert (amusement.emotion, amusement.speaker, confusion.emotion) == ("happy", "000003", "other")
    assert not corpora["emogator"].speech


@pytest.mark.parametrize(
    ("name", "clip", "stray"),
    [
        ("tess", "OAF_angry/OAF_back_angry.wav", "OAF_angry/OAF_back_rage.wav"),
        ("savee", "DC/a01.wav", "DC/b01.wav"),
        ("urdu", "Angry/SM1_F1_A01.wav", "Angry/SM1_F1_B01.wav"),
        ("nemo", "samples/EB0_anger_1.wav", "samples/EB0_rage_1.wav"),
        ("emotale", "DK_004_A_5.wav", "DK_004_A_6.wav"),
        ("emogator", "000003-02-1.mp3", "000003-31-1.mp3"),
    ],
)
def test_a_clip_of_another_kind_is_named(name, clip, stray, tmp_path):
    touch(tmp_path, clip, stray)
    with pytest.raises(BadCorpus, match=rf"{stray.rpartition('/')[2]}: expected .* move a file of another kind"):
        corpora[name].read(tmp_path)


RAVDESS = ["03-01-03-01-01-02-15", "03-01-05-01-02-01-15", "03-01-01-01-02-02-15"]


@pytest.fixture
def ravdess(tmp_path):
    touch(tmp_path / "ravdess", *(f"Actor_15/{name}.wav" for name in RAVDESS))
    return tmp_path / "ravdess"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "03-01-03-01-01-02-15\n\nActor_15/03-01-05-01-02-01-15.wav\n"),
        ("list", "03-01-03-01-01-02-15.wav\r\nActor_15\\03-01-05-01-02-01-15.wav"),
        (
            "list.jsonl",
            '{"wav_filename": "Actor_15/03-01-03-01-01-02-15.wav", "label": "happy"}\n'
            '{"wav_filename": "Actor_15/03-01-05-01-02-01-15.wav", "label": "angry"}\n',
        ),
        ("list.csv", "clip,label\n03-01-03-01-01-02-15,happy\n03-01-05-01-02-01-15,angry\n"),
    ],
)
def test_a_list_of_clips_restricts_a_corpus(name, text, ravdess, tmp_path):
    write(tmp_path / name, text)
    source = Source("ravdess", str(ravdess), only=str(tmp_path / name))
    with logged() as messages:
        assert {utterance.id for utterance in source.read()} == set(RAVDESS[:2])
    assert messages[0] == f"ravdess: 2 of 3 utterances, those of {name}"
    missing = next(problem for problem in describe(source).problems if "missing" in problem)
    assert missing.startswith("1437 of 1440 published utterances are missing")  # the third clip is there


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "03-01-03-01-01-02-16\n",
            "names 1 clip that this copy of ravdess does not have: 03-01-03-01-01-02-16; expected names",
        ),
        ("03-01-03-01-01-02-15\na/03-01-03-01-01-02-15.wav\n", "names the clip '03-01-03-01-01-02-15' twice"),
        ("\n", "names no clip"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(text, message, ravdess, tmp_path):
    write(tmp_path / "list.txt", text)
    with pytest.raises(BadCorpus, match=message):
        Source("ravdess", str(ravdess), only=str(tmp_path / "list.txt")).read()


def test_names_in_a_list_must_be_unambiguous(tmp_path):
    touch(tmp_path, "calls/anna/happy/1.wav", "calls/ben/happy/1.wav")
    source = Source("folder", str(tmp_path / "calls"), only=str(tmp_path / "list.txt"))
    write(tmp_path / "list.txt", "1.wav\n")
    with pytest.raises(
        BadCorpus, match=r"'1.wav' is ambiguous \(anna/happy/1.wav, ben/happy/1.wav\): write the whole id"
    ):
        source.read()
    write(tmp_path / "list.txt", "ben/happy/1.wav\n")
    assert [utterance.id for utterance in source.read()] == ["ben/happy/1.wav"]


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(BadCorpus, match="is not a file"):
        read_clip_list(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BadCorpus, match="cannot be read as text"):
        read_clip_list(tmp_path / "list.txt")
    write(tmp_path / "list.csv", "emotion,length\nhappy,3\n")
    with pytest.raises(BadCorpus, match="no column of names of clips"):
        read_clip_list(tmp_path / "list.csv")
    with pytest.raises(BadConfig, match="there is no corpus 'tes'"):
        Source("tes")
