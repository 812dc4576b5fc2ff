"""EmotionNAS's decision-level fusion (Sun et al., arXiv 2203.13617 v1, sections 2.3 and 3.3): a perceptron of three layers,
8-8-4-4 for four emotions, over the probabilities of two trained branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.models.base import EmotionModel, FeatureSpec, PaperSizes
from affekt.models.emotionnas.recurrent import RecurrentBranch, RecurrentConfig
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig
from affekt.models.layers import Classifier


@dataclass(frozen=True)
class FusionConfig:
    """The settings of the two branches and of their fusion."""

    spectrogram: SpectrogramBranchConfig = field(default_factory=SpectrogramBranchConfig)
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)
    frozen: bool = True
    """If true, the branches are already trained and only the perceptron is trained, as in the paper ("We take the output
    probabilities"). If false, everything is trained together."""
    hidden: tuple[int, ...] | None = None
    """Widths of the perceptron's hidden layers. None: twice the number of emotions, and the number of emotions (8 and 4 for
    four emotions)."""
    dropout: float = 0.0
    """Dropout probability between the perceptron's layers. The paper has none."""


class DecisionFusion(EmotionModel):
    """EmotionNAS's fusion of both branches, for the streams spectrogram and speech.

    Submodules: `spectrogram` and `recurrent`, the branches; `perceptron` (linear layers at 0, 3, 6), whose inputs are the
    probabilities of the spectrogram branch, then those of the recurrent branch. Frozen branches do not change: they get no
    gradient and stay in evaluation mode, so that the statistics of their norms are not updated.
    """

    Config = FusionConfig
    streams = ("spectrogram", "speech")
    submodules: ClassVar[Mapping[str, str]] = {
        "spectrogram": "emotionnas-spectrogram",
        "recurrent": "emotionnas-recurrent",
    }
    paper = PaperSizes(
        num_emotions=4,
        frames={**SpectrogramBranch.paper.frames, **RecurrentBranch.paper.frames},
        encoders={**SpectrogramBranch.paper.encoders, **RecurrentBranch.paper.encoders},
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"spectrogram": SpectrogramBranch.presets["small"], "recurrent": RecurrentBranch.presets["small"]}
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "spectrogram": SpectrogramBranchConfig(**SpectrogramBranch.tiny),
        "recurrent": RecurrentConfig(**RecurrentBranch.tiny),
        "frozen": False,
        "hidden": (16, 8),
    }

    def __init__(self, config: FusionConfig, num_emotions: int) -> None:
        super().__init__()
        self.config, self.num_emotions = config, num_emotions
        self.spectrogram = SpectrogramBranch(config.spectrogram, num_emotions)
        self.recurrent = RecurrentBranch(config.recurrent, num_emotions)
        self.dims = {**self.spectrogram.dims, **self.recurrent.dims}
        self.lengths = {**self.spectrogram.lengths, **self.recurrent.lengths}
        hidden = config.hidden or (2 * num_emotions, num_emotions)
        self.perceptron = Classifier(2 * num_emotions, num_emotions, hidden=hidden, dropout=config.dropout)
        if config.frozen:
            for tensor in [*self._branch_parameters().values(), *self.spectrogram.alphas().values()]:
                tensor.requires_grad_(False)

    @classmethod
    def pretrained(cls, config: Any) -> tuple[str, ...]:
        """Return the names of the branches if they are frozen."""
        return tuple(cls.submodules) if config.frozen else ()

    @classmethod
    def for_lengths(cls, config: Any, frames: Mapping[str, int]) -> Any:
        """Return the settings for inputs of these numbers of frames, by stream."""
        spectrogram, recurrent = config.spectrogram, config.recurrent
        return replace(
            config,
            spectrogram=SpectrogramBranch.for_lengths(spectrogram, frames) if "spectrogram" in frames else spectrogram,
            recurrent=RecurrentBranch.for_lengths(recurrent, frames) if "speech" in frames else recurrent,
        )

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], num_emotions: int) -> DecisionFusion:
        spectrogram = replace(config.spectrogram, input_dim=specs["spectrogram"].dim)
        recurrent = replace(config.recurrent, input_dim=specs["speech"].dim)
        return cls(replace(config, spectrogram=spectrogram, recurrent=recurrent), num_emotions)

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.spectrogram.set_statistics(statistics)
        self.recurrent.set_statistics(statistics)

    def set_progress(self, progress: float) -> None:
        self.spectrogram.set_progress(progress)
        self.recurrent.set_progress(progress)

    def train(self, mode: bool = True) -> DecisionFusion:
        super().train(mode)
        if self.config.frozen:
            self.spectrogram.eval()
            self.recurrent.eval()
        return self

    def _branch_parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if not name.startswith("perceptron.")}

    def embed(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """Return the probabilities of both branches, concatenated."""
        return torch.cat([branch(batch).softmax(dim=1) for branch in (self.spectrogram, self.recurrent)], dim=1)

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.perceptron(self.embed(batch))

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return `embedding` (batch, 2 emotions), the perceptron's input, and its halves, `spectrogram_probabilities` and
        `speech_probabilities` (batch, emotions)."""
        embedding = self.embed(batch)
        spectrogram, speech = embedding.chunk(2, dim=1)
        return {"embedding": embedding, "spectrogram_probabilities": spectrogram, "speech_probabilities": speech}

    @property
    def output_layer(self) -> nn.Linear:
        return self.perceptron.output_layer

    def inert_parameters(self) -> frozenset[str]:
        """Return the parameters that get no gradient: all of frozen branches, otherwise the branches' inert parameters."""
        if self.config.frozen:
            return frozenset(self._branch_parameters())
        branches = {"spectrogram": self.spectrogram, "recurrent": self.recurrent}
        return frozenset(
            f"{prefix}.{name}" for prefix, branch in branches.items() for name in branch.inert_parameters()
        )
