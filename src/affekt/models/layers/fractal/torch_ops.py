"""Fractal attention in plain torch operations: for any device and precision, and for export. Section numbers refer to MSTR's
paper (Li et al., Interspeech 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affekt.models.layers.shapes import FrameMask, Frames


def fractal_scales(
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
    temperature: float | None = None,
    upsampling: str = "interpolate",
    operators: nn.ModuleList | None = None,
) -> list[Frames]:
    """Return each scale's contribution to `fractal_attention`, finest first: after GELU, up-sampled to all frames.

    Args:
        query: Projected queries, (batch, frames, dim).
        key: Projected keys, of the same shape.
        value: Projected values, of the same shape.
        heads: See `FractalOptions` for this and the following options.
        factor: Frames of a window.
        scales: Number of scales.
        mask: True for real frames.
        mask_window_padding: Whether a softmax ignores the zero frames that fill the last window.
        dropout: Probability with which an attention weight is dropped.
        temperature: Divisor of the scores.
        upsampling: "interpolate" or "repeat".
        operators: The `ScaleOperator` from each scale to the next coarser one; None for the average over `factor` frames.
    """
    frames = query.shape[1]
    lengths = None if mask is None else mask.sum(dim=1)
    # All scales are concatenated along the time axis and attended to at once; then each scale is up-sampled to all frames.
    counts, count = lengths, frames  # number of frames at this scale: of each utterance, and of the longest
    # Query, key and value at this scale, as one tensor, because exporting takes long for each operation.
    streams = torch.cat((query, key, value), dim=2)
    start = 0  # index of this scale's first frame on the common time axis
    windows: list[Tensor] = []  # of the streams, for each scale
    sources: list[Tensor] = []  # for each scale and output frame, the frame on the common axis that up-sampling copies
    real: list[Tensor] = []  # mask of the real frames in the windows, for each scale
    for scale in range(scales):
        # At least one zero frame is appended. A scale without frames is then one window of zeros, whose output is zero, so it
        # needs no special case, and no size is zero in an exported graph.
        size = factor * (count // factor + 1)
        streams = F.pad(_zero_padding(streams[:, :count], counts), (0, 0, 0, size - count))
        windows.append(streams.unflatten(1, (-1, factor)))
        real.append(_real_frames(size, count, counts, query.device).unflatten(1, (-1, factor)))
        if upsampling == "repeat":
            source = _repeat_source(frames, factor**scale, count, counts, query.device)
        else:
            source = _interpolation_source(frames, count, lengths, counts, query.device)
        sources.append(start + source)
        start = start + size
        if scale + 1 < scales:
            # Repeated averages over `factor` frames equal one average over `factor**k`, since every group is complete.
            streams = windows[-1].mean(dim=2) if operators is None else operators[scale](windows[-1])
            counts, count = None if counts is None else counts // factor, count // factor
    # Attention inside a window does not depend on its scale, so one operation handles the windows of all scales: onnxruntime
    # then loads and starts fewer operations. None of the alternatives in benchmarks/exported.py is faster at all lengths.
    query, key, value = torch.cat(windows, dim=1).chunk(3, dim=3)
    key_mask = torch.cat(real, dim=1) if mask_window_padding else None
    attended = _window_attention(
        query, key, value, heads=heads, key_mask=key_mask, dropout=dropout, temperature=temperature
    )
    attended = F.gelu(attended)
    # The finest scale needs no up-sampling.
    return [attended[:, :frames], *(_gather_frames(attended, source) for source in sources[1:])]


def _real_frames(size: int, count: int, counts: Tensor | None, device: torch.device) -> Tensor:
    """Return a mask of the real frames at this scale, (batch or 1, size)."""
    position = torch.arange(size, device=device).unsqueeze(0)
    return position < (count if counts is None else counts.unsqueeze(1))


def _zero_padding(x: Tensor, counts: Tensor | None) -> Tensor:
    """Return x with zeros beyond each utterance's own frames."""
    if counts is None:
        return x
    # A product with the mask would not remove NaN.
    return x.masked_fill(~_real_frames(x.shape[1], 0, counts, x.device).unsqueeze(2), 0.0)


def _window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    heads: int,
    key_mask: Tensor | None,
    dropout: float,
    temperature: float | None,
) -> Tensor:
    """Attend inside windows of query, key and value, (batch, windows, factor, dim) each; return (batch, frames, dim).

    `key_mask`, (batch or 1, windows, factor), is True for the keys that may be attended to.
    """
    batch, _, factor, dim = query.shape
    if key_mask is not None:
        # Expanded for every query: onnxruntime's Attention does not broadcast a mask over queries.
        key_mask = key_mask.expand(batch, -1, -1).flatten(0, 1)[:, None, None, :].expand(-1, -1, factor, -1)
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    scale = 1 / (temperature or (dim // heads) ** 0.5)
    if torch.onnx.is_in_onnx_export():
        # ONNX's operator splits the features into heads itself, which is a tenth faster than transposes around it.
        attended = torch.onnx.ops.attention(
            query, key, value, key_mask, scale=scale, q_num_heads=heads, kv_num_heads=heads
        )[0]
    else:
        query, key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, key_mask, dropout, scale=scale)
        attended = attended.transpose(1, 2).flatten(2)
    return attended.unflatten(0, (batch, -1)).flatten(1, 2)


def _interpolation_source(
    frames: int, count: int, lengths: Tensor | None, counts: Tensor | None, device: torch.device
) -> Tensor:
    """Return the index of the coarse frame that is copied to each output frame i: floor(i * n / frames) for n coarse frames,
    as in torch's `interpolate(size=frames)`. The shape is (frames,), or (batch, frames) if utterances have their own
    lengths."""
    position = torch.arange(frames, device=device)
    if lengths is None or counts is None:
        return position * count // frames
    return position * counts.unsqueeze(1) // lengths.clamp(min=1).unsqueeze(1)


def _repeat_source(frames: int, size: int, count: int, counts: Tensor | None, device: torch.device) -> Tensor:
    """Return the index of the coarse frame that is copied to each output frame if every coarse frame is repeated `size`
    times, and the last one up to the end. The shape is that of `_interpolation_source`."""
    source = torch.arange(frames, device=device) // size
    if counts is None:
        return source.clamp(max=count - 1).clamp(min=0)
    return torch.minimum(source.unsqueeze(0), (counts - 1).clamp(min=0).unsqueeze(1))


def _gather_frames(x: Tensor, source: Tensor) -> Tensor:
    """Return the frames of x with the indices `source`, (frames,) or (batch, frames)."""
    if source.ndim == 1:
        return x.index_select(1, source)
    # Beyond the end of an utterance, an index may be larger than the scale or even x; the result is undefined there.
    return x.gather(1, source.clamp(max=x.shape[1] - 1).unsqueeze(2).expand(-1, -1, x.shape[2]))


class ScaleOperator(nn.Module):
    """The step from one time scale to the next coarser one, by strided convolutions of query, key and value (MSTR, section
    2.1).

    Kernel and stride are `factor` frames, as in the average that they replace. The paper compares the average with a
    convolution, but gives no details of it. With `depthwise` every feature has its own kernel (an average with learned
    weights); otherwise each output feature depends on all input features.
    """

    def __init__(self, dim: int, factor: int, *, depthwise: bool) -> None:
        super().__init__()
        groups = dim if depthwise else 1
        self.query, self.key, self.value = (nn.Conv1d(dim, dim, factor, factor, groups=groups) for _ in range(3))

    def forward(self, windows: Tensor) -> Tensor:
        """Reduce windows of query, key and value, (batch, windows, factor, 3 * dim), to (batch, windows, 3 * dim)."""
        streams = windows.flatten(1, 2).transpose(1, 2).chunk(3, dim=1)
        operators = (self.query, self.key, self.value)
        reduced = [operator(stream) for operator, stream in zip(operators, streams, strict=True)]
        return torch.cat(reduced, dim=1).transpose(1, 2)
