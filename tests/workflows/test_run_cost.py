"""`affekt compare --cost`: the cost of a trained experiment, its encoder apart."""

from types import SimpleNamespace

import pytest

from affekt.runs.groups import Fold, RunGroup
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe
from affekt.workflows.fit_run import start_run
from affekt.workflows.run_cost import run_cost
from affekt.workflows.training_data import TrainingData
from tests.synthetic import environment_set, make_data_root


@pytest.fixture
def root(tmp_path):
    make_data_root(tmp_path)
    with environment_set(tmp_path):
        yield tmp_path


def make_group(root, name, *settings):
    recipe = load_recipe(str(root / "made.toml"), list(settings))
    plan, data = resolve(recipe), TrainingData.read(recipe)
    ((_, split),) = data.folds(plan)
    run = start_run(plan, root / name, 0, split, data)
    return RunGroup(run.config, {1: [Fold(run, split)]})


@pytest.mark.slow
def test_the_encoder_is_counted_apart_from_the_model(root, monkeypatch):
    whisper = run_cost(make_group(root, "whisper"))
    assert whisper.latency_ms > 0
    # A process of its own, for seconds, measures the time; once is enough.
    monkeypatch.setattr("affekt.workflows.run_cost.measure", lambda *_: SimpleNamespace(latency_ms=None))
    wide = run_cost(make_group(root, "wide", "model.feedforward=64"))
    log_mel = run_cost(make_group(root, "log-mel", 'features={speech={name="log-mel"}}', "probes=[]"))
    assert wide.encoder_parameters == whisper.encoder_parameters > 0
    assert wide.encoder_flops == whisper.encoder_flops > 0
    # One feedforward network of 16 -> n -> 16 in its only block: 48 more units, each with 2 * 16 weights and a bias.
    assert wide.parameters - whisper.parameters == 48 * (2 * 16 + 1)
    assert wide.flops > whisper.flops > 0
    assert log_mel.encoder_parameters == 0
    assert log_mel.encoder_flops > 0  # the mel filters are a matrix product
    assert list(whisper.cells) == ["parameters", "FLOPs", "ms", "encoder parameters", "encoder FLOPs", "encoder ms"]
