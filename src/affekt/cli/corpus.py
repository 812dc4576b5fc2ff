"""`affekt corpus describe|check|export|transcribe`."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.corpora.inspection import Check, Description
    from affekt.corpora.source import Source

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="cremad, emodb, iemocap, meld, ravdess, folder or table.")]
Root = Annotated[
    str, typer.Argument(metavar="ROOT", help="Its folder, or the table's file. By default AFFEKT_DATA/NAME.")
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="Of a table: the column that holds a field, as audio=path; session= reads none.",
    ),
]
Emotions = Annotated[
    list[str] | None,
    typer.Option("--emotion", metavar="WORD=EMOTION", help="Of a folder or table: what a word of its own means."),
]
MANY = 12  # up to so many sessions or speakers are listed, more in a line
BAR = 30  # cells


@app.command()
def describe(
    name: Name,
    root: Root = "",
    labels: Annotated[str, typer.Option(metavar="SET", help="Count a label set: iemocap-4, six, meld-7, ...")] = "",
    json: Json = False,
    column: Columns = None,
    emotion: Emotions = None,
) -> None:
    """Count a corpus's utterances, hours, emotions, sessions and speakers, and compare them with the published ones."""
    import json as jsonlib
    from dataclasses import asdict

    from affekt.corpora import inspection
    from affekt.labels import label_set

    source = _source(name, root, column, emotion)
    found = inspection.describe(source, label_set(labels) if labels else None)
    if json:
        print(jsonlib.dumps(asdict(found)))
    else:
        _print_description(source, found, labels)


@app.command()
def check(name: Name, root: Root = "", json: Json = False, column: Columns = None, emotion: Emotions = None) -> None:
    """Hear every file: missing, unreadable, silent or duplicate audio, and counts that are not the published ones.

    Exit status: 0 if nothing is wrong, 1 if something is, 2 if the corpus cannot be read at all.
    """
    import json as jsonlib
    from dataclasses import asdict

    from affekt.cli.display import progress_bar
    from affekt.corpora import inspection

    source = _source(name, root, column, emotion)
    with progress_bar() as progress:
        found = inspection.check(source, progress)
    if json:
        print(jsonlib.dumps(asdict(found)))
    else:
        _print_check(source, found)
    sys.exit(1 if found.problems else 0)


@app.command()
def export(
    name: Name,
    root: Annotated[str, typer.Argument(metavar="ROOT", help="Its folder, or the table's file.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A .jsonl file, or a .csv file for audformat.")],
    format: Annotated[str, typer.Option(metavar="FORMAT", help="jsonl or audformat, whatever OUTPUT's suffix.")] = "",
    column: Columns = None,
    emotion: Emotions = None,
) -> None:
    """Write a corpus as a table: JSON lines, which `table` reads again, or audformat's CSV."""
    from affekt.corpora.export import export

    utterances = _source(name, root, column, emotion).read()
    export(utterances, output, format or None)
    print(f"{output}: {len(utterances)} utterances", file=sys.stderr)


@app.command()
def transcribe(
    name: Name,
    model: Annotated[
        str,
        typer.Option(
            metavar="FOLDER_OR_NAME",
            help="A Whisper in CTranslate2's format: a folder, one below AFFEKT_MODELS, or a name on the hub, as small.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="TABLE", help="A .jsonl or .csv file, which `table` reads.")],
    root: Root = "",
    again: Annotated[bool, typer.Option("--again", help="Also what has words already: they are replaced.")] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu or cuda.")] = "cpu",
    json: Json = False,
    column: Columns = None,
    emotion: Emotions = None,
) -> None:
    """Write down what is said where a corpus does not: a table with words, and who wrote them. Goes on where it stopped."""
    import json as jsonlib
    from dataclasses import asdict

    from affekt.cli.display import progress_bar
    from affekt.corpora import transcription

    utterances = _source(name, root, column, emotion).read()
    transcription.check_output(output, utterances)
    recogniser = transcription.Whisper(model, device)
    with progress_bar() as progress:
        found = transcription.transcribe(utterances, recogniser, output, again=again, progress=progress)
    if json:
        print(jsonlib.dumps({**asdict(found), "output": str(output), "text_by": recogniser.name}))
        return
    resumed = f", {found.resumed} of them in an earlier run" if found.resumed else ""
    print(f"{output}: {found.utterances} utterances, {found.recognised} recognised by {recogniser.name}{resumed}")
    print(f"{found.given} had words, which stay; in {found.wordless} no word was found")


def _source(name: str, root: str, columns: list[str] | None, emotions: list[str] | None) -> Source:
    from affekt.corpora.source import Source

    return Source(name, root, pairs("--column", columns), pairs("--emotion", emotions))


def pairs(option: str, values: list[str] | None) -> dict[str, str]:
    pairs = {}
    for value in values or ():
        left, equals, right = value.partition("=")
        if not left or not equals:
            raise BadConfig(f"{option} {value!r}: expected two words with = between them")
        pairs[left] = right
    return pairs


def _print_description(source: Source, found: Description, labels: str) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # bars are not worth failing for
        sys.stdout.reconfigure(errors="replace")
    note = f", {source.note}" if source.note else ""
    print(f"{source.title}{note}{f', label set {labels}' if labels else ''}")
    people = f", {len(found.speakers)} speakers" if found.speakers else ""
    sound = f"{found.hours:.2f} hours" if found.hours else "no sound"
    print(f"{found.utterances} utterances, {sound}{people}")
    _print_counts("emotion", found.emotions, listed=True)
    _print_counts("session", found.sessions)
    _print_counts("speaker", found.speakers)
    _print_problems(found.problems)


def _print_counts(kind: str, counts: Mapping[str, int], *, listed: bool = False) -> None:
    from affekt.cli.display import bar, fit_name

    if not counts:
        return
    if len(counts) > MANY and not listed:
        print(f"\n{len(counts)} {kind}s, of {min(counts.values())} to {max(counts.values())} utterances")
        return
    width = max(len(kind), *map(len, counts))
    total, most = sum(counts.values()), max(counts.values())
    print(f"\n{kind:<{width}}  utterances")
    for name, count in counts.items():
        print(f"{fit_name(name, width)}  {count:>10}  {count / total:6.1%}  {bar(count / most, BAR)}".rstrip())


def _print_check(source: Source, found: Check) -> None:
    note = f", {source.note}" if source.note else ""
    print(f"{source.title}{note}: {found.utterances} utterances, {found.files} files heard")
    if not found.problems:
        print("nothing is wrong: every file is there, can be read, is not silent, and stands only once")
    for note in found.notes:
        print(f"note: {note}")
    _print_problems(found.problems)


def _print_problems(problems: tuple[str, ...]) -> None:
    """A problem a paragraph; on a terminal, its lines below one another."""
    import shutil
    import textwrap

    if problems:
        print(f"\n{len(problems)} {'problem' if len(problems) == 1 else 'problems'}")
    for problem in problems:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        print(
            textwrap.fill(problem, width, initial_indent="  ", subsequent_indent="    ")
            if width > 40
            else f"  {problem}"
        )
