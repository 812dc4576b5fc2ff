"""The measurements that `lengths.py` writes and `lengths_page.py` and `lengths_plot.py` read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from affekt.config import decode
from affekt.errors import BadConfig

ModelName = Literal["mstr", "vanilla"]
MSTR: ModelName = "mstr"
BASELINE: ModelName = "vanilla"
Step = Literal["forward", "training step"]
STEPS: tuple[Step, ...] = ("forward", "training step")


@dataclass(frozen=True)
class Time:
    """The time of one model for one utterance."""

    model: ModelName
    step: Step
    speech: float
    """Length of the utterance in seconds."""
    frames: int
    runs: int
    seconds: float
    """Median over the runs."""
    attention: float | None
    """Seconds for the attention of all blocks alone, without its projections; None if it was not timed."""

    def __post_init__(self) -> None:
        if min(self.speech, self.frames, self.seconds, self.runs) <= 0:
            raise BadConfig(
                f"{self.model}, {self.speech} s of speech: {self.seconds} s in {self.runs} runs; expected more than 0"
            )
        if self.attention is not None and self.attention <= 0:
            raise BadConfig(
                f"{self.model}, {self.speech} s of speech: attention took {self.attention} s; expected more than 0"
            )

    @property
    def attention_fraction(self) -> float | None:
        """Fraction of the time that attention takes; None if it was not timed."""
        return None if self.attention is None else min(1.0, self.attention / self.seconds)


@dataclass(frozen=True)
class Floor:
    """The least work of one forward pass: every layer reads its input and weights once and writes its output once."""

    model: ModelName
    speech: float
    bytes: int
    flops: int
    """Floating-point operations of the matrix products."""


@dataclass(frozen=True)
class Lengths:
    """All measurements of one machine."""

    machine: dict[str, Any]
    bandwidth: float
    """Bytes per second of the fastest of several copies and sums."""
    products: float
    """Floating-point operations per second of the fastest matrix product."""
    attention_dropout: float
    """Dropout of attention weights in the training step."""
    times: tuple[Time, ...]
    floors: tuple[Floor, ...]
    code: str = ""
    """Hash of the source files of the measured networks."""

    def __post_init__(self) -> None:
        if min(self.bandwidth, self.products) <= 0:
            raise BadConfig(f"bandwidth {self.bandwidth}, products {self.products}: expected more than 0")

    def times_of(self, model: str, step: str) -> dict[float, Time]:
        """Return the times of a model by seconds of speech, shortest first."""
        times = {time.speech: time for time in self.times if (time.model, time.step) == (model, step)}
        return dict(sorted(times.items()))

    def ratios(self, step: str) -> dict[float, float]:
        """Return the baseline's time divided by MSTR's, for every length at which both were measured."""
        mstr, baseline = self.times_of(MSTR, step), self.times_of(BASELINE, step)
        return {speech: baseline[speech].seconds / time.seconds for speech, time in mstr.items() if speech in baseline}


def read_lengths(path: Path, *, complete: bool = True) -> Lengths:
    """Read measurements.

    Args:
        path: A JSON file written by `lengths.py`.
        complete: Require at least one length at which both models were measured in both steps.

    Raises:
        BadConfig: The file is missing, is not JSON or does not hold such measurements.
    """
    cure = "write it with `python benchmarks/lengths.py`"
    try:
        content = msgspec.json.decode(path.read_bytes())
    except OSError:
        raise BadConfig(f"{path} cannot be read: {cure}") from None
    except msgspec.DecodeError as error:
        raise BadConfig(f"{path} is not JSON ({error}): {cure}") from None
    if not isinstance(content, dict):
        raise BadConfig(f"{path} does not hold measurements by length: {cure}")
    lengths = decode(Lengths, content, str(path))
    if MSTR not in {floor.model for floor in lengths.floors}:
        raise BadConfig(f"{path} has no floors of {MSTR}: {cure}")
    for step in STEPS if complete else ():
        if not lengths.ratios(step):
            raise BadConfig(f"{path} has no length at which both models' {step} was measured: {cure} --resume")
    return lengths
