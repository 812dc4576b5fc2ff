"""Small supernets, and simple reference implementations of the alphas' gradient, for the tests of the search."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from affekt.models.base import FeatureSpec
from affekt.models.emotionnas.cells import ArchitectureWeights
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig
from affekt.search.darts import ArchitectureSearch, ArchitectureSearchConfig
from affekt.training.dataset import Dataset

SIZE = 8
"""Number of frames and of bins."""
FAST = {"learning_rate": 0.1, "alpha_rate": 0.01}
"""Learning rates that change weights and alphas visibly in a few steps."""


def make_dataset(count=6, seed=0, size=SIZE):
    """Return spectrograms of three emotions, which differ by the band with more energy."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    frames = [generator.normal(size=(size, size)).astype(np.float32) for _ in labels]
    for values, label in zip(frames, labels, strict=True):
        values[:, 2 * label : 2 * label + 2] += 2
    ids = [f"made/{index:02}" for index in range(count)]
    return Dataset(ids, labels, {"spectrogram": frames}, {"spectrogram": FeatureSpec(size, 50.0)})


def to_double(batch):
    return batch.to(torch.float64)


class DoubleDataset(Dataset):
    """A dataset whose batches are in double precision, like the models of this module."""

    def batch(self, indices):
        return to_double(super().batch(indices))


def make_double(dataset):
    return DoubleDataset(**vars(dataset))


def make_supernet(dropout=0.0, **settings):
    """Return a small supernet with both kinds of cells and unequal alphas."""
    torch.manual_seed(0)
    config = {"cells": 3, "channels": 2, "nodes": 1, "frames": SIZE, "input_dim": SIZE, **settings}
    model = SpectrogramBranch(SpectrogramBranchConfig(dropout=dropout, **config), 3).double()
    with torch.no_grad():
        for alpha in model.alphas().values():
            alpha.add_(torch.randn_like(alpha))
    return model


class SmoothSupernet(SpectrogramBranch):
    """A supernet that is differentiable everywhere: two edges with smooth operations between bins and emotions."""

    def __init__(self, dropout=0.0):
        nn.Module.__init__(self)
        self.num_emotions = 3
        self.layers = nn.ModuleList(nn.Linear(SIZE, SIZE) for _ in range(3))
        self.norm = nn.BatchNorm1d(SIZE)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(SIZE, 3)
        self.architecture = ArchitectureWeights(1)

    def forward(self, batch):
        mixed = batch.streams["spectrogram"].values.mean(dim=1)
        for alpha in self.alphas().values():
            weights = alpha.softmax(dim=1)
            outputs = [operation(mixed) for operation in (*self.layers, torch.tanh)]
            mixed = torch.tanh(self.norm(sum(w * output for w, output in zip(weights[0], outputs, strict=False))))
            mixed = mixed * (1 + weights[1, 0])
        return self.classifier(self.dropout(mixed))


def make_smooth_supernet(dropout=0.0):
    torch.manual_seed(0)
    model = SmoothSupernet(dropout).double()
    with torch.no_grad():
        for alpha in model.alphas().values():
            alpha.add_(torch.randn_like(alpha))
    return model


NETWORKS = {"supernet": make_supernet, "smooth supernet": make_smooth_supernet}


def start_search(model, alpha_dataset=None, **settings):
    """Return the strategy after two steps, so that the weights have momentum."""
    alpha_dataset = make_double(alpha_dataset or make_dataset(5, seed=2))
    search = ArchitectureSearch(
        model, ArchitectureSearchConfig(**{**FAST, **settings}), alpha_dataset, len(alpha_dataset)
    )
    for seed in (3, 4):
        torch.manual_seed(seed)
        search.step(to_double(make_dataset(4, seed=seed).batch(range(4))), 0.2)
    return search


def make_batches(search):
    """Return a batch for the weights and a batch for the alphas, of all their utterances."""
    alpha_dataset = search.alpha_dataset
    return to_double(make_dataset(4, seed=5).batch(range(4))), alpha_dataset.batch(range(len(alpha_dataset)))


# Reference implementations: models are copied with `deepcopy`, and gradients computed with `backward`.


def mean_loss(model, *batches):
    """Return the mean of the losses on the batches, which as many processes would minimize together."""
    return sum(F.cross_entropy(model(batch), batch.labels) for batch in batches) / len(batches)


def take_weight_step(search, model, train_batches, rate):
    """Return a copy of the model after one step of SGD, without clipping."""
    stepped = copy.deepcopy(model)
    stepped.zero_grad()
    mean_loss(stepped, *train_batches).backward()
    with torch.no_grad():
        for weight, original in zip(stepped.parameters(), model.parameters(), strict=True):
            buffer = search.weight_optimizer.state[original]["momentum_buffer"]
            weight -= rate * (search.config.momentum * buffer + weight.grad + search.config.weight_decay * weight)
    return stepped


def alpha_gradients(model, *batches):
    return torch.autograd.grad(mean_loss(model, *batches), list(model.alphas().values()))


def second_order_gradients(search, train_batches, alpha_batches, rate, radius=0.01):
    """Return DARTS's second-order gradient: its step of the weights and finite difference, one parameter at a time."""
    model = search.model
    stepped = take_weight_step(search, model, train_batches, rate)
    stepped.zero_grad()
    for alpha in stepped.alphas().values():
        alpha.grad = None
    mean_loss(stepped, *alpha_batches).backward()
    vector = [parameter.grad for parameter in stepped.parameters()]
    scaled_radius = radius / math.sqrt(sum(float((v**2).sum()) for v in vector))
    sides = []
    for sign in (1, -1):
        side = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, v in zip(side.parameters(), vector, strict=True):
                parameter += sign * scaled_radius * v
        sides.append(alpha_gradients(side, *train_batches))
    return {
        name: alpha.grad - rate * (plus - minus) / (2 * scaled_radius)
        for name, alpha, plus, minus in zip(search.alphas, stepped.alphas().values(), *sides, strict=True)
    }


def exact_gradients(search, train_batch, alpha_batch, rate):
    """Return the alphas' gradients through the step of the weights, by autograd; the momentum buffers are constant."""
    model, decay = search.model, search.config.weight_decay
    alphas = {name: alpha.detach().clone().requires_grad_() for name, alpha in search.alphas.items()}
    weights = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    buffers = {name: value.clone() for name, value in model.named_buffers() if name not in alphas}

    def loss(weights, batch):
        tensors = {**buffers, **alphas, **weights}
        return F.cross_entropy(torch.func.functional_call(model, tensors, (batch,)), batch.labels)

    gradients = torch.autograd.grad(loss(weights, train_batch), list(weights.values()), create_graph=True)
    stepped = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        buffer = search.weight_optimizer.state[search.parameters[name]]["momentum_buffer"]
        stepped[name] = weight - rate * (search.config.momentum * buffer + gradient + decay * weight)
    return dict(zip(alphas, torch.autograd.grad(loss(stepped, alpha_batch), list(alphas.values())), strict=True))


def finite_difference_gradients(search, train_batch, alpha_batch, rate, step):
    """Return the same by finite differences: each alpha is changed in both directions, and the weights' step repeated."""
    gradients = {name: torch.zeros_like(alpha) for name, alpha in search.alphas.items()}
    for name, alpha in search.alphas.items():
        for index in np.ndindex(*alpha.shape):
            sides = []
            for sign in (1, -1):
                model = copy.deepcopy(search.model)
                with torch.no_grad():
                    dict(model.named_buffers())[name][index] += sign * step
                # `take_weight_step` looks momentum up by parameter, so the copy's parameters need that of the originals.
                pairs = zip(model.parameters(), search.model.parameters(), strict=True)
                state = {copied: search.weight_optimizer.state[original] for copied, original in pairs}
                search_of_copy = SimpleNamespace(config=search.config, weight_optimizer=SimpleNamespace(state=state))
                stepped = take_weight_step(search_of_copy, model, [train_batch], rate)
                sides.append(float(mean_loss(stepped, alpha_batch).detach()))
            gradients[name][index] = (sides[0] - sides[1]) / (2 * step)
    return gradients


def relative_error(actual, expected):
    """Return the largest absolute difference, divided by the largest absolute expected value."""
    assert actual.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-6
    return max(float((actual[name] - expected[name]).abs().max()) for name in expected) / largest
