"""KS-Transformer (Chen et al., arXiv 2106.11532), as loops over utterances, heads and frames. Shares no code with the
model.

A sequence is a list of vectors. `weights` maps a parameter's name to its tensor; `settings` names every option.
"""

import math

import torch

OTHER = {"speech": "text", "text": "speech"}


def logits(weights, settings, utterances):
    """Return logits (utterances, emotions) of utterances {stream: (frames, features)} with real frames only."""
    return torch.stack([_utterance_logits(weights, settings, utterance) for utterance in utterances])


def _utterance_logits(weights, settings, utterance):
    names = ["speech", "text"] if settings["modalities"] == "both" else [settings["modalities"]]
    x, real = {}, {}
    for name in names:
        x[name], real[name] = _start(weights, settings, name, list(utterance[name]))
    extracted = {}
    for name in names:
        extracted[name] = _stack(
            weights, settings, f"extraction.{name}", x[name], layers=settings["extraction_layers"], real=real[name]
        )
    vector = []
    for name in names:
        y = extracted[name]
        if len(names) == 2 and settings["ccabs"] > 0:
            for block in range(settings["ccabs"]):
                prefix = f"interaction.{name}.{block}"
                other = OTHER[name]
                y = _stack(
                    weights, settings, f"{prefix}.cross", y, layers=1, context=extracted[other], real=real[other]
                )
                y = _stack(weights, settings, f"{prefix}.own", y, layers=1)
            skips = 2 if settings["skip"] == "double" else 1
            y = [b + skips * a for a, b in zip(extracted[name], y, strict=True)]
        y = _stack(weights, settings, f"fusion.{name}", y, layers=settings["fusion_layers"])
        vector.append(sum(y) / len(y))
    hidden = torch.cat(vector)
    for index in (0, 3):
        hidden = _linear(weights, f"classifier.{index}", hidden).clamp(min=0)
    return _linear(weights, "classifier.6", hidden)


def _start(weights, settings, name, frames):
    """Return the network's input frames, and for each whether it may be attended to if masks are on."""
    if name == "speech":
        step = settings["speech_stride"]
        groups = [frames[start : start + step] for start in range(0, len(frames), step)]
        frames = [sum(group) / len(group) for group in groups]
    if settings["input_norm"] == "standard":
        mean, deviation = weights[f"input.{name}.mean"], weights[f"input.{name}.deviation"]
        frames = [(frame - mean) / deviation for frame in frames]
    real = [True] * len(frames)
    if settings[f"{name}_frames"] != "any":
        length = settings[f"{name}_frames"]
        missing = max(0, length - len(frames))
        real = (real + [False] * missing)[:length]
        frames = (frames + [torch.zeros(settings[f"{name}_dim"], dtype=torch.float64)] * missing)[:length]
    if settings["masked"] is True:  # as if there were no padding
        frames = [frame for frame, is_real in zip(frames, real, strict=True) if is_real]
    if settings["masked"] != "authors":
        real = [True] * len(frames)
    if f"input.{name}.projection.weight" in weights:
        frames = [_linear(weights, f"input.{name}.projection", frame) for frame in frames]
    return frames, real


def _stack(weights, settings, prefix, rows, *, layers, context=None, real=None):
    """Run a stack; `real` are the keys that may be attended to, None for all."""
    if layers == 0:
        return rows
    sparse = not prefix.startswith("extraction")
    keys = context
    if settings["stack_norms"]:
        rows = [_norm(weights, f"{prefix}.norm", row) for row in rows]
        keys = None if context is None else [_norm(weights, f"{prefix}.key_norm", row) for row in context]
    if settings["position_entry"] == "input":
        rows = _add_positions(weights, settings, f"{prefix}.positions", rows)
        keys = None if keys is None else _add_positions(weights, settings, f"{prefix}.key_positions", keys)
    for number in range(layers):
        name = f"{prefix}.layers.{number}"
        if settings["position_entry"] == "input":
            attention_inputs = (rows, rows, rows) if keys is None else (rows, keys, keys)
        else:
            query = _add_positions(weights, settings, f"{prefix}.positions", rows)
            attention_inputs = (query, query, query)
            if keys is not None:
                key = _add_positions(weights, settings, f"{prefix}.key_positions", keys)
                attention_inputs = (query, key, key if settings["value_positions"] else keys)
        attended = _attention(weights, settings, f"{name}.attention", *attention_inputs, real=real, sparse=sparse)
        rows = [_norm(weights, f"{name}.norm1", a + b) for a, b in zip(rows, attended, strict=True)]
        rows = [_norm(weights, f"{name}.norm2", row + _feedforward(weights, name, row)) for row in rows]
    return rows


def _feedforward(weights, name, row):
    return _linear(weights, f"{name}.feedforward.3", _linear(weights, f"{name}.feedforward.0", row).clamp(min=0))


def _attention(weights, settings, name, queries, keys, values, *, real, sparse):
    queries = [_linear(weights, f"{name}.query", row) for row in queries]
    keys = [_linear(weights, f"{name}.key", row) for row in keys]
    values = [_linear(weights, f"{name}.value", row) for row in values]
    width = len(queries[0])
    size = width // settings["heads"]
    divisor = math.sqrt(size if settings["attention_scale"] == "head" else width)
    outputs = [[] for _ in queries]
    for head in range(settings["heads"]):
        part = slice(head * size, (head + 1) * size)
        matrix = [
            _softmax([(query[part] * key[part]).sum() / divisor for key in keys], real or [True] * len(keys))
            for query in queries
        ]
        if sparse:
            kept = kept_of([[weight.item() for weight in row] for row in matrix], settings["kept_fraction"])
            matrix = [
                [weight if keep else 0 * weight for weight, keep in zip(row, kept, strict=True)] for row in matrix
            ]
        for row, output in zip(matrix, outputs, strict=True):
            output.append(sum(weight * value[part] for weight, value in zip(row, values, strict=True)))
    return [_linear(weights, f"{name}.output", torch.cat(output)) for output in outputs]


def kept_of(matrix, fraction):
    """Return which keys keep their weights, given one head's rows of weights as plain numbers (eq. 4)."""
    sums = [sum(row[key] for row in matrix) for key in range(len(matrix[0]))]
    count = max(1, int(len(sums) * fraction))
    threshold = sorted(sums, reverse=True)[count - 1]
    return [total >= threshold for total in sums]


def _softmax(scores, allowed):
    highest = max(score.item() for score, is_allowed in zip(scores, allowed, strict=True) if is_allowed)
    powers = [
        (score - highest).exp() if is_allowed else 0.0 * score
        for score, is_allowed in zip(scores, allowed, strict=True)
    ]
    total = sum(powers)
    return [power / total for power in powers]


def _add_positions(weights, settings, name, rows):
    if settings["positions"] == "none":
        return rows
    if settings["positions"] == "random_frozen":
        return [row + weights[f"{name}.table"][index] for index, row in enumerate(rows)]
    return [row + _sinusoid(index, len(row)) for index, row in enumerate(rows)]


def _sinusoid(index, width):
    angles = [index / 10000 ** (2 * (feature // 2) / width) for feature in range(width)]
    return torch.tensor(
        [math.cos(angle) if feature % 2 else math.sin(angle) for feature, angle in enumerate(angles)],
        dtype=torch.float64,
    )


def _linear(weights, name, row):
    return weights[f"{name}.weight"] @ row + weights[f"{name}.bias"]


def _norm(weights, name, row):
    mean = row.sum() / len(row)
    variance = ((row - mean) ** 2).sum() / len(row)
    return (row - mean) / (variance + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]
