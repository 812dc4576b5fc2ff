"""Reproduce the rows of a paper's table: train, score, and compare with the scores that the paper prints."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from affekt.evaluation.spread import Spread, spread_over_seeds
from affekt.files import atomic_write_text
from affekt.json_text import to_json
from affekt.plural import quantity
from affekt.protocols.split import combined_hash
from affekt.reports.markdown import format_spread
from affekt.runs.folder import Run
from affekt.runs.selection import RULES, Rule, select_epoch
from affekt.tables import table
from affekt.workflows.jobs import Launcher
from affekt.workflows.reproduction_plan import ReproductionPlan, RowPlan

logger = logging.getLogger(__name__)

RESULTS = "results"


@dataclass(frozen=True)
class ReproducedScore:
    """A score of the paper, and the score of our reproduction."""

    name: str
    """The name of our recipe, which differs from the shipped one's for a stand-in or a quick run."""
    paper: str
    table: str
    row: str
    metric: str
    published: float | None
    published_std: float | None
    ours: Mapping[str, Spread]
    """Selection rule -> score: the recipe's own rule, the last epoch, and the best on the test set."""
    selection: Rule
    seeds: tuple[int, ...]
    folds: int
    protocol: str
    """The line that accompanies every score: corpus, test set, split, and whether it is speaker-independent."""
    remarks: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the content for JSON."""
        ours = {rule: {"mean": spread.mean, "std": spread.std} for rule, spread in self.ours.items()}
        names = ("name", "paper", "table", "row", "metric", "published", "published_std")
        rest = ("selection", "seeds", "folds", "protocol", "remarks")
        values = {name: getattr(self, name) for name in (*names, *rest)}
        return {**{name: values[name] for name in names}, "ours": ours, **{name: values[name] for name in rest}}


def reproduce(plan: ReproductionPlan, launcher: Launcher) -> list[ReproducedScore]:
    """Train everything that a plan lacks, and write the results whenever a row is finished.

    The rows that train one network are trained together, in parallel with a launcher that has workers; then searches, one
    after another. A plan whose run folders are complete is only scored. `results.md` and `results.json` are written to the
    plan's folder.

    Args:
        plan: The plan.
        launcher: Runs the trainings.
    """
    plan.check_disk()
    results = _Results(plan)
    results.update()
    jobs = [job for row_plan in plan.rows for job in row_plan.row.jobs(row_plan.unfinished)]
    launcher.run(jobs, on_finished=lambda _: results.update())
    for row_plan in plan.rows:
        if row_plan.unfinished:
            row_plan.row.train(row_plan.unfinished, launcher)
            results.update()
    return results.scores


@dataclass
class _Results:
    """The scores of the rows that are finished, on disk too."""

    plan: ReproductionPlan
    scores_of_row: dict[int, list[ReproducedScore]] = field(default_factory=dict)

    @property
    def scores(self) -> list[ReproducedScore]:
        """The scores in the order of the plan."""
        return [score for index in sorted(self.scores_of_row) for score in self.scores_of_row[index]]

    def update(self) -> None:
        """Score the rows that are finished now, and write the results if there are any."""
        rows = {index: row_plan for index, row_plan in enumerate(self.plan.rows) if index not in self.scores_of_row}
        finished = {index: score_row(row_plan) for index, row_plan in rows.items() if not row_plan.unfinished}
        if not finished:
            return
        self.scores_of_row |= finished
        folder, scores = self.plan.folder, self.scores
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_text(folder / f"{RESULTS}.md", format_scores(self.plan.target, scores))
        atomic_write_text(folder / f"{RESULTS}.json", to_json([entry.to_json() for entry in scores], indent=1) + "\n")


def score_row(row_plan: RowPlan) -> list[ReproducedScore]:
    """Score the finished runs of a row under the recipe's own rule, at the last epoch, and at the best on the test set."""
    runs = {
        seed: [row_plan.row.scored_run(unit.folder) for unit in row_plan.units if unit.seed == seed]
        for seed in row_plan.row.seeds
    }
    published, selection = row_plan.row.published, row_plan.row.plan.recipe.selection
    rules = list(dict.fromkeys([selection, "last", "paper"]))
    metrics = [*published.scores, *published.plotted]
    remarks = (*row_plan.row.remarks, *_data_remarks(row_plan))
    return [
        ReproducedScore(
            name=row_plan.row.recipe.name,
            paper=published.paper,
            table=published.table,
            row=published.row,
            metric=metric,
            published=published.scores.get(metric),
            published_std=published.std.get(metric),
            ours={rule: _spread(runs, metric, rule) for rule in rules},
            selection=selection,
            seeds=tuple(runs),
            folds=len(row_plan.splits),
            protocol=_protocol_line(row_plan, next(iter(runs.values()))),
            remarks=remarks,
        )
        for metric in metrics
    ]


def _spread(runs: Mapping[int, Sequence[Run]], metric: str, rule: Rule) -> Spread:
    """Return the spread over seeds of the score of each seed's predictions on the test sets of all its folds together."""
    labels = np.concatenate([run.labels("test") for run in next(iter(runs.values()))])
    predictions = {
        seed: np.concatenate([run.predictions(select_epoch(run, rule))["test"] for run in folds])
        for seed, folds in runs.items()
    }
    return spread_over_seeds(metric, labels, predictions)


def _data_remarks(row_plan: RowPlan) -> list[str]:
    """Return remarks on utterances, seeds and folds that the row lacks."""
    remarks = [f"{corpus.name}: {corpus.count}" for corpus in row_plan.corpora if not corpus.is_complete]
    recipe = row_plan.row.recipe
    if len(row_plan.row.seeds) < recipe.repeats:
        remarks.append(f"{quantity(len(row_plan.row.seeds), 'seed')} of {recipe.repeats}")
    return remarks


def _protocol_line(row_plan: RowPlan, runs: Sequence[Run]) -> str:
    splits = [run.split for run in runs]
    test = sum(len(split.subsets["test"]) for split in splits)
    verdict = next((split.verdict for split in splits if not split.speaker_independent), splits[0].verdict)
    corpora = " and ".join(corpus.name for corpus in row_plan.corpora)
    return (
        f"{corpora}, {row_plan.row.plan.recipe.labels}, {splits[0].name}: {test} test utterances in "
        f"{quantity(len(splits), 'fold')}, split {combined_hash(splits)}, {verdict}"
    )


def format_scores(target: str, scores: Sequence[ReproducedScore]) -> str:
    """Return a Markdown table of the paper's scores and ours, with the protocol and the selection rule of each."""
    header = [
        "row",
        "metric",
        "the paper",
        "ours",
        "last epoch",
        "best on TEST",
        "selection",
        "seeds",
        "folds",
        "remarks",
    ]
    body = [
        [
            score.row,
            score.metric,
            _format_published(score),
            format_spread(score.ours[score.selection]),
            format_spread(score.ours["last"]),
            format_spread(score.ours["paper"]),
            score.selection,
            str(len(score.seeds)),
            str(score.folds),
            "; ".join(score.remarks),
        ]
        for score in scores
    ]
    rules = [f'- "{rule}": {RULES[rule]}' for rule in dict.fromkeys(score.selection for score in scores)]
    protocols = [f"- {line}" for line in dict.fromkeys(f"{score.name}: {score.protocol}" for score in scores)]
    return "\n".join(
        [
            f"# {target}\n",
            table(header, body),
            "In percent, as mean and standard deviation over seeds; each seed's score counts the test utterances of all its "
            'folds together. "Ours" is the epoch that the recipe\'s rule selects:\n',
            *rules,
            "\nThe best epoch on the TEST set is what some published code reports; it is optimistic.\n",
            *protocols,
            "",
        ]
    )


def _format_published(score: ReproducedScore) -> str:
    if score.published is None:
        return "plotted"
    std = "" if score.published_std is None else f" ± {100 * score.published_std:.1f}"
    return f"{round(100 * score.published, 2):g}{std}"


def default_folder(target: str, *, quick: bool) -> Path:
    """Return the folder of a reproduction without --run."""
    return Path("runs") / f"{Path(target).stem}{'-quick' if quick else ''}"
