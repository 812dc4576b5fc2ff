"""Extract the text features of utterances: read those in the store; compute and store the others.

A text feature depends only on the text, so each distinct text is encoded once.
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
from affekt.features.store import FeatureStore, StoredArrays
from affekt.progress import Progress
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

NO_TEXT = "it has no text; affekt corpus transcribe can generate it"
BATCH_TOKENS = 2048  # tokens in a batch, including padding


def extract_text(
    encoder: TextFeature,
    name: str,
    utterances: Sequence[Utterance],
    *,
    progress: Progress | None = None,
    device: str = "cpu",
    batched: bool | None = None,
) -> tuple[StoredArrays, list[NDArray[np.int64]]]:
    """Return each utterance's features (tokens, dim), memory-mapped from the store, and each token's word index (tokens,).

    The arguments are those of `affekt.features.extract.extract`. Raises `BadCorpus` if utterances have no text.
    """
    check_device(device)
    batched = device != "cpu" if batched is None else batched
    store = FeatureStore(name, description(encoder, name, None, device=device, batched=batched))
    if failures := {utterance_name(utterance): NO_TEXT for utterance in utterances if not utterance.text}:
        raise BadCorpus(failure_message(failures, len(utterances), name))
    texts = list(dict.fromkeys(utterance.text for utterance in utterances))
    word_indices = dict(zip(texts, encoder.word_indices(texts), strict=True))
    missing = [text for text in texts if text_key(text) not in store]
    if missing:
        present = len(texts) - len(missing)
        logger.info("%s: %d of %d texts in %s, computing the others", name, present, len(texts), store.folder)
    batches = _batches(missing, [len(word_indices[text]) for text in missing], BATCH_TOKENS if batched else 0)
    with on_device(encoder, device):
        for batch in track(batches, name, len(missing), progress):
            with torch.inference_mode():
                values = unpad(encoder(batch))
            for text, features in zip(batch, values, strict=True):
                store[text_key(text)] = features
    return StoredArrays(store, [text_key(u.text) for u in utterances]), [word_indices[u.text] for u in utterances]


def find_missing_texts(encoder: TextFeature, name: str, utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances whose features `extract_text` would compute on the CPU, one for each text."""
    store = FeatureStore(name, description(encoder, name, None))
    by_text = {utterance.text: utterance for utterance in utterances if utterance.text}
    return [utterance for text, utterance in by_text.items() if text_key(text) not in store]


def text_key(text: str) -> str:
    """Return the key of a text's features in the store."""
    return hashlib.sha256(text.encode()).hexdigest()


def _batches(texts: Sequence[str], tokens: Sequence[int], limit: int) -> Iterator[list[str]]:
    """Group texts of similar length into batches of at most `limit` tokens, including padding; 0: no batching."""
    batch: list[str] = []
    for text, count in sorted(zip(texts, tokens, strict=True), key=lambda item: item[1]):
        if batch and (len(batch) + 1) * count > limit:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
