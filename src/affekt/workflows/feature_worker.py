"""The worker process of feature extraction: it computes the features of utterances, and writes them to the feature store.

Messages from the parent: first the log level; then requests with utterances, the recipe, the stream and the number of
threads. Messages to the parent, by their keys: `ready`; `log`; and `ends` after each request.
"""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from pathlib import Path

import torch

from affekt.config import decode
from affekt.errors import AffektError
from affekt.features.augment import Copy
from affekt.features.base import Feature, TextFeature
from affekt.features.extract import extract
from affekt.features.extract_text import extract_text
from affekt.processes import Message, Parent, SendingHandler
from affekt.training.finetuning import TEACHER
from affekt.training.plan import resolve
from affekt.training.recipe import Recipe
from affekt.utterance import Utterance
from affekt.workflows.training_data import stored_name, training_features


def work() -> None:
    """Answer the requests of the parent process; the main function of a worker."""
    parent = Parent()
    setup = parent.receive()
    torch.use_deterministic_algorithms(True)
    logger = logging.getLogger("affekt")
    logger.propagate = False
    logger.addHandler(SendingHandler(parent))
    logger.setLevel(max(setup["log"], logging.WARNING))  # the parent reports the progress
    parent.send({"ready": True})
    while True:
        _compute(parent.receive())
        parent.send({"ends": False})


def _compute(request: Message) -> None:
    """Compute and store features. Errors are only logged: the parent computes what is missing, and raises the error then."""
    torch.set_num_threads(request["threads"])
    utterances = [Utterance(**{**u, "audio": u["audio"] and Path(u["audio"])}) for u in request["utterances"]]
    copy = decode(Copy, request["copy"], "copy") if request["copy"] else None
    try:
        feature, name = _feature(request["recipe"], request["stream"])
        if isinstance(feature, TextFeature):
            extract_text(feature, name, utterances)
        else:
            extract(feature, name, utterances, copy=copy)
    except (AffektError, OSError) as error:
        logging.getLogger(__name__).debug("%s", error, exc_info=error)


@lru_cache(maxsize=4)
def _feature(recipe: str, stream: str) -> tuple[Feature, str]:
    """Return the feature of a stream, and its name in the store."""
    plan = resolve(decode(Recipe, json.loads(recipe), "recipe"))
    if stream == TEACHER:
        assert plan.teacher
        return plan.build_teacher(), plan.teacher.name
    return training_features(plan)[stream], stored_name(plan, stream)
