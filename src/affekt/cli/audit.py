"""`affekt audit`: report what the subsets of an existing split, or of the folds of a protocol, have in common."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.cli.source_options import Annotators, Columns, Delimiter, Emotions, Layout, set_options
from affekt.errors import BadConfig
from affekt.json_text import to_json

if TYPE_CHECKING:
    from affekt.corpora.source import Source
    from affekt.protocols.audit import Audit, Overlap
    from affekt.protocols.split import Split
    from affekt.utterance import Utterance

MAX_FOLDS = 20
"""Maximum number of folds listed."""
MAX_WARNINGS = 10
"""Maximum number of warnings listed if there are several folds."""


def audit(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SPLIT|CORPUS|ROOT",
            help="First the split: a split file, a table (.csv) of ids or paths and subsets, a run folder, a bundle or a "
            "folder of folds; omitted with --protocol. Then its corpora: cremad ROOT, or cremad alone for the one in "
            "AFFEKT_DATA; folder:PATH or table:PATH for your own data.",
        ),
    ],
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Audit the folds of this protocol: leave-one-speaker-out, random-folds, ..."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the protocol, such as k=5.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The protocol's random seed.")] = 0,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="SET", help="Use only the utterances of this label set, and merge emotions as it defines."
        ),
    ] = None,
    layout: Layout = "",
    audio: Annotated[bool, typer.Option("--audio", help="Also compare the audio; reads every file.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the folds to this folder, one file each.")
    ] = None,
    column: Columns = None,
    emotion: Emotions = None,
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list with one audit per fold.")] = False,
) -> None:
    """Report what the subsets of a split have in common.

    Speakers, sessions, dialogues, sentences and, with --audio, audio are compared.

    Exit status: 0 if the subsets share no speaker, no utterance and, with --audio, no audio; 1 if they do or if the
    speakers are unknown; 2 if the split could not be audited.
    """
    from affekt.protocols.audit import Auditor
    from affekt.protocols.split import save_folds

    if protocol is None and (settings or seed):
        raise BadConfig("--set and --seed need --protocol NAME")
    split = None if protocol else arguments[0]
    sources = _sources(arguments if protocol else arguments[1:])
    has_table = any(source.name == "table" for source in sources)
    sources = set_options(sources, column, emotion, layout, delimiter if has_table else "", annotators)
    utterances = _utterances(sources, labels)
    splits = (
        _make_folds(protocol, settings or [], seed, utterances)
        if protocol
        else _read_splits(str(split), utterances, delimiter)
    )
    if save is not None:
        save_folds(splits, save)
        print(f"{save}: {len(splits)} {'split' if len(splits) == 1 else 'folds'}", file=sys.stderr)
    auditor = Auditor(utterances, audio=audio)
    audits = [auditor.audit(split) for split in splits]
    _print_json(audits) if json else _print(audits)
    raise typer.Exit(0 if all(entry.clean for entry in audits) else 1)


def _sources(arguments: Sequence[str]) -> list[Source]:
    """Parse corpora, each with or without its root after it, or in the short form NAME:PATH."""
    from affekt.corpora import corpora
    from affekt.corpora.source import Source

    sources: list[Source] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        following = rest[0] if rest else ""
        # The argument after a corpus's name is its root, unless it names another corpus; "emodb emodb" is name and root.
        is_root = following and (following == argument or following.partition(":")[0] not in corpora)
        sources.append(Source(argument, rest.pop(0)) if argument in corpora and is_root else Source.parse(argument))
    if not sources:
        raise BadConfig("no corpus given: expected CORPUS ROOT after the split, such as cremad data/cremad")
    return sources


def _utterances(sources: Sequence[Source], labels: str | None) -> list[Utterance]:
    """Read the sources' utterances, restricted to a label set if one is given; report how many are left out."""
    import dataclasses
    from collections import Counter

    from affekt.corpora.source import read_all
    from affekt.labels import label_set

    chosen = label_set(labels) if labels else None
    utterances = read_all(sources)
    if chosen is None:
        return utterances
    indexed = [(utterance, chosen.index_of(utterance)) for utterance in utterances]
    if excluded := Counter(utterance.emotion for utterance, index in indexed if index is None):
        emotions = ", ".join(f"{emotion} {number}" for emotion, number in sorted(excluded.items()))
        print(
            f"left out {excluded.total()} of {len(utterances)} utterances whose emotions are not in {labels} ({emotions})",
            file=sys.stderr,
        )
    return [dataclasses.replace(u, emotion=chosen.emotions[index]) for u, index in indexed if index is not None]


def _make_folds(name: str, settings: list[str], seed: int, utterances: Sequence[Utterance]) -> list[Split]:
    from affekt.config import decode_named, override
    from affekt.protocols import protocols

    _, protocol = decode_named(protocols, override({"name": name}, settings), "protocol")
    folds: list[Split] = protocol.folds(utterances, seed)
    return folds


def _read_splits(source: str, utterances: Sequence[Utterance], delimiter: str) -> list[Split]:
    """Read the splits in a path or in a shipped bundle."""
    from affekt.bundle.folder import Bundle, shipped_bundles
    from affekt.protocols.files import read_splits
    from affekt.registry import did_you_mean

    path = Path(source)
    if not path.exists():
        if source not in shipped_bundles():
            raise BadConfig(
                f"{source} does not exist: expected a split file, a table, a run folder, a bundle or a folder of folds"
                f"{did_you_mean(source, shipped_bundles())}; to make folds, give --protocol NAME"
            )
        path = Bundle.open(source).folder
    return read_splits(path, utterances, delimiter)


def _print_json(audits: Sequence[Audit]) -> None:
    print(to_json([entry.to_json() for entry in audits], ascii_only=False))


def _print(audits: Sequence[Audit]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    first = audits[0]
    description = f" ({first.split.description})" if first.split.description else ""
    seed = "" if first.split.seed is None else f", seed {first.split.seed}"
    fold = f", fold {first.split.fold}" if len(audits) == 1 and first.split.fold else ""
    console.print(Text(first.split.name + fold + seed, "bold") + Text(description, "dim"))
    style = "bold green" if all(entry.clean for entry in audits) else "bold red"
    console.print(Text(_verdict(audits), style))
    for lines in _describe_split(first) if len(audits) == 1 else _describe_folds(audits):
        console.print()
        for line in lines:
            console.print(Text(f"  {line}"))


def _verdict(audits: Sequence[Audit]) -> str:
    """Return the verdict on one split; for several, the worst one and how many folds share it."""
    worst = next((entry for entry in audits if not entry.clean), audits[0])
    if len(audits) == 1:
        return worst.line
    num_alike = sum((entry.verdict, entry.clean) == (worst.verdict, worst.clean) for entry in audits)
    if not worst.clean:
        return f"{worst.line} (fold {worst.split.fold}; the same in {num_alike} of {len(audits)} folds)"
    others = "; ".join(worst.line.split("; ")[1:])
    return f"{worst.verdict}: all {num_alike} folds" + (f" ({others} in fold {worst.split.fold})" if others else "")


def _describe_split(audit: Audit) -> list[list[str]]:
    """Return blocks of lines about one split: its subsets, what they share, and warnings."""
    emotions = sorted({emotion for subset in audit.subsets for emotion in subset.emotions})
    subsets = [["subset", "utterances", "speakers", *emotions]]
    for subset in audit.subsets:
        counts = [subset.utterances, subset.speakers or "unknown", *(subset.emotions.get(name, 0) for name in emotions)]
        subsets.append([subset.name, *map(str, counts)])
    pairs = list(dict.fromkeys((overlap.first, overlap.second) for overlap in audit.overlaps))
    shared = [["shared", *(f"{second}, also in {first}" for first, second in pairs), ""]]
    for kind in dict.fromkeys(overlap.kind for overlap in audit.overlaps):
        matching = [overlap for overlap in audit.overlaps if overlap.kind == kind]
        examples = ", ".join(next((overlap.examples for overlap in reversed(matching) if overlap.shared), ()))
        shared.append([kind, *map(_cell, matching), examples if kind != "audio" else ""])
    warnings = [f"warning: {warning}" for warning in audit.warnings]
    hash_line = [f"split {audit.split.hash}"]
    return [block for block in (_columns(subsets), _columns(shared, left=(0, -1)), warnings, hash_line) if block]


def _describe_folds(audits: Sequence[Audit]) -> list[list[str]]:
    """Return blocks of lines about folds: one line each, what other pairs of subsets share, and warnings."""
    names = [subset.name for subset in audits[0].subsets]
    scored = names[-1]
    columns = [o for o in audits[0].overlaps if (o.first, o.second) == (names[0], scored)]
    rows = [["fold", *names, *(overlap.kind for overlap in columns), "split"]]
    for audit in audits[:MAX_FOLDS]:
        cells = [str(o) for o in audit.overlaps if (o.first, o.second) == (names[0], scored)]
        rows.append([audit.split.fold, *(str(subset.utterances) for subset in audit.subsets), *cells, audit.split.hash])
    table = [f"number of utterances per subset, and how much of {scored} is also in {names[0]}", *_columns(rows)]
    if len(audits) > MAX_FOLDS:
        table.append(f"and {len(audits) - MAX_FOLDS} more folds; --json shows all")
    warnings = [f"warning: fold {entry.split.fold}: {warning}" for entry in audits for warning in entry.warnings]
    if len(warnings) > MAX_WARNINGS:
        warnings[MAX_WARNINGS:] = [f"and {len(warnings) - MAX_WARNINGS} more warnings; --json shows all"]
    return [block for block in (table, _describe_other_pairs(audits, (names[0], scored)), warnings) if block]


def _describe_other_pairs(audits: Sequence[Audit], shown: tuple[str, str]) -> list[str]:
    """Return a line for each pair of subsets other than `shown`: in how many folds they share each kind of overlap."""
    lines = []
    pairs = dict.fromkeys((overlap.first, overlap.second) for entry in audits for overlap in entry.overlaps)
    for first, second in pairs:
        if (first, second) == shown:
            continue
        counts: dict[str, int] = {}
        for overlap in (o for entry in audits for o in entry.overlaps if (o.first, o.second) == (first, second)):
            counts[overlap.kind] = counts.get(overlap.kind, 0) + bool(overlap.shared)
        shares = ", ".join(f"{kind} in {number} of {len(audits)} folds" for kind, number in counts.items() if number)
        lines.append(f"{first} and {second} share: {shares or 'nothing known'}")
    return lines


def _cell(overlap: Overlap) -> str:
    return str(overlap) if not overlap.shared else f"{overlap} ({overlap.fraction:.0%})"


def _columns(rows: Sequence[Sequence[str]], left: tuple[int, ...] = (0,)) -> list[str]:
    """Align rows in columns, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    to_left = {column % len(widths) for column in left}
    return [
        "  ".join(
            cell.ljust(width) if column in to_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
