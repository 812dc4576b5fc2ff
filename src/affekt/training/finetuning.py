"""An encoder that is trained together with the model behind it: from the encoder's front end on, one network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.errors import BadConfig
from affekt.features.base import Feature
from affekt.models.base import EmotionModel, FeatureSpec

TEACHER = "teacher"  # the stream of a teacher's frames, in training


class FineTuned(EmotionModel):
    """An encoder and a head as one model. Stream: speech, the frames of the encoder's front end.

    Submodules: `encoder`, `head`. Afterwards both go their ways again: into a pipeline, an ONNX file, a bundle.
    imitates: features of a teacher's frames, which the encoder's last state then learns to foretell, through `distillation`,
        a linear layer that nothing else uses; 0 for no teacher.
    """

    streams = ("speech",)
    teacher_mean: Tensor
    teacher_deviation: Tensor

    def __init__(self, encoder: Feature, head: EmotionModel, *, imitates: int = 0) -> None:
        super().__init__()
        self.encoder, self.head, self.num_emotions = encoder, head, head.num_emotions
        self.distillation = nn.Linear(encoder.dim // encoder.num_states, imitates) if imitates else None
        if imitates:
            self.register_buffer("teacher_mean", torch.zeros(imitates))
            self.register_buffer("teacher_deviation", torch.ones(imitates))
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name not in encoder.fixed)
        self.blocks = len({_block(name) for name, _ in encoder.named_parameters()} - {None})

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.head(self._encoded(batch))

    def _encoded(self, batch: Batch) -> Batch:
        return Batch({"speech": self.encoder.encode(batch.streams["speech"])}, batch.ids, batch.labels)

    def forward_with_penalty(self, batch: Batch) -> tuple[Float[Tensor, "batch emotions"], Float[Tensor, ""]]:
        """The logits, and how far the last state's frames are from foretelling the teacher's: Huber's loss on standardised
        features, the mean over frames. A teacher's frame belongs to the frame at the same share of the utterance.
        """
        assert self.distillation is not None
        encoded = self._encoded(batch)
        states, teacher = encoded.streams["speech"], batch.streams[TEACHER]
        counts, theirs = states.lengths(), teacher.lengths()
        place = torch.arange(states.values.shape[1], device=counts.device)
        source = (place * theirs.unsqueeze(1) // counts.clamp(min=1).unsqueeze(1)).clamp(
            max=teacher.values.shape[1] - 1
        )
        real = place < counts.unsqueeze(1)
        aim = (teacher.values - self.teacher_mean) / self.teacher_deviation
        aim = aim.take_along_dim(source.unsqueeze(2), dim=1)[real]
        width = self.encoder.dim // self.encoder.num_states
        foretold = self.distillation(states.values[..., -width:][real])
        return self.head(encoded), F.smooth_l1_loss(foretold.float(), aim.float())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take encoder and head out of a training's weights, which may hold what only training needs."""
        own = self.state_dict()
        self.load_state_dict({**own, **{name: value for name, value in weights.items() if name in own}})

    def set_teacher(self, mean: Float[Tensor, " features"], deviation: Float[Tensor, " features"]) -> None:
        self.teacher_mean.copy_(mean)
        self.teacher_deviation.copy_(deviation.clamp(min=1e-3))

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.head.explain(self._encoded(batch))

    def depth(self, parameter: str) -> int | None:
        """0 for the encoder's last block, one more for each before it, and one more again for what precedes the first."""
        if not parameter.startswith("encoder."):
            return None
        block = _block(parameter)
        return self.blocks if block is None else self.blocks - 1 - block

    @property
    def output_layer(self) -> nn.Linear:
        return self.head.output_layer

    def inert_parameters(self) -> frozenset[str]:
        return frozenset(f"head.{name}" for name in self.head.inert_parameters())


class Distilling(nn.Module):
    """A tuned model as training calls it where it has a teacher: logits and the penalty, in one forward for DDP."""

    def __init__(self, model: FineTuned) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.model.forward_with_penalty(batch)


def training_module(model: EmotionModel) -> nn.Module:
    """Return the module that training calls: the model itself, or its wrapper that also returns the distillation loss."""
    return Distilling(model) if isinstance(model, FineTuned) and model.distillation is not None else model


def _block(parameter: str) -> int | None:
    """The number of the block that a parameter of an encoder belongs to; None for what stands before the first."""
    found = re.search(r"layers\.(\d+)\.", parameter)
    return int(found[1]) if found else None


def feature_spec(feature: Feature) -> FeatureSpec:
    return FeatureSpec(feature.dim, feature.frame_rate, feature.num_states, feature.has_time)


@torch.no_grad()
def initial_statistics(model: FineTuned, batches: list[Batch]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and deviation of each feature that the untrained encoder gives the head, over all frames, (dim,) each."""
    total = squares = torch.zeros(model.encoder.dim, dtype=torch.float64)
    count = 0
    for batch in batches:
        stream = model.encoder.encode(batch.streams["speech"])
        frames = (stream.values if stream.mask is None else stream.values[stream.mask]).reshape(-1, model.encoder.dim)
        frames = frames.double().cpu()
        total, squares, count = total + frames.sum(dim=0), squares + frames.square().sum(dim=0), count + len(frames)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    return {"speech": (mean.float(), deviation.float())}


def load_matching_weights(
    model: EmotionModel,
    weights: Mapping[str, Tensor],
    ours: Sequence[str],
    theirs: Sequence[str],
    *,
    temperature: float = 1.0,
) -> None:
    """Copy the weights of a model of the same kind that tells other emotions apart.

    ours, theirs: the emotions in the order of the outputs. Rows of the output layer are copied for the emotions that both
    have; the others keep what they are.
    temperature: what divided the other model's logits; its rows are divided by it, so that training goes on from what it
        answered. Raises `BadConfig` where the models are of different sizes.
    """
    output = model.output_layer
    rows = {id(parameter) for parameter in output.parameters()}
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in own.items():
        other = weights.get(name)
        if (
            other is None
            or other.shape[1:] != tensor.shape[1:]
            or (id(tensor) not in rows and other.shape != tensor.shape)
        ):
            raise BadConfig(f"{name} is {tuple(tensor.shape)}, the weights to start from have {_shape(other)}")
        if id(tensor) in rows:
            for row, emotion in enumerate(ours):
                if emotion in theirs:
                    tensor.data[row] = other[theirs.index(emotion)] / temperature
        else:
            tensor.data.copy_(other)


def _shape(tensor: Tensor | None) -> str:
    return "none of that name" if tensor is None else str(tuple(tensor.shape))
