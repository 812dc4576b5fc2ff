"""Fine-tuning: a speech encoder and the model on top of it, trained as one network on the frames of the front end."""

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

TEACHER = "teacher"
"""The stream of the teacher's frames in a training batch."""


class FineTunedModel(EmotionModel):
    """An encoder and a head as one model. Its stream "speech" has the frames of the encoder's front end.

    After training, the submodules `encoder` and `head` are used separately: they are two parts of a pipeline.

    Args:
        encoder: The encoder; its parameters in `fixed` are not trained.
        head: The model on top of the encoder.
        teacher_dim: Size of a teacher's frames, which a linear layer on the encoder's last state learns to predict
            (`distillation`; used only during training); 0 for no teacher.
    """

    streams = ("speech",)
    teacher_mean: Tensor
    teacher_deviation: Tensor
    """Standard deviation of the teacher's features. Renaming the buffer would change the keys of stored weights."""

    def __init__(self, encoder: Feature, head: EmotionModel, *, teacher_dim: int = 0) -> None:
        super().__init__()
        self.encoder, self.head, self.num_emotions = encoder, head, head.num_emotions
        self.distillation = nn.Linear(encoder.dim // encoder.num_states, teacher_dim) if teacher_dim else None
        if teacher_dim:
            self.register_buffer("teacher_mean", torch.zeros(teacher_dim))
            self.register_buffer("teacher_deviation", torch.ones(teacher_dim))
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name not in encoder.fixed)
        self.num_blocks = len({_block_index(name) for name, _ in encoder.named_parameters()} - {None})

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        return self.head(self._encode(batch))

    def _encode(self, batch: Batch) -> Batch:
        return Batch({"speech": self.encoder.encode(batch.streams["speech"])}, batch.ids, batch.labels)

    def forward_with_penalty(self, batch: Batch) -> tuple[Float[Tensor, "batch emotions"], Float[Tensor, ""]]:
        """Return the logits and the distillation loss.

        The loss is the Huber loss of predicting the teacher's standardized frames, the mean over frames and features. Each
        frame predicts the teacher's frame at the same relative position in the utterance.
        """
        assert self.distillation is not None
        encoded = self._encode(batch)
        states, teacher = encoded.streams["speech"], batch.streams[TEACHER]
        num_frames, num_teacher_frames = states.lengths(), teacher.lengths()
        frame_index = torch.arange(states.values.shape[1], device=num_frames.device)
        teacher_index = frame_index * num_teacher_frames.unsqueeze(1) // num_frames.clamp(min=1).unsqueeze(1)
        teacher_index = teacher_index.clamp(max=teacher.values.shape[1] - 1)
        mask = frame_index < num_frames.unsqueeze(1)
        target = (teacher.values - self.teacher_mean) / self.teacher_deviation
        target = target.take_along_dim(teacher_index.unsqueeze(2), dim=1)[mask]
        width = self.encoder.dim // self.encoder.num_states
        predicted = self.distillation(states.values[..., -width:][mask])
        return self.head(encoded), F.smooth_l1_loss(predicted.float(), target.float())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load the weights of encoder and head from a training run, ignoring those that only training needs."""
        current = self.state_dict()
        self.load_state_dict({**current, **{name: value for name, value in weights.items() if name in current}})

    def set_teacher_statistics(self, mean: Float[Tensor, " features"], std: Float[Tensor, " features"]) -> None:
        """Set the mean and standard deviation with which the teacher's frames are standardized."""
        self.teacher_mean.copy_(mean)
        self.teacher_deviation.copy_(std.clamp(min=1e-3))

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        return self.head.explain(self._encode(batch))

    def depth(self, parameter: str) -> int | None:
        """Return 0 for the encoder's last block, 1 for the block before it, and so on; None for the head.

        Layers before the first block have the depth of one more block.
        """
        if not parameter.startswith("encoder."):
            return None
        index = _block_index(parameter)
        return self.num_blocks if index is None else self.num_blocks - 1 - index

    @property
    def output_layer(self) -> nn.Linear:
        return self.head.output_layer

    def inert_parameters(self) -> frozenset[str]:
        return frozenset(f"head.{name}" for name in self.head.inert_parameters())


class DistillationWrapper(nn.Module):
    """A fine-tuned model with a teacher; one call of `forward`, as DDP needs, returns logits and distillation loss."""

    def __init__(self, model: FineTunedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.model.forward_with_penalty(batch)


def training_module(model: EmotionModel) -> nn.Module:
    """Return the module that training calls: the model itself, or its wrapper that also returns the distillation loss."""
    return DistillationWrapper(model) if isinstance(model, FineTunedModel) and model.distillation is not None else model


def _block_index(parameter: str) -> int | None:
    """Return the index of the encoder block that a parameter belongs to; None for layers before the first block."""
    match = re.search(r"layers\.(\d+)\.", parameter)
    return int(match[1]) if match else None


def feature_spec(feature: Feature) -> FeatureSpec:
    """Return the size and frame rate of a feature's output."""
    return FeatureSpec(feature.dim, feature.frame_rate, feature.num_states, feature.has_time)


@torch.no_grad()
def initial_statistics(model: FineTunedModel, batches: list[Batch]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and standard deviation of each feature that the encoder outputs before training, (dim,) each."""
    total = squares = torch.zeros(model.encoder.dim, dtype=torch.float64)
    count = 0
    for batch in batches:
        stream = model.encoder.encode(batch.streams["speech"])
        frames = (stream.values if stream.mask is None else stream.values[stream.mask]).reshape(-1, model.encoder.dim)
        frames = frames.double().cpu()
        total, squares, count = total + frames.sum(dim=0), squares + frames.square().sum(dim=0), count + len(frames)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    return {"speech": (mean.float(), std.float())}


def load_matching_weights(
    model: EmotionModel,
    weights: Mapping[str, Tensor],
    emotions: Sequence[str],
    source_emotions: Sequence[str],
    *,
    temperature: float = 1.0,
) -> None:
    """Copy the weights of a model with the same settings that may distinguish other emotions.

    The rows of the output layer are copied for the emotions that both models have; the other rows keep their values.

    Args:
        model: The model to change.
        weights: The weights of the other model, by name.
        emotions: The emotions of `model`, in the order of its outputs.
        source_emotions: The emotions of the other model, in the order of its outputs.
        temperature: The temperature of the other model. The copied rows are divided by it, so that training starts from the
            probabilities that the other model predicts.

    Raises:
        BadConfig: The models have different sizes.
    """
    output_ids = {id(parameter) for parameter in model.output_layer.parameters()}
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in tensors.items():
        source, is_output = weights.get(name), id(tensor) in output_ids
        if source is None:
            raise BadConfig(f"the weights to start from have no {name}; expected the shape {tuple(tensor.shape)}")
        if source.shape[1:] != tensor.shape[1:] or (not is_output and source.shape != tensor.shape):
            raise BadConfig(
                f"{name} has the shape {tuple(tensor.shape)}, but {tuple(source.shape)} in the weights to start from"
            )
        if is_output:
            for row, emotion in enumerate(emotions):
                if emotion in source_emotions:
                    tensor.data[row] = source[source_emotions.index(emotion)] / temperature
        else:
            tensor.data.copy_(source)
