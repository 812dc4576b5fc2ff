"""Generated sounds: the same for the same number, of many kinds, lengths and levels, as a 16-bit recording has them."""

import numpy as np
import pytest

from affekt.features.generated import MAKERS, generate

SAMPLE_RATE = 16_000


@pytest.mark.parametrize("kind", MAKERS)
def test_a_sound_is_determined_by_its_kind_and_number(kind):
    sounds = [generate(kind, number) for number in range(6)]
    np.testing.assert_array_equal(sounds[0], generate(kind, 0))
    assert len({sound.tobytes() for sound in sounds}) == 6
    for sound in sounds:
        assert sound.dtype == np.float32
        assert 0.5 * SAMPLE_RATE <= sound.size <= 6 * SAMPLE_RATE
        assert np.abs(sound).max() <= 1
        np.testing.assert_array_equal(sound * 32768, np.round(sound * 32768))


def test_silence_has_the_last_bits_only_and_other_sounds_have_many_levels():
    assert max(np.abs(generate("silence", number)).max() for number in range(10)) < 20 / 32768
    peaks = [20 * np.log10(np.abs(generate("tone", number)).max()) for number in range(30)]
    assert min(peaks) < -40
    assert max(peaks) > -15


def test_a_hum_has_its_power_at_multiples_of_its_base():
    generator = np.random.default_rng(3)
    hum = MAKERS["hum"](generator, 4 * SAMPLE_RATE)
    spectrum = np.sort(np.abs(np.fft.rfft(hum)) ** 2)[::-1]
    assert spectrum[:400].sum() > 0.9 * spectrum.sum()
