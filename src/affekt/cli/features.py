"""`affekt features extract|ls|verify|prune`: extract features of large collections, and maintain the feature store."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.cli.manifest_options import (
    MANIFEST,
    ManifestColumns,
    ManifestOptions,
    RayAddress,
    RetryFailed,
    ShardRows,
    run,
)
from affekt.cli.recognition_options import Jobs, Threads
from affekt.cli.source_options import Delimiter
from affekt.extras import need
from affekt.json_text import to_json
from affekt.plural import quantity

if TYPE_CHECKING:
    from affekt.features.store_maintenance import StoredFeature

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print a JSON object.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="A feature, such as whisper, or a name with a hash, as listed by ls."),
]


@app.command()
def extract(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe: a shipped one, or a .toml file.")],
    manifest: Annotated[str, MANIFEST],
    output: Annotated[
        str, typer.Option(metavar="FOLDER", help="The folder of the results, or its URL; finished shards are skipped.")
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that replace those of the recipe.")
    ] = None,
    stream: Annotated[
        str,
        typer.Option(metavar="NAME", help="The recipe's stream to extract; default: the only one computed from audio."),
    ] = "",
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="The device of each process.")] = "cpu",
    gpus_per_job: Annotated[
        float,
        typer.Option(metavar="N", min=0.01, help="With --ray and cuda: GPUs for each process, such as 0.25."),
    ] = 1.0,
    jobs: Jobs = None,
    threads: Threads = 1,
    ray: RayAddress = None,
    shard_rows: ShardRows = None,
    column: ManifestColumns = None,
    delimiter: Delimiter = "",
    retry_failed: RetryFailed = False,
) -> None:
    """Extract the features of a large collection.

    A manifest lists the files; the features become a folder of Parquet files.

    Exit status: 0 if the features of every file were extracted, 2 if any failed.
    """
    need("torch", extra="train", purpose="extracting features")
    from affekt.training.plan import resolve
    from affekt.training.recipe import load_recipe
    from affekt.workflows.extract_manifest import extract_manifest

    options = ManifestOptions(manifest, ray, shard_rows, column, delimiter, retry_failed).arguments()
    work = functools.partial(
        extract_manifest,
        resolve(load_recipe(recipe, settings)),
        manifest,
        output,
        stream=stream,
        device=device,
        jobs=jobs,
        threads=threads,
        gpus_per_job=gpus_per_job,
        **options,
    )
    raise typer.Exit(run(lambda progress: work(progress=progress), output))


@app.command()
def ls(json: Json = False) -> None:
    """List the stored features.

    Each is listed with its settings, number of files, size and time of last use.
    """
    from affekt.features.store_maintenance import stored_features
    from affekt.files import cache_root

    stored = stored_features()
    if json:
        _print_json({"root": str(cache_root()), "features": [_summarize(feature) for feature in stored]})
    elif not stored:
        print(f"no features are stored in {cache_root()}")
    else:
        _print_table(stored)


@app.command()
def verify(
    names: Names = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete damaged files; they are computed again when needed.")
    ] = False,
    json: Json = False,
) -> None:
    """Find damaged files among the stored features.

    Every file is checked for truncation, wrong shapes and non-finite values.

    Exit status: 0 if no file is damaged or all damaged ones were removed, 2 otherwise.
    """
    from affekt.features.store_maintenance import stored_features

    stored = stored_features(names or ())
    damaged = {str(path): reason for path, reason in _verify_files(stored) if reason}
    for path in damaged if remove else ():
        Path(path).unlink(missing_ok=True)
    files = sum(len(feature.files) for feature in stored)
    if json:
        _print_json({"files": files, "damaged": damaged, "removed": remove})
    else:
        for path, reason in damaged.items():
            print(f"{path} {reason}{': removed' if remove else ''}")
        hint = "; --remove deletes them, and they are computed again when needed" if damaged and not remove else ""
        print(f"{quantity(files, 'file')} of {quantity(len(stored), 'feature')}, {len(damaged)} damaged{hint}")
    if damaged and not remove:
        raise typer.Exit(2)


@app.command()
def prune(
    names: Names = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Only features not used for DAYS days.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Delete all features.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")] = False,
    json: Json = False,
) -> None:
    """Delete stored features by name or age.

    Unfinished files of killed processes are always deleted.
    """
    from affekt.features.store_maintenance import plan_pruning

    pruning = plan_pruning(names or (), older_than=older_than, everything=everything)
    facts = [_summarize(feature) for feature in pruning.stored]
    if not dry_run:
        pruning.delete()
    if json:
        leftovers = [str(path) for path, _ in pruning.leftovers]
        _print_json({"features": facts, "unfinished": leftovers, "bytes": pruning.size, "removed": not dry_run})
        return
    for feature in pruning.stored:
        print(f"{feature.name}: {quantity(len(feature.files), 'file')}, {_format_size(feature.size)}")
    if pruning.leftovers:
        print(quantity(len(pruning.leftovers), "unfinished file"))
    print(f"{_format_size(pruning.size)} {'would be freed' if dry_run else 'freed'}")


def _summarize(feature: StoredFeature) -> dict[str, object]:
    """Return a summary of a feature for the output of `--json`."""
    from datetime import UTC, datetime

    return {
        "name": feature.name,
        "feature": feature.feature,
        "settings": feature.settings(),
        "dim": (feature.description or {}).get("dim"),
        "files": len(feature.files),
        "bytes": feature.size,
        "unfinished": len(feature.leftovers),
        "last_used": datetime.fromtimestamp(feature.last_used, UTC).isoformat(timespec="seconds"),
        "folder": str(feature.folder),
    }


def _verify_files(features: list[StoredFeature]) -> Iterator[tuple[Path, str]]:
    """Yield every file with the reason why it is damaged, or "" if it is not; show a progress bar on a terminal."""
    from affekt.cli.progress_bars import progress_bar
    from affekt.features.store_maintenance import verify as verify_files

    done, total = 0, sum(len(feature.files) for feature in features)
    with progress_bar() as progress:
        for feature in features:
            for path, reason in verify_files(feature):
                done += 1
                if progress:
                    progress("verifying", done, total)
                yield path, reason


def _print_table(stored: list[StoredFeature]) -> None:
    from datetime import datetime

    from rich.console import Console
    from rich.table import Table

    from affekt.files import cache_root

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("name", "left"), ("files", "right"), ("size", "right"), ("last used", "left")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("settings", overflow="fold")
    for feature in stored:
        settings = " ".join(f"{name}={_format_setting(value)}" for name, value in feature.settings().items())
        used = datetime.fromtimestamp(feature.last_used).strftime("%Y-%m-%d %H:%M")
        table.add_row(
            feature.name,
            str(len(feature.files)),
            _format_size(feature.size),
            used,
            settings if feature.description else "?",
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    console.print(f"{_format_size(sum(feature.size for feature in stored))} in {cache_root()}", soft_wrap=True)


def _format_setting(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _format_size(size: object) -> str:
    """Format a size in powers of 1000: 12 bytes, 3.4 MB, 5.6 GB."""
    assert isinstance(size, int)
    number = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _print_json(facts: object) -> None:
    print(to_json(facts, ascii_only=False))
