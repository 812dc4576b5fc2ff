"""The frozen encoders that the papers put before their models, at published sizes, counted without loading weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from affekt.audio.read import SAMPLE_RATE
from affekt.cost.count import count_operations, on_meta
from affekt.extras import need
from affekt.models.base import EmotionModel


@dataclass(frozen=True)
class EncoderCost:
    """The cost of an encoder for one utterance.

    A fixed computation (MFCC, spectrogram) or a table (GloVe) has no network: its parameters and operations are 0.
    """

    stream: str
    encoder: str
    frames: int
    """The number of output frames; of input frames if the output is one vector per utterance."""
    parameters: int
    flops: int


@dataclass(frozen=True)
class PublishedEncoder:
    """A published encoder."""

    title: str
    make: Callable[[], nn.Module] | None = None
    """Builds the network; None if the encoder has none."""
    make_input: Callable[[int], Tensor] = lambda frames: torch.zeros(1, frames, dtype=torch.long)
    """Builds an input from which the network computes this number of frames; by default token ids."""


def _transformers(kind: str, **settings: Any) -> nn.Module:
    transformers = need("transformers", extra="train", purpose="counting an encoder")
    options = {} if kind == "Hubert" else {"add_pooling_layer": False}  # the pooler is a layer after the last block
    config = getattr(transformers, f"{kind}Config")(attn_implementation="eager", **settings)
    return getattr(transformers, f"{kind}Model")(config, **options)


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
"""Settings of a transformer of the size "large", as in BERT and HuBERT."""


def _hubert_large() -> nn.Module:
    return _transformers("Hubert", **LARGE, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True)


def _bert_base() -> nn.Module:
    return _transformers("Bert")


def _roberta_large() -> nn.Module:
    return _transformers("Roberta", **LARGE, vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)


def _wav2vec_large() -> nn.Module:
    from affekt.features.wav2vec import Wav2Vec, Wav2VecConfig

    return Wav2Vec(Wav2VecConfig())


def _ecapa() -> nn.Module:
    from affekt.features.speaker import ECAPA, ECAPAConfig

    return ECAPA(ECAPAConfig())


assert SAMPLE_RATE == 16_000  # the numbers of samples below assume it
ENCODERS = {
    # A frame of 25 ms every 20 ms: 400 samples for the first, 320 more for each further frame.
    "hubert-large": PublishedEncoder("HuBERT large", _hubert_large, lambda frames: torch.zeros(1, 320 * frames + 80)),
    # A frame of 29 ms every 10 ms, before the aggregator.
    "wav2vec-large": PublishedEncoder(
        "wav2vec large", _wav2vec_large, lambda frames: torch.zeros(1, 160 * frames + 305)
    ),
    "ecapa": PublishedEncoder("ECAPA-TDNN", _ecapa, lambda frames: torch.zeros(1, 160 * frames)),
    "bert-base": PublishedEncoder("BERT base", _bert_base),
    "roberta-large": PublishedEncoder("RoBERTa large", _roberta_large),
    "mfcc": PublishedEncoder("MFCC"),
    "spectrogram": PublishedEncoder("spectrogram"),
    "glove": PublishedEncoder("GloVe"),
}
SPEAKER_FRAMES = 2
"""ECAPA frames of 10 ms for each HuBERT frame of 20 ms; TDFNet's paper computes both from the same utterance."""


def encoders_of(kind: type[EmotionModel], frames: Mapping[str, int]) -> tuple[EncoderCost, ...]:
    """Return the costs of the encoders that a model's paper uses.

    Args:
        kind: The model.
        frames: The number of frames of the utterance, by stream.
    """
    costs = []
    for stream, encoder in kind.paper.encoders.items():
        if stream in frames:
            count = frames[stream] * encoder.frames or frames.get("speech", 0) * SPEAKER_FRAMES
            costs.append(_cost(stream, ENCODERS[encoder.name], count))
    return tuple(costs)


def _cost(stream: str, encoder: PublishedEncoder, frames: int) -> EncoderCost:
    if encoder.make is None:
        return EncoderCost(stream, encoder.title, frames, 0, 0)
    network = on_meta(encoder.make)
    inputs = on_meta(lambda: encoder.make_input(frames))
    parameters = sum(p.numel() for p in network.parameters())
    return EncoderCost(stream, encoder.title, frames, parameters, count_operations(lambda: network(inputs)))
