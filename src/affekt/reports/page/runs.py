"""The sections on finished runs of the HTML page: one for each corpus, split and label set."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from affekt.corpora.waveforms import read_waveform
from affekt.errors import AffektError
from affekt.evaluation.metrics import most_probable
from affekt.extras import need
from affekt.protocols import utterance_key
from affekt.protocols.audit import Audit, Auditor
from affekt.registry import Registry
from affekt.reports.figures.base import Figure
from affekt.reports.figures.from_runs import (
    ScoredGroup,
    by_split,
    confusion_figure,
    cost_figure,
    coverage_figure,
    curves_figure,
    fold_confusion_figure,
    reliability_figure,
    sweep_figures,
)
from affekt.reports.markdown import to_section
from affekt.reports.page.render import Block, Figures, Html, PageSection, Table, Text
from affekt.reports.results import collect_tests, score_tests
from affekt.reports.sections import Options, PageOptions, Section
from affekt.utterance import Utterance

MAX_MISTAKES = 40
"""Number of utterances that the list of common mistakes shows."""
SAMPLE_RATE = 16_000

# A function from the groups of runs on one split to figures that need the trained models. Looked up by name, because
# models are built in a higher layer.
model_figures = Registry("kind of figures", {"models": "affekt.workflows.model_figures:figures_of_models"})


def runs_section(folders: Sequence[Path], options: Options) -> Section:
    """Read all finished runs below the folders and return their part of the page.

    Raises:
        BadConfig: A run is unfinished, or a folder contains none.
    """
    tests = collect_tests(folders, options.against)
    results = score_tests(tests, against=options.against)
    section = to_section(results, by_fold=options.by_fold)
    scored = list(map(ScoredGroup, results.rows, tests))
    return replace(section, html=partial(_page_sections, section.markdown, scored))


def _page_sections(texts: Sequence[str], scored: Sequence[ScoredGroup], options: PageOptions) -> list[PageSection]:
    sections = []
    for markdown, same_split in zip(texts, by_split(scored), strict=True):
        heading, _, body = markdown.partition("\n")
        sections.append(PageSection(heading.removeprefix("## "), _blocks(body, same_split, options)))
    return sections


def _blocks(body: str, same_split: Sequence[ScoredGroup], options: PageOptions) -> list[Block]:
    utterances = _read_utterances(same_split[0])
    own = [figure for figure in (cost_figure(same_split), *sweep_figures(same_split)) if figure]
    by_fold = [figure for figure in map(fold_confusion_figure, same_split) if figure]
    blocks: list[Block] = [
        Text(body),
        *_audit_blocks(same_split[0], utterances),
        Figures("Confusion matrices", [confusion_figure(same_split)]),
        *([Figures("Confusion matrices by fold", by_fold, closed=True)] if by_fold else []),
        Figures("Learning curves", [curves_figure(model.test.group, model.name) for model in same_split]),
        Figures("Calibration", [reliability_figure(same_split), coverage_figure(same_split)]),
        *([Figures("Cost and settings", own)] if own else []),
    ]
    if options.models:
        blocks += _model_blocks(same_split, options)
    return [*blocks, mistakes_table(same_split, utterances, options)]


def _read_utterances(scored: ScoredGroup) -> Mapping[str, Utterance]:
    """Return the utterances of the scored corpus by key; empty without the corpus."""
    try:
        return {utterance_key(utterance): utterance for utterance in scored.test.source.read()}
    except AffektError:
        return {}


def _audit_blocks(scored: ScoredGroup, utterances: Mapping[str, Utterance]) -> list[Block]:
    """Return the audit of each fold; nothing if the utterances are not all known."""
    splits = [fold.split for fold in scored.test.group.folds]
    keys = {key for split in splits for subset in split.subsets.values() for key in subset}
    if not keys <= set(utterances):
        return [Text("Audit: not possible, because the corpus is not available here.")]
    auditor = Auditor(list(utterances.values()))
    audits = [auditor.audit(split) for split in splits]
    return [_audit_table(audits), *_warnings(audits)]


def _audit_table(audits: Sequence[Audit]) -> Table:
    rows = []
    for audit in audits:
        for subset in audit.subsets:
            shared = [overlap for overlap in audit.overlaps if overlap.second == subset.name]
            overlaps = [
                f"{overlap.kind}s shared with {overlap.first}: {overlap}" for overlap in shared if overlap.shared
            ]
            counts = ", ".join(f"{emotion} {count}" for emotion, count in subset.emotions.items())
            speakers = "unknown" if subset.speakers is None else str(subset.speakers)
            fold = audit.split.fold or "1"
            rows.append([fold, subset.name, str(subset.utterances), speakers, counts, "; ".join(overlaps)])
    header = ["fold", "subset", "utterances", "speakers", "emotions", "shared with another subset"]
    lines = "; ".join(dict.fromkeys(audit.line for audit in audits))
    return Table("Audit of the split", header, rows, note=f"Verdict: {lines}.", closed=len(audits) > 2)


def _warnings(audits: Iterable[Audit]) -> list[Block]:
    lines = list(dict.fromkeys(warning for audit in audits for warning in audit.warnings))
    return [Table("Remarks of the audit", ["remark"], [[line] for line in lines], closed=True)] if lines else []


def _model_blocks(same_split: Sequence[ScoredGroup], options: PageOptions) -> list[Block]:
    figures_of: Callable[[Sequence[ScoredGroup], PageOptions], tuple[Mapping[str, Sequence[Figure]], Sequence[str]]]
    try:
        figures_of = model_figures["models"]
    except AffektError as error:
        return [Text(f"No figures of embeddings and attention: {error}.")]
    by_title, problems = figures_of(same_split, options)
    blocks: list[Block] = [Figures(title, figures) for title, figures in by_title.items() if figures]
    if problems:
        blocks.append(Table("Figures that could not be made", ["reason"], [[line] for line in problems], closed=True))
    return blocks


def mistakes_table(
    same_split: Sequence[ScoredGroup], utterances: Mapping[str, Utterance], options: PageOptions
) -> Table:
    """Return the utterances that every model gets wrong with every seed, sorted by how many predictions agree."""
    first = same_split[0]
    labels, emotions = dict(zip(first.test.ids, first.test.labels, strict=True)), first.row.emotions
    predicted: dict[str, list[str]] = {key: [] for key in first.test.ids}
    for model in same_split:
        for probabilities in model.test.selected.values():
            names = [*model.row.emotions, "refused"]
            for key, index in zip(model.test.ids, most_probable(probabilities), strict=True):
                predicted[key].append(names[index])
    wrong = {key: Counter(named) for key, named in predicted.items() if emotions[labels[key]] not in named}
    ordered = sorted(wrong, key=lambda key: (-max(wrong[key].values()), key))
    rows = [
        _mistake(key, emotions[labels[key]], wrong[key], utterances.get(key), options) for key in ordered[:MAX_MISTAKES]
    ]
    extra = ["transcript"] * options.embed_text + ["audio"] * options.embed_audio
    total = sum(len(model.test.selected) for model in same_split)
    note = f"Wrong in all {total} predictions (models times seeds) of the test set."
    if len(ordered) > MAX_MISTAKES:
        note += f" The first {MAX_MISTAKES} of them are shown, sorted by how many predictions agree."
    title = f"Utterances that every model gets wrong: {len(ordered)} of {len(predicted)}"
    return Table(title, ["utterance", "emotion", "predicted", "speaker", *extra], rows, note=note, closed=True)


def _mistake(
    key: str, emotion: str, predicted: Counter[str], utterance: Utterance | None, options: PageOptions
) -> list[Any]:
    counts = ", ".join(f"{name} {count}" if len(predicted) > 1 else name for name, count in predicted.most_common())
    row: list[Any] = [key, emotion, counts, utterance.speaker if utterance else ""]
    if options.embed_text:
        row.append(utterance.text if utterance else "")
    if options.embed_audio:
        row.append(_audio(utterance) if utterance and utterance.audio else "")
    return row


def _audio(utterance: Utterance) -> Html:
    """Return a player with the utterance's samples as FLAC."""
    soundfile = need("soundfile", extra="train", purpose="embedding audio")
    file = io.BytesIO()
    soundfile.write(file, np.asarray(read_waveform(utterance)), SAMPLE_RATE, format="FLAC")
    data = base64.b64encode(file.getvalue()).decode()
    return Html(f'<audio controls preload="none" src="data:audio/flac;base64,{data}"></audio>')
