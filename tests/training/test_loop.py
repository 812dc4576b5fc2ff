"""The training loop: resuming, early stopping, kept weights, log lines, and several processes."""

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch

from affekt.errors import BadConfig
from affekt.models import models
from affekt.models.base import FeatureSpec
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.runs.selection import select_epoch
from affekt.training.dataset import Dataset
from affekt.training.loop import fit, prepare_epoch
from affekt.training.supervised import Supervised, SupervisedConfig
from tests.logs import logged

EMOTIONS = ("angry", "happy", "sad")
EVERY_SETTING = SupervisedConfig(
    learning_rate=1e-2,
    warmup=0.2,
    cosine=True,
    clip=0.05,
    label_smoothing=0.1,
    mixup=0.4,
    weight_decay=0.1,
    averaging=0.9,
)


def corpus(count=24, seed=0):
    """Return a dataset in which the emotion is the index of a raised feature."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(EMOTIONS)
    frames = [generator.normal(size=(generator.integers(4, 12), 6)).astype(np.float16) for _ in labels]
    for values, label in zip(frames, labels, strict=True):
        values[:, label] += 2
    ids = [f"made/{index:02}" for index in range(count)]
    return Dataset(ids, labels, {"speech": frames}, {"speech": FeatureSpec(6, 50.0)})


def small_model():
    torch.manual_seed(0)
    config = models["mstr"].Config(
        frames="any", masked=True, norm="features", input_dim=6, dim=16, blocks=1, heads=2, feedforward=16
    )
    return models["mstr"](config, len(EMOTIONS))


def start(folder, train, test, **others):
    scored = {"test": test, **others}
    subsets = {subset: tuple(f"{subset}/{i}" for i in data.ids) for subset, data in scored.items()}
    split = Split("made", {"train": tuple(train.ids), **subsets}, True)
    labels = dict(zip(split.subsets["train"], train.labels.tolist(), strict=True))
    for subset, data in scored.items():
        labels |= dict(zip(split.subsets[subset], data.labels.tolist(), strict=True))
    return Run.start(folder, {"name": "made"}, split, EMOTIONS, labels)


def train_run(folder, epochs, *, stop=None, config=EVERY_SETTING):
    """Train without interruption, or kill training in the epoch after `stop` and resume it with a new strategy."""
    train, test = corpus(), corpus(9, seed=1)
    for end in [stop, epochs] if stop else [epochs]:
        run = start(folder, train, test)
        strategy: Supervised | Killed = Supervised(small_model(), config)
        if end == stop:
            strategy = Killed(strategy, after=stop * 3 + 1)
        try:
            fit(strategy, train, {"test": test}, run, epochs=epochs, batch_size=8, seed=3)
        except KeyboardInterrupt:
            continue
    return run, strategy


class Killed:
    """A strategy that raises KeyboardInterrupt after a number of steps, like a killed process."""

    def __init__(self, strategy, after):
        self.strategy, self.steps_left = strategy, after

    def __getattr__(self, name):
        return getattr(self.strategy, name)

    def step(self, batch, progress):
        self.steps_left -= 1
        if self.steps_left < 0:
            raise KeyboardInterrupt
        return self.strategy.step(batch, progress)


@pytest.mark.slow
def test_a_resumed_run_reaches_the_same_weights(tmp_path):
    whole, first = train_run(tmp_path / "whole", 5)
    resumed, second = train_run(tmp_path / "resumed", 5, stop=2)
    for name, value in first.weights().items():
        assert torch.equal(value, second.weights()[name]), name
    assert whole.epochs == resumed.epochs == [1, 2, 3, 4, 5]
    for epoch in whole.epochs:
        np.testing.assert_array_equal(whole.predictions(epoch)["test"], resumed.predictions(epoch)["test"])
    assert [line["loss"] for line in whole.log()] == [line["loss"] for line in resumed.log()]


def test_training_learns_separable_emotions(tmp_path):
    run, _ = train_run(tmp_path, 30, config=SupervisedConfig(learning_rate=1e-2))
    assert (run.predictions(30)["test"].argmax(axis=1) == run.labels("test")).mean() > 0.85
    assert run.log()[-1]["loss"] < run.log()[0]["loss"]


def test_predictions_are_in_the_order_of_the_split(tmp_path):
    run, strategy = train_run(tmp_path, 1)
    test = corpus(9, seed=1)
    one_by_one = [strategy.predict(test.batch([index]))[0].numpy() for index in range(len(test))]
    np.testing.assert_allclose(run.predictions(1)["test"], np.stack(one_by_one), atol=1e-5)


@pytest.mark.slow
def test_only_weights_that_a_rule_can_select_are_kept(tmp_path):
    run, _ = train_run(tmp_path, 5)
    kept = {int(path.stem) for path in (run.folder / "weights").glob("*.safetensors")}
    assert kept == {select_epoch(run, "last"), select_epoch(run, "paper")}


# Early stopping

NO_PROGRESS = SupervisedConfig(learning_rate=1e-9, averaging=0.9)  # no epoch is better than the first


def train_with_patience(folder, *, patience=2, epochs=9, killed_after=None, config=NO_PROGRESS, metric="UA"):
    """Train with early stopping on a validation subset; with `killed_after`, kill it after as many steps and resume."""
    train, test, validation = corpus(), corpus(9, seed=1), corpus(9, seed=2)
    for after in [killed_after, None] if killed_after else [None]:
        run = start(folder, train, test, validation=validation)
        strategy = Supervised(small_model(), config)
        killable = strategy if after is None else Killed(strategy, after)
        scored = {"test": test, "validation": validation}
        with contextlib.suppress(KeyboardInterrupt), logged() as messages:
            stopping = {"patience": patience, "patience_metric": metric}
            fit(killable, train, scored, run, epochs=epochs, batch_size=8, seed=3, **stopping)
    return run, strategy, messages


def test_training_stops_when_the_validation_score_no_longer_improves(tmp_path):
    run, _, messages = train_with_patience(tmp_path)
    assert run.epochs == [1, 2, 3]
    assert messages[-1] == "no better UA on the validation subset for 2 epochs: stopped after epoch 3"
    assert train_with_patience(tmp_path)[0].epochs == [1, 2, 3]  # a second call does nothing


@pytest.mark.slow
def test_patience_is_counted_across_a_resumed_run(tmp_path):
    whole, first, _ = train_with_patience(tmp_path / "whole", patience=3)
    resumed, second, _ = train_with_patience(tmp_path / "resumed", patience=3, killed_after=5)
    assert whole.epochs == resumed.epochs == [1, 2, 3, 4]
    for name, value in first.weights().items():
        assert torch.equal(value, second.weights()[name]), name


@pytest.mark.slow
def test_training_stops_exactly_when_patience_is_exhausted(tmp_path):
    run, _, _ = train_with_patience(tmp_path, patience=6, epochs=25, config=SupervisedConfig(learning_rate=1e-2))
    epochs_without_improvement = [epoch - select_until(run, epoch) for epoch in run.epochs]
    assert len(run.epochs) > 8
    assert max(epochs_without_improvement[:-1]) < 6
    assert epochs_without_improvement[-1] == 6 or run.epochs[-1] == 25


OVERFITTING = SupervisedConfig(learning_rate=1e-1)  # the loss on the validation subset rises after some epochs


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "words"), [("loss", "lower loss"), ("WF1", "better WF1")])
def test_training_stops_by_the_metric_that_the_recipe_names(tmp_path, metric, words):
    run, _, messages = train_with_patience(tmp_path, patience=3, epochs=40, config=OVERFITTING, metric=metric)
    scores = [validation_score(run, epoch, metric) for epoch in run.epochs]
    best = int(np.argmax(scores))  # the first of equal ones
    assert len(scores) == best + 1 + 3
    assert messages[-1].startswith(f"no {words} on the validation subset for 3 epochs")


def validation_score(run, epoch, metric):
    """Return the WF1 or the negative loss on the validation subset; a plain reference implementation."""
    probabilities, labels = run.predictions(epoch)["validation"], run.labels("validation")
    if metric == "loss":
        return float(
            np.mean([np.log(max(row[label], 1e-38)) for row, label in zip(probabilities, labels, strict=True)])
        )
    return sklearn.metrics.f1_score(labels, probabilities.argmax(axis=1), average="weighted", zero_division=0)


def select_until(run, last):
    """Return the epoch with the best validation UA up to epoch `last`; a plain reference implementation."""
    scores = {}
    for epoch in range(1, last + 1):
        correct = run.predictions(epoch)["validation"].argmax(axis=1) == run.labels("validation")
        scores[epoch] = np.mean([correct[run.labels("validation") == label].mean() for label in range(3)])
    return max(scores, key=lambda epoch: (scores[epoch], -epoch))


@pytest.mark.slow
def test_predictions_without_a_checkpoint_are_discarded_on_resuming(tmp_path):
    whole, _, _ = train_with_patience(tmp_path / "whole")
    run, _, _ = train_with_patience(tmp_path / "resumed", epochs=1)
    ghost = run.folder / "predictions" / "0007.npz"
    ghost.write_bytes((run.folder / "predictions" / "0001.npz").read_bytes())
    resumed, _, _ = train_with_patience(tmp_path / "resumed")
    assert resumed.epochs == whole.epochs == [1, 2, 3]
    assert all(run.weights_path(select_epoch(run, rule)).is_file() for rule in ("last", "validation", "paper"))


# Scores on the training subset


@pytest.mark.slow
def test_scores_on_the_training_subset_are_logged_on_request_and_change_nothing(tmp_path):
    logs, weights = {}, {}
    for name, score_train in (("without", False), ("with", True)):
        train, test = replace(corpus(), crop=0.5), corpus(9, seed=1)
        run, strategy = start(tmp_path / name, train, test), Supervised(small_model(), EVERY_SETTING)
        fit(strategy, train, {"test": test}, run, epochs=3, batch_size=8, seed=3, score_train=score_train)
        logs[name], weights[name] = run.log(), strategy.weights()
    scores = {"train_loss", "train_UA", "train_WA", "train_WF1"}
    assert all(not scores & set(line) for line in logs["without"])
    assert all(torch.equal(value, weights["with"][name]) for name, value in weights["without"].items())
    whole = corpus()
    probabilities = torch.cat([strategy.predict(whole.batch([index])) for index in range(len(whole))]).numpy()
    predicted, line = probabilities.argmax(axis=1), logs["with"][-1]
    expected = [
        -np.mean([np.log(row[label]) for row, label in zip(probabilities, whole.labels, strict=True)]),
        sklearn.metrics.balanced_accuracy_score(whole.labels, predicted),
        sklearn.metrics.accuracy_score(whole.labels, predicted),
        sklearn.metrics.f1_score(whole.labels, predicted, average="weighted", zero_division=0),
    ]
    measured = [line[f"train_{name}"] for name in ("loss", "UA", "WA", "WF1")]
    np.testing.assert_allclose(measured, expected, rtol=1e-4)


# The test subset


@pytest.mark.slow
def test_labels_of_the_test_subset_affect_only_the_rule_paper(tmp_path):
    """Training and the other selection rules are bit-identical with wrong labels in the test subset."""
    selected, weights = {}, {}
    for name, shift in (("right", 0), ("wrong", 1)):
        train, test, validation = corpus(), corpus(9, seed=1), corpus(9, seed=2)
        test = replace(test, labels=(test.labels + shift) % 3)
        run = start(tmp_path / name, train, test, validation=validation)
        strategy = Supervised(small_model(), SupervisedConfig(learning_rate=1e-2))
        scored = {"test": test, "validation": validation}
        fit(strategy, train, scored, run, epochs=12, batch_size=8, seed=3, patience=8)
        selected[name] = {rule: select_epoch(run, rule) for rule in ("last", "validation", "paper")}
        weights[name] = strategy.weights()
    assert all(torch.equal(value, weights["wrong"][name]) for name, value in weights["right"].items())
    assert selected["right"]["last"] == selected["wrong"]["last"]
    assert selected["right"]["validation"] == selected["wrong"]["validation"]
    assert selected["right"]["paper"] != selected["wrong"]["paper"]


@pytest.mark.slow
def test_the_log_line_of_an_epoch_has_no_test_score(tmp_path):
    _, _, messages = train_with_patience(tmp_path, patience=0, epochs=10)
    pattern = r"epoch [ \d]\d/10  loss \d\.\d{3}  validation UA +\d+\.\d%  \d+\.\d s(, \d+ s left)?"
    assert len(messages) == 10
    assert all(re.fullmatch(pattern, line) for line in messages)
    assert "left" not in messages[-1]


def test_divergence_raises_an_error_with_advice(tmp_path):
    train, test = corpus(), corpus(9, seed=1)
    train.features["speech"][5][:] = np.inf
    strategy = Supervised(small_model(), SupervisedConfig())
    with pytest.raises(BadConfig, match=r"training diverged at epoch 1 .*; try a lower learning_rate"):
        fit(strategy, train, {"test": test}, start(tmp_path, train, test), epochs=1, batch_size=8, seed=3)


def test_a_balanced_epoch_has_every_emotion_equally_often():
    labels = np.array([0] * 18 + [1] * 4 + [2] * 2)
    data = replace(corpus(), labels=labels)
    epoch, batches = prepare_epoch(data, 3, 1, 8, sampling="balanced")
    assert np.bincount(epoch.labels[np.concatenate(batches)]).tolist() == [8, 8, 8]
    plain = np.concatenate(prepare_epoch(data, 3, 1, 8)[1])
    assert sorted(plain) == list(range(24))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"mixup": 0.0},
        {"weight_decay": 0.0},
        {"label_smoothing": 0.0},
        {"clip": 0.0},
        {"averaging": 0.0},
        {"cosine": False},
        {"warmup": 0.0},
    ],
)
def test_every_setting_has_an_effect(tmp_path, change):
    _, original = train_run(tmp_path / "original", 1)
    _, other = train_run(tmp_path / "other", 1, config=replace(EVERY_SETTING, **change))
    assert any(not torch.equal(value, other.weights()[name]) for name, value in original.weights().items())


DDP = """
import torch, sys
from pathlib import Path
from affekt.training.distributed import processes, wrap_ddp
from affekt.training.loop import fit
from affekt.training.supervised import Supervised, SupervisedConfig
from tests.training.test_loop import corpus, small_model, start

torch.set_num_threads(1)

def work(rank, world):
    assert world == 2
    train, test = corpus(), corpus(9, seed=1)
    run = start(Path(sys.argv[1]), train, test)
    model = small_model()
    strategy = Supervised(model, SupervisedConfig(learning_rate=1e-2), forward=wrap_ddp(model))
    fit(strategy, train, {"test": test}, run, epochs=2, batch_size=4, seed=3, rank=rank, world=world)
    total = torch.cat([p.detach().flatten() for p in model.parameters()])
    both = [torch.zeros_like(total) for _ in range(2)]
    torch.distributed.all_gather(both, total)
    assert torch.equal(both[0], both[1]), "the processes' weights differ"

with processes() as (rank, world):
    work(rank, world)
"""


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    start(tmp_path / "run", corpus(), corpus(9, seed=1))
    root = Path(__file__).parents[2]
    python_path = os.pathsep.join([str(root), str(root / "src")])
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert Run(tmp_path / "run").epochs == [1, 2]
