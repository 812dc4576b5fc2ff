"""The scores of a bundle or a training, with the protocol they stand under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.corpora.source import Source
from affekt.errors import BadBundle, BadConfig, BadCorpus
from affekt.evaluation.metrics import confusion, ua, wa, wf1
from affekt.evaluation.scores import score
from affekt.labels import LabelSet
from affekt.protocols import INDEPENDENT, Split, key
from affekt.protocols.split import DEPENDENT, combined_hash
from affekt.runs.folder import Run
from affekt.runs.selection import RULES, SELECTION_SUBSET, Rule, select_epoch
from affekt.training.recipe import Recipe, recipe_of
from affekt.utterance import Utterance
from affekt.workflows.make_bundle import heard_before, piped, trained_model
from affekt.workflows.predict import answered, predict_torch
from affekt.workflows.train import runs_below
from affekt.workflows.training_data import Say, select_utterances, speakers_of

Predictions = NDArray[np.floating]


def evaluate(source: str | Path, corpus: Source, *, selection: Rule | None = None, say: Say = print) -> dict[str, Any]:
    """Score a bundle, or the runs of a training, on a corpus.

    On a corpus that was trained on, the test part counts, with the training's protocol; of another, all of it.
    selection: for runs, by which rule the epoch is chosen; None for their recipe's.
    """
    folder = Path(source)
    if not (folder / "model.onnx").is_file() and any(folder.rglob("predictions")):
        return evaluate_runs(runs_below(folder), corpus, selection=selection, say=say)
    if selection:
        raise BadConfig(f"{source} is no training's folder: a bundle's epoch was chosen when it was made")
    return evaluate_bundle(Bundle.open(source), corpus, say=say)


def evaluate_bundle(made: Bundle, corpus: Source, *, say: Say = print) -> dict[str, Any]:
    """Score a bundle's ONNX file: on the test part of its training's split, or on all of a corpus it never heard."""
    try:
        protocol, labels = made.section("protocol"), made.section("labels")
        split, rule = Split.load(made.file("split.json")), protocol["selection"]
        own = LabelSet(made.name, made.emotions, labels["merge"], labels["dialogues"])
    except KeyError as error:
        raise BadBundle(
            f"{made.folder}: config.toml does not say {error}, so nobody knows whom it was trained on"
        ) from error
    utterances = select_utterances(corpus.read(), own, corpus.id, say)
    verdict, title = _elsewhere(corpus, heard_before(made), utterances)
    if corpus.id in training_corpora(split):
        present = {key(utterance): utterance for utterance in utterances}
        asked = sorted(one for one in split.subsets["test"] if one.startswith(f"{corpus.id}/"))
        utterances = _all_there(asked, present, corpus)
        verdict = split.verdict
        title = f"{split.title}, part 'test': {len(utterances)} utterances of {corpus.title}"
    answers = answered(made, utterances)
    return {
        "model": made.id,
        **_head(corpus, own, title, split.hash, verdict),
        "selection": RULES[rule],
        **_scored(own, [utterances], [answers]),
    }


def _elsewhere(corpus: Source, heard: set[str], utterances: Sequence[Utterance]) -> tuple[str, str]:
    """Verdict and protocol of a corpus that was not trained on; heard: the corpora that were, before fine-tuning."""
    if corpus.id in heard:
        return DEPENDENT, f"a corpus that was heard before fine-tuning: all {len(utterances)} utterances"
    return INDEPENDENT, f"a corpus not trained on: all {len(utterances)} utterances"


def _heard_by(start: Bundle | None) -> set[str]:
    return {entry["corpus"] for entry in start.results.get("data", ())} if start else set()


def _all_there(ids: Sequence[str], present: dict[str, Utterance], corpus: Source) -> list[Utterance]:
    """The test part's utterances; a part may not be smaller than it was."""
    if missing := [one for one in ids if one not in present]:
        raise BadCorpus(
            f"{corpus.path} lacks {len(missing)} of the {len(ids)} utterances of the test part, first {missing[0]}: "
            "give the corpus as it was trained on"
        )
    if not ids:
        raise BadCorpus(f"{corpus.title} was trained on, and nothing of it was held out: there is nothing to score")
    return [present[one] for one in ids]


def evaluate_runs(
    runs: Sequence[Run], corpus: Source, *, selection: Rule | None = None, say: Say = print
) -> dict[str, Any]:
    """Score finished runs: their own predictions on the test parts, or their models' on a corpus they never heard."""
    recipe = recipe_of(runs[0])
    rule = selection or recipe.selection
    labels = LabelSet(recipe.labels, runs[0].emotions)
    if recipe.labels != "all":
        known = recipe.label_set([])
        labels = LabelSet(recipe.labels, runs[0].emotions, known.merge, known.dialogues)
    utterances = select_utterances(corpus.read(), labels, corpus.id, say)
    if not any(corpus.id in training_corpora(run.split) for run in runs):
        chosen = [_by_model(recipe, run, rule, labels, utterances, say) for run in runs]
        verdict, title = _elsewhere(corpus, _heard_by(recipe.origin), utterances)
        result = _scored(labels, [utterances] * len(runs), chosen)
    else:
        present = {key(utterance): utterance for utterance in utterances}
        tests = [_test_part(run, corpus, present) for run in runs]
        chosen = [
            run.predictions(select_epoch(run, rule))["test"][where] for run, (where, _) in zip(runs, tests, strict=True)
        ]
        verdict = next((run.split.verdict for run in runs if not run.split.speaker_independent), INDEPENDENT)
        splits = {run.split.hash: run.split for run in runs}
        first = runs[0].split
        title = first.title if len(splits) == 1 else f"{first.name} ({first.description}), {len(splits)} folds"
        result = _scored(labels, [part for _, part in tests], chosen)
        result["by_selection"] = {
            each: _mean_ua(runs, each, corpus, present) for each in RULES if _possible(runs, each)
        }
    return {
        "model": recipe.name,
        **_head(corpus, labels, title, combined_hash(run.split for run in runs), verdict),
        "selection": RULES[rule],
        **result,
        "runs": [
            {"run": run.folder.name, "seed": run.config["seed"], "fold": run.split.fold, "split_hash": run.split.hash}
            for run in runs
        ],
    }


def training_corpora(split: Split) -> set[str]:
    """The corpora that were trained on."""
    return {one.partition("/")[0] for one in split.subsets["train"]}


def _test_part(run: Run, corpus: Source, present: dict[str, Utterance]) -> tuple[NDArray[np.int64], list[Utterance]]:
    """Where the corpus's utterances stand in a run's test part, and which they are."""
    ids = run.split.subsets["test"]
    where = np.array([n for n, one in enumerate(ids) if one.startswith(f"{corpus.id}/")], np.int64)
    return where, _all_there([ids[n] for n in where], present, corpus)


def _possible(runs: Sequence[Run], rule: Rule) -> bool:
    """Whether a rule can be applied: to the parts that there are, and to the same one in all runs."""
    return rule not in SELECTION_SUBSET or all(SELECTION_SUBSET[rule] in run.split.subsets for run in runs)


def _mean_ua(runs: Sequence[Run], rule: Rule, corpus: Source, present: dict[str, Utterance]) -> dict[str, Any]:
    """What each selection would have printed: UA, over the runs."""
    values, epochs = [], []
    for run in runs:
        where, _ = _test_part(run, corpus, present)
        epochs.append(select_epoch(run, rule))
        predicted = run.predictions(epochs[-1])["test"][where].argmax(axis=1)
        values.append(ua(confusion(run.labels("test")[where], predicted, len(run.emotions))))
    return {"rule": RULES[rule], "UA": float(np.mean(values)), "epochs": epochs}


def _by_model(
    recipe: Recipe, run: Run, rule: Rule, labels: LabelSet, utterances: Sequence[Utterance], say: Say
) -> Predictions:
    """Probabilities by the weights of a run's chosen epoch, utterance by utterance, on whatever corpus."""
    epoch = select_epoch(run, rule)
    say(f"{run.folder}: epoch {epoch} on {len(utterances)} utterances")
    encoders = recipe.build_encoders()
    pipeline = piped(encoders, [trained_model(recipe, run, epoch, encoders, labels.emotions)])
    return predict_torch(pipeline, {stream: encoders[stream] for stream in pipeline.given}, utterances)


def _head(corpus: Source, labels: LabelSet, protocol: str, split: str, verdict: str) -> dict[str, Any]:
    return {
        "corpus": corpus.id,
        "note": corpus.note,
        "classes": list(labels.emotions),
        "protocol": protocol,
        "split_hash": split,
        "speaker_independent": verdict == INDEPENDENT,
        "verdict": verdict,
    }


def _scored(labels: LabelSet, parts: Sequence[Sequence[Utterance]], answers: Sequence[Predictions]) -> dict[str, Any]:
    """The scores of all runs together. Runs that scored the same utterances are averaged by counting them all."""
    flat = [utterance for part in parts for utterance in part]
    truth = np.array([labels.index_of(utterance) for utterance in flat], np.int64)
    people = speakers_of(flat)
    together = score(truth, np.concatenate(answers), labels.emotions, people, units=[key(u) for u in flat])
    counts = [
        confusion(np.array([labels.index_of(u) for u in part], np.int64), one.argmax(axis=1), len(labels))
        for part, one in zip(parts, answers, strict=True)
    ]
    return {
        "speakers": len(set(people)) if people else None,
        **asdict(together),
        "utterances": len({key(utterance) for utterance in flat}),
        "over_runs": {
            name: {
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
            for name, metric in (("UA", ua), ("WA", wa), ("WF1", wf1))
            for values in [[metric(one) for one in counts]]
        },
    }
