"""MFCC and spectrogram against references that are written as loops over frames, bins and mels."""

import math
import warnings
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from affekt.errors import BadConfig
from affekt.features.spectral import MFCC, MFCCConfig, Spectrogram, SpectrogramConfig, differences
from affekt.features.whisper import mel_filters
from tests.conftest import shapes_unchecked
from tests.sounds import noise, tone


def loop_spectrogram(sound, window, hop, taper, bins):
    """(frames, bins): the power of the Fourier sum, written out."""
    frames = []
    for start in range(0, len(sound) - window + 1, hop):
        powers = []
        for k in range(bins):
            total = 0j
            for n in range(window):
                weight = taper - (1 - taper) * math.cos(2 * math.pi * n / window)
                total += (
                    weight
                    * float(sound[start + n])
                    * complex(math.cos(2 * math.pi * k * n / window), -math.sin(2 * math.pi * k * n / window))
                )
            powers.append(abs(total) ** 2)
        frames.append(powers)
    return np.array(frames)


def loop_mfcc(power, window, mels, coefficients):
    """(frames, coefficients), from the power: triangles, logarithm, cosine transform."""
    filters = mel_filters(mels, window, 16_000).double().numpy()
    result = []
    for frame in power:
        logs = [math.log(max(1e-10, sum(f * p for f, p in zip(row, frame, strict=True)))) for row in filters]
        row = []
        for k in range(coefficients):
            total = sum(logs[m] * math.cos(math.pi * k * (2 * m + 1) / (2 * mels)) for m in range(mels))
            row.append(total * math.sqrt((1 if k == 0 else 2) / mels))
        result.append(row)
    return np.array(result)


def loop_differences(values):
    frames, dim = values.shape
    result = np.zeros_like(values)
    for t in range(frames):
        for d in range(dim):
            for n in (1, 2):
                result[t, d] += n * (values[min(t + n, frames - 1), d] - values[max(t - n, 0), d]) / 10
    return result


def test_the_spectrogram_is_the_fourier_sum():
    sound = noise(500)
    for config, window, hop, taper, bins in (
        (SpectrogramConfig(window=0.004, hop=0.002), 64, 32, 0.5, 33),
        (SpectrogramConfig(window=0.004, hop=0.0015, taper="hamming", bins=20), 64, 24, 0.54, 20),
    ):
        feature = Spectrogram(config)
        stream = feature(torch.from_numpy(sound)[None])
        expected = np.log(np.maximum(loop_spectrogram(sound, window, hop, taper, bins), 1e-10))
        np.testing.assert_allclose(stream.values[0].numpy(), expected, atol=2e-3)
        assert stream.values.shape[2] == feature.dim == bins
        assert stream.frame_rate == feature.frame_rate == 16_000 / hop


def test_mfcc_are_the_cosine_transform_of_log_mels_and_deltas_their_slopes():
    sound = noise(700)
    config = MFCCConfig(coefficients=6, mels=8, deltas=2, window=0.008, hop=0.004)
    values = MFCC(config)(torch.from_numpy(sound)[None]).values[0].numpy()
    static = loop_mfcc(loop_spectrogram(sound, 128, 64, 0.5, 65), 128, 8, 6)
    slopes = loop_differences(static)
    expected = np.concatenate([static, slopes, loop_differences(slopes)], axis=1)
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_all_cosines_together_turn_the_log_mels_and_lose_nothing():
    dct = pytest.importorskip("scipy.fft").dct
    sound = torch.from_numpy(noise(4000))[None]
    feature = MFCC(MFCCConfig(coefficients=80, mels=80))
    cepstra = feature(sound).values[0].numpy()
    log_mels = (feature.spectrum(sound).transpose(1, 2) @ feature.mel).clamp(min=1e-10).log()[0].numpy()
    np.testing.assert_allclose(cepstra, dct(log_mels, type=2, norm="ortho", axis=1), atol=1e-3)
    np.testing.assert_allclose((cepstra**2).sum(), (log_mels**2).sum(), rtol=1e-4)


def test_defaults_are_those_of_the_field():
    feature = MFCC(MFCCConfig())
    stream = feature(torch.zeros(1, 16_000))
    assert (feature.dim, feature.frame_rate) == (40, 100.0)
    assert stream.values.shape == (1, 98, 40)  # 1 + (16000 - 400) // 160


def test_a_tone_stands_where_its_frequency_is():
    values = Spectrogram(SpectrogramConfig())(torch.from_numpy(tone(frequency=2000))[None]).values[0]
    assert (values.argmax(dim=1) == 50).all()  # bins are 40 Hz apart


def test_the_gain_moves_the_first_coefficient_alone():
    sound = torch.from_numpy(noise(16_000))[None]
    feature = MFCC(MFCCConfig(deltas=1))
    soft, loud = feature(0.1 * sound).values[0], feature(sound).values[0]
    change = loud - soft
    torch.testing.assert_close(
        change[:, 0], torch.full_like(change[:, 0], math.sqrt(80) * math.log(100)), atol=1e-2, rtol=0
    )
    torch.testing.assert_close(change[:, 1:], torch.zeros_like(change[:, 1:]), atol=1e-3, rtol=0)


def test_deltas_of_a_rise_are_its_slope():
    rise = torch.arange(10.0)[None, :, None] * torch.tensor([1.0, -3.0])
    torch.testing.assert_close(differences(rise)[0, 2:-2], torch.tensor([1.0, -3.0]).expand(6, 2))


def assert_onnx_equals_torch(feature, path, atol):
    """The feature as an ONNX graph, written to `path`, gives what it gives in torch: for one or many, at any length."""

    class Values(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.feature = feature

        def forward(self, waveform):
            return self.feature(waveform).values

    dynamic = {"waveform": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    with shapes_unchecked(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        torch.onnx.export(
            Values().eval(),
            (torch.zeros(2, 8000),),
            path,
            dynamo=True,
            verbose=False,
            dynamic_shapes=dynamic,
            input_names=["waveform"],
            output_names=["values"],
            opset_version=23,
        )
    session = onnxruntime.InferenceSession(path)
    for batch, samples in ((1, 1600), (3, 5555), (2, 16_000)):
        sound = np.stack([noise(samples, seed) for seed in range(batch)])
        (values,) = session.run(None, {"waveform": sound})
        np.testing.assert_allclose(values, feature(torch.from_numpy(sound)).values.numpy(), atol=atol)


@pytest.mark.parametrize("feature", [MFCC(MFCCConfig(deltas=2)), Spectrogram(SpectrogramConfig(hop=0.011, bins=140))])
def test_the_onnx_graph_equals_torch_at_any_length(feature, tmp_path):
    assert_onnx_equals_torch(feature, tmp_path / "feature.onnx", atol=2e-3)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (SpectrogramConfig, {"window": 0.06}, r"window = 0.06 s: expected up to 0.05 s in whole samples"),
        (SpectrogramConfig, {"window": 0.02501}, r"window = 0.02501 s: expected .* whole samples of 16 kHz"),
        (SpectrogramConfig, {"window": 401 / 16_000}, r"is 401 samples at 16 kHz: expected an even number"),
        (SpectrogramConfig, {"hop": 0.0}, r"hop = 0.0 s: expected up to"),
        (SpectrogramConfig, {"bins": 202}, r"bins = 202: a window of 0.025 s has 201"),
        (MFCCConfig, {"coefficients": 81}, r"coefficients = 81: expected 1 to mels = 80"),
        (MFCCConfig, {"mels": 300}, r"mels = 300: a window of 0.025 s is too short to tell them apart"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config, settings, message):
    with pytest.raises(BadConfig, match=message):
        replace(config(), **settings)
