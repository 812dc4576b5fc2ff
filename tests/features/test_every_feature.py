"""The contract of every feature in the registry, tested on small features with random weights.

Features of audio come first, features of text below.
"""

import re
from dataclasses import fields
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from affekt.audio.loudness import GateConfig
from affekt.config import decode, encode
from affekt.errors import BadConfig
from affekt.features import features
from affekt.features.speaker import ECAPA
from tests.conftest import ROOT
from tests.features import test_speaker, test_text, test_wav2vec
from tests.features.test_speech import FAMILY, pad_batch, save_encoder
from tests.sounds import noise

WHISPER = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
# Settings of small features. The encoders of a family are tested in both variants of their architecture.
TINY: dict[str, list[dict[str, Any]]] = {
    "log-mel": [{}, {"level": "relative", "gate": GateConfig()}],
    "mfcc": [{"deltas": 2}, {"window": 0.032, "hop": 0.011}],
    "spectrogram": [{"taper": "hamming", "hop": 0.011, "bins": 140}],
    "whisper": [
        {"blocks": (0, 2)},
        {"blocks": (1,), "level": "relative", "span": 40},
        {"blocks": (1,), "level": "relative", "span": 40, "gate": GateConfig()},
    ],
    "whisper-30s": [{"blocks": (0, 2)}],
    **{name: [{"blocks": (1, -1)}, {"blocks": (1, -1), "stable": True}] for name in FAMILY},
    "wav2vec": [{"output": "context"}, {"output": "latent"}],
    "ecapa": [{}],
}
TEXTS = ["I can't believe it's over...", "Well-known  words,\tnaïve café!", "Yes.", "", "a jacket and a jacket"]
WORDS = ["i", "ca", "n't", "believe", "it", "'s", "over", "well-known", "words", "yes", "a", "jacket", "and"]
WITHOUT_WEIGHTS = ("log-mel", "mfcc", "spectrogram")
# Text feature -> its family in test_text.
TEXT_FEATURES = {
    "bert": "bert",
    "minilm": "bert",
    "roberta": "roberta",
    "glove": "",
}
SOUNDS = [noise(samples, seed) for seed, samples in enumerate((9000, 1600, 5001, 9000, 4000))]


@pytest.fixture(
    scope="module", params=[(name, n) for name, variants in TINY.items() for n in range(len(variants))], ids=str
)
def feature(request, tmp_path_factory):
    name, number = request.param
    settings = dict(TINY[name][number])
    folder = None if name in WITHOUT_WEIGHTS else tmp_path_factory.mktemp(name)
    if name == "wav2vec":
        test_wav2vec.save_network(folder, test_wav2vec.make_network())
    elif name == "ecapa":
        save_file(
            test_speaker.randomize_weights(ECAPA(test_speaker.TINY)).network.state_dict(), folder / "model.safetensors"
        )
    elif name.startswith("whisper"):
        torch.manual_seed(0)
        WhisperEncoder(WhisperConfig(**WHISPER)).save_pretrained(folder)
    elif folder:
        save_encoder(name, folder, stable=settings.pop("stable", False))
    kind = features[name]
    return kind.from_folder(folder, kind.Config(**settings))


def alone(feature, sound):
    return feature(torch.from_numpy(sound)[None])


def test_every_feature_has_a_tiny_variant_here():
    assert set(TINY) == {name for name in features if features[name].input == "audio"}
    assert set(TEXT_FEATURES) == {name for name in features if features[name].input == "text"}


def test_a_batch_equals_one_by_one(feature):
    together = feature(*pad_batch(SOUNDS))
    for row, sound in enumerate(SOUNDS):
        expected = alone(feature, sound).values[0]
        if not feature.has_time:
            torch.testing.assert_close(together.values[row], expected, atol=2e-4, rtol=1e-4)
            continue
        assert together.lengths()[row] == len(expected)
        torch.testing.assert_close(together.values[row, : len(expected)], expected, atol=2e-4, rtol=1e-4)


def test_more_padding_changes_nothing(feature):
    waveforms, lengths = pad_batch(SOUNDS)
    once, more = feature(waveforms, lengths), feature(torch.nn.functional.pad(waveforms, (0, 3000)), lengths)
    if not feature.has_time:
        torch.testing.assert_close(more.values, once.values, atol=2e-4, rtol=1e-4)
        return
    assert once.lengths().tolist() == more.lengths().tolist()
    frames = int(once.lengths().max())
    torch.testing.assert_close(more.values[:, :frames], once.values[:, :frames], atol=2e-4, rtol=1e-4)


def test_padding_follows_the_frames_and_all_values_are_finite(feature):
    stream = feature(*pad_batch(SOUNDS))
    assert stream.has_time == feature.has_time
    assert not stream.has_time or (stream.mask[:, 1:] <= stream.mask[:, :-1]).all()
    assert stream.values.isfinite().all()
    assert alone(feature, 0 * SOUNDS[0]).values.isfinite().all()  # also of silence


def test_the_stream_has_the_stated_dim_and_frame_rate(feature):
    stream = alone(feature, noise(32_000))
    assert stream.values.shape[-1] == feature.dim
    assert feature.dim % feature.num_states == 0
    assert stream.frame_rate == feature.frame_rate
    if feature.frame_rate is not None:  # 2 s, minus a window at the edges
        assert stream.values.shape[1] == pytest.approx(2 * feature.frame_rate, abs=3)
    assert feature.sample_rate == 16_000


def test_settings_and_state_rebuild_the_feature(feature):
    kind = type(feature)
    again = kind(decode(kind.Config, encode(feature.config), "encoder")).eval()
    again.load_state_dict(feature.state_dict())
    torch.testing.assert_close(alone(again, SOUNDS[0]).values, alone(feature, SOUNDS[0]).values, atol=0, rtol=0)
    assert again.config == feature.config


def test_the_output_requires_no_gradient(feature):
    assert not feature(*pad_batch(SOUNDS)).values.requires_grad


def test_a_missing_or_needless_folder_is_refused(feature, tmp_path):
    folder = None if list(feature.parameters()) else tmp_path
    message = "needs folder" if folder is None else "no weights; remove folder"
    with pytest.raises(BadConfig, match=message):
        type(feature).from_folder(folder, type(feature).Config())


@pytest.fixture(scope="module", params=list(TEXT_FEATURES))
def text_feature(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "glove":
        (folder / "tiny.txt").write_text("".join(f"{word} 0.{n} -1.{n} 0.5\n" for n, word in enumerate(WORDS)))
    else:
        test_text.save_text_encoder(TEXT_FEATURES[request.param], folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFEKT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield features[request.param].from_folder(folder, features[request.param].Config())


def test_texts_together_equal_one_by_one(text_feature):
    together = text_feature(TEXTS)
    for row, text in enumerate(TEXTS):
        expected = text_feature([text])
        count = int(together.lengths()[row])
        assert expected.values.shape[1] == count > 0
        torch.testing.assert_close(together.values[row, :count], expected.values[0], atol=1e-5, rtol=1e-5)
        assert not together.values[row, count:].any()


def test_word_indices_are_the_same_without_the_network(text_feature):
    together = text_feature(TEXTS)
    for row, (text, words) in enumerate(zip(TEXTS, text_feature.word_indices(TEXTS), strict=True)):
        assert together.word_index[row, : len(words)].tolist() == words.tolist()
        assert (together.word_index[row, len(words) :] == -1).all()
        assert set(words.tolist()) - {-1} == set(range(len(text.split())))


def test_a_stream_of_tokens_has_the_stated_dim_and_no_frame_rate(text_feature):
    stream = text_feature(TEXTS)
    assert stream.values.shape[2] == text_feature.dim
    assert stream.frame_rate is text_feature.frame_rate is None
    assert not stream.values.requires_grad


@pytest.mark.parametrize("name", features)
def test_the_table_in_the_docs_states_rates_sizes_and_settings(name):
    table = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    (row,) = (line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
    _, _, _, rate, dim, settings, _ = (cell.strip() for cell in row.split("|"))
    kind = features[name]
    instance = kind(kind.Config()) if dim.isdigit() else kind
    assert (None if rate == "none" else float(rate)) == instance.frame_rate
    assert not dim.isdigit() or int(dim) == instance.dim
    known = {field.name for field in fields(kind.Config)} | {"folder", "checkpoint"}
    assert set(re.findall(r"`(\w+)`", settings)) <= known
