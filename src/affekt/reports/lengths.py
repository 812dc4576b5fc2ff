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
from affekt.tables import table

OURS, OTHER = "mstr", "vanilla"
Step = Literal["forward", "training step"]
STEPS: tuple[Step, ...] = ("forward", "training step")
EQUAL = 0.02  # within this ratio of times neither is called the faster
HALF, TENTH = 0.5, 1 / 0.9  # what a share of time, and a ratio of times, must reach to be spoken of


@dataclass(frozen=True)
class Time:
    """One model over one utterance. speech: seconds of it. took: median seconds of so many runs. attention: seconds of the
    attention of all blocks, alone, without its projections; None where it was not timed."""

    model: Literal["mstr", "vanilla"]
    step: Step
    speech: float
    frames: int
    runs: int
    took: float
    attention: float | None

    def __post_init__(self) -> None:
        if min(self.speech, self.frames, self.took, self.runs) <= 0:
            raise BadConfig(
                f"{self.model} over {self.speech} s took {self.took} s in {self.runs} runs: expected more than 0"
            )
        if self.attention is not None and self.attention <= 0:
            raise BadConfig(
                f"{self.model} over {self.speech} s: attention took {self.attention} s, expected more than 0"
            )

    @property
    def share(self) -> float | None:
        """Of the time, what attention took, as far as that is known."""
        return None if self.attention is None else min(1.0, self.attention / self.took)


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
    training step. code: a hash of the networks' files, as they were measured."""

    machine: dict[str, Any]
    bandwidth: float
    products: float
    attention_dropout: float
    times: tuple[Time, ...]
    floors: tuple[Floor, ...]
    code: str = ""

    def __post_init__(self) -> None:
        if min(self.bandwidth, self.products) <= 0:
            raise BadConfig(f"bandwidth {self.bandwidth}, products {self.products}: expected more than 0")

    def of(self, model: str, step: str) -> dict[float, Time]:
        """By seconds of speech, shortest first."""
        found = {one.speech: one for one in self.times if (one.model, one.step) == (model, step)}
        return dict(sorted(found.items()))

    def ratios(self, step: str) -> dict[float, float]:
        """How many times MSTR's time its baseline takes, at every length at which both were measured."""
        ours, other = self.of(OURS, step), self.of(OTHER, step)
        return {speech: other[speech].took / one.took for speech, one in ours.items() if speech in other}


def read(path: Path, *, whole: bool = True) -> Lengths:
    """Raises `BadConfig` where the file is missing, is not JSON, or does not hold such measurements. whole: at one length at
    least both models in both steps."""
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
    for step in STEPS if whole else ():
        if not found.ratios(step):
            raise BadConfig(f"{path} has no length at which both models' {step} was measured: {cure} --resume")
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
    if low <= 0:
        return after
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
        f"{dropout or 'without dropout of attention weights, with which torch has no fused attention on a processor'}. "
        f"{_runs(lengths)} Attention's share is of the same attention timed alone.\n"
    )


def _runs(lengths: Lengths) -> str:
    """How often each length was timed."""
    runs = {one.speech: one.runs for one in sorted(lengths.times, key=lambda one: one.speech)}
    once = [speech for speech, number in runs.items() if number == 1]
    many = [number for number in runs.values() if number > 1]
    said = f"Medians of {max(many)} turns" if many else ""
    if many and min(many) < max(many):
        said += f", of {min(many)} from {span(min(s for s, n in runs.items() if n == min(many)))} on"
    if once:
        said += f"; {'from ' + span(min(once)) + ' on ' if many else ''}single runs" if many else "Single runs"
    return f"{said}."


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
        + (
            f"Attention's own work, which alone differs, is {other.share:.0%} of vanilla's forward time and "
            f"{ours.share:.0%} of mstr's; nearly all else are linear layers, the same in both."
            if ours.share is not None and other.share is not None
            else ""
        )
    )


def _faster(lengths: Lengths, step: str) -> str:
    """Which is the faster where, and from where on the difference is more than a tenth. Within `EQUAL` neither is."""
    ratios = lengths.ratios(step)
    name, tenth = step.capitalize(), reached(ratios, TENTH)
    slower = [speech for speech, ratio in ratios.items() if ratio < 1 - EQUAL]
    faster = [speech for speech, ratio in ratios.items() if ratio > 1 + EQUAL]
    worst = min(ratios, key=ratios.__getitem__)
    behind = f"by up to {1 - ratios[worst]:.0%} (at {span(worst)})"
    if not slower and not faster:
        return f"{name}: neither model is the faster by more than {EQUAL:.0%} at any length measured."
    if not slower:
        said = f"{name}: mstr is nowhere slower by more than {EQUAL:.0%}, and the faster from {span(min(faster))} on"
        if [speech for speech in ratios if speech >= min(faster)] != faster:
            said = (
                f"{name}: mstr is nowhere slower by more than {EQUAL:.0%}, and the faster at {_out_of(faster, ratios)}"
            )
    elif not faster:
        said = f"{name}: mstr is nowhere the faster by more than {EQUAL:.0%}; vanilla is, {behind}, "
        said += f"at {_out_of(slower, ratios)}"
    elif max(slower) < min(faster):
        start = reached(ratios, 1.0)
        said = f"{name}: vanilla is the faster up to {span(max(slower))}, {behind}; mstr from {span(min(faster))} on"
        said += f", and the two lines cross at {span(start)}" if start else ""
    else:
        said = (
            f"{name}: mstr is the faster at {_out_of(faster, ratios)}, vanilla at {_out_of(slower, ratios)}, {behind}"
        )
    return f"{said}." if tenth is None else f"{said}. It saves a tenth of the time or more from {span(tenth)} on."


def _out_of(some: list[float], ratios: dict[float, float]) -> str:
    return f"{len(some)} of {len(ratios)} lengths"


def _shares(lengths: Lengths) -> str:
    ours, other = (_known_shares(lengths, model) for model in (OURS, OTHER))
    half = reached(other, HALF)
    where = "nowhere as much as half" if half is None else f"half or more from {span(half)} on"
    low, high = (f"{pick(ours.values()):.0%}" for pick in (min, max))
    said = low if low == high else f"{low} to {high}"
    return f"Attention is {where} of vanilla's forward time; of mstr's it is {said} at all lengths measured."


def _known_shares(lengths: Lengths, model: str) -> dict[float, float]:
    found = lengths.of(model, "forward").items()
    return {speech: one.share for speech, one in found if one.share is not None}


def _longest(lengths: Lengths, step: str) -> str:
    ratios = lengths.ratios(step)
    speech = max(ratios)
    ours, other = (lengths.of(model, step)[speech].took for model in (OURS, OTHER))
    said = f"{step.capitalize()} over {span(speech)}: mstr takes {figure(ours)} s, vanilla {figure(other)} s, "
    said += f"{figure(ratios[speech])} times as long."
    alone = [one for one in lengths.of(OURS, step) if one > speech]
    return f"{said} Over {span(max(alone))} mstr alone was timed." if alone else said


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
    cells += ["" if one is None or one.share is None else f"{one.share:.0%}" for one in shares]
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
