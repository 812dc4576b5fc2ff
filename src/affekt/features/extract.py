"""Features of utterances, from the store where they are, computed and stored where they are not."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.batch import Stream
from affekt.corpora.waveforms import read_waveforms
from affekt.errors import AffektError, BadAudio, BadConfig, BadCorpus
from affekt.features.augment import Copy
from affekt.features.base import Feature
from affekt.features.store import FeatureStore, Stored, audio_key, file_hash
from affekt.progress import Progress
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS = {"cpu": 60.0, "cuda": 300.0}  # of sound in a batch, padding counted
POOL = 8  # batches whose utterances are sorted by length together
LOG_INTERVAL = 30.0  # s between log lines about progress
NAMED = 3  # failures that an error names; it counts the others


def extract(
    encoder: Feature,
    name: str,
    utterances: Sequence[Utterance],
    *,
    copy: Copy | None = None,
    progress: Progress | None = None,
    device: str = "cpu",
    batched: bool | None = None,
    seconds: float | None = None,
) -> Stored:
    """The encoder's frames of every utterance, (frames, dim) each, memory-mapped from the store.

    copy: which altered copy of the utterances is meant, where not the original.
    progress: called with the feature's name, the number of utterances computed and the number that were missing; without
        it, progress is logged every 30 s.
    device: where the encoder runs, "cpu" or "cuda".
    batched: several utterances at once, or one by one; by default batched on an accelerator alone, which one utterance does
        not fill. In a batch the last bits of an utterance's features depend on its neighbours, so that a training which
        found part of them in the store is not bit-identical to one that found none.
    seconds: of sound in a batch, padding counted; by default 60 on the CPU and 300 on an accelerator.
    Raises `BadCorpus` that counts the utterances that are missing or no sound, once all others are computed: data are not
    dropped in silence. `BadConfig` for a device that is not there.
    """
    check_device(device)
    batched = device != "cpu" if batched is None else batched
    store = FeatureStore(name, description(encoder, name, copy, device=device, batched=batched))
    failures: dict[str, str] = {}
    keys = _keys(utterances, failures)
    missing = {key: one for key, one in zip(keys, utterances, strict=True) if key and key not in store}
    if missing:
        present = len(keys) - len(missing)
        logger.info("%s: %d of %d utterances in %s, computing the others", name, present, len(keys), store.folder)
    limit = round((seconds or SECONDS[device.partition(":")[0]]) * SAMPLE_RATE) if batched else 0
    sounds = ((key, copy(sound, key) if copy else sound) for key, sound in _waveforms(missing, failures))
    with on_device(encoder, device):
        for batch in track(_batches(sounds, limit), name, len(missing), progress):
            for (key, _), values in zip(batch, frames(encoder, [sound for _, sound in batch], device), strict=True):
                try:
                    store[key] = values
                except AffektError as error:
                    failures[utterance_name(missing[key])] = str(error)
    if failures:
        raise BadCorpus(failure_message(failures, len(utterances), name))
    return Stored(store, keys)


def frames(encoder: Feature, sounds: Sequence[Waveform], device: str = "cpu") -> list[NDArray[np.floating]]:
    """The encoder's (frames, dim), or (dim,), of each sound, of all in one run; of one alone without any padding or mask."""
    lengths = torch.tensor([len(sound) for sound in sounds])
    padded = torch.zeros(len(sounds), int(lengths.max()))
    for row, sound in zip(padded, sounds, strict=True):
        row[: len(sound)] = torch.from_numpy(sound)
    with torch.inference_mode():
        stream = encoder(padded.to(device), lengths.to(device) if len(sounds) > 1 else None)
    return unpad(stream)


def unpad(stream: Stream) -> list[NDArray[np.floating]]:
    """Each utterance's (frames, dim), its padding cut away; (dim,) of a stream without time."""
    values = stream.values.cpu().numpy()
    if not stream.has_time:
        return list(values)
    return [one[:count] for one, count in zip(values, stream.lengths().tolist(), strict=True)]


def description(
    encoder: Feature, name: str, copy: Copy | None, *, device: str = "cpu", batched: bool = False
) -> dict[str, object]:
    """All that decides a feature's bits; what differs in any of it stands apart in the store."""
    on_cpu = device == "cpu"
    made: dict[str, object] = {
        "feature": name,
        "version": encoder.version,
        "settings": asdict(encoder.config),
        "dim": encoder.dim,
        "weights": weights_hash(encoder),
        **{library: importlib.import_module(library).__version__ for library in encoder.libraries},
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(device),
        "batched": batched,
    }
    if on_cpu:
        made["threads"] = torch.get_num_threads()
    return {**made, "copy": asdict(copy)} if copy else made


def weights_hash(network: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _keys(utterances: Sequence[Utterance], failures: dict[str, str]) -> list[str]:
    """The utterances' keys in the store, each file read once; "" for those whose file cannot be read."""
    content = functools.cache(file_hash)
    keys = []
    for utterance in utterances:
        keys.append("")
        if utterance.audio is None:
            failures[utterance_name(utterance)] = "it has no audio"
            continue
        try:
            keys[-1] = audio_key(utterance, content)
        except OSError as error:
            failures[utterance_name(utterance)] = f"{utterance.audio} cannot be read: {error.strerror}"
    return keys


def _waveforms(utterances: Mapping[str, Utterance], failures: dict[str, str]) -> Iterator[tuple[str, Waveform]]:
    """Yield the waveforms that can be read; add the reasons for the others to `failures`, by the utterance's name."""
    for key, waveform in read_waveforms(utterances):
        if isinstance(waveform, BadAudio):
            failures[utterance_name(utterances[key])] = str(waveform)
        else:
            yield key, waveform


def utterance_name(utterance: Utterance) -> str:
    return f"{utterance.corpus} {utterance.id}"


def failure_message(failures: Mapping[str, str], count: int, name: str) -> str:
    named = "; ".join(f"{one}: {reason}" for one, reason in list(failures.items())[:NAMED])
    others = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return f"{len(failures)} of {count} utterances have no {name}: {named}{others}"


def _batches(sounds: Iterator[tuple[str, Waveform]], limit: int) -> Iterator[list[tuple[str, Waveform]]]:
    """Sounds of like length together, at most `limit` samples of them, padding counted; one by one where it is 0."""
    if not limit:
        yield from ([one] for one in sounds)
        return
    pool: list[tuple[str, Waveform]] = []
    held = 0
    for one in itertools.chain(sounds, [None]):
        if one is not None:
            pool.append(one)
            held += len(one[1])
        if one is None or held >= POOL * limit:
            yield from _cut(sorted(pool, key=lambda entry: len(entry[1])), limit)
            pool, held = [], 0


def _cut(pool: Sequence[tuple[str, Waveform]], limit: int) -> Iterator[list[tuple[str, Waveform]]]:
    """Batches of a pool that is sorted by length."""
    batch: list[tuple[str, Waveform]] = []
    for one in pool:
        if batch and (len(batch) + 1) * len(one[1]) > limit:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def check_device(device: str) -> None:
    if device.partition(":")[0] not in SECONDS:
        raise BadConfig(f"device = {device!r}: expected {' or '.join(SECONDS)}")
    if device != "cpu" and not torch.cuda.is_available():
        raise BadConfig(f"device = {device!r}: torch finds no such device here; expected cpu")


@contextlib.contextmanager
def on_device(encoder: Feature, device: str) -> Iterator[None]:
    """The encoder on the device, and back where it was; in full precision, for a spectrum's soft parts are lost without."""
    held = next(itertools.chain(encoder.parameters(), encoder.buffers()), None)  # a table of words has neither
    before = torch.device("cpu") if held is None else held.device
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS cannot be deterministic
    with torch.backends.cudnn.flags(allow_tf32=False):
        try:
            encoder.to(device)
            yield
        finally:
            encoder.to(before)


def track(batches: Iterable[list[T]], name: str, total: int, progress: Progress | None) -> Iterator[list[T]]:
    """Yield the batches and report how many of their items are done: to `progress`, else in the log now and then."""
    if not total:
        return
    start = logged = time.monotonic()
    done = 0
    if progress:
        progress(name, done, total)
    for batch in batches:
        yield batch
        done, now = done + len(batch), time.monotonic()
        if progress:
            progress(name, done, total)
        elif now - logged >= LOG_INTERVAL and done < total:
            minutes = (now - start) / done * (total - done) / 60
            logger.info("  %d of %d, about %.1f minutes left", done, total, minutes)
            logged = now
    if progress and done < total:  # the others have failed
        progress(name, total, total)
    logger.info("  %d done in %.1f s", total, time.monotonic() - start)
