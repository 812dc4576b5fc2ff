"""`affekt cost`: count parameters and operations of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.cost import Cost


def cost(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model or one of its presets, such as mstr or mstr-small.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the model, such as mixer=concat.")
    ] = None,
    frames: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T|STREAM=T", help="Number of frames of speech, or of another stream, such as text=20. Repeatable."
        ),
    ] = None,
    classes: Annotated[int | None, typer.Option(metavar="C", help="Number of emotions; default: the paper's.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also measure latency and memory on this machine's CPU.")
    ] = False,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Number of threads for --measure.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="PAGE.md", help="Without MODEL: write a page about all models and presets.")
    ] = None,
) -> None:
    """Count the parameters and operations of a model.

    By default, the model has the sizes of its paper. The encoders that the paper uses are counted too.
    """
    from affekt.extras import need
    from affekt.json_text import to_json

    num_frames = _parse_frames(frames or [])
    if (model is None) == (output is None):
        raise BadConfig("expected either a model (affekt cost mstr) or a page to write (--output docs/cost.md)")
    if output is not None and (num_frames is not None or classes is not None or json):
        raise BadConfig(
            "--output covers all models at their papers' sizes; --frames, --classes and --json need a model"
        )
    need("torch", extra="train", purpose="counting operations")
    from affekt.cost import cost as count_cost

    if output is not None:
        _write_page(output, measure, threads)
        return
    assert model is not None
    result = count_cost(
        model, frames=num_frames, emotions=classes, settings=settings or (), measured=measure, threads=threads
    )
    if json:
        print(to_json(result.to_json()))
    else:
        _print_table(result)


def _write_page(output: Path, measure: bool, threads: int) -> None:
    from affekt.cost.page import compute_all, page

    output.write_text(page(compute_all(measured=measure, threads=threads)), encoding="utf-8")
    print(f"wrote {output}")


def _parse_frames(arguments: list[str]) -> dict[str, int] | int | None:
    """Parse `326` alone, or `speech=460` and `text=20`."""
    if len(arguments) == 1 and "=" not in arguments[0]:
        return _parse_number(arguments[0], arguments[0])
    by_stream = {}
    for argument in arguments:
        stream, equals, count = argument.partition("=")
        if not equals:
            raise BadConfig(f"--frames {argument}: expected STREAM=T, such as speech={argument}")
        by_stream[stream.strip()] = _parse_number(count, argument)
    return by_stream or None


def _parse_number(text: str, argument: str) -> int:
    if not text.strip().isdecimal():
        raise BadConfig(f"--frames {argument}: expected a number of frames, such as 326, or STREAM=T, such as text=20")
    return int(text)


def _print_table(result: Cost) -> None:
    from rich.console import Console
    from rich.table import Table

    from affekt.cost.page import COUNTING_RULES, amount

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "frames", "parameters", "FLOPs", "paper's rule"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    frames = " + ".join(f"{count} {stream}" for stream, count in result.frames.items() if count)
    paper_flops = "" if result.paper_flops is None else amount(result.paper_flops)
    table.add_row(result.model, frames, f"{result.parameters:,}", amount(result.flops), paper_flops)
    for encoder in result.encoders:
        table.add_row(
            f"encoder {encoder.encoder}", str(encoder.frames), f"{encoder.parameters:,}", amount(encoder.flops), ""
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    if result.frozen_parameters:
        console.print(f"and {result.frozen_parameters:,} frozen parameters", soft_wrap=True)
    if result.latency_ms is not None:
        memory = "" if result.peak_memory_mb is None else f", {result.peak_memory_mb:.0f} MiB peak memory"
        console.print(
            f"{result.latency_ms:.1f} ms on {result.threads} thread(s){memory}, without encoders", soft_wrap=True
        )
    note = (
        COUNTING_RULES
        if result.paper_flops
        else "FLOPs count a multiply-add as two operations. The paper states no number of operations."
    )
    console.print(note, soft_wrap=True)
