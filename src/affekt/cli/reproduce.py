"""`affekt reproduce`: reproduce the rows of a paper's table."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.cli.workers import CpusPerJob, GpusPerJob, Jobs, Parallelism, Ray, Workers, check_run_folder, open_launcher
from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.workflows.reproduction import Request, Row


def reproduce(
    target: Annotated[
        str,
        typer.Argument(metavar="RECIPE|TABLE", help="A recipe or a table of `affekt recipes`, such as mstr-table2."),
    ],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROOT|NAME:ROOT",
            help="The corpus's folder; NAME:ROOT if there are several. Default: below AFFEKT_DATA. Repeatable.",
        ),
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="The folder of an encoder, such as hubert-large=PATH; default: below AFFEKT_MODELS. NAME=FEATURE:PATH is a "
            "stand-in, which every table marks as such. Repeatable.",
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="N-M", help="Seeds, such as 0-9 or 0,3; default: the paper's.")] = "",
    folds: Annotated[str, typer.Option(metavar="N-M", help="Folds, counted from 1; default: all.")] = "",
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Small widths, few epochs, one fold and one seed: a test that everything works."),
    ] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu or cuda.")] = "cpu",
    workers: Workers = None,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus_per_job: CpusPerJob = None,
    gpus_per_job: GpusPerJob = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    run: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", callback=check_run_folder, help="The run folder; default: runs/TARGET."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list with one entry per published value.")] = False,
) -> None:
    """Reproduce the rows of a paper's table.

    The values of the paper are printed next to the reproduced ones. First, the corpora's counts, the encoders, the disk and
    the expected time are checked, and the plan is printed. Running the same command again resumes
    an interrupted reproduction.
    """
    from affekt.extras import need

    parallelism = Parallelism(workers, jobs, ray, cpus_per_job, gpus_per_job)
    need("torch", extra="train", purpose="reproducing")
    from affekt.cli.log import show_log
    from affekt.cli.progress_bars import progress_bar
    from affekt.json_text import to_json
    from affekt.workflows.reproduce import default_folder, format_scores
    from affekt.workflows.reproduce import reproduce as reproduce_rows
    from affekt.workflows.reproduction import Request
    from affekt.workflows.reproduction_plan import format_plan, make_plan

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # write each line at once, even to a file or pipe
    request = Request(
        corpora=_parse_corpora(corpus or [], target),
        encoders=_parse_encoders(encoder or []),
        seeds=_parse_numbers("--seeds", seeds, minimum=0),
        folds=_parse_numbers("--folds", folds, minimum=1),
        quick=quick,
        device=device,
    )
    plan = make_plan(target, _rows(target, request), run or default_folder(target, quick=quick))
    print(format_plan(plan), file=sys.stderr if json else sys.stdout)
    plan.check_disk()
    if dry_run:
        return
    with contextlib.ExitStack() as stack:
        show_log()
        progress = stack.enter_context(progress_bar())
        launcher = stack.enter_context(open_launcher(parallelism, progress))
        scores = reproduce_rows(plan, launcher)
    if json:
        print(to_json([score.to_json() for score in scores], indent=1))
    else:
        print(format_scores(target, scores), end="")
        print(f"written to {plan.folder}; look at the runs with: affekt report {plan.folder}")


def _rows(target: str, request: Request) -> list[Row]:
    """Return the rows of a table, or the one row of a recipe."""
    from affekt.search.reproduce import search_row
    from affekt.workflows.reproduction import training_row

    names = _named_rows(target)
    rows: list[Row] = [
        search_row(name, request) if is_search else training_row(name, request) for name, is_search in names
    ]
    for name, row in zip(names, rows, strict=True):
        _check_encoders(request, row, name[0])
    return rows


def _named_rows(target: str) -> list[tuple[str, bool]]:
    """Return the recipes of a table, or a recipe, each with True for a search."""
    from affekt.published import paper_rows
    from affekt.registry import did_you_mean

    known = paper_rows()
    if rows := [row for row in known if target in (row.name, row.table)]:
        return [(row.name, row.is_search) for row in rows]
    if Path(target).is_file():
        return [(target, False)]
    names = [*{row.table for row in known}, *(row.name for row in known)]
    raise BadConfig(
        f"there is no recipe or table {target!r}{did_you_mean(target, names)} (`affekt recipes` lists them; a recipe file "
        "needs the section [published])"
    )


def _check_encoders(request: Request, row: Row, name: str) -> None:
    """Raise `BadConfig` for an encoder that no stream of the recipe has, since its name may be mistyped."""
    from affekt.registry import did_you_mean
    from affekt.workflows.paper_encoders import published_encoders

    used = {encoder.name for encoder in row.encoders.values()}
    for given in request.encoders:
        if given not in used | set(published_encoders()):
            raise BadConfig(f"--encoder {given}: {name} has no such encoder{did_you_mean(given, published_encoders())}")


def _parse_corpora(texts: Sequence[str], target: str) -> dict[str, str]:
    """Parse ROOT or NAME:ROOT; ROOT alone is that of the target's only corpus."""
    from affekt.corpora import corpora
    from affekt.published import paper_rows

    roots, rows = dict[str, str](), [row for row in paper_rows() if target in (row.name, row.table)]
    names = sorted({name for row in rows for name in row.corpora})
    for text in texts:
        name, colon, root = text.partition(":")
        if colon and name in corpora:
            roots[name] = root
        elif len(names) == 1:
            roots[names[0]] = text
        else:
            expected = " or ".join(f"{name}:ROOT" for name in names) or "NAME:ROOT"
            raise BadConfig(f"--corpus {text}: expected {expected}")
    return roots


def _parse_encoders(texts: Sequence[str]) -> dict[str, str]:
    encoders = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise BadConfig(f"--encoder {text}: expected NAME=PATH, such as hubert-large=/models/hubert-large")
        encoders[name] = path
    return encoders


def _parse_numbers(option: str, text: str, *, minimum: int) -> tuple[int, ...]:
    """Parse "0-9" or "1,3,5-7" as ascending numbers."""
    numbers = set[int]()
    for part in text.split(",") if text else []:
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise BadConfig(f"{option} {text}: expected numbers such as 0-9 or 1,3,5-7")
        numbers |= set(range(int(first), int(last or first) + 1))
    if numbers and min(numbers) < minimum:
        raise BadConfig(f"{option} {text}: expected numbers from {minimum}")
    return tuple(sorted(numbers))
