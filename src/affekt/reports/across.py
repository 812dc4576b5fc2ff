"""The scores on corpora that a model was not trained on, for the model card and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from affekt.bundle.folder import DEFAULT, Bundle
from affekt.plural import quantity
from affekt.reports.languages import language_name
from affekt.tables import table

Entry = dict[str, Any]
"""An entry of across.json, as `affekt.workflows.evaluate_across.CorpusScores` describes it."""

EMOTIONS = ("own", "all")
"""The columns of the table: the most probable emotion among the corpus's own classes, or among all of the model's."""
SECTION = """\
These corpora were not used in training, and their labels were not used in adaptation. "own classes": the most probable
emotion among those that the corpus has. "all classes": among all emotions of the model, although the corpus has fewer. Scores
are UA in percent with 95 % bootstrap intervals. "transductive": the recordings that the model was adapted to, without their
labels, may be among the scored ones. The manifest is a hash of the scored recordings: names, samples and labels.

{tables}
{remarks}
"""

LEFT_OUT = """\
Leave one corpus out: other bundles, trained with the same recipe on fewer corpora and scored on the one left out.

{table}"""

WITHOUT_SCORES = """\
No scores are recorded. `affekt evaluate {source} --across CORPUS:FOLDER --record {source}` scores the model on a corpus that
it was not trained on, and adds the scores to this card. Expect far lower scores there than above.
"""
HEADERS = {"own": "UA among its own classes", "all": "UA among all classes"}


def across_section(bundle: Bundle) -> str:
    """Return the section on corpora that the bundle was not trained on."""
    if "text" in bundle.config["features"]:
        return "Not scored: the model needs transcripts.\n"
    if not (entries := bundle.across):
        source = bundle.name if bundle.name == DEFAULT else "FOLDER_OF_THIS_CARD"
        return WITHOUT_SCORES.format(source=source)
    tables, own = [], [entry for entry in entries if entry["model"] == bundle.id]
    if any(entry["speech"] for entry in own):
        tables.append(speech_table(own))
    if others := [entry for entry in entries if entry["model"] != bundle.id]:
        tables.append(LEFT_OUT.format(table=speech_table(others, with_training=True)))
    if not all(entry["speech"] for entry in own):
        tables.append(f"Vocal sounds without speech:\n\n{sounds_table(own)}")
    return SECTION.format(tables="\n".join(tables), remarks="\n".join(f"- {line}" for line in remarks(entries)))


def speech_table(entries: Sequence[Entry], columns: Sequence[str] = EMOTIONS, *, with_training: bool = False) -> str:
    """Return the table of the corpora of speech.

    Args:
        entries: Entries of across.json.
        columns: Which of EMOTIONS to show.
        with_training: Add a column of the corpora that the scored bundle was trained on.
    """
    rows = []
    for entry in entries:
        if entry["speech"]:
            origin = ", ".join(part for part in (language_name(entry["language"]), entry["style"]) if part)
            for condition, outcome in conditions(entry):
                scores = [percent(outcome[column]["UA"]) for column in columns]
                training = [", ".join(entry["trained_on"])] if with_training else []
                rows.append([title(entry), origin or "-", *training, _scored_on(entry), condition, *scores])
            if entry.get("not_adapted"):
                cells = ["-"] * len(columns)
                rows.append(
                    [title(entry), origin or "-", *training, _scored_on(entry), "not possible to adapt", *cells]
                )
    header = [
        "corpus",
        "speech",
        *(["trained on"] if with_training else []),
        "scored on",
        "condition",
        *(HEADERS[column] for column in columns),
    ]
    return table(header, rows)


def sounds_table(entries: Sequence[Entry]) -> str:
    """Return the table of the corpora that are not speech: how many sounds are refused, and predictions for the others."""
    rows = []
    for entry in entries:
        if not entry["speech"]:
            outcome, total = entry["as_it_is"], entry["recognized"]
            predicted = sorted(outcome["answers"].items(), key=lambda item: -item[1])
            fractions = ", ".join(f"{emotion} {count / total:.0%}" for emotion, count in predicted)
            rows.append(
                [title(entry), entry["style"], str(total), f"{outcome['refused'] / total:.1%}", fractions or "-"]
            )
    return table(["corpus", "sounds", "recordings", "refused as no speech", "predicted"], rows)


def remarks(entries: Sequence[Entry]) -> list[str]:
    """Return a line on each corpus: what is left out, the intervals, and the hash of the scored recordings."""
    return [_remark(entry) for entry in entries]


def conditions(entry: Entry) -> list[tuple[str, dict[str, Any]]]:
    """Return the conditions under which a corpus was scored, in words, with their outcomes."""
    adapted = entry["adapted"]
    if adapted is None:
        return [("not adapted", entry["as_it_is"])]
    how = adapted["how"] if adapted["how"].startswith("of ") else f"({adapted['how']})"
    return [
        ("not adapted", entry["as_it_is"]),
        (f"adapted on {quantity(adapted['recordings'], 'unlabeled recording')} {how}", adapted),
    ]


def title(entry: Entry) -> str:
    """Return a corpus's title, with its list of clips and the note on the copy."""
    return ", ".join(part for part in (entry["title"], entry["only"], entry["note"]) if part)


def percent(interval: Mapping[str, float | None]) -> str:
    """Format a score with its interval, if it has one, in percent: "70.1 (68.0 to 72.1)"."""
    value, low, high = (interval[name] for name in ("value", "low", "high"))
    assert value is not None
    return f"{100 * value:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})")


def _scored_on(entry: Entry) -> str:
    speakers = f"{quantity(entry['speakers'], 'speaker')}, " if entry["speakers"] else "speakers unknown, "
    return f"{speakers}{quantity(entry['utterances'], 'utterance')}, {len(entry['classes'])} classes"


def _remark(entry: Entry) -> str:
    parts = []
    if entry["left_out"]:
        counts = ", ".join(f"{emotion} {count}" for emotion, count in entry["left_out"].items())
        what = "not scored" if entry["speech"] else "recognized, but without a right answer"
        parts.append(f"emotions that the model does not have are {what} ({counts})")
    if entry["unreadable"]:
        parts.append(f"{quantity(len(entry['unreadable']), 'recording')} could not be read")
    if entry["speech"]:
        for condition, outcome in conditions(entry):
            if outcome["refused"]:
                parts.append(f"{outcome['refused']} refused as no speech, which counts as wrong ({condition})")
        if entry["adapted"]:
            parts.append(f"strength of the adaptation {entry['adapted']['strength']:.2f}")
        if reason := entry.get("not_adapted"):
            parts.append(f"not possible to adapt: {reason}")
        parts.append(entry["as_it_is"]["own"]["intervals"])
    parts.append(f"manifest {entry['manifest'][:12]}")
    return f"{title(entry)} ({', '.join(entry['classes'])}): {'; '.join(parts)}."
