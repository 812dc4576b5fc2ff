"""Compute statistics of the training utterances' streams; a profile states how other recordings differ from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from affekt.batch import Stream
from affekt.bundle.adaptation import average_statistics
from affekt.features.base import Feature
from affekt.features.extract import extract
from affekt.progress import Progress
from affekt.protocols import Split
from affekt.training.dataset import collate
from affekt.training.plan import Plan
from affekt.workflows.training_data import TrainingData, stored_name

SAMPLE = 2000
"""Maximum number of training utterances, evenly spaced in the training subset. With 2000, the standard error of
a mean over utterances is 2 % of their standard deviation."""


def compute_reference(
    plan: Plan, features: Mapping[str, Feature], data: TrainingData, split: Split, progress: Progress | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, for each audio stream with a time axis, the averages over training utterances of `time_statistics`.

    Args:
        plan: The plan of the training runs.
        features: Stream -> its feature, with the weights of the bundle.
        data: The utterances of the corpora.
        split: The split of the runs.
        progress: Called with the progress of feature extraction.
    """
    keys = split.subsets["train"]
    sample = [keys[index] for index in np.linspace(0, len(keys) - 1, min(SAMPLE, len(keys))).astype(int)]
    return {
        stream: average_statistics(_streams(plan, stream, feature, sample, data, progress))
        for stream, feature in features.items()
        if feature.input == "audio" and feature.has_time
    }


def _streams(
    plan: Plan, name: str, feature: Feature, sample: list[str], data: TrainingData, progress: Progress | None
) -> Iterator[Stream]:
    """Yield the stream of each utterance, from the features that training stored."""
    tuned = plan.recipe.training.tune == "all"
    stored, device = feature.front_end() if tuned else feature, plan.recipe.training.device
    for frames in extract(stored, stored_name(plan, name), data.select(sample), progress=progress, device=device):
        stream = collate([frames], feature.frame_rate)
        with torch.inference_mode():
            yield feature.encode(stream) if tuned else stream
