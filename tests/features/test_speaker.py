"""ECAPA-TDNN compared with references written as loops; its batches, its checkpoint, and the speakers of EmoDB."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from affekt.audio.read import load
from affekt.errors import BadConfig
from affekt.features.speaker import (
    ECAPA,
    AttentiveStatistics,
    Conv,
    DecibelMel,
    ECAPAConfig,
    Network,
    Res2Net,
    SqueezeExcitation,
    equal_error_rate,
    pad_by_reflection,
)
from tests.features.test_spectral import assert_onnx_equals_torch
from tests.sounds import noise, tone

TINY = ECAPAConfig(channels=8, scale=4, squeezed=3, pooled=10, attention=4, dim=5, mels=6)


@pytest.fixture(scope="session")
def voxceleb(ecapa_folder):
    return ECAPA.from_folder(ecapa_folder, ECAPAConfig())


def randomize_weights(module, seed=0):
    """Return the module in float64, with random weights and running statistics instead of zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval().requires_grad_(False)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and name.split(".")[-1] not in ("basis", "mel"):
            random = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(random.abs() + 0.5 if name.endswith("running_var") else 0.5 * random)
    return module


@pytest.fixture
def tiny():
    return randomize_weights(ECAPA(TINY))


def sounds(*samples):
    """Return a batch of waveforms, padded with zeros, and their lengths."""
    waveforms = [torch.from_numpy(noise(count, seed)).double() for seed, count in enumerate(samples)]
    return torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True), torch.tensor(samples)


# The references, written as loops: x is a list of channels, each a list of frames.


def loop_conv(x, conv):
    """Compute a convolution over frames with reflection: frame -1 is frame 1, the frame after the end is the last but one."""
    weight, frames = conv.conv.weight.tolist(), len(x[0])
    (kernel,), (dilation,) = conv.conv.kernel_size, conv.conv.dilation
    result = []
    for row, bias in zip(weight, conv.conv.bias.tolist(), strict=True):
        channel = []
        for t in range(frames):
            total = bias
            for i, taps in enumerate(row):
                for k, tap in enumerate(taps):
                    at = abs(t + (k - (kernel - 1) // 2) * dilation)
                    total += tap * x[i][at if at < frames else 2 * (frames - 1) - at]
            channel.append(total)
        result.append(channel)
    return result


def loop_norm(x, norm):
    n = norm.norm
    return [
        [(value - mean) / math.sqrt(variance + n.eps) * scale + shift for value in channel]
        for channel, mean, variance, scale, shift in zip(
            x, *(v.tolist() for v in (n.running_mean, n.running_var, n.weight, n.bias)), strict=True
        )
    ]


def loop_tdnn(x, tdnn):
    return loop_norm([[max(0.0, value) for value in channel] for channel in loop_conv(x, tdnn.conv)], tdnn.norm)


def loop_res2net(x, layer):
    width = len(x) // (len(layer.blocks) + 1)
    outputs, previous = x[:width], None
    for number, block in enumerate(layer.blocks, start=1):
        group = x[number * width : (number + 1) * width]
        if previous is not None:
            group = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(group, previous, strict=True)]
        previous = loop_tdnn(group, block)
        outputs = outputs + previous
    return outputs


def loop_squeeze_excitation(x, layer):
    means = [[sum(channel) / len(channel)] for channel in x]
    hidden = [[max(0.0, value[0])] for value in loop_conv(means, layer.conv1)]
    weights = [1 / (1 + math.exp(-value[0])) for value in loop_conv(hidden, layer.conv2)]
    return [[weight * value for value in channel] for weight, channel in zip(weights, x, strict=True)]


def loop_moments(channel, weights):
    mean = sum(w * v for w, v in zip(weights, channel, strict=True))
    return mean, math.sqrt(max(1e-12, sum(w * (v - mean) ** 2 for w, v in zip(weights, channel, strict=True))))


def loop_statistics(x, layer):
    frames = len(x[0])
    unweighted = [loop_moments(channel, [1 / frames] * frames) for channel in x]
    context = x + [[mean] * frames for mean, _ in unweighted] + [[std] * frames for _, std in unweighted]
    scores = loop_conv([[math.tanh(v) for v in channel] for channel in loop_tdnn(context, layer.tdnn)], layer.conv)
    weights = [[math.exp(v) / sum(map(math.exp, channel)) for v in channel] for channel in scores]
    weighted = [loop_moments(channel, row) for channel, row in zip(x, weights, strict=True)]
    return [[mean] for mean, _ in weighted] + [[std] for _, std in weighted]


def loop_network(mel, network):
    first, *blocks = network.blocks
    x, states = loop_tdnn(mel, first), []
    for block in blocks:
        inner = loop_tdnn(loop_res2net(loop_tdnn(x, block.tdnn1), block.res2net_block), block.tdnn2)
        excited = loop_squeeze_excitation(inner, block.se_block)
        x = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(x, excited, strict=True)]
        states = states + x
    return loop_conv(
        loop_norm(loop_statistics(loop_tdnn(states, network.mfa), network.asp), network.asp_bn), network.fc
    )


def loop_mel(sound, mels, filters):
    """Return (mels, frames): the Fourier sum in Hamming windows around every 160th sample, in decibels, minus the mean."""
    columns = []
    for frame in range(1 + len(sound) // 160):
        window = np.zeros(400)
        for n in range(400):
            if 0 <= (at := frame * 160 - 200 + n) < len(sound):
                window[n] = sound[at] * (0.54 - 0.46 * math.cos(2 * math.pi * n / 400))
        power = np.array(
            [abs(np.sum(window * np.exp(-2j * np.pi * k * np.arange(400) / 400))) ** 2 for k in range(201)]
        )
        columns.append([10 * math.log10(max(1e-10, float(filters[m] @ power))) for m in range(mels)])
    decibels = np.maximum(np.array(columns).T, np.max(columns) - 80)
    return decibels - decibels.mean(axis=1, keepdims=True)


def loop_filters(mels):
    """Return triangles on HTK's mel scale; both sides are as wide as the distance to the center below."""

    def hertz(mel):
        return 700 * (10 ** (mel / 2595) - 1)

    top = 2595 * math.log10(1 + 8000 / 700)
    rows = np.zeros((mels, 201))
    for m in range(mels):
        below, center = hertz(top * m / (mels + 1)), hertz(top * (m + 1) / (mels + 1))
        for k in range(201):
            rows[m, k] = max(0.0, 1 - abs(40 * k - center) / (center - below))
    return rows


def test_the_layers_equal_their_loops():
    x = torch.randn(8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for layer, reference, arguments in (
        (Conv(8, 3, 5), loop_conv, ()),
        (Res2Net(8, 4, 3), loop_res2net, (None,)),
        (SqueezeExcitation(8, 3), loop_squeeze_excitation, (None,)),
        (AttentiveStatistics(8, 4), loop_statistics, (None,)),
    ):
        layer = randomize_weights(layer)
        expected = torch.tensor(reference(x.tolist(), layer), dtype=torch.float64)
        torch.testing.assert_close(layer(x[None], *arguments)[0], expected, atol=1e-10, rtol=1e-10)


def test_the_network_equals_its_loop():
    network = randomize_weights(Network(TINY))
    mel = torch.randn(1, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = torch.tensor(loop_network(mel[0].tolist(), network), dtype=torch.float64)[:, 0]
    torch.testing.assert_close(network(mel)[0], expected, atol=1e-10, rtol=1e-10)


def test_the_mel_frames_are_the_fourier_sum():
    sound = 0.3 * noise(1700) + tone(seconds=1700 / 16_000, frequency=1000, amplitude=0.6)
    decibels = DecibelMel(10)(torch.from_numpy(sound)[None])[0]
    np.testing.assert_allclose(decibels, loop_mel(sound, 10, loop_filters(10)), atol=2e-3)


def test_decibels_are_limited_to_80_below_the_maximum():
    sound = torch.cat([torch.from_numpy(tone(0.3)), torch.zeros(4800)])[None]
    decibels = DecibelMel()(sound)[0]
    # The mean of each filter was subtracted, but its range remains.
    assert (decibels.amax(dim=1) - decibels.amin(dim=1)).max() == pytest.approx(80.0, abs=1e-3)


def test_the_gain_does_not_change_the_embedding(tiny):
    waveform = torch.from_numpy(noise(8000)).double()[None]
    torch.testing.assert_close(tiny(0.1 * waveform).values, tiny(waveform).values, atol=1e-6, rtol=1e-6)


def test_frames_are_reflected_at_the_end_of_each_utterance():
    x = torch.arange(1.0, 9.0).expand(1, 2, 8).contiguous()
    both = pad_by_reflection(torch.cat([x, x]), 2, torch.tensor([8, 5]))
    assert both[0, 0].tolist() == [3, 2, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6]
    assert both[1, 0, :9].tolist() == [3, 2, 1, 2, 3, 4, 5, 4, 3]


def test_a_batch_equals_one_by_one_for_short_utterances_too(tiny):
    samples = (9000, 1600, 5001, 9000, 4000, 800)
    waveforms, lengths = sounds(*samples)
    for padded in (waveforms, torch.nn.functional.pad(waveforms, (0, 3000))):
        together = tiny(padded, lengths).values
        for row, count in enumerate(samples):
            alone = tiny(waveforms[row : row + 1, :count]).values[0]
            torch.testing.assert_close(together[row], alone, atol=1e-9, rtol=1e-9)


def test_the_stream_is_a_vector_without_time(tiny):
    stream = tiny(*sounds(1600, 3200))
    assert stream.values.shape == (2, tiny.dim) == (2, 5)
    assert (stream.has_time, tiny.has_time, stream.mask, stream.frame_rate, tiny.frame_rate) == (
        False,
        False,
        *[None] * 3,
    )
    assert tiny(torch.zeros(1, 1600, dtype=torch.float64)).values.isfinite().all()


def test_the_default_is_the_published_network():
    with torch.device("meta"):
        network = Network(ECAPAConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_767_552
    assert ECAPAConfig().dim == 192


def test_a_checkpoints_sizes_are_read_from_its_weights(tiny, tmp_path):
    save_file({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in
               tiny.network.state_dict().items()}, tmp_path / "model.safetensors")  # fmt: skip
    read = ECAPA.from_folder(tmp_path, ECAPAConfig())
    assert read.config == TINY
    assert {tensor.dtype for tensor in read.parameters()} == {torch.float32}
    waveform = torch.from_numpy(noise(4000))[None]
    torch.testing.assert_close(read(waveform).values.double(), tiny(waveform.double()).values, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("damage", ["missing", "more", "shape", "foreign"])
def test_missing_additional_or_foreign_weights_are_refused(damage, tiny, tmp_path):
    weights = dict(tiny.network.state_dict())
    if damage == "missing":
        del weights["asp.conv.conv.bias"]
    elif damage == "more":
        weights["classifier.weight"] = torch.zeros(3)
    elif damage == "shape":
        weights["asp_bn.norm.weight"] = torch.zeros(3)
    else:
        weights = {"weight": torch.zeros(3)}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BadConfig, match="has no ECAPA-TDNN with SpeechBrain's parameter names"):
        ECAPA.from_folder(tmp_path, ECAPAConfig())


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(BadConfig, match="ecapa needs folder"):
        ECAPA.from_folder(None, ECAPAConfig())
    with pytest.raises(BadConfig, match=r"expected model\.safetensors"):
        ECAPA.from_folder(tmp_path, ECAPAConfig())
    with pytest.raises(BadConfig, match="scale = 3: expected a divisor of channels = 1024"):
        ECAPAConfig(scale=3)


def test_the_equal_error_rate_of_known_scores():
    assert equal_error_rate(np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.3])) == 0.0
    assert equal_error_rate(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == 1.0
    assert equal_error_rate(np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.1, 0.1, 0.1, 0.75])) == 0.25
    draws = np.random.default_rng(0)
    assert equal_error_rate(draws.normal(2, 1, 40_000), draws.normal(0, 1, 60_000)) == pytest.approx(0.1587, abs=0.004)


def test_every_weight_of_the_published_checkpoint_is_read(voxceleb, ecapa_folder):
    assert voxceleb.config == ECAPAConfig()
    assert set(voxceleb.network.state_dict()) == set(load_file(ecapa_folder / "model.safetensors"))


def test_the_embedding_separates_the_speakers_of_emodb(voxceleb, emodb):
    """Four clips of each of three speakers: clips of the same speaker are more similar than those of different ones."""
    files = [path for speaker in ("03", "08", "13") for path in sorted((emodb / "wav").glob(f"{speaker}a0*"))[:8:2]]
    vectors = np.stack([voxceleb(torch.from_numpy(load(path))[None]).values[0].numpy() for path in files])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    speakers = np.array([path.name[:2] for path in files])
    first, second = np.triu_indices(len(vectors), k=1)
    scores, same = (vectors @ vectors.T)[first, second], speakers[first] == speakers[second]
    assert (len(scores), same.sum()) == (66, 18)
    assert equal_error_rate(scores[same], scores[~same]) < 0.15


@pytest.mark.slow
def test_the_onnx_graph_equals_torch_at_any_length(tmp_path):
    assert_onnx_equals_torch(randomize_weights(ECAPA(TINY)).float(), tmp_path / "feature.onnx", atol=1e-3)
