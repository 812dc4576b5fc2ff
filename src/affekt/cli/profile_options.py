"""Learning a profile on the command line: the option --expected, and the messages of `affekt adapt` and --adapt."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig
from affekt.plural import quantity

if TYPE_CHECKING:
    from affekt.inference.profile import Profile
    from affekt.inference.recognizer import Recognizer

Expected = Annotated[
    list[str] | None,
    typer.Option(
        metavar="EMOTION=FRACTION,...",
        help="How frequent emotions are in these recordings, such as neutral=0.8. All other emotions share the rest evenly. "
        "Default: all emotions are equally frequent. Repeatable.",
    ),
]


def parse_expected(values: list[str] | None) -> dict[str, float]:
    """Parse the values of --expected. Raises `BadConfig`."""
    expected: dict[str, float] = {}
    for part in (part for value in values or () for part in value.split(",")):
        emotion, _, text = (field.strip() for field in part.partition("="))
        try:
            fraction = float(text)
        except ValueError:
            raise BadConfig(f"--expected {part!r}: expected EMOTION=FRACTION, such as neutral=0.8") from None
        if emotion in expected:
            raise BadConfig(f"--expected names {emotion} twice")
        expected[emotion] = fraction
    return expected


def learn(
    inputs: Sequence[str | Path],
    recognizer: Recognizer,
    *,
    name: str,
    expected: list[str] | None,
    lenient: bool,
    timeout: float,
    jobs: int | None,
) -> Profile:
    """Learn a profile with a progress bar, and print its notes on standard error."""
    from affekt.cli.progress_bars import progress_bar
    from affekt.workflows.learn_profile import learn_profile

    with progress_bar() as progress:
        profile = learn_profile(
            inputs,
            recognizer=recognizer,
            name=name,
            expected=parse_expected(expected),
            lenient=lenient,
            timeout=timeout,
            jobs=jobs,
            progress=progress,
        )
    for note in profile.notes:
        print(f"note: {note}", file=sys.stderr)
    return profile


def summarize(profile: Profile) -> str:
    """Return what a profile was learned from, in one line."""
    skipped = sum(profile.skipped.values())
    statuses = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in profile.skipped.items())
    left_out = f", {skipped} left out ({statuses})" if skipped else ""
    recordings = quantity(profile.recordings, "recording")
    return f"{profile.id}, learned from {recordings} ({profile.seconds:.0f} s){left_out}, for {profile.model}"
