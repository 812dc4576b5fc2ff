"""The layers that models share. Shapes are (batch, frames, dim) unless said otherwise; a mask is True where there is a
frame, and frames stand first. A mask of None means that every frame is real, padding included: the papers' reading."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

Sequence = Float[Tensor, "batch frames dim"]
Mask = Bool[Tensor, "batch frames"]
Context = Float[Tensor, "batch keys key_dim"]  # another sequence, which attention may take its keys of
KeyMask = Bool[Tensor, "batch keys"]

NEGATIVE = -1e9  # stands for minus infinity in a softmax: a window without any key must give numbers, not NaN


def fractal_attention(
    query: Sequence,
    key: Sequence,
    value: Sequence,
    *,
    heads: int,
    factor: int = 3,
    scales: int = 4,
    mask: Mask | None = None,
    mask_window_padding: bool = False,
    dropout: float = 0.0,
) -> Sequence:
    """Attention inside short windows at several time scales, summed: MSTR, sections 2.1 to 2.3, without W^O.

    Takes the projected query, key and value, each (batch, frames, dim), any number of frames; gives (batch, frames, dim).
    At scale k (0, 1, ...) the time axis is averaged over `factor**k` frames, the incomplete tail dropped; zero frames are
    appended up to a multiple of `factor`; attention runs inside windows of `factor` frames; GELU; nearest up-sampling to
    all frames, frame i taking `floor(i * n / frames)`. A scale that has no frame left contributes nothing.

    mask: True where there is a frame; the result is then that of each utterance alone at its own length.
    mask_window_padding: whether the zero frames that fill up the last window are kept out of its softmax. The paper's
        operation count includes them and its text is silent, so the default leaves them in.
    dropout: share of the attention weights that are dropped; the caller passes 0 outside training.
    """
    levels = fractal_levels(
        query,
        key,
        value,
        heads=heads,
        factor=factor,
        scales=scales,
        mask=mask,
        mask_window_padding=mask_window_padding,
        dropout=dropout,
    )
    total = levels[0]
    for level in levels[1:]:
        total = total + level
    return total


def fractal_levels(
    query: Sequence,
    key: Sequence,
    value: Sequence,
    *,
    heads: int,
    factor: int = 3,
    scales: int = 4,
    mask: Mask | None = None,
    mask_window_padding: bool = False,
    dropout: float = 0.0,
    temperature: float | None = None,
    upsampling: str = "interpolate",
    operators: nn.ModuleList | None = None,
) -> list[Sequence]:
    """What each scale contributes to `fractal_attention`, finest first: after GELU, up-sampled to all frames.

    temperature: what the scores are divided by; None is the square root of a head's width.
    upsampling: "interpolate", or "repeat": every frame `factor**k` times, then the last one to the end.
    operators: `ScaleOperator`s, one from each scale to the next, in place of the average over `factor` frames.
    """
    frames = query.shape[1]
    lengths = None if mask is None else mask.sum(dim=1)
    counts, count = lengths, frames  # frames left at this scale: per utterance, and in the longest
    streams = [query, key, value]
    levels = []
    for scale in range(scales):
        # There is always at least one zero frame after the last: a scale without frames is then one window of zeros,
        # whose output is zero, and needs no case of its own (nor a size of zero in an exported graph).
        padding = factor * (count // factor + 1) - count
        streams = [F.pad(_cleared(x[:, :count], counts), (0, 0, 0, padding)) for x in streams]
        windows = [x.unflatten(1, (-1, factor)) for x in streams]
        real = _real_frames(count + padding, count, counts, query.device).unflatten(1, (-1, factor))
        attended = _window_attention(
            *windows, heads=heads, keys=real if mask_window_padding else None, dropout=dropout, temperature=temperature
        )
        if upsampling == "repeat":
            source = _repeated(frames, factor**scale, count, counts, query.device)
        else:
            source = _interpolated(frames, count, lengths, counts, query.device)
        levels.append(_taken(F.gelu(attended.flatten(1, 2)), source))
        if scale + 1 < scales:
            # Iterated averages over `factor` frames equal one average over `factor**k`: every group is complete.
            streams = [x.mean(dim=2) for x in windows] if operators is None else operators[scale](windows)
            counts, count = None if counts is None else counts // factor, count // factor
    return levels


def _real_frames(size: int, count: int, counts: Tensor | None, device: torch.device) -> Tensor:
    """(batch or 1, size): True for the frames that stand for sound at this scale."""
    position = torch.arange(size, device=device).unsqueeze(0)
    return position < (count if counts is None else counts.unsqueeze(1))


def _cleared(x: Tensor, counts: Tensor | None) -> Tensor:
    """x with zeros beyond each utterance's own frames."""
    if counts is None:
        return x
    return x * _real_frames(x.shape[1], 0, counts, x.device).unsqueeze(2).to(x.dtype)


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
    """Attention inside windows, (batch, windows, factor, dim); `keys` is True for the keys that may be attended to."""
    query, key, value = (x.unflatten(3, (heads, -1)).transpose(2, 3) for x in (query, key, value))
    scores = query @ key.transpose(3, 4) / (temperature or query.shape[4] ** 0.5)
    if keys is not None:
        scores = scores.masked_fill(~keys[:, :, None, None, :], NEGATIVE)
    return (F.dropout(scores.softmax(dim=4), dropout) @ value).transpose(2, 3).flatten(3)


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
    """x at the frames of `source`."""
    if source.ndim == 1:
        return x[:, source]
    # Beyond an utterance's end the index may run past the scale; what stands there is nobody's.
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
        upsampling: str = "interpolate",
    ) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=bias) for _ in range(3))
        self.output = nn.Linear(dim * scales if mixer == "concat" else dim, dim, bias=bias)
        steps = range(0 if operator == "average" else scales - 1)
        self.operators = nn.ModuleList(ScaleOperator(dim, factor, depthwise=operator == "depthwise") for _ in steps)
        self.score = nn.Linear(dim, 1, bias=False) if mixer == "attention" else None
        self.heads, self.factor, self.scales, self.mixer = heads, factor, scales, mixer
        self.mask_window_padding, self.dropout = mask_window_padding, dropout
        self.temperature, self.upsampling = temperature, upsampling

    def forward(self, x: Sequence, mask: Mask | None = None) -> Sequence:
        levels = self._levels(x, mask)
        return self.output(torch.cat(levels, dim=2) if self.mixer == "concat" else sum(levels[1:], start=levels[0]))

    def explain(self, x: Sequence, mask: Mask | None = None) -> Float[Tensor, "batch scales frames"]:
        """Each scale's share of what is mixed: the norms of the scales' contributions, summing to one at every frame."""
        norms = torch.stack([level.norm(dim=2) for level in self._levels(x, mask)], dim=1)
        return norms / norms.sum(dim=1, keepdim=True).clamp(min=torch.finfo(norms.dtype).tiny)

    def _levels(self, x: Tensor, mask: Tensor | None) -> list[Tensor]:
        """What each scale contributes, finest first, weighted already where the mixer weighs."""
        levels = fractal_levels(
            self.query(x),
            self.key(x),
            self.value(x),
            heads=self.heads,
            factor=self.factor,
            scales=self.scales,
            mask=mask,
            mask_window_padding=self.mask_window_padding,
            dropout=self.dropout if self.training else 0.0,
            temperature=self.temperature,
            upsampling=self.upsampling,
            operators=self.operators if len(self.operators) else None,
        )
        if self.score is None:
            return levels
        scores = torch.cat([self.score(level) for level in levels], dim=2)
        shares = scores.masked_fill(~self._filled(x, mask).unsqueeze(1), NEGATIVE).softmax(dim=2)
        return [share * level for share, level in zip(shares.split(1, dim=2), levels, strict=True)]

    def _filled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(batch or 1, scales): True for the scales that have a frame."""
        lengths = torch.ones_like(x[:1, :, 0], dtype=torch.bool) if mask is None else mask
        sizes = self.factor ** torch.arange(self.scales, device=x.device)
        return lengths.sum(dim=1, keepdim=True) >= sizes


class FullAttention(nn.Module):
    """Multi-head attention over all frames (Vaswani et al., 2017), with its projections.

    Queries are of `x`; keys and values too, or of `context`, (batch, keys, key_dim), another sequence. `mask`, (batch, keys),
    is True for the keys that may be attended to. Scores are divided by `temperature`, a head's width to the half if None.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        key_dim: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        key_dim = key_dim or dim
        self.query, self.output = nn.Linear(dim, dim, bias=bias), nn.Linear(dim, dim, bias=bias)
        self.key, self.value = nn.Linear(key_dim, dim, bias=bias), nn.Linear(key_dim, dim, bias=bias)
        self.heads, self.dropout = heads, dropout
        self.temperature = temperature or (dim // heads) ** 0.5

    def _projected(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        context = x if context is None else context
        return [
            rearrange(projection(source), "batch frames (heads dim) -> batch heads frames dim", heads=self.heads)
            for projection, source in ((self.query, x), (self.key, context), (self.value, context))
        ]

    def forward(self, x: Sequence, mask: KeyMask | None = None, context: Context | None = None) -> Sequence:
        query, key, value = self._projected(x, context)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            # Spelt out for every query: onnxruntime's Attention does not broadcast a mask over queries.
            attn_mask=None if mask is None else mask[:, None, None, :].expand(-1, -1, x.shape[1], -1),
            dropout_p=self.dropout if self.training else 0.0,
            scale=1 / self.temperature,
        )
        return self.output(rearrange(attended, "batch heads frames dim -> batch frames (heads dim)"))

    def explain(
        self, x: Sequence, mask: KeyMask | None = None, context: Context | None = None
    ) -> Float[Tensor, "batch heads frames keys"]:
        """The attention weights: rows are queries and sum to one."""
        query, key, _ = self._projected(x, context)
        scores = query @ key.transpose(2, 3) / self.temperature
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], NEGATIVE)
        return scores.softmax(dim=3)


class FeedForward(nn.Sequential):
    """Two linear layers with an activation between; a ReLU is the vanilla Transformer's."""

    def __init__(self, dim: int, width: int, *, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(nn.Linear(dim, width), activation(), nn.Linear(width, dim))


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each with its residual, dropout and norm; post-norm unless `norm_first`.

    `context`, where the attention takes one, is another sequence that keys and values are of; `mask` is the keys'.
    """

    def __init__(
        self,
        attention: nn.Module,
        *,
        dim: int,
        feedforward: int,
        norm_shape: tuple[int, ...],
        norm_first: bool = False,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feedforward = FeedForward(dim, feedforward, activation=activation)
        self.norm1, self.norm2 = nn.LayerNorm(norm_shape), nn.LayerNorm(norm_shape)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def attention_input(self, x: Sequence) -> Sequence:
        return self.norm1(x) if self.norm_first else x

    def forward(self, x: Sequence, mask: KeyMask | None = None, context: Context | None = None) -> Sequence:
        others = () if context is None else (context,)
        attended = self.dropout(self.attention(self.attention_input(x), mask, *others))
        if self.norm_first:
            x = x + attended
            return x + self.dropout(self.feedforward(self.norm2(x)))
        x = self.norm1(x + attended)
        return self.norm2(x + self.dropout(self.feedforward(x)))


class StreamInput(nn.Module):
    """From a stream's features to the width that a model works in.

    parts: the features are that many states of an encoder, set one after the other along dim.
    mix: "concat", one linear layer sees all states together; "learned", it sees their softmax-weighted sum.
    norm: "layer", a LayerNorm over each state; "standard", every feature less its mean and over its deviation in the
        training part, which `standardise` sets. Some of an encoder's features are many times as large as others: a
        LayerNorm leaves them so, and an optimiser that moves all weights alike then learns from those few.
    Without any of this, and with equal widths, nothing is added: the papers' reading.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, input_dim: int, dim: int, *, parts: int = 1, mix: str = "concat", norm: str = "none") -> None:
        super().__init__()
        part = input_dim // parts
        width = part if mix == "learned" else input_dim
        self.parts, self.standard = parts, norm == "standard"
        if self.standard:
            self.register_buffer("mean", torch.zeros(input_dim))
            self.register_buffer("deviation", torch.ones(input_dim))
        self.norms = nn.ModuleList(nn.LayerNorm(part) for _ in range(parts)) if norm == "layer" else None
        self.weights = nn.Parameter(torch.zeros(parts)) if mix == "learned" else None
        self.projection = nn.Identity() if width == dim else nn.Linear(width, dim)

    def standardise(self, mean: Float[Tensor, " features"], deviation: Float[Tensor, " features"]) -> None:
        if self.standard:
            self.mean.copy_(mean)
            self.deviation.copy_(deviation.clamp(min=1e-3))

    def standardised(self, x: Float[Tensor, "batch frames features"]) -> Float[Tensor, "batch frames features"]:
        return (x - self.mean) / self.deviation if self.standard else x

    def forward(self, x: Float[Tensor, "batch frames features"]) -> Sequence:
        """From features, standardised already."""
        if self.norms is None and self.weights is None:
            return self.projection(x)
        states = list(x.chunk(self.parts, dim=2))
        if self.norms is not None:
            states = [norm(state) for norm, state in zip(self.norms, states, strict=True)]
        if self.weights is None:
            return self.projection(torch.cat(states, dim=2))
        shares = self.weights.softmax(dim=0)
        return self.projection(sum(share * state for share, state in zip(shares, states, strict=True)))


def strided(
    x: Float[Tensor, "batch frames dim"], mask: Mask | None, stride: int
) -> tuple[Float[Tensor, "batch fewer dim"], Bool[Tensor, "batch fewer"] | None]:
    """The mean of every `stride` frames, and of what is left at an utterance's end; with the mask that goes with it."""
    frames = x.shape[1]
    padding = stride * ((frames + stride - 1) // stride) - frames
    real = torch.ones_like(x[:, :, 0]) if mask is None else mask.to(x.dtype)
    groups = F.pad(x * real.unsqueeze(2), (0, 0, 0, padding)).unflatten(1, (-1, stride)).sum(dim=2)
    counts = F.pad(real, (0, padding)).unflatten(1, (-1, stride)).sum(dim=2)
    return groups / counts.clamp(min=1).unsqueeze(2), None if mask is None else counts > 0


class Pooling(nn.Module):
    """(batch, frames, dim) -> one vector per utterance, over time: `mean`, `max`, or two of them side by side."""

    KINDS = ("mean", "max", "mean+max", "mean+deviation")

    def __init__(self, kind: str = "mean") -> None:
        super().__init__()
        assert kind in self.KINDS
        self.kind = kind

    def width(self, dim: int) -> int:
        return dim * (1 + self.kind.count("+"))

    def forward(self, x: Sequence, mask: Mask | None = None) -> Float[Tensor, "batch width"]:
        if self.kind == "max":
            return _masked_max(x, mask)
        mean = _masked_mean(x, mask)
        if self.kind == "mean+max":
            return torch.cat([mean, _masked_max(x, mask)], dim=1)
        if self.kind == "mean":
            return mean
        variance = _masked_mean((x - mean.unsqueeze(1)) ** 2, mask)
        return torch.cat([mean, (variance + 1e-6).sqrt()], dim=1)


def _masked_max(x: Tensor, mask: Tensor | None) -> Tensor:
    return (x if mask is None else x.masked_fill(~mask.unsqueeze(2), NEGATIVE)).amax(dim=1)


def _masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x.mean(dim=1)
    weight = mask.unsqueeze(2).to(x.dtype)
    return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class Classifier(nn.Sequential):
    """Fully connected layers down to the emotions, with ReLU and dropout between; MSTR's are F -> F/2 -> F/4 -> emotions."""

    def __init__(self, width: int, emotions: int, *, hidden: tuple[int, ...], dropout: float = 0.5) -> None:
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        super().__init__(*layers, nn.Linear(width, emotions))

    @property
    def last(self) -> nn.Linear:
        """The layer whose rows are the emotions."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        return last


def sinusoids(frames: int, dim: int, *, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "frames dim"]:
    """Vaswani's position table: sin(position / 10000^(2i / dim)) at feature 2i, its cosine at 2i + 1."""
    rate = 10000.0 ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float64) / dim)
    angle = torch.arange(frames, device=device, dtype=torch.float64).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim].to(dtype)
