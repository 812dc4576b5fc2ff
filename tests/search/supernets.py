"""What the tests of the search share: small networks that can be searched, and plain references of the alphas' gradient."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from affekt.models.base import FeatureSpec
from affekt.models.emotionnas.cells import Architecture
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig
from affekt.search.darts import ArchitectureSearch, ArchitectureSearchConfig
from affekt.training.dataset import Dataset

SIZE = 8  # frames and bins
FAST = {"learning_rate": 0.1, "alpha_rate": 0.01}


def corpus(count=6, seed=0, size=SIZE):
    """Spectrograms whose emotion, of three, is a raised band."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    frames = [generator.normal(size=(size, size)).astype(np.float32) for _ in labels]
    for values, label in zip(frames, labels, strict=True):
        values[:, 2 * label : 2 * label + 2] += 2
    ids = [f"made/{index:02}" for index in range(count)]
    return Dataset(ids, labels, {"spectrogram": frames}, {"spectrogram": FeatureSpec(size, 50.0)})


def double(batch):
    return batch.to(torch.float64)


class Doubled(Dataset):
    """A dataset whose batches are in double precision, as are the models here."""

    def batch(self, indices):
        return double(super().batch(indices))


def doubled(dataset):
    return Doubled(**vars(dataset))


def supernet(dropout=0.0, **settings):
    """A small network of the search, of both kinds of cells, its alphas far from equal."""
    torch.manual_seed(0)
    config = {"cells": 3, "channels": 2, "nodes": 1, "frames": SIZE, "input_dim": SIZE, **settings}
    model = SpectrogramBranch(SpectrogramBranchConfig(dropout=dropout, **config), 3).double()
    with torch.no_grad():
        for alpha in model.alphas().values():
            alpha.add_(torch.randn_like(alpha))
    return model


class Smooth(SpectrogramBranch):
    """A model that can be searched and has no kinks: three operations on two edges between bins and emotions."""

    def __init__(self, dropout=0.0):
        nn.Module.__init__(self)
        self.num_emotions = 3
        self.layers = nn.ModuleList(nn.Linear(SIZE, SIZE) for _ in range(3))
        self.norm = nn.BatchNorm1d(SIZE)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(SIZE, 3)
        self.architecture = Architecture(1)

    def forward(self, batch):
        mixed = batch.streams["spectrogram"].values.mean(dim=1)
        for alpha in self.alphas().values():
            shares = alpha.softmax(dim=1)
            parts = [one(mixed) for one in (*self.layers, torch.tanh)]
            mixed = torch.tanh(self.norm(sum(s * part for s, part in zip(shares[0], parts, strict=False))))
            mixed = mixed * (1 + shares[1, 0])
        return self.classifier(self.dropout(mixed))


def smooth(dropout=0.0):
    torch.manual_seed(0)
    model = Smooth(dropout).double()
    with torch.no_grad():
        for alpha in model.alphas().values():
            alpha.add_(torch.randn_like(alpha))
    return model


NETWORKS = {"network of the search": supernet, "smooth": smooth}


def searched(model, others=None, **settings):
    """The strategy in the midst of a training: two steps in, so that the weights have momentum."""
    others = doubled(others or corpus(5, seed=2))
    search = ArchitectureSearch(model, ArchitectureSearchConfig(**{**FAST, **settings}), others, len(others))
    for seed in (3, 4):
        torch.manual_seed(seed)
        search.step(double(corpus(4, seed=seed).batch(range(4))), 0.2)
    return search


def batches(search):
    """A batch for the weights, and the one that the alphas would see next."""
    others = search.alphas_on
    return double(corpus(4, seed=5).batch(range(4))), others.batch(range(len(others)))


# A plain reference, of models by `deepcopy` and gradients by `backward`


def loss_of(model, *many):
    """Of several batches, the mean of their losses: what as many processes would descend."""
    return sum(F.cross_entropy(model(batch), batch.labels) for batch in many) / len(many)


def moved(search, model, train, rate):
    """A copy of the model one step of SGD further, without clipping."""
    ahead = copy.deepcopy(model)
    ahead.zero_grad()
    loss_of(ahead, *train).backward()
    with torch.no_grad():
        for mine, theirs in zip(ahead.parameters(), model.parameters(), strict=True):
            buffer = search.weight_optimizer.state[theirs]["momentum_buffer"]
            mine -= rate * (search.config.momentum * buffer + mine.grad + search.config.weight_decay * mine)
    return ahead


def alphas_gradient(model, *many):
    return torch.autograd.grad(loss_of(model, *many), list(model.alphas().values()))


def recipe(search, train, others, rate, radius=0.01):
    """DARTS's second-order gradient, its unrolled step and finite difference one parameter at a time."""
    model = search.model
    ahead = moved(search, model, train, rate)
    ahead.zero_grad()
    for alpha in ahead.alphas().values():
        alpha.grad = None
    loss_of(ahead, *others).backward()
    vector = [parameter.grad for parameter in ahead.parameters()]
    reach = radius / math.sqrt(sum(float((v**2).sum()) for v in vector))
    sides = []
    for sign in (1, -1):
        side = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, v in zip(side.parameters(), vector, strict=True):
                parameter += sign * reach * v
        sides.append(alphas_gradient(side, *train))
    return {
        name: alpha.grad - rate * (plus - minus) / (2 * reach)
        for name, alpha, plus, minus in zip(search.alphas, ahead.alphas().values(), *sides, strict=True)
    }


def exact(search, train, others, rate):
    """The gradient through the unrolled step by autograd, the momentum held."""
    model, decay = search.model, search.config.weight_decay
    alphas = {name: alpha.detach().clone().requires_grad_() for name, alpha in search.alphas.items()}
    weights = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    buffers = {name: value.clone() for name, value in model.named_buffers() if name not in alphas}

    def loss(at, batch):
        given = {**buffers, **alphas, **at}
        return F.cross_entropy(torch.func.functional_call(model, given, (batch,)), batch.labels)

    gradients = torch.autograd.grad(loss(weights, train), list(weights.values()), create_graph=True)
    ahead = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        buffer = search.weight_optimizer.state[search.parameters[name]]["momentum_buffer"]
        ahead[name] = weight - rate * (search.config.momentum * buffer + gradient + decay * weight)
    found = torch.autograd.grad(loss(ahead, others), list(alphas.values()))
    return dict(zip(alphas, found, strict=True))


def by_differences(search, train, others, rate, step):
    """The same, each alpha a little to either side and the weights' step taken anew."""
    found = {name: torch.zeros_like(alpha) for name, alpha in search.alphas.items()}
    for name, alpha in search.alphas.items():
        for place in np.ndindex(*alpha.shape):
            sides = []
            for sign in (1, -1):
                model = copy.deepcopy(search.model)
                with torch.no_grad():
                    dict(model.named_buffers())[name][place] += sign * step
                # The copy's parameters stand for the model's, whose momentum the reference looks up.
                pairs = zip(model.parameters(), search.model.parameters(), strict=True)
                state = {mine: search.weight_optimizer.state[theirs] for mine, theirs in pairs}
                stand_in = SimpleNamespace(config=search.config, weight_optimizer=SimpleNamespace(state=state))
                sides.append(float(loss_of(moved(stand_in, model, [train], rate), others).detach()))
            found[name][place] = (sides[0] - sides[1]) / (2 * step)
    return found


def furthest(found, wanted):
    """The largest difference, as a share of the largest entry."""
    assert found.keys() == wanted.keys()
    largest = max(float(one.abs().max()) for one in wanted.values())
    assert largest > 1e-6
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted) / largest
