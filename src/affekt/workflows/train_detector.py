"""Train the speech detector of a bundle: collect speech and other sounds, fit it, and score it on held-out sounds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from affekt.audio.read import SAMPLE_RATE, Waveform, find_files, is_folder, is_silent, load
from affekt.batch import Stream
from affekt.bundle.adaptation import time_statistics
from affekt.bundle.detector import SpeechDetector
from affekt.corpora.base import data_root
from affekt.errors import BadConfig
from affekt.features.augment import Copy
from affekt.features.base import Feature
from affekt.features.extract import compute_features, extract
from affekt.features.generated import MAKERS, generate
from affekt.inference.recognizer import Recognizer
from affekt.progress import Progress
from affekt.protocols import Split
from affekt.training.dataset import collate
from affekt.training.detection import DetectorConfig, fit_detector
from affekt.training.plan import Plan
from affekt.workflows.training_data import TrainingData, stored_name

logger = logging.getLogger(__name__)

PIECE = 5 * SAMPLE_RATE
"""Maximum length of a piece of a sound file, in samples."""
SHORTEST_PIECE = SAMPLE_RATE // 2
"""Minimum length of a sound file, in samples; shorter ones are left out."""
HELD_OUT = 5
"""One file in five is held out for scoring. For every five generated sounds to train on, one more is generated for it."""
GENERATED = "generated"
"""The kinds of generated sounds are named GENERATED/KIND."""


@dataclass(frozen=True)
class KindResult:
    """How many held-out sounds of one kind the ONNX file refuses."""

    refused: int
    sounds: int
    speech: bool
    """True if the sounds are speech, which should not be refused."""


@dataclass(frozen=True)
class SoundFile:
    """A sound file and its kind, the name of its folder."""

    path: Path
    kind: str


def train_detector(
    plan: Plan, feature: Feature, data: TrainingData, split: Split, progress: Progress | None = None
) -> tuple[SpeechDetector, float]:
    """Train the speech detector of a recipe, and return it with its threshold.

    The examples of speech are the training subset with its altered copies, and the recipe's further speech.

    Args:
        plan: The plan of the training runs.
        feature: The feature of the stream "speech", with the weights of the bundle.
        data: The utterances of the corpora.
        split: The split of the runs.
        progress: Called with the progress of feature extraction.

    Raises:
        BadConfig: A folder of sounds is missing, or the stream "speech" does not fit a detector.
    """
    config = plan.recipe.detector
    assert config
    sounds = [*_file_statistics(feature, config, config.not_speech, plan.recipe.seed)]
    sounds += [_statistics(feature, generate(kind, number)) for kind in MAKERS for number in range(config.generated)]
    further = _file_statistics(feature, config, config.speech, plan.recipe.seed)
    speech = torch.cat(list(_training_speech(plan, feature, data, split, progress)))
    logger.info(
        "detector: %d utterances, %d pieces of further speech, %d sounds", len(speech), len(further), len(sounds)
    )
    empty = speech[:0]
    detector, threshold = fit_detector(
        speech, torch.cat([empty, *further]), torch.cat([empty, *sounds]), config, seed=plan.recipe.seed
    )
    logger.info("detector: threshold %.3f", threshold)
    return detector, threshold


def score_detector(recognizer: Recognizer, config: DetectorConfig) -> dict[str, KindResult]:
    """Return how many pieces of the held-out sounds, and of the held-out further speech, a bundle's ONNX file refuses.

    Args:
        recognizer: The recognizer of the bundle.
        config: The settings with which its detector was trained.

    Raises:
        BadConfig: A folder of sounds is missing.
    """
    refused, total, speech = Counter[str](), Counter[str](), set[str]()
    for kind, is_speech, waveform in held_out_sounds(config):
        total[kind] += 1
        refused[kind] += is_silent(waveform) or not any(recognizer.infer(waveform))
        speech |= {kind} if is_speech else set()
    return {kind: KindResult(refused[kind], total[kind], kind in speech) for kind in sorted(total)}


def held_out_sounds(config: DetectorConfig) -> Iterator[tuple[str, bool, Waveform]]:
    """Yield the sounds on which a detector was not trained: kind, whether it is speech, and a piece of at most 5 s.

    Args:
        config: The settings with which the detector was trained.

    Raises:
        BadConfig: A folder of sounds is missing.
    """
    for kind in MAKERS:
        for number in range(config.generated, config.generated + max(20, config.generated // HELD_OUT)):
            yield f"{GENERATED}/{kind}", False, generate(kind, number)
    for patterns, is_speech in ((config.not_speech, False), (config.speech, True)):
        for file in _held_out(_find(patterns)):
            for piece in cut_pieces(load(file.path)):
                yield file.kind, is_speech, piece


def _training_speech(
    plan: Plan, feature: Feature, data: TrainingData, split: Split, progress: Progress | None
) -> Iterator[Tensor]:
    """Yield the statistics of each training utterance and of each of its altered copies, as training stored them."""
    tuned, augmentation = plan.recipe.training.tune == "all", plan.recipe.training.augmentation
    stored = feature.front_end() if tuned else feature
    copies = [Copy(number, plan.recipe.seed, augmentation.alteration) for number in range(augmentation.copies)]
    utterances = data.select(split.subsets["train"])
    for copy in [None, *copies]:
        for frames in extract(
            stored,
            stored_name(plan, "speech"),
            utterances,
            copy=copy,
            progress=progress,
            device=plan.recipe.training.device,
        ):
            stream = collate([frames], feature.frame_rate)
            with torch.inference_mode():
                yield _join_statistics(feature.encode(stream) if tuned else stream)


def _file_statistics(feature: Feature, config: DetectorConfig, patterns: Sequence[str], seed: int) -> list[Tensor]:
    """Return the statistics of the pieces of files that are not held out, and of their altered copies."""
    files = _find(patterns)
    held_out = {file.path for file in _held_out(files)}
    copies = [Copy(number, seed, config.alteration) for number in range(config.copies)]
    result = []
    for file in files:
        if file.path in held_out:
            continue
        for number, piece in enumerate(cut_pieces(load(file.path))):
            altered = [copy(piece, f"{file.kind}/{file.path.name}/{number}") for copy in copies]
            result += [_statistics(feature, waveform) for waveform in (piece, *altered)]
    return result


def _statistics(feature: Feature, waveform: Waveform) -> Tensor:
    """Return the statistics of a waveform, (1, 2 * dim)."""
    (frames,) = compute_features(feature, [waveform])
    return _join_statistics(Stream(torch.from_numpy(frames)[None]))


def _join_statistics(stream: Stream) -> Tensor:
    return torch.cat(time_statistics(stream), dim=1)


def cut_pieces(waveform: Waveform) -> list[Waveform]:
    """Cut a waveform into the smallest number of equal pieces of at most `PIECE`; none if it is too short."""
    if waveform.size < SHORTEST_PIECE:
        return []
    return np.array_split(waveform, -(-waveform.size // PIECE))


def _find(patterns: Sequence[str]) -> list[SoundFile]:
    """Return the sound files of folders, files and patterns, sorted by kind and path. Raises `BadConfig` if one has none."""
    files: dict[Path, str] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        root = path.parent if path.is_absolute() else Path(data_root(""))
        path = root / path
        has_wildcard = "*" in pattern
        matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if has_wildcard else [path]
        audio = [file for entry in matches for file in (find_files(entry) if is_folder(entry) else [entry])]
        if not audio or not all(file.is_file() for file in audio):
            raise BadConfig(f"detector: {path} has no sound files; expected a folder, a file, or a pattern with *")
        for file in audio:  # AFFEKT_DATA/esc10/audio/rain/1.ogg is of the kind esc10/rain
            names = [name for name in file.parent.relative_to(root).parts if name != "audio"]
            files.setdefault(file, "/".join(names) or root.name)
    return sorted((SoundFile(path, kind) for path, kind in files.items()), key=lambda file: (file.kind, file.path))


def _held_out(files: Sequence[SoundFile]) -> list[SoundFile]:
    """Return the last fifth of each kind's files, or none of fewer than five files.

    The files are consecutive, because neighboring files may be parts of the same recording.
    """
    held_out = []
    for kind in sorted({file.kind for file in files}):
        same_kind = [file for file in files if file.kind == kind]
        held_out += same_kind[len(same_kind) - len(same_kind) // HELD_OUT :]
    return held_out
