"""Voice activity detection: the probabilities are Silero's, and the regions follow its rule."""

import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from affekt.errors import BadConfig
from affekt.inference.recognizer import Recognizer
from affekt.inference.voice_activity import (
    CONTEXT,
    FRAME,
    MODEL,
    VadConfig,
    VoiceActivity,
    find_speech_regions,
    has_speech,
)
from tests.conftest import ROOT
from tests.sounds import noise, tone
from tests.timeline.speech import conversation, sample


@pytest.fixture(scope="module")
def silero():
    folder = os.environ.get("AFFEKT_MODELS")
    if not folder or not (path := Path(folder, "vad", "silero_vad_16k_op15.onnx")).exists():
        pytest.skip("AFFEKT_MODELS has no vad/silero_vad_16k_op15.onnx")
    return path


def probabilities(waveform, size):
    activity = VoiceActivity()
    parts = [activity.add(waveform[start : start + size]) for start in range(0, waveform.size, size)]
    return np.concatenate([*parts, activity.finish()])


def test_probabilities_are_those_of_the_original(silero):
    waveform, expected = sample(0), []
    session = onnxruntime.InferenceSession(silero)
    state, padded = np.zeros((2, 1, 128), np.float32), np.concatenate([np.zeros(CONTEXT, np.float32), waveform])
    for start in range(0, waveform.size - FRAME + 1, FRAME):
        frame = padded[np.newaxis, start : start + CONTEXT + FRAME]
        output, state = session.run(None, {"input": frame, "state": state, "sr": np.array(16_000, np.int64)})
        expected.append(output[0, 0])
    assert np.ptp(expected) > 0.9
    np.testing.assert_allclose(probabilities(waveform, waveform.size)[: len(expected)], expected, atol=1e-4)


def test_probabilities_do_not_depend_on_the_size_of_blocks():
    waveform = conversation()[: 5 * 16_000 + 100]
    whole = probabilities(waveform, waveform.size)
    assert whole.size == -(-waveform.size // FRAME)
    for size in (1, 512, 777, 16_000)[1:]:
        np.testing.assert_array_equal(probabilities(waveform, size), whole)


def test_regions_follow_the_rule():
    def regions(text):
        """Find regions in frames with a probability of a tenth of each digit."""
        return [(r.start, r.end) for r in find_speech_regions(int(digit) / 10 for digit in text)]

    assert regions("0005555555555000000") == [(3, 13)]
    assert regions("9999999990000999999999") == [(0, 22)]  # 4 frames, 0.13 s, are not silence yet
    assert regions("99999999900000999999999") == [(0, 9), (14, 23)]
    assert regions("999999999444444444444000000") == [(0, 21)]  # 0.4 does not end a region
    assert regions("444444444444") == []  # nor does it begin one
    assert regions("0000999990000000") == []  # 0.16 s are too short
    assert regions("99999999") == [(0, 8)]


def test_only_speech_is_speech():
    assert has_speech(sample(0))
    assert not has_speech(noise(32_000))
    assert not has_speech(tone(2))


def test_impossible_settings_are_refused():
    with pytest.raises(BadConfig, match="expected 0 < end <= begin"):
        VadConfig(begin=0.3)


def test_the_license_is_beside_the_network():
    assert "Silero Team" in MODEL.with_name("LICENSE.silero").read_text()


def test_the_setting_decides_what_is_refused(tiny_bundle):
    """The graph of this bundle has no speech detector."""
    voice, hiss = sample(0), noise(32_000)
    statuses = {
        vad: [Recognizer.load(tiny_bundle, vad=vad)((waveform, 16_000)).status for waveform in (voice, hiss, 0 * voice)]
        for vad in ("off", "auto", "on")
    }
    assert statuses == {
        "off": ["ok", "ok", "silence"],
        "auto": ["ok", "ok", "silence"],
        "on": ["ok", "no_speech", "silence"],
    }


def test_the_setting_judges_the_windows_of_long_recordings(tiny_bundle):
    hiss = np.concatenate([sample(0), noise(16_000 * 10), sample(1)])
    rows = {vad: Recognizer.load(tiny_bundle, vad=vad)((hiss, 16_000)) for vad in ("off", "auto", "on")}
    refused = {vad: sum(w.duration for w in row.windows if w.status == "no_speech") for vad, row in rows.items()}
    assert refused["off"] == 0
    assert refused["off"] <= refused["auto"] <= refused["on"]
    assert refused["on"] > 6
    assert all(row.status == "ok" for row in rows.values())


def test_the_detector_of_the_shipped_model_follows_the_setting():
    hiss = (noise(48_000), 16_000)
    assert Recognizer.load()(hiss).status == "no_speech"
    careless = Recognizer.load(vad="off")
    assert [careless(hiss).status, careless.adapt(None)(hiss).status] == ["ok", "ok"]


def test_an_unknown_setting_is_refused(tiny_bundle):
    with pytest.raises(BadConfig, match="vad 'yes': expected off, auto, on"):
        Recognizer.load(tiny_bundle, vad="yes")


def test_the_network_is_made_from_the_original(silero):
    import onnx

    sys.path.append(str(ROOT / "benchmarks"))
    import silero_sequence

    assert silero_sequence.rewrite(onnx.load(silero)) == onnx.load(MODEL)
