"""Small models and batches of every kind in the registry, for the tests that hold for all of them."""

from dataclasses import replace

import torch

from affekt.batch import Batch, Stream
from affekt.models import models
from affekt.models.emotionnas.genotypes import Genotype
from affekt.models.emotionnas.recurrent import RecurrentConfig
from affekt.models.emotionnas.spectrogram import SpectrogramBranchConfig

EMOTIONS = 3
DIM = 6

TEMPORAL = {
    "frames": "any",
    "masked": True,
    "norm": "features",
    "dim": 32,
    "input_dim": DIM,
    "blocks": 2,
    "heads": 2,
    "feedforward": 16,
}
SPECTROGRAM = {
    "genotype": Genotype(
        normal=(("sep_conv_3x3", 0), ("skip_connect", 1)), reduce=(("skip_connect", 0), ("dil_conv_3x3", 1))
    ),
    "channels": 4,
    "nodes": 1,
    "frames": 12,
    "input_dim": 8,
    "masked": True,
}
RECURRENT = {"layers": 1, "hidden": 12, "frames": 12, "input_dim": DIM, "masked": True, "input_norm": "standard"}

# The settings of a small model that masks its padding; one entry per registered model.
TINY = {
    "mstr": TEMPORAL,
    "vanilla": TEMPORAL,
    "ks_transformer": {
        "speech_frames": "any",
        "text_frames": "any",
        "speech_dim": DIM,
        "text_dim": DIM + 2,
        "speech_width": 16,
        "speech_feedforward": 12,
        "text_feedforward": 10,
        "heads": 2,
        "extraction_layers": 1,
        "ccabs": 1,
        "fusion_layers": 1,
        "masked": True,
        "input_norm": "standard",
    },
    "mcsan": {
        "speech_dim": DIM,
        "text_dim": DIM + 1,
        "dim": 16,
        "heads": 2,
        "feedforward": 16,
        "hidden": (16,),
        "pool_stride": 1,  # a ninth of so few frames is one, which leaves attention no choice
    },
    "tdfnet": {
        "speech_frames": "any",
        "text_tokens": "any",
        "masked": True,
        "speech_dim": DIM,
        "text_dim": DIM + 1,
        "speaker_dim": 5,
        "dim": 16,
        "heads": 2,
        "feedforward": 12,
        "layers": 1,
        "blocks": 1,
        "speech_stride": 3,
        "input_norm": "standard",
    },
    "emotionnas-spectrogram": SPECTROGRAM,
    "emotionnas-recurrent": RECURRENT,
    "emotionnas-fusion": {
        "spectrogram": SpectrogramBranchConfig(**SPECTROGRAM),
        "recurrent": RecurrentConfig(**RECURRENT),
        "frozen": False,
        "hidden": (16, 8),
    },
}
# What silences every source of chance, by model: the settings' names.
DROPOUTS = {
    "mstr": ("dropout", "attention_dropout", "classifier_dropout"),
    "vanilla": ("dropout", "attention_dropout", "classifier_dropout"),
    "ks_transformer": ("dropout", "attention_dropout", "classifier_dropout"),
    "mcsan": ("dropout", "attention_dropout", "encoder_dropout", "classifier_dropout"),
    "tdfnet": ("dropout", "attention_dropout", "fused_dropout"),
    "emotionnas-spectrogram": ("drop_path", "dropout"),
    "emotionnas-recurrent": ("dropout", "classifier_dropout"),
    "emotionnas-fusion": ("dropout",),
}
# Why a model's padding changes its answer even here; its other tests run on utterances that fill it.
WITHOUT_MASKS: dict[str, str] = {}


def tiny(name, **changes):
    torch.manual_seed(0)
    model = models[name](models[name].Config(**{**TINY[name], **changes}), EMOTIONS).double().eval()
    with torch.no_grad():  # away from the zeros and ones of an initialisation, which hide mistakes
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def without_chance(name):
    return dict.fromkeys(DROPOUTS[name], 0.0)


def synthetic_batch(model, lengths, seed=0):
    """Utterances of these lengths, padded with zeros, with labels; a stream for every part that the model needs.

    Streams differ in length, by an utterance's number, so that nothing can rely on their being alike.
    """
    generator = torch.Generator().manual_seed(seed)
    streams = {
        name: stream(model, name, [max(1, n - (n * place) // 3) for n in lengths], generator)
        for place, name in enumerate(model.streams)
    }
    return Batch(streams, tuple(map(str, range(len(lengths)))), torch.arange(len(lengths)) % EMOTIONS)


def stream(model, name, lengths, generator):
    if model.paper.frames[name] == 0:
        return Stream(torch.randn(len(lengths), model.dims[name], generator=generator, dtype=torch.float64))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    values = torch.randn(*mask.shape, model.dims[name], generator=generator, dtype=torch.float64)
    return Stream(values * mask.unsqueeze(2), mask, 50.0)


def with_noise_in_the_padding(batch):
    """The same utterances, but what stands in the padding is not zero."""
    streams = {
        name: stream
        if stream.mask is None
        else replace(stream, values=torch.where(stream.mask.unsqueeze(2), stream.values, 7.0))
        for name, stream in batch.streams.items()
    }
    return replace(batch, streams=streams)
