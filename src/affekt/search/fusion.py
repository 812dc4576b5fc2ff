"""Training a fusion over finished networks: what they answer is computed once, and the perceptron alone is trained on it.

The answers are those of a network in use, not in training; they are the same in every epoch, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.models.base import FeatureSpec
from affekt.models.emotionnas.fusion import DecisionFusion
from affekt.training.dataset import Dataset, scoring_batches
from affekt.training.supervised import Supervised, SupervisedConfig

DECISIONS = "decisions"  # the stream of both networks' probabilities, (utterances, 2 emotions)


def decided(model: DecisionFusion, dataset: Dataset, batch_size: int) -> Dataset:
    """The same utterances, with what the model's networks answer in the place of what they hear."""
    model.eval()
    device = next(model.parameters()).device
    answers: dict[int, NDArray[np.float32]] = {}
    with torch.no_grad():
        for indices in scoring_batches(dataset.lengths(), batch_size):
            values = model.embed(dataset.batch(indices).to(device)).cpu().numpy()
            answers.update(zip(indices, values, strict=True))
    stream = [answers[index] for index in range(len(dataset))]
    return replace(
        dataset,
        features={DECISIONS: stream},
        specs={DECISIONS: FeatureSpec(2 * model.emotions, None, has_time=False)},
        words={},
        copies=(),
        copy_probability=0.0,
        crop=0.0,
    )


class Decided(nn.Module):
    """The fusion as it is trained: from a batch of decisions to logits."""

    def __init__(self, model: DecisionFusion) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        logits: Tensor = self.model.perceptron(batch.streams[DECISIONS].values)
        return logits


class FusionStrategy(Supervised):
    """Cross-entropy on labels, of a fusion whose datasets are `decided`. Its weights are those of the whole model."""

    def __init__(self, model: DecisionFusion, config: SupervisedConfig, **options: Any) -> None:
        self.decided = Decided(model)
        super().__init__(model, config, forward=self.decided, **options)

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        self.decided.eval()
        weights: Mapping[str, Tensor] = {f"model.{name}": value for name, value in self.weights().items()}
        with torch.no_grad():
            logits = torch.func.functional_call(self.decided, dict(weights), (batch.to(self.device),))
        return logits.softmax(dim=1)
