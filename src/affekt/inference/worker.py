"""The worker process of recognition: it loads a recognizer, and recognizes or observes the files that it is sent.

Messages from the parent: first the recognizer (`describe`), then requests, `{"do": ..., ...}`. Messages
to the parent: `ready`, `log`, `error`, and for each request any number of `window` and one `row`, `rows`, `clips` or
`failure`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from affekt.audio import decoder_messages
from affekt.audio.mono import SAMPLE_RATE
from affekt.audio.time_limit import decoders_are_abandoned
from affekt.bundle.folder import Bundle
from affekt.errors import AffektError, BadAudio
from affekt.inference.decision import Decision
from affekt.inference.embedding import embed_or_fail
from affekt.inference.onnx import Graph
from affekt.inference.profile import Profile
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row, make_row
from affekt.processes import Message, Parent, SendingHandler

ENTRY = f"{__name__}:work"


def describe(recognizer: Recognizer) -> Message:
    """Return a recognizer as the message from which a worker loads it."""
    return {
        "bundle": str(recognizer.bundle.folder.absolute()),  # a shipped bundle could have the relative name
        "threads": recognizer.graph.threads,
        "vad": recognizer.vad,
        "profile": None if recognizer.profile is None else asdict(recognizer.profile),
        "decision": asdict(recognizer.decision),
        "log": logging.getLogger("affekt").getEffectiveLevel(),
        "silent": decoder_messages.are_separated(),
    }


def work() -> None:
    """Recognize the files that the parent process sends; the main function of a worker."""
    parent = Parent()
    setup = parent.receive()
    if setup["silent"]:
        decoder_messages.separate_streams()
    logger = logging.getLogger("affekt")
    logger.setLevel(setup["log"])
    logger.propagate = False
    logger.addHandler(SendingHandler(parent))
    try:
        recognizer = _load(setup)
    except AffektError as error:
        parent.send({"error": str(error), "kind": type(error).__name__, "code": error.code})
        return
    parent.send({"ready": recognizer.model})
    while True:
        request = parent.receive()
        match request.pop("do"):
            case "observe":
                result = observe(recognizer, **request)
            case "embed":
                result = {"embedding": embed_or_fail(recognizer, request.pop("path"), **request).to_message()}
            case "recognize_segments":
                result = {"rows": recognize_segments(recognizer, **request)}
            case _:
                result = recognize(recognizer, parent, **request)
        # A decoder that still runs after its time limit occupies a core: this worker is replaced.
        ends = decoders_are_abandoned()
        parent.send(result | {"ends": ends})
        if ends:
            return


def _load(setup: Mapping[str, Any]) -> Recognizer:
    import msgspec

    profile = None if setup["profile"] is None else msgspec.convert(setup["profile"], Profile)
    detects = setup["vad"] != "off"
    graph = Graph.load(Bundle.open(setup["bundle"]), threads=setup["threads"], profile=profile, detects=detects)
    return Recognizer(graph, msgspec.convert(setup["decision"], Decision), setup["vad"])


def recognize(
    recognizer: Recognizer, parent: Parent, *, path: str, lenient: bool, timeout: float | None, windows: list[Any]
) -> Message:
    """Recognize a file, send the rows of its windows, and return its row.

    Args:
        recognizer: The recognizer.
        parent: The process that receives the windows.
        path: The file.
        lenient: As for `Recognizer.row`.
        timeout: As for `Recognizer.row`.
        windows: The rows of windows from an earlier, interrupted run.
    """
    finished = _Windows(parent, {(row["start"], row["end"]): restore_row(row) for row in windows})
    return {"row": recognizer.row(path, lenient=lenient, timeout=timeout, finished=finished)}


def recognize_segments(recognizer: Recognizer, *, path: str, segments: list[tuple[float, float | None]]) -> list[Row]:
    """Return the rows of segments of one file, which is read once; their times are those in the file.

    Args:
        recognizer: The recognizer.
        path: The file or its URL.
        segments: Start and end of each in seconds; None for the end of the file.
    """
    from affekt.audio.streams import local_copy
    from affekt.corpora.waveforms import read_waveforms
    from affekt.utterance import Utterance

    rows: dict[int, Row] = {}
    try:
        with local_copy(path) as copy:
            utterances = {
                index: Utterance("", "", copy, "", start=start, end=end) for index, (start, end) in enumerate(segments)
            }
            for index, waveform in read_waveforms(utterances):
                start = segments[index][0]
                if isinstance(waveform, BadAudio):
                    error = BadAudio(str(waveform).replace(str(copy), path), code=waveform.code)
                    rows[index] = make_row(path, recognizer.model, error=error, applied=recognizer.applied)
                else:
                    rows[index] = _move(recognizer.row((waveform, SAMPLE_RATE)), path, start)
    except AffektError as error:
        rows = {
            index: make_row(path, recognizer.model, error=error, applied=recognizer.applied)
            for index in range(len(segments))
        }
    return [rows[index] for index in range(len(segments))]


def _move(row: Row, file: str, seconds: float) -> Row:
    """Give a row, and those of its windows, another file and a later start. Errors are those of the same segment."""
    for part in (row, *row.windows):
        part["file"] = file
        if not part.error:
            part["start"], part["end"] = round(part.start + seconds, 4), round(part.end + seconds, 4)
        else:
            part["error"] = part.error | {
                "message": part.error["message"].replace("<array>", f"{file} from {seconds:g} s")
            }
    return row


def restore_row(content: Mapping[str, Any]) -> Row:
    """Return the content of a message as a row; its windows are rows too."""
    row = Row(content)
    if "windows" in row:
        row["windows"] = [Row(window) for window in row["windows"]]
    return row


def observe(recognizer: Recognizer, *, path: str, lenient: bool, timeout: float | None) -> Message:
    """Return the clips of a file, or why it cannot be read; arguments as for `recognize`."""
    from affekt.inference.clips import describe_failure, observe_clips

    try:
        clips = observe_clips(recognizer, path, lenient=lenient, timeout=timeout)
    except Exception as error:
        return {"failure": describe_failure(error)}
    return {"clips": [clip.to_message() for clip in clips]}


class _Windows:
    """The finished windows of one file; new ones are sent to the parent."""

    def __init__(self, parent: Parent, stored: Mapping[tuple[float, float], Row]) -> None:
        self._parent, self._stored = parent, stored

    def find(self, start: float, end: float) -> Row | None:
        return self._stored.get((round(start, 4), round(end, 4)))

    def add(self, row: Row) -> None:
        self._parent.send({"window": row})
