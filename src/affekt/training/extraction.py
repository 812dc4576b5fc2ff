"""Features of utterances, from the store where they are, computed and stored where they are not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch

from affekt.audio import SAMPLE_RATE, Waveform, load
from affekt.errors import BadAudio, BadCorpus
from affekt.features.base import Feature
from affekt.features.store import FeatureStore, Stored, audio_key
from affekt.training.augment import Copy
from affekt.utterance import Utterance


def extract(
    encoder: Feature,
    name: str,
    utterances: Sequence[Utterance],
    *,
    copy: Copy | None = None,
    say: Callable[[str], None] = print,
) -> Stored:
    """The encoder's frames of every utterance, (frames, dim) each, memory-mapped from the store.

    copy: which altered copy of the utterances is meant, where not the original.
    Raises `BadCorpus` if a file is missing or is no sound: data are not dropped in silence.
    """
    store = FeatureStore(name, description(encoder, name, copy))
    keys = [audio_key(utterance) for utterance in utterances]
    missing = [(utterance, key) for utterance, key in zip(utterances, keys, strict=True) if key not in store]
    if missing:
        say(f"{name}: {len(keys) - len(missing)} of {len(keys)} utterances in {store.folder}, computing the others")
    # One by one: in a batch the last bits of an utterance's features would depend on its neighbours, and a training
    # that found part of them in the store would not be the same as one that found none.
    for number, (utterance, key) in enumerate(missing, start=1):
        sound = waveform(utterance)
        with torch.inference_mode():
            stream = encoder(torch.from_numpy(copy(sound, key) if copy else sound).unsqueeze(0))
        store[key] = stream.values[0].numpy()
        if number % 1000 == 0:
            say(f"  {number} of {len(missing)}")
    return Stored(store, keys)


def description(encoder: Feature, name: str, copy: Copy | None) -> dict[str, object]:
    """All that decides a feature's bits; what differs in any of it stands apart in the store."""
    made: dict[str, object] = {
        "feature": name,
        "version": encoder.version,
        "settings": asdict(encoder.config),
        "weights": weights_hash(encoder),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    return {**made, "copy": asdict(copy)} if copy else made


def weights_hash(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def waveform(utterance: Utterance) -> Waveform:
    """An utterance's sound, (samples,), mono, at 16 kHz; `BadCorpus` where it cannot be read."""
    if utterance.audio is None:
        raise BadCorpus(f"{utterance.corpus} {utterance.id} has no sound")
    try:
        sound = load(utterance.audio)
    except BadAudio as error:
        raise BadCorpus(f"{utterance.corpus} {utterance.id}: {error}") from error
    end = None if utterance.end is None else round(utterance.end * SAMPLE_RATE)
    return sound[round(utterance.start * SAMPLE_RATE) : end]
