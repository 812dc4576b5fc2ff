"""Score a bundle or training runs on a corpus, and state the protocol."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.bundle.training_clips import TrainingClips
from affekt.corpora.source import Source
from affekt.errors import BadBundle, BadConfig, BadCorpus
from affekt.evaluation.metrics import confusion, most_probable, ua, wa, wf1
from affekt.evaluation.scores import Scores, score
from affekt.inference.profile import Profile
from affekt.labels import LabelSet
from affekt.plural import quantity
from affekt.protocols import INDEPENDENT, Split, utterance_key
from affekt.protocols.split import DEPENDENT, combined_hash
from affekt.runs.folder import Run
from affekt.runs.selection import RULES, SELECTION_SUBSET, Rule, select_epoch
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import recipe_of
from affekt.utterance import Utterance, speakers_of
from affekt.workflows.make_bundle import join_pipeline, load_trained_model
from affekt.workflows.predict import predict_onnx, predict_torch
from affekt.workflows.score_bundle import pretraining_corpora
from affekt.workflows.train import runs_below
from affekt.workflows.training_data import select_utterances

logger = logging.getLogger(__name__)

Predictions = NDArray[np.floating]
"""Probabilities, (utterances, emotions)."""


@dataclass(frozen=True)
class OverRuns:
    """A metric's mean and standard deviation over runs of one recipe."""

    mean: float
    std: float | None
    """None for a single run."""


@dataclass(frozen=True)
class SelectionResult:
    """The score under another rule for selecting the epoch."""

    rule: str
    UA: float
    """UA on the test subset, mean over the runs."""
    epochs: list[int]
    """The selected epoch of each run."""


@dataclass(frozen=True)
class RunInfo:
    """A scored run."""

    run: str
    seed: int
    fold: str
    split_hash: str


@dataclass(frozen=True)
class Evaluation:
    """The scores of a bundle, or of runs of one recipe, on one corpus, and the protocol under which they were obtained."""

    model: str
    corpus: str
    note: str
    classes: tuple[str, ...]
    protocol: str
    split_hash: str
    verdict: str
    """The verdict on the scored speakers: "speaker-independent", "NOT speaker-independent" or "speakers unknown"."""
    selection: str
    speakers: int | None
    """Number of speakers; None where not all are known."""
    scores: Scores
    """The scores over the predictions of all runs together."""
    over_runs: Mapping[str, OverRuns]
    """Metric -> its mean and standard deviation over the runs."""
    by_selection: Mapping[str, SelectionResult] | None = None
    """Rule -> its result; only for runs, on a corpus that they were trained on."""
    runs: Sequence[RunInfo] | None = None
    not_speech: Mapping[str, Any] | None = None
    """Kind of sounds -> how many of them the bundle refused when it was made (results.json, "detector")."""
    profile: str | None = None
    """The id of the profile that was applied."""
    adaptation: str | None = None
    """States how many recordings the profile was learned from, and whether the scored ones are among them."""

    @property
    def speaker_independent(self) -> bool:
        """Return True if all speakers are known and none of the scored ones was trained on."""
        return self.verdict == INDEPENDENT

    def to_json(self) -> dict[str, Any]:
        """Return the contents of `affekt evaluate --json`."""
        content = asdict(self)
        scores = content.pop("scores")
        content["classes"] = list(self.classes)
        content["speaker_independent"] = self.speaker_independent
        return {**{name: value for name, value in content.items() if value is not None or name == "speakers"}, **scores}


def evaluate(
    source: str | Path, corpus: Source, *, selection: Rule | None = None, profile: Profile | None = None
) -> Evaluation:
    """Score a bundle, or the runs of a recipe, on a corpus.

    If the model was trained on the corpus, the corpus's test subset is scored, under the protocol of the recipe. Otherwise,
    the whole corpus is scored.

    Args:
        source: A run folder, the folder of a bundle, or the name of a shipped bundle.
        corpus: The corpus.
        selection: The rule that selects the epoch of a run; None for the rule of the recipe.
        profile: The profile to apply to a bundle.

    Raises:
        BadBundle: The bundle is incomplete.
        BadConfig: The runs have different settings, a selection rule is given for a bundle, or a profile is given for runs or
            for another bundle.
        BadCorpus: The corpus cannot be read, or utterances of the test subset are missing from it.
    """
    folder = Path(source)
    if not (folder / "model.onnx").is_file() and any(folder.rglob("predictions")):
        if profile:
            raise BadConfig(
                f"{source} is a run folder, but only a bundle can be adapted with a profile: make a bundle of the runs first"
            )
        return evaluate_runs(runs_below(folder), corpus, selection=selection)
    if selection:
        raise BadConfig(f"{source} is not a run folder: the epoch of a bundle was selected when it was made")
    return evaluate_bundle(Bundle.open(source), corpus, profile)


def evaluate_bundle(bundle: Bundle, corpus: Source, profile: Profile | None = None) -> Evaluation:
    """Score a bundle's ONNX file on the test subset of a corpus that it was trained on, or on all of another corpus.

    All files of the bundle are verified first.
    """
    bundle.verify()
    try:
        protocol, labels = bundle.section("protocol"), bundle.section("labels")
        split, rule = Split.load(bundle.file("split.json")), protocol["selection"]
        selection = RULES[rule]
        label_set = LabelSet(bundle.name, bundle.emotions, labels["merge"], labels["dialogues"])
    except KeyError as error:
        raise BadBundle(
            f"{bundle.folder}: config.toml has no valid {error}, so it is unknown how the bundle was trained and selected; "
            "make it again"
        ) from error
    utterances = select_utterances(corpus.read(), label_set, corpus.id)
    if corpus.id in training_corpora(split):
        utterances = _test_utterances(sorted(split.subsets["test"]), utterances, corpus)
        verdict = split.verdict
        title = f"{split.title}, subset 'test': {len(utterances)} utterances of {corpus.title}"
    else:
        verdict, title = _whole_corpus(corpus, pretraining_corpora(bundle), utterances, bundle)
    predictions = predict_onnx(bundle, utterances, profile)
    evaluation = _evaluation(
        bundle.id, corpus, label_set, title, split.hash, verdict, selection, [utterances], [predictions]
    )
    not_speech = bundle.results.get("detector") if "detector" in bundle.config else None
    evaluation = replace(evaluation, not_speech=not_speech or None)
    if profile is None:
        return evaluation
    return replace(evaluation, profile=profile.id, adaptation=_describe_adaptation(profile, utterances))


def _describe_adaptation(profile: Profile, utterances: Sequence[Utterance]) -> str:
    """Return how many recordings a profile was learned from, and whether any of them is scored, as the samples show."""
    known = TrainingClips(hashes=frozenset(profile.clip_hashes)).find(utterances)
    recordings = quantity(profile.recordings, "unlabeled recording")
    if not known:
        return f"adapted on {recordings}, none of which is scored"
    if len(known) == len(utterances):
        return f"adapted on {recordings} (transductive)"
    return f"adapted on {recordings} (transductive: {len(known)} of the {len(utterances)} scored utterances are among them)"


def evaluate_runs(runs: Sequence[Run], corpus: Source, *, selection: Rule | None = None) -> Evaluation:
    """Score finished runs: their recorded predictions on the test subset, or their models on a corpus not trained on."""
    recipe = recipe_of(runs[0])
    rule = selection or recipe.selection
    labels = LabelSet(recipe.labels, runs[0].emotions)
    if recipe.labels != "all":
        known = recipe.label_set([])
        labels = LabelSet(recipe.labels, runs[0].emotions, known.merge, known.dialogues)
    utterances = select_utterances(corpus.read(), labels, corpus.id)
    by_selection: dict[str, SelectionResult] | None = None
    if not any(corpus.id in training_corpora(run.split) for run in runs):
        plan = resolve(recipe)
        earlier = {entry["corpus"] for entry in plan.origin.results.get("data", ())} if plan.origin else set()
        verdict, title = _whole_corpus(corpus, earlier, utterances, plan.origin)
        subsets = [utterances] * len(runs)
        predictions = [_predict_by_run(plan, run, rule, labels, utterances) for run in runs]
    else:
        verdict = next((run.split.verdict for run in runs if not run.split.speaker_independent), INDEPENDENT)
        title = _title_of_splits([run.split for run in runs])
        subsets = [_test_utterances(run.split.subsets["test"], utterances, corpus) for run in runs]
        predictions = [_recorded_predictions(run, rule, corpus) for run in runs]
        by_selection = {name: _result_by_rule(runs, name, corpus) for name in RULES if _is_applicable(runs, name)}
    evaluation = _evaluation(
        recipe.name,
        corpus,
        labels,
        title,
        combined_hash(run.split for run in runs),
        verdict,
        RULES[rule],
        subsets,
        predictions,
    )
    infos = [RunInfo(run.folder.name, run.config["seed"], run.split.fold, run.split.hash) for run in runs]
    return replace(evaluation, by_selection=by_selection, runs=infos)


def training_corpora(split: Split) -> set[str]:
    """Return the ids of the corpora that were trained on."""
    return {key.partition("/")[0] for key in split.subsets["train"]}


def _whole_corpus(
    corpus: Source, earlier: set[str], utterances: Sequence[Utterance], bundle: Bundle | None
) -> tuple[str, str]:
    """Return the verdict and title for a corpus that is scored as a whole.

    Args:
        corpus: The corpus.
        earlier: The ids of the corpora that were trained on before fine-tuning.
        utterances: The corpus's utterances.
        bundle: The bundle that was trained, whose training clips may be in the corpus under other names; None if unknown.
    """
    if corpus.id in earlier:
        return DEPENDENT, f"a corpus that was trained on before fine-tuning: all {len(utterances)} utterances"
    if known := TrainingClips.of_bundle(bundle).find(utterances) if bundle else ():
        return DEPENDENT, f"a corpus with clips that were trained on ({len(known)}): all {len(utterances)} utterances"
    return INDEPENDENT, f"a corpus not trained on: all {len(utterances)} utterances"


def _title_of_splits(splits: Sequence[Split]) -> str:
    first = splits[0]
    if len({split.hash for split in splits}) == 1:
        return first.title
    return f"{first.name} ({first.description}), {len({split.hash for split in splits})} folds"


def _test_utterances(test_keys: Sequence[str], utterances: Sequence[Utterance], corpus: Source) -> list[Utterance]:
    """Return a corpus's utterances of the test subset, in the order of the subset. Raises `BadCorpus` if any is missing."""
    by_key = {utterance_key(utterance): utterance for utterance in utterances}
    keys = [test_key for test_key in test_keys if test_key.startswith(f"{corpus.id}/")]
    if missing := [test_key for test_key in keys if test_key not in by_key]:
        raise BadCorpus(
            f"{len(missing)} of the {len(keys)} utterances of the test subset are missing from {corpus.path}, "
            f"first {missing[0]}; expected the same corpus as in training"
        )
    if not keys:
        raise BadCorpus(
            f"{corpus.title} was used in training and has no utterance in the test subset, so it cannot be scored; "
            "score another corpus"
        )
    return [by_key[test_key] for test_key in keys]


def _recorded_predictions(run: Run, rule: Rule, corpus: Source) -> Predictions:
    """Return a run's predictions on a corpus's utterances of the test subset."""
    return run.predictions(select_epoch(run, rule))["test"][_test_indices(run, corpus)]


def _test_indices(run: Run, corpus: Source) -> NDArray[np.int64]:
    keys = run.split.subsets["test"]
    return np.array([index for index, key in enumerate(keys) if key.startswith(f"{corpus.id}/")], np.int64)


def _is_applicable(runs: Sequence[Run], rule: Rule) -> bool:
    """Return True if all runs have the subset that a rule uses."""
    return rule not in SELECTION_SUBSET or all(SELECTION_SUBSET[rule] in run.split.subsets for run in runs)


def _result_by_rule(runs: Sequence[Run], rule: Rule, corpus: Source) -> SelectionResult:
    values = []
    for run in runs:
        predicted = _recorded_predictions(run, rule, corpus).argmax(axis=1)
        values.append(ua(confusion(run.labels("test")[_test_indices(run, corpus)], predicted, len(run.emotions))))
    return SelectionResult(RULES[rule], float(np.mean(values)), [select_epoch(run, rule) for run in runs])


def _predict_by_run(plan: Plan, run: Run, rule: Rule, labels: LabelSet, utterances: Sequence[Utterance]) -> Predictions:
    """Return predictions for utterances of any corpus, with the weights of a run's selected epoch."""
    epoch = select_epoch(run, rule)
    logger.info("%s: epoch %d on %d utterances", run.folder, epoch, len(utterances))
    features = plan.build_features()
    pipeline = join_pipeline(features, [load_trained_model(plan, run, epoch, features, labels.emotions)])
    return predict_torch(pipeline, {stream: features[stream] for stream in pipeline.inputs}, utterances)


def _evaluation(
    model: str,
    corpus: Source,
    labels: LabelSet,
    protocol: str,
    split_hash: str,
    verdict: str,
    selection: str,
    subsets: Sequence[Sequence[Utterance]],
    predictions: Sequence[Predictions],
) -> Evaluation:
    """Score the predictions of all runs together: an utterance counts once for each run that predicted it."""
    flat = [utterance for subset in subsets for utterance in subset]
    speakers = speakers_of(flat)
    scores = score(
        _label_indices(flat, labels),
        np.concatenate(predictions),
        labels.emotions,
        speakers,
        units=[utterance_key(utterance) for utterance in flat],
    )
    counts = [
        confusion(_label_indices(subset, labels), most_probable(probabilities), len(labels))
        for subset, probabilities in zip(subsets, predictions, strict=True)
    ]
    over_runs = {
        name: OverRuns(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)
        for name, metric in (("UA", ua), ("WA", wa), ("WF1", wf1))
        for values in [[metric(count) for count in counts]]
    }
    return Evaluation(
        model=model,
        corpus=corpus.id,
        note=corpus.note,
        classes=tuple(labels.emotions),
        protocol=protocol,
        split_hash=split_hash,
        verdict=verdict,
        selection=selection,
        speakers=len(set(speakers)) if speakers else None,
        scores=replace(scores, utterances=len({utterance_key(utterance) for utterance in flat})),
        over_runs=over_runs,
    )


def _label_indices(utterances: Sequence[Utterance], labels: LabelSet) -> NDArray[np.int64]:
    return np.array([labels.index_of(utterance) for utterance in utterances], np.int64)
