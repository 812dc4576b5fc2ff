"""The windows of a long recording: consecutive, cut at pauses, with a few seconds of speech each, in bounded memory."""

import itertools

import numpy as np
import pytest
import torch

from affekt.audio.loudness import HOP, WINDOW, GateConfig, find_speech, frame_power
from affekt.audio.read import SAMPLE_RATE
from affekt.features.gate import SpeechGate
from affekt.features.whisper import LogMel
from affekt.inference.segments import CONTEXT, LONGEST, cut_segments, find_cut
from tests.features.test_gate import background, speech
from tests.sounds import babble, noise


def talk(*parts):
    """Return speech of some durations with pauses between: seconds of speech, of a pause, of speech, ..."""
    sounds = [
        speech(seconds, seed=number) if number % 2 == 0 else background(seconds, -65)
        for number, seconds in enumerate(parts)
    ]
    return np.concatenate(sounds)


def cut(waveform, block=SAMPLE_RATE):
    """Return the segments of a waveform that is read in blocks."""
    result = list(cut_segments(waveform[start : start + block] for start in range(0, waveform.size, block)))
    np.testing.assert_array_equal(np.concatenate([segment.waveform for segment in result]), waveform)
    return result


def durations(waveform):
    return [segment.waveform.size / SAMPLE_RATE for segment in cut(waveform)]


@pytest.mark.parametrize("samples", [0, 1, 1600, LONGEST - 1, LONGEST])
def test_audio_of_up_to_eight_seconds_is_one_window(samples):
    (segment,) = cut_segments([noise(samples)]) if samples else cut_segments([])
    assert segment.speech == segment.waveform.size / SAMPLE_RATE == samples / SAMPLE_RATE


def test_windows_are_cut_at_pauses():
    sentences = [2.6, 0.5, 3.1, 0.6, 2.4, 0.4, 4.5, 0.8] * 4
    lengths = durations(talk(*sentences))
    boundaries = np.cumsum(sentences)
    for end in np.cumsum(lengths)[:-1]:
        pause = int(np.searchsorted(boundaries, end))
        assert pause % 2 == 1, f"{end} s is not in a pause"


def test_windows_have_two_to_six_seconds_of_speech():
    generator = np.random.default_rng(0)
    parts = [value for _ in range(30) for value in (generator.uniform(0.8, 5), generator.uniform(0.3, 1.5))]
    result = cut(talk(*parts))
    for segment in result[:-1]:
        assert 1.9 <= segment.speech <= 6.1
    assert result[-1].speech <= 6.1
    assert sum(segment.speech for segment in result) == pytest.approx(sum(parts[::2]), rel=0.2)


def test_speech_without_pauses_is_cut_after_six_seconds():
    assert durations(babble(41 * SAMPLE_RATE)) == [6, 6, 6, 6, 6, 6, 5]
    lengths = durations(babble(37 * SAMPLE_RATE))
    assert lengths[:4] == [6, 6, 6, 6]
    assert all(2 <= length <= 6 for length in lengths)


def test_long_pauses_are_windows_without_speech():
    result = cut(talk(3, 8, 4, 25, 5))
    kinds = [segment.speech > 0 for segment in result]
    assert kinds == [True, False, True, False, False, True] or kinds == [True, False, True, False, True]
    assert result[1].waveform.size / SAMPLE_RATE == pytest.approx(8, abs=0.6)
    assert sum(segment.waveform.size for segment in result if not segment.speech) / SAMPLE_RATE > 31


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [8.001, 8.1, 30.1, 47.5])
def test_no_window_is_too_short_to_be_recognized(seconds):
    for waveform in (
        babble(round(seconds * SAMPLE_RATE)),
        talk(6, 3, 5, 1, 4, 2.2, seconds - 21.2),
        talk(4, seconds - 4),
    ):
        assert min(durations(waveform)) >= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("block", [1_000, 65_536, 480_001, 10**7])
def test_the_windows_do_not_depend_on_the_blocks(block):
    waveform = talk(*[2.3, 0.5, 4.4, 1.2, 0.7, 3.0] * 7)
    expected, result = cut(waveform), cut(waveform, block)
    assert [segment.waveform.size for segment in result] == [segment.waveform.size for segment in expected]
    assert [segment.speech for segment in result] == [segment.speech for segment in expected]


@pytest.mark.slow
@pytest.mark.parametrize("sound", ["babble", "silence"])
def test_a_stream_without_end_needs_bounded_memory(sound):
    num_read, num_cut = 0, 0

    def endless_blocks():
        nonlocal num_read
        while True:
            num_read += SAMPLE_RATE
            yield babble(SAMPLE_RATE, num_read) if sound == "babble" else np.zeros(SAMPLE_RATE, np.float32)

    for segment in itertools.islice(cut_segments(endless_blocks()), 40):
        assert num_read - num_cut <= CONTEXT * HOP + SAMPLE_RATE
        num_cut += segment.waveform.size


@pytest.mark.parametrize("decibels", [None, -60, -40])
def test_speech_is_found_after_and_before_a_long_steady_noise(decibels):
    steady = background(27, decibels)
    result = cut(np.concatenate([steady, talk(2.5, 0.5, 2.0), steady]))
    spoken = [segment for segment in result if segment.speech]
    assert 3 < sum(segment.speech for segment in spoken) < 6
    assert sum(segment.waveform.size for segment in spoken) < 9 * SAMPLE_RATE


def test_a_cut_without_speech_takes_all_and_a_long_pause_ends_a_window():
    frames = np.zeros(900, bool)
    assert find_cut(frames, finished=True) == 900
    frames[250:400] = True
    assert find_cut(frames, finished=False) == 250
    assert find_cut(frames[250:], finished=False) == 150
    assert find_cut(frames[250:400], finished=True) == 150
    frames[:3] = True  # a rest of earlier speech
    assert find_cut(frames, finished=False) == 250


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_of_the_gate_is_the_same_with_and_without_torch(seed):
    clip = talk(1.5, 1.0, 2.0, 0.6, 1.2)
    clip = clip + background(clip.size / SAMPLE_RATE, (None, -60, -45, -35)[seed])[: clip.size]
    config = GateConfig()
    expected = SpeechGate(config).find_speech(LogMel(level="relative")(torch.from_numpy(clip)[None]))[0].numpy()
    padded = np.pad(clip, (WINDOW // 2, WINDOW // 2))
    kept = find_speech(frame_power(padded)[: clip.size // HOP], config)
    assert kept.shape == expected.shape
    assert (kept == expected).mean() > 0.99
