"""Small models and synthetic batches for the tests that hold for every model in the registry."""

from dataclasses import fields, is_dataclass, replace

import torch

from affekt.batch import Batch, Stream
from affekt.models import models

NUM_EMOTIONS = 3
# Model -> why padding changes its output even in its tiny form. The test of padding skips these models.
WITHOUT_MASKS: dict[str, str] = {}


def tiny_config(name, **changes):
    """Return the settings of a model's tiny form."""
    model = models[name]
    return model.Config(**{**model.tiny, **changes})


def tiny(name, **changes):
    """Build a model's tiny form, in 64 bits and in evaluation mode."""
    torch.manual_seed(0)
    model = models[name](tiny_config(name, **changes), NUM_EMOTIONS).double().eval()
    with torch.no_grad():  # away from the zeros and ones of an initialization, which hide mistakes
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand_like(tensor))
    return model


def without_dropout(config):
    """Return the settings with every dropout probability set to zero, in nested settings too."""
    changes = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            changes[field.name] = without_dropout(value)
        elif "drop" in field.name:
            changes[field.name] = 0.0
    return replace(config, **changes)


def synthetic_batch(model, lengths, seed=0):
    """Return utterances of these lengths, zero-padded and labeled, with every stream that the model needs.

    Streams of one utterance differ in length, so that no model can rely on equal lengths.
    """
    generator = torch.Generator().manual_seed(seed)
    streams = {
        name: synthetic_stream(model, name, [max(1, n - (n * index) // 3) for n in lengths], generator)
        for index, name in enumerate(model.streams)
    }
    return Batch(streams, tuple(map(str, range(len(lengths)))), torch.arange(len(lengths)) % NUM_EMOTIONS)


def synthetic_stream(model, name, lengths, generator):
    if model.paper.frames[name] == 0:
        return Stream(torch.randn(len(lengths), model.dims[name], generator=generator, dtype=torch.float64))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    values = torch.randn(*mask.shape, model.dims[name], generator=generator, dtype=torch.float64)
    return Stream(values * mask.unsqueeze(2), mask, 50.0)


def with_noise_in_the_padding(batch):
    """Return the same utterances with sevens instead of zeros in the padding."""
    streams = {
        name: stream
        if stream.mask is None
        else replace(stream, values=torch.where(stream.mask.unsqueeze(2), stream.values, 7.0))
        for name, stream in batch.streams.items()
    }
    return replace(batch, streams=streams)
