"""Small models and batches of every kind in the registry, for the tests that hold for all of them."""

from dataclasses import replace

import torch

from affekt.batch import Batch, Stream
from affekt.models import models

EMOTIONS = 3
DIM = 6

# The settings of a small model that masks its padding; one entry per registered model.
TINY = {
    "mstr": {"frames": "any", "masked": True, "norm": "features", "dim": 32, "input_dim": DIM, "blocks": 2, "heads": 2},
    "vanilla": {
        "frames": "any",
        "masked": True,
        "norm": "features",
        "dim": 32,
        "input_dim": DIM,
        "blocks": 2,
        "heads": 2,
    },
}


def tiny(name, **changes):
    torch.manual_seed(0)
    settings = {**TINY[name], "feedforward": 16, **changes}
    model = models[name](models[name].Config(**settings), EMOTIONS).double().eval()
    with torch.no_grad():  # away from the zeros and ones of an initialisation, which hide mistakes
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def synthetic_batch(model, lengths, seed=0):
    """Utterances of these lengths, padded with zeros, with labels; a stream for every part that the model needs."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    streams = {
        name: Stream(
            torch.randn(*mask.shape, DIM, generator=generator, dtype=torch.float64) * mask.unsqueeze(2), mask, 50.0
        )
        for name in model.streams
    }
    return Batch(streams, tuple(map(str, range(len(lengths)))), torch.arange(len(lengths)) % EMOTIONS)


def with_noise_in_the_padding(batch):
    """The same utterances, but what stands in the padding is not zero."""
    streams = {
        name: replace(stream, values=torch.where(stream.mask.unsqueeze(2), stream.values, torch.tensor(7.0).double()))
        for name, stream in batch.streams.items()
    }
    return replace(batch, streams=streams)
