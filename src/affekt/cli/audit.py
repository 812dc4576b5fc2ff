"""`affekt audit`: what the parts of a split share, of one that exists or of the folds that a protocol makes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.corpora.source import Source
    from affekt.protocols.audit import Audit, Overlap
    from affekt.protocols.split import Split
    from affekt.utterance import Utterance

FOLDS = 20  # up to so many folds have a line each
WARNINGS = 10


def audit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[SPLIT] CORPUS [ROOT]...",
            help="The split: a file, a table (.csv) of ids or paths and parts, a run folder, a bundle, a folder of folds; "
            "none with --protocol. Then its corpora: cremad ROOT, or cremad alone for the one below AFFEKT_DATA; "
            "folder:PATH or table:PATH for one's own.",
        ),
    ],
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Make this protocol's folds and audit them: leave-one-speaker-out, random-folds, ..."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the protocol: k=5.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what the protocol draws.")] = 0,
    labels: Annotated[
        str | None, typer.Option(metavar="SET", help="Take the utterances of this label set, merged as it says.")
    ] = None,
    audio: Annotated[bool, typer.Option("--audio", help="Compare the audio's bytes too: reads every file.")] = False,
    save: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the folds here, a file each.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list of the audits, one a fold.")] = False,
) -> None:
    """Report what the parts of a split share: speakers, sessions, dialogues, sentences, audio.

    Exit status: 0 if the split is known to share no speaker, no utterance and, with --audio, no audio; 1 if it shares some
    or if the speakers are unknown; 2 if it could not be audited.
    """
    from affekt.protocols.audit import Auditor
    from affekt.protocols.split import save_folds

    if protocol is None and (settings or seed):
        raise BadConfig("--set and --seed are a protocol's: give --protocol NAME, or leave them out")
    split = None if protocol else words[0]
    utterances = _utterances(_sources(words if protocol else words[1:]), labels)
    splits = _made(protocol, settings or [], seed, utterances) if protocol else _found(str(split), utterances)
    if save is not None:
        save_folds(splits, save)
        print(f"{save}: {len(splits)} {'split' if len(splits) == 1 else 'folds'}", file=sys.stderr)
    auditor = Auditor(utterances, audio=audio)
    audits = [auditor.audit(split) for split in splits]
    _print_json(audits) if json else _print(audits)
    raise typer.Exit(0 if all(one.clean for one in audits) else 1)


def _sources(words: Sequence[str]) -> list[Source]:
    """Corpora with or without a root after them, and sources in their short form."""
    from affekt.corpora import corpora
    from affekt.corpora.source import Source

    sources: list[Source] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        follows = rest[0] if rest else ""
        # A word after a corpus's name is its root, if it does not begin another corpus; "emodb emodb" is name and root.
        is_root = follows and (follows == word or follows.partition(":")[0] not in corpora)
        sources.append(Source(word, rest.pop(0)) if word in corpora and is_root else Source.parse(word))
    if not sources:
        raise BadConfig("which corpora is the split of? expected CORPUS ROOT after it, such as cremad data/cremad")
    return sources


def _utterances(sources: Sequence[Source], labels: str | None) -> list[Utterance]:
    """The sources' utterances, of a label set where one is named; those left out are counted aloud."""
    import dataclasses
    from collections import Counter

    from affekt.corpora.source import read_all
    from affekt.labels import label_set

    chosen = label_set(labels) if labels else None
    utterances = read_all(sources)
    if chosen is None:
        return utterances
    places = [(utterance, chosen.index_of(utterance)) for utterance in utterances]
    if left := Counter(utterance.emotion for utterance, index in places if index is None):
        emotions = ", ".join(f"{emotion} {number}" for emotion, number in sorted(left.items()))
        print(f"left out, as not of {labels}: {left.total()} of {len(utterances)} ({emotions})", file=sys.stderr)
    return [dataclasses.replace(u, emotion=chosen.emotions[index]) for u, index in places if index is not None]


def _made(name: str, settings: list[str], seed: int, utterances: Sequence[Utterance]) -> list[Split]:
    from affekt.config import decode_named, override
    from affekt.protocols import protocols

    _, protocol = decode_named(protocols, override({"name": name}, settings), "protocol")
    folds: list[Split] = protocol.folds(utterances, seed)
    return folds


def _found(source: str, utterances: Sequence[Utterance]) -> list[Split]:
    """The split that a word means: a path, or a shipped bundle's name."""
    from affekt.bundle.folder import Bundle, shipped
    from affekt.protocols.files import read_splits
    from affekt.registry import did_you_mean

    path = Path(source)
    if not path.exists():
        if source not in shipped():
            raise BadConfig(
                f"{source} does not exist: expected a split's file, a table, a run folder, a bundle or a folder of folds"
                f"{did_you_mean(source, shipped())}; to make folds, give --protocol NAME"
            )
        path = Bundle.open(source).folder
    return read_splits(path, utterances)


def _print_json(audits: Sequence[Audit]) -> None:
    import json

    print(json.dumps([one.to_json() for one in audits], ensure_ascii=False))


def _print(audits: Sequence[Audit]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    first = audits[0]
    described = f" ({first.split.description})" if first.split.description else ""
    seed = "" if first.split.seed is None else f", seed {first.split.seed}"
    fold = f", fold {first.split.fold}" if len(audits) == 1 and first.split.fold else ""
    console.print(Text(first.split.name + fold + seed, "bold") + Text(described, "dim"))
    colour = "bold green" if all(one.clean for one in audits) else "bold red"
    console.print(Text(_verdict(audits), colour))
    for lines in _one(first) if len(audits) == 1 else _many(audits):
        console.print()
        for line in lines:
            console.print(Text(f"  {line}"))


def _verdict(audits: Sequence[Audit]) -> str:
    """The line of one split; of several, the line that most deserves to be read, and of how many its like is true."""
    worst = next((one for one in audits if not one.clean), audits[0])
    if len(audits) == 1:
        return worst.line
    alike = sum((one.verdict, one.clean) == (worst.verdict, worst.clean) for one in audits)
    return (
        f"{worst.line}: all {alike} folds"
        if worst.clean
        else (f"{worst.line} (fold {worst.split.fold}; so {alike} of {len(audits)} folds)")
    )


def _one(audit: Audit) -> list[list[str]]:
    """Return blocks of lines about one split: its subsets, what they share, and warnings."""
    emotions = sorted({emotion for subset in audit.subsets for emotion in subset.emotions})
    subsets = [["subset", "utterances", "speakers", *emotions]]
    for subset in audit.subsets:
        counts = [subset.utterances, subset.speakers or "unknown", *(subset.emotions.get(name, 0) for name in emotions)]
        subsets.append([subset.name, *map(str, counts)])
    pairs = list(dict.fromkeys((overlap.first, overlap.second) for overlap in audit.overlaps))
    shared = [["shared", *(f"of {second}, in {first}" for first, second in pairs), ""]]
    for kind in dict.fromkeys(overlap.kind for overlap in audit.overlaps):
        found = [overlap for overlap in audit.overlaps if overlap.kind == kind]
        examples = ", ".join(next((overlap.examples for overlap in reversed(found) if overlap.shared), ()))
        shared.append([kind, *map(_cell, found), examples if kind != "audio" else ""])
    warnings = [f"beware: {warning}" for warning in audit.warnings]
    hashed = [f"split {audit.split.hash}"]
    return [block for block in (_columns(subsets), _columns(shared, left=(0, -1)), warnings, hashed) if block]


def _many(audits: Sequence[Audit]) -> list[list[str]]:
    """Blocks of lines about folds: a line each, what other subsets share, and warnings."""
    names = [subset.name for subset in audits[0].subsets]
    scored = names[-1]
    headed = [o for o in audits[0].overlaps if (o.first, o.second) == (names[0], scored)]
    rows = [["fold", *names, *(overlap.kind for overlap in headed), "split"]]
    for audit in audits[:FOLDS]:
        cells = [str(o) for o in audit.overlaps if (o.first, o.second) == (names[0], scored)]
        rows.append([audit.split.fold, *(str(subset.utterances) for subset in audit.subsets), *cells, audit.split.hash])
    table = [f"utterances of each subset; what of {scored} is also in {names[0]}", *_columns(rows)]
    if len(audits) > FOLDS:
        table.append(f"and {len(audits) - FOLDS} more folds: --json shows all")
    warnings = [f"beware: fold {one.split.fold}: {warning}" for one in audits for warning in one.warnings]
    if len(warnings) > WARNINGS:
        warnings[WARNINGS:] = [f"and {len(warnings) - WARNINGS} more warnings: --json shows all"]
    return [block for block in (table, _others(audits, (names[0], scored)), warnings) if block]


def _others(audits: Sequence[Audit], shown: tuple[str, str]) -> list[str]:
    """Return, for each pair of subsets without columns of its own, in how many folds they share each kind."""
    lines = []
    pairs = dict.fromkeys((overlap.first, overlap.second) for one in audits for overlap in one.overlaps)
    for first, second in pairs:
        if (first, second) == shown:
            continue
        counts: dict[str, int] = {}
        for overlap in (o for one in audits for o in one.overlaps if (o.first, o.second) == (first, second)):
            counts[overlap.kind] = counts.get(overlap.kind, 0) + bool(overlap.shared)
        told = ", ".join(f"{kind} in {number}" for kind, number in counts.items() if number) or "nothing known"
        lines.append(f"{first} and {second} share, of {len(audits)} folds: {told}")
    return lines


def _cell(overlap: Overlap) -> str:
    return str(overlap) if not overlap.shared else f"{overlap} ({overlap.fraction:.0%})"


def _columns(rows: Sequence[Sequence[str]], left: tuple[int, ...] = (0,)) -> list[str]:
    """Rows as lines of columns, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    to_left = {column % len(widths) for column in left}
    return [
        "  ".join(
            cell.ljust(width) if column in to_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
