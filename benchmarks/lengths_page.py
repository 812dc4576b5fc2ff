"""The section of docs/cost.md on compute time against length of speech, from the measurements of `lengths.py`.

    python benchmarks/lengths_page.py docs/cost.md

Replaces or appends the section, and draws its plot beside the page, in light and dark: cost.svg and cost-dark.svg. Every
sentence is derived from the measurements in results/lengths.json, so that new measurements give a new text.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import harness
from lengths_plot import draw
from lengths_results import BASELINE, MSTR, STEPS, Lengths, read_lengths

from affekt.cost import Cost, cost
from affekt.cost.page import amount
from affekt.tables import table

EQUAL = 0.02
"""Two models whose times differ by a smaller fraction count as equally fast."""
HALF = 0.5
"""The page states the length from which attention takes at least this fraction of the time."""
TENTH = 1 / 0.9
"""The page states the length from which the baseline's time divided by mstr's is at least this: mstr saves a tenth."""
HEADING = "## The paper's operation count and measured time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="the page, as written by `affekt cost --output`")
    parser.add_argument(
        "--times", type=Path, default=harness.RESULTS / "lengths.json", help="measurements of lengths.py"
    )
    options = parser.parse_args()
    for path in write_section(options.page, read_lengths(options.times), [cost(MSTR), cost(BASELINE)]):
        print(f"wrote {path}")


def write_section(page: Path, lengths: Lengths, costs: Sequence[Cost]) -> list[Path]:
    """Put the section at the end of the page, in place of an older one, and draw the plot; return the files written."""
    files = [page]
    for dark, ending in ((False, ".svg"), (True, "-dark.svg")):
        files.append(page.with_name(page.stem + ending))
        files[-1].write_text(draw(lengths, dark=dark), encoding="utf-8")
    text = page.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0].rstrip("\n")
    page.write_text(f"{text}\n\n{render_section(lengths, costs, page.stem)}", encoding="utf-8")
    return files


def crossing(values: dict[float, float], height: float) -> float | None:
    """Return the length from which on all values are at least `height`.

    Args:
        values: Values by seconds of speech, shortest first.
        height: The value to reach.

    Returns:
        The first length if all values reach the height; None if the last does not. Otherwise a length between two
        measured ones, on a straight line in logarithms.
    """
    points = list(values.items())
    below = [index for index, (_, value) in enumerate(points) if value < height]
    if not below:
        return points[0][0]
    if below[-1] == len(points) - 1:
        return None
    (before, low), (after, high) = points[below[-1] : below[-1] + 2]
    if low <= 0:
        return after
    return before * (after / before) ** (math.log(height / low) / math.log(high / low))


def render_section(lengths: Lengths, costs: Sequence[Cost], picture: str) -> str:
    """Return the section as Markdown.

    Args:
        lengths: The measurements.
        costs: The counted costs of MSTR and of its baseline at the paper's sizes.
        picture: File name of the plot beside the page, without its ending.
    """
    mstr, baseline = costs
    return "\n".join(
        [
            f"{HEADING}\n",
            describe_counts(mstr, baseline),
            describe_method(lengths),
            *(f"- {sentence}" for sentence in findings(lengths, mstr.frames["speech"])),
            "",
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{picture}-dark.svg">'
            f'<img src="{picture}.svg" alt="Compute time against length of speech, both logarithmic: forward pass '
            'and training step of mstr and vanilla, and the least time that this machine needs"></picture>\n',
            describe_floors(lengths),
            times_table(lengths),
        ]
    )


def describe_counts(mstr: Cost, baseline: Cost) -> str:
    assert mstr.paper_flops is not None
    assert baseline.paper_flops is not None
    return (
        f"For {mstr.frames['speech']} frames the paper's rule counts {amount(mstr.paper_flops)} operations for MSTR and "
        f"{amount(baseline.paper_flops)} for its baseline, vanilla: "
        f"{compare(baseline.paper_flops / mstr.paper_flops, 'fewer')}. The rule counts attention over all frames, but the "
        "weights of a linear layer only once, for any number of frames. With linear layers counted for every frame, the "
        f"models need {amount(mstr.flops)} and {amount(baseline.flops)} FLOPs: "
        f"{compare(baseline.flops / mstr.flops, 'fewer')}.\n"
    )


def describe_method(lengths: Lengths) -> str:
    dropout = (
        f"with a dropout of {lengths.attention_dropout:g} on attention weights" if lengths.attention_dropout else ""
    )
    return (
        f"The times below were measured by `python benchmarks/lengths.py` on {lengths.machine.get('processor')} with "
        f"{lengths.machine.get('threads')} threads, in 32 bits. Both models have the paper's widths and depth and take any "
        "length (`frames=any masked=true norm=features`). Each run takes one utterance whose features are already computed, "
        "without a mask. A training step is forward, backward and Adam, "
        f"{dropout or 'without dropout on attention weights, because with it torch has no fused attention on a CPU'}. "
        f"{describe_runs(lengths)} The attention fraction comes from timing the same attention alone.\n"
    )


def describe_runs(lengths: Lengths) -> str:
    """Return a sentence on how often each length was timed."""
    runs = {time.speech: time.runs for time in sorted(lengths.times, key=lambda time: time.speech)}
    single = [speech for speech, count in runs.items() if count == 1]
    repeated = [count for count in runs.values() if count > 1]
    if not repeated:
        return "Every time is a single run."
    text = f"Times are medians of {max(repeated)} runs"
    if min(repeated) < max(repeated):
        text += f", of {min(repeated)} from {format_length(min(s for s, n in runs.items() if n == min(repeated)))} on"
    return f"{text}, and single runs from {format_length(min(single))} on." if single else f"{text}."


def findings(lengths: Lengths, frames: int) -> list[str]:
    """Return what the measurements show, one sentence or two each."""
    return [
        _at_paper_length(lengths, frames),
        *(_faster(lengths, step) for step in STEPS),
        _attention(lengths),
        " ".join(_longest(lengths, step) for step in STEPS),
    ]


def _at_paper_length(lengths: Lengths, frames: int) -> str:
    ratios = lengths.ratios("forward")
    nearest = min(ratios, key=lambda speech: abs(lengths.times_of(MSTR, "forward")[speech].frames - frames))
    mstr, baseline = (lengths.times_of(model, "forward")[nearest] for model in (MSTR, BASELINE))
    ratio = lengths.ratios("training step").get(nearest)
    training = "" if ratio is None else f", and {compare(ratio)} for a training step"
    return (
        f"At {mstr.frames} frames ({format_length(nearest)}) mstr takes {compare(ratios[nearest])} time than vanilla"
        f"{training}. "
        + (
            f"Attention, the only difference between the two, is {baseline.attention_fraction:.0%} of vanilla's forward "
            f"time and {mstr.attention_fraction:.0%} of mstr's; nearly all the rest is linear layers."
            if mstr.attention_fraction is not None and baseline.attention_fraction is not None
            else ""
        )
    )


def _faster(lengths: Lengths, step: str) -> str:
    """Return sentences on which model is faster at which lengths, and from which length on mstr saves at least a tenth."""
    ratios = lengths.ratios(step)
    name, tenth = step.capitalize(), crossing(ratios, TENTH)
    slower = [speech for speech, ratio in ratios.items() if ratio < 1 - EQUAL]
    faster = [speech for speech, ratio in ratios.items() if ratio > 1 + EQUAL]
    worst = min(ratios, key=ratios.__getitem__)
    lead = f"by up to {1 - ratios[worst]:.0%} (at {format_length(worst)})"
    if not slower and not faster:
        return f"{name}: the models differ by at most {EQUAL:.0%} at every measured length."
    if not slower:
        text = f"{name}: mstr is never slower by more than {EQUAL:.0%}, and faster from {format_length(min(faster))} on"
        if [speech for speech in ratios if speech >= min(faster)] != faster:
            text = f"{name}: mstr is never slower by more than {EQUAL:.0%}, and faster at {_of_all(faster, ratios)}"
    elif not faster:
        text = f"{name}: mstr is never faster by more than {EQUAL:.0%}; vanilla is faster, {lead}, "
        text += f"at {_of_all(slower, ratios)}"
    elif max(slower) < min(faster):
        start = crossing(ratios, 1.0)
        text = f"{name}: vanilla is faster up to {format_length(max(slower))}, {lead}; "
        text += f"mstr is faster from {format_length(min(faster))} on"
        text += f", and both take the same time at {format_length(start)}" if start else ""
    else:
        text = f"{name}: mstr is faster at {_of_all(faster, ratios)}, vanilla at {_of_all(slower, ratios)}, {lead}"
    return (
        f"{text}."
        if tenth is None
        else f"{text}. mstr saves at least a tenth of the time from {format_length(tenth)} on."
    )


def _of_all(some: list[float], ratios: dict[float, float]) -> str:
    return f"{len(some)} of {len(ratios)} lengths"


def _attention(lengths: Lengths) -> str:
    mstr, baseline = (_attention_fractions(lengths, model) for model in (MSTR, BASELINE))
    half = crossing(baseline, HALF)
    start = "less than half" if half is None else "at least half"
    since = "" if half is None else f" from {format_length(half)} on"
    low, high = (f"{pick(mstr.values()):.0%}" for pick in (min, max))
    text = low if low == high else f"{low} to {high}"
    return f"Attention takes {start} of vanilla's forward time{since}, and {text} of mstr's at every measured length."


def _attention_fractions(lengths: Lengths, model: str) -> dict[float, float]:
    times = lengths.times_of(model, "forward").items()
    return {speech: time.attention_fraction for speech, time in times if time.attention_fraction is not None}


def _longest(lengths: Lengths, step: str) -> str:
    ratios = lengths.ratios(step)
    speech = max(ratios)
    mstr, baseline = (lengths.times_of(model, step)[speech].seconds for model in (MSTR, BASELINE))
    text = f"{step.capitalize()} for {format_length(speech)}: mstr takes {figure(mstr)} s and vanilla {figure(baseline)} s, "
    text += f"{figure(ratios[speech])} times as long."
    alone = [longer for longer in lengths.times_of(MSTR, step) if longer > speech]
    return f"{text} For {format_length(max(alone))} only mstr was timed." if alone else text


def describe_floors(lengths: Lengths) -> str:
    return (
        "The gray lines show the least time that this machine needs for a forward pass. It moves at most "
        f"{lengths.bandwidth / 1e9:.3g} GB/s, measured with copies and sums of arrays, and computes at most "
        f"{lengths.products / 1e9:.3g} GFLOP/s, measured with products of square matrices. Memory is the time to read every "
        "layer's weights and input once and to write its output once; it is the same for both models, and data that stay in "
        "cache take less. Arithmetic is the time for the matrix products; the plot shows it for mstr.\n"
    )


def times_table(lengths: Lengths) -> str:
    header = ["speech", "frames"]
    for step in STEPS:
        header += [f"{step}, s: {MSTR}", BASELINE, "ratio"]
    header += [f"attention fraction: {MSTR}", BASELINE, "memory, s", f"arithmetic, s: {MSTR}", BASELINE]
    return table(header, [_row(lengths, speech) for speech in sorted({time.speech for time in lengths.times})])


def _row(lengths: Lengths, speech: float) -> list[str]:
    """Return the cells of the row for one length, in seconds of speech; cells without a measurement are empty."""
    frames = next(time.frames for time in lengths.times if time.speech == speech)
    cells = [format_length(speech), str(frames)]
    for step in STEPS:
        times = [lengths.times_of(model, step).get(speech) for model in (MSTR, BASELINE)]
        ratio = lengths.ratios(step).get(speech)
        cells += ["" if time is None else figure(time.seconds) for time in times]
        cells += ["" if ratio is None else f"{ratio:.2f}"]
    times = [lengths.times_of(model, "forward").get(speech) for model in (MSTR, BASELINE)]
    fractions = [None if time is None else time.attention_fraction for time in times]
    cells += ["" if fraction is None else f"{fraction:.0%}" for fraction in fractions]
    floors = {floor.model: floor for floor in lengths.floors if floor.speech == speech}
    cells += [figure(floors[MSTR].bytes / lengths.bandwidth) if MSTR in floors else ""]
    return cells + [
        figure(floors[model].flops / lengths.products) if model in floors else "" for model in (MSTR, BASELINE)
    ]


def compare(ratio: float, less: str = "less", more: str = "more") -> str:
    """Return a phrase on how much less mstr needs, given the baseline's amount divided by mstr's: 4 / 3 is "25% less"."""
    saved = 1 - 1 / ratio
    return f"{abs(saved):.0%} {less if saved >= 0 else more}"


def figure(number: float) -> str:
    """Format with three digits, or all digits before the point: 0.0312, 48, 1476."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def format_length(seconds: float) -> str:
    """Format a duration: 1 s, 6.5 s, 20 min."""
    return f"{seconds:.2g} s" if seconds < 60 else f"{seconds / 60:.3g} min"


if __name__ == "__main__":
    main()
