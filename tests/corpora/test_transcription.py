"""Transcription of a corpus: new and existing text, resumption, and errors."""

import itertools
import json

import numpy as np
import pytest

from affekt.asr import PHRASE_PAUSE, Whisper, load_recognizer
from affekt.audio.read import load
from affekt.corpora.source import Source
from affekt.corpora.transcription import transcribe
from affekt.corpora.word_errors import count_word_errors, edit_distance, split_words
from affekt.errors import BadConfig, BadCorpus, BadOutput, MissingExtra
from affekt.lock import FileLock
from tests.cli.test_cli import affekt
from tests.conftest import SAMPLES, data_folder
from tests.corpora.trees import touch, write, write_noise


class FakeRecognizer:
    """Returns the waveform's length and the language; may raise KeyboardInterrupt at one of the utterances."""

    name = "asr:fake"

    def __init__(self, interrupt_at=None):
        self.lengths, self.killed_at = [], interrupt_at

    def __call__(self, waveform, language):
        if len(self.lengths) == self.killed_at:
            raise KeyboardInterrupt
        self.lengths.append(len(waveform))
        return f"  {len(waveform)} samples\n in {language or 'any language'} "


@pytest.fixture
def calls(tmp_path):
    """Four utterances: two segments of one file, a whole file, and one with text."""
    write_noise(tmp_path / "one.wav", 1, seconds=1.0)
    write_noise(tmp_path / "two.wav", 2, seconds=0.5)
    rows = [
        {"id": "a", "audio": "one.wav", "emotion": "sad", "start": 0.0, "end": 0.25, "speaker": "anna"},
        {"id": "b", "audio": "one.wav", "emotion": "sad", "start": 0.25, "end": 0.75, "language": "de"},
        {"id": "c", "audio": "two.wav", "emotion": "happy", "votes": {"happy": 3, "sad": 1}},
        {"id": "d", "audio": "two.wav", "emotion": "happy", "start": 0.1, "text": "Well, yes"},
    ]
    write(tmp_path / "calls.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return Source("table", str(tmp_path / "calls.jsonl")).read()


def texts(path):
    return {utterance.id: (utterance.text, utterance.text_by) for utterance in Source("table", str(path)).read()}


RECOGNIZED_TEXTS = {
    "a": ("4000 samples in any language", "asr:fake"),
    "b": ("8000 samples in de", "asr:fake"),
    "c": ("8000 samples in any language", "asr:fake"),
    "d": ("Well, yes", ""),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_recognized_text_is_marked_and_existing_text_is_kept(suffix, calls, tmp_path):
    output = tmp_path / "new" / f"transcribed{suffix}"
    result = transcribe(calls, FakeRecognizer(), output)
    assert texts(output) == RECOGNIZED_TEXTS
    assert (result.utterances, result.kept, result.recognized, result.resumed, result.wordless) == (4, 1, 3, 0, 0)
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_all_other_fields_are_kept(calls, tmp_path):
    output = tmp_path / "transcribed.jsonl"
    transcribe(calls, FakeRecognizer(), output)
    ignored = {"corpus": "", "text": "", "text_by": ""}
    for before, after in zip(calls, Source("table", str(output)).read(), strict=True):
        assert {**vars(before), **ignored} == {**vars(after), **ignored}


def test_existing_text_is_replaced_only_on_request(calls, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    transcribe(calls, FakeRecognizer(), first)
    recognizer = FakeRecognizer()
    recognizer.name = "asr:other"
    result = transcribe(Source("table", str(first)).read(), recognizer, tmp_path / "kept.jsonl")
    assert (result.recognized, recognizer.lengths) == (0, [])
    assert texts(tmp_path / "kept.jsonl") == RECOGNIZED_TEXTS
    transcribe(calls, recognizer, second, again=True)
    assert {by for _, by in texts(second).values()} == {"asr:other"}
    assert texts(second)["d"][0] == "6400 samples in any language"


def test_an_interrupted_run_resumes_without_repeating(calls, tmp_path):
    output, journal = tmp_path / "transcribed.jsonl", tmp_path / "transcribed.jsonl.partial.jsonl"
    with pytest.raises(KeyboardInterrupt):
        transcribe(calls, FakeRecognizer(interrupt_at=2), output)
    assert not output.exists()
    with journal.open("a") as lines:
        lines.write('{"by": "asr:fake", "id": "c", "te')  # interrupted within a line
    recognizer, progress_calls = FakeRecognizer(), []
    result = transcribe(calls, recognizer, output, progress=lambda *call: progress_calls.append(call))
    assert (recognizer.lengths, progress_calls) == ([8000], [("transcribing", 3, 3)])
    assert (result.recognized, result.resumed) == (3, 2)
    assert texts(output) == RECOGNIZED_TEXTS
    assert not journal.exists()


def test_a_journal_of_another_run_is_refused(calls, tmp_path):
    output, journal = tmp_path / "transcribed.jsonl", tmp_path / "transcribed.jsonl.partial.jsonl"
    for line, message in (
        ('{"by": "asr:other", "id": "a", "text": "x"}', "belongs to another run .it has 'a' by asr:other"),
        ('{"by": "asr:fake", "id": "z", "text": "x"}', "belongs to another run .it has 'z' by asr:fake"),
        ('{"my": "diary"}', "not a journal"),
        ("Dear diary", "not a journal"),
    ):
        write(journal, line + "\n")
        with pytest.raises(BadOutput, match=message):
            transcribe(calls, FakeRecognizer(), output)
        assert journal.read_text() == line + "\n"


def test_an_output_that_cannot_be_written_is_refused_at_once(calls, tmp_path):
    recognizer = FakeRecognizer()
    with pytest.raises(BadOutput, match=r"calls\.jsonl exists"):
        transcribe(calls, recognizer, tmp_path / "calls.jsonl")
    with pytest.raises(BadOutput, match=r"transcribed\.txt: expected a name ending in \.jsonl or \.csv"):
        transcribe(calls, recognizer, tmp_path / "transcribed.txt")
    write(tmp_path / "mute.csv", "id,text,emotion\nx,Well,sad\n")
    with pytest.raises(BadOutput, match=r"1 utterance without audio \(first: x\)"):
        transcribe(Source("table", str(tmp_path / "mute.csv")).read(), recognizer, tmp_path / "transcribed.csv")
    assert recognizer.lengths == []


def test_unreadable_utterances_are_reported_once_the_others_are_done(tmp_path):
    write_noise(tmp_path / "good.wav")
    touch(tmp_path, "empty.wav")
    rows = ["id,audio,emotion,start,end", "a,empty.wav,sad,,", "b,gone.wav,sad,,", "c,good.wav,sad,,",
            "d,good.wav,sad,0.1,9", "e,good.wav,sad,0.1,0.15"]  # fmt: skip
    write(tmp_path / "t.csv", "\n".join(rows) + "\n")
    output, recognizer = tmp_path / "transcribed.csv", FakeRecognizer()
    utterances = Source("table", str(tmp_path / "t.csv")).read()
    with pytest.raises(BadCorpus, match=r"4 of 5 utterances cannot be read: a: .*; b: .*; e: .* and d\."):
        transcribe(utterances, recognizer, output)
    assert recognizer.lengths == [8000]
    assert not output.exists()
    result = transcribe([utterance for utterance in utterances if utterance.id == "c"], recognizer, output)
    assert (result.resumed, recognizer.lengths) == (1, [8000])


def test_an_utterance_without_words_is_marked_too(calls, tmp_path):
    recognizer = FakeRecognizer()
    result = transcribe(
        calls, type("Wordless", (), {"name": recognizer.name, "__call__": lambda *_: " "})(), tmp_path / "w.jsonl"
    )
    assert result.wordless == 3
    assert texts(tmp_path / "w.jsonl")["a"] == ("", "asr:fake")


def slow_edit_distance(first, second):
    if not first or not second:
        return len(first) + len(second)
    return min(
        slow_edit_distance(first[1:], second) + 1,
        slow_edit_distance(first, second[1:]) + 1,
        slow_edit_distance(first[1:], second[1:]) + (first[0] != second[0]),
    )


def test_the_edit_distance_equals_a_slow_one():
    generator = np.random.default_rng(0)
    for _ in range(30):
        first, second = (["abc"[k] for k in generator.integers(0, 3, generator.integers(0, 6))] for _ in range(2))
        assert edit_distance(first, second) == slow_edit_distance(first, second)


def test_word_errors_ignore_case_punctuation_and_the_spelling_of_numbers():
    assert split_words("It\u2019s 11 O'Clock - at the 13th!") == ["it's", "eleven", "o'clock", "at", "the", "13th"]
    errors = count_word_errors(
        [("It's eleven o'clock.", "it's 11 o'clock"), ("Don't forget a jacket.", "don't forget")]
    )
    assert (errors.errors, errors.words) == (2, 7)
    assert count_word_errors([("", "a")]) is None


def test_word_errors_are_counted_where_the_corpus_has_text(calls, tmp_path):
    assert transcribe(calls, FakeRecognizer(), tmp_path / "missing.jsonl").word_errors is None
    errors = transcribe(calls, FakeRecognizer(), tmp_path / "again.jsonl", again=True).word_errors
    (own,) = (utterance.text for utterance in calls if utterance.text)
    assert errors.words == len(split_words(own))


def test_a_missing_model_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("AFFEKT_MODELS", raising=False)
    faster_whisper = pytest.importorskip("faster_whisper", reason="needs the extra asr")
    assert faster_whisper.WhisperModel
    with pytest.raises(BadConfig, match="has no Whisper model in CTranslate2's format: expected model"):
        Whisper(str(tmp_path))
    with pytest.raises(BadConfig, match="is not a folder; expected one with a Whisper model"):
        Whisper(str(tmp_path / "nowhere"))
    with pytest.raises(BadConfig, match="device 'tpu': expected cpu or cuda"):
        Whisper(str(tmp_path), "tpu")
    write(tmp_path / "model.bin", "no model")
    with pytest.raises(BadConfig, match="cannot be loaded"):
        Whisper(str(tmp_path))


def test_a_missing_extra_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_whisper", None)
    with pytest.raises(
        MissingExtra, match=r"the Whisper model 'small' needs faster_whisper: pip install 'affekt\[asr\]'"
    ):
        load_recognizer("small")


def test_pocketsphinx_names_its_extra_its_language_and_its_device(monkeypatch):
    with pytest.raises(BadConfig, match="runs on the CPU only, not on 'cuda'"):
        load_recognizer("pocketsphinx", "cuda")
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)
    with pytest.raises(MissingExtra, match=r"needs pocketsphinx: pip install 'affekt\[pocketsphinx\]'"):
        load_recognizer("pocketsphinx")


@pytest.fixture(scope="module")
def pocketsphinx():
    pytest.importorskip("pocketsphinx", reason="needs the extra pocketsphinx")
    return load_recognizer("pocketsphinx")


@pytest.mark.slow
def test_pocketsphinx_finds_phrases_of_timed_words(pocketsphinx):
    waveform = load(SAMPLES[4])[:40_000]
    phrases = pocketsphinx.find_intervals(waveform, "en-US")
    words = [word for phrase in phrases for word in phrase.words]
    assert len(phrases) > 1
    assert not any(set("<[(+") & set(word.text) for word in words)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= waveform.size / 16_000
    for phrase in phrases:
        assert (phrase.start, phrase.end) == (phrase.words[0].start, phrase.words[-1].end)
        assert phrase.text == " ".join(word.text for word in phrase.words)
    gaps = [later.start - earlier.end for earlier, later in itertools.pairwise(phrases)]
    assert min(gaps) >= PHRASE_PAUSE
    pocketsphinx(load(SAMPLES[1])[-16_000:], "")  # what is recognized before changes nothing
    assert pocketsphinx(waveform, "") == " ".join(word.text for word in words)


def test_pocketsphinx_finds_no_words_in_nothing_and_refuses_other_languages(pocketsphinx):
    for samples in (0, 1, 400):
        assert pocketsphinx.find_intervals(np.zeros(samples, np.float32), "") == []
    with pytest.raises(BadConfig, match="recognizes only English, not the language 'de'"):
        pocketsphinx(load(SAMPLES[0]), "de")


def test_pocketsphinx_recognizes_a_sentence(pocketsphinx, cremad):
    (clip,) = (cremad / "audio").glob("1005_IEO_HAP_MD.*")
    assert pocketsphinx(load(clip), "en") == "it's eleven o'clock"


@pytest.mark.slow
def test_the_command_checks_its_output_before_it_loads_a_model(tmp_path):
    write_noise(tmp_path / "calls" / "sad" / "1.wav")
    write(tmp_path / "there.csv", "")
    command = ("corpus", "transcribe", "folder", tmp_path / "calls", "--model", "/nowhere/at/all")
    run = affekt(*command, "--output", tmp_path / "there.csv")
    assert (run.returncode, run.stdout) == (2, "")
    assert "there.csv exists" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.fixture
def whisper_base():
    pytest.importorskip("faster_whisper", reason="needs the extra asr")
    return data_folder("AFFEKT_MODELS", "whisper-base-ct2")


def test_whisper_transcribes_a_german_and_an_english_sentence(whisper_base, emodb, cremad):
    recognizer = Whisper(str(whisper_base))
    assert recognizer.name == "asr:whisper-base-ct2"
    assert "Eisschrank" in recognizer(load(emodb / "wav" / "03a01Fa.flac"), "de")
    (clip,) = (cremad / "audio").glob("1001_DFA_ANG_XX.*")
    assert "jacket" in recognizer(load(clip), "")


def test_the_command_transcribes_a_folder(whisper_base, emodb, tmp_path):
    (tmp_path / "calls" / "happy").mkdir(parents=True)
    (tmp_path / "calls" / "happy" / "1.flac").symlink_to(emodb / "wav" / "03a01Fa.flac")
    command = ("corpus", "transcribe", "folder", tmp_path / "calls", "--model", whisper_base)
    run = affekt(*command, "--output", tmp_path / "transcribed.csv", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["recognized"] == 1
    ((text, by),) = texts(tmp_path / "transcribed.csv").values()
    assert "Eisschrank" in text
    assert by == "asr:whisper-base-ct2"


def test_a_second_run_with_the_same_output_is_refused(tmp_path):
    output = tmp_path / "table.jsonl"
    lock = FileLock(output)
    with pytest.raises(BadOutput, match=r"table\.jsonl is being written by another run"):
        transcribe([], None, output)
    lock.release()
