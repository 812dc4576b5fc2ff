"""wav2vec compared with a reference written as loops, and with the published sizes."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from affekt.config import decode, encode
from affekt.errors import BadConfig
from affekt.features.wav2vec import Wav2Vec, Wav2VecArchitecture, Wav2VecConfig, build_settings
from tests.features.test_spectral import assert_onnx_equals_torch
from tests.features.test_speech import SOUNDS, pad_batch
from tests.sounds import noise

TINY = {
    "encoder": ((6, 10, 5), (6, 8, 4), (6, 4, 2), (6, 4, 2), (6, 4, 2), (6, 1, 1)),
    "aggregator": ((6, 2, 1), (4, 3, 1), (4, 4, 1)),
}
VARIANTS = [
    {},
    {"zero_padding": True, "bias": False},
    {"skips": False, "log_compression": False},
    {"activation": "gelu", "affine": False, "residual_scale": 0.25},
]


def make_network(output="context", **settings):
    """Return a small network with random weights, in float64."""
    torch.manual_seed(0)
    network = (
        Wav2Vec(Wav2VecConfig(output, Wav2VecArchitecture(**TINY | settings))).double().eval().requires_grad_(False)
    )
    for parameter in network.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return network


def sounds64():
    waveform, lengths = pad_batch(SOUNDS)
    return waveform.double(), lengths


def reference(network, waveform):
    """Context and latent frames of one waveform, (frames, features), one number at a time, by fairseq's names of weights."""
    architecture, weights = network.config.architecture, network.state_dict()
    signal = [[value] for value in waveform.tolist()]
    for number, (_, _, stride) in enumerate(architecture.encoder):
        name = f"feature_extractor.conv_layers.{number}"
        signal = activated(
            normed(convolved(signal, weights[f"{name}.0.weight"], None, stride), weights, f"{name}.2"), architecture
        )
    if architecture.log_compression:
        signal = [[math.log(1 + abs(value)) for value in frame] for frame in signal]
    latent = signal
    for number, (features, kernel, _) in enumerate(architecture.aggregator):
        name = f"feature_aggregator.conv_layers.{number}"
        first = [0.0] * len(signal[0]) if architecture.zero_padding else signal[0]
        given = convolved(
            [first] * (kernel - 1) + signal, weights[f"{name}.1.weight"], weights.get(f"{name}.1.bias"), 1
        )
        given = activated(normed(given, weights, f"{name}.3"), architecture)
        if architecture.skips:
            if len(signal[0]) != features:
                signal = convolved(signal, weights[f"feature_aggregator.residual_proj.{number}.weight"], None, 1)
            scale = math.sqrt(architecture.residual_scale)
            given = [[(a + b) * scale for a, b in zip(*pair, strict=True)] for pair in zip(given, signal, strict=True)]
        signal = given
    return torch.tensor(signal, dtype=torch.float64), torch.tensor(latent, dtype=torch.float64)


def convolved(signal, weight, bias, stride):
    """(frames, features) of (frames, features), weights (out, in, kernel)."""
    kernel, result = weight.shape[2], []
    stacked = torch.tensor(signal, dtype=torch.float64)
    for start in range(0, len(signal) - kernel + 1, stride):
        window = stacked[start : start + kernel].T
        result.append([(filter_ * window).sum().item() for filter_ in weight])
    return (
        [[value + bias[at].item() for at, value in enumerate(frame)] for frame in result]
        if bias is not None
        else result
    )


def normed(signal, weights, name):
    values = [value for frame in signal for value in frame]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + 1e-5)
    size = len(signal[0])
    weight = weights.get(f"{name}.weight", torch.ones(size)).tolist()
    bias = weights.get(f"{name}.bias", torch.zeros(size)).tolist()
    return [[(value - mean) / deviation * weight[at] + bias[at] for at, value in enumerate(frame)] for frame in signal]


def activated(signal, architecture):
    def gelu(value):
        return value * (1 + math.erf(value / math.sqrt(2))) / 2

    def relu(value):
        return max(value, 0.0)

    bend = gelu if architecture.activation == "gelu" else relu
    return [[bend(value) for value in frame] for frame in signal]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_the_network_equals_the_reference(settings):
    waveform = torch.from_numpy(noise(1700)).double()
    network = make_network(**settings)
    context, latent = reference(network, waveform)
    torch.testing.assert_close(network(waveform[None]).values[0], context, atol=1e-10, rtol=0)
    only_latent = make_network("latent", **settings)
    only_latent.load_state_dict({name: network.state_dict()[name] for name in only_latent.state_dict()})
    torch.testing.assert_close(only_latent(waveform[None]).values[0], latent, atol=1e-10, rtol=0)
    assert (network.dim, only_latent.dim) == (4, 6)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_a_batch_equals_one_by_one(settings):
    network = make_network(**settings)
    together = network(*sounds64())
    for row, sound in enumerate(SOUNDS):
        alone = network(torch.from_numpy(sound).double()[None]).values[0]
        assert together.lengths()[row] == len(alone)
        torch.testing.assert_close(together.values[row, : len(alone)], alone, atol=1e-10, rtol=0)
        assert (together.values[row, len(alone) :] == 0).all()


def test_the_content_of_the_padding_does_not_matter():
    network, (waveform, lengths) = make_network(), sounds64()
    loud = torch.where(torch.arange(waveform.shape[1]) < lengths[:, None], waveform, 9.0)
    torch.testing.assert_close(network(loud, lengths).values, network(waveform, lengths).values, atol=1e-12, rtol=0)


def test_without_norms_the_network_is_causal(monkeypatch):
    monkeypatch.setattr("affekt.features.wav2vec.Norm.forward", lambda _, values, __: values)
    network, sound = make_network(), torch.from_numpy(noise(4000)).double()[None]
    other = sound.clone()
    other[:, 2000:] = 0.3
    frames = int(network.num_frames(torch.tensor([2000])))
    before, after = network(sound).values[0], network(other).values[0]
    torch.testing.assert_close(before[:frames], after[:frames], atol=0, rtol=0)
    assert not torch.allclose(before[frames:], after[frames:])


def test_the_number_of_frames_is_predicted_from_the_convolutions():
    network = make_network()
    for samples in (465, 624, 625, 1600, 3333):
        frames = network(torch.rand(1, samples, dtype=torch.float64)).values.shape[1]
        assert frames == network.num_frames(torch.tensor([samples])) == (samples - 465) // 160 + 1
    assert network.frame_rate == 100.0


def test_the_large_network_has_the_published_size():
    large = Wav2Vec(Wav2VecConfig())
    prediction = 512 * 512 * 12 + 512  # the prediction of twelve steps, which only training needs
    assert sum(parameter.numel() for parameter in large.parameters()) + prediction == 32_537_088
    assert large.dim == 512
    # 4.6 s are 458 frames, and 460 frames need a little more.
    assert large.num_frames(torch.tensor([73_600, 73_904, 73_905])).tolist() == [458, 459, 460]
    kernels = [kernel for _, kernel, _ in large.config.architecture.aggregator]
    receptive_field = (sum(kernels) - len(kernels)) * 160 + 465
    assert round(receptive_field / 16_000, 2) == 0.81  # s, section 3.2 of the paper
    assert {name.rsplit(".", 1)[0] for name in large.state_dict()} == {
        *(f"feature_extractor.conv_layers.{layer}.{part}" for layer in range(7) for part in (0, 2)),
        *(f"feature_aggregator.conv_layers.{layer}.{part}" for layer in range(12) for part in (1, 3)),
    }


def test_settings_and_state_rebuild_the_feature():
    network = make_network(skips=False, log_compression=False)
    again = Wav2Vec(decode(Wav2VecConfig, encode(network.config), "encoder")).double().eval()
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(*sounds64()).values, network(*sounds64()).values, atol=0, rtol=0)
    assert again.config == network.config


@pytest.mark.slow
def test_the_onnx_graph_equals_torch_at_any_length(tmp_path):
    assert_onnx_equals_torch(make_network().float(), tmp_path / "feature.onnx", atol=1e-4)


def save_network(folder, network):
    save_file({name: tensor.float() for name, tensor in network.state_dict().items()}, folder / "model.safetensors")
    settings = {"model_type": "wav2vec", **encode(network.config.architecture)}
    (folder / "config.json").write_text(json.dumps(settings))
    return settings


def test_the_network_is_loaded_from_a_folder_and_frozen(tmp_path):
    network = make_network()
    save_network(tmp_path, network)
    again = Wav2Vec.from_folder(tmp_path, Wav2VecConfig())
    sound = torch.from_numpy(SOUNDS[0])[None]
    torch.testing.assert_close(again(sound).values, network.float()(sound).values, atol=1e-6, rtol=0)
    assert again.config.architecture == network.config.architecture
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert Wav2Vec.from_folder(tmp_path, Wav2VecConfig("latent"))(sound).values.shape[2] == 6


def test_missing_or_wrong_files_are_named(tmp_path):
    with pytest.raises(BadConfig, match="wav2vec needs folder, to which affekt convert wrote"):
        Wav2Vec.from_folder(None, Wav2VecConfig())
    with pytest.raises(BadConfig, match=r"config\.json cannot be read .* affekt convert wav2vec_large\.pt"):
        Wav2Vec.from_folder(tmp_path, Wav2VecConfig())
    settings = save_network(tmp_path, make_network())
    tensors = load_file(tmp_path / "model.safetensors")
    name = "feature_aggregator.conv_layers.1.1.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(BadConfig, match=rf"lacks 1 weights of a wav2vec, first {name}"):
        Wav2Vec.from_folder(tmp_path, Wav2VecConfig())
    save_file({**tensors, name: tensors[name][:2].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(BadConfig, match=r"config\.json does not match the weights: size mismatch"):
        Wav2Vec.from_folder(tmp_path, Wav2VecConfig())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadConfig, match=r"model\.safetensors cannot be read"):
        Wav2Vec.from_folder(tmp_path, Wav2VecConfig())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "model_type": "wav2vec2"}))
    with pytest.raises(BadConfig, match="does not describe a wav2vec: set folder"):
        Wav2Vec.from_folder(tmp_path, Wav2VecConfig())


def test_an_invalid_architecture_is_refused():
    with pytest.raises(BadConfig, match="at least one encoder layer, and an aggregator of stride 1"):
        Wav2VecArchitecture(aggregator=((512, 2, 2),))


ARGUMENTS = {
    "arch": "wav2vec",
    "conv_feature_layers": str([(512, 10, 5), (512, 8, 4), *[(512, 4, 2)] * 3, (512, 1, 1), (512, 1, 1)]),
    "conv_aggregator_layers": str([(512, kernel, 1) for kernel in range(2, 14)]),
    "skip_connections_agg": True,
    "residual_scale": 0.5,
    "log_compression": True,
}


def test_fairseqs_arguments_of_the_large_network_are_the_defaults():
    assert build_settings(ARGUMENTS) == {"model_type": "wav2vec", **encode(Wav2VecArchitecture())}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aggregator": "gru"}, "an aggregator that is not convolutional"),
        ({"vq_type": "gumbel"}, r"a quantizer \(vq-wav2vec\)"),
        ({"skip_connections_feat": True}, "skip connections in its encoder"),
        ({"conv_feature_layers": "__import__('os').getcwd()"}, r"expected layers such as \[\(512, 10, 5\)"),
        ({"conv_feature_layers": "[(512, 10)]"}, "encoder"),
        ({"activation": "tanh"}, "activation"),
    ],
)
def test_fairseqs_arguments_of_another_network_are_refused(change, message):
    with pytest.raises(BadConfig, match=message):
        build_settings(ARGUMENTS | change)
    with pytest.raises(BadConfig, match="arguments lack log_compression"):
        build_settings({name: value for name, value in ARGUMENTS.items() if name != "log_compression"})
