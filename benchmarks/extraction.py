"""Compare the speed of feature extraction: affekt, with and without batches, and a loop over files with transformers.

    python benchmarks/extraction.py [--corpus emodb] [--clips 32] [--threads 2] [--device cpu] [--json]

The usual loop is that of tutorials: for each file, read it, call transformers' feature extractor and model, and save the
last hidden state. It is compared with `affekt.features.extract.extract` into an empty store, including reading, hashing and
storing: in batches of clips of similar length, and one by one. All use the same weights, clips and threads. (Each call also
hashes the weights, which takes as long as a second or two of speech: use 32 clips or more.)

These three sides alternate, and each round begins with another side. The table has medians over the rounds: clips and
seconds of speech per second of elapsed time, and how many times as fast as the usual loop a side is, in elapsed and in CPU
time. On a shared machine CPU time is the more reliable.

Without --corpus the clips are noise of 1 to 6 s, since the speed does not depend on the content. For the same reason,
networks whose weights AFFEKT_MODELS lacks get random weights; their names say so. Texts are sentences of 4 to 30 words, four
for each clip.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from affekt.audio.read import load
from affekt.corpora.source import Source
from affekt.features import features
from affekt.features.extract import extract
from affekt.features.extract_text import extract_text
from affekt.utterance import Utterance

BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
SENTENCE = "maybe tomorrow it will be cold and the airplane is almost full so we stop in a couple of minutes"
BATCHING = {"in batches": True, "one by one": False}
"""Side -> whether it extracts features in batches."""
Side = Callable[[Sequence[Utterance]], None]


@dataclass(frozen=True)
class Comparison:
    """One encoder: the usual loop, and the sides that are compared with it."""

    name: str
    usual: Callable[[Sequence[Utterance], Path], None]
    sides: dict[str, Side]
    utterances: Sequence[Utterance]
    spoken: bool = True
    """True if the utterances are audio, not text."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="", help="NAME or NAME:PATH; noise without it")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", default=list(COMPARISONS), choices=list(COMPARISONS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AFFEKT_CACHE"] = f"{folder}/cache"
        utterances = (
            choose(arguments.corpus, arguments.clips) if arguments.corpus else noise_clips(folder, arguments.clips)
        )
        seconds = sum(load(utterance.audio).size for utterance in utterances if utterance.audio) / 16_000
        result = {
            "processor": platform.processor() or platform.machine(),
            "threads": arguments.threads,
            "device": arguments.device,
            "torch": torch.__version__,
            "clips": len(utterances),
            "seconds_of_speech": round(seconds, 1),
            "source": arguments.corpus or "noise",
            "rounds": arguments.rounds,
            "encoders": [
                measure(COMPARISONS[name](Path(folder), utterances, arguments.device), arguments.rounds, seconds)
                for name in arguments.only
            ],
        }
    if arguments.json:
        print(json.dumps(result))
    else:
        show(result)


def choose(corpus: str, count: int) -> list[Utterance]:
    """Return utterances evenly spread over a corpus."""
    utterances = [utterance for utterance in Source.parse(corpus).read() if utterance.audio]
    return [utterances[index * len(utterances) // count] for index in range(min(count, len(utterances)))]


def noise_clips(folder: str, count: int) -> list[Utterance]:
    """Write clips of noise of 1 to 6 s to a folder, and return them as utterances."""
    generator, utterances = np.random.default_rng(0), []
    for number in range(count):
        path = Path(folder) / f"{number}.wav"
        soundfile.write(path, generator.uniform(-0.5, 0.5, int(generator.uniform(1, 6) * 16_000)), 16_000)
        utterances.append(Utterance(str(number), "noise", path, "neutral"))
    return utterances


def measure(comparison: Comparison, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the medians of each side over the rounds, after one round to warm up."""
    sides: dict[str, Callable[[], None]] = {
        "the usual loop": lambda: in_empty_folder(lambda folder: comparison.usual(comparison.utterances, folder)),
        **{name: partial(in_empty_store, side, comparison.utterances) for name, side in comparison.sides.items()},
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in [*list(sides)[number % len(sides) :], *list(sides)[: number % len(sides)]]:
            start, cpu_start = time.perf_counter(), time.process_time()
            sides[name]()
            if number:
                times[name].append((time.perf_counter() - start, time.process_time() - cpu_start))
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in times.items()}
    usual_elapsed, usual_cpu = medians["the usual loop"]
    return {
        "encoder": comparison.name,
        "sides": {
            name: {
                "clips_per_second": len(comparison.utterances) / elapsed,
                "speech_seconds_per_second": seconds / elapsed if comparison.spoken else None,
                "cpu_seconds": cpu,
                "ratio": usual_elapsed / elapsed,
                "cpu_ratio": usual_cpu / cpu,
            }
            for name, (elapsed, cpu) in medians.items()
        },
    }


def in_empty_folder(run: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))


def in_empty_store(side: Side, utterances: Sequence[Utterance]) -> None:
    shutil.rmtree(os.environ["AFFEKT_CACHE"], ignore_errors=True)
    side(utterances)


def compare_speech(
    name: str,
    title: str,
    folder: Path,
    model: Any,
    utterances: Sequence[Utterance],
    device: str,
    block: int = -1,
) -> Comparison:
    """Return the comparison for a speech encoder: all sides compute the state after the same block."""
    from transformers import AutoFeatureExtractor

    extractor, model = AutoFeatureExtractor.from_pretrained(folder), model.eval().float().to(device)

    @torch.no_grad()
    def usual(utterances: Sequence[Utterance], output: Path) -> None:
        for utterance in utterances:
            samples, rate = soundfile.read(utterance.audio, dtype="float32")
            inputs = extractor(samples, sampling_rate=rate, return_tensors="pt").to(device)
            result = model(**inputs, output_hidden_states=block != -1)
            state = result.last_hidden_state if block == -1 else result.hidden_states[block]
            np.save(output / f"{utterance.id}.npy", state[0].cpu().numpy())

    sides = {}
    for kind in [name, "whisper"] if name == "whisper-30s" else [name]:
        encoder, padding = build(kind, folder, block), ", no padding" if kind == "whisper" else ""
        for batching, batched in BATCHING.items():
            sides[f"affekt, {batching}{padding}"] = extraction(encoder, kind, device, batched)
    return Comparison(title, usual, sides, utterances)


def build(name: str, folder: Path, block: int = -1) -> Any:
    kind = features[name]
    if name == "whisper":  # has no block -1; the usual loop returns the last block
        depth = json.loads((folder / "config.json").read_text())["encoder_layers"]
        return kind.from_folder(folder, kind.Config(blocks=(depth,)))
    return kind.from_folder(folder, kind.Config(blocks=(block,)))


def extraction(encoder: Any, name: str, device: str, batched: bool) -> Side:
    def side(utterances: Sequence[Utterance]) -> None:
        extract(encoder, name, utterances, device=device, batched=batched)

    return side


def whisper(folder: Path, utterances: Sequence[Utterance], device: str) -> Comparison:
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    path, title = Path(os.environ.get("AFFEKT_MODELS", "")) / "whisper-tiny.en-encoder", "Whisper tiny.en"
    if not path.is_dir():
        path, title = folder / "whisper", "Whisper tiny, random weights"
        config = WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)
        WhisperEncoder(config).save_pretrained(path)
        WhisperFeatureExtractor().save_pretrained(path)
    return compare_speech("whisper-30s", title, path, WhisperEncoder.from_pretrained(path), utterances, device)


def hubert(folder: Path, utterances: Sequence[Utterance], device: str, block: int = -1) -> Comparison:
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    model, path = HubertModel(HubertConfig(**BASE)), folder / "hubert"
    model.save_pretrained(path)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(path)
    which = "last block" if block == -1 else f"block {block} of {BASE['num_hidden_layers']}"
    return compare_speech("hubert", f"HuBERT base, {which}, random weights", path, model, utterances, device, block)


def wav2vec2(folder: Path, utterances: Sequence[Utterance], device: str) -> Comparison:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(**BASE, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
    model, path = Wav2Vec2Model(config), folder / "wav2vec2"
    model.save_pretrained(path)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(path)
    title = "wav2vec 2.0, base size with layer norms, random weights"
    return compare_speech("wav2vec2", title, path, model, utterances, device)


def minilm(_: Path, utterances: Sequence[Utterance], device: str) -> Comparison:
    from transformers import AutoModel, AutoTokenizer

    path = Path(os.environ.get("AFFEKT_MODELS", "")) / "minilm-l6-v2"
    if not path.is_dir():
        raise SystemExit("minilm needs minilm-l6-v2/ in AFFEKT_MODELS; use --only to leave it out")
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval().float().to(device)

    @torch.no_grad()
    def usual(utterances: Sequence[Utterance], output: Path) -> None:
        for utterance in utterances:
            inputs = tokenizer(utterance.text, return_tensors="pt").to(device)
            np.save(output / f"{utterance.id}.npy", model(**inputs).last_hidden_state[0].cpu().numpy())

    encoder = build("minilm", path)
    sides = {f"affekt, {batching}": text_extraction(encoder, device, batched) for batching, batched in BATCHING.items()}
    return Comparison("MiniLM", usual, sides, texts(4 * len(utterances)), spoken=False)


def text_extraction(encoder: Any, device: str, batched: bool) -> Side:
    def side(utterances: Sequence[Utterance]) -> None:
        extract_text(encoder, "minilm", utterances, device=device, batched=batched)

    return side


def texts(count: int) -> list[Utterance]:
    """Return texts that all differ, since the store computes equal texts only once."""
    generator = np.random.default_rng(0)
    words = SENTENCE.split()
    return [
        Utterance(str(number), "texts", None, "neutral", text=f"{number} " + " ".join(generator.choice(words, size)))
        for number, size in enumerate(generator.integers(3, 30, count))
    ]


COMPARISONS: dict[str, Callable[[Path, Sequence[Utterance], str], Comparison]] = {
    "whisper": whisper,
    "hubert": hubert,
    "hubert-middle": partial(hubert, block=6),  # the blocks after the requested one need not run
    "wav2vec2": wav2vec2,
    "minilm": minilm,
}


def show(result: dict[str, Any]) -> None:
    print("{processor}, {threads} threads, device {device}, torch {torch}".format(**result))
    print("{clips} clips of {source}, {seconds_of_speech} s; medians of {rounds} rounds\n".format(**result))
    print(f"{'':<52}{'per second':>20}{'times as fast as the loop':>26}")
    print(f"{'':<52}{'clips':>10}{'s speech':>10}{'elapsed':>14}{'CPU':>12}")
    for encoder in result["encoders"]:
        print(encoder["encoder"])
        for name, side in encoder["sides"].items():
            speech = side["speech_seconds_per_second"]
            line = f"  {name:<50}{side['clips_per_second']:>10.2f}{'' if speech is None else f'{speech:.1f}':>10}"
            print(f"{line}{side['ratio']:>14.2f}{side['cpu_ratio']:>12.2f}")


if __name__ == "__main__":
    main()
