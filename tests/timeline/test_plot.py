"""Pictures of timelines: what they draw, and what a page contains."""

import base64
import io
import json
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from PIL import Image

from affekt.errors import BadAudio, BadOutput, MissingExtra
from affekt.inference.row import make_row
from affekt.timeline.colors import emotion_colors
from affekt.timeline.exports import export_timeline
from affekt.timeline.picture import MAX_BANDS, NUM_COLUMNS, Band, Envelope, make_lanes, read_peaks, summarize
from affekt.timeline.plot import format_time, save_plot
from tests.commands import affekt
from tests.timeline.made import MODEL, TRICKY, call, make_segment, make_timeline


@pytest.fixture
def recording(tmp_path):
    """Return the path of a recording of 10 s, whose last second is the loudest."""
    rng = np.random.default_rng(0)
    path = tmp_path / "my call.wav"
    soundfile.write(path, 0.1 * rng.standard_normal(160_000) * np.repeat(np.linspace(0.1, 1, 10), 16_000), 16_000)
    return path


def long_timeline(number=3000):
    """Return a timeline of more segments than are drawn one by one."""
    emotions = ("angry", "happy", "neutral")
    segments = [
        make_segment(12 * i, 12 * i + 9, emotions[i % 3], speaker="AB"[i % 2], text=f"Sentence {i}.")
        for i in range(number)
    ]
    return make_timeline(segments, duration=12.0 * number)


class Page(HTMLParser):
    """The elements of a page, and its data."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text = [], path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', self.text)[1])

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def find(self, css_class):
        return [element for _, element in self.elements if css_class in (element.get("class") or "").split()]


def test_a_lane_has_the_bands_and_turning_points_of_a_speaker():
    anna, bob = make_lanes(call())
    assert [(band.start, band.end, band.label) for band in anna.bands] == [(0.5, 2.25, "happy"), (2.25, 4.0, "happy")]
    assert [band.label for band in bob.bands] == ["angry", "unknown"]
    assert [*anna.summary.turning_points, *bob.summary.turning_points] == []
    (lane,) = make_lanes(make_timeline([make_segment(0, 1, "happy"), make_segment(3, 4, "angry"), make_segment(4, 5)]))
    assert [(point.time, point.before, point.after) for point in lane.summary.turning_points] == [
        (3.0, "happy", "angry")
    ]


def test_columns_have_the_time_of_each_label():
    bands = [Band(0, 1.5, "a"), Band(1.5, 2, "b"), Band(3.25, 4, "a")]
    assert summarize(bands, ["a", "b"], 4.0, 4).tolist() == [[1, 0.5, 0, 0.75], [0, 0.5, 0, 0]]


@pytest.mark.parametrize("size", [1, 7, 1000, 64_000])
def test_the_envelope_is_that_of_the_whole_waveform(size):
    waveform = np.random.default_rng(1).standard_normal(64_000).astype(np.float32)
    envelope = Envelope(4.0, 40)
    for start in range(0, 64_000 if size > 1 else 2000, size):
        envelope.add(waveform[start : start + size])
    expected = np.abs(waveform.reshape(40, 1600)).max(axis=1)
    if size == 1:
        expected[1:] = [np.abs(waveform[1600:2000]).max(), *[0] * 38]
    np.testing.assert_allclose(envelope.peaks(), expected, rtol=1e-6)


def test_samples_after_the_timeline_are_ignored():
    envelope = Envelope(1.0, 10)
    envelope.add(np.concatenate([np.full(16_000, 0.5, np.float32), np.ones(8000, np.float32)]))
    assert envelope.peaks().tolist() == [0.5] * 10


def test_emotions_have_different_colors_of_the_palette():
    colors = emotion_colors(("angry", "calm", "bored", "happy", "sad", "tired", "fear", "neutral"))
    assert len(set(colors.values())) == 8
    assert colors["angry"] == emotion_colors(("sad", "angry"))["angry"]


def test_a_png_is_drawn_at_its_size(tmp_path, recording):
    save_plot(call(), tmp_path / "a.png", recording)
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1800
        used = {
            f"#{red:02x}{green:02x}{blue:02x}" for _, (red, green, blue, _) in image.convert("RGBA").getcolors(1 << 20)
        }
    assert set(emotion_colors(call().emotions).values()) - used == {emotion_colors(call().emotions)["neutral"]}


def test_an_svg_names_speakers_and_emotions(tmp_path):
    save_plot(call(), tmp_path / "a.svg")
    texts = {
        "".join(element.itertext())
        for element in ElementTree.parse(tmp_path / "a.svg").iter()
        if element.tag.endswith("text")
    }
    assert {"Anna Lee", "Bob", "happy", "angry", "unknown", "my call.wav"} <= texts


def test_a_page_is_self_contained(tmp_path, recording):
    save_plot(call(), tmp_path / "a.html", recording)
    page = Page(tmp_path / "a.html")
    links = [value for _, element in page.elements for name, value in element.items() if name in ("src", "href")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\(|@import|https?://", page.text)
    (sound,) = [element["src"] for tag, element in page.elements if tag == "audio"]
    kind, data = sound.split(";base64,")
    assert kind == "data:audio/flac"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    np.testing.assert_allclose(samples, soundfile.read(recording)[0], atol=1e-4)
    assert rate == 16_000


def test_each_channel_has_its_waveform_and_side(tmp_path):
    channels = np.zeros((32_000, 2))
    channels[:16_000, 0], channels[16_000:, 1] = 0.5, -0.25
    soundfile.write(tmp_path / "a.wav", channels, 16_000)
    segments = [make_segment(0, 1, "happy", channel=1), make_segment(1, 2, "angry", channel=2)]
    timeline = make_timeline(segments, duration=2.0)
    left, right = read_peaks(timeline, make_lanes(timeline), tmp_path / "a.wav")
    assert [(values.min(), values.max(), bool(values[0] > values[-1])) for values in (left, right)] == [
        (0, 1, True),
        (0, 0.5, False),
    ]
    save_plot(timeline, tmp_path / "a.png", tmp_path / "a.wav")
    save_plot(timeline, tmp_path / "a.html", tmp_path / "a.wav")
    page = Page(tmp_path / "a.html")
    assert len(page.find("wave")) == 2
    (sound,) = [element["src"] for tag, element in page.elements if tag == "audio"]
    np.testing.assert_allclose(
        soundfile.read(io.BytesIO(base64.b64decode(sound.split(",")[1])))[0], channels, atol=1e-4
    )


def test_a_page_has_all_segments_with_their_texts(tmp_path):
    save_plot(call(), tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert page.data["tracks"] == ["Anna Lee", "Bob"]
    assert [segment[5] for segment in page.data["segments"]] == [TRICKY, "No.", "", "Well, well."]
    assert [page.data["labels"][segment[3]] for segment in page.data["segments"]] == [
        "happy",
        "angry",
        "happy",
        "unknown",
    ]
    assert len(page.find("band")) == 4
    assert page.text.count("</script>") == 2
    assert "b>bold" not in page.text.replace("\\u003cb>bold", "")


def test_turning_points_are_marked(tmp_path):
    save_plot(make_timeline([make_segment(0, 1, "happy"), make_segment(3, 4, "angry")]), tmp_path / "a.html")
    assert [element["title"] for element in Page(tmp_path / "a.html").find("turn")] == [
        "0:03: happy \N{RIGHTWARDS ARROW} angry"
    ]


def test_a_long_timeline_is_summarized_in_columns(tmp_path):
    save_plot(long_timeline(), tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert page.data["summarized"]
    assert not page.find("band")
    assert len(page.data["segments"]) == 3000 > MAX_BANDS
    paths = [element["d"] for tag, element in page.elements if tag == "path"]
    assert len(paths) == 6
    assert max(path.count("M") for path in paths) <= NUM_COLUMNS
    assert len(page.text) < 500_000
    save_plot(long_timeline(), tmp_path / "a.png")


def test_a_recording_that_is_too_long_is_referred_to(tmp_path, recording, monkeypatch):
    monkeypatch.setattr("affekt.timeline.page.sound.MAX_LOSSLESS", 1000)
    save_plot(call(), tmp_path / "a.html", recording)
    assert 'src="data:audio/ogg;base64,T2dn' in (tmp_path / "a.html").read_text()
    monkeypatch.setattr("affekt.timeline.page.sound.MAX_BYTES", 1000)
    save_plot(call(), tmp_path / "pages" / "a.html", recording)
    assert 'src="../my%20call.wav"' in (tmp_path / "pages" / "a.html").read_text()
    save_plot(call(), tmp_path / "a.html", recording.read_bytes())
    assert "too long to be part of the page" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_timelines_without_speech_or_segments_are_drawn(tmp_path, recording, suffix):
    for segments in ([], [make_segment(0, 10)]):
        save_plot(make_timeline(segments), tmp_path / f"a{suffix}", recording)
    assert (tmp_path / f"a{suffix}").stat().st_size > 5000


def test_text_without_speech_beside_speakers_is_shown(tmp_path):
    save_plot(
        make_timeline([make_segment(0, 1, "happy", speaker="A"), make_segment(2, 3, text="Ah.")]), tmp_path / "a.html"
    )
    assert [segment[5] for segment in Page(tmp_path / "a.html").data["segments"]] == ["", "Ah."]


def test_a_segment_that_failed_is_listed_with_the_reason(tmp_path):
    failed = make_row("a.wav", MODEL, start=3, end=3.2, error=BadAudio("0.2 s are too short", code="too_short"))
    save_plot(make_timeline([make_segment(0, 1, "happy", speaker="A"), failed]), tmp_path / "a.html")
    save_plot(make_timeline([make_segment(0, 1, "happy", speaker="A"), failed]), tmp_path / "a.png")
    assert Page(tmp_path / "a.html").data["segments"][1][2:6] == [-1, -1, 0, "not recognized: 0.2 s are too short"]


def test_bad_paths_and_recordings_are_refused(tmp_path):
    with pytest.raises(BadOutput, match=r"\.png, \.svg or \.html"):
        save_plot(call(), tmp_path / "a.pdf")
    for suffix in ("png", "html"):
        with pytest.raises(BadAudio):
            save_plot(call(), tmp_path / f"a.{suffix}", tmp_path / "missing.wav")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadOutput, match="cannot be written"):
        save_plot(call(), tmp_path / "file" / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_page_needs_no_matplotlib(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("matplotlib", "jinja2")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("matplotlib", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    save_plot(call(), tmp_path / "a.html")
    with pytest.raises(MissingExtra, match=r"affekt\[train\]"):
        save_plot(call(), tmp_path / "a.png")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.96, "1:00"), (61.25, "1:01.2"), (3661, "1:01:01"), (36000.5, "10:00:00.5")]
)
def test_times_are_formatted(seconds, text):
    assert format_time(seconds) == text


def test_the_command_draws_an_exported_timeline(tmp_path, recording):
    export_timeline(call(), tmp_path / "a.json")
    result = affekt("plot", "timeline", tmp_path / "a.json", recording, "--output", tmp_path / "a.html")
    assert (result.stdout, result.returncode) == (f"{tmp_path / 'a.html'}\n", 0)
    assert [tag for tag, _ in Page(tmp_path / "a.html").elements if tag == "audio"] == ["audio"]
    affekt("plot", "timeline", tmp_path / "a.json", "--output", tmp_path / "a.svg")
    assert "Anna Lee" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert affekt("plot", "timeline", "a", "b", "c").returncode == 2
