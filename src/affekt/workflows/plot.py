"""The figures that `affekt plot` draws, and the function that draws each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from affekt.errors import BadConfig, UnknownName
from affekt.registry import did_you_mean
from affekt.reports.figures.base import SUFFIXES, Figure, save_all
from affekt.reports.figures.from_runs import (
    plot_confusion,
    plot_cost,
    plot_coverage,
    plot_curves,
    plot_reliability,
    plot_sweep,
)
from affekt.runs.folder import Run
from affekt.runs.groups import group_runs
from affekt.timeline.timeline import Timeline


@dataclass(frozen=True)
class PlotOptions:
    """Options of figures of one recording."""

    text: str = ""
    """The clip's transcript, for a bundle that takes text."""
    attention: str = ""
    """The name of one of the model's attention layers; "" for all."""
    layer: int = -1
    head: int | None = None
    """None for the mean over heads."""


Draw = Callable[[Sequence[str], PlotOptions], list[Figure]]


def draw_figures(kind: str, sources: Sequence[str], options: PlotOptions | None = None) -> list[Figure]:
    """Draw a kind of figure.

    Args:
        kind: A name in `FIGURES`.
        sources: Run folders; for a figure of one recording, a run or bundle and the recording.
        options: Options of figures of one recording.

    Raises:
        UnknownName: There is no such figure.
        BadConfig: The sources do not fit it.
    """
    if kind not in FIGURES:
        raise UnknownName(f"there is no figure {kind!r}{did_you_mean(kind, FIGURES)} (known: {', '.join(FIGURES)})")
    return FIGURES[kind](sources, options or PlotOptions())


def write_timeline_page(sources: Sequence[str], output: Path) -> None:
    """Write the page of a timeline.

    Args:
        sources: The timeline's .json file, and the recording if its waveform and sound are to be part of the page.
        output: A file ending in .html.

    Raises:
        BadConfig: There are more sources.
        BadTranscript: The first source is not a timeline.
        BadAudio: The recording cannot be read.
        BadOutput: The file cannot be written.
    """
    from affekt.timeline.plot import save_plot

    timeline, recording = _timeline_and_recording(sources)
    save_plot(timeline, output, recording)


def save_figures(figures: Sequence[Figure], output: Path) -> list[Path]:
    """Write figures and return their paths.

    Args:
        figures: The figures.
        output: A file ending in .svg, .png or .pdf; several figures get its name with a number. Or a folder, to which
            every figure is written as an SVG file named after it.

    Raises:
        BadOutput: A file cannot be written.
    """
    if output.suffix not in SUFFIXES:
        return save_all(figures, output, ".svg")
    if len(figures) == 1:
        paths = [output]
    else:
        paths = [output.with_stem(f"{output.stem}-{number}") for number in range(1, len(figures) + 1)]
    for figure, path in zip(figures, paths, strict=True):
        figure.save(path)
    return paths


def _draw_runs(draw: Callable[[Sequence[Path]], list[Figure]], sources: Sequence[str], _: PlotOptions) -> list[Figure]:
    return draw([Path(source) for source in sources])


def _draw_embeddings(method: str, sources: Sequence[str], _: PlotOptions) -> list[Figure]:
    from affekt.workflows.model_figures import FUSED, comparison_figure, embed, embedding_figure
    from affekt.workflows.trained_run import open_run

    groups = group_runs([Path(source) for source in sources])
    if not groups:
        raise BadConfig(f"{', '.join(sources)} contains no finished run")
    runs: Mapping[str, Run] = {
        f"{group.config['name']}" if len(groups) == 1 else str(group.folds[0].run.folder): group.folds[0].run
        for group in groups
    }
    embedded = {name: embed(open_run(run.folder)) for name, run in runs.items()}
    figures = [embedding_figure(embedded_run, name, method) for name, embedded_run in embedded.items()]
    same = {embedded_run.keys for embedded_run in embedded.values()}
    comparable = (
        len(embedded) > 1
        and len(same) == 1
        and all(FUSED in embedded_run.embeddings for embedded_run in embedded.values())
    )
    return [*([comparison_figure(embedded, method)] if comparable else []), *figures]


def _draw_attention(sources: Sequence[str], options: PlotOptions) -> list[Figure]:
    from affekt.workflows.examples import attention_figures, open_example

    source, clip = _source_and_clip("attention", sources)
    example = open_example(source, clip, text=options.text)
    title = f"{Path(source).name}, {example.name}"
    figures = attention_figures(example, title, layer=options.layer, head=options.head, only=options.attention)
    if not figures:
        raise BadConfig(f"the model of {source} returns no attention weights between frames: try affekt plot scales")
    return figures


def _draw_scales(sources: Sequence[str], options: PlotOptions) -> list[Figure]:
    from affekt.workflows.examples import open_example, scales_figure

    source, clip = _source_and_clip("scales", sources)
    example = open_example(source, clip, text=options.text)
    figure = scales_figure(example, f"{Path(source).name}, {example.name}")
    if figure is None:
        raise BadConfig(f"the model of {source} has no scales: try affekt plot attention")
    return [figure]


def _draw_timeline(sources: Sequence[str], _: PlotOptions) -> list[Figure]:
    from affekt.timeline.plot import draw_timeline

    timeline, recording = _timeline_and_recording(sources)
    return [Figure("timeline", timeline.file, timeline.segmentation, draw_timeline(timeline, recording))]


def _timeline_and_recording(sources: Sequence[str]) -> tuple[Timeline, str | None]:
    from affekt.timeline.exports import read_timeline

    if len(sources) > 2:
        raise BadConfig(f"affekt plot timeline takes TIMELINE.json and a recording, but got {' '.join(sources)}")
    return read_timeline(Path(sources[0])), sources[1] if len(sources) == 2 else None


def _source_and_clip(kind: str, sources: Sequence[str]) -> tuple[str, str]:
    if len(sources) != 2:
        raise BadConfig(f"affekt plot {kind} takes RUN CLIP or BUNDLE FILE, but got {' '.join(sources)}")
    return sources[0], sources[1]


FIGURES: Mapping[str, Draw] = {
    "confusion": partial(_draw_runs, plot_confusion),
    "curves": partial(_draw_runs, plot_curves),
    "reliability": partial(_draw_runs, plot_reliability),
    "coverage": partial(_draw_runs, plot_coverage),
    "cost": partial(_draw_runs, plot_cost),
    "sweep": partial(_draw_runs, plot_sweep),
    "tsne": partial(_draw_embeddings, "tsne"),
    "pca": partial(_draw_embeddings, "pca"),
    "umap": partial(_draw_embeddings, "umap"),
    "attention": _draw_attention,
    "scales": _draw_scales,
    "timeline": _draw_timeline,
}
