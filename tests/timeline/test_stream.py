"""Live speech: the events of a stream do not depend on its chunks, and lost audio is reported."""

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from affekt.audio.read import SAMPLE_RATE
from affekt.cli.live_view import LiveView
from affekt.cli.microphone import read_microphone
from affekt.errors import BadAudio, BadConfig, MissingExtra
from affekt.timeline.stream import Chunk, Stream, StreamSettings
from affekt.timeline.windows import FixedWindows
from tests.timeline.speech import conversation, sample

SEGMENTATIONS = {"speech": {}, "windows": {"segmentation": FixedWindows(3, 1.5)}}


def chunks_of(waveform, size):
    return [waveform[start : start + size] for start in range(0, len(waveform), size)]


def events_of(recognizer, waveform, size, **settings):
    return list(recognizer.stream(chunks_of(waveform, size), StreamSettings(**settings)))


def rows_of(events, kind="segment"):
    return [{**event.row, "file": ""} for event in events if event.kind == kind]


@pytest.fixture(scope="module")
def call():
    return conversation()


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_a_stream_decides_as_a_recording_does(name, recognizer, call):
    settings = SEGMENTATIONS[name]
    timeline = recognizer.timeline((call, SAMPLE_RATE), **settings)
    events = events_of(recognizer, call, 160, **settings)  # 10 ms
    assert rows_of(events) == [{**segment, "file": ""} for segment in timeline.segments]
    assert events_of(recognizer, call, 5 * SAMPLE_RATE, **settings) == events
    assert events_of(recognizer, call, 1234, **settings) == events


def test_provisional_events_report_a_segment_while_it_grows(recognizer, call):
    events = events_of(recognizer, call, 1600)
    provisional = [event for event in events if event.kind == "provisional"]
    assert len(provisional) >= 5
    for event in provisional:
        assert event.row.status in ("ok", "unknown")
        assert "steady_emotion" not in event.row
        (segment,) = [e for e in events if e.kind == "segment" and e.start <= event.start < e.end]
        assert events.index(event) < events.index(segment)
    assert rows_of(events_of(recognizer, call, 1600, update=0)) == rows_of(events)


def test_bytes_may_be_cut_anywhere(recognizer):
    samples = (sample(0) * 32767).astype("<i2")
    stereo = np.stack([samples, samples], axis=1).tobytes()
    settings = StreamSettings(channels=2)
    events = list(recognizer.stream([stereo[at : at + 4097] for at in range(0, len(stereo), 4097)], settings))
    assert events == list(recognizer.stream([samples], StreamSettings()))


def test_other_rates_are_resampled(recognizer):
    waveform = np.repeat(sample(0), 3)
    events = events_of(recognizer, waveform, 4800, sample_rate=48_000)
    assert events_of(recognizer, waveform, 100_000, sample_rate=48_000) == events
    assert max(event.end for event in events) == pytest.approx(waveform.size / 48_000, abs=0.01)


def test_lost_audio_is_a_gap_and_times_continue_after_it(recognizer):
    waveform = sample(0)[: 2 * SAMPLE_RATE]
    stream = Stream(recognizer)
    first = stream.add(Chunk(waveform, 100.0))
    second = stream.add(Chunk(waveform, 105.0)) + stream.finish()
    (gap,) = [event for event in first + second if event.kind == "gap"]
    assert (gap.start, gap.end, gap.seconds_lost) == (2.0, 5.0, 3.0)
    before = [event for event in second[: second.index(gap)] if event.kind == "segment"]
    after = [event for event in second[second.index(gap) :] if event.kind == "segment"]
    assert before[-1].end == 2.0
    assert (after[0].start, after[-1].end) == (5.0, 7.0)
    assert [e.row.probabilities for e in after] == [e.row.probabilities for e in before]


def test_a_clock_that_is_set_back_and_an_unknown_loss_are_reported(recognizer):
    stream = Stream(recognizer)
    stream.add(Chunk(np.zeros(SAMPLE_RATE), 50.0))
    (gap,) = [event for event in stream.add(Chunk(np.zeros(160), 40.0)) if event.kind == "gap"]
    assert (gap.start, gap.end, gap.seconds_lost) == (1.0, 1.0, -11.0)
    assert stream.add_gap()[-1].seconds_lost is None


def test_small_deviations_of_the_clock_are_no_gaps(recognizer):
    stream = Stream(recognizer)
    events = [stream.add(Chunk(np.zeros(1600), 0.1 * index + 0.02 * (index % 2))) for index in range(20)]
    assert not any(event.kind == "gap" for listed in events for event in listed)


def test_many_short_losses_are_a_gap_too(recognizer):
    stream = Stream(recognizer)
    events = [
        event for index in range(5) for event in stream.add(Chunk(np.zeros(800), 0.09 * index))
    ]  # 40 ms lost each
    assert [event.seconds_lost for event in events if event.kind == "gap"] == [pytest.approx(0.12)]


def test_a_loss_that_the_source_reports_is_a_gap_however_short(recognizer):
    stream = Stream(recognizer)
    stream.add(Chunk(np.zeros(800), 7.0))
    (gap,) = stream.add(Chunk(np.zeros(800), 7.06, is_after_loss=True))[-1:]
    assert (gap.kind, gap.seconds_lost) == ("gap", pytest.approx(0.01))


class FakeMicrophone:
    """A replacement for sounddevice that calls back with three blocks, the second of which comes after an overflow."""

    PortAudioError = OSError

    class InputStream:
        def __init__(self, callback, **_):
            self.callback = callback

        def __enter__(self):
            for index in range(3):
                status = SimpleNamespace(input_overflow=index == 1)
                self.callback(np.zeros((800, 1), np.float32), 800, SimpleNamespace(inputBufferAdcTime=index), status)

        def __exit__(self, *_):
            pass


def test_a_microphone_reports_what_it_lost(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone)
    chunks = list(itertools.islice(read_microphone(None, 16_000, 1), 3))
    assert [(chunk.samples.shape, chunk.time, chunk.is_after_loss) for chunk in chunks] == [
        ((800, 1), 0, False),
        ((800, 1), 1, True),
        ((800, 1), 2, False),
    ]


def test_without_portaudio_the_message_names_the_package(monkeypatch):
    def fail(*_, **__):
        raise OSError("PortAudio library not found")

    monkeypatch.setattr("affekt.cli.microphone.need", fail)
    with pytest.raises(MissingExtra, match="apt install libportaudio2"):
        next(read_microphone(None, 16_000, 1))


def test_blocks_that_wait_too_long_are_lost_and_the_next_one_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", FakeMicrophone)
    monkeypatch.setattr("affekt.cli.microphone.MAX_WAITING", 1)
    monkeypatch.setattr(FakeMicrophone, "InputStream", InputStreamThatWaits)
    source = read_microphone(None, 16_000, 1)
    assert [(chunk.time, chunk.is_after_loss) for chunk in itertools.islice(source, 2)] == [(0, False), (2, True)]


class InputStreamThatWaits(FakeMicrophone.InputStream):
    """Calls back with two blocks before the first is taken, and with a third one afterwards."""

    def __enter__(self):
        def call(index):
            self.callback(
                np.zeros((800, 1)),
                800,
                SimpleNamespace(inputBufferAdcTime=index),
                SimpleNamespace(input_overflow=False),
            )

        call(0)
        call(1)
        threading.Timer(0.2, call, [2]).start()


def test_chunks_may_arrive_asynchronously(recognizer, call):
    async def arrive():
        for chunk in chunks_of(call[: 6 * SAMPLE_RATE], 8000):
            yield chunk

    async def collect():
        return [event async for event in recognizer.stream_async(arrive())]

    assert asyncio.run(collect()) == events_of(recognizer, call[: 6 * SAMPLE_RATE], 8000)


def test_bad_chunks_and_settings_are_refused(recognizer):
    stream = Stream(recognizer)
    with pytest.raises(BadAudio, match="NaN"):
        stream.add(np.array([0.0, np.nan]))
    with pytest.raises(BadAudio, match=r"a chunk of <U1 of shape \(1,\)"):
        stream.add(np.array(["a"]))
    for name, value in {"update": 0.01, "sample_rate": 10, "channels": 0, "tolerance": 0}.items():
        with pytest.raises(BadConfig, match=rf"\b{value}\b.*: expected"):
            StreamSettings(**{name: value})


def test_the_live_view_shows_loudness_emotions_and_lost_audio(recognizer):
    console = Console(force_terminal=True, width=100, record=True)
    view, stream = LiveView(console), Stream(recognizer)
    stream.add(sample(0))
    events = stream.add_gap(2.5)
    with view:
        view.show(sample(0), stream.seconds, events)
    console.print(view.render())
    text = console.export_text()
    assert "2.5 s of audio lost" in text
    assert "█" in text
    (segment,) = [event for event in events if event.kind == "segment" and event.row.emotion]
    assert segment.row.emotion in text


@pytest.mark.slow
def test_the_command_reads_raw_samples():
    samples = (sample(0) * 32767).astype("<i2").tobytes()
    command = [sys.executable, "-m", "affekt", "listen", "-", "--json", "--emotions", "happy,sad", "--threshold", "1"]
    result = subprocess.run(command, input=samples, capture_output=True, check=True)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {event["kind"] for event in events} == {"segment", "provisional"}
    assert [event for event in events if event["kind"] == "segment"][-1]["end"] == pytest.approx(
        len(samples) / 2 / SAMPLE_RATE, abs=1e-3
    )
    assert all(event["row"]["probabilities"].keys() == {"happy", "sad"} for event in events)
    assert all(event["row"]["status"] == "unknown" for event in events)
