"""The spectrogram branch of EmotionNAS (Sun et al., arXiv 2203.13617 v1, section 2.1): a stem, L cells, the average over
the image, one linear layer. Without a genotype it is the supernet, which holds all candidate operations and whose
parameters Table 3 counts; with a genotype it is the derived network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.errors import BadConfig
from affekt.models.base import EmotionModel, FeatureSpec, PaperEncoder, PaperSizes, check_sizes
from affekt.models.emotionnas.cells import ArchitectureWeights, DerivedCell, SearchCell
from affekt.models.emotionnas.convolutions import channels_last
from affekt.models.emotionnas.genotypes import Genotype, discretize, get_genotype
from affekt.models.emotionnas.mixed_ops import ActiveOps
from affekt.models.emotionnas.operations import Image
from affekt.models.layers import StreamInput


@dataclass(frozen=True)
class SpectrogramBranchConfig:
    """Settings of the spectrogram branch. The defaults are those of section 3.3.

    Table 3's row with L = 8 and C = 16 has the parameter count of a network with L = 6 and C = 16.
    """

    cells: int = 3
    """L in the paper."""
    channels: int = 6
    """C in the paper: channels of the nodes of the first cell; each reduction cell doubles them."""
    nodes: int = 4
    """N in the paper: number of intermediate nodes of a cell. With two or three, the parameter counts are not those of Table
    3."""
    genotype: str | Genotype | None = None
    """None for the supernet; for a derived network a genotype or its name in `GENOTYPES`."""
    frames: int = 140
    input_dim: int = 140
    """Number of bins of the spectrogram."""
    masked: bool = False
    """If true, padding is read as zeros. The paper has no masks."""
    input_norm: Literal["none", "standard"] = "standard"
    """Not in the paper. "standard" standardizes each bin by its mean and standard deviation over the training set."""
    input_channels: int = 1
    """1, or 3 to repeat the image like the colors of a photo. The parameter counts of Table 3 are rounded and fit both."""
    stem_multiplier: int = 3
    """Channels of the stem, in multiples of C. The rounded parameter counts of Table 3 also fit 1."""
    shrink: int = 1
    """Not in the paper: the image is first averaged over squares of this many frames and bins."""
    drop_path: float = 0.0
    """Drop-path probability of a derived network. It rises from 0 to this value during training, as in DARTS (to 0.2)."""
    dropout: float = 0.0
    """Dropout probability before the last layer. The paper has none."""

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.genotype is None:
            if self.drop_path:
                raise BadConfig("drop_path is for a derived network: set genotype, or drop_path = 0")
        elif get_genotype(self.genotype).nodes != self.nodes:
            raise BadConfig(f"nodes = {self.nodes}, but the genotype has {get_genotype(self.genotype).nodes}")
        divisor = 2 ** len(self.reductions)
        for name, size in (("frames", self.frames), ("input_dim", self.input_dim)):
            if size // self.shrink < 1 or size // self.shrink % divisor:
                raise BadConfig(
                    f"{name} = {size} with shrink = {self.shrink} results in an image side of {size // self.shrink}, which "
                    f"the reduction cells must halve: set a multiple of {divisor * self.shrink}"
                )

    @property
    def reductions(self) -> frozenset[int]:
        """The indices of the cells that halve the image: those at a third and at two thirds of the depth."""
        return frozenset({self.cells // 3, 2 * self.cells // 3})


class SpectrogramBranch(EmotionModel):
    """EmotionNAS's spectrogram branch, for the stream spectrogram, (batch, 140 frames, 140 bins), read as an image (batch, 1,
    height = frames, width = bins).

    Submodules: `stem` (convolution 0, norm 1); `cells.K` with `preprocess0` (input k-2), `preprocess1` (input k-1) and
    `edges`; `classifier`; in the supernet, `architecture`. The output of a cell is the concatenation of its nodes, in order.
    """

    Config = SpectrogramBranchConfig
    streams = ("spectrogram",)
    paper = PaperSizes(
        num_emotions=4, frames={"spectrogram": 140}, encoders={"spectrogram": PaperEncoder("spectrogram")}
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "genotype": "darts-v2",
            "channels": 12,
            "shrink": 5,
            "masked": True,
            "drop_path": 0.1,
            "dropout": 0.3,
        }
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "genotype": Genotype(
            normal=(("sep_conv_3x3", 0), ("skip_connect", 1)), reduce=(("skip_connect", 0), ("dil_conv_3x3", 1))
        ),
        "channels": 4,
        "nodes": 1,
        "frames": 12,
        "input_dim": 8,
        "masked": True,
    }
    config: SpectrogramBranchConfig

    def __init__(self, config: SpectrogramBranchConfig, num_emotions: int) -> None:
        super().__init__()
        self.config, self.num_emotions = config, num_emotions
        self.dims, self.lengths = {"spectrogram": config.input_dim}, {"spectrogram": config.frames}
        self.derived = None if config.genotype is None else get_genotype(config.genotype)
        self.architecture = ArchitectureWeights(config.nodes) if self.derived is None else None
        self.input = StreamInput(config.input_dim, config.input_dim, norm=config.input_norm)
        width = config.stem_multiplier * config.channels
        self.stem = nn.Sequential(
            nn.Conv2d(config.input_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.cells = nn.ModuleList()
        in_channels, channels, halved = (width, width), config.channels, False
        for index in range(config.cells):
            reduction = index in config.reductions
            channels *= 2 if reduction else 1
            self.cells.append(self._build_cell(in_channels, channels, reduction=reduction, halved=halved))
            in_channels, halved = (in_channels[1], config.nodes * channels), reduction
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(in_channels[1], num_emotions)

    def _build_cell(self, in_channels: tuple[int, int], channels: int, *, reduction: bool, halved: bool) -> nn.Module:
        if self.derived is None:
            return SearchCell(in_channels, channels, self.config.nodes, reduction=reduction, halved=halved)
        genes = self.derived.reduce if reduction else self.derived.normal
        drop_path = self.config.drop_path
        return DerivedCell(in_channels, channels, genes, reduction=reduction, halved=halved, drop_path=drop_path)

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], num_emotions: int) -> SpectrogramBranch:
        return cls(replace(config, input_dim=specs["spectrogram"].dim), num_emotions)

    def alphas(self) -> dict[str, Float[Tensor, "edges operations"]]:
        """Return the architecture weights by kind of cell, as leaf tensors with a gradient; empty for a derived network.

        `model.zero_grad()` does not clear their gradients; their own optimizer does.
        """
        return {} if self.architecture is None else dict(self.architecture.named_buffers())

    def genotype(self) -> Genotype:
        """Return the genotype of a derived network, or the one that the architecture weights select now."""
        return self.derived or discretize(self.alphas())

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.input.set_statistics(*statistics["spectrogram"])

    def set_progress(self, progress: float) -> None:
        """Raise the drop-path probability of a derived network in proportion to the progress."""
        for cell in self.cells:
            if isinstance(cell, DerivedCell):
                cell.drop_path = self.config.drop_path * progress

    def _make_image(self, batch: Batch) -> Image:
        stream = batch.streams["spectrogram"]
        stream = self.input.prepare(stream, masked=self.config.masked, length=self.config.frames)
        image = stream.values.unsqueeze(1).expand(-1, self.config.input_channels, -1, -1)
        return F.avg_pool2d(image, self.config.shrink) if self.config.shrink > 1 else image

    def embed(self, batch: Batch) -> Float[Tensor, "batch width"]:
        """Return the last cell's output, averaged over the image."""
        first = second = channels_last(self.stem(self._make_image(batch)))
        mixing = {kind: _mixing_weights(alpha) for kind, alpha in self.alphas().items()}
        for index, cell in enumerate(self.cells):
            kind = "reduce" if index in self.config.reductions else "normal"
            first, second = second, cell(first, second, *mixing.get(kind, ()))
        return second.mean(dim=(2, 3))

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.classifier(self.dropout(self.embed(batch)))

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return `embedding` (batch, width), and for the supernet also `normal_weights` and `reduce_weights`, (edges,
        operations), which sum to one on every edge."""
        weights = {f"{kind}_weights": alpha.softmax(dim=1) for kind, alpha in self.alphas().items()}
        return {"embedding": self.embed(batch), **weights}

    @property
    def output_layer(self) -> nn.Linear:
        return self.classifier

    def inert_parameters(self) -> frozenset[str]:
        """Return the parameters of a derived network that belong to unused inputs of cells and to unused cells."""
        if self.derived is None:
            return frozenset()
        used, unused_prefixes = {len(self.cells) - 1}, []
        for index in reversed(range(len(self.cells))):
            if index not in used:
                unused_prefixes.append(f"cells.{index}.")
                continue
            genes = self.derived.reduce if index in self.config.reductions else self.derived.normal
            used_sources = {source for _, source in genes}
            used |= {index - 2 + source for source in (0, 1) if source in used_sources}
            unused_prefixes += [f"cells.{index}.preprocess{source}." for source in (0, 1) if source not in used_sources]
        return frozenset(name for name, _ in self.named_parameters() if name.startswith(tuple(unused_prefixes)))


def _mixing_weights(alpha: Tensor) -> tuple[Tensor, ActiveOps]:
    """Return the operations' weights on every edge, and which are not zero. An exported graph computes all operations."""
    weights = alpha.softmax(dim=1)
    if torch.compiler.is_exporting() or weights.is_meta:
        return weights, [[True] * weights.shape[1]] * len(weights)
    return weights, (weights.detach() != 0).tolist()
