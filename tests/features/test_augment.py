"""Augmentation by altered copies: what each effect changes, what it preserves, and that copies are reproducible."""

from dataclasses import replace

import numpy as np
import pytest

from affekt.config import decode
from affekt.errors import BadConfig
from affekt.features.augment import (
    CODECS,
    Alteration,
    Augmentation,
    Copy,
    Masking,
    add_reverb,
    alter,
    apply_codec,
    apply_lowpass,
    make_noise,
)
from affekt.models.base import FeatureSpec
from affekt.training.dataset import Dataset

UNALTERED = Alteration(speed=0.0, equalizer_probability=0.0, noise_probability=0.0)


def tone(pitch=1000, seconds=1.0):
    return np.sin(2 * np.pi * pitch * np.arange(int(seconds * 16_000)) / 16_000).astype(np.float32)


def generator(seed=0):
    return np.random.default_rng(seed)


def test_without_alterations_nothing_changes():
    np.testing.assert_array_equal(alter(tone(), UNALTERED, generator()), tone())


def test_speed_changes_length_and_pitch_together():
    for seed in range(5):
        result = alter(tone(), replace(UNALTERED, speed=0.16), generator(seed))
        speed = 16_000 / result.size
        assert np.exp(-0.17) < speed < np.exp(0.17)
        pitch = np.abs(np.fft.rfft(result * np.hanning(result.size))).argmax() * 16_000 / result.size
        assert pitch == pytest.approx(1000 * speed, rel=0.01)


def test_pauses_are_silence_before_after_and_at_the_quietest_place_inside():
    speech = tone(seconds=2.0)
    speech[15_000:17_000] *= 0.01
    settings = replace(UNALTERED, pause_probability=1.0, pause=(0.5, 0.5))
    longest = max((alter(speech, settings, generator(seed)) for seed in range(20)), key=len)
    assert longest.size == 32_000 + 3 * 8000
    assert not longest[:8000].any()
    assert not longest[-8000:].any()
    silent = np.flatnonzero(longest[8000:-8000] == 0)
    assert 15_000 <= silent[len(silent) // 2] - 4000 <= 17_000
    assert np.square(longest).sum() == pytest.approx(np.square(speech).sum(), rel=1e-6)


def test_added_pauses_may_contain_noise_of_a_given_power():
    settings = replace(UNALTERED, pause_probability=1.0, pause=(0.5, 0.5))
    noisy = replace(settings, pause_noise_probability=1.0, pause_noise=(-40.0, -40.0))
    for seed in range(10):
        silent, result = (alter(tone(), alteration, generator(seed)) for alteration in (settings, noisy))
        assert result.size == silent.size
        before, after = result[:8000], result[-8000:]
        np.testing.assert_allclose(result[8000:16_000], silent[8000:16_000])  # the first half of the speech
        for pause in (before, after):
            assert 10 * np.log10(np.mean(pause**2)) == pytest.approx(-40, abs=6)


def test_noise_has_the_requested_ratio():
    result = alter(tone(), replace(UNALTERED, noise_probability=1.0, noise=(20.0, 20.0)), generator())
    assert decibels(tone(), result - tone()) == pytest.approx(20, abs=0.1)


def test_the_equalizer_changes_the_frequency_response_and_not_the_timing():
    click = np.zeros(1000, np.float32)
    click[500] = 1.0
    result = alter(click, replace(UNALTERED, equalizer_probability=1.0), generator())
    assert abs(int(np.abs(result).argmax()) - 500) <= 1
    gains = 20 * np.log10(np.abs(np.fft.rfft(result))[5:-5])
    assert 1 < np.ptp(gains) < 60


def speechlike(seconds=2.0, seed=0):
    """Return broadband noise whose loudness varies like syllables."""
    noise = np.convolve(np.random.default_rng(seed).normal(size=int(16_000 * seconds)), np.ones(4) / 4, mode="same")
    return 0.2 * noise * (1.2 + np.sin(2 * np.pi * 4 * np.arange(noise.size) / 16_000))


def decibels(signal, other):
    return 10 * np.log10(np.mean(signal**2) / np.mean(other**2))


@pytest.mark.parametrize("ratio", [0.0, 12.0, 40.0])
def test_white_and_falling_noise_have_the_requested_ratio(ratio):
    falling = set()
    for seed in range(8):
        added = make_noise(speechlike(), ratio, generator(seed))
        assert decibels(speechlike(), added) == pytest.approx(ratio, abs=0.05)
        power = np.abs(np.fft.rfft(added)) ** 2
        falling.add(bool(power[:1000].sum() > 0.5 * power.sum()))
    assert falling == {True, False}


def test_silence_gets_no_noise():
    assert not make_noise(np.zeros(1000), 20.0, generator()).any()


@pytest.mark.parametrize("frequency", [1000.0, 3400.0, 7000.0])
def test_the_lowpass_filter_removes_what_is_above_its_frequency_and_nothing_below(frequency):
    signal = speechlike()
    result = apply_lowpass(signal, frequency)
    before, after = np.fft.rfft(signal), np.fft.rfft(result)
    hertz = np.arange(before.size) * 16_000 / signal.size
    assert result.size == signal.size
    np.testing.assert_allclose(after[hertz <= frequency], before[hertz <= frequency], atol=1e-6)
    np.testing.assert_allclose(after[hertz > 1.1 * frequency], 0, atol=1e-6)


def test_reverb_adds_a_tail_of_the_requested_decay_and_no_delay():
    click = np.zeros(16_000)
    click[1000] = 1.0
    for time in (0.2, 0.6):
        result = add_reverb(click, time, generator())
        assert result.size == click.size
        assert not np.abs(result[:1000]).max() > 1e-9
        assert result[1000] == pytest.approx(1.0)
        tail = result[1000 + 32 :]
        assert 1 / 4.01 < np.sum(tail**2) < 1 / 0.49
        half = round(time / 2 * 16_000)
        levels = [np.mean(tail[start : start + 800] ** 2) for start in (0, half - 400)]
        assert 10 * np.log10(levels[0] / levels[1]) == pytest.approx(30 * (half - 400) / half, abs=3)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec[1])
def test_a_codec_preserves_timing_and_length_and_its_error_grows_with_compression(codec):
    signal = speechlike()
    errors = []
    for compression in (0.0, 0.5, 1.0):
        result = apply_codec(signal, codec, compression)
        assert result.size == signal.size
        size = 2 * signal.size
        lags = np.fft.irfft(np.fft.rfft(result, size) * np.conj(np.fft.rfft(signal, size)), size)
        assert lags.argmax() == 0
        errors.append(np.mean((result - signal) ** 2))
    assert 0 < errors[0] < errors[-1]


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec[1])
def test_a_codec_takes_a_recording_of_minutes(codec):
    minutes = np.tile(speechlike(4.0), 30)
    assert apply_codec(minutes, codec, 0.5).size == minutes.size


def test_samples_beyond_full_scale_are_clipped_after_the_gain():
    quiet = alter(tone(), replace(UNALTERED, gain=(-20.0, -20.0)), generator())
    np.testing.assert_allclose(quiet, 0.1 * tone(), atol=1e-6)
    loud = alter(tone(), replace(UNALTERED, gain=(20.0, 20.0)), generator())
    assert np.abs(loud).max() == 1.0
    np.testing.assert_array_equal(np.sign(loud), np.sign(tone()))


@pytest.mark.parametrize(
    "changes",
    [
        {"reverb_probability": 1.0},
        {"lowpass_probability": 1.0},
        {"codec_probability": 1.0},
        {"equalizer_probability": 1.0},
    ],
)
def test_effects_keep_length_and_type_and_depend_on_the_seed(changes):
    settings = replace(UNALTERED, **changes)
    sound = speechlike().astype(np.float32)
    result = alter(sound, settings, generator(1))
    assert (result.size, result.dtype) == (sound.size, np.float32)
    assert (result != sound).any()
    np.testing.assert_array_equal(result, alter(sound, settings, generator(1)))
    assert (result != alter(sound, settings, generator(2))).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reverb_probability": 1.5}, "reverb_probability = 1.5"),
        ({"noise": (40.0, 12.0)}, r"noise = \[40.0, 12.0\]"),
    ],
)
def test_invalid_alterations_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        Alteration(**settings)


def test_invalid_masks_and_copies_are_refused():
    with pytest.raises(BadConfig, match=r"max_time_fraction=2\.0"):
        Masking(max_time_fraction=2.0)
    with pytest.raises(BadConfig, match="copies = -1"):
        Augmentation(copies=-1)


def test_a_copy_is_reproducible_and_differs_from_other_copies():
    copy = Copy(0, 0, Alteration())
    np.testing.assert_array_equal(copy(tone(), "a"), copy(tone(), "a"))
    for other in (copy(tone(), "b"), Copy(1, 0, Alteration())(tone(), "a"), Copy(0, 1, Alteration())(tone(), "a")):
        assert other.size != copy(tone(), "a").size or (other != copy(tone(), "a")).any()


def test_an_epoch_uses_one_version_of_each_utterance_cropped_within_bounds():
    originals = [np.full((100, 2), index, np.float32) for index in range(200)]
    copies = [{"speech": [values + 1000 for values in originals]}]
    spec = {"speech": FeatureSpec(2, 50.0)}
    ids = [str(index) for index in range(200)]
    data = Dataset(
        ids, np.zeros(200, np.int64), {"speech": originals}, spec, copies=copies, copy_probability=0.5, crop=0.3
    )
    epoch = data.sample_epoch(generator())
    from_copy = [values[0, 0] >= 1000 for values in epoch.features["speech"]]
    assert 0.35 < np.mean(from_copy) < 0.65
    assert all(values[0, 0] % 1000 == index for index, values in enumerate(epoch.features["speech"]))
    assert epoch.lengths().min() >= 69
    assert epoch.lengths().max() <= 100
    again = data.sample_epoch(generator())
    np.testing.assert_array_equal(epoch.lengths(), again.lengths())
    assert (data.sample_epoch(generator(1)).lengths() != epoch.lengths()).any()


def test_a_former_key_is_refused_with_its_new_name():
    with pytest.raises(BadConfig, match="'equalizer_probability'"):
        decode(Augmentation, {"alteration": {"colour_share": 0.5}}, "recipe")


def test_without_copies_the_epoch_is_the_dataset():
    data = Dataset(["a"], np.zeros(1, np.int64), {"speech": [np.zeros((3, 2))]}, {"speech": FeatureSpec(2, 50.0)})
    assert data.sample_epoch(generator()) is data
