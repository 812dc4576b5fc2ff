"""References for EmotionNAS's recurrent branch and its fusion: a cell graph is computed node by node, for one frame of one
utterance at a time, and each node first computes its inputs. Nothing of the package is used."""

import torch

FUNCTIONS = {
    "blend": lambda z, a, b: z * a + (1 - z) * b,
    "activation_tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "activation_sigm": lambda x: 1 / (1 + (-x).exp()),
    "activation_leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
}


def compute_node(name, values, graph, weights, prefix):
    """Return a node's value. `values` has the frame, the states before it and the nodes that are already computed."""
    if name not in values:
        operation = graph[name]["op"]
        inputs = [compute_node(source, values, graph, weights, prefix) for source in graph[name]["input"]]
        if operation == "linear":
            values[name] = apply_linear(weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"], inputs)
        elif operation == "elementwise_sum":
            values[name] = sum(inputs)
        elif operation == "elementwise_prod":
            values[name] = inputs[0]
            for other in inputs[1:]:
                values[name] = values[name] * other
        else:
            values[name] = FUNCTIONS[operation](*inputs)
    return values[name]


def apply_linear(weight, bias, inputs):
    total, start = bias, 0
    for vector in inputs:
        total = total + weight[:, start : start + len(vector)] @ vector
        start += len(vector)
    assert start == weight.shape[1]
    return total


def run_cell(frames, graph, weights, prefix, hidden):
    """Return the first state after each of the frames, in their order."""
    numbers = range(sum(name.startswith("h_new_") and name[6:].isdigit() for name in graph))
    state = [torch.zeros(hidden, dtype=torch.float64) for _ in numbers]
    outputs = []
    for frame in frames:
        values = {"x": frame, **{f"h_prev_{n}": previous for n, previous in enumerate(state)}}
        state = [compute_node(f"h_new_{n}", values, graph, weights, prefix) for n in numbers]
        outputs.append(state[0])
    return outputs


def run_layer(frames, graph, weights, prefix, hidden, bidirectional):
    outputs = run_cell(frames, graph, weights, f"{prefix}forward_cell.linears.", hidden)
    if not bidirectional:
        return outputs
    others = run_cell(frames[::-1], graph, weights, f"{prefix}backward_cell.linears.", hidden)[::-1]
    return [torch.cat(pair) for pair in zip(outputs, others, strict=True)]


def pool_with_attention(frames, weights, additive):
    scores = []
    for frame in frames:
        if additive:
            hidden = weights["attention.transform.0.weight"] @ frame + weights["attention.transform.0.bias"]
            scores.append(weights["attention.score.weight"][0] @ FUNCTIONS["activation_tanh"](hidden))
        else:
            scores.append(weights["attention.score.weight"][0] @ frame + weights["attention.score.bias"][0])
    exponentials = [score.exp() for score in scores]
    return sum(e * frame for e, frame in zip(exponentials, frames, strict=True)) / sum(exponentials)


def apply_perceptron(vector, weights, prefix, indices):
    """Apply linear layers, with ReLUs between. `indices` are the layers' indices in the module."""
    for number, index in enumerate(indices):
        if number:
            vector = torch.where(vector > 0, vector, 0.0)
        vector = weights[f"{prefix}{index}.weight"] @ vector + weights[f"{prefix}{index}.bias"]
    return vector


def recurrent_logits(
    weights,
    values,
    mask,
    *,
    graph,
    layers,
    hidden,
    frames,
    masked,
    bidirectional=True,
    additive=False,
    fully_connected=2,
    stride=1,
):
    """Return the logits (batch, emotions) of values (batch, frames, dim). `frames` is None for any number."""
    rows = []
    for utterance, real in zip(values, mask, strict=True):
        x = prepare_frames(utterance, real, weights, frames, masked, stride)
        for number in range(layers):
            x = run_layer(x, graph, weights, f"layers.{number}.", hidden, bidirectional)
        rows.append(
            apply_perceptron(
                pool_with_attention(x, weights, additive), weights, "classifier.", (0, 3)[:fully_connected]
            )
        )
    return torch.stack(rows)


def prepare_frames(utterance, mask, weights, frames, masked, stride):
    """Return the input frames of the first layer."""
    standard = "input.mean" in weights
    x, real = list(utterance), mask.tolist()
    if stride > 1:
        groups = [range(start, min(start + stride, len(x))) for start in range(0, len(x), stride)]
        members = [[frame for frame in group if real[frame]] for group in groups]
        x = [sum(x[i] for i in indices) / len(indices) if indices else torch.zeros_like(x[0]) for indices in members]
        real = [bool(indices) for indices in members]
    if standard:
        x = [(frame - weights["input.mean"]) / weights["input.deviation"] for frame in x]
    x = [frame if r or not (masked or standard) else torch.zeros_like(frame) for frame, r in zip(x, real, strict=True)]
    if frames is not None:
        x = (x + [torch.zeros_like(x[0])] * frames)[:frames]
        real = (real + [False] * frames)[:frames]
    return [frame for frame, r in zip(x, real, strict=True) if r or not masked]


def fusion_logits(weights, spectrogram, speech):
    """Return the logits of the perceptron over the two branches' probabilities."""
    rows = []
    for pair in zip(spectrogram, speech, strict=True):
        probabilities = torch.cat([branch.exp() / branch.exp().sum() for branch in pair])
        rows.append(apply_perceptron(probabilities, weights, "perceptron.", (0, 3, 6)))
    return torch.stack(rows)
