"""The scores of an evaluation on the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from affekt.plural import quantity

MAX_GROUPS, MAX_EXTREMES = 12, 3
"""With more groups than MAX_GROUPS, MAX_EXTREMES of the lowest and of the highest scores are shown."""
MAX_COLUMNS = 4
"""Largest number of groups whose recall of each emotion is shown."""


def print_scores(scores: dict[str, Any]) -> None:
    """Print the scores on one corpus with their protocol, given as the object that `affekt evaluate --json` prints."""
    console = Console(highlight=False, soft_wrap=True)
    note = f", {scores['note']}" if scores["note"] else ""
    console.print(Text(f"{scores['model']} on {scores['corpus']}{note}: {scores['utterances']} utterances", "bold"))
    validation = scores.get("validation_verdict") or scores["verdict"]
    seeds = list(dict.fromkeys(str(run["seed"]) for run in scores.get("runs", [])))
    for name, text in (
        ("protocol", f"{scores['protocol']}, split {scores['split_hash']}"),
        ("classes", f"{len(scores['classes'])}: {', '.join(scores['classes'])}"),
        ("speakers", scores["verdict"] + (f", {scores['speakers']} scored" if scores["speakers"] else "")),
        *([("", f"validation against training: {validation}")] if validation != scores["verdict"] else []),
        ("selection", scores["selection"]),
        *([("seeds", f"{', '.join(seeds)}; every score is the mean over the seeds")] if len(seeds) > 1 else []),
        *([("profile", f"{scores['profile']}: {scores['adaptation']}")] if "profile" in scores else []),
        ("intervals", scores["intervals"]),
    ):
        console.print(f"  {name:<10} {text}")
    entries = [(name, scores[name]) for name in ("UA", "WA", "WF1")] + list(scores["recall"].items())
    width = max(len(name) for name, _ in entries)
    for name, interval in entries:
        console.print(f"  {name:<{width}}  {100 * interval['value']:5.1f} %  {_format_interval(interval)}".rstrip())
    console.print(f"  {'ECE':<{width}}  {100 * scores['ece']:5.1f} %")
    if refused := scores["refused"]:
        console.print(f"  No speech was found in {quantity(refused, 'utterance')}, counted as wrong.")
    _print_not_speech(console, scores.get("not_speech", {}))
    if missing := [emotion for emotion in scores["classes"] if emotion not in scores["recall"]]:
        console.print(f"  No utterances of {', '.join(missing)}: UA is the mean over the other emotions.")
    _print_calibration(console, scores.get("calibration"))
    _print_subgroups(console, scores.get("subgroups", ()))
    _print_runs(console, scores)


def _format_interval(interval: dict[str, float | None]) -> str:
    low, high = interval["low"], interval["high"]
    return "" if low is None or high is None else f"({100 * low:.1f} to {100 * high:.1f})"


def _print_calibration(console: Console, calibration: dict[str, Any] | None) -> None:
    """Print how much better calibrated the probabilities are after temperature scaling."""
    if calibration is None:
        return
    temperatures = [temperature for folds in calibration["temperatures"].values() for temperature in folds]
    entries = [("as trained", calibration["before"])]
    if calibration["after"]:
        span = " to ".join(dict.fromkeys(f"{edge(temperatures):.2f}" for edge in (min, max)))
        entries.append((f"temperature {span}", calibration["after"]))
    console.print(
        "Calibration" + (":" if calibration["after"] else ", without a validation subset to fit a temperature on:")
    )
    width = max(len(name) for name, _ in entries)
    for name, numbers in entries:
        console.print(
            f"  {name:<{width}}  ECE {100 * numbers['ece']:4.1f} %  Brier {numbers['brier']:.3f}  "
            f"cross-entropy {numbers['cross_entropy']:.3f}"
        )


def _print_subgroups(console: Console, subgroups: Sequence[dict[str, Any]]) -> None:
    """Print UA by groups of speakers, and whether their largest difference is more than chance."""
    for entry in subgroups:
        scores = entry["scores"]
        shown = scores
        if len(scores) > MAX_GROUPS:
            ordered = sorted(scores, key=lambda name: scores[name]["UA"]["value"])
            shown = {name: scores[name] for name in (*ordered[:MAX_EXTREMES], *ordered[-MAX_EXTREMES:])}
        few = f", the {MAX_EXTREMES} lowest and highest of {len(scores)}" if len(shown) < len(scores) else ""
        console.print(f"UA by {entry['attribute']}{few}:")
        width = max(map(len, shown))
        for name, group_scores in shown.items():
            value, number = group_scores["UA"], quantity(group_scores["utterances"], "utterance")
            console.print(
                f"  {name:<{width}}  {100 * value['value']:5.1f} %  {_format_interval(value):<15}  {number}".rstrip()
            )
        console.print(f"  {describe_gap(entry)}")
        if entry["attribute"] != "speaker" and len(scores) <= MAX_COLUMNS:
            _print_recall_by_group(console, entry)


def _print_recall_by_group(console: Console, entry: dict[str, Any]) -> None:
    """Print the recall of each emotion in each group: a line for each emotion, a column for each group."""
    groups = entry["scores"]
    emotions = list(dict.fromkeys(emotion for of_group in groups.values() for emotion in of_group["recall"]))
    columns = {
        name: [_format_recall(of_group["recall"].get(emotion)) for emotion in emotions]
        for name, of_group in groups.items()
    }
    widths = {name: max(len(name), *map(len, column)) for name, column in columns.items()}
    first = max(map(len, emotions))
    console.print(f"Recall by emotion and {entry['attribute']}:")
    console.print(f"  {'':{first}}  {'  '.join(f'{name:<{widths[name]}}' for name in columns)}".rstrip())
    for index, emotion in enumerate(emotions):
        cells = "  ".join(f"{column[index]:<{widths[name]}}" for name, column in columns.items())
        console.print(f"  {emotion:<{first}}  {cells}".rstrip())


def _format_recall(recall: dict[str, float | None] | None) -> str:
    return "-" if recall is None else f"{100 * (recall['value'] or 0):5.1f} %  {_format_interval(recall)}".rstrip()


def describe_gap(entry: dict[str, Any]) -> str:
    """Return a sentence on the largest difference between groups. It is called a gap only if its interval excludes 0."""
    unknown = f" Unknown for {quantity(entry['unknown'], 'utterance')}." if entry["unknown"] else ""
    gap = entry["gap"]
    if gap is None:
        return f"There are too few utterances to compare the groups.{unknown}"
    numbers = f"{100 * gap['value']:.1f} points ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f} over all pairs)"
    if entry["gap_shown"]:
        return f"Largest gap: {gap['higher']} over {gap['lower']} by {numbers}.{unknown}"
    return f"No gap is shown: the largest difference, {gap['higher']} over {gap['lower']}, is {numbers}.{unknown}"


def _print_not_speech(console: Console, kinds: dict[str, Any]) -> None:
    """Print how many held-out sounds the model refused when it was made."""
    for is_speech, title in ((False, "not speech"), (True, "speech")):
        entries = [entry for entry in kinds.values() if entry["speech"] is is_speech]
        if total := sum(entry["sounds"] for entry in entries):
            refused = sum(entry["refused"] for entry in entries)
            console.print(
                f"  When it was made, the model refused {refused} of {total} held-out sounds that are {title}."
            )


def _print_runs(console: Console, scores: dict[str, Any]) -> None:
    """Print mean and standard deviation over seeds and folds, and UA under each selection rule."""
    seeds = {run["seed"] for run in scores.get("runs", [])}
    if len(seeds) > 1:
        console.print(f"Mean and standard deviation over {len(seeds)} seeds, each with all its folds together:")
        for name, entry in scores["over_seeds"].items():
            console.print(f"  {name:3}  {100 * entry['mean']:5.1f} %  ± {100 * entry['std']:.1f}")
    folds = scores.get("by_fold", ())
    if len(folds) > 1:
        console.print("By fold" + (", mean over the seeds:" if len(seeds) > 1 else ":"))
        width = max(len(fold["fold"]) for fold in folds)
        for fold in folds:
            values = "  ".join(f"{name} {100 * fold[name]:5.1f} %" for name in ("UA", "WA", "WF1"))
            console.print(f"  {fold['fold']:<{width}}  {values}  {quantity(fold['utterances'], 'utterance')}")
        summary = "  ".join(f"{name} {_over_folds([fold[name] for fold in folds])}" for name in ("UA", "WA", "WF1"))
        console.print(f"  mean and standard deviation over folds: {summary}")
    by_rule = scores.get("by_selection", {})
    if len(by_rule) < 2:
        return
    console.print("UA by selection rule" + (", mean over the seeds:" if len(seeds) > 1 else ":"))
    width = max(map(len, by_rule))
    for name, entry in by_rule.items():
        console.print(f"  {name:<{width}}  {100 * entry['UA']:5.1f} %  {entry['rule']}")
    if "paper" in by_rule:
        other_rule = "validation" if "validation" in by_rule else "last"
        gain = 100 * (by_rule["paper"]["UA"] - by_rule[other_rule]["UA"])
        console.print(
            f"  Selecting on the test set adds {gain:.1f} points over {other_rule!r}; expect no such gain on new data."
        )


def _over_folds(values: Sequence[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
