"""TDFNet (Zhao et al., TASLP 2023) as loops over utterances, frames, queries and heads.

A sequence is a list of vectors. `weights` is a state dict, `settings` anything with the settings' names.
"""

import math

import torch


def logits(weights, settings, streams, real):
    """Return one utterance's logits. streams: name -> (frames, dim), (dim,) for the speaker; real: name -> real frames."""
    gated, _ = gate(weights, settings, fused(weights, settings, streams, real))
    if settings.inner_product:
        gated = gated.sum().reshape(1)
    result = linear(weights, "classifier", gated)
    return gelu(result) if settings.gelu_logits else result


def gate(w, s, groups):
    """Return the weighted O and the weights (eq. 11)."""
    o = torch.cat(groups)
    alpha = 1 / (1 + torch.exp(-linear(w, "gate.score", o)))
    if s.gate == "full":
        return alpha * o, alpha
    if s.gate == "scalar":
        return alpha[0] * o, alpha
    return torch.cat([alpha[number] * group for number, group in enumerate(groups)]), alpha


def fused(w, s, streams, real):
    """Return the groups of O in order (eq. 10)."""
    paths = {"both": ["speech", "text"], "audio": ["speech"], "text": ["text"]}[s.path]
    encoded = {path: encode_path(w, s, path, streams[path], real[path]) for path in paths}
    parts = [pool(encoded[path]["pooled embedding"]) for path in paths]
    if s.deep_scale != "none":
        parts += [pool(encoded[path]["prime"]) for path in paths]
    if s.speaker:
        parts.append(standardize(w, s, "speaker", streams["speaker"]))
    if s.mutual:
        parts += mutual(w, s, encoded["speech"]["embedding"], encoded["text"]["embedding"])
    if s.deep_scale == "full":
        parts += [pool(scale) for path in paths for scale in encoded[path]["scales"]]
    return parts


def encode_path(w, s, path, values, count):
    features, x = prepare(w, s, path, values, count)
    result = {"scales": [], "embedding": x, "pooled embedding": features if s.embeddings == "raw" else x}
    for number in range({"full": s.blocks, "first_cnn": 1, "none": 0}[s.deep_scale]):
        block = f"blocks.{number}"
        if number == 0 or s.first_encoder == "every_block":
            x = encoder(w, s, prefix_for_path(w, f"{block}.first", path), x)
        if number == 0 and s.embeddings == "encoded":
            result["embedding"] = result["pooled embedding"] = x
        narrow = convolution(w, s, prefix_for_path(w, f"{block}.cnn", path), stride(s, path, number), x)
        if number == 0:
            result["prime"] = x if s.primes == "before_cnn" else narrow
        if s.deep_scale == "full":
            grus = prefix_for_path(w, f"{block}.gru", path)
            aligned = recurrence(w, s, f"{grus}.1", recurrence(w, s, f"{grus}.0", narrow))
            x = encoder(w, s, prefix_for_path(w, f"{block}.encoder", path), aligned)
            result["scales"].append(x)
    return result


def prepare(w, s, path, values, count):
    """Return the features, cut and padded, and the projected sequence."""
    length = s.speech_frames if path == "speech" else s.text_tokens
    features = [values[t] for t in range(len(values))]
    if s.input_norm == "standard":
        zero = torch.zeros_like(values[0])
        features = [standardize(w, s, path, x) if t < count else zero for t, x in enumerate(features)]
    if length != "any":
        features = features[:length] + [torch.zeros_like(values[0])] * (length - len(features))
    if s.masked:
        features = features[:count]
    name = f"inputs.{path}.projection"
    x = [linear(w, name, frame) if f"{name}.weight" in w else frame for frame in features]
    if s.positions == "sinusoids":
        x = [frame + position(t, len(frame)) for t, frame in enumerate(x)]
    return features, x


def standardize(w, s, name, x):
    return (x - w[f"inputs.{name}.mean"]) / w[f"inputs.{name}.deviation"] if s.input_norm == "standard" else x


def position(t, width):
    angles = [t / 10000 ** (2 * (i // 2) / width) for i in range(width)]
    entries = [math.cos(angle) if i % 2 else math.sin(angle) for i, angle in enumerate(angles)]
    return torch.tensor(entries, dtype=torch.float64)


def mutual(w, s, speech, text):
    """Return C, C_AT and C_TA, pooled (eq. 6-9 without S)."""
    speech_state, text_state = speech, text
    for number in range(1 if s.mutual_layers == "one" else s.layers):
        texts, speeches = (text_state, speech_state) if s.mutual_layers == "updated" else (text, speech)
        speech_state, text_state = (
            layer(w, s, f"mutual.speech_from_text.{number}", speech_state, texts),
            layer(w, s, f"mutual.text_from_speech.{number}", text_state, speeches),
        )
    joint = encoder(w, s, "mutual.joint", speech + text)
    pooling = pool if s.mutual_pooling == "mean+max" else mean
    return [pooling(joint), pooling(speech_state), pooling(text_state)]


def encoder(w, s, name, x):
    for number in range(s.layers):
        x = layer(w, s, f"{name}.{number}", x, x)
    return x


def layer(w, s, name, x, context):
    """Compute Fig. 3, or eq. 5 and 7 if `literal_eq5`."""
    attended = attention(w, f"{name}.attention", s.heads, x, context)
    result = []
    for t, frame in enumerate(x):
        first = norm(w, f"{name}.norm1", frame + attended[t])
        change = gelu(linear(w, f"{name}.feedforward.0", first))
        if s.feedforward != "square":
            change = linear(w, f"{name}.feedforward.2", change)
        result.append(norm(w, f"{name}.norm2", (frame if s.literal_eq5 else first) + change))
    return result


def attention(w, name, heads, x, context):
    keys = [linear(w, f"{name}.key", frame) for frame in context]
    values = [linear(w, f"{name}.value", frame) for frame in context]
    width = len(x[0]) // heads
    result = []
    for frame in x:
        query = linear(w, f"{name}.query", frame)
        heads_output = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            weights = attention_weights(query[part], [key[part] for key in keys])
            heads_output.append(sum(weights[u] * value[part] for u, value in enumerate(values)))
        result.append(linear(w, f"{name}.output", torch.cat(heads_output)))
    return result


def attention_weights(query, keys):
    scores = torch.stack([query.dot(key) / math.sqrt(len(query)) for key in keys])
    powers = torch.exp(scores - scores.max().detach())
    return powers / powers.sum()


def stride(s, path, number):
    if number > 0:
        return 2
    return s.speech_stride if path == "speech" else s.text_stride


def convolution(w, s, name, step, x):
    kernel, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    size = kernel.shape[2]
    edge = 0 if s.kernel == "stride" else size // 2
    result = []
    for t in range(max(1, (len(x) + 2 * edge - size) // step + 1)):
        total = bias
        for k in range(size):
            source = t * step - edge + k
            if 0 <= source < len(x):
                total = total + kernel[:, :, k] @ x[source]
        result.append(total)
    return result


def recurrence(w, s, name, x):
    forward = one_direction(w, name, "", x)
    if not s.bidirectional:
        return forward
    backward = one_direction(w, name, "_reverse", x[::-1])[::-1]
    return [torch.cat(pair) for pair in zip(forward, backward, strict=True)]


def one_direction(w, name, suffix, x):
    """Run a GRU whose rows are the reset, update and new gate."""
    size = w[f"{name}.weight_hh_l0{suffix}"].shape[1]
    state, states = torch.zeros(size, dtype=torch.float64), []
    for frame in x:
        from_input = w[f"{name}.weight_ih_l0{suffix}"] @ frame + w[f"{name}.bias_ih_l0{suffix}"]
        from_state = w[f"{name}.weight_hh_l0{suffix}"] @ state + w[f"{name}.bias_hh_l0{suffix}"]
        reset = 1 / (1 + torch.exp(-(from_input[:size] + from_state[:size])))
        update = 1 / (1 + torch.exp(-(from_input[size : 2 * size] + from_state[size : 2 * size])))
        new = torch.tanh(from_input[2 * size :] + reset * from_state[2 * size :])
        state = (1 - update) * new + update * state
        states.append(state)
    return states


def prefix_for_path(w, name, path):
    shared = f"{name}.shared"
    return shared if any(key.startswith(f"{shared}.") for key in w) else f"{name}.{path}"


def linear(w, name, x):
    result = w[f"{name}.weight"] @ x
    return result + w[f"{name}.bias"] if f"{name}.bias" in w else result


def norm(w, name, x):
    centered = x - x.sum() / len(x)
    deviation = torch.sqrt((centered * centered).sum() / len(x) + 1e-5)
    return w[f"{name}.weight"] * centered / deviation + w[f"{name}.bias"]


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def mean(x):
    return sum(x) / len(x)


def pool(x):
    return torch.cat([mean(x), torch.stack(x).amax(dim=0)])
