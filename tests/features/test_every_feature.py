"""What is true of every feature in the registry, small ones of random weights where there are weights."""

import re
from dataclasses import fields

import pytest
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from affekt.config import decode, encode
from affekt.errors import BadConfig
from affekt.features import features
from tests.conftest import ROOT
from tests.features.test_speech import FAMILY, padded, saved
from tests.sounds import noise

WHISPER = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
# The settings of a small one; for the encoders of a family both ways in which they are built.
TINY = {
    "log-mel": [{}],
    "mfcc": [{"deltas": 2}, {"window": 0.032, "hop": 0.011}],
    "spectrogram": [{"taper": "hamming", "hop": 0.011, "bins": 140}],
    "whisper": [{"blocks": (0, 2)}, {"blocks": (1,), "level": "relative", "span": 40}],
    "whisper-30s": [{"blocks": (0, 2)}],
    **{name: [{"blocks": (1, -1)}, {"blocks": (1, -1), "stable": True}] for name in FAMILY},
}
SOUNDS = [noise(samples, seed) for seed, samples in enumerate((9000, 1600, 5001, 9000, 4000))]


@pytest.fixture(
    scope="module", params=[(name, n) for name in features for n in range(len(TINY.get(name, [{}])))], ids=str
)
def feature(request, tmp_path_factory):
    name, number = request.param
    settings = dict(TINY[name][number])
    folder = tmp_path_factory.mktemp(name) if name.startswith("whisper") or name in FAMILY else None
    if name.startswith("whisper"):
        torch.manual_seed(0)
        WhisperEncoder(WhisperConfig(**WHISPER)).save_pretrained(folder)
    elif folder:
        saved(name, folder, stable=settings.pop("stable", False))
    kind = features[name]
    return kind.from_folder(folder, kind.Config(**settings))


def alone(feature, sound):
    return feature(torch.from_numpy(sound)[None])


def test_every_feature_has_a_tiny_form_here():
    assert set(TINY) == set(features)


def test_a_batch_equals_one_by_one(feature):
    together = feature(*padded(SOUNDS))
    for row, sound in enumerate(SOUNDS):
        expected = alone(feature, sound).values[0]
        assert together.lengths()[row] == len(expected)
        torch.testing.assert_close(together.values[row, : len(expected)], expected, atol=2e-4, rtol=1e-4)


def test_more_padding_changes_nothing(feature):
    waveforms, lengths = padded(SOUNDS)
    once, more = feature(waveforms, lengths), feature(torch.nn.functional.pad(waveforms, (0, 3000)), lengths)
    assert once.lengths().tolist() == more.lengths().tolist()
    frames = int(once.lengths().max())
    torch.testing.assert_close(more.values[:, :frames], once.values[:, :frames], atol=2e-4, rtol=1e-4)


def test_frames_stand_first_padding_last_and_all_are_numbers(feature):
    stream = feature(*padded(SOUNDS))
    assert (stream.mask[:, 1:] <= stream.mask[:, :-1]).all()
    assert stream.values.isfinite().all()
    assert alone(feature, 0 * SOUNDS[0]).values.isfinite().all()  # silence too


def test_it_is_what_it_says_it_is(feature):
    stream = alone(feature, noise(32_000))
    assert stream.values.shape[2] == feature.dim
    assert feature.dim % feature.parts == 0
    assert stream.frame_rate == feature.frame_rate
    assert stream.values.shape[1] == pytest.approx(2 * feature.frame_rate, abs=3)  # 2 s, less a window at the edges
    assert feature.sample_rate == 16_000


def test_its_settings_and_state_are_all_that_it_is(feature):
    kind = type(feature)
    again = kind(decode(kind.Config, encode(feature.config), "encoder")).eval()
    again.load_state_dict(feature.state_dict())
    torch.testing.assert_close(alone(again, SOUNDS[0]).values, alone(feature, SOUNDS[0]).values, atol=0, rtol=0)
    assert again.config == feature.config


def test_nothing_of_it_is_trained(feature):
    assert not feature(*padded(SOUNDS)).values.requires_grad


def test_a_folder_too_many_or_too_few_is_said(feature, tmp_path):
    folder = None if list(feature.parameters()) else tmp_path
    message = "needs folder" if folder is None else "no weights; leave out folder"
    with pytest.raises(BadConfig, match=message):
        type(feature).from_folder(folder, type(feature).Config())


@pytest.mark.parametrize("name", features)
def test_the_table_in_the_docs_says_what_is_so(name):
    table = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    (row,) = (line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
    _, _, _, rate, dim, settings, _ = (cell.strip() for cell in row.split("|"))
    kind = features[name]
    made = kind(kind.Config()) if dim.isdigit() else kind
    assert float(rate) == made.frame_rate
    assert not dim.isdigit() or int(dim) == made.dim
    known = {field.name for field in fields(kind.Config)} | {"folder", "checkpoint"}
    assert set(re.findall(r"`(\w+)`", settings)) <= known
