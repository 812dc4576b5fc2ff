"""`affekt train`: train a model from a recipe, or fine-tune a bundle."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.cli.source_options import Annotators, Columns, Delimiter, Emotions, Layout, set_options
from affekt.cli.workers import CpusPerJob, GpusPerJob, Jobs, Parallelism, Ray, Workers, check_run_folder, open_launcher
from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.bundle.folder import Bundle

FINETUNE = "affekt train --from default --corpus folder:PATH --output BUNDLE"


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE|KEY=VALUE",
            help="A recipe (a TOML file or the name of a shipped one), then settings to change. With --from, only settings.",
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="BUNDLE", help="Fine-tune this bundle on the data of --corpus.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:PATH]",
            help="With --from: your data: folder:PATH (with files such as happy/1.wav), table:FILE or a corpus. Repeatable.",
        ),
    ] = None,
    column: Columns = None,
    emotion: Emotions = None,
    layout: Layout = "",
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
    run: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", callback=check_run_folder, help="The run folder; default: runs/RECIPE."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Also write the trained model to this folder, as a bundle.")
    ] = None,
    workers: Workers = None,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus_per_job: CpusPerJob = None,
    gpus_per_job: GpusPerJob = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Also write the learning curves, after each epoch, to tensorboard or mlflow. Repeatable.",
        ),
    ] = None,
) -> None:
    """Train a model from a recipe, or fine-tune a bundle.

    With --from, a bundle is fine-tuned on your own data. Running the same command again resumes an interrupted run.
    """
    from affekt.extras import need

    settings = list(arguments or [])
    name = settings.pop(0) if settings and "=" not in settings[0] else None
    if start is None and name is None:
        raise BadConfig(
            f"no recipe: expected a recipe (affekt train default), or your own data for fine-tuning ({FINETUNE})"
        )
    if start is not None and name is not None:
        raise BadConfig(f"{name!r} is not KEY=VALUE: expected either a recipe, or --from {start} with --corpus")
    if start is not None and not corpus:
        raise BadConfig(f"--from needs --corpus with your data: {FINETUNE}")
    if start is None and (corpus or column or emotion or layout or delimiter or annotators != "error"):
        raise BadConfig(
            "--corpus, --column, --emotion, --layout, --delimiter and --annotators need --from; to change the corpora "
            "of a recipe, use corpora=[...]"
        )
    parallelism = Parallelism(workers, jobs, ray, cpus_per_job, gpus_per_job)
    need("torch", extra="train", purpose="training")
    from affekt.cli.log import show_log
    from affekt.cli.progress_bars import progress_bar
    from affekt.corpora.source import Source
    from affekt.runs.trackers import Following, find_tracker
    from affekt.training.plan import resolve
    from affekt.training.recipe import load_recipe
    from affekt.workflows.finetune import plan_finetuning
    from affekt.workflows.make_bundle import check_output, make_bundle
    from affekt.workflows.train import train as train_recipe
    from affekt.workflows.training_data import TrainingData

    if output is not None:
        check_output(output)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # show each line at once where the output is a file or pipe
    is_first_process = os.environ.get("RANK", "0") == "0"  # under torchrun, only the first process prints
    trackers = [find_tracker(name) for name in log or ()] if is_first_process else []
    if is_first_process:
        show_log()
    if start is not None:
        sources = set_options(
            [Source.parse(text) for text in corpus or ()], column, emotion, layout, delimiter, annotators
        )
        new_name = output.resolve().name if output else sources[0].id
        plan, data = plan_finetuning(start, sources, new_name, settings)
    else:
        plan = resolve(load_recipe(str(name), settings))
        data = TrainingData.read(plan.recipe)
    folder = run or Path("runs") / plan.recipe.name
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        following = stack.enter_context(Following(folder, trackers))
        launcher = stack.enter_context(open_launcher(parallelism, progress))
        runs = train_recipe(plan, folder, data=data, one_model=output is not None, launcher=launcher)
        following.finish(runs)
    if not is_first_process:
        return
    if output is None:
        print(f"trained: {folder}; score it with: affekt evaluate {folder} CORPUS ROOT")
    else:
        _print_bundle(make_bundle(plan, runs, output, data=data), output)


def _print_bundle(bundle: Bundle, output: Path) -> None:
    """Print the scores of a new bundle."""
    for name, entry in bundle.results["scores"].items():
        scores = entry["model"]
        ua, wa = (f"{metric} {100 * scores[metric]['value']:.1f} %" for metric in ("UA", "WA"))
        verdict = bundle.config["protocol"]["verdict"]
        print(f"{name}: {ua}, {wa} on {scores['utterances']} held-out utterances, {verdict}")
    print(f"{bundle.id} written to {output}; model card: {output / 'README.md'}")
