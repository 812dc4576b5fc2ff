"""The bi-level search for the cells of EmotionNAS's spectrogram branch (Sun et al., arXiv 2203.13617 v1, section 2.1, eq. 3).

The network's weights learn from the training set, the architecture weights (alphas) from other utterances, a step of each
in turn, as in DARTS (Liu et al., "DARTS: Differentiable Architecture Search", ICLR 2019, section 2.3).
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
from affekt.training.dataset import Dataset
from affekt.training.distributed import average_gradients
from affekt.training.strategies import Datasets, TrainingContext

if TYPE_CHECKING:
    from affekt.training.recipe import TrainingConfig

logger = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]  # by the names of the model's state

RADIUS = 0.01  # how far the second order's finite difference goes from the weights either way: R = 0.01 / |v|, DARTS's


@dataclass(frozen=True)
class ArchitectureSearchConfig:
    """How weights and alphas are trained. "Printed" is the paper's section 3.3; the rest are the defaults of DARTS's code."""

    order: Literal["first", "second"] = (
        "first"  # eq. 3 leaves it open; a step of the second takes almost three times as long
    )
    learning_rate: float = 0.025  # printed; of SGD, for the weights
    final_rate: float = 1e-3  # to which it falls along a cosine
    momentum: float = 0.9  # printed
    weight_decay: float = 3e-4  # printed
    clip: float = 5.0  # largest norm of the weights' gradient; 0 for none
    alpha_rate: float = 3e-4  # printed; of Adam, for the alphas
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    alpha_decay: float = 1e-3  # added to the gradient, as Adam does it, not AdamW
    alpha_start: float = 0.0  # share of the training in which the alphas rest: beyond the paper, against collapse
    learn_alphas_on: Literal["validation", "half"] = "validation"
    """The utterances that the alphas learn from: the validation subset, as in the paper, or half of the training subset."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha_start < 1:
            raise BadConfig(
                f"alpha_start = {self.alpha_start}: expected a share of the training from 0 to below 1, such as 0.3"
            )


class ArchitectureSearch:
    """Alternates a step of the alphas and one of the weights. Several processes average every gradient, both kinds'.

    An alpha that is minus infinity rules its operation out of the search, and stays so.
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
        """Return the search and its datasets; of a halved training subset, the weights' half is left to train on."""
        if config.learn_alphas_on == "validation":
            logger.info(
                "the alphas learn from the validation subset, which also selects the epoch: scores on it are optimistic"
            )
            return cls(model, config, datasets.scored["validation"], context.batch_size), datasets
        train, alphas_on = halves(datasets.train, context.seed, context.speakers)
        logger.info(
            "weights learn from %d utterances of the training subset, the alphas from %d", len(train), len(alphas_on)
        )
        return cls(model, config, alphas_on, context.batch_size), replace(datasets, train=train)

    def __init__(
        self, model: EmotionModel, config: ArchitectureSearchConfig, alphas_on: Dataset, batch_size: int
    ) -> None:
        """alphas_on: what the alphas learn from, in batches of `batch_size`.

        Raises `BadConfig` for a model without alphas, and where there is nothing for them to learn from.
        """
        if not isinstance(model, SpectrogramBranch) or not model.alphas():
            raise BadConfig(
                "this model has no architecture to search for: the strategy 'darts' needs the model "
                "'emotionnas-spectrogram' without a genotype"
            )
        if not len(alphas_on):
            raise BadConfig("there are no utterances for the alphas to learn from: give the search a validation set")
        self.model, self.config, self.alphas_on, self.batch_size = model, config, alphas_on, batch_size
        self.parameters = dict(model.named_parameters())
        leaves = {id(alpha) for alpha in model.alphas().values()}
        self.alphas = {name: buffer for name, buffer in model.named_buffers() if id(buffer) in leaves}
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
        """The weights' learning rate. DARTS lets it fall from epoch to epoch; ours falls from step to step."""
        span = self.config.learning_rate - self.config.final_rate
        return self.config.final_rate + 0.5 * span * (1 + math.cos(math.pi * progress))

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """`loss` on the batch, and `alpha_loss` on a batch of the alphas' (in the second order one step of weights ahead)."""
        self.model.train()
        batch, others, rate = batch.to(self.device), self._drawn().to(self.device), self.rate(progress)
        if progress < self.config.alpha_start:
            alpha_loss, _ = self._trial(others, self._now(), ())
        else:
            alpha_loss, gradients = self._alpha_gradients(batch, others, rate)
            self._descend_alphas(gradients)
        loss, gradients = self._gradients(batch, self._now(), self.parameters)
        for group in self.weight_optimizer.param_groups:
            group["lr"] = rate
        _descend(self.weight_optimizer, self.parameters, gradients, clip=self.config.clip)
        return {"loss": loss, "alpha_loss": alpha_loss}

    def _drawn(self) -> Batch:
        """Other utterances each time, as DARTS draws them. By torch's generator, which the loop seeds."""
        return self.alphas_on.batch(torch.randperm(len(self.alphas_on))[: self.batch_size].tolist())

    def _descend_alphas(self, gradients: Tensors) -> None:
        ruled_out = {name: alpha.isneginf() for name, alpha in self.alphas.items()}
        _descend(self.alpha_optimizer, self.alphas, gradients)
        with torch.no_grad():
            for name, alpha in self.alphas.items():  # where the decay of an infinite weight would leave no number
                alpha.masked_fill_(ruled_out[name], -math.inf)

    def _now(self) -> dict[str, Tensor]:
        return {**self.parameters, **self.alphas}

    def _alpha_gradients(self, batch: Batch, others: Batch, rate: float) -> tuple[float, Tensors]:
        if self.config.order == "first":
            return self._trial(others, self._now(), self.alphas)
        return self._unrolled(batch, others, rate)

    def _unrolled(self, batch: Batch, others: Batch, rate: float) -> tuple[float, Tensors]:
        """The loss on `others` after the step that the weights would take on `batch`, and the alphas' gradient of it.

        The alphas shift that step too. What comes of this is a product of second derivatives with v, the weights' gradient;
        a difference of two gradients, a little to either side along v, stands for it (DARTS, eq. 7 and 8).
        """
        now = self._now()
        _, downhill = self._trial(batch, now, self.parameters)
        loss, found = self._trial(others, {**now, **self._ahead(downhill, rate)}, [*self.alphas, *self.parameters])
        v = {name: found[name] for name in self.parameters}
        length = float(torch.cat([one.flatten() for one in v.values()]).norm())
        if not length:  # nothing is to be gained by any weight: the second term is zero
            return loss, {name: found[name] for name in self.alphas}
        radius = RADIUS / length
        above, below = (
            self._trial(batch, {**now, **{name: now[name] + shift * v[name] for name in v}}, self.alphas)[1]
            for shift in (radius, -radius)
        )
        return loss, {name: found[name] - rate * (above[name] - below[name]) / (2 * radius) for name in self.alphas}

    def _ahead(self, downhill: Tensors, rate: float) -> dict[str, Tensor]:
        """The weights after the coming step: with its momentum and weight decay, but as in DARTS without its clipping."""
        decay, ahead = self.config.weight_decay, {}
        for name, weight in self.parameters.items():
            moved = self.weight_optimizer.state.get(weight, {}).get("momentum_buffer")
            pull = downhill[name] + decay * weight
            ahead[name] = weight - rate * (pull if moved is None else self.config.momentum * moved + pull)
        return ahead

    def _trial(self, batch: Batch, tensors: Tensors, wanted: Collection[str]) -> tuple[float, Tensors]:
        """As `_gradients`, but nothing of it stays: no running statistic, no draw.

        So all trials in a step, and the weights' step after them, are under the same dropout, and the difference of two
        is that of their weights alone. DARTS lets such passes move the running statistics; ours are the weights' steps'.
        """
        kept = {name: buffer.clone() for name, buffer in self.model.named_buffers() if name not in self.alphas}
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            return self._gradients(batch, {**kept, **tensors}, wanted)

    def _gradients(self, batch: Batch, tensors: Tensors, wanted: Collection[str]) -> tuple[float, Tensors]:
        """The loss with these tensors in the model's places, and its gradients for those that are wanted.

        Gradients are the mean over all processes. None is left in any tensor's `.grad`.
        """
        placed = {name: tensor.detach().requires_grad_(name in wanted) for name, tensor in tensors.items()}
        logits = torch.func.functional_call(self.model, placed, (batch,))
        truth = batch.labels if batch.soft_labels is None else batch.soft_labels.to(logits.dtype)
        assert truth is not None
        loss = F.cross_entropy(logits, truth)
        if not wanted:
            return float(loss), {}
        if (
            not loss.requires_grad
        ):  # every operation of an edge but none is ruled out: nothing of what is wanted is used
            return float(loss), {name: torch.zeros_like(placed[name]) for name in wanted}
        # What no operation uses has a gradient of zero; the weights' step and the look ahead treat it alike.
        found = torch.autograd.grad(loss, [placed[name] for name in wanted], materialize_grads=True)
        return float(loss.detach()), dict(zip(wanted, average_gradients(found), strict=True))

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        """Return the predictions of the supernet, not of the network derived from it."""
        self.model.eval()
        with torch.no_grad():
            return self.model(batch.to(self.device)).softmax(dim=1)

    def weights(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    def notes(self) -> dict[str, Any]:
        """The alphas, what they would be made into now, and whether that is a collapse.

        `entropy`: of the operations' shares, the mean over all edges, in nats; at first near log 8, and 0 once all are
        decided.
        """
        genotype, alphas = self.model.genotype(), self.model.alphas()
        shares = torch.cat([alpha.detach().softmax(dim=1) for alpha in alphas.values()])
        return {
            "alphas": {
                kind: [[round(one, 6) for one in row] for row in alpha.tolist()] for kind, alpha in alphas.items()
            },
            "genotype": {kind: [list(gene) for gene in getattr(genotype, kind)] for kind in alphas},
            "skips": count_skips(genotype),
            "collapsed": is_collapsed(genotype),
            "entropy": float(torch.special.entr(shares).sum(dim=1).mean()),
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


def _descend(optimizer: torch.optim.Optimizer, leaves: Tensors, gradients: Tensors, clip: float = 0.0) -> None:
    """A step of an optimizer by gradients that are not in its tensors, and will not be afterwards."""
    for name, leaf in leaves.items():
        leaf.grad = gradients[name]
    if clip:
        nn.utils.clip_grad_norm_(leaves.values(), clip)
    optimizer.step()
    optimizer.zero_grad()


def halves(dataset: Dataset, seed: int, speakers: Sequence[str] | None = None) -> tuple[Dataset, Dataset]:
    """A training set cut in two, for the weights and for the alphas, as DARTS does; the paper has a validation set.

    speakers: who speaks each utterance, in order; None where that is not known. Of several, each is in one half only, and
    the halves are as even as going from the most to the least talkative makes them, the seed deciding among equals. Else
    every emotion is halved. Raises `BadConfig` for fewer than two utterances.
    """
    if len(dataset) < 2:
        raise BadConfig(f"{len(dataset)} utterances cannot be halved: set learn_alphas_on = 'validation', or use more")
    generator = np.random.default_rng(seed)
    if speakers is not None and len(set(speakers)) > 1:
        first, second = _by_speakers(speakers, generator)
    else:
        drawn = [generator.permutation(np.flatnonzero(dataset.labels == label)) for label in np.unique(dataset.labels)]
        order = np.concatenate(drawn)
        first, second = sorted(order[::2].tolist()), sorted(order[1::2].tolist())
    return dataset.select(first), dataset.select(second)


def _by_speakers(speakers: Sequence[str], generator: np.random.Generator) -> tuple[list[int], list[int]]:
    said: dict[str, list[int]] = defaultdict(list)
    for index, speaker in enumerate(speakers):
        said[speaker].append(index)
    names = sorted(said)
    shuffled: NDArray[np.int64] = generator.permutation(len(names))
    first: list[int] = []
    second: list[int] = []
    for name in sorted((names[place] for place in shuffled), key=lambda name: -len(said[name])):
        (second if len(second) < len(first) else first).extend(said[name])
    return sorted(first), sorted(second)
