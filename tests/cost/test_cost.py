"""Costs of models: counts against counts by hand and the paper's, and the generated page."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from affekt.config import decode_named
from affekt.cost import cost
from affekt.cost.count import count_operations, on_meta
from affekt.cost.encoders import ENCODERS, encoders_of
from affekt.cost.page import compute_all, page
from affekt.cost.sizes import build_zero_batch
from affekt.errors import AffektError, BadConfig, UnknownName
from affekt.models import models
from tests.commands import affekt
from tests.conftest import ROOT

T, D, H, K = 10, 8, 6, 3  # frames, features, width, kernel
LAYERS = {
    "linear": (lambda: nn.Linear(D, H), T * D * H),
    "convolution": (lambda: TimeLast(nn.Conv1d(D, H, K)), (T - K + 1) * K * D * H),
    "depthwise": (lambda: TimeLast(nn.Conv1d(D, D, K, stride=K, groups=D)), T // K * K * D),
    "lstm": (lambda: nn.LSTM(D, H, batch_first=True), T * 4 * H * (D + H)),
    "two-way gru": (lambda: nn.GRU(D, H, batch_first=True, bidirectional=True), 2 * T * 3 * H * (D + H)),
    "attention": (lambda: nn.MultiheadAttention(D, 2, batch_first=True), 4 * T * D * D + 2 * T * T * D),
}


class TimeLast(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(1, 2))


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_are_counted_as_by_hand(kind):
    make, multiply_adds = LAYERS[kind]
    layer, x = on_meta(make), on_meta(lambda: torch.zeros(1, T, D))
    inputs = (x, x, x) if kind == "attention" else (x,)
    assert count_operations(lambda: layer(*inputs)) == 2 * multiply_adds


@pytest.mark.parametrize(
    ("run", "multiply_adds"),
    [
        (lambda x: F.scaled_dot_product_attention(x, x, x), 2 * T * T * D),
        (lambda x: torch.einsum("btd,bsd->bts", x, x), T * T * D),
        (lambda x: torch.bmm(x, x.transpose(1, 2)), T * T * D),
        (lambda x: x[0] @ x[0, 0], T * D),
        (lambda x: x[0, 0] @ x[0, 1], D),
        (lambda x: F.gelu(F.layer_norm(x, (D,))).softmax(dim=2).mean(dim=1), 0),
    ],
)
def test_products_are_counted_as_by_hand(run, multiply_adds):
    x = on_meta(lambda: torch.zeros(1, T, D))
    assert count_operations(lambda: run(x)) == 2 * multiply_adds


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mstr-small", "ks_transformer-small"])
def test_counts_are_those_of_torchs_own_counter(name):
    kind, config = decode_named(models, {"name": name}, name)
    model = on_meta(lambda: kind(config, 4))
    batch = on_meta(lambda: build_zero_batch(model, {"speech": 50, "text": 9}))
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(batch)
    assert count_operations(lambda: model(batch)) == counter.get_total_flops() > 0


def test_nothing_is_allocated():
    layer = on_meta(lambda: nn.Linear(1 << 20, 1 << 20))
    assert {p.device.type for p in layer.parameters()} == {"meta"}


def by_hand(name, frames, dim=1024, feedforward=512, emotions=4):
    """Multiply-adds of MSTR or its baseline over so many frames, at the paper's sizes."""
    linear = 4 * (4 * dim * dim + 2 * dim * feedforward) * frames
    head = dim * dim // 2 + dim // 2 * dim // 4 + dim // 4 * emotions
    if name == "vanilla":
        return linear + head + 4 * 2 * frames * frames * dim
    # One window of zeros more than by the paper's rule if the frames fill their windows: n // 3 + 1 windows of three.
    return linear + head + sum(4 * 2 * 3 * dim * 3 * (frames // 3**k // 3 + 1) for k in range(4))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mstr", "vanilla"])
@pytest.mark.parametrize("frames", [326, 150])
def test_a_models_flops_are_those_counted_by_hand(name, frames):
    assert cost(name, frames=frames).flops == 2 * by_hand(name, frames)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames", "classes", "parameters", "paper_millions"),
    [
        ("mstr", 326, 4, 26_992_388, 33.498),
        ("mstr", 224, 7, 25_321_991, 29.812),
        ("mstr", 150, 6, 24_109_318, 27.158),
        ("vanilla", 326, 4, 26_992_388, 892.241),
        ("vanilla", 224, 7, 25_321_991, 432.670),
        ("vanilla", 150, 6, 24_109_318, 205.948),
    ],
)
def test_counts_equal_those_of_the_paper(name, frames, classes, parameters, paper_millions):
    result = cost(name, frames=frames, emotions=classes)
    assert result.parameters == parameters
    assert round(result.paper_flops / 1e6, 3) == paper_millions
    assert (result.latency_ms, result.peak_memory_mb) == (None, None)


@pytest.mark.slow
def test_settings_presets_and_lengths_are_used():
    assert cost("mstr", settings=["frames=150"]).frames == {"speech": 150}
    assert cost("mstr-small").frames == {"speech": 326}
    assert cost("mstr-small", settings=["dim=96", "heads=3"]).parameters < cost("mstr-small").parameters
    assert cost("mstr-small", frames=100).flops < cost("mstr-small", frames=200).flops
    wide = cost("mstr", settings=["scale_operator=convolution"])
    assert wide.parameters - cost("mstr").parameters == 4 * 3 * 3 * (3 * 1024 * 1024 + 1024)
    assert cost("ks_transformer-small", frames={"text": 10}).frames == {"speech": 460, "text": 10}


def test_a_length_that_is_a_setting_is_set():
    kind = models["ks_transformer"]
    config = kind.for_lengths(kind.Config(), {"speech": 230})
    assert (config.speech_frames, config.text_frames) == (230, 20)
    kind = models["mstr"]
    assert kind.for_lengths(kind.Config(), {"speech": 224}).frames == 224
    assert kind.for_lengths(kind.Config(stride=2), {"speech": 225}).frames == 113
    assert kind.for_lengths(kind.Config(frames="any", norm="features"), {"speech": 224}).frames == "any"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hubert-large", "wav2vec-large"])
def test_an_encoders_input_makes_the_requested_frames(name):
    encoder = ENCODERS[name]
    network, given = on_meta(encoder.make), on_meta(lambda: encoder.make_input(21))
    with torch.device("meta"):
        stream = network(given)
    assert (stream.values if hasattr(stream, "values") and not callable(stream.values) else stream[0]).shape[1] == 21


@pytest.mark.slow
def test_encoders_have_their_published_sizes():
    names = ("tdfnet", "ks_transformer", "mcsan")
    encoders = [encoder for name in names for encoder in encoders_of(models[name], models[name].paper.frames)]
    # Millions, as published: RoBERTa and BERT without the layer that pools, wav2vec without the parts used in training only.
    published = {"HuBERT large": 315, "BERT base": 109, "ECAPA-TDNN": 21, "MFCC": 0, "GloVe": 0}
    published |= {"RoBERTa large": 354, "wav2vec large": 29}
    assert {encoder.encoder: round(encoder.parameters / 1e6) for encoder in encoders} == published
    assert all((encoder.flops > 0) == (encoder.parameters > 0) for encoder in encoders)
    assert {encoder.stream: encoder.frames for encoder in encoders if encoder.encoder == "ECAPA-TDNN"} == {
        "speaker": 1024
    }  # 10.24 s


@pytest.mark.parametrize("name", models)
def test_every_paper_names_the_encoder_of_each_stream(name):
    paper = models[name].paper
    assert set(paper.encoders) == set(paper.frames)
    assert {encoder.name for encoder in paper.encoders.values()} <= set(ENCODERS)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "mtsr"}, UnknownName, "no model 'mtsr'; did you mean 'mstr'"),
        ({"name": "mstr-smal"}, UnknownName, "no preset 'smal'; did you mean 'small'"),
        ({"name": "mstr", "settings": ["mixr=sum"]}, BadConfig, "unknown key 'mixr'; did you mean 'mixer'"),
        ({"name": "mstr", "frames": {"text": 20}}, BadConfig, "frames of 'text': the model has frames of speech"),
        ({"name": "tdfnet", "frames": {"speaker": 20}}, BadConfig, "the model has frames of speech and text"),
        ({"name": "mstr", "frames": 0}, BadConfig, "0 frames of 'speech': expected 1 or more"),
        ({"name": "mstr", "emotions": 1}, BadConfig, "1 classes: expected 2 or more"),
    ],
)
def test_invalid_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        cost(**arguments)


@pytest.mark.slow
def test_measuring_in_a_separate_process():
    result = cost("mstr", frames=20, settings=["dim=64", "blocks=1"], measured=True)
    assert result.latency_ms > 0
    assert result.threads == 1
    assert result.peak_memory_mb is None or 0 < result.peak_memory_mb < 500


def test_a_failed_measurement_raises_an_error(monkeypatch):
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(AffektError, match="measuring mstr-small ended with status 1"):
        cost("mstr-small", measured=True)


@pytest.mark.slow
def test_the_command_prints_json_and_a_table():
    facts = json.loads(affekt("cost", "mstr", "--frames", "224", "--classes", "7", "--json").stdout)
    assert (facts["parameters"], facts["paper_flops"]) == (25_321_991, 29_812_480)
    assert facts["latency_ms"] is None
    assert facts["encoders"][0]["encoder"] == "HuBERT large"
    table = affekt("cost", "mstr", "mixer=concat", "--frames", "speech=150").stdout
    assert "encoder HuBERT large" in table
    assert "each weight of a linear layer once" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected either a model (affekt cost mstr)"),
        (["mstr", "--frames", "long"], "--frames long: expected a number of frames"),
        (["mstr", "--frames", "5", "--frames", "6"], "--frames 5: expected STREAM=T"),
        (["--output", "page.md", "--classes", "4"], "need a model"),
    ],
)
def test_invalid_options_of_the_command_are_refused(arguments, message):
    run = affekt("cost", *arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_page_has_the_current_counts():
    written = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    assert written.split("\n## Measured")[0].strip() == page(compute_all()).strip()
