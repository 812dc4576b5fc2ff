"""The scores of an evaluation on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from affekt.plural import quantity


def print_scores(scores: dict[str, Any]) -> None:
    """Print the scores on one corpus with their protocol, given as the object that `affekt evaluate --json` prints."""
    console = Console(highlight=False, soft_wrap=True)
    note = f", {scores['note']}" if scores["note"] else ""
    console.print(Text(f"{scores['model']} on {scores['corpus']}{note}: {scores['utterances']} utterances", "bold"))
    for name, text in (
        ("protocol", f"{scores['protocol']}, split {scores['split_hash']}"),
        ("speakers", scores["verdict"] + (f", {scores['speakers']} scored" if scores["speakers"] else "")),
        ("selection", scores["selection"]),
        *([("profile", f"{scores['profile']}: {scores['adaptation']}")] if "profile" in scores else []),
        ("intervals", scores["intervals"]),
    ):
        console.print(f"  {name:<10} {text}")
    entries = [(name, scores[name]) for name in ("UA", "WA", "WF1")] + list(scores["recall"].items())
    width = max(len(name) for name, _ in entries)
    for name, interval in entries:
        value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
        console.print(f"  {name:<{width}}  {value:5.1f} %  ({low:.1f} to {high:.1f})")
    console.print(f"  {'ECE':<{width}}  {100 * scores['ece']:5.1f} %")
    if refused := scores["refused"]:
        console.print(f"  No speech was found in {quantity(refused, 'utterance')}, counted as wrong.")
    _print_not_speech(console, scores.get("not_speech", {}))
    if missing := [emotion for emotion in scores["classes"] if emotion not in scores["recall"]]:
        console.print(f"  No utterances of {', '.join(missing)}: UA is the mean over the other emotions.")
    _print_runs(console, scores)


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
    """Print mean and standard deviation over runs, and UA under each selection rule."""
    runs = scores.get("runs", [])
    if len(runs) > 1:
        console.print(f"Mean and standard deviation over {len(runs)} runs:")
        for name, entry in scores["over_runs"].items():
            console.print(f"  {name:3}  {100 * entry['mean']:5.1f} %  ± {100 * entry['std']:.1f}")
    by_rule = scores.get("by_selection", {})
    if len(by_rule) < 2:
        return
    console.print("UA by selection rule" + (", mean over runs:" if len(runs) > 1 else ":"))
    width = max(map(len, by_rule))
    for name, entry in by_rule.items():
        console.print(f"  {name:<{width}}  {100 * entry['UA']:5.1f} %  {entry['rule']}")
    if "paper" in by_rule:
        other_rule = "validation" if "validation" in by_rule else "last"
        gain = 100 * (by_rule["paper"]["UA"] - by_rule[other_rule]["UA"])
        console.print(
            f"  Selecting on the test set adds {gain:.1f} points over {other_rule!r}; expect no such gain on new data."
        )
