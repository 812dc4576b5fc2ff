"""Extract the features of utterances: read from the store those that are there, compute and store the others."""

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

SECONDS = {"cpu": 60.0, "cuda": 300.0}  # of audio in a batch, including padding
POOL = 8  # batches whose utterances are sorted by length together
LOG_INTERVAL = 30.0  # s between log lines about progress
NAMED = 3  # failures named in an error; the others are counted


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
    """Return each utterance's features (frames, dim), memory-mapped from the store; compute those that are missing.

    Args:
        encoder: The feature to extract.
        name: The feature's name in the store.
        utterances: The utterances, whose audio is read.
        copy: The altered copy of the utterances to use instead of the originals.
        progress: Called with the feature's name, the number of utterances computed and the number that were missing.
            Without it, progress is logged every 30 s.
        device: The encoder's device, "cpu" or "cuda".
        batched: Whether to compute several utterances at once. By default only on an accelerator, which one utterance does
            not fill. In a batch, the last bits of an utterance's features depend on the other utterances, so a training run
            that found some of them in the store is not bit-identical to one that found none.
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
    missing = {key: utterance for key, utterance in zip(keys, utterances, strict=True) if key and key not in store}
    if missing:
        present = len(keys) - len(missing)
        logger.info("%s: %d of %d utterances in %s, computing the others", name, present, len(keys), store.folder)
    limit = round((seconds or SECONDS[device.partition(":")[0]]) * SAMPLE_RATE) if batched else 0
    waveforms = ((key, copy(samples, key) if copy else samples) for key, samples in _waveforms(missing, failures))
    with on_device(encoder, device):
        for batch in track(_batches(waveforms, limit), name, len(missing), progress):
            for (key, _), values in zip(batch, frames(encoder, [samples for _, samples in batch], device), strict=True):
                try:
                    store[key] = values
                except AffektError as error:
                    failures[utterance_name(missing[key])] = str(error)
    if failures:
        raise BadCorpus(failure_message(failures, len(utterances), name))
    return Stored(store, keys)


def frames(encoder: Feature, waveforms: Sequence[Waveform], device: str = "cpu") -> list[NDArray[np.floating]]:
    """Compute the features of waveforms in one batch, (frames, dim) or (dim,) each. A single one is not masked."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.zeros(len(waveforms), int(lengths.max()))
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    with torch.inference_mode():
        stream = encoder(padded.to(device), lengths.to(device) if len(waveforms) > 1 else None)
    return unpad(stream)


def unpad(stream: Stream) -> list[NDArray[np.floating]]:
    """Return each utterance's (frames, dim) without padding; (dim,) for a stream without time."""
    values = stream.values.cpu().numpy()
    if not stream.has_time:
        return list(values)
    return [row[:length] for row, length in zip(values, stream.lengths().tolist(), strict=True)]


def description(
    encoder: Feature, name: str, copy: Copy | None, *, device: str = "cpu", batched: bool = False
) -> dict[str, object]:
    """Return everything that the bits of a feature depend on. Features that differ in any of it are stored separately."""
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
    """Return the utterances' keys in the store, "" where the file cannot be read. Each file is read once."""
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
            failures[utterance_name(utterances[key])] = str(waveform)
        else:
            yield key, waveform


def utterance_name(utterance: Utterance) -> str:
    """Return what an error calls an utterance: its corpus and id."""
    return f"{utterance.corpus} {utterance.id}"


def failure_message(failures: Mapping[str, str], count: int, name: str) -> str:
    """Return an error message that names the first failed utterances with their reasons and counts the others."""
    named = "; ".join(f"{utterance}: {reason}" for utterance, reason in list(failures.items())[:NAMED])
    others = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
    return f"{len(failures)} of {count} utterances have no {name}: {named}{others}"


def _batches(waveforms: Iterator[tuple[str, Waveform]], limit: int) -> Iterator[list[tuple[str, Waveform]]]:
    """Group waveforms of similar length into batches of at most `limit` samples, including padding; if 0, of one each."""
    if not limit:
        yield from ([item] for item in waveforms)
        return
    pool: list[tuple[str, Waveform]] = []
    size = 0
    for item in itertools.chain(waveforms, [None]):
        if item is not None:
            pool.append(item)
            size += len(item[1])
        if item is None or size >= POOL * limit:
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
    if device.partition(":")[0] not in SECONDS:
        raise BadConfig(f"device = {device!r}: expected {' or '.join(SECONDS)}")
    if device != "cpu" and not torch.cuda.is_available():
        raise BadConfig(f"device = {device!r}: torch finds no such device; expected cpu")


@contextlib.contextmanager
def on_device(encoder: Feature, device: str) -> Iterator[None]:
    """Move the encoder to the device and back afterwards; without TF32, which loses the quiet parts of a spectrum."""
    tensor = next(itertools.chain(encoder.parameters(), encoder.buffers()), None)  # a table of words has neither
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
    """Yield the batches and report how many items are done: to `progress`, or without it in the log every 30 s."""
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
