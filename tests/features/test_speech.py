"""Speech encoders compared with transformers, on small networks with random weights that transformers saved."""

import json
import shutil
import sys

import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from affekt.config import decode, encode, to_toml
from affekt.errors import BadConfig, MissingExtra
from affekt.features import features
from affekt.features.convert import convert_checkpoint
from tests.features.test_spectral import assert_onnx_equals_torch
from tests.sounds import noise

FAMILY = {
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "wavlm": (WavLMConfig, WavLMModel),
}
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
SOUNDS = [noise(samples, seed) for seed, samples in enumerate((9000, 1600, 5001, 9000))]


def randomize(network):
    """Add noise to the parameters, since the zeros and ones of an initialization hide mistakes."""
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def save_encoder(name, folder, *, stable=False, normalize=True):
    """Save a small network of transformers and return it. `stable` is the large variant: pre-norm, with layer norms."""
    kind, network = FAMILY[name]
    torch.manual_seed(0)
    config = kind(**SMALL, do_stable_layer_norm=stable, feat_extract_norm="layer" if stable else "group")
    theirs = randomize(network(config))
    theirs.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return theirs


def load_feature(name, folder, **settings):
    return features[name].from_folder(folder, features[name].Config(**settings))


def pad_batch(sounds):
    lengths = torch.tensor([len(sound) for sound in sounds])
    batch = torch.zeros(len(sounds), int(lengths.max()))
    for row, sound in zip(batch, sounds, strict=True):
        row[: len(sound)] = torch.from_numpy(sound)
    return batch, lengths


@pytest.fixture(scope="module", params=[(name, stable) for name in FAMILY for stable in (False, True)], ids=str)
def pair(request, tmp_path_factory):
    """Name, folder and transformers' network of every family, in the base and in the large variant."""
    name, stable = request.param
    folder = tmp_path_factory.mktemp(name)
    return name, folder, save_encoder(name, folder, stable=stable)


def test_the_states_equal_those_of_transformers(pair):
    name, folder, theirs = pair
    sound = SOUNDS[0]
    inputs = Wav2Vec2FeatureExtractor()(sound, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        expected = theirs(inputs, output_hidden_states=True).hidden_states
        ours = load_feature(name, folder, blocks=(0, 1, 3))(torch.from_numpy(sound)[None])
    assert ours.frame_rate == 50.0
    torch.testing.assert_close(ours.values, torch.cat([expected[k] for k in (0, 1, 3)], dim=2), atol=1e-5, rtol=0)


def test_a_masked_batch_equals_that_of_transformers(tmp_path):
    theirs = save_encoder("hubert", tmp_path, stable=True)
    inputs = Wav2Vec2FeatureExtractor(return_attention_mask=True)(
        SOUNDS, sampling_rate=16_000, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = theirs(**inputs, output_hidden_states=True).hidden_states[2]
    ours = load_feature("hubert", tmp_path, blocks=(2,))(*pad_batch(SOUNDS))
    assert ours.lengths().tolist() == [27, 4, 15, 27]
    for row, count in enumerate(ours.lengths().tolist()):
        torch.testing.assert_close(ours.values[row, :count], expected[row, :count], atol=1e-5, rtol=0)


def test_the_number_of_frames_is_predicted_from_the_convolutions(pair):
    name, folder, _ = pair
    encoder = load_feature(name, folder, blocks=(0,))
    for samples in (400, 719, 720, 1600, 3333):
        assert encoder(torch.rand(1, samples)).values.shape[1] == encoder.num_frames(torch.tensor([samples]))


def test_blocks_are_counted_from_either_end_and_later_blocks_are_removed(tmp_path):
    save_encoder("hubert", tmp_path)
    sound = torch.from_numpy(SOUNDS[0])[None]
    second, from_the_end = load_feature("hubert", tmp_path, blocks=(2,)), load_feature("hubert", tmp_path, blocks=(-2,))
    torch.testing.assert_close(second(sound).values, from_the_end(sound).values, atol=0, rtol=0)
    assert second.config == from_the_end.config  # so both have the same description in the store
    assert len(second.network.encoder.layers) == 2
    several = load_feature("hubert", tmp_path, blocks=(2, 0))
    assert (several.dim, several.num_states) == (32, 2)
    torch.testing.assert_close(several(sound).values[..., :16], second(sound).values, atol=1e-6, rtol=0)


def test_the_encoder_is_frozen_and_deterministic(pair):
    name, folder, _ = pair
    encoder = load_feature(name, folder)
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(encoder(*pad_batch(SOUNDS)).values, encoder(*pad_batch(SOUNDS)).values)


def test_waveforms_are_normalized_as_the_checkpoint_says(tmp_path):
    sound = torch.from_numpy(SOUNDS[0])[None]
    for normalize in (True, False):
        save_encoder("wavlm", tmp_path, normalize=normalize)
        encoder = load_feature("wavlm", tmp_path)
        assert encoder.config.normalize is normalize
        same = torch.allclose(encoder(sound).values, encoder(0.3 * sound + 0.1).values, atol=1e-4)
        assert same is normalize
    assert load_feature("wavlm", tmp_path, normalize=True).config.normalize is True


def test_a_network_is_rebuilt_from_its_settings_and_its_state(pair):
    name, folder, _ = pair
    encoder = load_feature(name, folder, blocks=(1, 2))
    import tomllib

    config = tomllib.loads(to_toml(encode(encoder.config)))
    again = type(encoder)(decode(type(encoder).Config, config, "encoder")).eval()
    again.load_state_dict(encoder.state_dict())
    sound = torch.from_numpy(SOUNDS[0])[None]
    torch.testing.assert_close(again(sound).values, encoder(sound).values, atol=0, rtol=0)


@pytest.mark.slow
def test_the_onnx_graph_equals_torch_at_any_length(tmp_path):
    save_encoder("hubert", tmp_path)
    assert_onnx_equals_torch(load_feature("hubert", tmp_path, blocks=(1, 2)), tmp_path / "feature.onnx", atol=1e-4)


def test_the_encoder_of_a_fine_tuned_checkpoint_is_loaded(tmp_path):
    torch.manual_seed(0)
    theirs = randomize(Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**SMALL)))
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs.wav2vec2(torch.from_numpy(SOUNDS[0])[None]).last_hidden_state
    ours = load_feature("wav2vec2", tmp_path, normalize=False)(torch.from_numpy(SOUNDS[0])[None])
    torch.testing.assert_close(ours.values, expected, atol=1e-5, rtol=0)


def test_a_checkpoint_in_half_precision_is_loaded_in_single_precision(tmp_path):
    save_encoder("hubert", tmp_path).half().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load_feature("hubert", tmp_path).parameters()} == {torch.float32}


@pytest.fixture(scope="module")
def whole_whisper(tmp_path_factory):
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        vocab_size=60,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=2,
    )
    folder = tmp_path_factory.mktemp("whisper")
    theirs = randomize(WhisperModel(config))
    theirs.save_pretrained(folder)
    return folder, theirs.encoder


def test_whisper_30s_equals_transformers_from_a_whole_model_or_its_encoder(whole_whisper, tmp_path):
    folder, theirs = whole_whisper
    theirs.save_pretrained(tmp_path)
    mel = WhisperFeatureExtractor()(SOUNDS[0], sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = theirs(mel, output_hidden_states=True).hidden_states
    for source in (folder, tmp_path):
        ours = load_feature("whisper-30s", source, blocks=(0, 1, 2))(torch.from_numpy(SOUNDS[0])[None])
        assert ours.values.shape == (1, 28, 48)  # 0.5625 s
        torch.testing.assert_close(ours.values[0], torch.cat(expected, dim=2)[0, :28], atol=2e-4, rtol=0)
        first = load_feature("whisper-30s", source, blocks=(1,))(torch.from_numpy(SOUNDS[0])[None])
        torch.testing.assert_close(first.values, ours.values[..., 16:32], atol=1e-6, rtol=0)


def test_whisper_30s_encodes_longer_audio_in_windows_of_30_s(whole_whisper):
    encoder = load_feature("whisper-30s", whole_whisper[0])
    sound = torch.from_numpy(noise(31 * 16_000))[None]
    whole, begin, end = (encoder(samples).values[0] for samples in (sound, sound[:, :480_000], sound[:, 480_000:]))
    torch.testing.assert_close(whole, torch.cat([begin, end]), atol=1e-5, rtol=0)
    assert len(whole) == 1550


def test_a_pickled_checkpoint_is_refused_and_can_be_loaded_after_conversion(tmp_path):
    theirs = save_encoder("hubert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        BadConfig, match=r"has no safetensors.*affekt convert .*pytorch_model\.bin .*model\.safetensors"
    ):
        load_feature("hubert", tmp_path)
    convert_checkpoint(tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors")
    sound = torch.from_numpy(SOUNDS[0])[None]
    ours = load_feature("hubert", tmp_path, normalize=False)(sound)
    with torch.no_grad():
        torch.testing.assert_close(ours.values, theirs(sound).last_hidden_state, atol=1e-5, rtol=0)


def test_missing_files_and_wrong_settings_are_named(tmp_path):
    with pytest.raises(BadConfig, match=r"hubert needs folder, .* or checkpoint, its name on the hub"):
        load_feature("hubert", None)
    with pytest.raises(BadConfig, match=r"has no checkpoint: expected config\.json"):
        load_feature("hubert", tmp_path)
    save_encoder("hubert", tmp_path)
    with pytest.raises(BadConfig, match=r"contains a model of type 'hubert'; expected 'wavlm'"):
        load_feature("wavlm", tmp_path)
    with pytest.raises(BadConfig, match=r"blocks \[4, -5\]: this hubert has 0 to 3, or -1 to -4"):
        load_feature("hubert", tmp_path, blocks=(4, 0, -5))
    with pytest.raises(BadConfig, match=r"blocks = \[\]: expected at least one block"):
        load_feature("hubert", tmp_path, blocks=())
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(BadConfig, match=r"no preprocessor_config\.json.* or set normalize = true or false"):
        load_feature("hubert", tmp_path)


def test_damaged_files_are_named(tmp_path):
    save_encoder("hubert", tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path, broken)
    (broken / "config.json").write_text("{")
    with pytest.raises(BadConfig, match=r"its config\.json cannot be read"):
        load_feature("hubert", broken)
    shutil.copy(tmp_path / "config.json", broken)
    (broken / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:500])
    with pytest.raises(BadConfig, match=r"its safetensors cannot be read"):
        load_feature("hubert", broken)


def test_missing_weights_are_an_error(tmp_path):
    from safetensors.torch import load_file, save_file

    save_encoder("hubert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layers.1.attention.k_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        BadConfig, match=r"lacks 1 weights of a HubertModel, first encoder\.layers\.1\.attention\.k_proj"
    ):
        load_feature("hubert", tmp_path)


def test_a_checkpoint_of_another_sample_rate_is_refused(tmp_path):
    save_encoder("hubert", tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sampling_rate": 8000}))
    with pytest.raises(BadConfig, match=r"8000 Hz; expected 16000"):
        load_feature("hubert", tmp_path)


def test_a_failed_download_is_reported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadConfig, match=r"nobody/nothing cannot be downloaded from the hub.* set folder"):
        load_feature("hubert", None, checkpoint="nobody/nothing")


def test_without_transformers_the_error_states_the_install_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"a hubert encoder needs transformers: pip install 'affekt\[train\]'"):
        load_feature("hubert", tmp_path)
