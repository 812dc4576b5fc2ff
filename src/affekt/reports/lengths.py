"""How long MSTR and its baseline take over ever longer speech: what `benchmarks/lengths.py` measured, and what it comes to.

All that is said is derived from the measurements, so that new ones give a page of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from affekt.config import decode
from affekt.errors import BadConfig
from affekt.reports.card import table

OURS, OTHER = "mstr", "vanilla"
Step = Literal["forward", "training step"]
STEPS: tuple[Step, ...] = ("forward", "training step")
HALF, TENTH = 0.5, 1 / 0.9  # what a share of time, and a ratio of times, must reach to be spoken of


@dataclass(frozen=True)
class Time:
    """One model over one utterance. speech: seconds of it. took: median seconds of so many runs. attention: seconds of the
    attention of all blocks, alone, without its projections."""

    model: Literal["mstr", "vanilla"]
    step: Step
    speech: float
    frames: int
    runs: int
    took: float
    attention: float

    def __post_init__(self) -> None:
        if min(self.speech, self.frames, self.took) <= 0:
            raise BadConfig(f"{self.model} over {self.speech} s took {self.took} s: expected more than 0")

    @property
    def share(self) -> float:
        """Of the time, what attention took."""
        return self.attention / self.took


@dataclass(frozen=True)
class Floor:
    """What a forward pass must do at the least: bytes moved, where every layer reads its input and weights once and writes
    its output once, and floating-point operations of matrix products."""

    model: Literal["mstr", "vanilla"]
    speech: float
    bytes: int
    flops: int


@dataclass(frozen=True)
class Lengths:
    """machine: what it was measured on, with its threads. bandwidth: bytes per second of the fastest of several copies and
    sums. products: floating-point operations per second of the fastest product of matrices. attention_dropout: in the
    training step."""

    machine: dict[str, Any]
    bandwidth: float
    products: float
    attention_dropout: float
    times: tuple[Time, ...]
    floors: tuple[Floor, ...]

    def of(self, model: str, step: str) -> dict[float, Time]:
        """By seconds of speech, shortest first."""
        found = {one.speech: one for one in self.times if (one.model, one.step) == (model, step)}
        return dict(sorted(found.items()))

    def ratios(self, step: str) -> dict[float, float]:
        """How many times MSTR's time its baseline takes, at every length at which both were measured."""
        ours, other = self.of(OURS, step), self.of(OTHER, step)
        return {speech: other[speech].took / one.took for speech, one in ours.items() if speech in other}


def read(path: Path) -> Lengths:
    """Raises `BadConfig` where the file is missing, is not JSON, or does not hold such measurements."""
    cure = "write it by `python benchmarks/lengths.py`"
    try:
        held = msgspec.json.decode(path.read_bytes())
    except OSError:
        raise BadConfig(f"{path} cannot be read: {cure}") from None
    except msgspec.DecodeError as error:
        raise BadConfig(f"{path} is not JSON ({error}): {cure}") from None
    if not isinstance(held, dict):
        raise BadConfig(f"{path} holds no measurements by length: {cure}")
    found = decode(Lengths, held, str(path))
    if OURS not in {one.model for one in found.floors}:
        raise BadConfig(f"{path} has no floors of {OURS}: {cure}")
    for step in STEPS:
        if not found.ratios(step):
            raise BadConfig(f"{path} has no length at which both models' {step} was measured: {cure}")
    return found


def reached(values: dict[float, float], height: float) -> float | None:
    """Seconds of speech from which on values by length are at least so high, up to the last: the first length where all
    are, None where the last is not; else between two lengths, on a straight line in logarithms."""
    points = list(values.items())
    below = [place for place, (_, value) in enumerate(points) if value < height]
    if not below:
        return points[0][0]
    if below[-1] == len(points) - 1:
        return None
    (before, low), (after, high) = points[below[-1] : below[-1] + 2]
    way = math.log(height / low) / math.log(high / low)
    return before * (after / before) ** way


def section(lengths: Lengths, counted: str, frames: int, picture: str) -> str:
    """The page's part. counted: what stands first, on counts. frames: what the paper's model takes. picture: the plot's
    file name without its ending, beside the page."""
    return "\n".join(
        [
            "## What the paper's count means in time\n",
            counted,
            measured_how(lengths),
            *(f"- {sentence}" for sentence in findings(lengths, frames)),
            "",
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{picture}-dark.svg">'
            f'<img src="{picture}.svg" alt="Seconds of compute against seconds of speech, both logarithmic: forward pass '
            'and training step of mstr and vanilla, and the least that this machine needs"></picture>\n',
            floors_said(lengths),
            times(lengths),
        ]
    )


def measured_how(lengths: Lengths) -> str:
    threads = lengths.machine.get("threads")
    dropout = f"{lengths.attention_dropout:g} of attention's weights dropped" if lengths.attention_dropout else ""
    return (
        f"In time, on {lengths.machine.get('processor')}, threads: {threads}, in 32 bits, by `python benchmarks/lengths.py`: "
        "both models at the paper's widths and depth, for any length (`frames=any masked=true norm=features`), one utterance "
        "whose features are at hand, without a mask. A training step is forward, backward and Adam, "
        f"{dropout or 'without dropout of attention weights, with which torch has no fused attention on a processor'}.\n"
    )


def findings(lengths: Lengths, frames: int) -> list[str]:
    return [
        _at_the_papers_length(lengths, frames),
        *(_faster(lengths, step) for step in STEPS),
        _shares(lengths),
        " ".join(_longest(lengths, step) for step in STEPS),
    ]


def _at_the_papers_length(lengths: Lengths, frames: int) -> str:
    shared = lengths.ratios("forward")
    nearest = min(shared, key=lambda speech: abs(lengths.of(OURS, "forward")[speech].frames - frames))
    ours, other = (lengths.of(model, "forward")[nearest] for model in (OURS, OTHER))
    step = lengths.ratios("training step").get(nearest)
    trained = "" if step is None else f", and {compared(step)} for a training step"
    return (
        f"At {ours.frames} frames ({span(nearest)}) mstr takes {compared(shared[nearest])} time than vanilla{trained}. "
        f"Attention's own work, which alone differs, is {other.share:.0%} of vanilla's forward time and {ours.share:.0%} of "
        "mstr's; nearly all else are linear layers, the same in both."
    )


def _faster(lengths: Lengths, step: str) -> str:
    """Where the crossover lies, and from where on the difference is more than a tenth."""
    ratios = lengths.ratios(step)
    start, tenth = reached(ratios, 1.0), reached(ratios, TENTH)
    name = step.capitalize()
    slowest = min(ratios, key=ratios.__getitem__)
    behind = f"by up to {1 - ratios[slowest]:.0%} (at {span(slowest)})"
    if start is None:
        return f"{name}: vanilla is the faster up to the longest measured, {span(max(ratios))}, {behind}."
    if start == min(ratios):
        said = f"{name}: mstr is the faster at every length measured, from {span(start)} on"
    else:
        said = f"{name}: mstr is the faster from {span(start)} on; below, vanilla is, {behind}"
    return f"{said}." if tenth is None else f"{said}. It saves a tenth of the time or more from {span(tenth)} on."


def _shares(lengths: Lengths) -> str:
    ours, other = (lengths.of(model, "forward") for model in (OURS, OTHER))
    half = reached({speech: one.share for speech, one in other.items()}, HALF)
    where = "nowhere as much as half" if half is None else f"half or more from {span(half)} on"
    low, high = (pick(one.share for one in ours.values()) for pick in (min, max))
    return f"Attention is {where} of vanilla's forward time; of mstr's it is {low:.0%} to {high:.0%} at all lengths measured."


def _longest(lengths: Lengths, step: str) -> str:
    ratios = lengths.ratios(step)
    speech = max(ratios)
    ours, other = (lengths.of(model, step)[speech].took for model in (OURS, OTHER))
    return (
        f"{step.capitalize()} over {span(speech)}: mstr takes {figure(ours)} s, vanilla {figure(other)} s, "
        f"{ratios[speech]:.3g} times as long."
    )


def floors_said(lengths: Lengths) -> str:
    return (
        f"Grey, the least that this machine needs for a forward pass: it moves {lengths.bandwidth / 1e9:.3g} GB and "
        f"computes {lengths.products / 1e9:.3g} GFLOP in a second, at the fastest that copies and sums of arrays, and "
        "products of square matrices, were seen. Memory is the time to read every layer's weights and input once and to "
        "write its output once, the same for both models (what stays in cache takes less); arithmetic is that of the "
        "products of matrices, in the plot mstr's.\n"
    )


def times(lengths: Lengths) -> str:
    header = ["speech", "frames"]
    for step in STEPS:
        header += [f"{step}, s: {OURS}", OTHER, "ratio"]
    header += [f"attention's share: {OURS}", OTHER, "memory, s", f"arithmetic, s: {OURS}", OTHER]
    return table(header, [_row(lengths, speech) for speech in sorted({one.speech for one in lengths.times})])


def _row(lengths: Lengths, speech: float) -> list[str]:
    """Of one length; what was not measured stays empty."""
    frames = next(one.frames for one in lengths.times if one.speech == speech)
    cells = [span(speech), str(frames)]
    for step in STEPS:
        found = [lengths.of(model, step).get(speech) for model in (OURS, OTHER)]
        ratio = lengths.ratios(step).get(speech)
        cells += ["" if one is None else figure(one.took) for one in found]
        cells += ["" if ratio is None else f"{ratio:.2f}"]
    shares = [lengths.of(model, "forward").get(speech) for model in (OURS, OTHER)]
    cells += ["" if one is None else f"{one.share:.0%}" for one in shares]
    floors = {one.model: one for one in lengths.floors if one.speech == speech}
    cells += [figure(floors[OURS].bytes / lengths.bandwidth) if OURS in floors else ""]
    return cells + [figure(floors[one].flops / lengths.products) if one in floors else "" for one in (OURS, OTHER)]


def compared(ratio: float, less: str = "less", more: str = "more") -> str:
    """A ratio of the other's to ours, as how much less or more ours is: 4 / 3 is "25% less"."""
    share = 1 - 1 / ratio
    return f"{abs(share):.0%} {less if share >= 0 else more}"


def figure(number: float) -> str:
    """Three digits, and more of what is large: 0.0312, 48, 1476."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def span(seconds: float) -> str:
    """1 s, 6.5 s, 20 min."""
    return f"{seconds:.2g} s" if seconds < 60 else f"{seconds / 60:.3g} min"
