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
    """Attention inside short windows at several time scales, summed: MSTR, sections 2.1 to 2.3, without W^O.

    Takes the projected query, key and value, each (batch, frames, dim), any number of frames; gives (batch, frames, dim).
    At scale k (0, 1, ...) the time axis is averaged over `factor**k` frames, the incomplete tail dropped; zero frames are
    appended up to a multiple of `factor`; attention runs inside windows of `factor` frames; GELU; nearest up-sampling to
    all frames, frame i taking `floor(i * n / frames)`. A scale that has no frame left contributes nothing.

    Differentiable once. Raises `BadConfig` for tensors that do not fit together and settings that cannot be.

    mask: True where there is a frame, and frames stand first; the result is then that of each utterance alone at its own
        length. What stands behind its end is nobody's.
    mask_window_padding: whether the zero frames that fill up the last window are kept out of its softmax. The paper's
        operation count includes them and its text is silent, so the default leaves them in.
    dropout: share of the attention weights that are dropped; the caller passes 0 outside training.
    """
    return _attend(query, key, value, FractalOptions(heads, factor, scales, mask_window_padding, dropout), mask)


def _attend(query: Tensor, key: Tensor, value: Tensor, options: FractalOptions, mask: Tensor | None) -> Tensor:
    """By the fastest way that there is for such tensors; where they are traced, in torch's own operations."""
    _check(query, key, value, options, mask)
    options = replace(options, scales=_scales_with_frames(query, options))
    for way in () if is_traced(query) else (cpu, gpu):
        if way.supports(query, options):
            return way.attend(query, key, value, options, None if mask is None else mask.sum(dim=1))
    levels = fractal_scales(query, key, value, mask=mask, **asdict(options))
    return sum(levels[1:], start=levels[0])


def _check(query: Tensor, key: Tensor, value: Tensor, options: FractalOptions, mask: Tensor | None) -> None:
    """Raise `BadConfig` for tensors that do not belong together: compiled code would read past their ends."""
    if query.ndim != 3 or query.shape[2] % options.heads:
        raise BadConfig(
            f"a query of {tuple(query.shape)} and {options.heads} heads: expected (batch, frames, dim), "
            "with a dim that is a multiple of the heads"
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
    """How many scales are worth a look: those beyond have no frame, and contribute nothing."""
    if is_traced(query):  # the length may be a symbol
        return options.scales
    return next((k for k in range(1, options.scales) if options.factor**k > query.shape[1]), options.scales)


class FractalAttention(nn.Module):
    """MSTR's attention with its projections: W^Q, W^K, W^V, fractal attention, mixing of the scales, W^O.

    operator: what leads from one scale to the next: "average", "depthwise" or "convolution" (`ScaleOperator`).
    mixer: "sum" of the scales (eq. 4); "concat", side by side, finest first, W^O then leading from all of them back to dim;
        "attention", their mean weighted at every frame by a softmax over the scales that have frames, of one linear score
        without bias (section 2.3 names scale attention and says no more of it).
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
        levels = self._levels(x, mask)
        return self.output(torch.cat(levels, dim=2) if self.mixer == "concat" else sum(levels[1:], start=levels[0]))

    def explain(self, x: Frames, mask: FrameMask | None = None) -> Float[Tensor, "batch scales frames"]:
        """Each scale's share of what is mixed: the norms of the scales' contributions, summing to one at every frame."""
        norms = torch.stack([level.norm(dim=2) for level in self._levels(x, mask)], dim=1)
        return norms / norms.sum(dim=1, keepdim=True).clamp(min=torch.finfo(norms.dtype).tiny)

    def _current_options(self) -> FractalOptions:
        return self.options if self.training else replace(self.options, dropout=0.0)

    def _levels(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """What each scale contributes, finest first, weighted already where the mixer weighs."""
        operators = self.operators if len(self.operators) else None
        streams = project(x, self.query, self.key, self.value)
        levels = fractal_scales(*streams, mask=mask, operators=operators, **asdict(self._current_options()))
        if self.score is None:
            return levels
        scores = torch.cat([self.score(level) for level in levels], dim=2)
        shares = scores.masked_fill(~self._filled(x, mask).unsqueeze(1), NEGATIVE).softmax(dim=2)
        return [share * level for share, level in zip(shares.split(1, dim=2), levels, strict=True)]

    def _filled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(batch or 1, scales): True for the scales that have a frame."""
        lengths = torch.ones_like(x[:1, :, 0], dtype=torch.bool) if mask is None else mask
        sizes = self.options.factor ** torch.arange(self.options.scales, device=x.device)
        return lengths.sum(dim=1, keepdim=True) >= sizes
