"""The Whisper encoder compared with that of transformers, which shares no code with it; on real weights if available."""

import numpy as np
import pytest
import torch
from transformers import WhisperConfig as TheirConfig
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from affekt.audio.read import load
from affekt.errors import BadConfig
from affekt.features.whisper import LogMel, WhisperConfig, WhisperStates
from tests.conftest import SAMPLES

ALL = WhisperConfig(blocks=(0, 1, 2))


@pytest.fixture(scope="module")
def tiny_whisper(tmp_path_factory):
    """Folder and network of a Whisper encoder with random weights, saved by transformers."""
    torch.manual_seed(0)
    config = TheirConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, max_source_positions=1500
    )
    encoder = WhisperEncoder(config).eval()
    for parameter in encoder.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("whisper")
    encoder.save_pretrained(folder)
    return folder, encoder


def waveform(seconds, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, int(seconds * 16_000), generator=generator).cumsum(dim=1) * 0.01


def test_the_log_mel_equals_whispers():
    extractor = WhisperFeatureExtractor()
    for path in SAMPLES[:2]:
        sound = load(path)
        theirs = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
        padded = torch.zeros(1, 480_000)
        padded[0, : sound.size] = torch.from_numpy(sound)
        torch.testing.assert_close(LogMel()(padded), theirs, atol=1e-4, rtol=0)


def test_the_states_equal_those_of_transformers(tiny_whisper):
    folder, theirs = tiny_whisper
    sound = waveform(30)
    with torch.no_grad():
        states = theirs(LogMel()(sound), output_hidden_states=True).hidden_states
        ours = WhisperStates.from_folder(folder, ALL)(sound)
    assert ours.frame_rate == 50.0
    # transformers' last state is taken after a final norm, so it is not the state of a block.
    torch.testing.assert_close(ours.values[:, :, :32], torch.cat(states[:2], dim=2), atol=1e-5, rtol=0)


def test_the_states_equal_those_of_transformers_on_real_weights(whisper):
    theirs = WhisperEncoder.from_pretrained(whisper).float().eval()
    sound = torch.zeros(1, 480_000)
    speech = torch.from_numpy(load(SAMPLES[0]))
    sound[0, : len(speech)] = speech
    with torch.no_grad():
        states = theirs(LogMel()(sound), output_hidden_states=True).hidden_states
        network = WhisperStates.from_folder(whisper, WhisperConfig(blocks=(1, 2, 3)))
        padded, alone = network(sound).values, network(speech[None]).values
    torch.testing.assert_close(padded, torch.cat(states[1:4], dim=2), atol=1e-4, rtol=1e-4)
    # Without the padding to 30 s the states differ, but they have nearly the same direction.
    frames = alone.shape[1]
    assert torch.cosine_similarity(alone, padded[:, :frames], dim=2).mean() > 0.95


@pytest.mark.parametrize("level", ["absolute", "relative"])
@pytest.mark.parametrize("span", [1500, 60])
def test_a_batch_equals_one_by_one(tiny_whisper, level, span):
    network = WhisperStates.from_folder(tiny_whisper[0], WhisperConfig(blocks=(0, 1, 2), level=level, span=span))
    sounds = [waveform(seconds, seed) for seed, seconds in enumerate([2.0, 0.1, 0.73, 1.3])]
    lengths = torch.tensor([sound.shape[1] for sound in sounds])
    batch = torch.zeros(4, int(lengths.max()))
    for row, sound in zip(batch, sounds, strict=True):
        row[: sound.shape[1]] = sound[0]
    with torch.no_grad():
        together = network(batch, lengths)
        for index, sound in enumerate(sounds):
            alone = network(sound).values[0]
            assert together.lengths()[index] == len(alone)
            torch.testing.assert_close(together.values[index, : len(alone)], alone, atol=1e-5, rtol=0)


def test_with_a_relative_level_the_gain_does_not_matter(tiny_whisper):
    sound = waveform(1.0)
    for level, same in (("relative", True), ("absolute", False)):
        network = WhisperStates.from_folder(tiny_whisper[0], WhisperConfig(blocks=(2,), level=level))
        with torch.no_grad():
            loud, soft = network(sound).values, network(sound * 1e-4).values
        assert torch.allclose(loud, soft, atol=1e-4) is same


def test_spans_are_independent_and_allow_any_length(tiny_whisper):
    network = WhisperStates.from_folder(tiny_whisper[0], WhisperConfig(blocks=(1, 2), span=50))
    sound = waveform(2.0)
    sound[:, :8000] *= 20.0  # the maximum, on which the floor depends, must not change
    with torch.no_grad():
        whole = network(sound).values
        changed = sound.clone()
        changed[:, -1600:] = 0.0
        change = (network(changed).values - whole).abs().sum(dim=2)[0]
    assert whole.shape == (1, 100, 32)
    assert change[:50].max() < 1e-6 < change[50:].min()  # the spans do not depend on each other
    assert network(waveform(40.0)).values.shape == (1, 2000, 32)


def test_every_length_from_a_tenth_of_a_second_has_frames(tiny_whisper):
    network = WhisperStates.from_folder(tiny_whisper[0], ALL)
    for samples in (1600, 1601, 1759, 1760, 1920, 3333):
        states = network(torch.rand(1, samples)).values
        assert states.shape[1] == (samples // 160 + 1) // 2
        assert np.isfinite(states.numpy()).all()


def test_missing_files_blocks_and_positions_are_named(tiny_whisper, tmp_path):
    with pytest.raises(BadConfig, match=r"has no Whisper encoder: expected config\.json"):
        WhisperStates.from_folder(tmp_path, ALL)
    with pytest.raises(BadConfig, match=r"blocks \[7\].* has 0 to 2"):
        WhisperStates.from_folder(tiny_whisper[0], WhisperConfig(blocks=(7,)))
    with pytest.raises(BadConfig, match=r"span 9999.* has positions for 1500"):
        WhisperStates.from_folder(tiny_whisper[0], WhisperConfig(span=9999, blocks=(1,)))
