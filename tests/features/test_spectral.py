"""MFCC and spectrogram compared with references written as loops over frames, frequencies and mels."""

import math
import warnings
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from affekt.audio.loudness import mel_filters
from affekt.errors import BadConfig
from affekt.features.spectral import (
    EMOTIONNAS,
    MCSAN,
    MFCC,
    MFCCConfig,
    Spectrogram,
    SpectrogramConfig,
    compute_deltas,
)
from tests.conftest import shapes_unchecked
from tests.sounds import noise, tone


def loop_spectrogram(sound, window, hop, taper, bins):
    """Return the power of the Fourier sum, (frames, bins)."""
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
    """Return the coefficients, (frames, coefficients), from the power: mel filters, logarithm, cosine transform."""
    filters = mel_filters(mels, window, 16_000)
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


def test_the_spectrogram_equals_the_fourier_sum():
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


def test_mfcc_equal_the_cosine_transform_of_log_mels_and_deltas_their_slopes():
    sound = noise(700)
    config = MFCCConfig(coefficients=6, mels=8, deltas=2, window=0.008, hop=0.004)
    values = MFCC(config)(torch.from_numpy(sound)[None]).values[0].numpy()
    static = loop_mfcc(loop_spectrogram(sound, 128, 64, 0.5, 65), 128, 8, 6)
    slopes = loop_differences(static)
    expected = np.concatenate([static, slopes, loop_differences(slopes)], axis=1)
    np.testing.assert_allclose(values, expected, atol=1e-3)


def test_the_full_cosine_transform_is_orthonormal():
    dct = pytest.importorskip("scipy.fft").dct
    sound = torch.from_numpy(noise(4000))[None]
    feature = MFCC(MFCCConfig(coefficients=80, mels=80))
    cepstra = feature(sound).values[0].numpy()
    log_mels = (feature.spectrum(sound).transpose(1, 2) @ feature.mel).clamp(min=1e-10).log()[0].numpy()
    np.testing.assert_allclose(cepstra, dct(log_mels, type=2, norm="ortho", axis=1), atol=1e-3)
    np.testing.assert_allclose((cepstra**2).sum(), (log_mels**2).sum(), rtol=1e-4)


def test_the_defaults_are_40_coefficients_and_100_frames_per_second():
    feature = MFCC(MFCCConfig())
    stream = feature(torch.zeros(1, 16_000))
    assert (feature.dim, feature.frame_rate) == (40, 100.0)
    assert stream.values.shape == (1, 98, 40)  # 1 + (16000 - 400) // 160


def test_a_tone_is_at_its_frequency():
    values = Spectrogram(SpectrogramConfig())(torch.from_numpy(tone(frequency=2000))[None]).values[0]
    assert (values.argmax(dim=1) == 50).all()  # bins are 40 Hz apart


def test_the_gain_changes_the_first_coefficient_only():
    sound = torch.from_numpy(noise(16_000))[None]
    feature = MFCC(MFCCConfig(deltas=1))
    soft, loud = feature(0.1 * sound).values[0], feature(sound).values[0]
    change = loud - soft
    torch.testing.assert_close(
        change[:, 0], torch.full_like(change[:, 0], math.sqrt(80) * math.log(100)), atol=1e-2, rtol=0
    )
    torch.testing.assert_close(change[:, 1:], torch.zeros_like(change[:, 1:]), atol=1e-3, rtol=0)


def test_the_deltas_of_a_linear_rise_are_its_slope():
    rise = torch.arange(10.0)[None, :, None] * torch.tensor([1.0, -3.0])
    torch.testing.assert_close(compute_deltas(rise)[0, 2:-2], torch.tensor([1.0, -3.0]).expand(6, 2))


# The settings of the papers, compared with numpy's FFT.


def numpy_power(sound, hop, taper, *, centered=False):
    """Return the power of windows of 25 ms, (frames, 201)."""
    sound = np.pad(sound.astype(np.float64), 200) if centered else sound.astype(np.float64)
    window = taper - (1 - taper) * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(sound) - 400 + 1, hop)
    return np.array([np.abs(np.fft.rfft(sound[start : start + 400] * window)) ** 2 for start in starts])


def numpy_decibels(power):
    values = 10 * np.log10(np.maximum(power, 1e-10))
    return np.maximum(values, values.max() - 80)


def speechlike(samples, seed=0):
    """Return noise that fades out, so that its end is far below the maximum."""
    return noise(samples, seed) * np.geomspace(1, 1e-5, samples).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.1, 3.0, 8.0, 9.5])
def test_emotionnas_spectrogram_is_140_means_of_five_frames_of_eight_seconds(seconds):
    sound = speechlike(round(seconds * 16_000))
    eight = np.zeros(128_000, np.float32)
    eight[: len(sound)] = sound[:128_000]
    decibels = numpy_decibels(numpy_power(eight, 176, 0.54)[:, :140])
    assert len(decibels) == 726
    expected = [decibels[5 * i : 5 * i + 5].mean(axis=0) for i in range(140)]
    feature = Spectrogram(EMOTIONNAS)
    stream = feature(torch.from_numpy(sound)[None])
    np.testing.assert_allclose(stream.values[0], expected, atol=2e-2)
    assert (feature.dim, stream.frame_rate, stream.mask) == (140, 16_000 / 176 / 5, None)
    assert stream.values.shape == (1, 140, 140)


def test_adaptive_means_count_a_frame_on_a_boundary_twice():
    sound = speechlike(20_000)
    config = replace(EMOTIONNAS, pool="adaptive")
    decibels = torch.from_numpy(numpy_decibels(numpy_power(np.pad(sound, (0, 108_000)), 176, 0.54)[:, :140]))
    expected = torch.nn.functional.adaptive_avg_pool1d(decibels.T[None], 140)[0].T
    stream = Spectrogram(config)(torch.from_numpy(sound)[None])
    np.testing.assert_allclose(stream.values[0], expected, atol=2e-2)
    assert stream.frame_rate == Spectrogram(config).frame_rate == pytest.approx(140 / 7.986, rel=1e-3)


def test_utterances_of_fixed_length_are_independent_in_a_batch():
    waveforms = torch.zeros(2, 140_000)
    waveforms[0], waveforms[1, :5000] = torch.from_numpy(noise(140_000)), torch.from_numpy(noise(5000, 1))
    for config in (EMOTIONNAS, replace(EMOTIONNAS, pool=1, frames=None), replace(EMOTIONNAS, pool="adaptive")):
        feature = Spectrogram(config)
        together = feature(waveforms, torch.tensor([140_000, 5000]))
        alone = feature(waveforms[1:, :5000])
        torch.testing.assert_close(together.values[1], alone.values[0], atol=1e-4, rtol=0)
        assert together.mask.all()
        assert together.lengths().tolist() == [alone.values.shape[1]] * 2


def test_frames_limits_the_number_of_frames():
    waveforms = torch.from_numpy(np.stack([noise(4000), noise(4000, 1)]))
    whole, cut = (Spectrogram(SpectrogramConfig(frames=frames)) for frames in (None, 10))
    lengths = torch.tensor([4000, 1500])
    torch.testing.assert_close(cut(waveforms).values, whole(waveforms).values[:, :10])
    assert cut(waveforms, lengths).lengths().tolist() == [10, 7]


def test_mcsan_mfcc_follow_librosas_definition():
    """Frames centered on every 10 ms, decibels with a range of 80, the orthonormal DCT of 128 mels on Slaney's scale."""
    dct = pytest.importorskip("scipy.fft").dct
    sound = speechlike(20_000)
    mels = numpy_power(sound, 160, 0.5, centered=True) @ mel_filters(128, 400, 16_000).T
    expected = dct(numpy_decibels(mels), type=2, norm="ortho", axis=1)[:, :40]
    stream = MFCC(MCSAN)(torch.from_numpy(sound)[None])
    np.testing.assert_allclose(stream.values[0], expected, atol=5e-2)
    assert stream.values.shape == (1, 126, 40)  # 1 + 20000 // 160
    assert stream.frame_rate == 100.0


@pytest.mark.parametrize("feature", [MFCC(MCSAN), Spectrogram(SpectrogramConfig(scale="db", centered=True))])
def test_centered_decibels_in_a_batch_equal_one_by_one(feature):
    """The floor is relative to each utterance's own maximum: a loud utterance does not raise the floor of a soft one."""
    samples = (9000, 1600, 5001)
    waveforms = torch.zeros(3, 9500)
    for row, count in enumerate(samples):
        waveforms[row, :count] = torch.from_numpy(speechlike(count, row)) * 10.0**-row
    together = feature(waveforms, torch.tensor(samples))
    assert together.lengths().tolist() == [1 + count // 160 for count in samples]
    for row, count in enumerate(samples):
        alone = feature(waveforms[row : row + 1, :count]).values[0]
        torch.testing.assert_close(together.values[row, : len(alone)], alone, atol=1e-3, rtol=1e-4)


def test_decibels_are_4_343_times_the_natural_logarithm_with_a_range_of_80():
    sound = torch.from_numpy(speechlike(16_000))[None]
    natural = Spectrogram(SpectrogramConfig())(sound).values
    decibels = Spectrogram(SpectrogramConfig(scale="db"))(sound).values
    assert decibels.max() - decibels.min() == pytest.approx(80.0, abs=1e-4)
    above = decibels > decibels.min()
    torch.testing.assert_close(decibels[above], natural[above] * 10 / math.log(10), atol=1e-3, rtol=0)


def assert_onnx_equals_torch(feature, path, atol):
    """Export the feature to `path` and assert that its output equals that of torch, for several batch sizes and lengths."""

    class Values(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.feature = feature

        def forward(self, waveform):
            return self.feature(waveform).values

    dynamic = {"waveform": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}}
    with shapes_unchecked(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the exporter
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "feature",
    [
        MFCC(MFCCConfig(deltas=2)),
        Spectrogram(SpectrogramConfig(hop=0.011, bins=140)),
        Spectrogram(EMOTIONNAS),
        MFCC(MCSAN),
    ],
    ids=["deltas", "bins", "emotionnas", "mcsan"],
)
def test_the_onnx_graph_equals_torch_at_any_length(feature, tmp_path):
    assert_onnx_equals_torch(feature, tmp_path / "feature.onnx", atol=2e-3)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (SpectrogramConfig, {"window": 0.06}, r"window = 0.06 s: expected up to 0.05 s in whole samples"),
        (SpectrogramConfig, {"window": 0.02501}, r"window = 0.02501 s: expected .* whole samples"),
        (SpectrogramConfig, {"window": 401 / 16_000}, r"is 401 samples at 16 kHz: expected an even number"),
        (SpectrogramConfig, {"hop": 0.0}, r"hop = 0.0 s: expected up to"),
        (SpectrogramConfig, {"bins": 202}, r"bins = 202: a window of 0.025 s has only 201"),
        (SpectrogramConfig, {"frames": 0}, r"frames = 0: expected 1 or more"),
        (SpectrogramConfig, {"pool": 0, "seconds": 1.0}, r"pool = 0: expected 1 or more, or .adaptive."),
        (SpectrogramConfig, {"pool": 5}, r"pool = 5 needs seconds"),
        (SpectrogramConfig, {"seconds": 0.02}, r"seconds = 0.02: expected at least the window, 0.025"),
        (SpectrogramConfig, {"seconds": 1.0, "pool": "adaptive"}, r"needs frames"),
        (
            SpectrogramConfig,
            {"seconds": 1.0, "pool": 5, "frames": 20},
            r"frames = 20: 1.0 s are 19 frames with pool = 5",
        ),
        (SpectrogramConfig, {"seconds": 1.0, "pool": 99}, r"frames = 1: 1.0 s are 0 frames with pool = 99"),
        (MFCCConfig, {"coefficients": 81}, r"coefficients = 81: expected 1 to mels = 80"),
        (MFCCConfig, {"mels": 300}, r"mels = 300: a window of 0.025 s is too short"),
    ],
)
def test_invalid_settings_are_refused(config, settings, message):
    with pytest.raises(BadConfig, match=message):
        replace(config(), **settings)
