"""MCSAN's equations as loops, one utterance at a time: Sun et al., ICASSP 2021, eq. 1 to 19.

`weights` maps the names of the model's state to tensors, `settings` the names of its options to values. Shares no code
with the model.
"""

import math

import torch


def mcsan(weights, streams, settings):
    """Return logits (emotions,) of one utterance, given as name -> (frames, dim)."""
    states = {}
    for name, x in streams.items():
        if f"inputs.{name}.mean" in weights:
            x = standardize(
                x, weights[f"inputs.{name}.mean"], weights[f"inputs.{name}.deviation"], settings["frames"][name]
            )
        frames = list(x)
        if name == "speech":
            for block in range(2):
                frames = convolution_block(frames, below(weights, f"encoders.speech.convolutions.{block}"), settings)
        states[name] = averaged_lstm(frames, below(weights, f"encoders.{name}.lstm"))
    if settings["positions_in"] == "both":
        states = add_positions(states, weights, settings)
    outputs = modules(states, weights, settings)
    pooled = []
    for module in ("cross", "self"):
        if module in outputs:
            for name in ("speech", "text"):
                if name in outputs[module]:
                    pooled.append(largest(outputs[module][name]))
    return classifier(torch.cat(pooled), below(weights, "classifier"))


def below(weights, prefix):
    return {name[len(prefix) + 1 :]: tensor for name, tensor in weights.items() if name.startswith(prefix + ".")}


def standardize(x, mean, deviation, real):
    """Standardize the real frames; padding stays zero."""
    return torch.stack(
        [(frame - mean) / deviation if t < real else torch.zeros_like(frame) for t, frame in enumerate(x)]
    )


def convolution_block(frames, weights, settings):
    """Compute MaxPool(Conv1D(.)), both over three frames."""
    zero = torch.zeros_like(frames[0])
    edge = settings["convolution_padding"]
    frames = [zero] * edge + frames + [zero] * edge
    while len(frames) < 3:
        frames = [*frames, zero]
    convolved = []
    for t in range(len(frames) - 2):
        total = weights["bias"]
        for k in range(3):
            total = total + weights["weight"][:, :, k] @ frames[t + k]
        convolved.append(total.clamp(min=0) if settings["convolution_activation"] == "relu" else total)
    if len(convolved) < 3:
        return [largest(convolved)]
    starts = range(0, len(convolved) - 2, settings["pool_stride"])
    return [largest(convolved[start : start + 3]) for start in starts]


def largest(frames):
    result = frames[0]
    for frame in frames[1:]:
        result = torch.where(frame > result, frame, result)
    return result


def averaged_lstm(frames, weights):
    forward = lstm(frames, weights, "")
    backward = lstm(frames[::-1], weights, "_reverse")[::-1]
    return [(a + b) / 2 for a, b in zip(forward, backward, strict=True)]


def lstm(frames, weights, suffix):
    width = len(weights[f"bias_hh_l0{suffix}"]) // 4
    hidden = cell = torch.zeros(width, dtype=frames[0].dtype)
    outputs = []
    for frame in frames:
        gates = weights[f"weight_ih_l0{suffix}"] @ frame + weights[f"bias_ih_l0{suffix}"]
        gates = gates + weights[f"weight_hh_l0{suffix}"] @ hidden + weights[f"bias_hh_l0{suffix}"]
        input_gate, forget_gate, new, output_gate = (gates[i * width : (i + 1) * width] for i in range(4))
        cell = sigmoid(forget_gate) * cell + sigmoid(input_gate) * torch.tanh(new)
        hidden = sigmoid(output_gate) * torch.tanh(cell)
        outputs.append(hidden)
    return outputs


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def add_positions(states, weights, settings):
    if settings["positions"] == "none":
        return states
    result = {}
    for name, frames in states.items():
        result[name] = []
        for t, frame in enumerate(frames):
            if settings["positions"] == "learned":
                result[name].append(frame + weights[f"positions.{name}.weight"][t])
                continue
            values = []
            for i in range(len(frame)):
                angle = t / 10000 ** (i // 2 * 2 / len(frame))
                values.append(math.sin(angle) if i % 2 == 0 else math.cos(angle))
            result[name].append(frame + torch.tensor(values, dtype=frame.dtype))
    return result


def modules(states, weights, settings):
    """Return the sequences that are pooled: module -> stream -> frames."""
    kind = settings["modules"] if len(states) == 2 else "self"
    names = {"parallel": ["cross", "self"]}.get(kind, kind.split("+"))
    outputs = {}
    for number, module in enumerate(names):
        inputs = outputs[names[0]] if number and kind != "parallel" else states
        if module == "cross" and settings["positions_in"] == "cross":
            inputs = add_positions(inputs, weights, settings)
        for layer in range(settings["layers"]):
            inputs = attention_layer(module, inputs, below(weights, f"attentions.{module}.{layer}"), settings)
        outputs[module] = inputs
    if "+" in kind and settings["pooled"] == "last":
        return {names[1]: outputs[names[1]]}
    return outputs


def attention_layer(module, states, weights, settings):
    """Compute eq. 9 to 14, or 15 to 17."""
    result = {}
    for name, frames in states.items():
        other = states[name]
        if module == "cross" and name == "speech":
            other = states["text"]
        elif module == "cross":
            other = result["speech"] if settings["cross_update"] == "sequential" else states["speech"]
        stream_weights = below(weights, name)
        change = attention(frames, other, below(stream_weights, "attention"), settings)
        frames = [
            layer_norm(frame + delta, below(stream_weights, "norm1"))
            for frame, delta in zip(frames, change, strict=True)
        ]
        result[name] = [
            layer_norm(
                frame + feed_forward(frame, below(stream_weights, "feedforward")), below(stream_weights, "norm2")
            )
            for frame in frames
        ]
    return result


def linear(x, weights):
    return weights["weight"] @ x + weights["bias"]


def attention(frames, others, weights, settings):
    queries = [linear(frame, below(weights, "query")) for frame in frames]
    keys = [linear(frame, below(weights, "key")) for frame in others]
    values = [linear(frame, below(weights, "value")) for frame in others]
    width = len(queries[0]) // settings["heads"]
    scale = len(queries[0]) if settings["attention_scale"] == "dim" else width
    result = []
    for query in queries:
        heads = []
        for head in range(settings["heads"]):
            part = slice(head * width, (head + 1) * width)
            powers = [torch.exp((query[part] * key[part]).sum() / math.sqrt(scale)) for key in keys]
            heads.append(sum(power * value[part] for power, value in zip(powers, values, strict=True)) / sum(powers))
        result.append(linear(torch.cat(heads), below(weights, "output")))
    return result


def layer_norm(x, weights):
    mean = x.sum() / len(x)
    variance = ((x - mean) ** 2).sum() / len(x)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weights["weight"] + weights["bias"]


def feed_forward(x, weights):
    return linear(linear(x, below(weights, "0")).clamp(min=0), below(weights, "2"))


def classifier(x, weights):
    """Apply linear layers, at 0, 3, 6, ..., with a ReLU in between."""
    indices = sorted({int(name.split(".")[0]) for name in weights})
    for index in indices:
        x = linear(x, below(weights, str(index)))
        if index != indices[-1]:
            x = x.clamp(min=0)
    return x
