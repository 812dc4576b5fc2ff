"""`affekt evaluate --across` on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from affekt.errors import BadConfig
from affekt.registry import did_you_mean
from affekt.terminal import escape_controls

if TYPE_CHECKING:
    from affekt.corpora.source import Source


def restrict_sources(sources: Sequence[Source], lists: Sequence[str]) -> list[Source]:
    """Return the sources, restricted to lists of clips given as "CORPUS=FILE", or as "FILE" if there is a single corpus."""
    files: dict[str, str] = {}
    names = [source.id for source in sources]
    for text in lists:
        name, equals, file = text.partition("=")
        if not equals and len(names) == 1:
            name, file = names[0], text
        if name not in names or not file:
            near = did_you_mean(name, names)
            raise BadConfig(f"--only {text!r}{near}: expected CORPUS=FILE, with one of the corpora {', '.join(names)}")
        files[name] = file
    return [replace(source, only=files.get(source.id, "")) for source in sources]


def print_across(content: dict[str, Any], emotions: str) -> None:
    """Print scores on corpora that a model was not trained on as Markdown.

    Args:
        content: The object that `--json` prints.
        emotions: "own" or "all" for one column of scores; "" for both.
    """
    from affekt.reports.across import EMOTIONS, remarks, sounds_table, speech_table

    entries = content["corpora"]
    print(f"{content['model']} on corpora that it was not trained on; UA in percent, with 95 % intervals\n")
    if any(entry["speech"] for entry in entries):
        print(escape_controls(speech_table(entries, (emotions,) if emotions else EMOTIONS), keep="\n"))
    if not all(entry["speech"] for entry in entries):
        print(escape_controls(sounds_table(entries), keep="\n"))
    for line in remarks(entries):
        print(escape_controls(f"- {line}"))
