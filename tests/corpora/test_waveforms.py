"""From an utterance to its samples: segments, passes over a file, and the tolerance, which is the same everywhere."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from affekt.audio.read import blocks, load
from affekt.corpora import waveforms
from affekt.corpora.inspection import check
from affekt.corpora.source import Source
from affekt.corpora.transcription import transcribe
from affekt.corpora.waveforms import TOLERANCE, read_segments, read_waveform
from affekt.errors import BadCorpus
from affekt.features.extract import extract
from affekt.features.spectral import MFCC, MFCCConfig
from affekt.utterance import Utterance
from tests.corpora.trees import write
from tests.sounds import noise


@pytest.fixture
def dialogue(tmp_path):
    """One file of 20 s at 22.05 kHz, and three utterances in it."""
    path = tmp_path / "dialogue.flac"
    soundfile.write(path, noise(20 * 22_050), 22_050)
    return [Utterance(f"{start}", "made", path, "angry", start=start, end=end) for start, end in SEGMENTS]


SEGMENTS = [(0.0, 1.0), (12.3457, 13.1), (19.0, None)]


def test_segments_are_cut_to_the_sample_in_one_pass(dialogue, monkeypatch):
    calls = []
    monkeypatch.setattr(waveforms, "limited_blocks", lambda path, **_: calls.append(path) or blocks(path))
    whole = load(dialogue[0].audio)
    spans = {"a": (0, 1), "b": (70_000, 200_001), "c": (65_535, 65_537), "d": (5, None), "e": (300_000, 320_000)}
    segments = dict(read_segments(dialogue[0].audio, spans))
    assert set(segments) == set(spans)
    assert len(calls) == 1
    for key, (first, last) in spans.items():
        np.testing.assert_array_equal(segments[key], whole[first:last])


def test_reading_stops_after_the_last_segment(dialogue, monkeypatch):
    sizes = []

    def count_blocks(path, **_):
        for block in blocks(path):
            sizes.append(len(block))
            yield block

    monkeypatch.setattr(waveforms, "limited_blocks", count_blocks)
    assert len(read_waveform(dialogue[0])) == 16_000
    assert sum(sizes) < 160_000  # of 320,000


def test_a_waveform_is_the_utterances_segment(dialogue):
    whole = load(dialogue[0].audio)
    np.testing.assert_array_equal(read_waveform(dialogue[0]), whole[:16_000])
    np.testing.assert_array_equal(read_waveform(dialogue[1]), whole[round(12.3457 * 16_000) : round(13.1 * 16_000)])
    np.testing.assert_array_equal(read_waveform(dialogue[2]), whole[19 * 16_000 :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end": 1.05, "start": 1.0}, r"0\.050 s"),
        ({"start": 30.0}, r"ends before .* 30\.0 s"),
        ({"start": 25.0, "end": 30.0}, r"ends before .* 25\.0 s"),
        ({"start": 18.0, "end": 25.0}, r"ends at 20\.00 s, .* 25\.0 s"),
        ({"audio": None}, "no audio"),
    ],
)
def test_an_utterance_without_a_usable_waveform_is_refused(dialogue, change, message):
    with pytest.raises(BadCorpus, match=f"made 0.0: .*{message}"):
        read_waveform(replace(dialogue[0], **change))


def table(folder, excess):
    """A file of 2 s whose second utterance ends `excess` seconds after it."""
    soundfile.write(folder / "a.wav", noise(32_000), 16_000)
    write(folder / "t.csv", f"id,audio,emotion,start,end\nfirst,a.wav,sad,0,1\nlast,a.wav,sad,1,{2 + excess}\n")
    return Source("table", str(folder / "t.csv"))


class Recognizer:
    name = "asr:length"

    def __call__(self, waveform, language):  # noqa: ARG002
        return f"{len(waveform)}"


@pytest.mark.parametrize("excess", [0.005, 0.05, TOLERANCE])
def test_check_transcription_and_extraction_accept_what_ends_within_the_tolerance(excess, tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    source = table(tmp_path, excess)
    utterances = source.read()
    result = check(source)
    assert (result.unreadable, result.problems) == ({}, ())
    assert result.cut == {"last": pytest.approx(excess)}
    assert "last" in result.notes[0]
    transcribe(utterances, Recognizer(), tmp_path / "out.jsonl")
    assert [u.text for u in Source("table", str(tmp_path / "out.jsonl")).read()] == ["16000", "16000"]
    first, last = extract(MFCC(MFCCConfig(coefficients=13, deltas=1)), "mfcc", utterances)
    assert len(first) == len(last)


def test_check_transcription_and_extraction_refuse_what_ends_later(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    source = table(tmp_path, 0.2)
    utterances = source.read()
    result = check(source)
    assert list(result.unreadable) == ["last"]
    assert (result.cut, result.notes) == ({}, ())
    reason = result.unreadable["last"]
    with pytest.raises(BadCorpus, match="1 of 2 utterances") as transcription:
        transcribe(utterances, Recognizer(), tmp_path / "out.jsonl")
    with pytest.raises(BadCorpus, match="1 of 2 utterances") as extraction:
        extract(MFCC(MFCCConfig(coefficients=13, deltas=1)), "mfcc", utterances)
    assert f"last: {reason}" in str(transcription.value)
    assert f"last: {reason}" in str(extraction.value)
