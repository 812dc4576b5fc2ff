"""The readers of published corpora, on folders with a few files."""

import re

import pytest

from affekt.corpora import corpora
from affekt.errors import BadCorpus
from tests.corpora.trees import iemocap_turn, meld_table, touch, write, write_noise

VOTES = "".join(
    f'"{100_000 * kind + 1}",{votes},"1001_DFA_ANG_XX",10\n'
    for kind, votes in ((1, "6,0,1,0,3,0"), (2, "0,0,0,0,10,0"))
)


def read_single(name, root):
    (utterance,) = corpora[name].read(root)
    return utterance


def test_cremad_is_read_from_its_names(tmp_path):
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_IEO_HAP_LO.wav", "AudioWAV/readme.txt")
    write(tmp_path / "VideoDemographics.csv", '"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n')
    first, second = corpora["cremad"].read(tmp_path)
    assert (first.id, first.speaker, first.emotion, first.gender) == ("1001_DFA_ANG_XX", "1001", "angry", "male")
    assert (second.speaker_key, second.emotion, second.text) == ("cremad/1002", "happy", "It's eleven o'clock.")
    assert first.votes == {}
    assert corpora["cremad"].note(tmp_path) == ""
    touch(tmp_path, "REBUILT.md")
    assert corpora["cremad"].note(tmp_path) == "rebuilt audio"


def test_cremad_votes_are_those_on_the_audio_alone(tmp_path):
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    write(
        tmp_path / "processedResults/tabulatedVotes.csv",
        '"","A","D","F","H","N","S","fileName","numResponses"\n' + VOTES,
    )
    assert read_single("cremad", tmp_path).votes == {"angry": 0.6, "fear": 0.1, "neutral": 0.3}


@pytest.mark.parametrize("table", ["summaryTable.csv", "processedResults/tabulatedVotes.csv", "VideoDemographics.csv"])
def test_a_damaged_cremad_table_is_refused(table, tmp_path):
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    write(tmp_path / table, "version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BadCorpus, match="has no column '"):
        corpora["cremad"].read(tmp_path)


@pytest.mark.parametrize("table", ["summaryTable.csv", "processedResults/summaryTable.csv"])
def test_cremad_ties_are_split_if_only_the_summary_table_exists(table, tmp_path):
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1040_ITH_SAD_X.wav")
    rows = '"1","1001_DFA_ANG_XX","A:H"\n"2","1040_ITH_SAD_XX","S"\n'
    write(tmp_path / table, '"","FileName","VoiceVote"\n' + rows)
    tied, misspelled = corpora["cremad"].read(tmp_path)
    assert tied.votes == {"angry": 0.5, "happy": 0.5}
    assert misspelled.votes == {"sad": 1.0}


def test_emodb_is_read_from_its_names(tmp_path):
    touch(tmp_path, "wav/03a01Fa.wav", "wav/16b10Lb.wav")
    first, second = corpora["emodb"].read(tmp_path)
    assert (first.speaker, first.emotion, first.gender, first.language) == ("03", "happy", "male", "de")
    assert (second.speaker, second.emotion, second.gender) == ("16", "bored", "female")
    assert first.text == "Der Lappen liegt auf dem Eisschrank."


@pytest.mark.parametrize("folder", ["", "Audio_Speech_Actors_01-24/"])
def test_ravdess_is_read_from_its_names(folder, tmp_path):
    touch(tmp_path, f"{folder}Actor_12/03-01-06-01-02-01-12.wav", f"{folder}Actor_01/03-01-02-01-01-01-01.wav")
    calm, afraid = corpora["ravdess"].read(tmp_path)
    assert (afraid.speaker, afraid.gender, afraid.emotion) == ("12", "female", "fear")
    assert (calm.speaker, calm.gender, calm.emotion) == ("01", "male", "calm")
    assert [calm.text, afraid.text] == ["Kids are talking by the door.", "Dogs are sitting by the door."]


def test_archives_and_other_files_beside_ravdess_folders_are_passed_over(tmp_path):
    touch(tmp_path, "Actor_01/03-01-03-01-01-01-01.wav", "Actor_01.zip", "Actor_02.zip", "Actor_03", "notes.wav")
    assert read_single("ravdess", tmp_path).id == "03-01-03-01-01-01-01"


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("cremad", "AudioWAV/1001_DFA_ANG_XX.wav"),
        ("emodb", "wav/03a01Fa.wav"),
        ("ravdess", "Actor_01/03-01-03-01-01-01-01.wav"),
    ],
)
def test_archives_and_folders_beside_the_clips_are_passed_over(name, clip, tmp_path):
    folder = clip.partition("/")[0]
    touch(tmp_path, clip, f"{folder}.zip", f"{folder}/all.zip", f"{folder}/more.wav/1.txt", f"{folder}/Thumbs.db")
    assert read_single(name, tmp_path).audio == tmp_path / clip


@pytest.mark.parametrize("name", ["1040_ITH_SAD_X", "1040_ITH_SAD_XX"])
def test_the_renamed_clip_of_cremad_is_published_under_both_names(name, tmp_path):
    touch(tmp_path, f"AudioWAV/{name}.wav")
    write(tmp_path / "summaryTable.csv", 'FileName,VoiceVote\n1040_ITH_SAD_XX,"S"\n')
    utterance = read_single("cremad", tmp_path)
    assert utterance.id == "1040_ITH_SAD_X"
    assert utterance.votes == {"sad": 1.0}
    assert utterance.id in corpora["cremad"].published_ids()


def test_ravdess_songs_and_videos_are_skipped_and_counted(tmp_path):
    speech, song, video = (f"Actor_01/{kind}-03-01-01-01-01" for kind in ("03-01", "03-02", "01-01"))
    touch(tmp_path, f"{speech}.wav", f"{song}.wav", f"{video}.mp4")
    assert read_single("ravdess", tmp_path).id == "03-01-03-01-01-01-01"
    remarks = corpora["ravdess"].remarks(tmp_path, [])
    assert [remark.split(",")[0] for remark in remarks] == ["1 files of speech", "1 files of song"]


def test_iemocap_is_read_from_its_labels(tmp_path):
    iemocap_turn(tmp_path, "Ses01F_impro01_M000", "exc", "Excuse me.")
    iemocap_turn(tmp_path, "Ses02M_script01_1_F003", "xxx")
    touch(tmp_path, "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt", "Session1/sentences/wav/x.wav")
    improvised, scripted = corpora["iemocap"].read(tmp_path)
    # The speaker is the letter in the turn's number (M), not the one in the dialogue's name (F).
    assert (improvised.speaker, improvised.gender, improvised.session) == ("Ses01M", "male", "Ses01")
    assert (scripted.speaker, scripted.gender, scripted.session) == ("Ses02F", "female", "Ses02")
    assert (improvised.emotion, scripted.emotion) == ("excited", "unknown")
    assert (improvised.dialogue, scripted.dialogue) == ("Ses01F_impro01", "Ses02M_script01_1")
    assert improvised.text == "Excuse me."
    # The clip is already cut, so the times in the dialogue do not apply to it.
    assert (improvised.start, improvised.end) == (0.0, None)
    assert improvised.audio == tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav"


def test_iemocap_without_audio_is_read_as_text(tmp_path):
    iemocap_turn(tmp_path, "Ses01F_impro01_M000", "ang")
    assert read_single("iemocap", tmp_path).audio is None


def test_an_unknown_iemocap_label_is_refused(tmp_path):
    iemocap_turn(tmp_path, "Ses01F_impro01_M000", "anger")
    with pytest.raises(BadCorpus, match=r"Ses01F_impro01_M000 is 'anger'; did you mean 'ang'\?"):
        corpora["iemocap"].read(tmp_path)


def test_a_session_without_labels_is_refused(tmp_path):
    (tmp_path / "Session1").mkdir()
    with pytest.raises(BadCorpus, match="has no dialog/EmoEvaluation/"):
        corpora["iemocap"].read(tmp_path)


def small_meld(root):
    meld_table(root, "train", ("Oh my God, café.", "Phoebe", "joy", 0, 0), ("What?", "Mark", "anger", 0, 1))
    meld_table(root, "dev", ("No.", "Ross", "sadness", 0, 0))
    meld_table(root, "test", ("Yes.", "Monica", "neutral", 0, 0))


def test_meld_is_read_from_its_tables(tmp_path):
    small_meld(tmp_path)
    dev, test, phoebe, mark = corpora["meld"].read(tmp_path)
    assert [u.id for u in (phoebe, dev, test)] == ["train_dia0_utt0", "dev_dia0_utt0", "test_dia0_utt0"]
    assert [u.split for u in (phoebe, dev, test)] == ["train", "dev", "test"]
    assert (phoebe.emotion, mark.emotion, dev.emotion) == ("happy", "angry", "sad")
    assert (phoebe.text, phoebe.gender, mark.gender) == ("Oh my God, café.", "female", "")
    # Every subset numbers its own dialogues.
    assert phoebe.dialogue == mark.dialogue != dev.dialogue != test.dialogue
    assert phoebe.session == "s04e07"
    assert {u.audio for u in (dev, test, phoebe, mark)} == {None}


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("train_splits", "output_repeated_splits_test"), ("train/train_splits", "test")],
)
def test_meld_clips_are_found_in_every_published_layout(train, test, tmp_path):
    small_meld(tmp_path)
    touch(
        tmp_path, f"{train}/dia0_utt0.mp4", f"{train}/dia0_utt1.mp4", f"{train}/dia0_utt1.wav", f"{train}/dia9_utt9.mp4"
    )
    touch(tmp_path, f"{test}/dia0_utt0.flac", f"{test}/._dia0_utt0.mp4", f"{test}/final_videos_testdia0_utt0.mp4")
    dev, test_clip, first, second = (utterance.audio for utterance in corpora["meld"].read(tmp_path))
    assert [first, second] == [tmp_path / train / "dia0_utt0.mp4", tmp_path / train / "dia0_utt1.wav"]
    assert test_clip == tmp_path / test / "dia0_utt0.flac"
    assert dev is not None  # since other clips exist, this one is missing, and not read as text
    assert not dev.exists()


def test_flawed_meld_clips_are_reported_if_there_is_audio(tmp_path):
    meld_table(tmp_path, "train", ("Hi.", "Ross", "joy", 125, 3), ("Hi.", "Ross", "joy", 125, 4))
    remarks = corpora["meld"].remarks
    assert remarks(tmp_path, corpora["meld"].read(tmp_path)) == []
    write_noise(tmp_path / "train/dia125_utt4.wav")
    assert remarks(tmp_path, corpora["meld"].read(tmp_path)) == ["train_dia125_utt3: its clip is damaged as published"]


def test_meld_in_windows_1252_is_read(tmp_path):
    small_meld(tmp_path)
    path = tmp_path / "train_sent_emo.csv"
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp1252"))
    assert corpora["meld"].read(tmp_path)[2].text == "Oh my God, café."


def test_a_damaged_meld_table_is_refused(tmp_path):
    small_meld(tmp_path)
    path = tmp_path / "dev_sent_emo.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("sadness", "sadnes"), encoding="utf-8")
    with pytest.raises(BadCorpus, match=r"dev_sent_emo\.csv, line 2: Emotion 'sadnes'; did you mean 'sadness'\?"):
        corpora["meld"].read(tmp_path)
    path.write_text(text.replace("Season", "Saison"), encoding="utf-8")
    with pytest.raises(BadCorpus, match="has no column 'Season'"):
        corpora["meld"].read(tmp_path)


def test_meld_punctuation_of_windows_is_repaired_in_old_copies(tmp_path):
    small_meld(tmp_path)
    meld_table(tmp_path, "dev", ("I don\x92t know\x85", "Ross", "sadness", 0, 0))
    assert corpora["meld"].read(tmp_path)[0].text == "I don\u2019t know\u2026"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",4,7,", ",four,7,", "line 2: Season 'four': expected a whole number"),
        (",neutral,0,0,", ",neutral,,0,", "line 2: Dialogue_ID '': expected a whole number"),
        ("sadness", "nan", "line 2: Emotion ''"),
        ('"No."', '"No" he said', "line 2: .* follows a closing quote"),
        ('"No."', "No, no", "line 2, has 12 fields, but there are 11 columns"),
    ],
)
def test_a_damaged_row_of_meld_is_named(old, new, message, tmp_path):
    small_meld(tmp_path)
    path = tmp_path / "dev_sent_emo.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(BadCorpus, match=f"dev_sent_emo.csv, {message}"):
        corpora["meld"].read(tmp_path)


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("summaryTable.csv", '"","FileName","VoiceVote"\n"1","1001_DFA_ANG_XX","A:Q"\n', "line 2: VoiceVote 'Q'"),
        (
            "processedResults/tabulatedVotes.csv",
            '"","A","D","F","H","N","S","fileName"\nx,1,0,0,0,0,0,a\n',
            "line 2:  'x'",
        ),
        ("VideoDemographics.csv", '"ActorID","Sex"\n1001,51,"Male"\n', "line 2, has 3 fields"),
        ("VideoDemographics.csv", '"ActorID","Sex"\n1001,"Mole"\n', "line 2: gender 'Mole'"),
    ],
)
def test_a_damaged_row_of_cremad_is_named(table, rows, message, tmp_path):
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    write(tmp_path / table, rows)
    with pytest.raises(BadCorpus, match=message):
        corpora["cremad"].read(tmp_path)


def test_missing_values_of_cremad_are_empty(tmp_path):
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    write(tmp_path / "summaryTable.csv", '"","FileName","VoiceVote"\n"1","1001_DFA_ANG_XX",NA\n')
    write(tmp_path / "VideoDemographics.csv", '"ActorID","Sex"\n1001,NA\n')
    utterance = read_single("cremad", tmp_path)
    assert (utterance.gender, utterance.votes) == ("", {})


@pytest.mark.parametrize("space", ["    ", " ", "\t "])
def test_iemocap_with_spaces_instead_of_tabs_is_read(space, tmp_path):
    iemocap_turn(tmp_path, "Ses01F_impro01_F000", "neu")
    iemocap_turn(tmp_path, "Ses01F_impro01_M000", "hap")
    for path in (tmp_path / "Session1/dialog").rglob("*.txt"):
        path.write_text(path.read_text().replace("\t", space).replace(" [006", f"{space}[006").replace("\n", "\r\n"))
    utterances = corpora["iemocap"].read(tmp_path)
    assert [(u.emotion, u.text) for u in utterances] == [("neutral", "Excuse me."), ("happy", "Excuse me.")]


@pytest.mark.parametrize(
    "line", ["[6.2 - 8.2]\tSes01F_impro01_F001", "[6.2 - 8.2]\tneu\t[2.5]", "[6.2 - 8.2] Ses01F_impro01_F001 neu-x"]
)
def test_a_damaged_line_of_iemocap_is_named(line, tmp_path):
    iemocap_turn(tmp_path, "Ses01F_impro01_F000", "neu")
    path = tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(BadCorpus, match=r"Ses01F_impro01\.txt, line 1: .* is damaged: expected times, turn, emotion"):
        corpora["iemocap"].read(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]",
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5] [9.1 - 9.2]\tSes01F_impro01_F001\tang\t[2.5]",
    ],
)
def test_a_line_of_iemocap_without_its_beginning_or_end_is_named(line, tmp_path):
    iemocap_turn(tmp_path, "Ses01F_impro01_M000", "ang")
    with (tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(BadCorpus, match=r"Ses01F_impro01.txt, line 5: .* is damaged"):
        corpora["iemocap"].read(tmp_path)


@pytest.mark.parametrize(
    ("name", "clip", "stray"),
    [
        ("cremad", "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_ANG_XX (1).wav"),
        ("cremad", "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_ANG_XX_16k.wav"),
        ("emodb", "wav/03a01Fa.wav", "wav/03a01Fa (1).wav"),
        ("ravdess", "Actor_01/03-01-01-01-01-01-01.wav", "Actor_01/03-01-01-01-01-01-01 (1).wav"),
    ],
)
def test_a_copy_of_a_clip_under_another_name_is_named_with_its_folder(name, clip, stray, tmp_path):
    touch(tmp_path, clip, stray)
    with pytest.raises(
        BadCorpus, match=rf"{re.escape(str(tmp_path / stray))}: expected .* move a file of another kind"
    ):
        corpora[name].read(tmp_path)
