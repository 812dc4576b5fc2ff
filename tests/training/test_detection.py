"""Fitting of the speech detector: it separates what can be separated, and its threshold keeps speech."""

import pytest
import torch

from affekt.errors import BadConfig
from affekt.training.detection import MAX_REFUSED_SPEECH, DetectorConfig, fit_detector

SIZE = 12


def recordings(count, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    return shift + torch.randn(count, SIZE, generator=generator) * torch.linspace(0.1, 3, SIZE)


def probability(detector, statistics):
    return detector.logits(statistics).sigmoid()


@pytest.mark.parametrize("hidden", [0, 4])
def test_the_threshold_separates_speech_from_sounds_with_a_margin(hidden):
    speech, sounds = recordings(300, 2.0, 0), recordings(200, -2.0, 1)
    detector, threshold = fit_detector(speech, recordings(50, 3.0, 2), sounds, DetectorConfig(hidden=hidden))
    assert (probability(detector, recordings(300, 2.0, 3)) >= threshold).float().mean() > 0.98
    assert (probability(detector, recordings(300, -2.0, 4)) < threshold).float().mean() > 0.98
    assert probability(detector, sounds).quantile(0.9) < threshold < probability(detector, speech).quantile(0.1)


def test_speech_is_kept_even_if_sounds_are_alike():
    speech, sounds = recordings(1000, 0.1, 0), recordings(1000, -0.1, 1)
    detector, threshold = fit_detector(speech, speech[:0], sounds, DetectorConfig())
    assert (probability(detector, speech) < threshold).float().mean() <= MAX_REFUSED_SPEECH
    assert (probability(detector, sounds) < threshold).float().mean() < 0.5


def test_a_detector_is_the_same_every_time_and_rounded_to_16_bits():
    data = recordings(60, 1.0, 0), recordings(10, 1.0, 1), recordings(60, -1.0, 2)
    for config in (DetectorConfig(), DetectorConfig(hidden=3)):
        (first, threshold), (second, again) = (fit_detector(*data, config, seed=5) for _ in range(2))
        assert threshold == again
        for name, tensor in first.state_dict().items():
            torch.testing.assert_close(tensor, second.state_dict()[name], rtol=0, atol=0)
            torch.testing.assert_close(tensor, tensor.half().float(), rtol=0, atol=0)


def test_few_kinds_of_speech_and_many_sounds_count_the_same():
    speech, sounds = recordings(40, 1.5, 0), recordings(2000, -1.5, 1)
    detector, threshold = fit_detector(speech, speech[:0], sounds, DetectorConfig())
    assert (probability(detector, recordings(500, 1.5, 2)) >= threshold).float().mean() > 0.97


def test_invalid_settings_are_refused():
    with pytest.raises(BadConfig, match=r"hidden = -1.*no negative number"):
        DetectorConfig(hidden=-1)
    with pytest.raises(BadConfig, match=r"generated = 0.*at least 1"):
        DetectorConfig(generated=0)
