"""The loop: what is killed goes on to the very same weights, and several processes train one model."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from affekt.data import Dataset
from affekt.evaluation.selection import select
from affekt.models import models
from affekt.models.base import FeatureSpec
from affekt.protocols import Split
from affekt.run import Run
from affekt.training.loop import fit
from affekt.training.strategy import Supervised, SupervisedConfig

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


def start(folder, train, test):
    split = Split("made", {"train": tuple(train.ids), "test": tuple(f"t{i}" for i in test.ids)}, True)
    labels = dict(zip(split.parts["train"], train.labels.tolist(), strict=True))
    labels |= dict(zip(split.parts["test"], test.labels.tolist(), strict=True))
    return Run.start(folder, {"name": "made"}, split, EMOTIONS, labels)


def trained(folder, epochs, *, stop=None, config=BUSY):
    """Train in one go, or in two with everything but the run folder forgotten in between."""
    train, test = corpus(), corpus(9, seed=1)
    for end in [stop, epochs] if stop else [epochs]:
        run = start(folder, train, test)
        strategy = Supervised(small_model(), config)
        if end == stop:
            strategy = Killed(strategy, after=stop * 3 + 1)
        try:
            fit(strategy, train, {"test": test}, run, epochs=epochs, batch_size=8, seed=3, say=lambda _: None)
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
    assert kept == {select(run, "last"), select(run, "paper")}


def test_a_run_folder_is_not_taken_up_by_another_recipe(tmp_path):
    run, _ = trained(tmp_path, 1)
    with pytest.raises(ValueError, match="holds a run with other settings or another split"):
        Run.start(tmp_path, {"name": "other"}, run.split, EMOTIONS, {})


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
from affekt.training.strategy import Supervised, SupervisedConfig
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
