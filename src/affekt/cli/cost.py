"""`affekt cost`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.cost import Cost


def cost(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model, or one of its presets, as mstr, mstr-small.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of the model's, as mixer=concat.")
    ] = None,
    frames: Annotated[
        list[str] | None,
        typer.Option(metavar="T|STREAM=T", help="Frames of speech, or of a stream, as text=20. Repeatable."),
    ] = None,
    classes: Annotated[int | None, typer.Option(metavar="C", help="Emotions told apart; else the paper's.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Latency and memory on this machine's processor.")] = False,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="With --measure.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="PAGE.md", help="Without MODEL: write a page on all models and presets.")
    ] = None,
) -> None:
    """Count parameters and operations of a model at its paper's sizes, and of the encoders that its paper puts before it."""
    import json as jsonlib

    from affekt.extras import need

    asked = _frames(frames or [])
    if (model is None) == (output is None):
        raise BadConfig("give a model (affekt cost mstr), or without one the page to write (--output docs/cost.md)")
    if output is not None and (asked is not None or classes is not None or json):
        raise BadConfig(
            "--output writes all models at their papers' sizes: --frames, --classes and --json go with a model"
        )
    need("torch", extra="train", purpose="counting what a model costs")
    from affekt.cost import cost as count_cost

    if output is not None:
        _write_page(output, measure, threads)
        return
    assert model is not None
    found = count_cost(
        model, frames=asked, emotions=classes, settings=settings or (), measured=measure, threads=threads
    )
    if json:
        print(jsonlib.dumps(found.facts()))
    else:
        _print_table(found)


def _write_page(output: Path, measure: bool, threads: int) -> None:
    from affekt.cost.page import page, published

    output.write_text(page(published(measured=measure, threads=threads)), encoding="utf-8")
    print(f"wrote {output}")


def _frames(words: list[str]) -> dict[str, int] | int | None:
    """`326` alone, or `speech=460` and `text=20`."""
    if len(words) == 1 and "=" not in words[0]:
        return _number(words[0], words[0])
    named = {}
    for word in words:
        stream, equals, count = word.partition("=")
        if not equals:
            raise BadConfig(f"--frames {word}: of which stream? Expected STREAM=T, as speech={word}")
        named[stream.strip()] = _number(count, word)
    return named or None


def _number(text: str, word: str) -> int:
    if not text.strip().isdecimal():
        raise BadConfig(f"--frames {word}: expected a number of frames, as 326, or STREAM=T, as text=20")
    return int(text)


def _print_table(found: Cost) -> None:
    from rich.console import Console
    from rich.table import Table

    from affekt.cost.page import WHY, amount

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "frames", "parameters", "FLOPs", "printed rule"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    frames = " + ".join(f"{count} {stream}" for stream, count in found.frames.items() if count)
    printed = "" if found.paper_flops is None else amount(found.paper_flops)
    table.add_row(found.model, frames, f"{found.parameters:,}", amount(found.flops), printed)
    for one in found.encoders:
        table.add_row(f"its {one.encoder}", str(one.frames), f"{one.parameters:,}", amount(one.flops), "")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    if found.frozen_parameters:
        console.print(f"and {found.frozen_parameters:,} parameters that are not trained", soft_wrap=True)
    if found.latency_ms is not None:
        memory = "" if found.peak_memory_mb is None else f", {found.peak_memory_mb:.0f} MiB at its peak"
        console.print(
            f"{found.latency_ms:.1f} ms on {found.threads} thread(s){memory}, without its encoders", soft_wrap=True
        )
    said = WHY if found.paper_flops else "FLOPs count a multiply-add as two; the model's paper prints no operations."
    console.print(said, soft_wrap=True)
