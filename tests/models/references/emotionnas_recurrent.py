"""EmotionNAS's recurrent branch and its fusion written out: a recipe is followed node by node, frame by frame, utterance by
utterance, each node asking for what it takes. Nothing of the package is used."""

import torch

FUNCTIONS = {
    "blend": lambda z, a, b: z * a + (1 - z) * b,
    "activation_tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "activation_sigm": lambda x: 1 / (1 + (-x).exp()),
    "activation_leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
}


def value(name, known, recipe, weights, prefix):
    """A node's value; `known` holds the frame, the states before it and what was asked for earlier."""
    if name not in known:
        operation = recipe[name]["op"]
        inputs = [value(one, known, recipe, weights, prefix) for one in recipe[name]["input"]]
        if operation == "linear":
            known[name] = linear(weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"], inputs)
        elif operation == "elementwise_sum":
            known[name] = sum(inputs)
        elif operation == "elementwise_prod":
            known[name] = inputs[0]
            for other in inputs[1:]:
                known[name] = known[name] * other
        else:
            known[name] = FUNCTIONS[operation](*inputs)
    return known[name]


def linear(weight, bias, inputs):
    total, start = bias, 0
    for one in inputs:
        total = total + weight[:, start : start + len(one)] @ one
        start += len(one)
    assert start == weight.shape[1]
    return total


def run(frames, recipe, weights, prefix, hidden):
    """The first state after each of the frames, in their order."""
    numbers = range(sum(name.startswith("h_new_") and name[6:].isdigit() for name in recipe))
    state = [torch.zeros(hidden, dtype=torch.float64) for _ in numbers]
    outputs = []
    for frame in frames:
        known = {"x": frame, **{f"h_prev_{n}": before for n, before in enumerate(state)}}
        state = [value(f"h_new_{n}", known, recipe, weights, prefix) for n in numbers]
        outputs.append(state[0])
    return outputs


def layer(frames, recipe, weights, prefix, hidden, bidirectional):
    outputs = run(frames, recipe, weights, f"{prefix}forward_cell.linears.", hidden)
    if not bidirectional:
        return outputs
    others = run(frames[::-1], recipe, weights, f"{prefix}backward_cell.linears.", hidden)[::-1]
    return [torch.cat(pair) for pair in zip(outputs, others, strict=True)]


def attended(frames, weights, additive):
    scores = []
    for frame in frames:
        if additive:
            hidden = weights["attention.transform.0.weight"] @ frame + weights["attention.transform.0.bias"]
            scores.append(weights["attention.score.weight"][0] @ FUNCTIONS["activation_tanh"](hidden))
        else:
            scores.append(weights["attention.score.weight"][0] @ frame + weights["attention.score.bias"][0])
    exponentials = [score.exp() for score in scores]
    return sum(e * frame for e, frame in zip(exponentials, frames, strict=True)) / sum(exponentials)


def perceived(vector, weights, prefix, places):
    """Linear layers with ReLUs between."""
    for number, place in enumerate(places):
        if number:
            vector = torch.where(vector > 0, vector, 0.0)
        vector = weights[f"{prefix}{place}.weight"] @ vector + weights[f"{prefix}{place}.bias"]
    return vector


def logits(
    weights,
    values,
    mask,
    *,
    recipe,
    layers,
    hidden,
    frames,
    masked,
    bidirectional=True,
    additive=False,
    fully_connected=2,
    stride=1,
):
    """values (batch, frames, dim) -> (batch, emotions). frames: None for any number."""
    rows = []
    for utterance, real in zip(values, mask, strict=True):
        x = sequence(utterance, real, weights, frames, masked, stride)
        for number in range(layers):
            x = layer(x, recipe, weights, f"layers.{number}.", hidden, bidirectional)
        rows.append(perceived(attended(x, weights, additive), weights, "classifier.", (0, 3)[:fully_connected]))
    return torch.stack(rows)


def sequence(utterance, real, weights, frames, masked, stride):
    """The frames that the first layer takes."""
    standard = "input.mean" in weights
    x, kept = list(utterance), real.tolist()
    if stride > 1:
        groups = [range(start, min(start + stride, len(x))) for start in range(0, len(x), stride)]
        members = [[frame for frame in group if kept[frame]] for group in groups]
        x = [sum(x[frame] for frame in own) / len(own) if own else torch.zeros_like(x[0]) for own in members]
        kept = [bool(own) for own in members]
    if standard:
        x = [(frame - weights["input.mean"]) / weights["input.deviation"] for frame in x]
    x = [frame if k or not (masked or standard) else torch.zeros_like(frame) for frame, k in zip(x, kept, strict=True)]
    if frames is not None:
        x = (x + [torch.zeros_like(x[0])] * frames)[:frames]
        kept = (kept + [False] * frames)[:frames]
    return [frame for frame, k in zip(x, kept, strict=True) if k or not masked]


def fused(weights, spectrogram, speech):
    """The perceptron over the two branches' logits."""
    rows = []
    for pair in zip(spectrogram, speech, strict=True):
        probabilities = torch.cat([branch.exp() / branch.exp().sum() for branch in pair])
        rows.append(perceived(probabilities, weights, "perceptron.", (0, 3, 6)))
    return torch.stack(rows)
