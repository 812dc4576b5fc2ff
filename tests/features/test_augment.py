"""Altered copies: what they change, what they keep, and that they can be made again."""

from dataclasses import replace

import numpy as np
import pytest

from affekt.errors import BadConfig
from affekt.features.augment import (
    CODECS,
    Alteration,
    Augmentation,
    Copy,
    Masking,
    altered,
    coded,
    echoed,
    narrowed,
    noise,
)
from affekt.models.base import FeatureSpec
from affekt.training.dataset import Dataset

NOTHING = Alteration(speed=0.0, colour_share=0.0, noise_share=0.0)


def tone(pitch=1000, seconds=1.0):
    return np.sin(2 * np.pi * pitch * np.arange(int(seconds * 16_000)) / 16_000).astype(np.float32)


def generator(seed=0):
    return np.random.default_rng(seed)


def test_without_alterations_nothing_changes():
    np.testing.assert_array_equal(altered(tone(), NOTHING, generator()), tone())


def test_speed_changes_length_and_pitch_together():
    for seed in range(5):
        result = altered(tone(), replace(NOTHING, speed=0.16), generator(seed))
        speed = 16_000 / result.size
        assert np.exp(-0.17) < speed < np.exp(0.17)
        pitch = np.abs(np.fft.rfft(result * np.hanning(result.size))).argmax() * 16_000 / result.size
        assert pitch == pytest.approx(1000 * speed, rel=0.01)


def test_noise_is_as_far_below_the_signal_as_asked():
    result = altered(tone(), replace(NOTHING, noise_share=1.0, noise=(20.0, 20.0)), generator())
    assert decibels(tone(), result - tone()) == pytest.approx(20, abs=0.1)


def test_colour_changes_the_balance_and_not_the_timing():
    click = np.zeros(1000, np.float32)
    click[500] = 1.0
    result = altered(click, replace(NOTHING, colour_share=1.0), generator())
    assert abs(int(np.abs(result).argmax()) - 500) <= 1
    gains = 20 * np.log10(np.abs(np.fft.rfft(result))[5:-5])
    assert 1 < np.ptp(gains) < 60


def speechlike(seconds=2.0, seed=0):
    """Noise of many frequencies that comes and goes like syllables."""
    drawn = np.convolve(np.random.default_rng(seed).normal(size=int(16_000 * seconds)), np.ones(4) / 4, mode="same")
    return 0.2 * drawn * (1.2 + np.sin(2 * np.pi * 4 * np.arange(drawn.size) / 16_000))


def decibels(signal, other):
    return 10 * np.log10(np.mean(signal**2) / np.mean(other**2))


@pytest.mark.parametrize("ratio", [0.0, 12.0, 40.0])
def test_both_kinds_of_noise_have_the_ratio_that_was_asked(ratio):
    falls = set()
    for seed in range(8):
        drawn = noise(speechlike(), ratio, generator(seed))
        assert decibels(speechlike(), drawn) == pytest.approx(ratio, abs=0.05)
        power = np.abs(np.fft.rfft(drawn)) ** 2
        falls.add(bool(power[:1000].sum() > 0.5 * power.sum()))
    assert falls == {True, False}


def test_silence_gets_no_noise():
    assert not noise(np.zeros(1000), 20.0, generator()).any()


@pytest.mark.parametrize("frequency", [1000.0, 3400.0, 7000.0])
def test_above_a_band_there_is_nothing_and_below_it_all(frequency):
    signal = speechlike()
    result = narrowed(signal, frequency)
    before, after = np.fft.rfft(signal), np.fft.rfft(result)
    hertz = np.arange(before.size) * 16_000 / signal.size
    assert result.size == signal.size
    np.testing.assert_allclose(after[hertz <= frequency], before[hertz <= frequency], atol=1e-6)
    np.testing.assert_allclose(after[hertz > 1.1 * frequency], 0, atol=1e-6)


def test_a_room_adds_a_tail_that_falls_as_fast_as_asked_and_delays_nothing():
    click = np.zeros(16_000)
    click[1000] = 1.0
    for time in (0.2, 0.6):
        result = echoed(click, time, generator())
        assert result.size == click.size
        assert not np.abs(result[:1000]).max() > 1e-9
        assert result[1000] == pytest.approx(1.0)
        tail = result[1000 + 32 :]
        assert 1 / 4.01 < np.sum(tail**2) < 1 / 0.49
        half = round(time / 2 * 16_000)
        levels = [np.mean(tail[start : start + 800] ** 2) for start in (0, half - 400)]
        assert 10 * np.log10(levels[0] / levels[1]) == pytest.approx(30 * (half - 400) / half, abs=3)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec[1])
def test_a_codec_keeps_time_and_length_and_loses_more_the_more_is_asked(codec):
    signal = speechlike()
    errors = []
    for loss in (0.0, 0.5, 1.0):
        result = coded(signal, codec, loss)
        assert result.size == signal.size
        size = 2 * signal.size
        lags = np.fft.irfft(np.fft.rfft(result, size) * np.conj(np.fft.rfft(signal, size)), size)
        assert lags.argmax() == 0
        errors.append(np.mean((result - signal) ** 2))
    assert 0 < errors[0] < errors[-1]


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec[1])
def test_a_codec_takes_a_long_recording_in_its_stride(codec):
    minutes = np.tile(speechlike(4.0), 30)
    assert coded(minutes, codec, 0.5).size == minutes.size


def test_a_level_is_a_gain_and_what_exceeds_full_scale_is_clipped():
    quiet = altered(tone(), replace(NOTHING, level=(-20.0, -20.0)), generator())
    np.testing.assert_allclose(quiet, 0.1 * tone(), atol=1e-6)
    loud = altered(tone(), replace(NOTHING, level=(20.0, 20.0)), generator())
    assert np.abs(loud).max() == 1.0
    np.testing.assert_array_equal(np.sign(loud), np.sign(tone()))


@pytest.mark.parametrize(
    "changes", [{"room_share": 1.0}, {"band_share": 1.0}, {"codec_share": 1.0}, {"colour_share": 1.0}]
)
def test_what_is_altered_is_as_long_and_of_32_bits_and_drawn_by_seed(changes):
    settings = replace(NOTHING, **changes)
    sound = speechlike().astype(np.float32)
    result = altered(sound, settings, generator(1))
    assert (result.size, result.dtype) == (sound.size, np.float32)
    assert (result != sound).any()
    np.testing.assert_array_equal(result, altered(sound, settings, generator(1)))
    assert (result != altered(sound, settings, generator(2))).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"room_share": 1.5}, r"room_share = 1.5, expected a share between 0 and 1"),
        ({"noise": (40.0, 12.0)}, r"noise = \[40.0, 12.0\], expected the lower first"),
    ],
)
def test_alterations_that_cannot_be_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        Alteration(**settings)


def test_masks_and_copies_that_cannot_be_are_refused():
    with pytest.raises(BadConfig, match="expected no negative number, and shares between 0 and 1"):
        Masking(time_share=2.0)
    with pytest.raises(BadConfig, match=r"copies = -1, share = 0\.5, crop = 0\.0: expected no negative number"):
        Augmentation(copies=-1)


def test_a_copy_is_the_same_whenever_it_is_made_and_differs_from_the_others():
    copy = Copy(0, 0, Alteration())
    np.testing.assert_array_equal(copy(tone(), "a"), copy(tone(), "a"))
    for other in (copy(tone(), "b"), Copy(1, 0, Alteration())(tone(), "a"), Copy(0, 1, Alteration())(tone(), "a")):
        assert other.size != copy(tone(), "a").size or (other != copy(tone(), "a")).any()


def test_an_epoch_hears_one_version_of_each_utterance_cropped_within_bounds():
    originals = [np.full((100, 2), index, np.float32) for index in range(200)]
    copies = [{"speech": [values + 1000 for values in originals]}]
    spec = {"speech": FeatureSpec(2, 50.0)}
    ids = [str(index) for index in range(200)]
    data = Dataset(ids, np.zeros(200, np.int64), {"speech": originals}, spec, copies=copies, copy_share=0.5, crop=0.3)
    heard = data.drawn(generator())
    shares = [values[0, 0] >= 1000 for values in heard.features["speech"]]
    assert 0.35 < np.mean(shares) < 0.65
    assert all(values[0, 0] % 1000 == index for index, values in enumerate(heard.features["speech"]))
    assert heard.lengths().min() >= 69
    assert heard.lengths().max() <= 100
    again = data.drawn(generator())
    np.testing.assert_array_equal(heard.lengths(), again.lengths())
    assert (data.drawn(generator(1)).lengths() != heard.lengths()).any()


def test_without_copies_the_epoch_is_the_dataset():
    data = Dataset(["a"], np.zeros(1, np.int64), {"speech": [np.zeros((3, 2))]}, {"speech": FeatureSpec(2, 50.0)})
    assert data.drawn(generator()) is data
