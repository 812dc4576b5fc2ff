"""Text features of utterances, from the store where they are, computed and stored where they are not.

What is said decides them, so that equal words are read once, whoever speaks them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.errors import BadCorpus
from affekt.features.base import TextFeature
from affekt.features.extract import (
    check_device,
    description,
    failure_message,
    on_device,
    track,
    unpad,
    utterance_name,
)
from affekt.features.store import FeatureStore, Stored
from affekt.progress import Progress
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

WORDLESS = "it has no words; affekt corpus transcribe can write them down"
TOKENS = 2048  # of a batch, padding counted


def extract_text(
    encoder: TextFeature,
    name: str,
    utterances: Sequence[Utterance],
    *,
    progress: Progress | None = None,
    device: str = "cpu",
    batched: bool | None = None,
) -> tuple[Stored, list[NDArray[np.int64]]]:
    """Of every utterance's words the encoder's (tokens, dim), memory-mapped from the store, and each token's word, (tokens,).

    Settings as those of `affekt.features.extract.extract`. Raises `BadCorpus` that counts the utterances without words.
    """
    check_device(device)
    batched = device != "cpu" if batched is None else batched
    store = FeatureStore(name, description(encoder, name, None, device=device, batched=batched))
    if silent := {utterance_name(one): WORDLESS for one in utterances if not one.text}:
        raise BadCorpus(failure_message(silent, len(utterances), name))
    texts = list(dict.fromkeys(utterance.text for utterance in utterances))
    words = dict(zip(texts, encoder.words(texts), strict=True))
    missing = [text for text in texts if text_key(text) not in store]
    if missing:
        present = len(texts) - len(missing)
        logger.info("%s: %d of %d texts in %s, computing the others", name, present, len(texts), store.folder)
    batches = _batches(missing, [len(words[text]) for text in missing], TOKENS if batched else 0)
    with on_device(encoder, device):
        for batch in track(batches, name, len(missing), progress):
            with torch.inference_mode():
                values = unpad(encoder(batch))
            for text, one in zip(batch, values, strict=True):
                store[text_key(text)] = one
    return Stored(store, [text_key(u.text) for u in utterances]), [words[u.text] for u in utterances]


def text_key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _batches(texts: Sequence[str], tokens: Sequence[int], limit: int) -> Iterator[list[str]]:
    """Texts of like length together, at most `limit` tokens of them, padding counted; one by one where it is 0."""
    batch: list[str] = []
    for text, count in sorted(zip(texts, tokens, strict=True), key=lambda entry: entry[1]):
        if batch and (len(batch) + 1) * count > limit:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
