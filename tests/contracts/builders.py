"""Small models and batches of every kind in the registry, for the tests that hold for all of them."""

from dataclasses import replace

import torch

from affekt.batch import Batch, Stream
from affekt.models import models

EMOTIONS = 3
DIM = 6

# The settings of a small model that masks its padding; one entry per registered model.
TINY = {
    "mstr": {
        "frames": "any",
        "masked": True,
        "norm": "features",
        "dim": 32,
        "input_dim": DIM,
        "blocks": 2,
        "heads": 2,
        "feedforward": 16,
    },
    "vanilla": {
        "frames": "any",
        "masked": True,
        "norm": "features",
        "dim": 32,
        "input_dim": DIM,
        "blocks": 2,
        "heads": 2,
        "feedforward": 16,
    },
}
# What silences every source of chance, by model: the settings' names.
DROPOUTS = {
    "mstr": ("dropout", "attention_dropout", "classifier_dropout"),
    "vanilla": ("dropout", "attention_dropout", "classifier_dropout"),
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
