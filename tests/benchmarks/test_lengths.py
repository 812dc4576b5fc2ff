"""The section of docs/cost.md on compute time by length, on made-up measurements."""

import json
import sys
from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest

from affekt.cost import cost
from affekt.errors import BadConfig
from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from lengths_page import HEADING, compare, crossing, format_length, render_section, write_section
from lengths_plot import draw
from lengths_results import STEPS, Floor, Lengths, Time, read_lengths

SPEECH = (1.0, 6.52, 60.0, 1200.0)  # s
TEXT = "{http://www.w3.org/2000/svg}text"


def make_lengths(*, mstr=lambda speech: 0.04 * speech, vanilla=lambda speech: 0.03 * speech + 0.001 * speech**2):
    """Measurements from formulas: attention takes a tenth of MSTR's time, and the quadratic term of the baseline's."""
    times = [
        time
        for step, weight in zip(STEPS, (1, 3), strict=True)
        for speech in SPEECH
        for time in (
            Time("mstr", step, speech, round(50 * speech), 9, weight * mstr(speech), 0.1 * weight * mstr(speech)),
            Time("vanilla", step, speech, round(50 * speech), 9, weight * vanilla(speech), weight * 0.001 * speech**2),
        )
    ]
    floors = [
        Floor(model, speech, int(1e6 * speech), int(1e9 * speech)) for model in ("mstr", "vanilla") for speech in SPEECH
    ]
    return Lengths({"processor": "a processor", "threads": 2}, 20e9, 100e9, 0.0, tuple(times), tuple(floors))


def write(path, lengths):
    path.write_text(json.dumps(asdict(lengths)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def costs():
    return [cost("mstr"), cost("vanilla")]


def test_measurements_are_read_as_written(tmp_path):
    assert read_lengths(write(tmp_path / "times.json", make_lengths())) == make_lengths()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON .*: write it with `python benchmarks/lengths.py`"),
        ("[]", "does not hold measurements by length"),
        ('{"machine": {}}', "lacks|missing|required"),
        (json.dumps(asdict(make_lengths()) | {"speed": 1}), "unknown key 'speed'"),
        (json.dumps(asdict(make_lengths()) | {"bandwidth": "fast"}), "Expected `float`"),
        (json.dumps(asdict(make_lengths()) | {"floors": []}), "no floors of mstr"),
        (json.dumps(asdict(make_lengths())).replace("0.04,", "0.0,"), r"mstr, 1\.0 s of speech: 0\.0 s in 9 runs"),
        (json.dumps(asdict(make_lengths()) | {"bandwidth": 0.0}), r"bandwidth 0\.0, products 1\d+\.0"),
        (json.dumps(asdict(make_lengths())).replace('"runs": 9', '"runs": 0'), "in 0 runs"),
        (json.dumps(asdict(make_lengths()) | {"times": []}), "no length at which both models' forward was measured"),
    ],
)
def test_broken_measurements_are_rejected(tmp_path, text, message):
    (tmp_path / "times.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadConfig, match=message):
        read_lengths(tmp_path / "times.json")


def test_a_crossing_lies_on_the_line_between_two_lengths():
    power = {speech: 0.01 * speech**1.5 for speech in SPEECH}  # a straight line in logarithms
    assert crossing(power, 1.0) == pytest.approx(100 ** (1 / 1.5))
    assert crossing(power, 0.01) == 1.0
    assert crossing(power, 1e9) is None
    assert (
        6.52 < crossing({1.0: 2.0, 6.52: 0.5, 60.0: 4.0}, 1.0) < 60.0
    )  # a value that rises only for a while is ignored


def test_ratios_and_durations_are_formatted():
    assert [compare(ratio) for ratio in (4 / 3, 1.0, 0.8)] == ["25% less", "0% less", "25% more"]
    assert compare(892.241 / 33.498, "fewer") == "96% fewer"
    assert [format_length(seconds) for seconds in (1, 6.52, 30, 60, 1200)] == [
        "1 s",
        "6.5 s",
        "30 s",
        "1 min",
        "20 min",
    ]


@pytest.mark.slow
def test_the_section_states_what_the_measurements_show(costs):
    # The baseline's time is 0.75 of MSTR's, and a fortieth more for every second of speech.
    text = render_section(make_lengths(), costs, "prices")
    assert text.startswith(HEADING)
    for figures in ("33.498M", "892.241M", "96% fewer", "13.699G", "15.416G", "11% fewer", "medians of 9 runs."):
        assert figures in text
    assert "At 326 frames (6.5 s) mstr takes 10% more time than vanilla, and 10% more for a training step" in text
    assert "18% of vanilla's forward time and 10% of mstr's" in text
    assert "Forward: vanilla is faster up to 6.5 s, by up to 22% (at 1 s); mstr is faster from 1 min on" in text
    assert "both take the same time at 8.2 s" in text
    assert "Forward for 20 min: mstr takes 48 s and vanilla 1476 s, 30.8 times as long." in text
    assert "| 6.5 s | 326 | 0.261 | 0.238 | 0.91 |" in text
    assert 'srcset="prices-dark.svg"' in text
    assert 'src="prices.svg"' in text


def test_missing_measurements_stay_empty(costs):
    times = tuple(time for time in make_lengths().times if (time.model, time.speech) != ("vanilla", 1200.0))
    text = render_section(replace(make_lengths(), times=times), costs, "cost")
    assert "Forward for 1 min: mstr takes 2.4 s" in text
    assert "For 20 min only mstr was timed." in text
    assert "| 20 min | 60000 | 48 |  |  | 144 |  |  |" in text
    unknown = tuple(replace(time, attention=None) if time.step != "forward" else time for time in make_lengths().times)
    assert render_section(replace(make_lengths(), times=unknown), costs, "cost")


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ((1.2, 1.2, 1.3, 1.4), "Forward: mstr is never slower by more than 2%, and faster from 1 s on."),
        ((0.5, 0.6, 0.7, 0.8), "Forward: mstr is never faster by more than 2%; vanilla is faster, by up to 50%"),
        ((1.0, 1.01, 0.99, 1.0), "Forward: the models differ by at most 2% at every measured length."),
        ((1.2, 0.9, 1.1, 3.0), "mstr is faster at 3 of 4 lengths, vanilla at 1 of 4 lengths, by up to 10% (at 6.5 s)."),
        ((1.1, 1.0, 1.1, 1.2), "mstr is never slower by more than 2%, and faster at 3 of 4 lengths."),
        ((0.9, 1.2, 1.1, 0.95), "mstr is faster at 2 of 4 lengths, vanilla at 2 of 4 lengths, by up to 10% (at 1 s)."),
    ],
)
def test_no_crossing_is_claimed_where_there_is_none_or_more_than_one(costs, ratios, expected):
    by_speech = dict(zip(SPEECH, ratios, strict=True))
    lengths = make_lengths(mstr=lambda speech: speech, vanilla=lambda speech: speech * by_speech[speech])
    assert expected in render_section(lengths, costs, "cost")


def test_the_section_says_how_often_each_length_was_timed(costs):
    runs = {1200.0: 1, 60.0: 5}
    times = tuple(replace(time, runs=runs.get(time.speech, 9)) for time in make_lengths().times)
    text = render_section(replace(make_lengths(), times=times), costs, "cost")
    assert "medians of 9 runs, of 5 from 1 min on, and single runs from 20 min on." in text


def texts(picture):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(picture).iter(TEXT)]


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_the_plot_is_reproducible_and_labels_its_lines(dark):
    picture = draw(make_lengths(), dark=dark)
    assert picture == draw(make_lengths(), dark=dark) != draw(make_lengths(), dark=not dark)
    assert {"forward", "training step", "memory", "arithmetic", "20 min"} <= set(texts(picture))
    assert texts(picture).count("mstr") == texts(picture).count("vanilla") == 2


@pytest.mark.slow
def test_a_second_section_replaces_the_first(tmp_path, costs):
    path = tmp_path / "prices.md"
    path.write_text("# Costs\n", encoding="utf-8")
    write_section(path, make_lengths(mstr=lambda speech: speech), costs)
    files = write_section(path, make_lengths(), costs)
    assert path.read_text(encoding="utf-8") == f"# Costs\n\n{render_section(make_lengths(), costs, 'prices')}"
    assert [file.name for file in files] == ["prices.md", "prices.svg", "prices-dark.svg"]
    assert files[1].read_text(encoding="utf-8") == draw(make_lengths())
    assert files[2].read_text(encoding="utf-8") == draw(make_lengths(), dark=True)


@pytest.mark.slow
def test_the_documentation_shows_the_stored_measurements(costs):
    lengths, docs = read_lengths(ROOT / "benchmarks" / "results" / "lengths.json"), ROOT / "docs"
    assert (docs / "cost.md").read_text(encoding="utf-8").endswith("\n\n" + render_section(lengths, costs, "cost"))
    for name, dark in (("cost.svg", False), ("cost-dark.svg", True)):
        # matplotlib's versions place lines differently by a hair.
        assert texts((docs / name).read_text(encoding="utf-8")) == texts(draw(lengths, dark=dark))
