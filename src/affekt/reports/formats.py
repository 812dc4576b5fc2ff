"""Comparisons as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from affekt.evaluation.metrics import METRICS
from affekt.reports.compare import CompareResult, Grid, grids
from affekt.tables import table

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


def to_markdown(result: CompareResult) -> str:
    """Return a comparison as Markdown."""
    parts = [f"**Warning:** {warning}.\n" for warning in result.warnings]
    parts += [f"{line}.\n" for line in result.protocol_lines]
    parts += [
        f"{grid.title}:\n\n{table(list(grid.header), [list(row) for row in grid.rows])}" for grid in grids(result)
    ]
    if result.conclusions:
        parts.append("\n".join(f"- {line}" for line in result.conclusions) + "\n")
    return "\n".join(parts)


def to_latex(result: CompareResult) -> str:
    """Return a comparison as tables for LaTeX with the package booktabs; protocol and conclusions become captions."""
    lines = [f"% WARNING: {warning}" for warning in result.warnings]
    caption = " ".join(f"{escape_latex(line)}." for line in result.protocol_lines)
    parts = [_latex_table(grid, caption) for grid in grids(result)]
    conclusions = [escape_latex(line) for line in result.conclusions]
    items = [r"\begin{itemize}", *(rf"\item {line}" for line in conclusions), r"\end{itemize}"] if conclusions else []
    return "\n".join([*lines, *parts, *items, ""])


def _latex_table(grid: Grid, caption: str) -> str:
    def line(cells: list[str]) -> str:
        return " & ".join(map(escape_latex, cells)) + r" \\"

    rows = "\n".join(line(list(row)) for row in grid.rows)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape_latex(grid.title)}. {caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
            r"\toprule",
            line(list(grid.header)),
            r"\midrule",
            rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Escape the characters of a text that have a special meaning in LaTeX."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)


CSV_HEADER = (
    "kind", "first", "second", "corpus", "folder", "settings", "seeds", "metric", "value", "std", "low", "high", "p",
    "p_holm", "resampled", "wilcoxon_p", "cohens_g", "split", "verdict", "selection", "utterances", "protocol",
)  # fmt: skip


def to_csv(result: CompareResult) -> str:
    """Return a comparison as CSV: a line for each score (kind "score") and each difference (kind "difference").

    Scores are fractions.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_HEADER, lineterminator="\n")
    writer.writeheader()
    for row in result.results.rows:
        for metric in METRICS:
            spread, interval = getattr(row, metric), getattr(row.scores, metric)
            writer.writerow(
                {
                    "kind": "score",
                    "first": row.label,
                    "corpus": row.corpus,
                    "folder": row.folder,
                    "settings": row.differences,
                    "seeds": " ".join(map(str, row.seeds)),
                    "metric": metric,
                    "value": spread.mean,
                    "std": spread.std,
                    "low": interval.low,
                    "high": interval.high,
                    "split": row.split_hash,
                    "verdict": row.verdict,
                    "selection": row.selection,
                    "utterances": row.utterances,
                    "protocol": row.protocol,
                }
            )
    for pair in result.results.pairs:
        comparison = pair.comparison
        low, high = comparison.interval or (None, None)
        writer.writerow(
            {
                "kind": "difference",
                "first": pair.first,
                "second": pair.second,
                "corpus": pair.corpus,
                "seeds": " ".join(map(str, comparison.by_seed)),
                "metric": comparison.metric,
                "value": comparison.value,
                "std": pair.difference.std,
                "low": low,
                "high": high,
                "p": comparison.p,
                "p_holm": pair.corrected_p,
                "resampled": comparison.resampled,
                "wilcoxon_p": comparison.wilcoxon_p,
                "cohens_g": comparison.effect,
                "split": pair.split_hash,
            }
        )
    return buffer.getvalue()


FORMATS: dict[str, Callable[[CompareResult], str]] = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}
"""Name of a text format -> function that renders a comparison in it."""
