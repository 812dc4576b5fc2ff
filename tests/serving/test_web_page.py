"""The web page in headless Chromium: real files, a fake microphone, the agreement with Python, and accessibility."""

import functools
import http.server
import json
import shutil
import threading

import numpy as np
import pytest
import soundfile
import soxr

from affekt.errors import BadOutput
from affekt.inference.recognizer import Recognizer
from affekt.serving import static_site
from affekt.serving.browser import PAGE, RUNTIME
from affekt.timeline.exports import read_timeline
from tests.conftest import ROOT, SAMPLES
from tests.serving.service import running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--use-fake-device-for-media-stream")
FINISHED = "#status:has-text('Done'), #error:not([hidden])"
TIMEOUT = 120_000
TOLERANCE = 1e-3

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.load()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Speech at 48 kHz of 9 s, which is more than one segment, as the microphone and as a file of two channels."""
    waveforms = [soundfile.read(path, dtype="float32") for path in SAMPLES[:3]]
    speech = np.concatenate([soxr.resample(waveform, rate, 48_000) for waveform, rate in waveforms])
    path = tmp_path_factory.mktemp("sounds") / "call.wav"
    soundfile.write(path, np.stack([speech, np.roll(speech, 48_000)], axis=1), 48_000)
    return path


@pytest.fixture(scope="module")
def browser(recording):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if not CHROMIUM:
        pytest.skip("needs Chromium")
    if not (PAGE / RUNTIME).is_file():
        pytest.skip(f"{RUNTIME} is missing: build the page with `make web`")
    microphone = ("--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={recording}")
    with (
        playwright.sync_playwright() as driver,
        driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *microphone]) as browser,
    ):
        yield browser


@pytest.fixture(scope="module")
def url():
    with running("default") as (port, _, _):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def page(browser, url):
    """The page of the service; a message of the browser's console is an error."""
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        page, messages = context.new_page(), []
        page.set_default_timeout(TIMEOUT)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(url)
        yield page
        assert not messages


def recognize(page, path):
    """Let the page recognize a file, and return the timeline of its download as JSON."""
    page.evaluate("document.getElementById('status').textContent = ''")
    page.set_input_files("#file", path)
    page.wait_for_selector(FINISHED)
    assert not page.inner_text("#error")
    with page.expect_download() as download:
        page.click("#downloads a[download$='.json']")
    return download.value.path()


def assert_agree(rows, expected):
    """Check that rows of the browser are those of Python, apart from small differences of the probabilities."""
    differing = ("probabilities", "file", "unfamiliar")  # the browser does not compute the last one
    for row, other in zip(rows, expected, strict=True):
        assert {k: v for k, v in row.items() if k not in differing} == {
            k: v for k, v in other.items() if k not in differing
        }
        if other.probabilities:
            assert row.probabilities == pytest.approx(other.probabilities, abs=TOLERANCE)


def test_the_browser_recognizes_as_python_does(page, recognizer):
    for path in SAMPLES:  # at 22.05 kHz
        timeline = read_timeline(recognize(page, path))
        assert_agree(timeline.segments, recognizer.timeline(path).segments)
        row = recognizer(path)
        assert page.inner_text("#headline") == f"{row.emotion}, {round(100 * row.probabilities[row.emotion])} %"


def test_the_browser_recognizes_real_speech_as_python_does(page, recognizer, cremad, tmp_path):
    paths = sorted((cremad / "audio").iterdir())
    for number, path in enumerate(paths[:: len(paths) // 6]):
        waveform, rate = soundfile.read(path, dtype="float32")
        file = tmp_path / f"{number}.wav"  # decoders of Ogg Opus differ by themselves
        soundfile.write(file, soxr.resample(waveform, rate, 44_100), 44_100)
        assert_agree(read_timeline(recognize(page, file)).segments, recognizer.timeline(file).segments)


def test_channels_on_their_own_agree_and_the_server_gives_the_same(page, recognizer, recording):
    page.check("#separate")
    timeline = read_timeline(recognize(page, recording))
    assert_agree(timeline.segments, recognizer.timeline(recording, channels="separate").segments)
    page.check("input[value=server]")
    page.wait_for_selector("#facts:has-text('on the server')")
    with page.expect_download() as download:
        page.click("#downloads a[download$='.json']")
    assert_agree(timeline.segments, read_timeline(download.value.path()).segments)


@pytest.mark.parametrize("computer", ["device", "server"])
def test_probabilities_are_live_while_the_microphone_records(page, computer):
    page.check(f"input[value={computer}]")
    page.click("#record")
    page.wait_for_selector("#live-bars .best:not(:first-child), #live-bars dt.best")
    page.wait_for_selector("#live-emotion:not(:has-text('Listening'))")
    page.click("#stop")
    page.wait_for_selector(FINISHED)
    assert not page.inner_text("#error")
    assert page.locator("#segments tbody tr").count() >= 1


def test_failures_are_explained(page, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no audio " * 100)
    page.set_input_files("#file", file)
    page.wait_for_selector("#error:not([hidden])")
    assert "notes.txt cannot be decoded" in page.inner_text("#error")
    soundfile.write(tmp_path / "silence.wav", np.zeros(32_000), 16_000)
    page.set_input_files("#file", tmp_path / "silence.wav")
    page.wait_for_selector("#headline:has-text('digital silence')")
    assert page.is_hidden("#error")


def test_axe_finds_nothing(page):
    if not AXE.is_file():
        pytest.skip("axe-core is missing: run `make web`")
    recognize(page, SAMPLES[2])
    for scheme, width in (("light", 1400), ("dark", 390)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.evaluate(AXE.read_text(encoding="utf-8"))
        violations = page.evaluate("axe.run()")["violations"]
        assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in violations] == []


def test_a_static_site_needs_no_service(browser, recognizer, tmp_path):
    site = tmp_path / "site"
    assert static_site.write_site(site) == recognizer.model
    static_site.write_site(site)  # is replaced
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, browser.new_page() as page:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page.set_default_timeout(TIMEOUT)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        timeline = read_timeline(recognize(page, SAMPLES[0]))
        assert page.is_hidden("input[value=server]")
        server.shutdown()
        thread.join()
    assert_agree(timeline.segments, recognizer.timeline(SAMPLES[0]).segments)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """A file server that logs nothing."""

    def log_message(self, *_):
        pass


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadOutput, match="is not such a site"):
        static_site.write_site(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_page_without_its_runtime_makes_no_site(tmp_path, monkeypatch):
    monkeypatch.setattr(static_site, "PAGE", tmp_path)
    with pytest.raises(BadOutput, match="make web"):
        static_site.write_site(tmp_path / "site")


def test_the_notices_name_every_package_of_the_page():
    package = json.loads((ROOT / "web" / "package.json").read_text(encoding="utf-8"))
    notices = (PAGE / "notices.txt").read_text(encoding="utf-8")
    for name, version in package["dependencies"].items():
        assert f"{name} {version}" in notices
