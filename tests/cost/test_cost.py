"""What a model costs: counts against hand counts, the paper's figures, and the page that is made of them."""

import json
from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from affekt.cli.cost import cost as command
from affekt.config import decode_named
from affekt.cost import cost
from affekt.cost.count import count_operations, on_meta
from affekt.cost.encoders import ENCODERS, encoders_of
from affekt.cost.page import page, published
from affekt.cost.sizes import example
from affekt.errors import AffektError, BadConfig, UnknownName
from affekt.models import models
from affekt.reports.lengths import STEPS, Floor, Lengths, Time, compared, reached, read, section, span
from affekt.reports.lengths_plot import drawn
from tests.cli.test_cli import affekt
from tests.conftest import ROOT

T, D, H, K = 10, 8, 6, 3  # frames, features, width, kernel
MADE = {
    "linear": (lambda: nn.Linear(D, H), T * D * H),
    "convolution": (lambda: Turned(nn.Conv1d(D, H, K)), (T - K + 1) * K * D * H),
    "depthwise": (lambda: Turned(nn.Conv1d(D, D, K, stride=K, groups=D)), T // K * K * D),
    "lstm": (lambda: nn.LSTM(D, H, batch_first=True), T * 4 * H * (D + H)),
    "two-way gru": (lambda: nn.GRU(D, H, batch_first=True, bidirectional=True), 2 * T * 3 * H * (D + H)),
    "attention": (lambda: nn.MultiheadAttention(D, 2, batch_first=True), 4 * T * D * D + 2 * T * T * D),
}


class Turned(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(1, 2))


@pytest.mark.parametrize("kind", MADE)
def test_layers_count_as_by_hand(kind):
    make, multiply_adds = MADE[kind]
    layer, x = on_meta(make), on_meta(lambda: torch.zeros(1, T, D))
    given = (x, x, x) if kind == "attention" else (x,)
    assert count_operations(lambda: layer(*given)) == 2 * multiply_adds


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
def test_products_count_as_by_hand(run, multiply_adds):
    x = on_meta(lambda: torch.zeros(1, T, D))
    assert count_operations(lambda: run(x)) == 2 * multiply_adds


@pytest.mark.parametrize("name", ["mstr-small", "ks_transformer-small"])
def test_counts_are_those_of_torchs_own_counter(name):
    kind, config = decode_named(models, {"name": name}, name)
    model = on_meta(lambda: kind(config, 4))
    batch = on_meta(lambda: example(model, {"speech": 50, "text": 9}))
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
    # A window of zeros more than the printed rule has, where frames fill their windows: n // 3 + 1 windows of three.
    return linear + head + sum(4 * 2 * 3 * dim * 3 * (frames // 3**k // 3 + 1) for k in range(4))


@pytest.mark.parametrize("name", ["mstr", "vanilla"])
@pytest.mark.parametrize("frames", [326, 150])
def test_a_models_flops_are_those_counted_by_hand(name, frames):
    assert cost(name, frames=frames).flops == 2 * by_hand(name, frames)


@pytest.mark.parametrize(
    ("name", "frames", "classes", "parameters", "printed"),
    [
        ("mstr", 326, 4, 26_992_388, 33.498),
        ("mstr", 224, 7, 25_321_991, 29.812),
        ("mstr", 150, 6, 24_109_318, 27.158),
        ("vanilla", 326, 4, 26_992_388, 892.241),
        ("vanilla", 224, 7, 25_321_991, 432.670),
        ("vanilla", 150, 6, 24_109_318, 205.948),
    ],
)
def test_the_papers_figures_come_out(name, frames, classes, parameters, printed):
    found = cost(name, frames=frames, emotions=classes)
    assert found.parameters == parameters
    assert round(found.paper_flops / 1e6, 3) == printed
    assert (found.latency_ms, found.peak_memory_mb) == (None, None)


def test_settings_presets_and_lengths_are_taken():
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


@pytest.mark.parametrize("name", ["hubert-large", "wav2vec-large"])
def test_an_encoder_is_given_what_makes_so_many_frames(name):
    encoder = ENCODERS[name]
    network, given = on_meta(encoder.make), on_meta(lambda: encoder.given(21))
    with torch.device("meta"):
        stream = network(given)
    assert (stream.values if hasattr(stream, "values") and not callable(stream.values) else stream[0]).shape[1] == 21


def test_encoders_have_their_published_sizes():
    names = ("tdfnet", "ks_transformer", "mcsan")
    found = [one for name in names for one in encoders_of(models[name], models[name].paper.frames)]
    # Millions, as published: RoBERTa and BERT without the layer that pools, wav2vec without what only its training needs.
    published = {"HuBERT large": 315, "BERT base": 109, "ECAPA-TDNN": 21, "MFCC": 0, "GloVe": 0}
    published |= {"RoBERTa large": 354, "wav2vec large": 29}
    assert {one.encoder: round(one.parameters / 1e6) for one in found} == published
    assert all((one.flops > 0) == (one.parameters > 0) for one in found)
    assert {one.stream: one.frames for one in found if one.encoder == "ECAPA-TDNN"} == {"speaker": 1024}  # 10.24 s


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
def test_what_is_not_there_is_said(arguments, error, message):
    with pytest.raises(error, match=message):
        cost(**arguments)


@pytest.mark.slow
def test_measured_in_a_process_of_its_own():
    found = cost("mstr", frames=20, settings=["dim=64", "blocks=1"], measured=True)
    assert found.latency_ms > 0
    assert found.threads == 1
    assert found.peak_memory_mb is None or 0 < found.peak_memory_mb < 500


def test_a_measurement_that_fails_says_so(monkeypatch):
    monkeypatch.setattr("affekt.cost.measure.sys.executable", "false")
    with pytest.raises(AffektError, match="measuring mstr-small ended with status 1"):
        cost("mstr-small", measured=True)


@pytest.mark.slow
def test_the_command_prints_json_and_a_table():
    run = affekt("cost", "mstr", "--frames", "224", "--classes", "7", "--json")
    facts = json.loads(run.stdout)
    assert (facts["parameters"], facts["paper_flops"]) == (25_321_991, 29_812_480)
    assert facts["latency_ms"] is None
    assert facts["encoders"][0]["encoder"] == "HuBERT large"
    run = affekt("cost", "mstr", "mixer=concat", "--frames", "speech=150")
    assert run.returncode == 0, run.stderr
    assert "its HuBERT large" in run.stdout
    assert "a linear layer's weights once" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a model (affekt cost mstr)"),
        (["mstr", "--frames", "long"], "--frames long: expected a number of frames"),
        (["mstr", "--frames", "5", "--frames", "6"], "--frames 5: of which stream?"),
        (["--output", "page.md", "--classes", "4"], "go with a model"),
        (["mstr", "--lengths", "times.json"], "--lengths is for the page on all models"),
        (["--output", "page.md", "--lengths", "none.json"], "none.json cannot be read: write it by"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, message):
    run = affekt("cost", *arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_page_is_what_is_counted_now():
    written = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
    assert written.split("\n## Measured")[0].strip() == page(published()).strip()


SPEECH = (1.0, 6.52, 60.0, 1200.0)


def made(*, ours=lambda speech: 0.04 * speech, other=lambda speech: 0.03 * speech + 0.001 * speech**2):
    """Measurements by formula: of MSTR's time attention is a tenth, of its baseline's what grows by the square."""
    times = [
        time
        for step, weight in zip(STEPS, (1, 3), strict=True)
        for speech in SPEECH
        for time in (
            Time("mstr", step, speech, round(50 * speech), 9, weight * ours(speech), 0.1 * weight * ours(speech)),
            Time("vanilla", step, speech, round(50 * speech), 9, weight * other(speech), weight * 0.001 * speech**2),
        )
    ]
    floors = [Floor(model, one, int(1e6 * one), int(1e9 * one)) for model in ("mstr", "vanilla") for one in SPEECH]
    return Lengths({"processor": "a processor", "threads": 2}, 20e9, 100e9, 0.0, tuple(times), tuple(floors))


def written(path, lengths):
    path.write_text(json.dumps(asdict(lengths)), encoding="utf-8")
    return path


def test_measurements_are_read_as_written(tmp_path):
    assert read(written(tmp_path / "times.json", made())) == made()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON .*: write it by `python benchmarks/lengths.py`"),
        ("[]", "holds no measurements by length"),
        ('{"machine": {}}', "lacks|missing|required"),
        (json.dumps(asdict(made()) | {"speed": 1}), "unknown key 'speed'"),
        (json.dumps(asdict(made()) | {"bandwidth": "fast"}), "Expected `float`"),
        (json.dumps(asdict(made()) | {"floors": []}), "no floors of mstr"),
        (json.dumps(asdict(made())).replace("0.04,", "0.0,"), r"mstr over 1\.0 s took 0\.0 s in 9 runs"),
        (json.dumps(asdict(made()) | {"bandwidth": 0.0}), r"bandwidth 0\.0, products 1\d+\.0: expected more than 0"),
        (json.dumps(asdict(made())).replace('"runs": 9', '"runs": 0'), "in 0 runs: expected more than 0"),
        (json.dumps(asdict(made()) | {"times": []}), "no length at which both models' forward was measured"),
    ],
)
def test_broken_measurements_are_refused(tmp_path, text, message):
    (tmp_path / "times.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig, match=message):
        read(tmp_path / "times.json")


def test_a_height_is_reached_where_the_line_between_two_lengths_crosses_it():
    power = {speech: 0.01 * speech**1.5 for speech in SPEECH}  # a straight line in logarithms
    assert reached(power, 1.0) == pytest.approx(100 ** (1 / 1.5))
    assert reached(power, 0.01) == 1.0
    assert reached(power, 1e9) is None
    assert 6.52 < reached({1.0: 2.0, 6.52: 0.5, 60.0: 4.0}, 1.0) < 60.0  # not where it rose above for a while only


def test_differences_and_lengths_are_said_in_words():
    assert [compared(ratio) for ratio in (4 / 3, 1.0, 0.8)] == ["25% less", "0% less", "25% more"]
    assert compared(892.241 / 33.498, "fewer") == "96% fewer"
    assert [span(seconds) for seconds in (1, 6.52, 30, 60, 1200)] == ["1 s", "6.5 s", "30 s", "1 min", "20 min"]


@pytest.fixture(scope="module")
def pair():
    """What the page on times must know of the counts."""
    return [cost("mstr"), cost("vanilla")]


def test_the_page_says_what_the_times_say(pair):
    # The baseline's time is 0.75 of ours, and a fortieth more for every second of speech.
    text = page(pair, made(), "prices").removeprefix(page(pair))
    assert text.strip().startswith("## What the paper's count means in time")
    assert "33.498M operations for MSTR and 892.241M for its baseline, vanilla: 96% fewer" in text
    assert "13.699G FLOPs and 15.416G: 11% fewer" in text
    assert "At 326 frames (6.5 s) mstr takes 10% more time than vanilla, and 10% more for a training step" in text
    assert "Attention's own work, which alone differs, is 18% of vanilla's forward time and 10% of mstr's" in text
    assert (
        "Forward: vanilla is the faster up to 6.5 s, by up to 22% (at 1 s); mstr from 1 min on, and the two lines"
        in text
    )
    assert "lines cross at 8.2 s. It saves a tenth of the time or more from" in text
    assert "Medians of 9 turns." in text
    assert "Forward over 20 min: mstr takes 48 s, vanilla 1476 s, 30.8 times as long." in text
    assert "| 6.5 s | 326 | 0.261 | 0.238 | 0.91 |" in text
    assert 'srcset="prices-dark.svg"' in text
    assert 'src="prices.svg"' in text


def test_the_page_invents_no_crossover_and_leaves_open_what_was_not_measured():
    faster = section(made(ours=lambda speech: 0.01 * speech), "", 326, "cost")
    assert "Forward: mstr is nowhere slower by more than 2%, and the faster from 1 s on." in faster
    slower = section(made(ours=lambda speech: 9.0 * speech), "", 326, "cost")
    assert "Forward: mstr is nowhere the faster by more than 2%; vanilla is, by up to" in slower
    gone = tuple(one for one in made().times if (one.model, one.speech) != ("vanilla", 1200.0))
    short = section(replace(made(), times=gone), "", 326, "cost")
    assert "Forward over 1 min: mstr takes 2.4 s" in short
    assert "Over 20 min mstr alone was timed." in short
    assert "| 20 min | 60000 | 48 |  |  | 144 |  |  |" in short


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ((1.0, 1.01, 0.99, 1.0), "Forward: neither model is the faster by more than 2% at any length measured."),
        (
            (1.2, 0.9, 1.1, 3.0),
            "mstr is the faster at 3 of 4 lengths, vanilla at 1 of 4 lengths, by up to 10% (at 6.5 s).",
        ),
        ((1.1, 1.0, 1.1, 1.2), "Forward: mstr is nowhere slower by more than 2%, and the faster at 3 of 4 lengths."),
        (
            (0.9, 1.2, 1.1, 0.95),
            "mstr is the faster at 2 of 4 lengths, vanilla at 2 of 4 lengths, by up to 10% (at 1 s).",
        ),
    ],
)
def test_lines_that_cross_twice_or_lie_together_are_said_so(ratios, said):
    by_speech = dict(zip(SPEECH, ratios, strict=True))
    text = section(made(ours=lambda speech: speech, other=lambda speech: speech * by_speech[speech]), "", 326, "cost")
    assert said in text


def test_runs_are_counted_as_they_were():
    alone = tuple(replace(one, runs=1 if one.speech == 1200 else 5 if one.speech == 60 else 9) for one in made().times)
    text = section(replace(made(), times=alone), "", 326, "cost")
    assert "Medians of 9 turns, of 5 from 1 min on; from 20 min on single runs." in text
    unknown = tuple(replace(one, attention=None) for one in made().times if one.step != "forward")
    assert section(
        replace(made(), times=(*[t for t in made().times if t.step == "forward"], *unknown)), "", 326, "cost"
    )


def words_of(picture):
    return ["".join(one.itertext()) for one in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("dark", [False, True])
def test_the_plot_is_the_same_each_time_and_names_its_lines(dark):
    picture = drawn(made(), dark=dark)
    assert picture == drawn(made(), dark=dark) != drawn(made(), dark=not dark)
    words = [
        "".join(one.itertext()) for one in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert {"forward", "training step", "memory", "arithmetic", "20 min"} <= set(words)
    assert words.count("mstr") == words.count("vanilla") == 2


def test_the_command_writes_the_page_and_its_plot(tmp_path, monkeypatch, pair):
    monkeypatch.setattr("affekt.cost.page.published", lambda **_: pair)
    command(output=tmp_path / "prices.md", lengths=written(tmp_path / "times.json", made()))
    assert (tmp_path / "prices.md").read_text(encoding="utf-8") == page(pair, made(), "prices")
    assert (tmp_path / "prices.svg").read_text(encoding="utf-8") == drawn(made())
    assert (tmp_path / "prices-dark.svg").read_text(encoding="utf-8") == drawn(made(), dark=True)


def test_the_page_in_the_docs_says_what_was_measured_last(pair):
    times, docs = ROOT / "benchmarks" / "results" / "lengths.json", ROOT / "docs"
    _, heading, said = (docs / "cost.md").read_text(encoding="utf-8").partition("\n## What the paper's count")
    assert bool(heading) == times.exists(), "make cost puts into docs/cost.md what benchmarks/lengths.py measured"
    if times.exists():
        assert page(pair, read(times)).endswith(heading + said)
        for name, dark in (("cost.svg", False), ("cost-dark.svg", True)):
            # matplotlib's versions place lines differently by a hair.
            assert words_of((docs / name).read_text(encoding="utf-8")) == words_of(drawn(read(times), dark=dark))
