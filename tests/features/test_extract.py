"""From a corpus's files to stored features: which samples are read, how often, in which batches, and the errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from affekt.audio.read import blocks, load
from affekt.corpora import waveforms
from affekt.corpora.waveforms import read_waveform
from affekt.errors import BadConfig, BadCorpus
from affekt.features import extract as extraction
from affekt.features.augment import Alteration, Copy
from affekt.features.extract import compute_features, extract
from affekt.features.spectral import MFCC, MFCCConfig
from affekt.features.store import file_hash
from affekt.utterance import Utterance
from tests.sounds import noise

CONFIG = MFCCConfig(coefficients=13, deltas=1)


class RecordingMFCC(MFCC):
    """MFCC that record the shapes of their inputs."""

    def __init__(self):
        super().__init__(CONFIG)
        self.shapes = []

    def forward(self, waveform, lengths=None):
        self.shapes.append(tuple(waveform.shape))
        return super().forward(waveform, lengths)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path):
    """Twelve utterances of 0.2 to 1.3 s, each in its own file."""
    utterances = []
    for number in range(12):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, noise(3200 + (number * 7 % 12) * 1600, number), 16_000)
        utterances.append(Utterance(str(number), "made", path, "angry"))
    return utterances


@pytest.fixture
def dialogue(tmp_path):
    """One file of 20 s at another rate, and its utterances, some of which overlap."""
    path = tmp_path / "dialogue.flac"
    soundfile.write(path, noise(20 * 22_050), 22_050)
    times = [(0.0, 1.0), (0.5, 2.5), (12.3457, 13.1), (3.0, 3.7), (19.0, None), (2.0, 12.0)]
    return [
        Utterance(f"{start}", "made", path, "angry", start=start, end=end, dialogue="dialogue") for start, end in times
    ]


def test_many_utterances_of_a_file_read_it_twice(dialogue, monkeypatch):
    decoded, hashed = [], []
    monkeypatch.setattr(waveforms, "limited_blocks", lambda path, **_: decoded.append(path) or blocks(path))
    monkeypatch.setattr(extraction, "file_hash", lambda path: hashed.append(path) or file_hash(path))
    stored = extract(MFCC(CONFIG), "mfcc", dialogue)
    assert (len(decoded), len(hashed)) == (1, 1)  # once for the hash, once for the samples
    for values, utterance in zip(stored, dialogue, strict=True):
        np.testing.assert_array_equal(
            values, compute_features(MFCC(CONFIG), [read_waveform(utterance)])[0].astype(np.float16)
        )


def test_stored_equals_computed_and_is_computed_once(corpus, caplog):
    caplog.set_level("INFO", "affekt")
    encoder = RecordingMFCC()
    stored = extract(encoder, "mfcc", corpus)
    for values, utterance in zip(stored, corpus, strict=True):
        expected = MFCC(CONFIG)(torch.from_numpy(load(utterance.audio))[None]).values[0].numpy()
        np.testing.assert_array_equal(values, expected.astype(np.float16))
    assert "0 of 12 utterances" in caplog.messages[0]
    assert [shape[0] for shape in encoder.shapes] == 12 * [1]
    again = extract(encoder, "mfcc", corpus)
    assert len(encoder.shapes) == 12
    assert len(caplog.messages) == 2
    np.testing.assert_array_equal(again[5], stored[5])


def test_features_stored_earlier_do_not_change_a_bit(corpus, tmp_path, monkeypatch):
    whole = extract(MFCC(CONFIG), "mfcc", corpus)
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "other"))
    extract(MFCC(CONFIG), "mfcc", corpus[::3])
    completed = extract(MFCC(CONFIG), "mfcc", corpus)
    for expected, values in zip(whole, completed, strict=True):
        np.testing.assert_array_equal(values, expected)


def test_batches_have_similar_lengths_and_respect_the_limit(corpus):
    encoder, alone = RecordingMFCC(), extract(MFCC(CONFIG), "mfcc", corpus)
    stored = extract(encoder, "mfcc", corpus, batched=True, seconds=3.0)
    assert sum(count for count, _ in encoder.shapes) == 12
    assert all(count * samples <= 48_000 for count, samples in encoder.shapes)
    assert len(encoder.shapes) < 7
    padding = sum(count * samples for count, samples in encoder.shapes) - sum(len(read_waveform(u)) for u in corpus)
    assert padding < 0.2 * sum(len(read_waveform(u)) for u in corpus)
    for values, expected in zip(stored, alone, strict=True):
        np.testing.assert_allclose(values, expected, atol=0.05)
    assert stored.store.folder != alone.store.folder  # the last bits may differ


def test_an_utterance_longer_than_the_limit_is_a_batch_alone(corpus):
    encoder = RecordingMFCC()
    extract(encoder, "mfcc", corpus, batched=True, seconds=0.1)
    assert [count for count, _ in encoder.shapes] == 12 * [1]


def test_all_utterances_are_tried_and_one_error_names_the_first_failures(corpus, dialogue, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(corpus[0].audio.read_bytes()[:1000])
    invalid = [
        Utterance("gone", "made", tmp_path / "gone.wav", "angry"),
        Utterance("cut", "made", broken, "angry"),
        Utterance("mute", "made", None, "angry"),
        replace(dialogue[0], id="short", start=1.0, end=1.05),
        replace(dialogue[0], id="beyond", start=18.0, end=25.0),
    ]
    with pytest.raises(BadCorpus, match="utterances have no mfcc") as caught:
        extract(MFCC(CONFIG), "mfcc", [*invalid, *corpus, *dialogue])
    message = str(caught.value)
    assert message.startswith("5 of 23 utterances have no mfcc: made gone: ")
    assert "; and 2 more; repair the files" in message
    assert "gone.wav cannot be read: No such file or directory" in message
    encoder = RecordingMFCC()
    extract(encoder, "mfcc", [*corpus, *dialogue])
    assert not encoder.shapes  # all valid utterances are already stored


def test_values_that_cannot_be_stored_raise_an_error(corpus):
    class Huge(MFCC):
        def features(self, power, counts):
            return 1e6 * super().features(power, counts)

    with pytest.raises(BadCorpus, match=r"12 of 12 utterances have no mfcc: made 0: its features .* 65504"):
        extract(Huge(CONFIG), "mfcc", corpus)


def test_a_damaged_file_is_computed_again(corpus):
    stored = extract(MFCC(CONFIG), "mfcc", corpus)
    path, whole = stored.store.path(stored.keys[4]), np.array(stored[4])
    path.write_bytes(path.read_bytes()[:-10])
    encoder = RecordingMFCC()
    np.testing.assert_array_equal(extract(encoder, "mfcc", corpus)[4], whole)
    assert len(encoder.shapes) == 1


def test_the_description_contains_everything_that_the_bits_depend_on(corpus):
    stored = extract(MFCC(CONFIG), "mfcc", corpus[:1])
    description = json.loads((stored.store.folder / "description.json").read_text())
    assert description["dim"] == 26
    assert description["settings"]["coefficients"] == 13
    assert description["torch"] == torch.__version__
    assert (description["device"], description["batched"], description["threads"]) == (
        "cpu",
        False,
        torch.get_num_threads(),
    )
    copy = extract(MFCC(CONFIG), "mfcc", corpus[:1], copy=Copy(0, 0, Alteration()))
    assert copy.store.folder != stored.store.folder
    assert json.loads((copy.store.folder / "description.json").read_text())["copy"]["number"] == 0


def test_progress_is_reported_after_every_batch(corpus, caplog):
    caplog.set_level("INFO", "affekt")
    calls = []
    extract(MFCC(CONFIG), "mfcc", corpus, progress=lambda *call: calls.append(call))
    assert calls == [("mfcc", done, 12) for done in range(13)]
    assert len(caplog.messages) == 2  # how many were stored, and how long the others took


def test_progress_reaches_its_total_despite_failed_utterances(corpus, tmp_path):
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    utterances, calls = [*corpus[:2], replace(corpus[2], audio=empty)], []
    with pytest.raises(BadCorpus, match="1 of 3"):
        extract(MFCC(CONFIG), "mfcc", utterances, progress=lambda *call: calls.append(call))
    assert calls == [("mfcc", done, 3) for done in range(4)]


def test_without_a_callback_progress_is_logged(corpus, monkeypatch, caplog):
    monkeypatch.setattr(extraction, "LOG_INTERVAL", 0.0)
    caplog.set_level("INFO", "affekt")
    extract(MFCC(CONFIG), "mfcc", corpus)
    assert len(caplog.messages) == 13
    assert caplog.messages[1].startswith("  1 of 12, about ")
    assert caplog.messages[-1].startswith("  12 done in ")


def test_an_unknown_or_missing_device_is_refused(corpus, monkeypatch):
    with pytest.raises(BadConfig, match=r"device = 'gpu': expected cpu or cuda"):
        extract(MFCC(CONFIG), "mfcc", corpus, device="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadConfig, match=r"device = 'cuda': torch finds no such device"):
        extract(MFCC(CONFIG), "mfcc", corpus, device="cuda")


def test_an_accelerator_computes_in_batches_with_the_same_result(corpus):
    if not torch.cuda.is_available():
        pytest.skip("needs an accelerator")
    encoder = RecordingMFCC()
    alone = extract(MFCC(CONFIG), "mfcc", corpus)
    stored = extract(encoder, "mfcc", corpus, device="cuda")
    assert len(encoder.shapes) == 1
    assert encoder.mel.device.type == "cpu"  # moved back
    for values, expected in zip(stored, alone, strict=True):
        np.testing.assert_allclose(values, expected, atol=0.05)


def test_real_speech_is_the_same_in_batches(whisper, emodb):
    from affekt.corpora import corpora
    from affekt.features.whisper import WhisperConfig, WhisperStates

    encoder = WhisperStates.from_folder(whisper, WhisperConfig(blocks=(1,)))
    utterances = corpora["emodb"].read(emodb)[:12]
    alone = extract(encoder, "whisper", utterances)
    together = extract(encoder, "whisper", utterances, batched=True)
    for expected, values in zip(alone, together, strict=True):
        np.testing.assert_allclose(values, expected, atol=0.02)
