"""The bi-level search for the cells of EmotionNAS's spectrogram branch (Sun et al., arXiv 2203.13617 v1, section 2.1, eq. 3).

The network's weights learn from the training set and the architecture weights (alphas) from other utterances, in alternating
steps, as in DARTS (Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 2.3).
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.errors import BadConfig
from affekt.features.augment import Augmentation
from affekt.models.base import EmotionModel
from affekt.models.emotionnas.collapse import count_skips, is_collapsed
from affekt.models.emotionnas.spectrogram import SpectrogramBranch
from affekt.plural import quantity
from affekt.training.dataset import Dataset
from affekt.training.distributed import average_gradients
from affekt.training.strategies import Datasets, TrainingContext

if TYPE_CHECKING:
    from affekt.training.recipe import TrainingConfig

logger = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]
"""Name in the model's state -> tensor."""

RADIUS = 0.01
"""The finite difference of the second order moves the weights by R v in both directions, where v is a gradient with
respect to the weights and R = RADIUS / |v|, as in DARTS."""


@dataclass(frozen=True)
class ArchitectureSearchConfig:
    """How weights and alphas are trained.

    The defaults of `learning_rate`, `momentum`, `weight_decay` and `alpha_rate` are from the paper (section 3.3), the others,
    which it does not state, are from DARTS's code.
    """

    order: Literal["first", "second"] = "first"
    """Order of the alphas' gradient. A step of the second order takes almost three times as long. The paper's eq. 3 leaves
    the order open."""
    learning_rate: float = 0.025
    """Initial learning rate of the weights, by SGD."""
    final_rate: float = 1e-3
    """Final learning rate of the weights, reached along a cosine."""
    momentum: float = 0.9
    """Momentum of the weights."""
    weight_decay: float = 3e-4
    """Weight decay of the weights."""
    clip: float = 5.0
    """Largest norm of the weights' gradient; 0 for no clipping."""
    alpha_rate: float = 3e-4
    """Learning rate of the alphas, by Adam."""
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    """Betas of the alphas' Adam."""
    alpha_decay: float = 1e-3
    """Weight decay of the alphas, added to their gradient (Adam, not AdamW)."""
    alpha_start: float = 0.0
    """Fraction of the training after which the alphas start to learn. Above 0, it makes a collapse less likely; not in the
    paper."""
    learn_alphas_on: Literal["validation", "half"] = "validation"
    """The utterances that the alphas learn from: the validation subset, as in the paper, or half of the training subset."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha_start < 1:
            raise BadConfig(
                f"alpha_start = {self.alpha_start}: expected a fraction of the training, at least 0 and below 1, such as 0.3"
            )


class ArchitectureSearch:
    """The strategy "darts": alternates a step of the alphas and a step of the weights.

    Several processes average both gradients. An alpha of minus infinity excludes its operation from the search, and never
    changes.
    """

    Config: ClassVar[type[ArchitectureSearchConfig]] = ArchitectureSearchConfig

    @classmethod
    def check(cls, config: ArchitectureSearchConfig, training: TrainingConfig) -> None:  # noqa: ARG003
        if training.tune != "head" or training.augmentation != Augmentation() or training.votes:
            raise BadConfig("an architecture search needs tune = 'head', no augmentation and no votes")

    @classmethod
    def validation_setting(cls, config: ArchitectureSearchConfig) -> str:
        return "learn_alphas_on = 'validation'" if config.learn_alphas_on == "validation" else ""

    @classmethod
    def prepare(
        cls, config: ArchitectureSearchConfig, model: EmotionModel, datasets: Datasets, context: TrainingContext
    ) -> tuple[ArchitectureSearch, Datasets]:
        """Return the strategy and the datasets to train on.

        With `learn_alphas_on = "half"`, the training set is the half of the training subset that the weights learn from.
        """
        if config.learn_alphas_on == "validation":
            logger.info(
                "the alphas learn from the validation subset, which also selects the epoch: scores on it are optimistic"
            )
            return cls(model, config, datasets.scored["validation"], context.batch_size), datasets
        train, alpha_dataset = split_in_halves(datasets.train, context.seed, context.speakers)
        logger.info(
            "the weights learn from %d utterances of the training subset, the alphas from %d",
            len(train),
            len(alpha_dataset),
        )
        return cls(model, config, alpha_dataset, context.batch_size), replace(datasets, train=train)

    def __init__(
        self, model: EmotionModel, config: ArchitectureSearchConfig, alpha_dataset: Dataset, batch_size: int
    ) -> None:
        """Create the optimizers of weights and alphas.

        Args:
            model: A supernet: a spectrogram branch with alphas.
            config: The settings.
            alpha_dataset: The utterances that the alphas learn from.
            batch_size: Number of utterances in a batch for the alphas.

        Raises:
            BadConfig: The model has no alphas, or `alpha_dataset` is empty.
        """
        if not isinstance(model, SpectrogramBranch) or not model.alphas():
            raise BadConfig(
                "this model has no architecture to search for: the strategy 'darts' needs the model "
                "'emotionnas-spectrogram' without a genotype"
            )
        if not len(alpha_dataset):
            raise BadConfig(
                "there are no utterances for the alphas to learn from: use a protocol with a validation subset, or set "
                "learn_alphas_on = 'half'"
            )
        self.model, self.config, self.alpha_dataset, self.batch_size = model, config, alpha_dataset, batch_size
        self.parameters = dict(model.named_parameters())
        alpha_ids = {id(alpha) for alpha in model.alphas().values()}
        self.alphas = {name: buffer for name, buffer in model.named_buffers() if id(buffer) in alpha_ids}
        self.device = next(model.parameters()).device
        self.weight_optimizer = torch.optim.SGD(
            self.parameters.values(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas.values(), lr=config.alpha_rate, betas=config.alpha_betas, weight_decay=config.alpha_decay
        )

    def rate(self, progress: float) -> float:
        """Return the weights' learning rate. In DARTS it changes after every epoch, here after every step."""
        span = self.config.learning_rate - self.config.final_rate
        return self.config.final_rate + 0.5 * span * (1 + math.cos(math.pi * progress))

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """Take a step of the alphas, then a step of the weights.

        Returns:
            `loss`, on the batch, and `alpha_loss`, on a batch of the utterances that the alphas learn from. With
            `order = "second"`, once the alphas learn, `alpha_loss` is computed with the weights after their next step.
        """
        self.model.train()
        batch, alpha_batch, rate = batch.to(self.device), self._draw_alpha_batch().to(self.device), self.rate(progress)
        if progress < self.config.alpha_start:
            alpha_loss, _ = self._gradients_without_side_effects(alpha_batch, self._tensors(), ())
        else:
            alpha_loss, gradients = self._alpha_gradients(batch, alpha_batch, rate)
            self._update_alphas(gradients)
        loss, gradients = self._gradients(batch, self._tensors(), self.parameters)
        for group in self.weight_optimizer.param_groups:
            group["lr"] = rate
        _apply_gradients(self.weight_optimizer, self.parameters, gradients, clip=self.config.clip)
        return {"loss": loss, "alpha_loss": alpha_loss}

    def _draw_alpha_batch(self) -> Batch:
        """Draw a batch for the alphas, as in DARTS, with torch's generator, which the training loop seeds."""
        return self.alpha_dataset.batch(torch.randperm(len(self.alpha_dataset))[: self.batch_size].tolist())

    def _update_alphas(self, gradients: Tensors) -> None:
        excluded = {name: alpha.isneginf() for name, alpha in self.alphas.items()}
        _apply_gradients(self.alpha_optimizer, self.alphas, gradients)
        with torch.no_grad():
            for name, alpha in self.alphas.items():  # weight decay turns infinite alphas into NaN
                alpha.masked_fill_(excluded[name], -math.inf)

    def _tensors(self) -> dict[str, Tensor]:
        """Return the current weights and alphas."""
        return {**self.parameters, **self.alphas}

    def _alpha_gradients(self, batch: Batch, alpha_batch: Batch, rate: float) -> tuple[float, Tensors]:
        """Return the loss on `alpha_batch` and the alphas' gradients; `batch` and `rate` are those of the weights' step."""
        if self.config.order == "first":
            return self._gradients_without_side_effects(alpha_batch, self._tensors(), self.alphas)
        return self._second_order_gradients(batch, alpha_batch, rate)

    def _second_order_gradients(self, batch: Batch, alpha_batch: Batch, rate: float) -> tuple[float, Tensors]:
        """Return the loss on `alpha_batch` after the weights' next step on `batch`, and the alphas' gradients of that loss.

        The weights' step depends on the alphas too, which adds a product of second derivatives with v, the weights'
        gradient of the loss after the step. The product is approximated by a finite difference of the alphas' gradients at
        two points along v (DARTS, eq. 7 and 8).
        """
        tensors = self._tensors()
        _, weight_gradients = self._gradients_without_side_effects(batch, tensors, self.parameters)
        stepped = {**tensors, **self._weights_after_step(weight_gradients, rate)}
        loss, gradients = self._gradients_without_side_effects(alpha_batch, stepped, [*self.alphas, *self.parameters])
        v = {name: gradients[name] for name in self.parameters}
        norm = float(torch.cat([gradient.flatten() for gradient in v.values()]).norm())
        if not norm:  # the second term is zero, and RADIUS / |v| undefined
            return loss, {name: gradients[name] for name in self.alphas}
        radius = RADIUS / norm
        above, below = (
            self._gradients_without_side_effects(
                batch, {**tensors, **{name: tensors[name] + shift * v[name] for name in v}}, self.alphas
            )[1]
            for shift in (radius, -radius)
        )
        return loss, {name: gradients[name] - rate * (above[name] - below[name]) / (2 * radius) for name in self.alphas}

    def _weights_after_step(self, gradients: Tensors, rate: float) -> dict[str, Tensor]:
        """Return the weights after a step of SGD, with momentum and weight decay but, as in DARTS, without clipping."""
        weights = {}
        for name, weight in self.parameters.items():
            momentum_buffer = self.weight_optimizer.state.get(weight, {}).get("momentum_buffer")
            update = gradients[name] + self.config.weight_decay * weight
            if momentum_buffer is not None:
                update = self.config.momentum * momentum_buffer + update
            weights[name] = weight - rate * update
        return weights

    def _gradients_without_side_effects(
        self, batch: Batch, tensors: Tensors, wanted: Collection[str]
    ) -> tuple[float, Tensors]:
        """Return the same as `_gradients`, but change neither running statistics nor the random generators.

        All passes of a step therefore have the same dropout, and two of them differ by their weights alone. In DARTS, such
        passes update the running statistics; here only the weights' steps do.
        """
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers() if name not in self.alphas}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            return self._gradients(batch, {**buffers, **tensors}, wanted)

    def _gradients(self, batch: Batch, tensors: Tensors, wanted: Collection[str]) -> tuple[float, Tensors]:
        """Return the model's loss and gradients with other weights, alphas or buffers; no `.grad` is set.

        Args:
            batch: The utterances.
            tensors: Tensors to use instead of the model's.
            wanted: Names of the tensors to differentiate by. Their gradients are averaged over all processes.
        """
        leaves = {name: tensor.detach().requires_grad_(name in wanted) for name, tensor in tensors.items()}
        logits = torch.func.functional_call(self.model, leaves, (batch,))
        target = batch.labels if batch.soft_labels is None else batch.soft_labels.to(logits.dtype)
        assert target is not None
        loss = F.cross_entropy(logits, target)
        if not wanted:
            return float(loss), {}
        if not loss.requires_grad:  # if all operations but "none" are excluded, the loss depends on no wanted tensor
            return float(loss), {name: torch.zeros_like(leaves[name]) for name in wanted}
        # Tensors that no operation uses get a gradient of zero, so that SGD and `_weights_after_step` treat them alike.
        gradients = torch.autograd.grad(loss, [leaves[name] for name in wanted], materialize_grads=True)
        return float(loss.detach()), dict(zip(wanted, average_gradients(gradients), strict=True))

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        """Return the predictions of the supernet, not of the network derived from it."""
        self.model.eval()
        with torch.no_grad():
            return self.model(batch.to(self.device)).softmax(dim=1)

    def weights(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def notes(self) -> dict[str, Any]:
        """Return the alphas, the genotype derived from them, and whether it has collapsed.

        `entropy` is that of the weights of an edge's operations, in nats, as the mean over all edges: near log 8 at first,
        and 0 if every edge has one operation of weight 1.
        """
        genotype, alphas = self.model.genotype(), self.model.alphas()
        operation_weights = torch.cat([alpha.detach().softmax(dim=1) for alpha in alphas.values()])
        return {
            "alphas": {
                kind: [[round(value, 6) for value in row] for row in alpha.tolist()] for kind, alpha in alphas.items()
            },
            "genotype": {kind: [list(gene) for gene in getattr(genotype, kind)] for kind in alphas},
            "skips": count_skips(genotype),
            "collapsed": is_collapsed(genotype),
            "entropy": float(torch.special.entr(operation_weights).sum(dim=1).mean()),
        }

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "weights": self.weight_optimizer.state_dict(),
            "alphas": self.alpha_optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.weight_optimizer.load_state_dict(state["weights"])
        self.alpha_optimizer.load_state_dict(state["alphas"])


def _apply_gradients(optimizer: torch.optim.Optimizer, tensors: Tensors, gradients: Tensors, clip: float = 0.0) -> None:
    """Take a step of an optimizer with these gradients; each `.grad` is set only during the step."""
    for name, tensor in tensors.items():
        tensor.grad = gradients[name]
    if clip:
        nn.utils.clip_grad_norm_(tensors.values(), clip)
    optimizer.step()
    optimizer.zero_grad()


def split_in_halves(dataset: Dataset, seed: int, speakers: Sequence[str] | None = None) -> tuple[Dataset, Dataset]:
    """Split a training set into a half for the weights and a half for the alphas, as in DARTS.

    With several speakers, each is in one half only: from the speaker with the most utterances to the one with the fewest,
    each is added to the smaller half. Otherwise the utterances of every emotion are halved.

    Args:
        dataset: The training set.
        seed: Seed of the order of utterances, or of speakers with equally many utterances.
        speakers: The speaker of each utterance; None if not all are known.

    Raises:
        BadConfig: There are fewer than two utterances.
    """
    if len(dataset) < 2:
        raise BadConfig(
            f"the training subset has {quantity(len(dataset), 'utterance')}, too few for two halves: set "
            "learn_alphas_on = 'validation', or use more utterances"
        )
    generator = np.random.default_rng(seed)
    if speakers is not None and len(set(speakers)) > 1:
        first, second = _halve_by_speaker(speakers, generator)
    else:
        by_label = [
            generator.permutation(np.flatnonzero(dataset.labels == label)) for label in np.unique(dataset.labels)
        ]
        order = np.concatenate(by_label)
        first, second = sorted(order[::2].tolist()), sorted(order[1::2].tolist())
    return dataset.select(first), dataset.select(second)


def _halve_by_speaker(speakers: Sequence[str], generator: np.random.Generator) -> tuple[list[int], list[int]]:
    """Return the indices of the utterances of each half, sorted."""
    indices_of: dict[str, list[int]] = defaultdict(list)
    for index, speaker in enumerate(speakers):
        indices_of[speaker].append(index)
    names = sorted(indices_of)
    shuffled: NDArray[np.int64] = generator.permutation(len(names))
    first: list[int] = []
    second: list[int] = []
    for name in sorted((names[index] for index in shuffled), key=lambda name: -len(indices_of[name])):
        (second if len(second) < len(first) else first).extend(indices_of[name])
    return sorted(first), sorted(second)
