"""Halve the frames of the shipped model's encoder from some block on, without training it again: speed and scores.

    make frames    prints a table, and writes benchmarks/results/fewer_frames.json (needs AFFEKT_DATA; five minutes)

Before a block, pairs of frames are averaged; the states of this block and of those after it are repeated twice, so that the
head gets as many frames as before. The network runs in torch, with one thread, on clips of the test subset; times are of the
processor. Variants alternate clip by clip.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import harness
import numpy as np
import torch
from torch import Tensor

from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.folder import DEFAULT, Bundle
from affekt.bundle.pipeline import rebuild
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.evaluation.metrics import confusion, ua
from affekt.features.whisper import WhisperStates
from affekt.protocols import Split, utterance_key

FIRST_BLOCKS = (3, 2, 1)
REFERENCE = "all frames (shipped)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=["cremad", "emodb"])
    parser.add_argument("--every", type=int, default=1, help="use one clip in this many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle.open(DEFAULT)
    network, emotions = rebuild(bundle).eval(), list(bundle.emotions)
    encoder: Any = network.features["speech"]
    variants: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        REFERENCE: encoder._states,
        **{f"half of them from block {first} on": partial(halved_states, encoder, first) for first in FIRST_BLOCKS},
    }
    utterances = {utterance_key(u): u for name in arguments.corpora for u in Source.parse(name).read()}
    test = [utterances[key] for key in Split.load(bundle.file("split.json")).subsets["test"] if key in utterances]
    predicted: dict[str, list[int]] = {name: [] for name in variants}
    times, seconds = dict.fromkeys(variants, 0.0), 0.0
    test = test[:: arguments.every]
    with torch.inference_mode():
        for number, utterance in enumerate(test):
            waveform = torch.from_numpy(read_waveform(utterance).astype(np.float32))[None]
            seconds += waveform.shape[1] / SAMPLE_RATE
            names = list(variants)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                encoder._states = variants[name]
                start = time.process_time()
                output = network(waveform)
                times[name] += time.process_time() - start
                predicted[name].append(int((output if isinstance(output, Tensor) else output[0]).argmax()))
    labels, corpora = np.array([emotions.index(u.emotion) for u in test]), np.array([u.corpus for u in test])
    result = {
        name: {
            "cpu_seconds_per_second": times[name] / seconds,
            "agreement": float(np.mean(np.array(predicted[name]) == np.array(predicted[REFERENCE]))),
            "ua": {
                corpus: 100
                * ua(confusion(labels[corpora == corpus], np.array(predicted[name])[corpora == corpus], len(emotions)))
                for corpus in arguments.corpora
            },
        }
        for name in variants
    }
    show(result)
    print(f"\nwrote {harness.write('fewer_frames', {'clips': len(test), 'variants': result})}")


def halved_states(encoder: WhisperStates, first: int, x: Tensor, mask: Tensor) -> Tensor:
    """Return the states of an encoder whose blocks from number `first` on get averages of two frames; see `_states`.

    Args:
        encoder: The encoder.
        first: The number of the block, counted from 1.
        x: The input of the first block without positions, (batch, frames, dim).
        mask: True for frames that are not padding, (batch, frames).
    """
    frames = x.shape[1]
    state = x + encoder.embed_positions.weight[:frames]
    states = [state]
    for number, block in enumerate(encoder.layers, 1):
        if number == first:
            state, mask = average_pairs(state, mask)
        state = block(state, mask)
        states.append(state.repeat_interleave(2, dim=1)[:, :frames] if number >= first else state)
    return torch.cat([states[number] for number in encoder.config.blocks], dim=2)


def average_pairs(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the averages of every two frames without padding, and their mask; a last single frame stays as it is."""
    if x.shape[1] % 2:
        x, mask = torch.cat([x, x[:, -1:]], dim=1), torch.cat([mask, torch.zeros_like(mask[:, :1])], dim=1)
    weights = mask.to(x.dtype).unflatten(1, (-1, 2)).unsqueeze(3)
    counts = weights.sum(dim=2)
    averages = (x.unflatten(1, (-1, 2)) * weights).sum(dim=2) / counts.clamp(min=1)
    halved = counts[:, :, 0] > 0
    return averages, halved | ~halved.any(dim=1, keepdim=True)


def show(result: Mapping[str, Mapping[str, Any]]) -> None:
    print("{processor}, {cores} cores, Python {python}\n".format(**harness.machine()))
    corpora = next(iter(result.values()))["ua"]
    rows = [
        [
            name,
            f"{side['cpu_seconds_per_second']:.4f}",
            f"{side['agreement']:.1%}",
            *(f"{side['ua'][corpus]:.1f}" for corpus in corpora),
        ]
        for name, side in result.items()
    ]
    harness.table(["", "CPU s per s of speech", "same emotion", *(f"UA, {corpus}" for corpus in corpora)], rows)


if __name__ == "__main__":
    main()
