"""Extract the features of utterances: read those in the store; compute and store the others."""

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

from affekt.audio.notes import CURE
from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.batch import Stream
from affekt.corpora.waveforms import read_waveforms
from affekt.errors import AffektError, BadAudio, BadConfig, BadCorpus, BadOutput
from affekt.features.augment import Copy
from affekt.features.base import Feature
from affekt.features.store import FeatureStore, StoredArrays, audio_key, file_hash
from affekt.progress import Progress
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_SECONDS = {"cpu": 60.0, "cuda": 300.0}  # of audio in a batch, including padding
POOL_BATCHES = 8  # number of batches whose utterances are sorted by length together
LOG_INTERVAL = 30.0  # s between log lines about progress
MAX_NAMED_FAILURES = 3  # failures named in an error; the others are counted


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
) -> StoredArrays:
    """Return each utterance's features (frames, dim), memory-mapped from the store; compute those that are missing.

    Args:
        encoder: The feature to extract.
        name: The feature's name in the store.
        utterances: The utterances, whose audio is read.
        copy: The altered copy of the utterances to use instead of the originals.
        progress: Called with the feature's name, the number of utterances computed and the number that were missing.
            Without it, progress is logged every 30 s.
        device: The encoder's device, "cpu" or "cuda".
        batched: Whether to compute several utterances at once. By default only on an accelerator, which a single utterance
            would not fill. In a batch, the last bits of an utterance's features depend on the other utterances. A training
            run that found some features in the store is then not bit-identical to a run that found none.
        seconds: Seconds of audio in a batch, including padding; by default 60 on the CPU and 300 on an accelerator.

    Raises:
        BadCorpus: Some utterances have no audio or cannot be read. All others have been computed first; none is skipped
            silently.
        BadConfig: The device is not available.
    """
    check_device(device)
    batched = device != "cpu" if batched is None else batched
    store = FeatureStore(name, description(encoder, name, copy, device=device, batched=batched))
    failures: dict[str, str] = {}
    keys = _keys(utterances, failures)
    missing = _missing(store, keys, utterances)
    if missing:
        present = len(keys) - len(missing)
        logger.info("%s: %d of %d utterances in %s, computing the others", name, present, len(keys), store.folder)
    limit = round((seconds or BATCH_SECONDS[device.partition(":")[0]]) * SAMPLE_RATE) if batched else 0
    waveforms = ((key, copy(samples, key) if copy else samples) for key, samples in _waveforms(missing, failures))
    with on_device(encoder, device):
        for batch in track(_batches(waveforms, limit), name, len(missing), progress):
            features = compute_features(encoder, [samples for _, samples in batch], device)
            for (key, _), values in zip(batch, features, strict=True):
                try:
                    store[key] = values
                except BadOutput:  # the disk is full: all others would fail too
                    raise
                except AffektError as error:
                    failures[utterance_name(missing[key])] = str(error)
    if failures:
        message = failure_message(failures, len(utterances), name)
        raise BadCorpus(
            f"{message}; repair the files, or leave them out with the corpus's setting `without` in the recipe"
        )
    return StoredArrays(store, keys)


def find_missing(
    encoder: Feature, name: str, utterances: Sequence[Utterance], copy: Copy | None = None
) -> list[Utterance]:
    """Return the utterances whose features `extract` would compute on the CPU; arguments as there.

    Utterances of the same audio are returned once, and those that cannot be read are left out.
    """
    store = FeatureStore(name, description(encoder, name, copy))
    return list(_missing(store, _keys(utterances, {}), utterances).values())


def _missing(store: FeatureStore, keys: Sequence[str], utterances: Sequence[Utterance]) -> dict[str, Utterance]:
    """Return the readable utterances that are not in the store, by key; "" is the key of one that cannot be read."""
    return {key: utterance for key, utterance in zip(keys, utterances, strict=True) if key and key not in store}


def compute_features(
    encoder: Feature, waveforms: Sequence[Waveform], device: str = "cpu"
) -> list[NDArray[np.floating]]:
    """Compute the features of waveforms in one batch, (frames, dim) or (dim,) each. A single waveform gets no mask."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.zeros(len(waveforms), int(lengths.max()))
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    with torch.inference_mode():
        stream = encoder(padded.to(device), lengths.to(device) if len(waveforms) > 1 else None)
    return unpad(stream)


def unpad(stream: Stream) -> list[NDArray[np.floating]]:
    """Return each utterance's (frames, dim) without padding; (dim,) for a stream without a time axis."""
    values = stream.values.cpu().numpy()
    if not stream.has_time:
        return list(values)
    return [row[:length] for row, length in zip(values, stream.lengths().tolist(), strict=True)]


def description(
    encoder: Feature, name: str, copy: Copy | None, *, device: str = "cpu", batched: bool = False
) -> dict[str, object]:
    """Return everything that the bits of a feature depend on. Features whose descriptions differ are stored separately."""
    on_cpu = device == "cpu"
    content: dict[str, object] = {
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
        content["threads"] = torch.get_num_threads()
    return {**content, "copy": asdict(copy)} if copy else content


def weights_hash(network: torch.nn.Module) -> str:
    """Return the SHA-256 of a network's state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _keys(utterances: Sequence[Utterance], failures: dict[str, str]) -> list[str]:
    """Return the utterances' keys in the store; "" for a file that cannot be read. Each file is read once."""
    cached_hash = functools.cache(file_hash)
    keys = []
    for utterance in utterances:
        keys.append("")
        if utterance.audio is None:
            failures[utterance_name(utterance)] = "it has no audio"
            continue
        try:
            keys[-1] = audio_key(utterance, cached_hash)
        except OSError as error:
            failures[utterance_name(utterance)] = f"{utterance.audio} cannot be read: {error.strerror}"
    return keys


def _waveforms(utterances: Mapping[str, Utterance], failures: dict[str, str]) -> Iterator[tuple[str, Waveform]]:
    """Yield the waveforms that can be read; add the reasons for the others to `failures`, by the utterance's name."""
    for key, waveform in read_waveforms(utterances):
        if isinstance(waveform, BadAudio):
            failures[utterance_name(utterances[key])] = str(waveform).removesuffix(f"; {CURE}")  # of recognition
        else:
            yield key, waveform


def utterance_name(utterance: Utterance) -> str:
    """Return the name of an utterance in error messages: its corpus and id."""
    return f"{utterance.corpus} {utterance.id}"


def failure_message(failures: Mapping[str, str], count: int, name: str) -> str:
    """Return an error message that names the first failed utterances with their reasons and counts the others."""
    named = "; ".join(f"{utterance}: {reason}" for utterance, reason in list(failures.items())[:MAX_NAMED_FAILURES])
    others = f"; and {len(failures) - MAX_NAMED_FAILURES} more" if len(failures) > MAX_NAMED_FAILURES else ""
    return f"{len(failures)} of {count} utterances have no {name}: {named}{others}"


def _batches(waveforms: Iterator[tuple[str, Waveform]], limit: int) -> Iterator[list[tuple[str, Waveform]]]:
    """Group waveforms of similar length into batches of at most `limit` samples, including padding; 0: no batching."""
    if not limit:
        yield from ([item] for item in waveforms)
        return
    pool: list[tuple[str, Waveform]] = []
    size = 0
    for item in itertools.chain(waveforms, [None]):
        if item is not None:
            pool.append(item)
            size += len(item[1])
        if item is None or size >= POOL_BATCHES * limit:
            yield from _split_pool(sorted(pool, key=lambda item: len(item[1])), limit)
            pool, size = [], 0


def _split_pool(pool: Sequence[tuple[str, Waveform]], limit: int) -> Iterator[list[tuple[str, Waveform]]]:
    """Split a pool that is sorted by length into batches."""
    batch: list[tuple[str, Waveform]] = []
    for item in pool:
        if batch and (len(batch) + 1) * len(item[1]) > limit:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def check_device(device: str) -> None:
    """Raise `BadConfig` unless the device is "cpu", or "cuda" and available."""
    if device.partition(":")[0] not in BATCH_SECONDS:
        raise BadConfig(f"device = {device!r}: expected {' or '.join(BATCH_SECONDS)}")
    if device != "cpu" and not torch.cuda.is_available():
        raise BadConfig(f"device = {device!r}: torch finds no such device; expected cpu")


@contextlib.contextmanager
def on_device(encoder: Feature, device: str) -> Iterator[None]:
    """Move the encoder to the device and back afterwards. TF32 is off, since it loses the quiet parts of a spectrum."""
    tensor = next(itertools.chain(encoder.parameters(), encoder.buffers()), None)  # a feature may have neither
    original = torch.device("cpu") if tensor is None else tensor.device
    if device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    with torch.backends.cudnn.flags(allow_tf32=False):
        try:
            encoder.to(device)
            yield
        finally:
            encoder.to(original)


def track(batches: Iterable[list[T]], name: str, total: int, progress: Progress | None) -> Iterator[list[T]]:
    """Yield the batches and report how many items are done: to `progress`, or without it in the log every 30 s.

    Args:
        batches: The batches.
        name: The name of the feature, for messages.
        total: Number of items in all batches.
        progress: Function that is called with the name, the number of items done and the total; None to use the log.
    """
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
    if progress and done < total:  # the remaining items failed
        progress(name, total, total)
    logger.info("  %d done in %.1f s", total, time.monotonic() - start)
