"""The loop: what is killed goes on to the very same weights, and several processes train one model."""

import contextlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affekt.errors import BadConfig
from affekt.models import models
from affekt.models.base import FeatureSpec
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.runs.selection import select_epoch
from affekt.training.dataset import Dataset
from affekt.training.loop import drawn, fit
from affekt.training.supervised import Supervised, SupervisedConfig
from tests.logs import logged

EMOTIONS = ("angry", "happy", "sad")
BUSY = SupervisedConfig(
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
    """Utterances whose emotion is the place of a raised feature."""
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
    parts = {part: tuple(f"{part}/{i}" for i in data.ids) for part, data in scored.items()}
    split = Split("made", {"train": tuple(train.ids), **parts}, True)
    labels = dict(zip(split.subsets["train"], train.labels.tolist(), strict=True))
    for part, data in scored.items():
        labels |= dict(zip(split.subsets[part], data.labels.tolist(), strict=True))
    return Run.start(folder, {"name": "made"}, split, EMOTIONS, labels)


def trained(folder, epochs, *, stop=None, config=BUSY):
    """Train in one go, or in two with everything but the run folder forgotten in between."""
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
    """A strategy whose process dies in the middle of an epoch."""

    def __init__(self, strategy, after):
        self.strategy, self.left = strategy, after

    def __getattr__(self, name):
        return getattr(self.strategy, name)

    def step(self, batch, progress):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.strategy.step(batch, progress)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    whole, first = trained(tmp_path / "whole", 5)
    broken, second = trained(tmp_path / "broken", 5, stop=2)
    for name, value in first.weights().items():
        assert torch.equal(value, second.weights()[name]), name
    assert whole.epochs == broken.epochs == [1, 2, 3, 4, 5]
    for epoch in whole.epochs:
        np.testing.assert_array_equal(whole.predictions(epoch)["test"], broken.predictions(epoch)["test"])
    assert [line["loss"] for line in whole.log()] == [line["loss"] for line in broken.log()]


def test_it_learns_what_can_be_learnt(tmp_path):
    run, _ = trained(tmp_path, 30, config=SupervisedConfig(learning_rate=1e-2))
    assert (run.predictions(30)["test"].argmax(axis=1) == run.labels("test")).mean() > 0.85
    assert run.log()[-1]["loss"] < run.log()[0]["loss"]


def test_predictions_stand_in_the_order_of_the_split(tmp_path):
    run, strategy = trained(tmp_path, 1)
    test = corpus(9, seed=1)
    one_by_one = [strategy.predict(test.batch([index]))[0].numpy() for index in range(len(test))]
    np.testing.assert_allclose(run.predictions(1)["test"], np.stack(one_by_one), atol=1e-5)


def test_only_weights_that_a_rule_can_choose_are_kept(tmp_path):
    run, _ = trained(tmp_path, 5)
    kept = {int(path.stem) for path in (run.folder / "weights").glob("*.safetensors")}
    assert kept == {select_epoch(run, "last"), select_epoch(run, "paper")}


def test_a_run_folder_is_not_taken_up_by_another_recipe(tmp_path):
    run, _ = trained(tmp_path, 1)
    with pytest.raises(BadConfig, match=r"holds a run with other settings \(name\)"):
        Run.start(tmp_path, {"name": "other"}, run.split, EMOTIONS, {})
    other = replace(run.split, subsets={"train": ("a",), "test": ("b",)})
    with pytest.raises(BadConfig, match="holds a run with other utterances or another split"):
        Run.start(tmp_path, {"name": "made"}, other, EMOTIONS, {})


# Early stopping

HOPELESS = SupervisedConfig(learning_rate=1e-9, averaging=0.9)  # no epoch is better than the first


def stopped(folder, *, patience=2, epochs=9, killed_after=None, config=HOPELESS):
    """Train with a validation part; `killed_after` steps the process dies, and another goes on."""
    train, test, validation = corpus(), corpus(9, seed=1), corpus(9, seed=2)
    for after in [killed_after, None] if killed_after else [None]:
        run = start(folder, train, test, validation=validation)
        strategy = Supervised(small_model(), config)
        asked = strategy if after is None else Killed(strategy, after)
        scored = {"test": test, "validation": validation}
        with contextlib.suppress(KeyboardInterrupt), logged() as messages:
            fit(asked, train, scored, run, epochs=epochs, batch_size=8, seed=3, patience=patience)
    return run, strategy, messages


def test_training_ends_when_validation_no_longer_betters(tmp_path):
    run, _, messages = stopped(tmp_path)
    assert run.epochs == [1, 2, 3]
    assert messages[-1] == "no better UA on the validation subset for 2 epochs: stopped after epoch 3"
    assert stopped(tmp_path)[0].epochs == [1, 2, 3]  # asked again, it does nothing


def test_patience_outlasts_a_kill(tmp_path):
    whole, first, _ = stopped(tmp_path / "whole", patience=3)
    broken, second, _ = stopped(tmp_path / "broken", patience=3, killed_after=5)
    assert whole.epochs == broken.epochs == [1, 2, 3, 4]
    for name, value in first.weights().items():
        assert torch.equal(value, second.weights()[name]), name


def test_training_goes_on_exactly_as_long_as_patience_says(tmp_path):
    run, _, _ = stopped(tmp_path, patience=6, epochs=25, config=SupervisedConfig(learning_rate=1e-2))
    waited = [epoch - select_until(run, epoch) for epoch in run.epochs]
    assert len(run.epochs) > 8
    assert max(waited[:-1]) < 6
    assert waited[-1] == 6 or run.epochs[-1] == 25


def select_until(run, last):
    """The best epoch by the validation part among the first ones, by hand."""
    scores = {}
    for epoch in range(1, last + 1):
        right = run.predictions(epoch)["validation"].argmax(axis=1) == run.labels("validation")
        scores[epoch] = np.mean([right[run.labels("validation") == label].mean() for label in range(3)])
    return max(scores, key=lambda epoch: (scores[epoch], -epoch))


def test_a_kill_between_predictions_and_checkpoint_leaves_no_ghost(tmp_path):
    whole, _, _ = stopped(tmp_path / "whole")
    run, _, _ = stopped(tmp_path / "broken", epochs=1)
    ghost = run.folder / "predictions" / "0007.npz"
    ghost.write_bytes((run.folder / "predictions" / "0001.npz").read_bytes())
    broken, _, _ = stopped(tmp_path / "broken")
    assert broken.epochs == whole.epochs == [1, 2, 3]
    assert all(run.weights_path(select_epoch(run, rule)).is_file() for rule in ("last", "validation", "paper"))


# The test part


def test_the_test_parts_labels_decide_nothing_but_the_papers_rule(tmp_path):
    """Training and honest selection are the same to the last bit whatever the labels of the test part are."""
    chosen, weights = {}, {}
    for name, turn in (("right", 0), ("wrong", 1)):
        train, test, validation = corpus(), corpus(9, seed=1), corpus(9, seed=2)
        test = replace(test, labels=(test.labels + turn) % 3)
        run = start(tmp_path / name, train, test, validation=validation)
        strategy = Supervised(small_model(), SupervisedConfig(learning_rate=1e-2))
        scored = {"test": test, "validation": validation}
        fit(strategy, train, scored, run, epochs=12, batch_size=8, seed=3, patience=8)
        chosen[name] = {rule: select_epoch(run, rule) for rule in ("last", "validation", "paper")}
        weights[name] = strategy.weights()
    assert all(torch.equal(value, weights["wrong"][name]) for name, value in weights["right"].items())
    assert chosen["right"]["last"] == chosen["wrong"]["last"]
    assert chosen["right"]["validation"] == chosen["wrong"]["validation"]
    assert chosen["right"]["paper"] != chosen["wrong"]["paper"]


def test_an_epochs_line_fits_the_terminal_and_does_not_tell_the_test_score(tmp_path):
    _, _, messages = stopped(tmp_path, patience=0, epochs=10)
    pattern = r"epoch [ \d]\d/10  loss \d\.\d{3}  validation UA +\d+\.\d%  \d+\.\d s(, \d+ s left)?"
    assert len(messages) == 10
    assert all(re.fullmatch(pattern, line) for line in messages)
    assert "left" not in messages[-1]


def test_a_training_that_comes_apart_says_so(tmp_path):
    train, test = corpus(), corpus(9, seed=1)
    train.features["speech"][5][:] = np.inf
    strategy = Supervised(small_model(), SupervisedConfig())
    with pytest.raises(BadConfig, match=r"training diverged at epoch 1 .*; try a lower learning_rate"):
        fit(strategy, train, {"test": test}, start(tmp_path, train, test), epochs=1, batch_size=8, seed=3)


def test_balanced_epochs_are_heard_by_the_loop():
    labels = np.array([0] * 18 + [1] * 4 + [2] * 2)
    data = replace(corpus(), labels=labels)
    heard, order = drawn(data, 3, 1, 8, sampling="balanced")
    assert np.bincount(heard.labels[np.concatenate(order)]).tolist() == [8, 8, 8]
    plain = np.concatenate(drawn(data, 3, 1, 8)[1])
    assert sorted(plain) == list(range(24))


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
    _, usual = trained(tmp_path / "usual", 1)
    _, other = trained(tmp_path / "other", 1, config=replace(BUSY, **change))
    assert any(not torch.equal(value, other.weights()[name]) for name, value in usual.weights().items())


DDP = """
import torch, sys
from pathlib import Path
from affekt.training.distributed import processes, shared
from affekt.training.loop import fit
from affekt.training.supervised import Supervised, SupervisedConfig
from tests.training.test_loop import corpus, small_model, start

torch.set_num_threads(1)

def work(rank, world):
    assert world == 2
    train, test = corpus(), corpus(9, seed=1)
    run = start(Path(sys.argv[1]), train, test)
    model = small_model()
    strategy = Supervised(model, SupervisedConfig(learning_rate=1e-2), forward=shared(model))
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
    assert Run(tmp_path / "run").epochs == [1, 2]


def test_an_epoch_that_has_predictions_has_its_line_in_the_log(tmp_path, monkeypatch):
    """Wherever a kill falls: predictions come last."""
    train, test = corpus(), corpus(6, 1)
    run = start(tmp_path / "run", train, test)
    answers = {"test": np.full((6, 3), 1 / 3, np.float32)}

    def killed(*_):
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr("affekt.runs.folder.atomic_write_text", killed)
        with pytest.raises(InterruptedError):
            run.record(1, answers, {"loss": 1.0})
    assert run.epochs == []
    run.record(1, answers, {"loss": 1.0})
    assert (run.epochs, len(run.log())) == ([1], 1)
