"""The vanilla Transformer of MSTR's Table 2 as loops over frames and heads. Shares no code with the model.

Weights are the model's state, settings any object with the configuration's fields. A frame is a vector.
"""

import math

import torch


def logits(weights, settings, values, lengths):
    """Return logits (batch, emotions), one utterance at a time; values are (batch, frames, dim), lengths the real frames."""
    return torch.stack(
        [utterance_logits(weights, settings, x, n, full_attention) for x, n in zip(values, lengths, strict=True)]
    )


def utterance_logits(weights, settings, values, length, attention):
    features = prepare_frames(weights, settings, list(values), length)
    frames = [embed(weights, settings, x) for x in features]
    if settings.positions == "sinusoids":
        frames = [x + sinusoid(t, len(x)) for t, x in enumerate(frames)]
    for number in range(settings.blocks):
        frames = block(weights, settings, f"blocks.{number}.", frames, attention)
    if settings.norm_first:
        frames = normalize(weights, settings, "norm.", frames)
    x = pooled(settings.pooling, frames)
    if settings.pool_input:
        x = torch.cat([x, pooled(settings.pooling, features)])
    if settings.pooled_norm:
        x = (x - weights["pooled_norm.running_mean"]) / (weights["pooled_norm.running_var"] + 1e-5).sqrt()
    layers = 3 if settings.hidden is None else len(settings.hidden) + 1
    for index in range(layers):
        x = linear(weights, f"classifier.{3 * index}.", x)
        if index < layers - 1:
            x = relu(x)
    return x


def prepare_frames(weights, settings, frames, length):
    """Return the network's input frames: averaged, standardized, cut or padded with zeros; with masks only real ones."""
    if settings.stride > 1:
        total, step = len(frames), settings.stride
        groups = [frames[start : min(start + step, length)] for start in range(0, total, step)]
        frames = [sum(group) / len(group) if group else torch.zeros_like(frames[0]) for group in groups]
        length = math.ceil(length / step)
    if settings.input_norm == "standard":
        real = [(x - weights["input.mean"]) / weights["input.deviation"] for x in frames[:length]]
        frames = real + [torch.zeros_like(x) for x in frames[length:]]
    if settings.frames != "any":
        frames = frames[: settings.frames] + [torch.zeros_like(frames[0])] * (settings.frames - len(frames))
        length = min(length, settings.frames)
    return frames[:length] if settings.masked else frames


def embed(weights, settings, x):
    """Bring a frame to the width of the blocks."""
    states = [x]
    if settings.input_norm == "layer" or settings.input_mix == "learned":
        states = list(x.split(len(x) // settings.num_states))
    if settings.input_norm == "layer":
        states = [
            layer_norm(s, weights[f"input.norms.{i}.weight"], weights[f"input.norms.{i}.bias"])
            for i, s in enumerate(states)
        ]
    if settings.input_mix == "learned":
        softmax_weights = softmax(list(weights["input.weights"]))
        x = sum(weight * s for weight, s in zip(softmax_weights, states, strict=True))
    else:
        x = torch.cat(states)
    return linear(weights, "input.projection.", x) if "input.projection.weight" in weights else x


def sinusoid(t, dim):
    angles = [t / 10000 ** (2 * (d // 2) / dim) for d in range(dim)]
    return torch.tensor([math.cos(a) if d % 2 else math.sin(a) for d, a in enumerate(angles)], dtype=torch.float64)


def block(weights, settings, prefix, frames, attention):
    def feed_forward(x):
        hidden = linear(weights, prefix + "feedforward.0.", x)
        hidden = gelu(hidden) if settings.activation == "gelu" else relu(hidden)
        return linear(weights, prefix + "feedforward.2.", hidden)

    if settings.norm_first:
        attended = attention(
            weights, settings, prefix + "attention.", normalize(weights, settings, prefix + "norm1.", frames)
        )
        frames = [x + y for x, y in zip(frames, attended, strict=True)]
        return [
            x + feed_forward(y)
            for x, y in zip(frames, normalize(weights, settings, prefix + "norm2.", frames), strict=True)
        ]
    attended = attention(weights, settings, prefix + "attention.", frames)
    frames = normalize(weights, settings, prefix + "norm1.", [x + y for x, y in zip(frames, attended, strict=True)])
    return normalize(weights, settings, prefix + "norm2.", [x + feed_forward(x) for x in frames])


def full_attention(weights, settings, prefix, frames):
    query, key, value = ([linear(weights, f"{prefix}{name}.", x) for x in frames] for name in ("query", "key", "value"))
    attended = [attend(settings, query[i], key, value) for i in range(len(frames))]
    return [linear(weights, prefix + "output.", x) for x in attended]


def attend(settings, query, keys, values):
    """Attend from one query to these keys; heads are concatenated."""
    width = len(query) // settings.heads
    root = math.sqrt(len(query) if settings.score_width == "model" else width)
    heads = []
    for head in range(settings.heads):
        part = slice(head * width, (head + 1) * width)
        softmax_weights = softmax([(query[part] * key[part]).sum() / root for key in keys])
        heads.append(sum(weight * value[part] for weight, value in zip(softmax_weights, values, strict=True)))
    return torch.cat(heads)


def normalize(weights, settings, prefix, frames):
    """Normalize each frame, or all frames as one map."""
    weight, bias = weights.get(prefix + "weight"), weights.get(prefix + "bias")
    if settings.norm == "map":
        return list(layer_norm(torch.stack(frames), weight, bias))
    return [layer_norm(x, weight, bias) for x in frames]


def layer_norm(x, weight, bias):
    centered = x - x.sum() / x.numel()
    x = centered / ((centered**2).sum() / x.numel() + 1e-5).sqrt()
    return x if weight is None else x * weight + bias


def pooled(kind, frames):
    mean = sum(frames) / len(frames)
    largest = frames[0]
    for x in frames[1:]:
        largest = torch.maximum(largest, x)
    variance = sum((x - mean) ** 2 for x in frames) / len(frames)
    kinds = {"mean": mean, "max": largest, "std": (variance + 1e-6).sqrt()}
    return torch.cat([kinds[part] for part in kind.split("+")])


def linear(weights, prefix, x):
    x = weights[prefix + "weight"] @ x
    return x + weights[prefix + "bias"] if prefix + "bias" in weights else x


def softmax(scores):
    largest = max(float(s.detach()) for s in scores)
    powers = [(s - largest).exp() for s in scores]
    return [power / sum(powers) for power in powers]


def relu(x):
    return torch.where(x > 0, x, torch.zeros_like(x))


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
