"""Voice activity detection with Silero VAD 6: the probability of speech of each frame of 32 ms, and the regions of speech.

The network is `assets/vad/silero_vad_16k.onnx` (MIT license, see LICENSE.silero beside it), Silero's weights in a graph that
computes many frames in one run. Results do not depend on how a waveform is divided into blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.errors import BadConfig

MODEL = Path(__file__).parents[1] / "assets" / "vad" / "silero_vad_16k.onnx"
FRAME = 512
"""Samples of a frame, 32 ms."""
CONTEXT = 64
"""Samples before a frame that are part of its input."""
UNITS = 128
"""Units of the network's LSTM."""
MAX_FRAMES = 128
"""Largest number of frames that are computed in one run, which limits its memory."""
FRAME_SECONDS = FRAME / SAMPLE_RATE


@dataclass(frozen=True)
class VadConfig:
    """The rule that turns probabilities into regions of speech. The defaults are those of Silero."""

    begin: float = 0.5
    """A region begins at a frame with at least this probability."""
    end: float = 0.35
    """A region ends where the probability falls below this, if `min_silence` passes before it reaches `begin` again."""
    min_silence: float = 0.1
    """Seconds."""
    min_speech: float = 0.25
    """Shorter regions are not speech. Seconds."""

    def __post_init__(self) -> None:
        if not (0 < self.end <= self.begin <= 1 and self.min_silence >= 0 and self.min_speech >= 0):
            raise BadConfig(
                f"voice activity detection: begin = {self.begin}, end = {self.end}, min_silence = {self.min_silence}, "
                f"min_speech = {self.min_speech}: expected 0 < end <= begin <= 1 and times of 0 or more"
            )


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])


class VoiceActivity:
    """The probabilities of speech of one waveform, which is pushed in blocks of any size."""

    def __init__(self) -> None:
        self._session = _session()
        self._samples: Waveform = np.zeros(CONTEXT, np.float32)
        """The samples of the next frame, after its context."""
        self._hidden = self._cell = np.zeros((1, 1, UNITS), np.float32)

    def add(self, block: Waveform) -> NDArray[np.float32]:
        """Return the probabilities of the frames that a block completes, (frames,)."""
        self._samples = np.concatenate([self._samples, block])
        count = (self._samples.size - CONTEXT) // FRAME
        if not count:
            return np.zeros(0, np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(self._samples, CONTEXT + FRAME)[::FRAME]
        parts = [self._run(frames[start : start + MAX_FRAMES]) for start in range(0, count, MAX_FRAMES)]
        self._samples = self._samples[count * FRAME :].copy()
        return np.concatenate(parts)

    def finish(self) -> NDArray[np.float32]:
        """Return the probability of the last, incomplete frame, which is filled with zeros; (0,) if there is none."""
        rest = self._samples.size - CONTEXT
        return self.add(np.zeros(FRAME - rest, np.float32)) if rest else np.zeros(0, np.float32)

    def _run(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = {"frames": frames, "h": self._hidden, "c": self._cell}
        probabilities, self._hidden, self._cell = self._session.run(None, inputs)
        result: NDArray[np.float32] = probabilities
        return result


@dataclass(frozen=True)
class Region:
    """Consecutive frames with speech."""

    start: int
    end: int
    """The frame after the last one."""

    def overlap(self, start: float, end: float) -> float:
        """Return how many frames of the region are between two positions in frames."""
        return max(0.0, min(self.end, end) - max(self.start, start))


class SpeechRegions:
    """The regions of speech of one waveform, whose probabilities are pushed frame by frame."""

    def __init__(self, config: VadConfig | None = None) -> None:
        config = config or VadConfig()
        self._config = config
        self._min_silence = config.min_silence / FRAME_SECONDS
        self._min_speech = config.min_speech / FRAME_SECONDS
        self._start: int | None = None
        self._end: int | None = None
        """Where the region in progress ends, unless speech continues."""
        self.frames = 0
        """Number of frames so far."""

    def add(self, probability: float) -> Region | None:
        """Add a frame, and return the region that is thereby known to have ended."""
        frame = self.frames
        self.frames += 1
        if probability >= self._config.begin:
            self._start, self._end = frame if self._start is None else self._start, None
        elif probability < self._config.end and self._start is not None:
            self._end = frame if self._end is None else self._end
            if frame - self._end >= self._min_silence:
                return self._close(self._end)
        return None

    def finish(self) -> Region | None:
        """Return the region that lasts to the end of the waveform."""
        return None if self._start is None else self._close(self.frames)

    def _close(self, end: int) -> Region | None:
        assert self._start is not None
        region = Region(self._start, end)
        self._start = self._end = None
        return region if region.end - region.start > self._min_speech else None

    @property
    def open(self) -> Region | None:
        """The region in progress, up to the last frame that may be speech; it may still be too short."""
        return None if self._start is None else Region(self._start, self.frames if self._end is None else self._end)

    @property
    def is_confirmed(self) -> bool:
        """Whether the region in progress is long enough to be speech."""
        region = self.open
        return region is not None and region.end - region.start > self._min_speech


def find_speech_regions(probabilities: Iterable[float], config: VadConfig | None = None) -> Iterator[Region]:
    """Yield the regions of speech in the probabilities of a whole waveform."""
    regions = SpeechRegions(config)
    for probability in probabilities:
        if region := regions.add(float(probability)):
            yield region
    if region := regions.finish():
        yield region


def has_speech(waveform: Waveform) -> bool:
    """Return whether there is a region of speech in a waveform."""
    activity = VoiceActivity()
    probabilities = np.concatenate([activity.add(waveform), activity.finish()])
    return next(find_speech_regions(probabilities), None) is not None
