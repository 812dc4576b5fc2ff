"""The ways to train a model: the contract of a strategy, and the registry from which a recipe chooses one by its name.

The loop knows epochs, the order of utterances, records and resumption; a strategy knows networks, optimizers and losses.
One that alternates two optimizers, such as an architecture search, therefore needs no loop of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from jaxtyping import Float
from torch import Tensor

from affekt.batch import Batch
from affekt.features.augment import Masking
from affekt.models.base import EmotionModel
from affekt.registry import Registry
from affekt.training.dataset import Dataset

if TYPE_CHECKING:
    from affekt.training.recipe import TrainingConfig

DEFAULT = "supervised"

strategies = Registry(
    "strategy",
    {
        "supervised": "affekt.training.supervised:Supervised",
        "darts": "affekt.search.darts:ArchitectureSearch",
        "frozen-fusion": "affekt.search.fusion:FusionStrategy",
    },
)


@dataclass(frozen=True)
class Datasets:
    """The datasets of one fold."""

    train: Dataset
    """The utterances that the weights learn from, with their augmented copies."""
    scored: Mapping[str, Dataset]
    """Subset -> the utterances whose predictions are recorded after every epoch."""


@dataclass(frozen=True)
class TrainingContext:
    """Facts about a training that a strategy may need beside its own settings."""

    batch_size: int
    seed: int
    masking: Masking
    speakers: Sequence[str] | None
    """The speaker of each training utterance; None where not all are known."""


class Strategy(Protocol):
    """A way to train a model."""

    Config: ClassVar[type]
    """The frozen dataclass of its settings, the keys of [training.strategy] beside `name`."""

    @classmethod
    def check(cls, config: Any, training: TrainingConfig) -> None:
        """Raise `BadConfig` where the training has settings that the strategy cannot honour."""

    @classmethod
    def validation_setting(cls, config: Any) -> str:
        """Return the setting, such as "learn_alphas_on = 'validation'", that needs a validation subset; "" for none."""

    @classmethod
    def prepare(
        cls, config: Any, model: EmotionModel, datasets: Datasets, context: TrainingContext
    ) -> tuple[Strategy, Datasets]:
        """Return the strategy for a model, and the datasets that the loop trains and scores it on."""

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """Train on a batch and return the values to log; `progress` goes from 0 to 1 over the whole training."""

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        """Return probabilities, computed with the weights that would be used after training."""

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights that `predict` uses, under the model's names."""

    def notes(self) -> dict[str, Any]:
        """Return further values to log after an epoch."""

    def state(self) -> dict[str, Any]:
        """Return everything that a resumed training needs to reach exactly the same weights."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
