"""Fractal attention: Li et al., "Multi-Scale Temporal Transformer For Speech Emotion Recognition", Interspeech 2023."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.errors import BadConfig
from affekt.models.layers.fractal import cpu, gpu
from affekt.models.layers.fractal.options import FractalOptions
from affekt.models.layers.fractal.torch_ops import ScaleOperator, fractal_scales
from affekt.models.layers.projection import project
from affekt.models.layers.shapes import NEGATIVE, FrameMask, Frames
from affekt.models.layers.tracing import is_traced


def fractal_attention(
    query: Frames,
    key: Frames,
    value: Frames,
    *,
    heads: int,
    factor: int = 3,
    scales: int = 4,
    mask: FrameMask | None = None,
    mask_window_padding: bool = False,
    dropout: float = 0.0,
) -> Frames:
    """Return the sum of attention inside short windows at several time scales: MSTR, sections 2.1 to 2.3, without W^O.

    At scale k (0, 1, ...), query, key and value are averaged over every `factor**k` frames, and an incomplete tail is
    dropped. Zero frames are appended up to a multiple of `factor`. Attention runs inside windows of `factor` frames,
    followed by GELU. The n frames of the scale are up-sampled to the input's number of frames: frame i of the result is frame
    `floor(i * n / frames)` of the scale. A scale without frames contributes nothing. The result can be differentiated only
    once.

    Args:
        query: Projected queries, (batch, frames, dim), with any number of frames.
        key: Projected keys, of the same shape.
        value: Projected values, of the same shape.
        heads: Number of heads, a divisor of dim.
        factor: Frames of a window, and ratio between scales.
        scales: Number of scales.
        mask: True for real frames, which precede the padding. The result of each utterance is then that of the utterance
            alone, at its own length; the output in its padding is undefined.
        mask_window_padding: Whether a softmax ignores the zero frames that fill the last window. The paper's operation count
            includes them, and its text does not mention them, so the default is to include them.
        dropout: Probability with which an attention weight is dropped; pass 0 outside training.

    Returns:
        (batch, frames, dim).

    Raises:
        BadConfig: The tensors do not fit together, or an option is out of range.
    """
    return _attend(query, key, value, FractalOptions(heads, factor, scales, mask_window_padding, dropout), mask)


def _attend(query: Tensor, key: Tensor, value: Tensor, options: FractalOptions, mask: Tensor | None) -> Tensor:
    """Run the fastest implementation for these tensors: the kernels for a CPU or a GPU, otherwise torch's own operations."""
    _check(query, key, value, options, mask)
    scales = _scales_with_frames(query, options)
    if scales < options.scales:
        options = replace(options, scales=scales)
    for implementation in () if is_traced(query) else (cpu, gpu):
        if implementation.supports(query, options):
            return implementation.attend(query, key, value, options, None if mask is None else mask.sum(dim=1))
    outputs = fractal_scales(query, key, value, mask=mask, **asdict(options))
    return sum(outputs[1:], start=outputs[0])


def _check(query: Tensor, key: Tensor, value: Tensor, options: FractalOptions, mask: Tensor | None) -> None:
    """Raise `BadConfig` for tensors that do not fit together: compiled code would read past their ends."""
    if query.ndim != 3 or query.shape[2] % options.heads:
        raise BadConfig(
            f"a query of {tuple(query.shape)} and {options.heads} heads: expected (batch, frames, dim), "
            "with dim a multiple of the number of heads"
        )
    for name, x in (("key", key), ("value", value)):
        if (x.shape, x.dtype, x.device) != (query.shape, query.dtype, query.device):
            raise BadConfig(
                f"a {name} of {tuple(x.shape)}, {x.dtype} on {x.device}: expected the query's shape, type and device, "
                f"{tuple(query.shape)}, {query.dtype} on {query.device}"
            )
    if mask is not None and (mask.shape != query.shape[:2] or mask.dtype != torch.bool):
        raise BadConfig(
            f"a mask of {tuple(mask.shape)}, {mask.dtype}: expected (batch, frames), {tuple(query.shape[:2])}, of torch.bool"
        )


def _scales_with_frames(query: Tensor, options: FractalOptions) -> int:
    """Return the number of scales that have frames. Coarser scales contribute nothing."""
    if is_traced(query):  # the length may be a symbol
        return options.scales
    return next((k for k in range(1, options.scales) if options.factor**k > query.shape[1]), options.scales)


class FractalAttention(nn.Module):
    """MSTR's attention with its projections: W^Q, W^K, W^V, fractal attention, mixing of the scales, W^O.

    Args:
        dim: Width of the input and the output.
        heads: Number of heads.
        factor: Frames of a window, and ratio between scales.
        scales: Number of scales.
        mask_window_padding: Whether a softmax ignores the zero frames that fill the last window.
        dropout: Probability with which an attention weight is dropped in training.
        bias: Whether the projections have biases.
        temperature: Divisor of the scores; None is the square root of a head's width.
        operator: How one scale is computed from the next finer one: "average", "depthwise" or "convolution"
            (`ScaleOperator`).
        mixer: How the outputs of the scales are combined. "sum": their sum (eq. 4); "concat": side by side, finest first,
            with a W^O from all of them to dim; "attention": their weighted mean. At every frame, the weights are a softmax
            over the scales that have frames; a scale's score is a linear layer of its output, without bias (section 2.3
            names scale attention without details).
        upsampling: See `FractalOptions`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        factor: int = 3,
        scales: int = 4,
        mask_window_padding: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        temperature: float | None = None,
        operator: str = "average",
        mixer: str = "sum",
        upsampling: Literal["interpolate", "repeat"] = "interpolate",
    ) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=bias) for _ in range(3))
        self.output = nn.Linear(dim * scales if mixer == "concat" else dim, dim, bias=bias)
        steps = range(0 if operator == "average" else scales - 1)
        self.operators = nn.ModuleList(ScaleOperator(dim, factor, depthwise=operator == "depthwise") for _ in steps)
        self.score = nn.Linear(dim, 1, bias=False) if mixer == "attention" else None
        self.options = FractalOptions(heads, factor, scales, mask_window_padding, dropout, temperature, upsampling)
        self.mixer = mixer

    def forward(self, x: Frames, mask: FrameMask | None = None) -> Frames:
        if self.mixer == "sum" and not len(self.operators):
            query, key, value = project(x, self.query, self.key, self.value)
            return self.output(_attend(query, key, value, self._current_options(), mask))
        outputs = self._scale_outputs(x, mask)
        return self.output(torch.cat(outputs, dim=2) if self.mixer == "concat" else sum(outputs[1:], start=outputs[0]))

    def explain(self, x: Frames, mask: FrameMask | None = None) -> Float[Tensor, "batch scales frames"]:
        """Return each scale's fraction of the mixture at every frame: the norm of its contribution, divided by the sum of the
        norms of all scales."""
        norms = torch.stack([output.norm(dim=2) for output in self._scale_outputs(x, mask)], dim=1)
        return norms / norms.sum(dim=1, keepdim=True).clamp(min=torch.finfo(norms.dtype).tiny)

    def _current_options(self) -> FractalOptions:
        keeps_dropout = self.training or not self.options.dropout
        return self.options if keeps_dropout else replace(self.options, dropout=0.0)

    def _scale_outputs(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Return each scale's contribution, finest first, with the mixer's weights applied."""
        operators = self.operators if len(self.operators) else None
        streams = project(x, self.query, self.key, self.value)
        outputs = fractal_scales(*streams, mask=mask, operators=operators, **asdict(self._current_options()))
        if self.score is None:
            return outputs
        scores = torch.cat([self.score(output) for output in outputs], dim=2)
        weights = scores.masked_fill(~self._nonempty_scales(x, mask).unsqueeze(1), NEGATIVE).softmax(dim=2)
        return [weight * output for weight, output in zip(weights.split(1, dim=2), outputs, strict=True)]

    def _nonempty_scales(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return which scales have frames, (batch or 1, scales)."""
        real = torch.ones_like(x[:1, :, 0], dtype=torch.bool) if mask is None else mask
        sizes = self.options.factor ** torch.arange(self.options.scales, device=x.device)
        return real.sum(dim=1, keepdim=True) >= sizes
