"""`affekt corpus list|describe|check|export|transcribe`: work with corpora."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.cli.source_options import Annotators, Columns, Delimiter, Emotions, Layout, Only, set_options
from affekt.plural import quantity
from affekt.terminal import escape_controls

if TYPE_CHECKING:
    from affekt.corpora.inspection import Check, Description
    from affekt.corpora.source import Source

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A corpus of `affekt corpus list`; 'folder' or 'table' for your own data.")
]
Root = Annotated[
    str, typer.Argument(metavar="ROOT", help="The corpus's folder, or the table's file; default: AFFEKT_DATA/NAME.")
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of each error and the messages of the decoders.")
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]
MAX_LISTED = 12
"""Maximum number of sessions or speakers that are listed; more are summarized in one line."""
BAR_WIDTH = 30
"""Width of a bar, in terminal cells."""


@app.command("list")
def list_all(json: Json = False) -> None:
    """List the corpora that affekt reads, with their licenses.

    The license of an open corpus is CC0, CC BY, ODbL or Apache-2.0. Models that ship with affekt are trained on open corpora
    only.
    """
    from affekt.cli.text_rows import fit_name
    from affekt.corpora import corpora
    from affekt.corpora.source import OWN
    from affekt.json_text import to_json

    entries = [corpora[name] for name in corpora if name not in OWN]
    if json:
        fields = ("name", "title", "language", "style", "speech", "license", "source", "is_open")
        print(to_json([{field: getattr(entry, field) for field in fields} for entry in entries]))
        return
    header = ("name", "language", "style", "open", "license", "source")
    rows = [
        (entry.name, entry.language, entry.style, "yes" if entry.is_open else "no", entry.license, entry.source)
        for entry in entries
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join(fit_name(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def describe(
    name: Name,
    root: Root = "",
    labels: Annotated[
        str, typer.Option(metavar="SET", help="Count only the utterances of a label set: iemocap-4, six, meld-7, ...")
    ] = "",
    json: Json = False,
    column: Columns = None,
    emotion: Emotions = None,
    layout: Layout = "",
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
    only: Only = "",
) -> None:
    """Count the contents of a corpus.

    Utterances, hours, emotions, sessions and speakers are counted, and compared with the published counts.
    """
    from dataclasses import asdict

    from affekt.corpora import inspection
    from affekt.json_text import to_json
    from affekt.labels import label_set

    source = _source(name, root, column, emotion, layout, delimiter, annotators, only)
    description = inspection.describe(source, label_set(labels) if labels else None)
    if json:
        print(to_json(asdict(description)))
    else:
        _print_description(source, description, labels)


@app.command()
def check(
    name: Name,
    root: Root = "",
    json: Json = False,
    column: Columns = None,
    emotion: Emotions = None,
    layout: Layout = "",
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
    only: Only = "",
    debug: Debug = False,
) -> None:
    """Find faults in a corpus by reading every file.

    Missing, unreadable, silent and duplicate audio is reported, and so are counts that differ from the published ones.

    Exit status: 0 if there is no problem, 1 if there is, 2 if the corpus cannot be read at all.
    """
    from dataclasses import asdict

    from affekt.cli.progress_bars import progress_bar
    from affekt.corpora import inspection
    from affekt.json_text import to_json

    source = _source(name, root, column, emotion, layout, delimiter, annotators, only, debug)
    with progress_bar() as progress:
        report = inspection.check(source, progress)
    if json:
        print(to_json(asdict(report)))
    else:
        _print_check(source, report)
    sys.exit(1 if report.problems else 0)


@app.command()
def export(
    name: Name,
    root: Annotated[str, typer.Argument(metavar="ROOT", help="The corpus's folder, or the table's file.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A .jsonl file, or a .csv file for audformat.")],
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="jsonl or audformat; default: the one that OUTPUT's suffix implies.")
    ] = "",
    column: Columns = None,
    emotion: Emotions = None,
    layout: Layout = "",
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
    only: Only = "",
) -> None:
    """Export a corpus as a table.

    The table is written as JSON lines, or as CSV in the audformat layout. Both can be used as the corpus 'table'.
    """
    from affekt.corpora.export import export

    utterances = _source(name, root, column, emotion, layout, delimiter, annotators, only).read()
    export(utterances, output, format or None)
    print(f"{output}: {quantity(len(utterances), 'utterance')}", file=sys.stderr)


@app.command()
def transcribe(
    name: Name,
    model: Annotated[
        str,
        typer.Option(
            metavar="FOLDER_OR_NAME",
            help="A Whisper model in CTranslate2 format (extra asr): a folder, one in AFFEKT_MODELS, or a name on the "
            "Hugging Face hub such as small; or pocketsphinx (extra of that name; English only, less accurate, no download).",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(metavar="TABLE", help="The .jsonl or .csv file to write; it can be used as the corpus 'table'."),
    ],
    root: Root = "",
    again: Annotated[bool, typer.Option("--again", help="Also replace existing transcripts.")] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu or cuda.")] = "cpu",
    json: Json = False,
    column: Columns = None,
    emotion: Emotions = None,
    layout: Layout = "",
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
    only: Only = "",
    debug: Debug = False,
) -> None:
    """Add missing transcripts with a speech-to-text model.

    The result is a table in which new transcripts are marked as such. Running the same command again resumes an
    interrupted transcription.
    """
    from dataclasses import asdict

    from affekt.asr import load_recognizer
    from affekt.cli.progress_bars import progress_bar
    from affekt.corpora import transcription
    from affekt.json_text import to_json

    utterances = _source(name, root, column, emotion, layout, delimiter, annotators, only, debug).read()
    transcription.check_output(output, utterances)
    recognizer = load_recognizer(model, device)
    with progress_bar() as progress:
        summary = transcription.transcribe(utterances, recognizer, output, again=again, progress=progress)
    if json:
        print(to_json({**asdict(summary), "output": str(output), "text_by": recognizer.name}))
        return
    resumed = f", {summary.resumed} of them in an earlier run" if summary.resumed else ""
    total = quantity(summary.utterances, "utterance")
    print(f"{output}: {total}, {summary.recognized} transcribed by {recognizer.name}{resumed}")
    print(f"{summary.kept} already had a transcript; no words were found in {summary.wordless}")
    if errors := summary.word_errors:
        counts = f"{quantity(errors.errors, 'error')} in {quantity(errors.words, 'word')}"
        print(f"word error rate against the corpus's own transcripts: {100 * errors.rate:.1f} % ({counts})")


def _source(
    name: str,
    root: str,
    columns: list[str] | None,
    emotions: list[str] | None,
    layout: str,
    delimiter: str,
    annotators: str,
    only: str,
    debug: bool = False,
) -> Source:
    from affekt.cli.log import show_log
    from affekt.corpora.source import Source

    show_log(debug=debug)
    return set_options([Source(name, root)], columns, emotions, layout, delimiter, annotators, only)[0]


def _print_description(source: Source, description: Description, labels: str) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # "?" replaces characters that the terminal cannot encode, such as those of the bars.
        sys.stdout.reconfigure(errors="replace")
    note = f", {source.note}" if source.note else ""
    print(f"{escape_controls(source.title + note)}{f', label set {labels}' if labels else ''}")
    speakers = f", {quantity(len(description.speakers), 'speaker')}" if description.speakers else ""
    audio = f"{description.hours:.2f} hours" if description.hours else "no audio"
    print(f"{quantity(description.utterances, 'utterance')}, {audio}{speakers}")
    _print_counts("emotion", description.emotions, listed=True)
    _print_counts("session", description.sessions)
    _print_counts("speaker", description.speakers)
    _print_counts("split", _with_usual_names(description.splits))
    _print_problems(description.problems)


def _print_counts(kind: str, counts: Mapping[str, int], *, listed: bool = False) -> None:
    from affekt.cli.text_rows import bar, fit_name

    if not counts:
        return
    if len(counts) > MAX_LISTED and not listed:
        print(f"\n{len(counts)} {kind}s with {min(counts.values())} to {max(counts.values())} utterances each")
        return
    counts = {escape_controls(name): count for name, count in counts.items()}
    width = max(len(kind), *map(len, counts))
    total, most = sum(counts.values()), max(counts.values())
    print(f"\n{kind:<{width}}  utterances")
    for name, count in counts.items():
        print(f"{fit_name(name, width)}  {count:>10}  {count / total:6.1%}  {bar(count / most, BAR_WIDTH)}".rstrip())


def _with_usual_names(splits: Mapping[str, int]) -> dict[str, int]:
    from affekt.corpora.subsets import name_subsets

    names = name_subsets(splits)
    return {name if names[name] == name else f"{name} ({names[name]})": count for name, count in splits.items()}


def _print_check(source: Source, report: Check) -> None:
    title = escape_controls(source.title + (f", {source.note}" if source.note else ""))
    print(f"{title}: {quantity(report.utterances, 'utterance')}, {quantity(report.files, 'file')} read")
    if not report.problems:
        print("no problems: every file exists, can be read, is not silent and is not a duplicate")
    for remark in report.notes:
        print(f"note: {escape_controls(remark)}")
    _print_problems(report.problems)


def _print_problems(problems: tuple[str, ...]) -> None:
    """Print the problems, one per paragraph, wrapped on a terminal."""
    import shutil
    import textwrap

    if problems:
        print(f"\n{quantity(len(problems), 'problem')}")
    for problem in map(escape_controls, problems):
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        print(
            textwrap.fill(problem, width, initial_indent="  ", subsequent_indent="    ")
            if width > 40
            else f"  {problem}"
        )
