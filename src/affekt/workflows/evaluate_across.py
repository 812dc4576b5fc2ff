"""Score a bundle on corpora that it was not trained on, unadapted and adapted to unlabeled recordings of each corpus.

The recordings are recognized in the same way as by `affekt recognize`, without torch.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.folder import ACROSS, DEFAULT, Bundle, write_sums
from affekt.bundle.training_clips import TrainingClips, hash_samples
from affekt.corpora.base import join_names
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform, read_waveforms
from affekt.errors import BadAudio, BadConfig, BadCorpus, TooFewClips
from affekt.evaluation.metrics import is_refused
from affekt.evaluation.scores import Scores, score
from affekt.files import atomic_write_text
from affekt.inference.profile import Profile
from affekt.inference.recognizer import Recognizer
from affekt.json_text import to_json
from affekt.labels import LabelSet
from affekt.plural import quantity
from affekt.progress import Progress
from affekt.protocols import utterance_key
from affekt.reports.card import card
from affekt.utterance import Utterance, speakers_of
from affekt.workflows.draw_recordings import check_number, draw_recordings
from affekt.workflows.learn_profile import SETTINGS, learn_profile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The scores on one corpus under one condition. A refused recording counts as wrong."""

    own: Scores
    """Scores of the most probable emotion among the corpus's own classes."""
    all: Scores
    """Scores of the most probable emotion among all classes of the model."""
    refused: int
    """Number of recognized recordings without an emotion: silence, or no speech."""
    answers: Mapping[str, int]
    """Emotion, among all classes of the model -> number of recognized recordings for which it was predicted."""


@dataclass(frozen=True)
class AdaptedOutcome(Outcome):
    """The scores on one corpus after adaptation to unlabeled recordings of it."""

    recordings: int
    """Number of recordings that a profile was learned from."""
    how: str
    """Whether these may be among the scored ones: TRANSDUCTIVE or DISJOINT of `affekt.workflows.draw_recordings`."""
    strength: float
    """Mean strength of the profiles (`affekt.inference.profile.Profile.strength`)."""


@dataclass(frozen=True)
class CorpusScores:
    """The scores on one corpus that the model was not trained on."""

    model: str
    """The id of the scored bundle."""
    trained_on: tuple[str, ...]
    """Titles of the corpora that it was trained on."""
    corpus: str
    title: str
    language: str
    style: str
    speech: bool
    """False for sounds without words."""
    license: str
    note: str
    only: str
    """Name of the list of the clips that were read; "" for the whole corpus."""
    speakers: int | None
    """Number of scored speakers; None if not all are known."""
    utterances: int
    """Number of scored utterances."""
    recognized: int
    """Number of recognized recordings: the scored ones or, for sounds that are not speech, all."""
    classes: tuple[str, ...]
    """The corpus's own classes among the model's."""
    left_out: Mapping[str, int]
    """Emotion that the model does not have -> number of utterances, which are not scored."""
    unreadable: Mapping[str, str]
    """Id -> reason, for each utterance whose audio cannot be read; these are not scored."""
    manifest: str
    """SHA-256 over the sorted lines "key hash-of-samples emotion" of the recognized recordings."""
    as_it_is: Outcome
    adapted: AdaptedOutcome | None
    """None without adaptation, for sounds without words, and if no profile could be learned."""
    not_adapted: str = ""
    """Why no profile could be learned from the drawn recordings; "" if adaptation was not asked for, or succeeded."""


@dataclass(frozen=True)
class AcrossScores:
    """The scores of a bundle on corpora that it was not trained on."""

    model: str
    """The bundle's id."""
    emotions: tuple[str, ...]
    """The model's classes."""
    recipe: str
    """Hash of the settings that the bundle was made with, apart from its corpora, protocol and temperature."""
    corpora: tuple[CorpusScores, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the contents of `affekt evaluate --across --json`."""
        return asdict(self)


@dataclass
class _Recognition:
    """The recognized recordings of a corpus, by the keys of its utterances."""

    probabilities: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Key -> probabilities of the model's emotions; zeros if the recording was refused."""
    digests: dict[str, str] = field(default_factory=dict)
    """Key -> hash of the samples."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Key -> reason."""


def evaluate_across(
    model: str | Path = DEFAULT, sources: Sequence[Source] = (), *, adapt: int = 0, progress: Progress | None = None
) -> AcrossScores:
    """Score a bundle on corpora that it was not trained on. All files of the bundle are verified first.

    Args:
        model: The folder of a bundle, or the name of a shipped bundle.
        sources: The corpora.
        adapt: The number of unlabeled recordings of each corpus that the bundle is adapted to, for further scores.
        progress: Called after each recording.

    Raises:
        BadBundle: The bundle cannot be read, needs more than audio, or cannot be adapted.
        BadConfig: There is no corpus, a corpus is given twice, or a profile cannot be learned from so few recordings.
        BadCorpus: A corpus cannot be read, the bundle was trained on it, or it has too few of the model's classes or of
            recordings.
    """
    if not sources:
        raise BadConfig("no corpus is given: expected at least one, as in `affekt evaluate default --across ravdess`")
    if 0 < adapt < SETTINGS.min_clips and any(source.corpus.speech for source in sources):
        raise BadConfig(f"--adapt {adapt}: a profile is learned from at least {SETTINGS.min_clips} recordings")
    counts = Counter((source.id, source.only, source.path.resolve()) for source in sources)
    if repeated := [name for (name, *_), count in counts.items() if count > 1]:
        raise BadConfig(f"{repeated[0]} is given twice: name each corpus once")
    bundle = Bundle.open(model)
    bundle.verify()
    recognizer, clips = Recognizer.load(model), TrainingClips.of_bundle(bundle)
    scores = [_score_corpus(bundle, recognizer, clips, source, adapt, progress) for source in sources]
    same_name = Counter((source.id, source.only) for source in sources)
    titles = [
        source.root if source.root and same_name[source.id, source.only] > 1 else source.title for source in sources
    ]
    scores = [replace(entry, title=title) for entry, title in zip(scores, titles, strict=True)]
    return AcrossScores(bundle.id, bundle.emotions, _hash_recipe(bundle), tuple(scores))


def record_across(scores: AcrossScores, model: str | Path = DEFAULT) -> None:
    """Add scores to a bundle's across.json, and update its card and checksums.

    Args:
        scores: The scores of the bundle or, to leave one corpus out, of a bundle that was made with the same recipe from
            fewer corpora.
        model: The folder of the bundle, or the name of a shipped bundle.

    Raises:
        BadConfig: The scores are of a bundle that was made with other settings.
    """
    bundle = Bundle.open(model)
    if (scores.recipe, scores.emotions) != (_hash_recipe(bundle), bundle.emotions):
        raise BadConfig(
            f"the scores are of {scores.model}, which was made with other settings than {bundle.id}: its card can have "
            "the scores only of bundles that have the same settings apart from corpora and protocol"
        )
    entries = [*bundle.across, *scores.to_json()["corpora"]]
    by_name = {(entry["corpus"], entry["title"], entry["only"], *entry["trained_on"]): entry for entry in entries}
    content = {"model": bundle.id, "corpora": [by_name[name] for name in sorted(by_name)]}
    atomic_write_text(bundle.folder / ACROSS, to_json(content, indent=1) + "\n")
    atomic_write_text(bundle.folder / "README.md", card(Bundle.open(model)))
    write_sums(bundle.folder)


def _score_corpus(
    bundle: Bundle, recognizer: Recognizer, clips: TrainingClips, source: Source, adapt: int, progress: Progress | None
) -> CorpusScores:
    utterances, labels = source.read(), _label_set(bundle)
    all_utterances = utterances
    _check_not_trained_on(bundle, clips, source, utterances)
    if source.corpus.speech:
        check_number(all_utterances, adapt)  # before all of them are recognized
    left_out = Counter(utterance.emotion for utterance in utterances if labels.index_of(utterance) is None)
    if source.corpus.speech:
        utterances = [utterance for utterance in utterances if labels.index_of(utterance) is not None]
    recognition = _recognize(recognizer, utterances, clips, progress)
    scored = [
        utterance
        for utterance in utterances
        if labels.index_of(utterance) is not None and utterance_key(utterance) in recognition.probabilities
    ]
    columns = sorted({index for utterance in scored if (index := labels.index_of(utterance)) is not None})
    if len(columns) < 2:
        names = ", ".join(labels.emotions[column] for column in columns) or "none"
        raise BadCorpus(
            f"{source.title} has too few of the emotions of {bundle.id} ({names}): expected at least two of "
            f"{', '.join(labels.emotions)}; for your own data, map labels with --emotion LABEL=EMOTION"
        )
    adapted, not_adapted = None, ""
    if adapt and source.corpus.speech:
        readable = [utterance for utterance in all_utterances if utterance_key(utterance) not in recognition.unreadable]
        try:
            how, profiles, by_profile = _recognize_adapted(recognizer, readable, scored, adapt, progress)
        except TooFewClips as error:
            not_adapted = str(error)
            logger.warning("%s: %s", source.title, error)
        else:
            strength = sum(profile.strength for profile in profiles) / len(profiles)
            outcome = _outcome(scored, labels, columns, by_profile)
            adapted = AdaptedOutcome(**vars(outcome), recordings=adapt, how=how, strength=strength)
    speakers = speakers_of(scored)
    return CorpusScores(
        model=bundle.id,
        trained_on=tuple(sorted({entry.get("title", entry["corpus"]) for entry in bundle.results.get("data", ())})),
        corpus=source.id,
        title=source.title,
        language=source.language or source.corpus.language,
        style=source.corpus.style,
        speech=source.corpus.speech,
        license=source.corpus.license,
        note=source.note,
        only=Path(source.only).name,
        speakers=len(set(speakers)) if speakers else None,
        utterances=len(scored),
        recognized=len(recognition.probabilities),
        classes=tuple(labels.emotions[column] for column in columns),
        left_out=dict(sorted(left_out.items())),
        unreadable={key.partition("/")[2]: reason for key, reason in recognition.unreadable.items()},
        manifest=_hash_manifest(utterances, recognition),
        as_it_is=_outcome(scored, labels, columns, recognition),
        adapted=adapted,
        not_adapted=not_adapted,
    )


def _hash_recipe(bundle: Bundle) -> str:
    recipe = bundle.config.get("recipe", {})
    settings = {name: value for name, value in recipe.items() if name not in ("corpora", "protocol", "temperature")}
    return hashlib.sha256(to_json(dict(sorted(settings.items()))).encode()).hexdigest()[:12]


def _label_set(bundle: Bundle) -> LabelSet:
    labels = bundle.config.get("labels", {})
    return LabelSet(bundle.name, bundle.emotions, labels.get("merge", {}), labels.get("dialogues", ""))


def _check_not_trained_on(
    bundle: Bundle, clips: TrainingClips, source: Source, utterances: Sequence[Utterance]
) -> None:
    """Raise `BadCorpus` if the bundle was trained on the corpus, or on clips with the names of its clips."""
    if source.id in {entry["corpus"] for entry in bundle.results.get("data", ())}:
        raise BadCorpus(
            f"{bundle.id} was trained on {source.title}: --across is for corpora that it was not trained on; without it, "
            "affekt evaluate scores the test subset"
        )
    detector = bundle.config.get("recipe", {}).get("detector") or {}
    sounds = [*detector.get("not_speech", ()), *detector.get("speech", ())]
    if used := [pattern for pattern in sounds if source.id in Path(pattern).parts]:
        raise BadCorpus(
            f"the speech detector of {bundle.id} was trained on {used[0]}: --across is for corpora that no part of a bundle "
            "was trained on; the card states how many of the held-out sounds it refuses"
        )
    if known := sorted(clips.find_names(utterances)):
        raise BadCorpus(
            f"{bundle.id} was trained on {quantity(len(known), 'clip')} of {source.title}, as their names show: "
            f"{join_names(known, 3)}; --across is for corpora that it was not trained on"
        )


def _recognize(
    recognizer: Recognizer, utterances: Sequence[Utterance], clips: TrainingClips, progress: Progress | None
) -> _Recognition:
    """Recognize utterances. Raises `BadCorpus` if the samples of one were trained on."""
    by_key, recognition = {utterance_key(utterance): utterance for utterance in utterances}, _Recognition()
    for done, (key, waveform) in enumerate(read_waveforms(by_key), start=1):
        try:
            if isinstance(waveform, BadAudio):
                raise waveform
            digest = recognition.digests[key] = hash_samples(waveform)
            if digest in clips.hashes:
                raise BadCorpus(
                    f"{recognizer.model} was trained on {key}, as its samples show: --across is for corpora that it was "
                    "not trained on"
                )
            row = recognizer((waveform, SAMPLE_RATE))
        except BadAudio as error:
            recognition.unreadable[key] = str(error)
            logger.warning("%s is left out: %s", key, error)
            continue
        finally:
            if progress:
                progress(f"recognizing {by_key[key].corpus}", done, len(by_key))
        values = [row.probabilities[emotion] for emotion in recognizer.emotions] if row.probabilities else 0.0
        recognition.probabilities[key] = np.full(len(recognizer.emotions), values)
    return recognition


def _recognize_adapted(
    recognizer: Recognizer,
    pool: Sequence[Utterance],
    scored: Sequence[Utterance],
    number: int,
    progress: Progress | None,
) -> tuple[str, list[Profile], _Recognition]:
    """Recognize utterances with profiles, each of which is learned from a number of recordings drawn from the pool."""
    (how, draws), profiles, recognition = draw_recordings(pool, number), list[Profile](), _Recognition()
    for draw in draws:
        recordings = [(read_waveform(utterance), SAMPLE_RATE) for utterance in draw.recordings]
        profiles.append(learn_profile(recordings, recognizer=recognizer, progress=progress))
        utterances = [utterance for utterance in scored if utterance_key(utterance) in draw.keys]
        adapted = _recognize(recognizer.adapt(profiles[-1]), utterances, TrainingClips(), progress)
        recognition.probabilities |= adapted.probabilities
    return how, profiles, recognition


def _hash_manifest(utterances: Sequence[Utterance], recognition: _Recognition) -> str:
    emotions = {utterance_key(utterance): utterance.emotion for utterance in utterances}
    lines = (f"{key} {recognition.digests[key]} {emotions[key]}\n" for key in sorted(recognition.probabilities))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _outcome(
    scored: Sequence[Utterance], labels: LabelSet, columns: Sequence[int], recognition: _Recognition
) -> Outcome:
    rows = np.array(list(recognition.probabilities.values()))
    refused = is_refused(rows)
    predicted = Counter(labels.emotions[index] for index in rows[~refused].argmax(axis=1))
    return Outcome(
        own=_score(scored, labels, columns, recognition),
        all=_score(scored, labels, range(len(labels)), recognition),
        refused=int(refused.sum()),
        answers={emotion: predicted[emotion] for emotion in labels.emotions if predicted[emotion]},
    )


def _score(scored: Sequence[Utterance], labels: LabelSet, columns: Sequence[int], recognition: _Recognition) -> Scores:
    """Return the scores of the most probable emotion among some of the model's."""
    columns = list(columns)
    every = np.array([recognition.probabilities[utterance_key(utterance)] for utterance in scored])
    # Probabilities of rows are rounded: those of all these emotions may be 0, although the recording was not refused.
    rows = np.where(is_refused(every)[:, np.newaxis], 0.0, np.maximum(every[:, columns], 1e-9))
    totals = rows.sum(axis=1, keepdims=True)
    probabilities = np.divide(rows, totals, out=np.zeros_like(rows), where=totals > 0)
    indices = [labels.index_of(utterance) for utterance in scored]
    return score(
        np.array([columns.index(index) for index in indices if index is not None], np.int64),
        probabilities,
        [labels.emotions[column] for column in columns],
        speakers_of(scored),
        units=[utterance_key(utterance) for utterance in scored],
    )
