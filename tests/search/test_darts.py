"""The strategy "darts": its gradients, its steps, its log, resumption, and the halves of the training subset."""

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
from affekt.search.darts import ArchitectureSearch, ArchitectureSearchConfig, split_in_halves
from affekt.training.dataset import Dataset
from affekt.training.loop import fit
from tests.samples_of_tables import mostly_slow
from tests.search.supernets import (
    FAST,
    NETWORKS,
    SIZE,
    SmoothSupernet,
    alpha_gradients,
    exact_gradients,
    finite_difference_gradients,
    make_batches,
    make_dataset,
    make_double,
    make_smooth_supernet,
    make_supernet,
    mean_loss,
    relative_error,
    second_order_gradients,
    start_search,
    take_weight_step,
    to_double,
)
from tests.training.test_loop import Killed, small_model, start

# The second is slow.
CHEAP_FIRST = mostly_slow(["smooth supernet", "supernet"], 2)
ORDERS = mostly_slow(["first", "second"], 2)

# Gradients


@pytest.mark.parametrize("network", NETWORKS)
def test_first_order_gradients_are_those_of_the_loss_on_the_alpha_batch(network):
    search = start_search(NETWORKS[network]())
    train_batch, alpha_batch = make_batches(search)
    loss, actual = search._alpha_gradients(train_batch, alpha_batch, 0.1)
    expected = dict(zip(search.alphas, alpha_gradients(search.model, alpha_batch), strict=True))
    assert relative_error(actual, expected) < 1e-12
    assert loss == pytest.approx(float(mean_loss(search.model, alpha_batch).detach()), rel=1e-12)


@pytest.mark.parametrize("network", CHEAP_FIRST)
def test_second_order_gradients_equal_the_reference_of_darts(network):
    search = start_search(NETWORKS[network](), order="second")
    train_batch, alpha_batch = make_batches(search)
    loss, actual = search._alpha_gradients(train_batch, alpha_batch, 0.1)
    assert relative_error(actual, second_order_gradients(search, [train_batch], [alpha_batch], 0.1)) < 1e-9
    stepped = take_weight_step(search, search.model, [train_batch], 0.1)
    assert loss == pytest.approx(float(mean_loss(stepped, alpha_batch).detach()), rel=1e-12)


def test_second_order_gradients_before_the_first_step_have_no_momentum():
    search = ArchitectureSearch(
        make_smooth_supernet(), ArchitectureSearchConfig(**FAST, order="second"), make_double(make_dataset(5)), 5
    )
    train_batch, alpha_batch = make_batches(search)
    _, actual = search._alpha_gradients(train_batch, alpha_batch, 0.1)
    for parameter in search.model.parameters():
        search.weight_optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    assert relative_error(actual, second_order_gradients(search, [train_batch], [alpha_batch], 0.1)) < 1e-9


@pytest.mark.parametrize("network", CHEAP_FIRST)
def test_second_order_gradients_with_a_tiny_radius_are_exact(network, monkeypatch):
    search = start_search(NETWORKS[network](), order="second")
    train_batch, alpha_batch = make_batches(search)
    expected = exact_gradients(search, train_batch, alpha_batch, 0.1)
    _, coarse = search._alpha_gradients(train_batch, alpha_batch, 0.1)
    monkeypatch.setattr(darts, "RADIUS", 1e-6)
    _, actual = search._alpha_gradients(train_batch, alpha_batch, 0.1)
    assert relative_error(actual, expected) < 1e-8 < relative_error(coarse, expected)


@pytest.mark.slow
def test_second_order_gradients_equal_finite_differences_of_the_loss_after_a_step(monkeypatch):
    monkeypatch.setattr(darts, "RADIUS", 1e-6)
    search = start_search(make_smooth_supernet(), order="second")
    train_batch, alpha_batch = make_batches(search)
    _, actual = search._alpha_gradients(train_batch, alpha_batch, 0.1)
    assert relative_error(actual, finite_difference_gradients(search, train_batch, alpha_batch, 0.1, 1e-5)) < 1e-7


@pytest.mark.slow
def test_first_and_second_order_gradients_differ():
    first, second = start_search(make_supernet()), start_search(make_supernet(), order="second")
    second.restore(first.state())
    train_batch, alpha_batch = make_batches(first)
    gradients = [search._alpha_gradients(train_batch, alpha_batch, 0.1)[1] for search in (first, second)]
    assert relative_error(*gradients) > 1e-3


def test_dropout_is_the_same_in_all_passes_of_a_step(monkeypatch):
    """With different dropout, the finite difference over a tiny radius would be huge."""
    search = start_search(make_smooth_supernet(dropout=0.5), order="second")
    train_batch, alpha_batch = make_batches(search)
    gradients = []
    for radius in (1e-5, 1e-6):
        monkeypatch.setattr(darts, "RADIUS", radius)
        torch.manual_seed(7)
        gradients.append(search._alpha_gradients(train_batch, alpha_batch, 0.1)[1])
    assert relative_error(*gradients) < 1e-6


@pytest.mark.slow
def test_soft_labels_are_the_target_if_there_are_any():
    votes = np.array([[0.5, 0.3, 0.2]] * 5, np.float32)
    search = start_search(make_supernet(), replace(make_dataset(5), soft_labels=votes))
    train_batch, alpha_batch = make_batches(search)
    logits = search.model(alpha_batch).detach()
    expected = -(torch.from_numpy(votes) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert search._alpha_gradients(train_batch, alpha_batch, 0.1)[0] == pytest.approx(float(expected), rel=1e-6)


# Steps


@pytest.mark.slow
def test_steps_equal_those_of_adam_and_sgd():
    """Two steps in both orders equal steps of torch's optimizers with gradients from `backward`."""
    for order in ("first", "second"):
        search = start_search(make_supernet(), order=order, clip=0.3)
        model = copy.deepcopy(search.model)
        adam = torch.optim.Adam(model.alphas().values(), lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4)
        adam.load_state_dict(copy.deepcopy(search.alpha_optimizer.state_dict()))
        sgd.load_state_dict(copy.deepcopy(search.weight_optimizer.state_dict()))
        reference = SimpleNamespace(config=search.config, weight_optimizer=sgd, model=model, alphas=search.alphas)
        for number in range(2):
            progress = 0.3 + 0.2 * number
            rate = 1e-3 + 0.5 * (0.1 - 1e-3) * (1 + math.cos(math.pi * progress))
            train_batch, alpha_batch = make_batches(search)
            losses = search.step(train_batch, progress)
            if order == "first":
                gradients = alpha_gradients(model, alpha_batch)
            else:
                gradients = second_order_gradients(reference, [train_batch], [alpha_batch], rate).values()
            for alpha, gradient in zip(model.alphas().values(), gradients, strict=True):
                alpha.grad = gradient
            adam.step()
            sgd.zero_grad()
            loss = mean_loss(model, train_batch)
            loss.backward()
            assert nn.utils.clip_grad_norm_(model.parameters(), 0.3) > 0.3
            sgd.param_groups[0]["lr"] = rate
            sgd.step()
            assert losses["loss"] == pytest.approx(float(loss.detach()), rel=1e-9)
        for actual, expected in zip(search.model.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)
        for actual, expected in zip(search.alphas.values(), model.alphas().values(), strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


def test_defaults_are_those_of_the_paper_and_of_darts():
    search = ArchitectureSearch(make_supernet(), ArchitectureSearchConfig(), make_dataset(), 4)
    (weights,), (alphas,) = search.weight_optimizer.param_groups, search.alpha_optimizer.param_groups
    assert (weights["lr"], weights["momentum"], weights["weight_decay"]) == (0.025, 0.9, 3e-4)
    assert (alphas["lr"], alphas["betas"], alphas["weight_decay"]) == (3e-4, (0.5, 0.999), 1e-3)
    assert [search.rate(progress) for progress in (0, 0.5, 1)] == pytest.approx([0.025, 0.013, 0.001])
    assert search.config.order == "first"
    assert search.config.alpha_start == 0


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_only_the_weights_step_updates_running_statistics(order):
    search = start_search(make_supernet(), order=order)
    train_batch, _ = make_batches(search)
    before = copy.deepcopy(search.model)
    search.step(train_batch, 0.3)
    # The expected statistics are those after one pass over the training batch with the new alphas.
    for old_alpha, new_alpha in zip(before.alphas().values(), search.alphas.values(), strict=True):
        old_alpha.data.copy_(new_alpha.data)
    before(train_batch)
    alphas, expected = set(search.alphas), dict(before.named_buffers())
    statistics = {name: value for name, value in search.model.named_buffers() if name not in alphas}
    assert len(statistics) > 10
    for name, value in statistics.items():
        torch.testing.assert_close(value, expected[name], atol=1e-12, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_alpha_gradients_have_no_side_effects(order):
    search = start_search(make_supernet(dropout=0.5), order=order)
    train_batch, alpha_batch = make_batches(search)
    before = {name: value.clone() for name, value in search.model.state_dict().items()}
    generator_state = torch.get_rng_state()
    search._alpha_gradients(train_batch, alpha_batch, 0.1)
    assert torch.equal(generator_state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in search.model.state_dict().items())
    assert all(tensor.grad is None for tensor in search._tensors().values())
    search.step(train_batch, 0.3)
    assert all(tensor.grad is None for tensor in search._tensors().values())


@pytest.mark.slow
def test_alphas_stay_constant_until_alpha_start():
    search = start_search(make_supernet(), alpha_start=0.5)
    train_batch, alpha_batch = make_batches(search)
    before = {name: alpha.detach().clone() for name, alpha in search.alphas.items()}
    expected = float(mean_loss(search.model, alpha_batch).detach())
    weights = [parameter.detach().clone() for parameter in search.model.parameters()]
    assert search.step(train_batch, 0.49)["alpha_loss"] == pytest.approx(expected, rel=1e-12)  # logged although unused
    assert all(torch.equal(alpha, before[name]) for name, alpha in search.alphas.items())
    assert not any(torch.equal(*pair) for pair in zip(search.model.parameters(), weights, strict=True))
    search.step(train_batch, 0.5)
    assert not any(torch.equal(alpha, before[name]) for name, alpha in search.alphas.items())


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_an_alpha_of_minus_infinity_stays_and_the_others_learn(order):
    search = start_search(make_supernet(), order=order)
    train_batch, _ = make_batches(search)
    for alpha in search.alphas.values():
        alpha.data[:, 5] = -math.inf
    before = {name: alpha.detach().clone() for name, alpha in search.alphas.items()}
    for progress in (0.3, 0.4, 0.5):
        losses = search.step(train_batch, progress)
    assert all(math.isfinite(loss) for loss in losses.values())
    for name, alpha in search.alphas.items():
        assert (alpha[:, 5] == -math.inf).all()
        others = [0, 1, 2, 3, 4, 6, 7]
        assert alpha[:, others].isfinite().all()
        assert not torch.equal(alpha[:, others], before[name][:, others])


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_supernet_with_only_the_operation_none_has_a_finite_loss(order):
    model = make_supernet()
    with torch.no_grad():
        for alpha in model.alphas().values():
            alpha[:, 1:] = -math.inf
    search = ArchitectureSearch(model, ArchitectureSearchConfig(order=order), make_double(make_dataset()), 6)
    assert math.isfinite(search.step(to_double(make_dataset().batch(range(6))), 0.0)["alpha_loss"])
    assert all(alpha[:, 1:].isneginf().all() and alpha[:, 0].isfinite().all() for alpha in model.alphas().values())


@pytest.mark.slow
def test_first_and_second_order_are_equal_if_all_gradients_are_zero():
    """With a single emotion, the loss and all gradients are zero."""
    losses = {}
    for order in ("first", "second"):
        torch.manual_seed(0)
        config = SpectrogramBranchConfig(cells=3, channels=2, nodes=1, frames=8, input_dim=8)
        data = make_dataset()
        data = replace(data, labels=np.zeros_like(data.labels))
        search = ArchitectureSearch(SpectrogramBranch(config, 1), ArchitectureSearchConfig(order=order), data, 6)
        losses[order] = search.step(data.batch(range(6)), 0.0)
    assert losses["first"] == losses["second"] == {"loss": 0.0, "alpha_loss": 0.0}


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_an_alpha_start_outside_0_to_1_raises_bad_config(fraction):
    with pytest.raises(BadConfig, match=rf"alpha_start = {fraction}: expected a fraction of the training, at least 0"):
        ArchitectureSearchConfig(alpha_start=fraction)


def test_alpha_batches_are_drawn_at_random_from_all_utterances():
    search = ArchitectureSearch(make_supernet(), ArchitectureSearchConfig(), make_dataset(12), 4)
    batches = [search._draw_alpha_batch().ids for _ in range(40)]
    assert all(len(set(ids)) == 4 for ids in batches)
    assert {utterance_id for ids in batches for utterance_id in ids} == set(search.alpha_dataset.ids)
    assert len(set(batches)) > 30


def test_a_model_without_alphas_and_an_empty_dataset_raise_bad_config():
    derived = SpectrogramBranch(SpectrogramBranchConfig(genotype="darts-v2"), 3)
    for model in (derived, small_model()):
        with pytest.raises(BadConfig, match=r"no architecture to search for: .* without a genotype"):
            ArchitectureSearch(model, ArchitectureSearchConfig(), make_dataset(), 4)
    with pytest.raises(BadConfig, match="no utterances for the alphas to learn from: use a protocol with a validation"):
        ArchitectureSearch(make_supernet(), ArchitectureSearchConfig(), make_dataset(0), 4)


# Results and log


class OneEdge(SmoothSupernet):
    """A supernet of one edge with five operations, of which only the convolution can tell the two emotions apart."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4, affine=False) for _ in range(4))
        self.classifier = nn.Linear(4, 2)
        self.architecture.register_buffer("normal", (1e-3 * torch.randn(1, 5)).requires_grad_())

    def forward(self, batch):
        x = batch.streams["spectrogram"].values.unsqueeze(1).expand(-1, 4, -1, -1)
        outputs = [F.max_pool2d(x, 3, 1, 1), F.avg_pool2d(x, 3, 1, 1), x, self.convolution(x)]
        weights = self.alphas()["normal"].softmax(dim=1)[0, 1:]  # the first operation is "none"
        mixed = sum(weight * norm(output) for weight, norm, output in zip(weights, self.norms, outputs, strict=True))
        return self.classifier(mixed.relu().mean(dim=(2, 3)))


def make_stripes(seed, random_labels=False):
    """Return 64 images of noise with stripes along one of the axes, labeled by that axis or at random.

    Pooling and identity treat both axes alike, so they cannot distinguish the labels.
    """
    generator = np.random.default_rng(seed)
    axes = np.arange(64) % 2
    frames = [np.repeat(generator.normal(size=(8, 4)), 2, axis=1).astype(np.float32) for _ in axes]
    frames = [values.T.copy() if axis else values for values, axis in zip(frames, axes, strict=True)]
    labels = generator.permutation(axes) if random_labels else axes
    ids = [str(index) for index in range(64)]
    return Dataset(ids, labels, {"spectrogram": frames}, {"spectrogram": FeatureSpec(8, 50.0)})


def search_one_edge(order, random_labels, steps=60):
    """Return the weights of the five operations after a search, and the ratio of the last to the first `alpha_loss`."""
    torch.manual_seed(1)
    config = ArchitectureSearchConfig(order=order, learning_rate=0.3, alpha_rate=0.05)
    train = make_stripes(1, random_labels)
    search = ArchitectureSearch(OneEdge(), config, make_stripes(2, random_labels), 32)
    losses = [search.step(train.batch(torch.randperm(64)[:32].tolist()), n / steps)["alpha_loss"] for n in range(steps)]
    return search.model.alphas()["normal"].softmax(dim=1)[0].tolist(), losses[-1] / losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["first", "second"])
def test_the_only_useful_operation_gets_the_largest_weight(order):
    weights, loss_ratio = search_one_edge(order, random_labels=False)
    assert weights[4] > 0.8
    assert loss_ratio < 0.5
    weights, _ = search_one_edge(order, random_labels=True)
    assert weights[4] < 0.5


def alphas_for(normal, reduce):
    """Return alphas of one node with two edges from which these operations are derived."""
    rows = {"normal": normal, "reduce": reduce}
    return {
        kind: 3 * F.one_hot(torch.tensor([OPERATIONS.index(n) for n in names]), 8).double()
        for kind, names in rows.items()
    }


def test_notes_contain_alphas_genotype_skips_and_entropy():
    search = ArchitectureSearch(make_supernet(), ArchitectureSearchConfig(), make_dataset(), 4)
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


def test_the_initial_entropy_is_log_8():
    model = SpectrogramBranch(SpectrogramBranchConfig(channels=2), 3)
    notes = ArchitectureSearch(model, ArchitectureSearchConfig(), make_dataset(), 4).notes()
    assert notes["entropy"] == pytest.approx(math.log(8), abs=1e-4)
    assert [len(rows) for rows in notes["alphas"].values()] == [14, 14]


def test_more_than_a_quarter_of_skip_connections_is_a_collapse():
    def cells(count, nodes=4):
        genes = [("skip_connect" if index < count else "sep_conv_3x3", index % 2) for index in range(2 * nodes)]
        return Genotype(tuple(genes), (("skip_connect", 0), ("skip_connect", 1)) * nodes)

    assert [is_collapsed(cells(count)) for count in range(9)] == [False] * 3 + [True] * 6
    assert [count_skips(cells(count)) for count in range(9)] == list(range(9))
    # The smallest number that is a collapse, for cells of one to six nodes: at least two, and more than a quarter.
    smallest = [
        next(count for count in range(2 * nodes + 1) if is_collapsed(cells(count, nodes))) for nodes in range(1, 7)
    ]
    assert smallest == [2, 2, 2, 3, 3, 4]
    assert not is_collapsed(get_genotype("darts-v2"))
    assert is_collapsed(get_genotype("darts-v1"))  # its normal cell has three


# Resumption


def run_search(folder, epochs, *, stop=None):
    """Run a search, without interruption or interrupted after the epoch `stop` and resumed from its run folder."""
    train, test, validation = make_dataset(9), make_dataset(6, seed=1), make_dataset(12, seed=2)
    config = ArchitectureSearchConfig(**FAST, order="second", alpha_start=0.2)
    for end in [stop, epochs] if stop else [epochs]:
        run = start(folder, train, test, validation=validation)
        search = ArchitectureSearch(make_supernet(dropout=0.2).float(), config, validation, 4)
        strategy = Killed(search, after=stop * 3 + 1) if end == stop else search
        scored = {"test": test, "validation": validation}
        try:
            fit(strategy, train, scored, run, epochs=epochs, batch_size=3, seed=3)
        except KeyboardInterrupt:
            continue
    return run, search


@pytest.mark.slow
def test_a_killed_search_resumes_with_identical_results(tmp_path):
    uninterrupted, first = run_search(tmp_path / "uninterrupted", 2)
    resumed, second = run_search(tmp_path / "resumed", 2, stop=1)
    assert {"architecture.normal", "architecture.reduce"} <= first.weights().keys()
    for name, value in first.weights().items():
        assert torch.equal(value, second.weights()[name]), name
    logs = [[{**entry, "seconds": 0} for entry in run.log()] for run in (uninterrupted, resumed)]
    assert logs[0] == logs[1]
    assert {"loss", "alpha_loss", "alphas", "genotype", "skips", "collapsed", "entropy"} <= logs[0][0].keys()
    assert len({json.dumps(entry["alphas"]) for entry in logs[0]}) == 2


@pytest.mark.slow
def test_predictions_are_those_of_the_supernet(tmp_path):
    run, search = run_search(tmp_path, 1)
    test = make_dataset(6, seed=1)
    model = search.model.eval()
    with torch.no_grad():
        expected = torch.cat([model(test.batch([index])).softmax(dim=1) for index in range(6)])
    torch.testing.assert_close(torch.from_numpy(run.predictions(1)["test"]), expected, atol=1e-5, rtol=0)


# Several processes

TWO_PROCESSES = """
import sys, torch
from pathlib import Path
from affekt.training.distributed import processes
from affekt.training.loop import fit
from tests.search.supernets import *
from tests.training.test_loop import start

torch.set_num_threads(1)

def assert_equal_in_both(tensors, message):
    values = torch.cat([tensor.detach().flatten() for tensor in tensors])
    both = [torch.zeros_like(values) for _ in range(2)]
    torch.distributed.all_gather(both, values)
    assert torch.equal(both[0], both[1]), message

def work(rank, world):
    assert world == 2
    for order in ("first", "second"):
        config = ArchitectureSearchConfig(**FAST, order=order)
        search = ArchitectureSearch(make_supernet(), config, make_double(make_dataset(5)), 5)
        state = search.weight_optimizer.state
        for parameter in search.model.parameters():
            state[parameter]["momentum_buffer"] = torch.full_like(parameter, 0.01)
        train_batches, alpha_batches = (
            [to_double(make_dataset(4, seed=seed).batch(range(4))) for seed in seeds] for seeds in ((5, 6), (7, 8))
        )
        _, actual = search._alpha_gradients(train_batches[rank], alpha_batches[rank], 0.1)
        if order == "first":
            expected = dict(zip(actual, alpha_gradients(search.model, *alpha_batches)))
        else:
            expected = second_order_gradients(search, train_batches, alpha_batches, 0.1)
        assert relative_error(actual, expected) < 1e-9, (order, relative_error(actual, expected))

        train, test = make_dataset(12), make_dataset(6, seed=1)
        run = start(Path(sys.argv[1]) / order, train, test)
        search = ArchitectureSearch(make_supernet().float(), search.config, make_dataset(12, seed=2), 4)
        fit(search, train, {"test": test}, run, epochs=1, batch_size=3, seed=3, rank=rank, world=world)
        assert_equal_in_both(search.model.parameters(), "the processes' weights differ")
        assert_equal_in_both(search.alphas.values(), "the processes' alphas differ")

with processes() as (rank, world):
    work(rank, world)
"""


@pytest.mark.slow
def test_two_processes_average_gradients_and_keep_equal_models(tmp_path):
    """In both orders, the alphas' gradients are those of both batches together."""
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    for order in ("first", "second"):
        start(tmp_path / "run" / order, make_dataset(12), make_dataset(6, seed=1))
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert Run(tmp_path / "run" / "second").epochs == [1]


# Datasets


def test_selected_utterances_keep_labels_features_words_and_copies():
    data = make_dataset(6)
    votes = np.eye(6, 3, dtype=np.float32)
    word_indices = {"spectrogram": [np.arange(SIZE) + index for index in range(6)]}
    louder = [{"spectrogram": [values + 100 for values in data.features["spectrogram"]]}]
    data = replace(data, soft_labels=votes, word_index=word_indices, copies=louder, copy_probability=1.0)
    selected = data.select([4, 1])
    assert (len(selected), selected.ids) == (2, ["made/04", "made/01"])
    actual, expected = selected.batch([0, 1]), data.batch([4, 1])
    for name in ("labels", "soft_labels"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name
    assert torch.equal(actual.streams["spectrogram"].values, expected.streams["spectrogram"].values)
    assert torch.equal(actual.streams["spectrogram"].word_index, expected.streams["spectrogram"].word_index)
    copied = selected.sample_epoch(np.random.default_rng(0)).batch([0]).streams["spectrogram"].values
    torch.testing.assert_close(copied, data.batch([4]).streams["spectrogram"].values + 100)


class UnreadableList(list):
    def __getitem__(self, index):
        raise AssertionError("a feature was read")


def test_selecting_utterances_reads_no_features():
    data = replace(make_dataset(4), features={"spectrogram": UnreadableList([None] * 4)})
    assert len(data.select([0, 2]).features["spectrogram"]) == 2


def test_halves_without_speakers_have_equally_many_utterances_of_each_emotion():
    data = replace(make_dataset(61), labels=np.array([0] * 31 + [1] * 20 + [2] * 10))
    first, second = split_in_halves(data, seed=1)
    assert sorted([*first.ids, *second.ids]) == sorted(data.ids)
    assert np.abs(np.bincount(first.labels) - np.bincount(second.labels)).max() <= 1
    assert abs(len(first) - len(second)) == 1
    assert split_in_halves(data, seed=1)[0].ids == first.ids != split_in_halves(data, seed=2)[0].ids
    assert [half.ids for half in split_in_halves(data, 1, ["only speaker"] * 61)] == [first.ids, second.ids]


def test_each_speaker_is_in_one_half_only():
    speakers = [f"speaker {index % 7}" for index in range(52)]
    data = make_dataset(52)
    speaker_of = dict(zip(data.ids, speakers, strict=True))
    first, second = split_in_halves(data, 1, speakers)
    assert {speaker_of[k] for k in first.ids}.isdisjoint(speaker_of[k] for k in second.ids)
    assert sorted([*first.ids, *second.ids]) == sorted(data.ids)
    assert abs(len(first) - len(second)) <= 8  # the utterances of one speaker
    assert split_in_halves(data, 1, speakers)[0].ids == first.ids
    assert len({tuple(split_in_halves(data, seed, speakers)[0].ids) for seed in range(9)}) > 1


def test_halving_one_utterance_raises_bad_config():
    with pytest.raises(BadConfig, match="has 1 utterance, too few for two halves: set learn_alphas_on = 'validation'"):
        split_in_halves(make_dataset(1), 0)
