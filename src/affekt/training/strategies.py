"""Training strategies: their interface, and the registry from which a recipe selects a strategy by name.

The training loop handles epochs, the order of utterances, run folders and resuming; a strategy handles networks, optimizers
and losses. A strategy that alternates two optimizers, such as an architecture search, uses the same loop.
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
    """The utterances to train on, with their augmented copies."""
    scored: Mapping[str, Dataset]
    """Subset -> the utterances whose predictions are recorded after every epoch."""


@dataclass(frozen=True)
class TrainingContext:
    """Settings and data of a training run that a strategy may need in addition to its own settings."""

    batch_size: int
    seed: int
    epochs: int
    """Number of epochs of the whole run."""
    masking: Masking
    speakers: Sequence[str] | None
    """The speaker of each training utterance; None unless all are known."""


class Strategy(Protocol):
    """A way to train a model."""

    Config: ClassVar[type]
    """The frozen dataclass of its settings, the keys of [training.strategy] besides `name`."""

    @classmethod
    def check(cls, config: Any, training: TrainingConfig) -> None:
        """Raise `BadConfig` if [training] has settings that the strategy does not support."""

    @classmethod
    def validation_setting(cls, config: Any) -> str:
        """Return the setting that needs a validation subset, such as "learn_alphas_on = 'validation'"; "" for none."""

    @classmethod
    def prepare(
        cls, config: Any, model: EmotionModel, datasets: Datasets, context: TrainingContext
    ) -> tuple[Strategy, Datasets]:
        """Return a strategy that trains the model, and the datasets for the loop, which the strategy may have changed."""

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """Train on a batch and return the values to log; `progress` goes from 0 to 1 over the whole run."""

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        """Return the probabilities that the model predicts with the weights that `weights` returns."""

    def weights(self) -> Mapping[str, Tensor]:
        """Return the weights that `predict` uses and the run folder stores, by their names in the model."""

    def notes(self) -> dict[str, Any]:
        """Return further values to log after an epoch."""

    def state(self) -> dict[str, Any]:
        """Return the state from which a resumed run reaches exactly the same weights."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state` returned."""
