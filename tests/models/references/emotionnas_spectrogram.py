"""EmotionNAS's spectrogram branch written out: an image is a list of channels, each a map (batch, height, width), and every
convolution a sum over channels and pixels of its window. Nothing of the package is used."""

import math

import torch

OPERATIONS = ["none", "max_pool", "avg_pool", "skip", "sep_3", "sep_5", "dil_3", "dil_5"]
NAMES = {
    "max_pool_3x3": "max_pool",
    "avg_pool_3x3": "avg_pool",
    "skip_connect": "skip",
    "sep_conv_3x3": "sep_3",
    "sep_conv_5x5": "sep_5",
    "dil_conv_3x3": "dil_3",
    "dil_conv_5x5": "dil_5",
}


class Weights:
    """The weights below a prefix; `training` says whose statistics a normalization takes."""

    def __init__(self, tensors, prefix="", training=False):
        self.tensors, self.prefix, self.training = tensors, prefix, training

    def __getitem__(self, name):
        return self.tensors[self.prefix + name]

    def __contains__(self, name):
        return self.prefix + name in self.tensors

    def below(self, *names):
        return Weights(self.tensors, self.prefix + "".join(f"{name}." for name in names), self.training)


def rectified(image):
    return [torch.where(channel > 0, channel, 0.0) for channel in image]


def windows(channel, size, stride, padding, dilation, filling):
    """The map of every pixel of the window in turn, at the places where the window is put."""
    batch, height, width = channel.shape
    reach = dilation * (size - 1) + 1
    rows, columns = (height + 2 * padding - reach) // stride + 1, (width + 2 * padding - reach) // stride + 1
    wide = torch.full((batch, height + 2 * padding, width + 2 * padding), filling, dtype=channel.dtype)
    wide[:, padding : padding + height, padding : padding + width] = channel
    for i in range(size):
        for j in range(size):
            top, left = i * dilation, j * dilation
            yield wide[:, top : top + stride * rows : stride, left : left + stride * columns : stride][
                :, :rows, :columns
            ]


def convolved(image, weight, stride=1, padding=0, dilation=1, depthwise=False):
    outputs = []
    for out, filters in enumerate(weight):
        total = 0.0
        for place, taps in enumerate(filters):
            channel = image[out if depthwise else place]
            for tap, pixels in zip(
                taps.flatten(), windows(channel, len(taps), stride, padding, dilation, 0.0), strict=True
            ):
                total = total + tap * pixels
        outputs.append(total)
    return outputs


def normalized(image, weights):
    outputs = []
    for number, channel in enumerate(image):
        if weights.training:
            mean = channel.sum() / channel.numel()
            variance = ((channel - mean) ** 2).sum() / channel.numel()
        else:
            mean, variance = weights["running_mean"][number], weights["running_var"][number]
        channel = (channel - mean) / (variance + 1e-5).sqrt()
        if "weight" in weights:
            channel = channel * weights["weight"][number] + weights["bias"][number]
        outputs.append(channel)
    return outputs


def pooled(image, kind, stride):
    outputs = []
    for channel in image:
        if kind == "max_pool":
            best = None
            for pixels in windows(channel, 3, stride, 1, 1, -math.inf):
                best = pixels if best is None else torch.where(pixels > best, pixels, best)
            outputs.append(best)
        else:
            real = torch.ones_like(channel)
            total, count = (sum(windows(x, 3, stride, 1, 1, 0.0)) for x in (channel, real))
            outputs.append(total / count)
    return outputs


def halved(image, weights):
    image = rectified(image)
    shifted = [channel[:, 1:, 1:] for channel in image]
    parts = convolved(image, weights["even.weight"], stride=2) + convolved(shifted, weights["odd.weight"], stride=2)
    return normalized(parts, weights.below("norm"))


def separated(image, weights, first, size, stride, dilation):
    padding = dilation * (size // 2)
    image = convolved(rectified(image), weights[f"{first}.weight"], stride, padding, dilation, depthwise=True)
    return normalized(convolved(image, weights[f"{first + 1}.weight"]), weights.below(first + 2))


def operated(name, image, weights, stride, searched):
    if name == "none":
        return [torch.zeros_like(channel[:, ::stride, ::stride]) for channel in image]
    if name.endswith("pool"):
        result = pooled(image, name, stride)
        return normalized(result, weights.below(1)) if searched else result
    if name == "skip":
        return image if stride == 1 else halved(image, weights)
    size = int(name[-1])
    if name.startswith("dil"):
        return separated(image, weights, 1, size, stride, 2)
    return separated(separated(image, weights, 1, size, stride, 1), weights, 5, size, 1, 1)


def summed(images):
    return [sum(channels) for channels in zip(*images, strict=True)]


def softmaxed(row):
    exponentials = [(entry - row.max().detach()).exp() for entry in row]
    return [entry / sum(exponentials) for entry in exponentials]


PLACES = {"depthwise": 1, "pointwise": 2, "norm": 3}  # of a convolution's parts; four more in the second of two


def of_edge(weights, name, edge, edges):
    """An operation's weights on one edge, by the names they have where the operation stands alone.

    Below `weights` are those of all operations on all edges from one state, edge by edge.
    """
    long = next((long for long, short in NAMES.items() if short == name), "none")
    below, own = weights.below(long), {}
    for key, tensor in weights.tensors.items():
        if key.startswith(below.prefix) and tensor.ndim:
            first, _, rest = key[len(below.prefix) :].partition(".")
            if name.endswith("pool"):
                own[f"1.{first}"] = tensor  # of the source: the same for every edge
            elif name == "skip":
                own[f"{first}.{rest}"] = tensor.chunk(edges)[edge]
            else:
                part, _, rest = rest.partition(".")
                own[f"{PLACES[part] + 4 * int(first)}.{rest}"] = tensor.chunk(edges)[edge]
    return Weights(own, "", weights.training)


def mixed(image, weights, alpha, stride, edge, edges):
    shares = softmaxed(alpha)
    return summed(
        [share * channel for channel in operated(name, image, of_edge(weights, name, edge, edges), stride, True)]
        for name, share in zip(OPERATIONS, shares, strict=True)
    )


def prepared(image, weights):
    return normalized(convolved(rectified(image), weights["1.weight"]), weights.below(2))


def cell(first, second, weights, *, reduction, after_reduction, nodes, alpha=None, genes=None):
    """A cell of the search where `alpha` is given, else one of the genes."""
    first = (halved if after_reduction else prepared)(first, weights.below("preprocess0"))
    states = [first, prepared(second, weights.below("preprocess1"))]
    edge = 0
    for node in range(nodes):
        arriving = []
        for name, source in [(None, s) for s in range(2 + node)] if genes is None else genes[2 * node : 2 * node + 2]:
            stride = 2 if reduction and source < 2 else 1
            if genes is None:
                earliest = max(source - 1, 0)  # the first node that the source can reach
                fan = weights.below("fans", source)
                arriving.append(mixed(states[source], fan, alpha[edge], stride, node - earliest, nodes - earliest))
            else:
                own = weights.below("edges", edge)
                arriving.append(operated(NAMES[name], states[source], own, stride, False))
            edge += 1
        states.append(summed(arriving))
    return [channel for state in states[2:] for channel in state]


def logits(tensors, values, mask, *, cells, nodes, frames, masked, genes=None, training=False, shrink=1, channels=1):
    """values (batch, frames, bins) -> (batch, emotions). `genes` maps "normal" and "reduce" to (operation, source) pairs."""
    weights = Weights(tensors, training=training)
    picture = picture_of(weights, values, mask, frames, masked)
    if shrink > 1:
        height, width = picture.shape[1] // shrink, picture.shape[2] // shrink
        squares = [picture[:, i::shrink, j::shrink][:, :height, :width] for i in range(shrink) for j in range(shrink)]
        picture = sum(squares) / shrink**2
    stem = normalized(convolved([picture] * channels, weights["stem.0.weight"], padding=1), weights.below("stem", 1))
    outputs, reductions = [stem, stem], (cells // 3, 2 * cells // 3)
    for index in range(cells):
        kind = "reduce" if index in reductions else "normal"
        outputs.append(
            cell(
                outputs[-2],
                outputs[-1],
                weights.below("cells", index),
                reduction=index in reductions,
                after_reduction=index - 1 in reductions,
                nodes=nodes,
                alpha=None if genes else tensors[f"architecture.{kind}"],
                genes=genes[kind] if genes else None,
            )
        )
    pooled_ = [channel.sum(dim=(1, 2)) / channel[0].numel() for channel in outputs[-1]]
    rows = zip(weights["classifier.weight"], weights["classifier.bias"], strict=True)
    return torch.stack([sum(w * x for w, x in zip(row, pooled_, strict=True)) + bias for row, bias in rows], dim=1)


def picture_of(weights, values, mask, frames, masked):
    """Standardised, zero where there is padding, and at exactly so many frames."""
    standard = "input.mean" in weights
    rows = []
    for utterance in range(len(values)):
        picture = []
        for frame in range(frames):
            inside = frame < values.shape[1]
            real = inside and bool(mask[utterance, frame])
            if real or (inside and not masked and not standard):
                row = values[utterance, frame]
                picture.append((row - weights["input.mean"]) / weights["input.deviation"] if standard else row)
            else:
                picture.append(torch.zeros_like(values[0, 0]))
        rows.append(torch.stack(picture))
    return torch.stack(rows)
