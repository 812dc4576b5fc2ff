"""From a run folder to model, batches and predictions, and the figures that are drawn from them."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import affekt
from affekt.cli import app
from affekt.errors import BadConfig, BadCorpus, UnknownName
from affekt.models import models
from affekt.reports.figures import KINDS
from affekt.training.recipe import load_recipe
from affekt.workflows.examples import Example, attention_figures, scales_figure
from affekt.workflows.model_figures import _count_operations
from affekt.workflows.plot import FIGURES, draw_figures
from affekt.workflows.train import train
from affekt.workflows.trained_run import TrainedRun
from tests.contracts.builders import synthetic_batch, tiny

pytestmark = pytest.mark.slow  # its fixtures train

CLIP = "1005_DFA_ANG_XX"


@pytest.fixture(scope="module")
def run(workspace):
    train(load_recipe(str(workspace / "made.toml"), ["repeats=2", "training.epochs=2"]), workspace / "run")
    return affekt.open_run(workspace / "run")


@torch.inference_mode()
def test_model_and_batches_give_the_recorded_predictions(run):
    assert isinstance(run, TrainedRun)
    for subset in ("test", "validation"):
        batches = list(run.batches(subset, size=7))
        probabilities = torch.cat([run.model()(batch).softmax(dim=1) for batch in batches]).numpy()
        np.testing.assert_allclose(probabilities, run.predictions(subset), atol=1e-5)
        assert [key for batch in batches for key in batch.ids] == list(run.keys(subset))
        assert torch.cat([batch.labels for batch in batches]).tolist() == run.run.labels(subset).tolist()


def test_an_utterance_is_found_by_id_key_and_file_name(run):
    utterance = run.find(CLIP)
    assert utterance is run.find(f"cremad/{CLIP}") is run.find(f"{CLIP}.wav")
    assert run.batch(utterance).ids == (f"cremad/{CLIP}",)
    with pytest.raises(BadCorpus, match="nothing: no utterance of this name"):
        run.find("nothing")


def test_what_a_run_lacks_is_refused(run, tmp_path):
    with pytest.raises(BadConfig, match="no subset 'dev'"):
        run.keys("dev")
    with pytest.raises(BadConfig, match="no predictions on 'train'"):
        run.predictions("train")
    with pytest.raises(BadConfig, match="contains no run"):
        affekt.open_run(tmp_path)


def test_every_kind_of_figure_is_in_the_help_and_can_be_drawn():
    assert set(FIGURES) == set(KINDS)


@pytest.mark.parametrize("kind", ["confusion", "curves", "reliability", "coverage", "pca"])
def test_figures_of_runs_are_drawn(run, kind, workspace):  # noqa: ARG001 (the run must exist)
    (figure,) = draw_figures(kind, [str(workspace / "run")])
    assert "<svg" in figure.svg()
    assert figure.caption


def test_the_command_writes_files_and_names_them(run, workspace, tmp_path):  # noqa: ARG001 (the run must exist)
    result = CliRunner().invoke(
        app,
        ["plot", "scales", str(workspace / "run"), CLIP, "--output", str(tmp_path / "s.png")],
        catch_exceptions=False,
    )
    assert result.stdout.split() == [str(tmp_path / "s.png")]
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_has_the_figures_of_models_but_no_text_of_the_corpus(run, workspace, tmp_path):  # noqa: ARG001
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["report", str(workspace / "run"), "--output", str(page)], catch_exceptions=False)
    assert result.exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert all(title in text for title in ("t-SNE, made", "PCA, made", "scale 0 (finest)", "Learning curves, made"))
    assert "forget a jacket" not in text
    assert "<audio" not in text


@pytest.mark.parametrize(
    ("kind", "sources", "error", "message"),
    [
        ("confusoin", ["x"], UnknownName, "did you mean 'confusion'"),
        ("attention", ["x"], BadConfig, "takes RUN CLIP or BUNDLE FILE, but got x"),
        ("attention", ["nowhere", "x"], BadConfig, "nowhere not found"),
    ],
)
def test_wrong_arguments_are_refused(kind, sources, error, message):
    with pytest.raises(error, match=message):
        draw_figures(kind, sources)


def test_a_model_without_attention_or_a_setting_that_varies_says_so(run, workspace):  # noqa: ARG001
    with pytest.raises(BadConfig, match="no attention weights between frames: try affekt plot scales"):
        draw_figures("attention", [str(workspace / "run"), CLIP])
    with pytest.raises(BadConfig, match="no setting of a model varies"):
        draw_figures("sweep", [str(workspace / "run")])


@pytest.mark.parametrize("name", [name for name in models if models[name].explained_attention])
def test_every_explained_attention_is_drawn_with_its_streams(name):
    model = tiny(name)
    example = Example("clip", model, synthetic_batch(model, [9]), "", np.zeros(16_000, np.float32))
    figures = attention_figures(example, "t")
    shown = {figure.title.removeprefix("t: ").replace(" ", "_") for figure in figures}
    assert shown <= set(model.explained_attention)
    for figure in figures:
        attention = model.explained_attention[figure.title.removeprefix("t: ").replace(" ", "_")]
        panel = next(axes for axes in figure.drawing.axes if axes.images)
        assert panel.get_xlabel().startswith(f"keys: {attention.keys}")
        assert panel.get_ylabel().startswith(f"queries: {attention.queries}")
    with pytest.raises(BadConfig, match="no attention 'none'"):
        attention_figures(example, "t", only="none")


def test_fractions_of_scales_are_drawn_only_for_models_that_have_some():
    model = tiny("mstr")
    example = Example("clip", model, synthetic_batch(model, [9]), "", None)
    assert scales_figure(example, "t").title == "t"
    model = tiny("vanilla")
    assert scales_figure(Example("clip", model, synthetic_batch(model, [9]), "", None), "t") is None


def test_a_waveform_is_drawn_only_if_its_frames_are_all_there():
    model = tiny("mstr")
    batch = synthetic_batch(model, [50])
    seconds = 50 / batch.streams["speech"].frame_rate
    for extra, num_panels in ((0.0, 1), (1.0, 0)):
        waveform = np.zeros(round((seconds + extra) * 16_000), np.float32)
        figure = scales_figure(Example("clip", model, batch, "", waveform), "t")
        assert len(figure.drawing.axes) == model.config.blocks + num_panels


@pytest.mark.parametrize("name", models)
def test_the_operations_of_every_model_are_counted(name):
    model = tiny(name)
    batch = synthetic_batch(model, [9])
    assert _count_operations(Example("clip", model, batch, "", None)) > 0
