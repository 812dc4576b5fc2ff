"""Features of utterances, from the store where they are, computed and stored where they are not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from affekt.audio import Waveform, load
from affekt.errors import BadAudio, BadCorpus
from affekt.features.store import FeatureStore, audio_key
from affekt.training.augment import Copy
from affekt.utterance import Utterance

BATCH_SECONDS = 60.0  # of sound, padding included, that are encoded together


def extract(
    encoder: nn.Module,
    name: str,
    utterances: Sequence[Utterance],
    *,
    copy: Copy | None = None,
    say: Callable[[str], None] = print,
) -> list[NDArray[np.float16]]:
    """The encoder's frames of every utterance, (frames, dim) each, memory-mapped from the store.

    copy: which altered copy of the utterances is meant, where not the original.
    Raises `BadCorpus` if a file is missing or is no sound: data are not dropped in silence.
    """
    config: Any = encoder.config
    description = {"feature": name, "settings": asdict(config), "weights": weights_hash(encoder)}
    store = FeatureStore(name, {**description, "copy": asdict(copy)} if copy else description)
    keys = [audio_key(utterance) for utterance in utterances]
    missing = [(utterance, key) for utterance, key in zip(utterances, keys, strict=True) if key not in store]
    if missing:
        say(f"{name}: {len(keys) - len(missing)} of {len(keys)} utterances in {store.folder}, computing the others")
        _compute(encoder, missing, store, copy, say)
    return [store[key] for key in keys]


def weights_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _compute(
    encoder: nn.Module,
    missing: Sequence[tuple[Utterance, str]],
    store: FeatureStore,
    copy: Copy | None,
    say: Callable[[str], None],
) -> None:
    waveforms = [(_waveform(utterance), key) for utterance, key in missing]
    if copy is not None:
        waveforms = [(copy(waveform, key), key) for waveform, key in waveforms]
    waveforms.sort(key=lambda entry: entry[0].size)
    limit = int(BATCH_SECONDS * encoder.sample_rate)  # type: ignore[operator]
    start, done = 0, 0
    while start < len(waveforms):
        stop = start + 1
        while stop < len(waveforms) and waveforms[stop][0].size * (stop + 1 - start) <= limit:
            stop += 1
        _encode(encoder, waveforms[start:stop], store)
        if stop * 10 // len(waveforms) > done:
            done = stop * 10 // len(waveforms)
            say(f"  {stop} of {len(waveforms)}")
        start = stop


def _waveform(utterance: Utterance) -> Waveform:
    assert utterance.audio is not None
    try:
        waveform = load(utterance.audio)
    except BadAudio as error:
        raise BadCorpus(f"{utterance.corpus} {utterance.id}: {error}") from error
    end = None if utterance.end is None else round(utterance.end * 16_000)
    return waveform[round(utterance.start * 16_000) : end]


def _encode(encoder: nn.Module, entries: Sequence[tuple[Waveform, str]], store: FeatureStore) -> None:
    lengths = torch.tensor([waveform.size for waveform, _ in entries])
    batch = torch.zeros(len(entries), int(lengths.max()))
    for row, (waveform, _) in zip(batch, entries, strict=True):
        row[: waveform.size] = torch.from_numpy(waveform)
    with torch.inference_mode():
        stream = encoder(batch, lengths)
    for values, count, (_, key) in zip(stream.values, stream.lengths().tolist(), entries, strict=True):
        store[key] = values[:count].numpy()
