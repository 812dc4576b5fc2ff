"""The recurrent branch of EmotionNAS (Sun et al., arXiv 2203.13617 v1, section 2.2): layers of a searched cell over wav2vec
frames, attention over frames, fully connected layers. The defaults give the parameter counts of Table 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.models.base import EmotionModel, FeatureSpec, PaperEncoder, PaperSizes, check_sizes
from affekt.models.emotionnas.cell_graphs import FRAME, Node, compile_cell_graph, idle_nodes
from affekt.models.emotionnas.recurrence import Order, Program, recur
from affekt.models.layers import NEGATIVE, Classifier, FrameMask, Frames, StreamInput, average_frames


@dataclass(frozen=True)
class RecurrentConfig:
    """Settings of the recurrent branch. The defaults are those of the better row of Table 4."""

    layers: int = 2
    """L in the paper."""
    hidden: int = 256
    """Width of a state, h in the paper."""
    recipe: str | Mapping[str, Mapping[str, Any]] = "id1010120"
    """The cell: a name in `cell_graphs.CELL_GRAPHS`, or a cell graph.

    The paper shows its own cell only as a picture (Figure 4). Of the public cells that have the parameter counts of
    Table 4, the default has the lowest validation loss in the benchmark.
    """
    bidirectional: bool = True
    """The paper does not say; derived from the parameter counts of Table 4."""
    attention: Literal["vector", "additive"] = "vector"
    """The paper does not say. "additive" with `fully_connected` = 1 agrees with the parameter counts of Table 4, too."""
    fully_connected: Literal[1, 2] = 2
    """Number of linear layers after the attention. The paper only says "fully-connected layers"."""
    frames: int | Literal["any"] = 727
    """Length to which utterances are cut or padded; "any" keeps their own lengths."""
    input_dim: int = 512
    """Width of the features; 512 is that of wav2vec large."""
    masked: bool = False
    """If true, padding changes nothing. The paper pads with zeros and has no masks."""
    input_norm: Literal["none", "standard"] = "none"
    """Not in the paper. "standard" standardizes each feature by its mean and standard deviation over the
    training set."""
    stride: int = 1
    """Not in the paper: number of input frames that are averaged into one; `frames` is the length after that."""
    dropout: float = 0.0
    """Not in the paper: dropout probability of each layer's output."""
    classifier_dropout: float = 0.0
    """Not in the paper: dropout probability between the fully connected layers."""

    def __post_init__(self) -> None:
        compile_cell_graph(self.recipe)
        check_sizes(self)


States = Float[Tensor, "batch frames width"]


class GraphCell(nn.Module):
    """The weights of a cell graph, in one direction.

    `linears.NODE` is the linear layer of a node; it takes the concatenation of its inputs, in the graph's order.
    """

    def __init__(self, nodes: tuple[Node, ...], input_dim: int, hidden: int) -> None:
        super().__init__()
        self.inputs = {node.name: node.inputs for node in nodes if node.operation == "linear"}
        self.widths = {
            name: [input_dim if source == FRAME else hidden for source in inputs]
            for name, inputs in self.inputs.items()
        }
        self.linears = nn.ModuleDict({name: nn.Linear(sum(widths), hidden) for name, widths in self.widths.items()})
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)  # as the benchmark does

    def weights(self, nodes: tuple[str, ...], inputs: tuple[str, ...]) -> Float[Tensor, "rows columns"]:
        """Return the weights of these nodes for these inputs, in this order, as one matrix."""
        rows = []
        for node in nodes:
            blocks = self._linear(node).weight.split(self.widths[node], dim=1)
            by_input = dict(zip(self.inputs[node], blocks, strict=True))
            rows.append(torch.cat([by_input[name] for name in inputs], dim=1))
        return torch.cat(rows)

    def biases(self, nodes: tuple[str, ...]) -> Float[Tensor, " rows"]:
        return torch.cat([self._linear(node).bias for node in nodes])

    def _linear(self, node: str) -> nn.Linear:
        linear = self.linears[node]
        assert isinstance(linear, nn.Linear)
        return linear


class RecurrentLayer(nn.Module):
    """A recurrent layer in one direction or both.

    `forward_cell` runs from the first frame to the last, `backward_cell` from the last to the first. Their outputs are
    concatenated.
    """

    def __init__(self, nodes: tuple[Node, ...], input_dim: int, hidden: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.program = Program.of(nodes)
        self.forward_cell = GraphCell(nodes, input_dim, hidden)
        self.backward_cell = GraphCell(nodes, input_dim, hidden) if bidirectional else None

    def forward(self, x: Frames, mask: FrameMask | None = None) -> States:
        """Return the first state of each direction after each frame; zero in the padding."""
        cells = [self.forward_cell] if self.backward_cell is None else [self.forward_cell, self.backward_cell]
        order, rows = Order.of(x, mask, len(cells)), x.flatten(0, 1)
        if order.frame_rows is not None:
            rows = rows.index_select(0, order.frame_rows)
        weights = [
            torch.stack([cell.weights(step.nodes, step.sources).t() for cell in cells])
            for step in self.program.products
            if step.sources
        ]
        states = recur(self.program, order.counts, self._terms(cells, rows, order), weights)
        outputs = states.flatten(0, 1).index_select(0, order.inverse).view(rows.shape[0], len(cells) * states.shape[2])
        if order.frame_rows is not None:
            outputs = outputs.new_zeros(x.shape[0] * x.shape[1], outputs.shape[1]).index_copy(
                0, order.frame_rows, outputs
            )
        outputs = outputs.unflatten(0, x.shape[:2])
        return outputs if mask is None else outputs.masked_fill(~mask.unsqueeze(2), 0.0)

    def _terms(self, cells: list[GraphCell], rows: Tensor, order: Order) -> list[Tensor]:
        """Return what the linear nodes add to their products with states.

        For nodes that take the frame this is the product with the frame plus the bias, computed for all nodes and frames at
        once. For the others it is the bias.
        """
        with_frame = [step for step in self.program.products if step.frame]
        nodes = tuple(name for step in with_frame for name in step.nodes)
        weight = torch.cat([cell.weights(nodes, (FRAME,)) for cell in cells])
        products = F.linear(rows, weight, torch.cat([cell.biases(nodes) for cell in cells])).to(weight.dtype)
        products = products.unflatten(1, (len(cells), -1)).flatten(0, 1).index_select(0, order.loop_rows)
        products, width = products.unflatten(0, (len(cells), rows.shape[0])), products.shape[1] // len(nodes)
        by_step = iter(products.split([len(step.nodes) * width for step in with_frame], dim=2))
        return [
            next(by_step) if step.frame else torch.stack([cell.biases(step.nodes) for cell in cells]).unsqueeze(1)
            for step in self.program.products
        ]


class FrameAttention(nn.Module):
    """Attention weights of the frames: the softmax of each frame's product with a vector (`score`).

    The kind "additive" applies a linear layer and tanh (`transform`) first. The parameter counts of Table 4 imply that
    `score` has a bias in the kind "vector" and none in the kind "additive".
    """

    def __init__(self, kind: str, width: int, hidden: int) -> None:
        super().__init__()
        additive = kind == "additive"
        self.transform = nn.Sequential(nn.Linear(width, hidden), nn.Tanh()) if additive else nn.Identity()
        self.score = nn.Linear(hidden if additive else width, 1, bias=not additive)

    def forward(self, x: Frames, mask: FrameMask | None = None) -> Float[Tensor, "batch frames"]:
        scores = self.score(self.transform(x)).squeeze(2)
        return (scores if mask is None else scores.masked_fill(~mask, NEGATIVE)).softmax(dim=1)


class RecurrentBranch(EmotionModel):
    """EmotionNAS's recurrent branch, for the stream speech, (batch, 727 frames, 512 features).

    Submodules: `layers.N.{forward_cell,backward_cell}.linears.NODE`; `attention.score` (and `attention.transform.0`);
    `classifier` (linear layers at 0 and 3; a single one at 0). A layer's output is that of `forward_cell`, then that of
    `backward_cell`.
    """

    Config = RecurrentConfig
    streams = ("speech",)
    paper = PaperSizes(
        num_emotions=4,
        frames={"speech": 727},
        encoders={"speech": PaperEncoder("wav2vec-large", frames=4)},  # the mean of every four frames
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "layers": 1,
            "hidden": 96,
            "frames": 125,
            "stride": 4,
            "masked": True,
            "input_norm": "standard",
            "dropout": 0.2,
            "classifier_dropout": 0.3,
        }
    }
    tiny: ClassVar[Mapping[str, Any]] = {
        "layers": 1,
        "hidden": 12,
        "frames": 12,
        "input_dim": 6,
        "masked": True,
        "input_norm": "standard",
    }
    config: RecurrentConfig

    def __init__(self, config: RecurrentConfig, num_emotions: int) -> None:
        super().__init__()
        self.config, self.num_emotions = config, num_emotions
        self.dims = {"speech": config.input_dim}
        self.lengths = {} if config.frames == "any" else {"speech": config.frames}
        self.input = StreamInput(config.input_dim, config.input_dim, norm=config.input_norm)
        nodes, width = compile_cell_graph(config.recipe), config.hidden * (2 if config.bidirectional else 1)
        self.layers = nn.ModuleList(
            RecurrentLayer(
                nodes, width if number else config.input_dim, config.hidden, bidirectional=config.bidirectional
            )
            for number in range(config.layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.attention = FrameAttention(config.attention, width, config.hidden)
        hidden = (config.hidden,) if config.fully_connected == 2 else ()
        self.classifier = Classifier(width, num_emotions, hidden=hidden, dropout=config.classifier_dropout)

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], num_emotions: int) -> RecurrentBranch:
        return cls(replace(config, input_dim=specs["speech"].dim), num_emotions)

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self.input.set_statistics(*statistics["speech"])

    def _states(self, batch: Batch) -> tuple[Frames, FrameMask | None]:
        """Return the last layer's outputs, and their mask if `masked` is set."""
        stream = self.input.prepare(batch.streams["speech"], masked=self.config.masked)
        stream = average_frames(stream, self.config.stride)
        if self.lengths:
            stream = stream.pad_or_trim(self.lengths["speech"])
        x, mask = stream.values, stream.mask if self.config.masked else None
        for layer in self.layers:
            x = self.dropout(layer(x, mask))
        return x, mask

    def _attend(self, batch: Batch) -> tuple[Float[Tensor, "batch width"], Float[Tensor, "batch frames"]]:
        """Return the utterance vectors, the classifier's input, and the attention weights of the frames."""
        x, mask = self._states(batch)
        weights = self.attention(x, mask)
        return (weights.unsqueeze(1) @ x).squeeze(1), weights

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.classifier(self._attend(batch)[0])

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return `embedding` (batch, width), the classifier's input, and `attention` (batch, frames), the attention weights,
        which sum to one."""
        embedding, weights = self._attend(batch)
        return {"embedding": embedding, "attention": weights}

    @property
    def output_layer(self) -> nn.Linear:
        return self.classifier.output_layer

    def inert_parameters(self) -> frozenset[str]:
        """Return the bias of `score`, which cancels in the softmax, and the linear nodes that never reach the output."""
        unused = {f".linears.{node}." for node in idle_nodes(compile_cell_graph(self.config.recipe))}
        inert = {name for name, _ in self.named_parameters() if any(node in name for node in unused)}
        return frozenset(inert | ({"attention.score.bias"} if self.config.attention == "vector" else set()))
