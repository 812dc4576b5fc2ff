"""Train the perceptron of a fusion on the outputs of its frozen branches, which are computed once.

The branches are in evaluation mode, so their outputs are the same in every epoch. The result is therefore the same as if
they were computed in every epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.errors import BadConfig
from affekt.features.augment import Augmentation
from affekt.models.base import EmotionModel, FeatureSpec
from affekt.models.emotionnas.fusion import DecisionFusion
from affekt.training.dataset import Dataset, scoring_batches
from affekt.training.strategies import Datasets, TrainingContext
from affekt.training.supervised import Supervised, SupervisedConfig, class_counts

if TYPE_CHECKING:
    from affekt.training.recipe import TrainingConfig

BRANCH_OUTPUTS = "branch_outputs"
"""The stream of both branches' probabilities, (utterances, 2 * emotions)."""


def precompute_branch_outputs(model: DecisionFusion, dataset: Dataset, batch_size: int) -> Dataset:
    """Return the dataset with the outputs of the model's branches instead of their input features."""
    model.eval()
    device = next(model.parameters()).device
    outputs: dict[int, NDArray[np.float32]] = {}
    with torch.no_grad():
        for indices in scoring_batches(dataset.lengths(), batch_size):
            values = model.embed(dataset.batch(indices).to(device)).cpu().numpy()
            outputs.update(zip(indices, values, strict=True))
    stream = [outputs[index] for index in range(len(dataset))]
    return replace(
        dataset,
        features={BRANCH_OUTPUTS: stream},
        specs={BRANCH_OUTPUTS: FeatureSpec(2 * model.num_emotions, None, has_time=False)},
        word_index={},
        copies=(),
        copy_probability=0.0,
        crop=0.0,
    )


class PerceptronOnOutputs(nn.Module):
    """The fusion's perceptron, from a batch of the branches' outputs to logits."""

    def __init__(self, model: DecisionFusion) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        logits: Tensor = self.model.perceptron(batch.streams[BRANCH_OUTPUTS].values)
        return logits


class FusionStrategy(Supervised):
    """The strategy "frozen-fusion": trains the perceptron with cross-entropy; its weights include those of the branches."""

    @classmethod
    def check(cls, config: SupervisedConfig, training: TrainingConfig) -> None:
        super().check(config, training)
        if training.augmentation != Augmentation():
            raise BadConfig(
                "the strategy 'frozen-fusion' computes the branches' outputs once, so it allows no augmentation: "
                "set strategy.name = 'supervised'"
            )

    @classmethod
    def prepare(
        cls, config: SupervisedConfig, model: EmotionModel, datasets: Datasets, context: TrainingContext
    ) -> tuple[FusionStrategy, Datasets]:
        """Return the strategy and datasets of the branches' outputs. Raises `BadConfig` unless the branches are frozen."""
        if not isinstance(model, DecisionFusion) or not model.config.frozen:
            raise BadConfig("the strategy 'frozen-fusion' needs the model 'emotionnas-fusion' with frozen = true")
        counts = class_counts(datasets.train, model)
        scored = {
            subset: precompute_branch_outputs(model, dataset, context.batch_size)
            for subset, dataset in datasets.scored.items()
        }
        train = precompute_branch_outputs(model, datasets.train, context.batch_size)
        return cls(model, config, counts=counts, epochs=context.epochs), Datasets(train, scored)

    def __init__(self, model: DecisionFusion, config: SupervisedConfig, **options: Any) -> None:
        self.perceptron = PerceptronOnOutputs(model)
        super().__init__(model, config, forward=self.perceptron, **options)

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        self.perceptron.eval()
        weights: Mapping[str, Tensor] = {f"model.{name}": value for name, value in self.weights().items()}
        with torch.no_grad():
            logits = torch.func.functional_call(self.perceptron, dict(weights), (batch.to(self.device),))
        return logits.softmax(dim=1)
