"""How fast features are extracted: batches of like length beside the usual loop over files with transformers.

    python benchmarks/extraction.py [--corpus emodb] [--clips 32] [--threads 2] [--device cpu] [--json]

The usual loop is that of tutorials: read a file, call transformers' feature extractor, run transformers' model, save the
last hidden state, a file at a time. The other side is `affekt.features.extract.extract` into an empty store, reading,
hashing and storing included: in batches of like length, and one by one. All use the same weights, clips and threads. (The
weights too are hashed, once a call, which costs as much as a second or two of speech: take 32 clips or more.)

The sides take turns, and the order turns with every round; printed are medians over the rounds of clips per second and of
seconds of speech per second, both of elapsed time, and the ratios to the usual loop by elapsed and by CPU time. On a
machine that others use too, the CPU's is the steadier.

Without --corpus the clips are noise of 1 to 6 s: speed does not depend on what is said. Networks whose weights are not at
hand (AFFEKT_MODELS) are made of random ones, for the same reason; the names then say so. Texts are sentences of 4 to 30
words, four for each clip.
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
HOW = {"in batches of like length": True, "one by one": False}
Side = Callable[[Sequence[Utterance]], None]


@dataclass(frozen=True)
class Contest:
    """One encoder: the usual loop over its files, and the sides that are held against it."""

    name: str
    usual: Callable[[Sequence[Utterance], Path], None]
    sides: dict[str, Side]
    utterances: Sequence[Utterance]
    spoken: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="", help="NAME or NAME:PATH; noise without it")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", default=list(CONTESTS), choices=list(CONTESTS), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AFFEKT_CACHE"] = f"{folder}/cache"
        utterances = chosen(arguments.corpus, arguments.clips) if arguments.corpus else noises(folder, arguments.clips)
        seconds = sum(load(one.audio).size for one in utterances if one.audio) / 16_000
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
                measured(CONTESTS[name](Path(folder), utterances, arguments.device), arguments.rounds, seconds)
                for name in arguments.only
            ],
        }
    if arguments.json:
        print(json.dumps(result))
    else:
        show(result)


def chosen(corpus: str, count: int) -> list[Utterance]:
    """Utterances evenly spread over a corpus."""
    found = [one for one in Source.parse(corpus).read() if one.audio]
    return [found[index * len(found) // count] for index in range(min(count, len(found)))]


def noises(folder: str, count: int) -> list[Utterance]:
    draw, made = np.random.default_rng(0), []
    for number in range(count):
        path = Path(folder) / f"{number}.wav"
        soundfile.write(path, draw.uniform(-0.5, 0.5, int(draw.uniform(1, 6) * 16_000)), 16_000)
        made.append(Utterance(str(number), "noise", path, "neutral"))
    return made


def measured(contest: Contest, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians over the rounds of every side; one more round goes before them and does not count."""
    sides: dict[str, Callable[[], None]] = {
        "the usual loop": lambda: in_empty_folder(lambda folder: contest.usual(contest.utterances, folder)),
        **{name: partial(in_empty_store, side, contest.utterances) for name, side in contest.sides.items()},
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in [*list(sides)[number % len(sides) :], *list(sides)[: number % len(sides)]]:
            elapsed, processor = time.perf_counter(), time.process_time()
            sides[name]()
            if number:
                times[name].append((time.perf_counter() - elapsed, time.process_time() - processor))
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in times.items()}
    elapsed, processor = medians["the usual loop"]
    return {
        "encoder": contest.name,
        "sides": {
            name: {
                "clips_per_second": len(contest.utterances) / one[0],
                "speech_seconds_per_second": seconds / one[0] if contest.spoken else None,
                "cpu_seconds": one[1],
                "ratio": elapsed / one[0],
                "cpu_ratio": processor / one[1],
            }
            for name, one in medians.items()
        },
    }


def in_empty_folder(run: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))


def in_empty_store(side: Side, utterances: Sequence[Utterance]) -> None:
    shutil.rmtree(os.environ["AFFEKT_CACHE"], ignore_errors=True)
    side(utterances)


def speech(
    name: str,
    title: str,
    folder: Path,
    model: Any,
    utterances: Sequence[Utterance],
    device: str,
    block: int = -1,
) -> Contest:
    """A speech encoder's contest. Both sides give the state after one block; `folder` holds what transformers saved."""
    from transformers import AutoFeatureExtractor

    extractor, model = AutoFeatureExtractor.from_pretrained(folder), model.eval().float().to(device)

    @torch.no_grad()
    def usual(utterances: Sequence[Utterance], output: Path) -> None:
        for one in utterances:
            samples, rate = soundfile.read(one.audio, dtype="float32")
            inputs = extractor(samples, sampling_rate=rate, return_tensors="pt").to(device)
            found = model(**inputs, output_hidden_states=block != -1)
            state = found.last_hidden_state if block == -1 else found.hidden_states[block]
            np.save(output / f"{one.id}.npy", state[0].cpu().numpy())

    sides = {}
    for kind in [name, "whisper"] if name == "whisper-30s" else [name]:
        encoder, where = made(kind, folder, block), ", no padding" if kind == "whisper" else ""
        for how, batched in HOW.items():
            sides[f"affekt, {how}{where}"] = extraction(encoder, kind, device, batched)
    return Contest(title, usual, sides, utterances)


def made(name: str, folder: Path, block: int = -1) -> Any:
    kind = features[name]
    if name == "whisper":  # it counts its blocks from the first: its last is what the other side gives
        depth = json.loads((folder / "config.json").read_text())["encoder_layers"]
        return kind.from_folder(folder, kind.Config(blocks=(depth,)))
    return kind.from_folder(folder, kind.Config(blocks=(block,)))


def extraction(encoder: Any, name: str, device: str, batched: bool) -> Side:
    def side(utterances: Sequence[Utterance]) -> None:
        extract(encoder, name, utterances, device=device, batched=batched)

    return side


def whisper(folder: Path, utterances: Sequence[Utterance], device: str) -> Contest:
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    place, title = Path(os.environ.get("AFFEKT_MODELS", "")) / "whisper-tiny.en-encoder", "Whisper tiny.en"
    if not place.is_dir():
        place, title = folder / "whisper", "Whisper tiny, random weights"
        config = WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)
        WhisperEncoder(config).save_pretrained(place)
        WhisperFeatureExtractor().save_pretrained(place)
    return speech("whisper-30s", title, place, WhisperEncoder.from_pretrained(place), utterances, device)


def hubert(folder: Path, utterances: Sequence[Utterance], device: str, block: int = -1) -> Contest:
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    model, place = HubertModel(HubertConfig(**BASE)), folder / "hubert"
    model.save_pretrained(place)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(place)
    which = "last block" if block == -1 else f"block {block} of {BASE['num_hidden_layers']}"
    return speech("hubert", f"HuBERT base, {which}, random weights", place, model, utterances, device, block)


def wav2vec2(folder: Path, utterances: Sequence[Utterance], device: str) -> Contest:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(**BASE, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
    model, place = Wav2Vec2Model(config), folder / "wav2vec2"
    model.save_pretrained(place)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(place)
    title = "wav2vec 2.0, base size with layer norms, random weights"
    return speech("wav2vec2", title, place, model, utterances, device)


def minilm(_: Path, utterances: Sequence[Utterance], device: str) -> Contest:
    from transformers import AutoModel, AutoTokenizer

    place = Path(os.environ.get("AFFEKT_MODELS", "")) / "minilm-l6-v2"
    if not place.is_dir():
        raise SystemExit("minilm needs AFFEKT_MODELS with minilm-l6-v2/; leave it out by --only")
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place).eval().float().to(device)

    @torch.no_grad()
    def usual(utterances: Sequence[Utterance], output: Path) -> None:
        for one in utterances:
            inputs = tokenizer(one.text, return_tensors="pt").to(device)
            np.save(output / f"{one.id}.npy", model(**inputs).last_hidden_state[0].cpu().numpy())

    encoder = made("minilm", place)
    sides = {f"affekt, {how}": reading(encoder, device, batched) for how, batched in HOW.items()}
    return Contest("MiniLM", usual, sides, texts(4 * len(utterances)), spoken=False)


def reading(encoder: Any, device: str, batched: bool) -> Side:
    def side(utterances: Sequence[Utterance]) -> None:
        extract_text(encoder, "minilm", utterances, device=device, batched=batched)

    return side


def texts(count: int) -> list[Utterance]:
    """Texts that all differ: equal ones, which the store holds once, would be no contest."""
    draw = np.random.default_rng(0)
    words = SENTENCE.split()
    return [
        Utterance(str(number), "texts", None, "neutral", text=f"{number} " + " ".join(draw.choice(words, size)))
        for number, size in enumerate(draw.integers(3, 30, count))
    ]


CONTESTS: dict[str, Callable[[Path, Sequence[Utterance], str], Contest]] = {
    "whisper": whisper,
    "hubert": hubert,
    "hubert-middle": partial(hubert, block=6),  # what follows the block that is wanted need not run
    "wav2vec2": wav2vec2,
    "minilm": minilm,
}


def show(result: dict[str, Any]) -> None:
    print("{processor}, {threads} threads, device {device}, torch {torch}".format(**result))
    print("{clips} clips of {source}, {seconds_of_speech} s; medians of {rounds} rounds\n".format(**result))
    print(f"{'':<52}{'per second':>20}{'ratio to the usual loop':>26}")
    print(f"{'':<52}{'clips':>10}{'s speech':>10}{'elapsed':>14}{'CPU':>12}")
    for encoder in result["encoders"]:
        print(encoder["encoder"])
        for name, side in encoder["sides"].items():
            speech = side["speech_seconds_per_second"]
            line = f"  {name:<50}{side['clips_per_second']:>10.2f}{'' if speech is None else f'{speech:.1f}':>10}"
            print(f"{line}{side['ratio']:>14.2f}{side['cpu_ratio']:>12.2f}")


if __name__ == "__main__":
    main()
