"""Fractal attention in plain torch operations, scale by scale: any device, any precision, and what is exported. Section
numbers are of MSTR's paper (Li et al., Interspeech 2023)."""

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
    """What each scale contributes to `fractal_attention`, finest first: after GELU, up-sampled to all frames.

    temperature: what the scores are divided by; None is the square root of a head's width.
    upsampling: "interpolate", or "repeat": every frame `factor**k` times, then the last one to the end.
    operators: `ScaleOperator`s, one from each scale to the next, in place of the average over `factor` frames.
    """
    frames = query.shape[1]
    lengths = None if mask is None else mask.sum(dim=1)
    counts, count = lengths, frames  # frames left at this scale: per utterance, and in the longest
    streams, start = [query, key, value], 0
    windows: list[list[Tensor]] = []
    sources: list[Tensor] = []
    real: list[Tensor] = []
    for scale in range(scales):
        # There is always at least one zero frame after the last: a scale without frames is then one window of zeros,
        # whose output is zero, and needs no case of its own (nor a size of zero in an exported graph).
        size = factor * (count // factor + 1)
        streams = [F.pad(_cleared(x[:, :count], counts), (0, 0, 0, size - count)) for x in streams]
        windows.append([x.unflatten(1, (-1, factor)) for x in streams])
        real.append(_real_frames(size, count, counts, query.device).unflatten(1, (-1, factor)))
        if upsampling == "repeat":
            source = _repeated(frames, factor**scale, count, counts, query.device)
        else:
            source = _interpolated(frames, count, lengths, counts, query.device)
        sources.append(start + source)
        start = start + size
        if scale + 1 < scales:
            # Iterated averages over `factor` frames equal one average over `factor**k`: every group is complete.
            streams = [x.mean(dim=2) for x in windows[-1]] if operators is None else operators[scale](windows[-1])
            counts, count = None if counts is None else counts // factor, count // factor
    # A window knows nothing of its scale, so all scales' windows are attended to at once: onnxruntime has less to load
    # and to start, and no formulation that benchmarks/exported.py compares is faster at all lengths.
    query, key, value = (torch.cat(of_all, dim=1) for of_all in zip(*windows, strict=True))
    keys = torch.cat(real, dim=1) if mask_window_padding else None
    attended = _window_attention(query, key, value, heads=heads, keys=keys, dropout=dropout, temperature=temperature)
    attended = F.gelu(attended)
    return [attended[:, :frames], *(_taken(attended, source) for source in sources[1:])]  # the finest is where it was


def _real_frames(size: int, count: int, counts: Tensor | None, device: torch.device) -> Tensor:
    """(batch or 1, size): True for the frames that stand for sound at this scale."""
    position = torch.arange(size, device=device).unsqueeze(0)
    return position < (count if counts is None else counts.unsqueeze(1))


def _cleared(x: Tensor, counts: Tensor | None) -> Tensor:
    """x with zeros beyond each utterance's own frames."""
    if counts is None:
        return x
    return x.masked_fill(~_real_frames(x.shape[1], 0, counts, x.device).unsqueeze(2), 0.0)  # NaN too


def _window_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    heads: int,
    keys: Tensor | None,
    dropout: float,
    temperature: float | None,
) -> Tensor:
    """Attention inside windows of query, key and value, (batch, windows, factor, dim) each, to (batch, frames, dim); `keys`,
    (batch or 1, windows, factor), is True for the keys that may be attended to."""
    batch, _, factor, dim = query.shape
    if keys is not None:
        # Spelt out for every query: onnxruntime's Attention does not broadcast a mask over queries.
        keys = keys.expand(batch, -1, -1).flatten(0, 1)[:, None, None, :].expand(-1, -1, factor, -1)
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    scale = 1 / (temperature or (dim // heads) ** 0.5)
    if torch.onnx.is_in_onnx_export():
        # ONNX's operator divides widths into heads itself, a tenth faster than with transposes around it.
        attended = torch.onnx.ops.attention(
            query, key, value, keys, scale=scale, q_num_heads=heads, kv_num_heads=heads
        )[0]
    else:
        query, key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, keys, dropout, scale=scale)
        attended = attended.transpose(1, 2).flatten(2)
    return attended.unflatten(0, (batch, -1)).flatten(1, 2)


def _interpolated(
    frames: int, count: int, lengths: Tensor | None, counts: Tensor | None, device: torch.device
) -> Tensor:
    """The frame that each of so many takes, floor(i * n / frames), as torch's `interpolate(size=frames)` does: (frames,),
    or (batch, frames) where utterances have their own lengths."""
    position = torch.arange(frames, device=device)
    if lengths is None or counts is None:
        return position * count // frames
    return position * counts.unsqueeze(1) // lengths.clamp(min=1).unsqueeze(1)


def _repeated(frames: int, size: int, count: int, counts: Tensor | None, device: torch.device) -> Tensor:
    """Likewise, where every frame stands `size` times, and the last one to the end."""
    source = torch.arange(frames, device=device) // size
    if counts is None:
        return source.clamp(max=count - 1).clamp(min=0)
    return torch.minimum(source.unsqueeze(0), (counts - 1).clamp(min=0).unsqueeze(1))


def _taken(x: Tensor, source: Tensor) -> Tensor:
    """x, all scales one after the other, at the frames of `source`."""
    if source.ndim == 1:
        return x.index_select(1, source)
    # Beyond an utterance's end the index may run past its scale, or all; what stands there is nobody's.
    return x.gather(1, source.clamp(max=x.shape[1] - 1).unsqueeze(2).expand(-1, -1, x.shape[2]))


class ScaleOperator(nn.Module):
    """From one time scale to the next by strided convolution, one each of query, key and value: MSTR, section 2.1.

    Kernel and stride are `factor` frames, as the average's that it replaces. The paper says no more of the convolution that
    it weighs: `depthwise` gives every feature its own taps (an average with learned weights), otherwise each new feature
    sees all.
    """

    def __init__(self, dim: int, factor: int, *, depthwise: bool) -> None:
        super().__init__()
        groups = dim if depthwise else 1
        self.query, self.key, self.value = (nn.Conv1d(dim, dim, factor, factor, groups=groups) for _ in range(3))

    def forward(self, windows: list[Tensor]) -> list[Tensor]:
        """Windows of query, key and value, (batch, windows, factor, dim) each, to (batch, windows, dim) each."""
        return [
            operator(x.flatten(1, 2).transpose(1, 2)).transpose(1, 2)
            for operator, x in zip((self.query, self.key, self.value), windows, strict=True)
        ]
