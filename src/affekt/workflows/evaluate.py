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
from affekt.evaluation.calibration import TemperatureScaling
from affekt.evaluation.metrics import METRICS
from affekt.evaluation.scores import Scores, score
from affekt.evaluation.spread import FoldScores, Spread, score_folds, spread_over_seeds
from affekt.evaluation.subgroups import Subgroups
from affekt.inference.profile import Profile
from affekt.labels import LabelSet
from affekt.plural import quantity
from affekt.protocols import INDEPENDENT, Split, utterance_key
from affekt.protocols.split import DEPENDENT, combined_hash, combined_title, combined_verdict
from affekt.reports.calibration import calibrate
from affekt.reports.subgroups import subgroups_of
from affekt.runs.folder import Run
from affekt.runs.groups import RunGroup, TestPredictions, collect_predictions, describe_differences, group_runs
from affekt.runs.selection import RULES, Rule, select_epoch
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Recipe, recipe_of
from affekt.utterance import Utterance, speakers_of
from affekt.workflows.make_bundle import join_pipeline, load_trained_model
from affekt.workflows.predict import predict_onnx, predict_torch
from affekt.workflows.score_bundle import pretraining_corpora
from affekt.workflows.training_data import select_utterances

logger = logging.getLogger(__name__)

Predictions = NDArray[np.floating]
"""Probabilities, (utterances, emotions)."""


@dataclass(frozen=True)
class SelectionResult:
    """The score under another rule for selecting the epoch."""

    rule: str
    UA: float
    """UA on the test subset, mean over the seeds."""
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
    """The scores: for runs, the mean over the seeds of the metric over all folds' predictions together."""
    over_seeds: Mapping[str, Spread]
    """Metric -> its mean and standard deviation over the seeds."""
    validation_verdict: str = ""
    """The verdict on the speakers of the validation subset, against the training subset; "" without one."""
    by_fold: Sequence[FoldScores] = ()
    """The scores of each fold, mean over the seeds; empty for a bundle."""
    calibration: TemperatureScaling | None = None
    """None where no temperature is fitted on a validation subset: for bundles, whose temperature is part of them."""
    subgroups: Sequence[Subgroups] = ()
    """The scores of groups of speakers, as far as the corpus describes them."""
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
        content["speaker_independent"] = self.speaker_independent
        for entry, subgroups in zip(content["subgroups"], self.subgroups, strict=True):
            entry["gap_shown"] = bool(subgroups.gap and subgroups.gap.excludes_zero)
        present = {name: value for name, value in content.items() if value is not None or name == "speakers"}
        result: dict[str, Any] = _to_plain({**present, **scores})
        return result


def _to_plain(value: Any) -> Any:
    """Return a value with the types that JSON has: objects with strings as keys, and lists."""
    if isinstance(value, Mapping):
        return {str(name): _to_plain(element) for name, element in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(element) for element in value]
    return value


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
        return evaluate_runs(_one_group(folder), corpus, selection=selection)
    if selection:
        raise BadConfig(f"{source} is not a run folder: the epoch of a bundle was selected when it was made")
    return evaluate_bundle(Bundle.open(source), corpus, profile)


def evaluate_bundle(bundle: Bundle, corpus: Source, profile: Profile | None = None) -> Evaluation:
    """Score a bundle's ONNX file on the test subset of a corpus that it was trained on, or on the whole of another corpus.

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
        bundle.id, corpus, label_set, title, split.hash, verdict, selection, utterances, {0: predictions}
    )
    not_speech = bundle.results.get("detector") if "detector" in bundle.config else None
    evaluation = replace(evaluation, not_speech=not_speech or None)
    if profile is None:
        return evaluation
    return replace(evaluation, profile=profile.id, adaptation=_describe_adaptation(profile, utterances))


def _describe_adaptation(profile: Profile, utterances: Sequence[Utterance]) -> str:
    """Return how many recordings a profile was learned from, and whether any of them is scored, by hash of the samples."""
    known = TrainingClips(hashes=frozenset(profile.clip_hashes)).find(utterances)
    recordings = quantity(profile.recordings, "unlabeled recording")
    if not known:
        return f"adapted on {recordings}, none of which is scored"
    if len(known) == len(utterances):
        return f"adapted on {recordings} (transductive)"
    return f"adapted on {recordings} (transductive: {len(known)} of the {len(utterances)} scored utterances are among them)"


def _one_group(folder: Path) -> RunGroup:
    """Return the runs in a folder. Raises `BadConfig` unless they differ only in seed and fold."""
    groups = group_runs([folder], finished=False)
    if not groups:
        raise BadConfig(f"{folder} has only the runs of an architecture search: use affekt report")
    if len(groups) > 1:
        names = [group.folder for group in groups]
        differences = describe_differences([group.config for group in groups])
        raise BadConfig(
            f"{names[0]} and {names[1]} are runs with different settings ({differences[0]}; {differences[1]}): expected runs "
            "that differ only in seed and fold; affekt compare takes several experiments"
        )
    return groups[0]


def evaluate_runs(group: RunGroup, corpus: Source, *, selection: Rule | None = None) -> Evaluation:
    """Score runs: their recorded predictions on the test subset, or their models on a corpus not trained on."""
    recipe = recipe_of(group.runs[0])
    rule, runs = selection or recipe.selection, group.runs
    emotions = runs[0].emotions
    labels = LabelSet(recipe.labels, emotions)
    if recipe.labels != "all":
        known = recipe.label_set([])
        labels = LabelSet(recipe.labels, emotions, known.merge, known.dialogues)
    splits = [fold.split for folds in group.seeds.values() for fold in folds]
    utterances = select_utterances(corpus.read(), labels, corpus.id)
    if any(corpus.id in training_corpora(split) for split in splits):
        evaluation = _score_test_subset(group, corpus, labels, utterances, rule)
    else:
        evaluation = _score_other_corpus(group, recipe, corpus, labels, utterances, rule)
    infos = [RunInfo(run.folder.name, run.config["seed"], run.split.fold, run.split.hash) for run in runs]
    return replace(evaluation, runs=infos)


def _score_test_subset(
    group: RunGroup, corpus: Source, labels: LabelSet, utterances: Sequence[Utterance], rule: Rule
) -> Evaluation:
    """Score the recorded predictions on a corpus's utterances of the test subset, as `affekt report` does."""
    splits = [fold.split for fold in group.folds]
    subsets = [_test_utterances(split.subsets["test"], utterances, corpus) for split in splits]
    select_epoch(group.runs[0], rule)  # raises if the runs lack the subset that the rule needs
    test = collect_predictions(group, corpus.id)
    scored = [utterance for subset in subsets for utterance in subset]
    evaluation = _evaluation(
        group.config["name"],
        corpus,
        labels,
        combined_title(splits),
        combined_hash(splits),
        combined_verdict(split.verdict for split in splits),
        RULES[rule],
        scored,
        test.predictions[rule],
    )
    return replace(
        evaluation,
        validation_verdict=combined_verdict(split.validation_verdict for split in splits)
        if all(split.validation_verdict for split in splits)
        else "",
        by_fold=score_folds(test.labels, test.predictions[rule], test.folds, [split.fold for split in splits]),
        calibration=calibrate(test, rule),
        by_selection={name: _result_by_rule(test, name) for name in test.predictions},
    )


def _score_other_corpus(
    group: RunGroup, recipe: Recipe, corpus: Source, labels: LabelSet, utterances: Sequence[Utterance], rule: Rule
) -> Evaluation:
    """Score the models of runs on a corpus that they were not trained on. The model of each fold predicts all utterances."""
    plan = resolve(recipe)
    earlier = {entry["corpus"] for entry in plan.origin.results.get("data", ())} if plan.origin else set()
    verdict, title = _whole_corpus(corpus, earlier, utterances, plan.origin)
    predictions = {
        seed: np.concatenate([_predict_by_run(plan, fold.run, rule, labels, utterances) for fold in folds])
        for seed, folds in group.seeds.items()
    }
    scored = list(utterances) * len(group.folds)
    split_hash = combined_hash(fold.split for fold in group.folds)
    return _evaluation(recipe.name, corpus, labels, title, split_hash, verdict, RULES[rule], scored, predictions)


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


def _result_by_rule(test: TestPredictions, rule: Rule) -> SelectionResult:
    spread = spread_over_seeds("UA", test.labels, test.predictions[rule])
    return SelectionResult(RULES[rule], spread.mean, [select_epoch(run, rule) for run in test.group.runs])


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
    utterances: Sequence[Utterance],
    by_seed: Mapping[int, Predictions],
) -> Evaluation:
    """Score predictions on the utterances of all folds, by seed."""
    speakers, indices, predictions = speakers_of(utterances), _label_indices(utterances, labels), list(by_seed.values())
    keys = [utterance_key(utterance) for utterance in utterances]
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
        scores=score(indices, predictions, labels.emotions, speakers, units=keys),
        over_seeds={metric: spread_over_seeds(metric, indices, by_seed) for metric in METRICS},
        subgroups=subgroups_of(utterances, indices, predictions, labels.emotions),
    )


def _label_indices(utterances: Sequence[Utterance], labels: LabelSet) -> NDArray[np.int64]:
    return np.array([labels.index_of(utterance) for utterance in utterances], np.int64)
