"""The search: its gradients are those that DARTS's equations give, its steps are torch's own, and nothing else moves."""

import copy
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from affekt.errors import BadConfig
from affekt.models.base import FeatureSpec
from affekt.models.emotionnas.collapse import count_skips, is_collapsed
from affekt.models.emotionnas.genotypes import Genotype, get_genotype
from affekt.models.emotionnas.operations import OPERATIONS
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig
from affekt.runs.folder import Run
from affekt.search import darts
from affekt.search.darts import ArchitectureSearch, ArchitectureSearchConfig, halves
from affekt.training.dataset import Dataset
from affekt.training.loop import fit
from tests.search.supernets import (
    FAST,
    NETWORKS,
    SIZE,
    Smooth,
    alphas_gradient,
    batches,
    by_differences,
    corpus,
    double,
    doubled,
    exact,
    furthest,
    loss_of,
    moved,
    recipe,
    searched,
    smooth,
    supernet,
)
from tests.training.test_loop import Killed, small_model, start

# Gradients


@pytest.mark.parametrize("network", NETWORKS)
def test_the_first_order_is_the_gradient_of_the_others_loss(network):
    search = searched(NETWORKS[network]())
    train, others = batches(search)
    loss, found = search._alpha_gradients(train, others, 0.1)
    wanted = dict(zip(search.alphas, alphas_gradient(search.model, others), strict=True))
    assert furthest(found, wanted) < 1e-12
    assert loss == pytest.approx(float(loss_of(search.model, others).detach()), rel=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_second_order_is_the_recipe_of_darts(network):
    search = searched(NETWORKS[network](), order="second")
    train, others = batches(search)
    loss, found = search._alpha_gradients(train, others, 0.1)
    assert furthest(found, recipe(search, [train], [others], 0.1)) < 1e-9
    assert loss == pytest.approx(float(loss_of(moved(search, search.model, [train], 0.1), others).detach()), rel=1e-12)


def test_before_the_first_step_there_is_no_momentum():
    search = ArchitectureSearch(smooth(), ArchitectureSearchConfig(**FAST, order="second"), doubled(corpus(5)), 5)
    train, others = batches(search)
    _, found = search._alpha_gradients(train, others, 0.1)
    for parameter in search.model.parameters():
        search.weight_optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    assert furthest(found, recipe(search, [train], [others], 0.1)) < 1e-9


@pytest.mark.parametrize("network", NETWORKS)
def test_at_a_tiny_radius_the_second_order_is_the_exact_gradient(network, monkeypatch):
    search = searched(NETWORKS[network](), order="second")
    train, others = batches(search)
    wanted = exact(search, train, others, 0.1)
    _, coarse = search._alpha_gradients(train, others, 0.1)
    monkeypatch.setattr(darts, "RADIUS", 1e-6)
    _, found = search._alpha_gradients(train, others, 0.1)
    assert furthest(found, wanted) < 1e-8 < furthest(coarse, wanted)


def test_the_second_order_is_the_slope_of_the_loss_one_step_ahead(monkeypatch):
    monkeypatch.setattr(darts, "RADIUS", 1e-6)
    search = searched(smooth(), order="second")
    train, others = batches(search)
    _, found = search._alpha_gradients(train, others, 0.1)
    assert furthest(found, by_differences(search, train, others, 0.1, 1e-5)) < 1e-7


def test_the_orders_differ():
    first, second = searched(supernet()), searched(supernet(), order="second")
    second.restore(first.state())
    train, others = batches(first)
    assert (
        furthest(first._alpha_gradients(train, others, 0.1)[1], second._alpha_gradients(train, others, 0.1)[1]) > 1e-3
    )


def test_dropout_is_the_same_in_all_passes_of_a_step(monkeypatch):
    """Else the difference over a tiny radius would be that of two dropouts, and huge."""
    search = searched(smooth(dropout=0.5), order="second")
    train, others = batches(search)
    found = []
    for radius in (1e-5, 1e-6):
        monkeypatch.setattr(darts, "RADIUS", radius)
        torch.manual_seed(7)
        found.append(search._alpha_gradients(train, others, 0.1)[1])
    assert furthest(*found) < 1e-6


def test_soft_labels_are_the_target_where_there_are_any():
    votes = np.array([[0.5, 0.3, 0.2]] * 5, np.float32)
    search = searched(supernet(), replace(corpus(5), soft_labels=votes))
    train, others = batches(search)
    logits = search.model(others).detach()
    expected = -(torch.from_numpy(votes) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert search._alpha_gradients(train, others, 0.1)[0] == pytest.approx(float(expected), rel=1e-6)


# Steps


def test_its_steps_are_those_of_torchs_adam_and_sgd():
    """Two steps of both orders, and the same by hand with two optimizers of torch's and `backward`."""
    for order in ("first", "second"):
        search = searched(supernet(), order=order, clip=0.3)
        model = copy.deepcopy(search.model)
        adam = torch.optim.Adam(model.alphas().values(), lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4)
        adam.load_state_dict(copy.deepcopy(search.alpha_optimizer.state_dict()))
        sgd.load_state_dict(copy.deepcopy(search.weight_optimizer.state_dict()))
        by_hand = SimpleNamespace(config=search.config, weight_optimizer=sgd, model=model, alphas=search.alphas)
        for number in range(2):
            progress = 0.3 + 0.2 * number
            rate = 1e-3 + 0.5 * (0.1 - 1e-3) * (1 + math.cos(math.pi * progress))
            train, others = batches(search)
            losses = search.step(train, progress)
            if order == "first":
                gradients = alphas_gradient(model, others)
            else:
                gradients = recipe(by_hand, [train], [others], rate).values()
            for alpha, gradient in zip(model.alphas().values(), gradients, strict=True):
                alpha.grad = gradient
            adam.step()
            sgd.zero_grad()
            loss = loss_of(model, train)
            loss.backward()
            assert nn.utils.clip_grad_norm_(model.parameters(), 0.3) > 0.3
            sgd.param_groups[0]["lr"] = rate
            sgd.step()
            assert losses["loss"] == pytest.approx(float(loss.detach()), rel=1e-9)
        for mine, theirs in zip(search.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)
        for mine, theirs in zip(search.alphas.values(), model.alphas().values(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-9)


def test_the_defaults_are_printed_or_darts_own():
    search = ArchitectureSearch(supernet(), ArchitectureSearchConfig(), corpus(), 4)
    (weights,), (alphas,) = search.weight_optimizer.param_groups, search.alpha_optimizer.param_groups
    assert (weights["lr"], weights["momentum"], weights["weight_decay"]) == (0.025, 0.9, 3e-4)
    assert (alphas["lr"], alphas["betas"], alphas["weight_decay"]) == (3e-4, (0.5, 0.999), 1e-3)
    assert [search.rate(progress) for progress in (0, 0.5, 1)] == pytest.approx([0.025, 0.013, 0.001])
    assert search.config.order == "first"
    assert search.config.alpha_start == 0


@pytest.mark.parametrize("order", ["first", "second"])
def test_running_statistics_are_those_of_the_weights_steps_alone(order):
    search = searched(supernet(), order=order)
    train, _ = batches(search)
    before = copy.deepcopy(search.model)
    search.step(train, 0.3)
    # What one pass over the training batch, with the alphas already moved, leaves in the copy.
    for mine, theirs in zip(before.alphas().values(), search.alphas.values(), strict=True):
        mine.data.copy_(theirs.data)
    before(train)
    alphas, theirs = set(search.alphas), dict(before.named_buffers())
    statistics = {name: value for name, value in search.model.named_buffers() if name not in alphas}
    assert len(statistics) > 10
    for name, value in statistics.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-12, rtol=0)


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_look_at_the_alphas_gradient_leaves_nothing_behind(order):
    search = searched(supernet(dropout=0.5), order=order)
    train, others = batches(search)
    before = {name: value.clone() for name, value in search.model.state_dict().items()}
    draws = torch.get_rng_state()
    search._alpha_gradients(train, others, 0.1)
    assert torch.equal(draws, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in search.model.state_dict().items())
    assert all(tensor.grad is None for tensor in search._now().values())
    search.step(train, 0.3)
    assert all(tensor.grad is None for tensor in search._now().values())


def test_alphas_rest_as_long_as_they_are_told_to():
    search = searched(supernet(), alpha_start=0.5)
    train, others = batches(search)
    before = {name: alpha.detach().clone() for name, alpha in search.alphas.items()}
    expected = float(loss_of(search.model, others).detach())
    weights = [parameter.detach().clone() for parameter in search.model.parameters()]
    assert search.step(train, 0.49)["alpha_loss"] == pytest.approx(expected, rel=1e-12)  # the log has no gap
    assert all(torch.equal(alpha, before[name]) for name, alpha in search.alphas.items())
    assert not any(torch.equal(*pair) for pair in zip(search.model.parameters(), weights, strict=True))
    search.step(train, 0.5)
    assert not any(torch.equal(alpha, before[name]) for name, alpha in search.alphas.items())


@pytest.mark.parametrize("order", ["first", "second"])
def test_an_operation_that_is_ruled_out_stays_so_and_disturbs_nothing(order):
    search = searched(supernet(), order=order)
    train, _ = batches(search)
    for alpha in search.alphas.values():
        alpha.data[:, 5] = -math.inf
    before = {name: alpha.detach().clone() for name, alpha in search.alphas.items()}
    for progress in (0.3, 0.4, 0.5):
        losses = search.step(train, progress)
    assert all(math.isfinite(loss) for loss in losses.values())
    for name, alpha in search.alphas.items():
        assert (alpha[:, 5] == -math.inf).all()
        others = [0, 1, 2, 3, 4, 6, 7]
        assert alpha[:, others].isfinite().all()
        assert not torch.equal(alpha[:, others], before[name][:, others])


@pytest.mark.parametrize("order", ["first", "second"])
def test_alphas_of_a_network_of_nothing_take_no_step_and_break_nothing(order):
    model = supernet()
    with torch.no_grad():
        for alpha in model.alphas().values():
            alpha[:, 1:] = -math.inf
    one = ArchitectureSearch(model, ArchitectureSearchConfig(order=order), doubled(corpus()), 6)
    assert math.isfinite(one.step(double(corpus().batch(range(6))), 0.0)["alpha_loss"])
    assert all(alpha[:, 1:].isneginf().all() and alpha[:, 0].isfinite().all() for alpha in model.alphas().values())


def test_where_no_weight_can_gain_the_second_order_is_the_first():
    """Of one emotion alone the loss is zero, and so is every gradient."""
    losses = {}
    for order in ("first", "second"):
        torch.manual_seed(0)
        config = SpectrogramBranchConfig(cells=3, channels=2, nodes=1, frames=8, input_dim=8)
        data = corpus()
        data = replace(data, labels=np.zeros_like(data.labels))
        one = ArchitectureSearch(SpectrogramBranch(config, 1), ArchitectureSearchConfig(order=order), data, 6)
        losses[order] = one.step(data.batch(range(6)), 0.0)
    assert losses["first"] == losses["second"] == {"loss": 0.0, "alpha_loss": 0.0}


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_alphas_that_never_learn_are_refused(share):
    with pytest.raises(BadConfig, match=rf"alpha_start = {share}: expected a share of the training from 0 to below 1"):
        ArchitectureSearchConfig(alpha_start=share)


def test_the_alphas_hear_all_their_utterances_and_others_each_time():
    search = ArchitectureSearch(supernet(), ArchitectureSearchConfig(), corpus(12), 4)
    drawn = [search._drawn().ids for _ in range(40)]
    assert all(len(set(ids)) == 4 for ids in drawn)
    assert {one for ids in drawn for one in ids} == set(search.alphas_on.ids)
    assert len(set(drawn)) > 30


def test_a_model_without_alphas_is_refused():
    derived = SpectrogramBranch(SpectrogramBranchConfig(genotype="darts-v2"), 3)
    for model in (derived, small_model()):
        with pytest.raises(BadConfig, match=r"no architecture to search for: .* without a genotype"):
            ArchitectureSearch(model, ArchitectureSearchConfig(), corpus(), 4)
    with pytest.raises(BadConfig, match="no utterances for the alphas to learn from: give the search a validation set"):
        ArchitectureSearch(supernet(), ArchitectureSearchConfig(), corpus(0), 4)


# What it finds


class OneEdge(Smooth):
    """An edge of five candidates between an image and what tells two emotions apart: one of them can learn."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4, affine=False) for _ in range(4))
        self.classifier = nn.Linear(4, 2)
        self.architecture.register_buffer("normal", (1e-3 * torch.randn(1, 5)).requires_grad_())

    def forward(self, batch):
        x = batch.streams["spectrogram"].values.unsqueeze(1).expand(-1, 4, -1, -1)
        parts = [F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1), x, self.convolution(x)]
        shares = self.alphas()["normal"].softmax(dim=1)[0, 1:]  # the first has no connection
        mixed = sum(share * norm(part) for share, norm, part in zip(shares, self.norms, parts, strict=True))
        return self.classifier(mixed.relu().mean(dim=(2, 3)))


def stripes(seed, told=True):
    """64 images of noise that lasts along one axis: pooling and identity, which treat both alike, cannot tell which.

    told: False for labels that have nothing to do with it.
    """
    generator = np.random.default_rng(seed)
    axes = np.arange(64) % 2
    frames = [np.repeat(generator.normal(size=(8, 4)), 2, axis=1).astype(np.float32) for _ in axes]
    frames = [values.T.copy() if axis else values for values, axis in zip(frames, axes, strict=True)]
    labels = axes if told else generator.permutation(axes)
    ids = [str(index) for index in range(64)]
    return Dataset(ids, labels, {"spectrogram": frames}, {"spectrogram": FeatureSpec(8, 50.0)})


def shares_found(order, told, steps=60):
    """The shares of the five after a search, and by how much the loss that the alphas see came down."""
    torch.manual_seed(1)
    train, config = stripes(1, told), ArchitectureSearchConfig(order=order, learning_rate=0.3, alpha_rate=0.05)
    search = ArchitectureSearch(OneEdge(), config, stripes(2, told), 32)
    losses = [search.step(train.batch(torch.randperm(64)[:32].tolist()), n / steps)["alpha_loss"] for n in range(steps)]
    return search.model.alphas()["normal"].softmax(dim=1)[0].tolist(), losses[-1] / losses[0]


@pytest.mark.parametrize("order", ["first", "second"])
def test_the_one_operation_that_helps_gains_the_largest_share(order):
    shares, left = shares_found(order, told=True)
    assert shares[4] > 0.8
    assert left < 0.5
    shares, _ = shares_found(order, told=False)
    assert shares[4] < 0.5


def alphas_for(normal, reduce):
    """Alphas of one node, two edges, that would be made into these operations."""
    rows = {"normal": normal, "reduce": reduce}
    return {
        kind: 3 * F.one_hot(torch.tensor([OPERATIONS.index(n) for n in names]), 8).double()
        for kind, names in rows.items()
    }


def test_notes_say_what_was_found():
    search = ArchitectureSearch(supernet(), ArchitectureSearchConfig(), corpus(), 4)
    for kind, alpha in alphas_for(("skip_connect", "skip_connect"), ("max_pool_3x3", "dil_conv_5x5")).items():
        search.model.alphas()[kind].data.copy_(alpha + 1e-8)
    notes = json.loads(json.dumps(search.notes()))
    assert notes["genotype"] == {
        "normal": [["skip_connect", 0], ["skip_connect", 1]],
        "reduce": [["max_pool_3x3", 0], ["dil_conv_5x5", 1]],
    }
    assert notes["alphas"]["normal"][1] == [0, 0, 0, 3, 0, 0, 0, 0]
    assert (notes["skips"], notes["collapsed"]) == (2, True)
    large, small = math.exp(3) / (math.exp(3) + 7), 1 / (math.exp(3) + 7)
    assert notes["entropy"] == pytest.approx(-large * math.log(large) - 7 * small * math.log(small), rel=1e-6)


def test_entropy_begins_at_that_of_eight_equals():
    model = SpectrogramBranch(SpectrogramBranchConfig(channels=2), 3)
    notes = ArchitectureSearch(model, ArchitectureSearchConfig(), corpus(), 4).notes()
    assert notes["entropy"] == pytest.approx(math.log(8), abs=1e-4)
    assert [len(rows) for rows in notes["alphas"].values()] == [14, 14]


def test_three_skip_connections_of_eight_are_a_collapse():
    def cells(count, nodes=4):
        genes = [("skip_connect" if place < count else "sep_conv_3x3", place % 2) for place in range(2 * nodes)]
        return Genotype(tuple(genes), (("skip_connect", 0), ("skip_connect", 1)) * nodes)

    assert [is_collapsed(cells(count)) for count in range(9)] == [False] * 3 + [True] * 6
    assert [count_skips(cells(count)) for count in range(9)] == list(range(9))
    # The least number that is a collapse in cells of one to six nodes: at least two, more than a quarter of them.
    least = [
        next(count for count in range(2 * nodes + 1) if is_collapsed(cells(count, nodes))) for nodes in range(1, 7)
    ]
    assert least == [2, 2, 2, 3, 3, 4]
    assert not is_collapsed(get_genotype("darts-v2"))
    assert is_collapsed(get_genotype("darts-v1"))  # its normal cell has three


# Resumption


def trained(folder, epochs, *, stop=None):
    """Search in one go, or in two with everything but the run folder forgotten in between."""
    train, test, validation = corpus(9), corpus(6, seed=1), corpus(12, seed=2)
    config = ArchitectureSearchConfig(**FAST, order="second", alpha_start=0.2)
    for end in [stop, epochs] if stop else [epochs]:
        run = start(folder, train, test, validation=validation)
        search = ArchitectureSearch(supernet(dropout=0.2).float(), config, validation, 4)
        strategy = Killed(search, after=stop * 3 + 1) if end == stop else search
        scored = {"test": test, "validation": validation}
        try:
            fit(strategy, train, scored, run, epochs=epochs, batch_size=3, seed=3)
        except KeyboardInterrupt:
            continue
    return run, search


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_architecture(tmp_path):
    whole, first = trained(tmp_path / "whole", 2)
    broken, second = trained(tmp_path / "broken", 2, stop=1)
    assert {"architecture.normal", "architecture.reduce"} <= first.weights().keys()
    for name, value in first.weights().items():
        assert torch.equal(value, second.weights()[name]), name
    told = [[{**line, "seconds": 0} for line in run.log()] for run in (whole, broken)]
    assert told[0] == told[1]
    assert {"loss", "alpha_loss", "alphas", "genotype", "skips", "collapsed", "entropy"} <= told[0][0].keys()
    assert len({json.dumps(line["alphas"]) for line in told[0]}) == 2


def test_it_predicts_by_the_network_of_the_search(tmp_path):
    run, search = trained(tmp_path, 1)
    test = corpus(6, seed=1)
    model = search.model.eval()
    with torch.no_grad():
        expected = torch.cat([model(test.batch([index])).softmax(dim=1) for index in range(6)])
    torch.testing.assert_close(torch.from_numpy(run.predictions(1)["test"]), expected, atol=1e-5, rtol=0)


# Several processes

TOGETHER = """
import sys, torch
from pathlib import Path
from affekt.training.distributed import processes
from affekt.training.loop import fit
from tests.search.supernets import *
from tests.training.test_loop import start

torch.set_num_threads(1)

def same(tensors, what):
    total = torch.cat([tensor.detach().flatten() for tensor in tensors])
    both = [torch.zeros_like(total) for _ in range(2)]
    torch.distributed.all_gather(both, total)
    assert torch.equal(both[0], both[1]), what

def work(rank, world):
    assert world == 2
    for order in ("first", "second"):
        search = ArchitectureSearch(supernet(), ArchitectureSearchConfig(**FAST, order=order), doubled(corpus(5)), 5)
        state = search.weight_optimizer.state
        for parameter in search.model.parameters():
            state[parameter]["momentum_buffer"] = torch.full_like(parameter, 0.01)
        trains, others = ([double(corpus(4, seed=seed).batch(range(4))) for seed in seeds] for seeds in ((5, 6), (7, 8)))
        _, found = search._alpha_gradients(trains[rank], others[rank], 0.1)
        wanted = alphas_gradient(search.model, *others)
        wanted = dict(zip(found, wanted)) if order == "first" else recipe(search, trains, others, 0.1)
        assert furthest(found, wanted) < 1e-9, (order, furthest(found, wanted))

        train, test = corpus(12), corpus(6, seed=1)
        run = start(Path(sys.argv[1]) / order, train, test)
        search = ArchitectureSearch(supernet().float(), search.config, corpus(12, seed=2), 4)
        fit(search, train, {"test": test}, run, epochs=1, batch_size=3, seed=3, rank=rank, world=world)
        same(search.model.parameters(), "the processes' weights differ")
        same(search.alphas.values(), "the processes' alphas differ")

with processes() as (rank, world):
    work(rank, world)
"""


@pytest.mark.slow
def test_two_processes_search_one_network(tmp_path):
    """Their alphas' gradient is that of both batches together, in either order, and they stay one network."""
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    for order in ("first", "second"):
        start(tmp_path / "run" / order, corpus(12), corpus(6, seed=1))
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert Run(tmp_path / "run" / "second").epochs == [1]


# The data


def test_a_choice_of_utterances_takes_all_that_belongs_to_them():
    data = corpus(6)
    votes = np.eye(6, 3, dtype=np.float32)
    places = {"spectrogram": [np.arange(SIZE) + index for index in range(6)]}
    louder = [{"spectrogram": [values + 100 for values in data.features["spectrogram"]]}]
    data = replace(data, soft_labels=votes, word_index=places, copies=louder, copy_probability=1.0)
    chosen = data.select([4, 1])
    assert (len(chosen), chosen.ids) == (2, ["made/04", "made/01"])
    mine, theirs = chosen.batch([0, 1]), data.batch([4, 1])
    for name in ("labels", "soft_labels"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
    assert torch.equal(mine.streams["spectrogram"].values, theirs.streams["spectrogram"].values)
    assert torch.equal(mine.streams["spectrogram"].word_index, theirs.streams["spectrogram"].word_index)
    heard = chosen.sample_epoch(np.random.default_rng(0)).batch([0]).streams["spectrogram"].values
    torch.testing.assert_close(heard, data.batch([4]).streams["spectrogram"].values + 100)


class Unread(list):
    def __getitem__(self, index):
        raise AssertionError("read before it was asked for")


def test_a_choice_reads_nothing():
    data = replace(corpus(4), features={"spectrogram": Unread([None] * 4)})
    assert len(data.select([0, 2]).features["spectrogram"]) == 2


def test_halves_are_a_whole_together_and_alike():
    data = replace(corpus(61), labels=np.array([0] * 31 + [1] * 20 + [2] * 10))
    first, second = halves(data, seed=1)
    assert sorted([*first.ids, *second.ids]) == sorted(data.ids)
    assert np.abs(np.bincount(first.labels) - np.bincount(second.labels)).max() <= 1
    assert abs(len(first) - len(second)) == 1
    assert halves(data, seed=1)[0].ids == first.ids != halves(data, seed=2)[0].ids
    assert [one.ids for one in halves(data, 1, ["alone"] * 61)] == [first.ids, second.ids]


def test_speakers_are_in_one_half_only():
    speakers = [f"speaker {index % 7}" for index in range(52)]
    data = corpus(52)
    who = dict(zip(data.ids, speakers, strict=True))
    first, second = halves(data, 1, speakers)
    assert not {who[one] for one in first.ids} & {who[one] for one in second.ids}
    assert sorted([*first.ids, *second.ids]) == sorted(data.ids)
    assert abs(len(first) - len(second)) <= 8  # what one of them says
    assert halves(data, 1, speakers)[0].ids == first.ids
    assert len({tuple(halves(data, seed, speakers)[0].ids) for seed in range(9)}) > 1


def test_one_utterance_has_no_halves():
    with pytest.raises(BadConfig, match="1 utterances cannot be halved: set learn_alphas_on = 'validation'"):
        halves(corpus(1), 0)
