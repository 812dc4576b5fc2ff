"""A minimal model, as the file of a new model would define it, for the test that one file and one line are enough."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from affekt.models.base import EmotionModel, PaperSizes, check_sizes
from affekt.models.layers import Classifier, Pooling, StreamInput


@dataclass(frozen=True)
class DummyConfig:
    speech_dim: int = 40
    text_dim: int = 30
    dim: int = 64
    dropout: float = 0.1

    def __post_init__(self):
        check_sizes(self)


class Dummy(EmotionModel):
    Config = DummyConfig
    streams = ("speech", "text")
    paper = PaperSizes(num_emotions=4, frames={"speech": 100, "text": 20})
    presets: ClassVar = {"small": {"dim": 16}}
    tiny: ClassVar = {"speech_dim": 6, "text_dim": 7, "dim": 12}

    def __init__(self, config, num_emotions):
        super().__init__()
        self.config, self.num_emotions = config, num_emotions
        self.dims = {"speech": config.speech_dim, "text": config.text_dim}
        self.inputs = nn.ModuleDict({name: StreamInput(dim, config.dim) for name, dim in self.dims.items()})
        self.pooling = Pooling("mean+std")
        width = 2 * self.pooling.width(config.dim)
        self.classifier = Classifier(width, num_emotions, hidden=(config.dim,), dropout=config.dropout)

    @classmethod
    def build(cls, config, specs, num_emotions):
        sizes = {f"{name}_dim": specs[name].dim for name in cls.streams}
        return cls(replace(config, **sizes), num_emotions)

    def embed(self, batch):
        pooled = []
        for name in self.streams:
            stream = self.inputs[name].prepare(batch.streams[name], masked=True)
            pooled.append(self.pooling(self.inputs[name](stream.values), stream.mask))
        return torch.cat(pooled, dim=1)

    def forward(self, batch):
        return self.classifier(self.embed(batch))

    def explain(self, batch):
        return {"embedding": self.embed(batch)}

    @property
    def output_layer(self):
        return self.classifier.output_layer
