"""MSTR as loops over frames, heads and scales (sections 2.1 to 2.3). Shares no code with the model."""

import torch

from tests.models.references.vanilla import attend, gelu, linear, softmax, utterance_logits


def logits(weights, settings, values, lengths):
    """Return logits (batch, emotions), one utterance at a time; values are (batch, frames, dim), lengths the real frames."""
    return torch.stack(
        [utterance_logits(weights, settings, x, n, fractal_attention) for x, n in zip(values, lengths, strict=True)]
    )


def fractal_attention(weights, settings, prefix, frames):
    streams = {name: [linear(weights, f"{prefix}{name}.", x) for x in frames] for name in ("query", "key", "value")}
    scales = []
    for scale in range(settings.scales):
        count = len(streams["query"])
        attended = [attend_in_window(settings, streams, i) for i in range(count)]
        scales.append(
            [gelu(attended[source(settings, i, scale, len(frames), count)]) for i in range(len(frames))]
            if count
            else None
        )
        streams = (
            {
                name: next_scale(weights, settings, f"{prefix}operators.{scale}.{name}.", x)
                for name, x in streams.items()
            }
            if scale + 1 < settings.scales
            else streams
        )
    mixed = [mix(weights, settings, prefix, [output and output[i] for output in scales]) for i in range(len(frames))]
    return [linear(weights, prefix + "output.", x) for x in mixed]


def attend_in_window(settings, streams, i):
    """Attend from frame i to its window of p frames, with zeros beyond the last frame."""
    first = i // settings.factor * settings.factor
    positions = [
        j for j in range(first, first + settings.factor) if j < len(streams["key"]) or not settings.mask_window_padding
    ]
    zero = torch.zeros_like(streams["key"][0])
    keys, values = (
        [streams[name][j] if j < len(streams[name]) else zero for j in positions] for name in ("key", "value")
    )
    return attend(settings, streams["query"][i], keys, values)


def next_scale(weights, settings, prefix, frames):
    """Reduce every p complete frames to one."""
    p = settings.factor
    groups = [frames[n * p : n * p + p] for n in range(len(frames) // p)]
    if settings.scale_operator == "average":
        return [sum(group) / p for group in groups]
    taps, bias = weights[prefix + "weight"], weights[prefix + "bias"]
    if settings.scale_operator == "depthwise":
        return [bias + sum(taps[:, 0, j] * x for j, x in enumerate(group)) for group in groups]
    return [bias + sum(taps[:, :, j] @ x for j, x in enumerate(group)) for group in groups]


def source(settings, i, scale, frames, count):
    if settings.upsampling == "repeat":
        return min(i // settings.factor**scale, count - 1)
    return i * count // frames


def mix(weights, settings, prefix, scales):
    """Mix one frame of every scale; None for a scale without frames."""
    nonempty = [x for x in scales if x is not None]
    if settings.mixer == "concat":
        return torch.cat([torch.zeros_like(nonempty[0]) if x is None else x for x in scales])
    if settings.mixer == "attention":
        weights_of_scales = softmax([(weights[prefix + "score.weight"][0] * x).sum() for x in nonempty])
        return sum(weight * x for weight, x in zip(weights_of_scales, nonempty, strict=True))
    return sum(nonempty)
