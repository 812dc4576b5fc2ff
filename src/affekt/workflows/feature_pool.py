"""Feature extraction in worker processes, which write to the feature store.

One process with many threads leaves cores idle between the operations of a network; several processes with fewer threads
each use them. Afterwards, the process that started the workers reads the features from the store.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict

import torch

from affekt.config import encode
from affekt.cores import check_jobs, check_threads
from affekt.features.augment import Copy
from affekt.features.base import Feature, TextFeature
from affekt.features.extract import find_missing
from affekt.features.extract_text import find_missing_texts
from affekt.processes import Message
from affekt.progress import Progress
from affekt.training.recipe import Recipe
from affekt.utterance import Utterance
from affekt.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

ENTRY = "affekt.workflows.feature_worker:work"
"""The main function of a worker process."""
CHUNK = 16
"""Number of utterances in one request to a worker."""
MIN_UTTERANCES = 64
"""Minimum number of missing utterances for which workers are started. Since this takes seconds, the caller computes fewer
itself."""


class FeaturePool:
    """Worker processes that compute missing features; use it in a `with` statement, which ends them.

    Args:
        jobs: The number of worker processes.

    Raises:
        BadConfig: There are more workers than twice the number of the machine's cores.
    """

    def __init__(self, jobs: int) -> None:
        check_threads(jobs, "jobs")
        self.jobs = jobs
        setup = {"log": logging.getLogger("affekt").getEffectiveLevel()}
        self.pool = WorkerPool["_Chunk"](ENTRY, setup, jobs, option="--jobs")

    def __enter__(self) -> FeaturePool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.__exit__(*exception)

    def compute(
        self,
        recipe: Recipe,
        stream: str,
        feature: Feature,
        name: str,
        utterances: Sequence[Utterance],
        copy: Copy | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Compute the features of a stream that are not in the store yet.

        Each worker uses as many torch threads as this process. Errors are ignored here: the caller, who computes whatever is
        still missing, gets them then.

        Args:
            recipe: The recipe with the stream's feature.
            stream: The name of the stream.
            feature: The stream's feature.
            name: The feature's name in the store.
            utterances: The utterances.
            copy: The augmentation to apply to the utterances; None for the originals.
            progress: As for `affekt.features.extract.extract`.

        Raises:
            BadConfig: The workers together have more threads than twice the number of the machine's cores.
        """
        check_jobs(self.jobs, torch.get_num_threads())
        if isinstance(feature, TextFeature):
            missing = find_missing_texts(feature, name, utterances)
        else:
            missing = find_missing(feature, name, utterances, copy)
        if len(missing) < MIN_UTTERANCES:
            return
        logger.info("%s: computing the features of %d utterances in worker processes", name, len(missing))
        chunks = [
            _Chunk(recipe, stream, missing[start : start + CHUNK], copy) for start in range(0, len(missing), CHUNK)
        ]
        done = 0
        for chunk, _ in self.pool.run(chunks):
            done += len(chunk.utterances)
            if progress:
                progress(name, done, len(missing))


class _Chunk:
    """A request: some utterances whose features a worker is to compute."""

    def __init__(self, recipe: Recipe, stream: str, utterances: Sequence[Utterance], copy: Copy | None) -> None:
        self.recipe, self.stream, self.utterances, self.copy = recipe, stream, utterances, copy
        self.name = f"{stream}, {len(utterances)} utterances from {utterances[0].id}"

    def request(self) -> Message:
        return {
            "recipe": json.dumps(encode(self.recipe)),
            "stream": self.stream,
            "threads": torch.get_num_threads(),
            "copy": encode(self.copy) if self.copy else None,
            "utterances": [{**asdict(u), "audio": u.audio and str(u.audio)} for u in self.utterances],
        }
