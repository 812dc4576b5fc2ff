"""Altered copies: what they change, what they keep, and that they can be made again."""

from dataclasses import replace

import numpy as np
import pytest

from affekt.data import Dataset
from affekt.models.base import FeatureSpec
from affekt.training.augment import Alteration, Copy, altered

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
    noise = result - tone()
    assert 10 * np.log10(np.mean(tone() ** 2) / np.mean(noise**2)) == pytest.approx(20, abs=0.1)


def test_colour_changes_the_balance_and_not_the_timing():
    click = np.zeros(1000, np.float32)
    click[500] = 1.0
    result = altered(click, replace(NOTHING, colour_share=1.0), generator())
    assert abs(int(np.abs(result).argmax()) - 500) <= 1
    gains = 20 * np.log10(np.abs(np.fft.rfft(result))[5:-5])
    assert 1 < np.ptp(gains) < 60


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
