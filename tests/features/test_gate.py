"""The speech gate: silence, background noise and pauses change neither the frames nor what is computed from them."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from affekt.audio.loudness import GateConfig
from affekt.bundle.export import export_onnx
from affekt.bundle.pipeline import Pipeline
from affekt.config import decode, encode
from affekt.errors import BadConfig
from affekt.features.gate import SpeechGate
from affekt.features.whisper import LogMel, WhisperConfig, WhisperStates
from tests.conftest import shapes_unchecked
from tests.contracts.builders import NUM_EMOTIONS, tiny
from tests.features.test_speech import pad_batch

RATE = 16_000
CONFIG = WhisperConfig(blocks=(1, 2), level="relative", span=60, gate=GateConfig(), dim=16, heads=2, width=32)
EDGE = GateConfig().hangover + 5  # frames of 10 ms that may be kept beyond each end of the speech


def speech(seconds=1.2, seed=0):
    """Return noise with the envelope of syllables, which begins and ends softly."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    envelope = np.abs(np.sin(2 * np.pi * 2.1 * time)) * np.sin(np.pi * time / seconds)
    return (0.5 * envelope * generator.uniform(-1, 1, time.size)).astype(np.float32)


def background(seconds, decibels):
    """Return noise of a power in dBFS, or zeros for None."""
    samples = round(seconds * RATE)
    if decibels is None:
        return np.zeros(samples, np.float32)
    return (10 ** (decibels / 20) * np.random.default_rng(1).normal(size=samples)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return WhisperStates(CONFIG).eval().requires_grad_(False)


def states(encoder, waveform):
    stream = encoder(torch.from_numpy(np.asarray(waveform, np.float32))[None])
    assert stream.mask.all()  # cropped to what is kept
    return stream.values[0]


@pytest.mark.parametrize("decibels", [None, -60, -40])
@pytest.mark.parametrize("before", [0.0, 1.0])
@pytest.mark.parametrize("after", [0.0, 2.0, 9.0])
def test_silence_and_noise_around_the_speech_are_not_kept(decibels, before, after):
    clip = speech()
    alone, padded = (
        SpeechGate(CONFIG.gate).find_speech(LogMel(level="relative")(torch.from_numpy(waveform)[None]))[0]
        for waveform in (clip, np.concatenate([background(before, decibels), clip, background(after, decibels)]))
    )
    first = round(100 * before)
    assert (padded[first : first + len(alone)] == alone).float().mean() > 0.95
    assert padded[:first].sum() <= EDGE
    assert padded[first + len(alone) :].sum() <= EDGE


def test_zeros_after_the_speech_give_the_same_states(encoder):
    clip = np.concatenate([speech(), background(0.5, None)])
    padded = states(encoder, np.concatenate([clip, background(27, None)]))
    torch.testing.assert_close(padded, states(encoder, clip), atol=1e-5, rtol=0)


def test_a_pause_is_shortened_to_its_hangovers(encoder):
    first, second = speech(seed=0), speech(seed=1)
    together = states(encoder, np.concatenate([first, second]))
    for pause in (1.0, 2.0):
        apart = states(encoder, np.concatenate([first, background(pause, -60), second]))
        assert len(together) <= len(apart) <= len(together) + CONFIG.gate.hangover + 2


def test_a_batch_equals_one_by_one_and_spans_do_not_depend_on_the_padding(encoder):
    pause = background(1.5, None)
    sounds = [
        np.concatenate([speech(1.4, 0), pause, speech(1.0, 1)]),
        speech(0.9, 2),
        np.concatenate([pause, speech(1.3, 3)]),
        background(0.1, -20),
    ]
    together = encoder(*pad_batch(sounds))
    assert together.values.shape[1] == together.lengths().max() > CONFIG.span  # several spans
    for row, sound in enumerate(sounds):
        alone = states(encoder, sound)
        assert together.lengths()[row] == len(alone)
        torch.testing.assert_close(together.values[row, : len(alone)], alone, atol=1e-5, rtol=0)
        assert not together.values[row, len(alone) :].any()


def test_the_encoder_continues_from_the_gated_frames_of_the_front_end(encoder):
    batch = pad_batch([speech(1.4), np.concatenate([background(1, None), speech(0.6)])])
    front = encoder.front_end()(*batch)
    assert front.lengths()[1] < 60 + 2 * EDGE
    torch.testing.assert_close(encoder.encode(front).values, encoder(*batch).values)


@pytest.mark.parametrize("seconds", [0.1, 0.11, 3.0])
@pytest.mark.parametrize("level", [0.0, 1e-7, 1.0])
def test_every_recording_keeps_a_frame_and_is_finite(encoder, seconds, level):
    values = states(encoder, level * background(seconds, -20))
    assert len(values) >= 1
    assert values.isfinite().all()


def test_loud_parts_are_kept_and_quiet_ones_are_not():
    mel = LogMel(level="relative")(
        torch.from_numpy(np.concatenate([background(1, None), speech(2), background(1, -70)]))[None]
    )
    kept = SpeechGate(GateConfig(hangover=0)).find_speech(mel)[0]
    assert not kept[:95].any()
    assert not kept[305:].any()
    assert 0.5 < kept[105:295].float().mean() <= 1


def test_settings_are_stored_as_a_table_and_checked():
    assert decode(WhisperConfig, encode(CONFIG), "features.speech") == CONFIG
    assert decode(WhisperConfig, {"gate": {"margin": 6.0}}, "features.speech").gate == GateConfig(margin=6.0)
    assert decode(WhisperConfig, encode(WhisperConfig()), "features.speech").gate is None
    with pytest.raises(BadConfig, match=r"unknown key 'margn'.*margin"):
        decode(WhisperConfig, {"gate": {"margn": 6.0}}, "features.speech")
    with pytest.raises(BadConfig, match=r"certain = 50.0.*expected 0 < certain <= range"):
        decode(WhisperConfig, {"gate": {"certain": 50.0}}, "features.speech")


@pytest.mark.slow
def test_the_exported_graph_computes_the_same(tmp_path):
    torch.manual_seed(0)
    encoder = WhisperStates(replace(CONFIG, blocks=(1,)))  # few layers, since tracing takes seconds for each
    model = tiny("vanilla", input_dim=16, blocks=1, frames="any", masked=True).float()
    pipeline = Pipeline({"speech": encoder}, [model]).eval()
    with shapes_unchecked():
        export_onnx(pipeline, tmp_path / "model.onnx", [f"emotion {n}" for n in range(NUM_EMOTIONS)])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    clip = np.concatenate([speech(1.4, 0), background(1.5, None), speech(1.0, 1)])
    later = np.concatenate([background(1.5, -60), speech(1.4, 0), background(1.0, -60)])
    for batch in ([clip], [clip, later], [background(0.1, -20)], [0 * clip]):
        waveform = np.stack(batch)
        (probabilities,) = session.run(["probabilities"], {"waveform": waveform})
        with torch.inference_mode():
            expected = pipeline(torch.from_numpy(waveform))
        expected = expected["probabilities"] if isinstance(expected, dict) else expected
        np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-5)
