"""Reference for EmotionNAS's spectrogram branch: an image is a list of channels, each a map (batch, height, width), and every
convolution is a sum over channels and pixels of its window. Nothing of the package is used."""

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
    """The weights below a prefix. With `training`, normalizations use the statistics of the batch, not the stored ones."""

    def __init__(self, tensors, prefix="", training=False):
        self.tensors, self.prefix, self.training = tensors, prefix, training

    def __getitem__(self, name):
        return self.tensors[self.prefix + name]

    def __contains__(self, name):
        return self.prefix + name in self.tensors

    def below(self, *names):
        return Weights(self.tensors, self.prefix + "".join(f"{name}." for name in names), self.training)


def apply_relu(image):
    return [torch.where(channel > 0, channel, 0.0) for channel in image]


def windows(channel, size, stride, padding, dilation, filling):
    """Yield for each pixel of the window its values at all positions of the window, as a map."""
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


def convolve(image, weight, stride=1, padding=0, dilation=1, depthwise=False):
    outputs = []
    for out, filters in enumerate(weight):
        total = 0.0
        for index, taps in enumerate(filters):
            channel = image[out if depthwise else index]
            for tap, pixels in zip(
                taps.flatten(), windows(channel, len(taps), stride, padding, dilation, 0.0), strict=True
            ):
                total = total + tap * pixels
        outputs.append(total)
    return outputs


def normalize(image, weights):
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


def pool(image, kind, stride):
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


def halve(image, weights):
    image = apply_relu(image)
    shifted = [channel[:, 1:, 1:] for channel in image]
    parts = convolve(image, weights["even.weight"], stride=2) + convolve(shifted, weights["odd.weight"], stride=2)
    return normalize(parts, weights.below("norm"))


def apply_separable(image, weights, first, size, stride, dilation):
    padding = dilation * (size // 2)
    image = convolve(apply_relu(image), weights[f"{first}.weight"], stride, padding, dilation, depthwise=True)
    return normalize(convolve(image, weights[f"{first + 1}.weight"]), weights.below(first + 2))


def apply_operation(name, image, weights, stride, in_search):
    if name == "none":
        return [torch.zeros_like(channel[:, ::stride, ::stride]) for channel in image]
    if name.endswith("pool"):
        result = pool(image, name, stride)
        return normalize(result, weights.below(1)) if in_search else result
    if name == "skip":
        return image if stride == 1 else halve(image, weights)
    size = int(name[-1])
    if name.startswith("dil"):
        return apply_separable(image, weights, 1, size, stride, 2)
    return apply_separable(apply_separable(image, weights, 1, size, stride, 1), weights, 5, size, 1, 1)


def add_images(images):
    return [sum(channels) for channels in zip(*images, strict=True)]


def softmax(row):
    exponentials = [(entry - row.max().detach()).exp() for entry in row]
    return [entry / sum(exponentials) for entry in exponentials]


# Index of each part of a separable convolution in its module. The indices of the second convolution are higher by four.
PART_INDICES = {"depthwise": 1, "pointwise": 2, "norm": 3}


def edge_weights(weights, name, edge, edges):
    """Return an operation's weights on one edge, with the names that they have in the operation's own module.

    `weights` has the weights of all operations on all edges from one state, edge by edge.
    """
    long_name = next((long_name for long_name, short_name in NAMES.items() if short_name == name), "none")
    below, own = weights.below(long_name), {}
    for key, tensor in weights.tensors.items():
        if key.startswith(below.prefix) and tensor.ndim:
            first, _, rest = key[len(below.prefix) :].partition(".")
            if name.endswith("pool"):
                own[f"1.{first}"] = tensor  # statistics of the source, the same for every edge
            elif name == "skip":
                own[f"{first}.{rest}"] = tensor.chunk(edges)[edge]
            else:
                part, _, rest = rest.partition(".")
                own[f"{PART_INDICES[part] + 4 * int(first)}.{rest}"] = tensor.chunk(edges)[edge]
    return Weights(own, "", weights.training)


def apply_mixed_operation(image, weights, alpha, stride, edge, edges):
    outputs = []
    for name, factor in zip(OPERATIONS, softmax(alpha), strict=True):
        output = apply_operation(name, image, edge_weights(weights, name, edge, edges), stride, True)
        outputs.append([factor * channel for channel in output])
    return add_images(outputs)


def preprocess(image, weights):
    return normalize(convolve(apply_relu(image), weights["1.weight"]), weights.below(2))


def run_cell(first, second, weights, *, reduction, after_reduction, nodes, alpha=None, genes=None):
    """Return the output of a cell: of a supernet's cell if `alpha` is given, otherwise of the cell with these genes."""
    first = (halve if after_reduction else preprocess)(first, weights.below("preprocess0"))
    states = [first, preprocess(second, weights.below("preprocess1"))]
    edge = 0
    for node in range(nodes):
        inputs = []
        for name, source in [(None, s) for s in range(2 + node)] if genes is None else genes[2 * node : 2 * node + 2]:
            stride = 2 if reduction and source < 2 else 1
            if genes is None:
                earliest = max(source - 1, 0)  # the first node that the source can reach
                source_weights = weights.below("fans", source)
                inputs.append(
                    apply_mixed_operation(
                        states[source], source_weights, alpha[edge], stride, node - earliest, nodes - earliest
                    )
                )
            else:
                own = weights.below("edges", edge)
                inputs.append(apply_operation(NAMES[name], states[source], own, stride, False))
            edge += 1
        states.append(add_images(inputs))
    return [channel for state in states[2:] for channel in state]


def spectrogram_logits(
    tensors, values, mask, *, cells, nodes, frames, masked, genes=None, training=False, shrink=1, channels=1
):
    """Return the logits (batch, emotions) of values (batch, frames, bins).

    `genes` maps "normal" and "reduce" to (operation, source) pairs.
    """
    weights = Weights(tensors, training=training)
    image = build_image(weights, values, mask, frames, masked)
    if shrink > 1:
        height, width = image.shape[1] // shrink, image.shape[2] // shrink
        squares = [image[:, i::shrink, j::shrink][:, :height, :width] for i in range(shrink) for j in range(shrink)]
        image = sum(squares) / shrink**2
    stem = normalize(convolve([image] * channels, weights["stem.0.weight"], padding=1), weights.below("stem", 1))
    outputs, reductions = [stem, stem], (cells // 3, 2 * cells // 3)
    for index in range(cells):
        kind = "reduce" if index in reductions else "normal"
        outputs.append(
            run_cell(
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
    means = [channel.sum(dim=(1, 2)) / channel[0].numel() for channel in outputs[-1]]
    rows = zip(weights["classifier.weight"], weights["classifier.bias"], strict=True)
    return torch.stack([sum(w * x for w, x in zip(row, means, strict=True)) + bias for row, bias in rows], dim=1)


def build_image(weights, values, mask, frames, masked):
    """Return the utterances as images of exactly `frames` frames: standardized if configured, zero in the padding."""
    standard = "input.mean" in weights
    rows = []
    for utterance in range(len(values)):
        image = []
        for frame in range(frames):
            inside = frame < values.shape[1]
            real = inside and bool(mask[utterance, frame])
            if real or (inside and not masked and not standard):
                row = values[utterance, frame]
                image.append((row - weights["input.mean"]) / weights["input.deviation"] if standard else row)
            else:
                image.append(torch.zeros_like(values[0, 0]))
        rows.append(torch.stack(image))
    return torch.stack(rows)
