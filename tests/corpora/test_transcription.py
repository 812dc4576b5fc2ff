"""A corpus gets words from a recogniser: what is written, what stays, and how a killed run goes on."""

import json

import pytest

from affekt.audio.read import load
from affekt.corpora.source import Source
from affekt.corpora.transcription import Whisper, transcribe
from affekt.errors import BadConfig, BadCorpus, BadOutput, MissingExtra
from tests.cli.test_cli import affekt
from tests.conftest import data_folder
from tests.corpora.trees import sound, touch, write


class Ear:
    """A recogniser that says how long it heard, and in which language; it may be killed at its n-th utterance."""

    name = "asr:ear"

    def __init__(self, killed_at=None):
        self.heard, self.killed_at = [], killed_at

    def __call__(self, waveform, language):
        if len(self.heard) == self.killed_at:
            raise KeyboardInterrupt
        self.heard.append(len(waveform))
        return f"  {len(waveform)} samples\n in {language or 'any tongue'} "


@pytest.fixture
def calls(tmp_path):
    """Four utterances: two stretches of one file, a whole file, and one whose words are known."""
    sound(tmp_path / "one.wav", 1, seconds=1.0)
    sound(tmp_path / "two.wav", 2, seconds=0.5)
    rows = [
        {"id": "a", "audio": "one.wav", "emotion": "sad", "start": 0.0, "end": 0.25, "speaker": "anna"},
        {"id": "b", "audio": "one.wav", "emotion": "sad", "start": 0.25, "end": 0.75, "language": "de"},
        {"id": "c", "audio": "two.wav", "emotion": "happy", "votes": {"happy": 3, "sad": 1}},
        {"id": "d", "audio": "two.wav", "emotion": "happy", "start": 0.1, "text": "Well, yes"},
    ]
    write(tmp_path / "calls.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return Source("table", str(tmp_path / "calls.jsonl")).read()


def words(path):
    return {one.id: (one.text, one.text_by) for one in Source("table", str(path)).read()}


RECOGNISED = {
    "a": ("4000 samples in any tongue", "asr:ear"),
    "b": ("8000 samples in de", "asr:ear"),
    "c": ("8000 samples in any tongue", "asr:ear"),
    "d": ("Well, yes", ""),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_words_are_marked_and_given_ones_stay(suffix, calls, tmp_path):
    output = tmp_path / "new" / f"worded{suffix}"
    found = transcribe(calls, Ear(), output)
    assert words(output) == RECOGNISED
    assert (found.utterances, found.given, found.recognised, found.resumed, found.wordless) == (4, 1, 3, 0, 0)
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_all_else_stays_as_it_was(calls, tmp_path):
    output = tmp_path / "worded.jsonl"
    transcribe(calls, Ear(), output)
    silent = {"corpus": "", "text": "", "text_by": ""}
    for before, after in zip(calls, Source("table", str(output)).read(), strict=True):
        assert {**vars(before), **silent} == {**vars(after), **silent}


def test_all_are_heard_again_only_when_that_is_asked_for(calls, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    transcribe(calls, Ear(), first)
    ear = Ear()
    ear.name = "asr:other"
    found = transcribe(Source("table", str(first)).read(), ear, tmp_path / "kept.jsonl")
    assert (found.recognised, ear.heard) == (0, [])
    assert words(tmp_path / "kept.jsonl") == RECOGNISED
    transcribe(calls, ear, second, again=True)
    assert {by for _, by in words(second).values()} == {"asr:other"}
    assert words(second)["d"][0] == "6400 samples in any tongue"


def test_a_killed_run_goes_on_and_repeats_nothing(calls, tmp_path):
    output, journal = tmp_path / "worded.jsonl", tmp_path / "worded.jsonl.partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        transcribe(calls, Ear(killed_at=2), output)
    assert not output.exists()
    with journal.open("a") as lines:
        lines.write('{"by": "asr:ear", "id": "c", "te')  # killed within a line
    ear, told = Ear(), []
    found = transcribe(calls, ear, output, progress=lambda done, of: told.append((done, of)))
    assert (ear.heard, told) == ([8000], [(3, 3)])
    assert (found.recognised, found.resumed) == (3, 2)
    assert words(output) == RECOGNISED
    assert not journal.exists()


def test_a_journal_of_another_run_is_not_mixed_in(calls, tmp_path):
    output, journal = tmp_path / "worded.jsonl", tmp_path / "worded.jsonl.partial.jsonl"
    for line, message in (
        ('{"by": "asr:other", "id": "a", "text": "x"}', "belongs to another run .it holds 'a' by asr:other"),
        ('{"by": "asr:ear", "id": "z", "text": "x"}', "belongs to another run .it holds 'z' by asr:ear"),
        ('{"my": "diary"}', "holds something else than recognised words"),
        ("Dear diary", "holds something else than recognised words"),
    ):
        write(journal, line + "\n")
        with pytest.raises(BadOutput, match=message):
            transcribe(calls, Ear(), output)
        assert journal.read_text() == line + "\n"


def test_nothing_is_written_over_and_bad_outputs_are_refused_at_once(calls, tmp_path):
    ear = Ear()
    with pytest.raises(BadOutput, match=r"calls\.jsonl exists, and is not written over"):
        transcribe(calls, ear, tmp_path / "calls.jsonl")
    with pytest.raises(BadOutput, match=r"worded\.txt: expected a name ending in \.jsonl or \.csv"):
        transcribe(calls, ear, tmp_path / "worded.txt")
    write(tmp_path / "mute.csv", "id,text,emotion\nx,Well,sad\n")
    with pytest.raises(BadOutput, match="1 utterances have no sound, first x"):
        transcribe(Source("table", str(tmp_path / "mute.csv")).read(), ear, tmp_path / "worded.csv")
    assert ear.heard == []


def test_what_cannot_be_heard_is_counted_when_the_others_are_done(tmp_path):
    sound(tmp_path / "good.wav")
    touch(tmp_path, "empty.wav")
    rows = ["id,audio,emotion,start,end", "a,empty.wav,sad,,", "b,gone.wav,sad,,", "c,good.wav,sad,,",
            "d,good.wav,sad,0.1,9", "e,good.wav,sad,0.1,0.15"]  # fmt: skip
    write(tmp_path / "t.csv", "\n".join(rows) + "\n")
    output, ear = tmp_path / "worded.csv", Ear()
    utterances = Source("table", str(tmp_path / "t.csv")).read()
    with pytest.raises(BadCorpus, match=r"4 of 5 utterances cannot be heard: a: .*; b: .*; d: .* and e\. The words"):
        transcribe(utterances, ear, output)
    assert ear.heard == [8000]
    assert not output.exists()
    found = transcribe([one for one in utterances if one.id == "c"], ear, output)
    assert (found.resumed, ear.heard) == (1, [8000])


def test_silence_has_no_words_and_is_marked_all_the_same(calls, tmp_path):
    ear = Ear()
    found = transcribe(calls, type("Deaf", (), {"name": ear.name, "__call__": lambda *_: " "})(), tmp_path / "w.jsonl")
    assert found.wordless == 3
    assert words(tmp_path / "w.jsonl")["a"] == ("", "asr:ear")


def test_a_recogniser_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("AFFEKT_MODELS", raising=False)
    with_library = pytest.importorskip("faster_whisper", reason="needs the extra asr")
    assert with_library.WhisperModel
    with pytest.raises(BadConfig, match="holds no Whisper in CTranslate2's format: expected model"):
        Whisper(str(tmp_path))
    with pytest.raises(BadConfig, match="is no folder; expected one with a Whisper"):
        Whisper(str(tmp_path / "nowhere"))
    with pytest.raises(BadConfig, match="device 'tpu': expected cpu or cuda"):
        Whisper(str(tmp_path), "tpu")
    write(tmp_path / "model.bin", "no model")
    with pytest.raises(BadConfig, match="cannot be loaded"):
        Whisper(str(tmp_path))


def test_without_the_extra_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_whisper", None)
    with pytest.raises(MissingExtra, match=r"recognising words needs faster_whisper: pip install 'affekt\[asr\]'"):
        Whisper("small")


def test_the_command_refuses_before_it_loads_anything(tmp_path):
    sound(tmp_path / "calls" / "sad" / "1.wav")
    write(tmp_path / "there.csv", "")
    command = ("corpus", "transcribe", "folder", tmp_path / "calls", "--model", "/nowhere/at/all")
    run = affekt(*command, "--output", tmp_path / "there.csv")
    assert (run.returncode, run.stdout) == (2, "")
    assert "exists, and is not written over" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.fixture
def whisper_base():
    pytest.importorskip("faster_whisper", reason="needs the extra asr")
    return data_folder("AFFEKT_MODELS", "whisper-base-ct2")


def test_whisper_writes_down_a_german_and_an_english_sentence(whisper_base, emodb, cremad):
    recogniser = Whisper(str(whisper_base))
    assert recogniser.name == "asr:whisper-base-ct2"
    assert "Eisschrank" in recogniser(load(emodb / "wav" / "03a01Fa.flac"), "de")
    (clip,) = (cremad / "audio").glob("1001_DFA_ANG_XX.*")
    assert "jacket" in recogniser(load(clip), "")


def test_the_command_transcribes_a_folder(whisper_base, emodb, tmp_path):
    (tmp_path / "calls" / "happy").mkdir(parents=True)
    (tmp_path / "calls" / "happy" / "1.flac").symlink_to(emodb / "wav" / "03a01Fa.flac")
    command = ("corpus", "transcribe", "folder", tmp_path / "calls", "--model", whisper_base)
    run = affekt(*command, "--output", tmp_path / "worded.csv", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["recognised"] == 1
    ((text, by),) = words(tmp_path / "worded.csv").values()
    assert "Eisschrank" in text
    assert by == "asr:whisper-base-ct2"
