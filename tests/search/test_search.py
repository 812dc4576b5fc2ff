"""`search`: small but real searches from a recipe to bundles; resumption, workers, jobs, and checks of search recipes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from affekt.bundle.export import export_onnx
from affekt.bundle.folder import Bundle
from affekt.corpora.source import Source, read_all
from affekt.errors import AffektError, BadConfig, Diverged
from affekt.inference.recognizer import Recognizer
from affekt.models.emotionnas.genotypes import Genotype
from affekt.runs.selection import select_epoch
from affekt.search.folder import Search, searches_in
from affekt.search.plan import check_search
from affekt.search.recipe import load_search, shipped_searches
from affekt.search.report.page import search_page
from affekt.search.search import SearchUnit, _spectrogram_job, bundles_of, search
from affekt.training.checkpoint import load_state
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe, recipe_of
from affekt.workflows import training_data
from affekt.workflows.evaluate import evaluate
from affekt.workflows.job import Job
from affekt.workflows.jobs import LocalLauncher, WorkerLauncher
from affekt.workflows.train import train
from tests.commands import affekt
from tests.conftest import shapes_unchecked
from tests.corpora.trees import iemocap_turn, write_noise
from tests.logs import logged
from tests.search.settings import SEARCH
from tests.synthetic import environment_set, make_cremad, quick_export

pytestmark = pytest.mark.slow  # its fixtures train and export


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of the synthetic corpus, the search recipe and all searches."""
    root = tmp_path_factory.mktemp("search")
    make_cremad(root)
    (root / "small-search.toml").write_text(SEARCH)
    with environment_set(root) as patch:
        patch.setattr(
            "affekt.evaluation.bootstrap.DRAWS", 50
        )  # fewer bootstrap draws: a search writes its page four times
        yield root


def load_small_search(root, *assignments):
    return load_search(str(root / "small-search.toml"), list(assignments))


@pytest.fixture(scope="module")
def log():
    """The messages that the search of `finished` logs."""
    with logged() as messages:
        yield messages


@pytest.fixture(scope="module")
def finished(root, log):  # noqa: ARG001 (logged)
    """A finished search with bundles. Only that of the fusion, which contains both branches, has its real graph."""

    def export(pipeline, *arguments, **options):
        is_fusion = bool(pipeline.first.submodules)
        (export_onnx if is_fusion else quick_export)(pipeline, *arguments, **options)

    with shapes_unchecked(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("affekt.workflows.make_bundle.export_onnx", export)
        (finished,) = search(load_small_search(root), root / "run")
    return finished


def weights_of(search):
    """Return, for each run of a search, the weights of its last epoch."""
    folders = sorted(path.parent for path in search.folder.rglob("checkpoint.safetensors"))
    return {
        str(folder.relative_to(search.folder)): load_state(max((folder / "weights").glob("*.safetensors")))
        for folder in folders
    }


def assert_equal_searches(first, second):
    first_weights, second_weights = weights_of(first), weights_of(second)
    assert first_weights.keys() == second_weights.keys()
    for run, weights in first_weights.items():
        for name, tensor in weights.items():
            assert tensor.equal(second_weights[run][name]), f"{run}: {name}"


@pytest.mark.slow
def test_all_three_stages_have_runs(finished):
    for names in (("spectrogram", "search"), ("spectrogram", "found"), ("fusion",)):
        assert set(finished.run(*names).predictions(2)) == {"test", "validation"}
    assert list(finished.runs("spectrogram", "random")) == ["01"]
    assert len(finished.runs("recurrent", "candidates")) == 3
    assert list(finished.runs("recurrent", "known")) == ["gru"]
    assert len(finished.runs("recurrent", "random")) == 1


def test_the_log_has_the_alphas_after_every_epoch(finished):
    log = finished.run("spectrogram", "search").log()
    assert [np.shape(line["alphas"]["normal"]) for line in log] == [(5, 8), (5, 8)]
    assert log[0]["alphas"] != log[1]["alphas"]
    assert all(line["seconds"] > 0 and "alpha_loss" in line for line in log)


def test_the_derived_network_has_the_found_genotype(finished):
    last = finished.run("spectrogram", "search").log()[-1]
    genotype = Genotype.from_json(finished.genotype_path.read_text())
    assert genotype == Genotype.from_dict(last["genotype"])
    assert Genotype.from_dict(finished.run("spectrogram", "found").config["model"]["genotype"]) == genotype


def test_halving_keeps_the_candidates_with_the_lowest_losses(finished):
    rounds = finished.rounds
    assert [(r.epochs, len(r.losses), len(r.kept)) for r in rounds] == [(1, 3, 2), (2, 2, 1), (3, 1, 1)]
    for finished_round in rounds:
        losses = dict(finished_round.losses)
        kept_losses = [losses.pop(name) for name in finished_round.kept]
        assert max(kept_losses) <= min(losses.values(), default=np.inf)
    epochs = {name: run.epochs[-1] for name, run in finished.runs("recurrent", "candidates").items()}
    assert sorted(epochs.values()) == [1, 2, 3]
    assert epochs[finished.selected_candidate] == 3
    assert json.loads(finished.recurrent_recipe_path.read_text())["name"] == finished.selected_candidate


def test_the_fusion_has_the_weights_of_the_selected_epochs_of_both_branches(finished):
    run = finished.run("fusion")
    weights = load_state(run.weights_path(run.epochs[-1]))
    for branch, branch_run in (
        ("spectrogram", finished.run("spectrogram", "found")),
        ("recurrent", finished.run("recurrent", "candidates", finished.selected_candidate)),
    ):
        for name, tensor in load_state(branch_run.weights_path(select_epoch(branch_run, "validation"))).items():
            assert tensor.equal(weights[f"{branch}.{name}"]), name


def test_the_bundles_recognize_a_clip(finished, root):
    assert [bundle.folder.name for bundle in bundles_of(finished)] == ["fusion", "recurrent", "spectrogram"]
    clip = root / "cremad" / "AudioWAV" / "1005_DFA_ANG_XX.wav"
    for bundle in bundles_of(finished):
        row = Recognizer.load(bundle.folder)(clip)
        assert sum(row.probabilities.values()) == pytest.approx(1, abs=1e-4)


def test_the_bundle_of_the_fusion_scores_like_its_run(finished):
    bundle = Bundle.open(finished.folder / "bundles" / "fusion")
    run = finished.run("fusion")
    predictions = run.predictions(select_epoch(run, run.config["selection"]))["test"]
    accuracy = (predictions.argmax(axis=1) == run.labels("test")).mean()
    assert evaluate(bundle.folder, Source.parse("cremad")).scores.WA.value == pytest.approx(accuracy, abs=0.05)


def test_the_page_has_drawings_and_a_table_and_loads_nothing(finished):
    """The drawings of found cells and alphas are well-formed SVG, and no image, script or style is loaded from elsewhere."""
    text = (finished.folder / "page.html").read_text(encoding="utf-8")
    assert text == search_page(finished.folder)
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg\b.*?</svg>", text, re.DOTALL)]
    assert len(drawings) >= 3  # the alphas, the normal and the reduction cell
    for drawing in drawings:
        assert any(element.tag.endswith(("path", "line", "polyline")) for element in drawing.iter())
    cells = re.findall(r"<td[^>]*>(.*?)</td>", text, re.DOTALL)
    assert any(finished.selected_candidate in cell for cell in cells) or finished.selected_candidate in re.sub(
        r"<svg.*?</svg>", "", text, flags=re.DOTALL
    )
    assert not re.findall(r'(?:src|href)\s*=\s*(?!["\']?(?:#|data:))', text)


def test_the_log_warns_that_alphas_learn_from_the_subset_that_selects_the_epoch(finished, log):  # noqa: ARG001
    assert any("validation subset, which also selects the epoch" in line for line in log)


def test_a_second_call_trains_nothing_and_reads_the_corpora_once(finished, root, monkeypatch):
    calls = []
    monkeypatch.setattr(training_data, "read_all", lambda sources: calls.append(sources) or read_all(sources))
    files = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*.npz")}
    rounds, settings = finished.rounds, finished.config_path.read_text()
    assert "split_seed = 0\n" in settings
    finished.config_path.write_text(settings.replace("split_seed = 0\n", ""))  # as if the setting were newer
    search(load_small_search(root), root / "run")
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*.npz")} == files
    assert finished.rounds == rounds
    assert len(calls) == 1


def test_the_cards_describe_the_search_and_its_command(finished):
    spectrogram, recurrent, fusion = (
        (finished.folder / "bundles" / branch / "README.md").read_text().replace("\n", " ")
        for branch in ("spectrogram", "recurrent", "fusion")
    )
    assert all("`affekt search small-search`" in card for card in (spectrogram, recurrent, fusion))
    assert "whose alphas learned from the validation subset" in spectrogram
    assert (
        f"Recurrent cell {finished.selected_candidate}: lowest cross-entropy on the validation subset, of 3 candidates."
        in recurrent
    )
    assert "the perceptron that fuses them, which was trained on the training subset" in fusion
    assert "weights_from" not in Bundle.open(finished.folder / "bundles" / "fusion").section("recipe")


def test_the_device_may_change_between_two_calls(finished, root):
    settings = load_small_search(root, "spectrogram.search.device=cuda", "fusion.training.device=cuda").resolve(1, 0)
    assert Search.start(finished.folder, settings).folder == finished.folder
    with pytest.raises(BadConfig, match=r"other settings \(spectrogram\.search\.epochs\)"):
        Search.start(finished.folder, load_small_search(root, "spectrogram.search.epochs=9").resolve(1, 0))


def test_another_number_of_seeds_in_the_same_folder_raises_bad_config(finished, root):  # noqa: ARG001
    with pytest.raises(BadConfig, match=r"with the current numbers, it would be in .*seed-1"):
        search(load_small_search(root, "repeats=2"), root / "run")


def test_another_recipe_in_the_same_folder_raises_bad_config(finished, root):  # noqa: ARG001
    with pytest.raises(BadConfig, match=r"contains a search with other settings \(recurrent\.random_candidates\)"):
        search(load_small_search(root, "recurrent.random_candidates=3"), root / "run")


@pytest.mark.slow
def test_workers_give_identical_results(finished, root):
    with WorkerLauncher(2) as launcher:
        (other,) = search(load_small_search(root), root / "workers", launcher=launcher, bundles=False)
    assert_equal_searches(other, finished)


@pytest.mark.slow
def test_a_search_killed_twice_resumes_with_identical_results(finished, root):
    """It is killed, with its workers, after 1 and 12 recorded epochs: of the search for cells, and of the candidates."""
    command = [sys.executable, "-m", "affekt", "search", str(root / "small-search.toml"), "--run", str(root / "killed")]

    def count_recorded_epochs():
        return len(list((root / "killed").rglob("*.npz")))

    for epochs in (1, 12):
        process = subprocess.Popen(
            [*command, "--workers", "2", "--no-bundles"],
            env=os.environ,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and count_recorded_epochs() < epochs:
            time.sleep(0.05)
        assert process.poll() is None, "the search ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)  # its workers then end by themselves
        process.wait()
        recorded = -1
        while recorded != (recorded := count_recorded_epochs()):
            time.sleep(1.0)
    (other,) = search(load_small_search(root), root / "killed", bundles=False)
    assert_equal_searches(other, finished)
    assert other.rounds == finished.rounds
    assert [len(run.log()) for run in other.runs("recurrent", "candidates").values()] == [
        len(run.log()) for run in finished.runs("recurrent", "candidates").values()
    ]


def test_divergence_after_a_round_does_not_change_that_round(root, finished):
    folder = root / "later"
    shutil.copytree(finished.folder, folder)
    copied = Search(folder)
    dropped = next(iter(set(copied.rounds[1].losses) - set(copied.rounds[1].kept)))
    copied.run("recurrent", "candidates", dropped).mark_diverged("in a later round")
    search(load_small_search(root), folder, bundles=False)
    assert copied.rounds == finished.rounds


def test_repeats_make_a_search_per_seed_and_missing_stages_are_not_run(root):
    settings = load_small_search(
        root, "repeats=2", "seed=5", "recurrent.training.epochs=1", "recurrent.halving={first=1}"
    )
    settings = replace(settings, spectrogram=None, fusion=None)
    searches = search(settings, root / "seeds", bundles=False)
    assert [s.folder.name for s in searches] == ["seed-5", "seed-6"]
    assert [s.folder for s in searches_in(root / "seeds")] == [s.folder for s in searches]
    random_names = [{name for name in s.runs("recurrent", "candidates") if name.startswith("drawn")} for s in searches]
    assert random_names[0] != random_names[1]
    assert "spectrogram" not in {path.name for path in searches[0].folder.iterdir()}


def test_alphas_can_learn_from_half_of_the_training_subset(root):
    settings = load_small_search(
        root, "spectrogram.search.strategy.learn_alphas_on=half", "spectrogram.search.epochs=1", "spectrogram.random=0"
    )
    with logged() as messages:
        search(replace(settings, recurrent=None, fusion=None), root / "half", bundles=False)
    (message,) = (message for message in messages if "weights learn from" in message)
    for_weights, for_alphas = map(int, re.findall(r"from (\d+)", message))
    assert for_weights + for_alphas == 36
    assert not any("also selects the epoch" in message for message in messages)


def test_the_fusion_can_be_trained_on_the_validation_subset(finished, root):
    settings = load_fusion_recipe(root, finished, 'subset = "validation"', 'selection = "last"')
    (run,) = train(settings, root / "fusion-on-validation")
    assert set(run.predictions(1)) == {"test"}
    assert set(run.split.subsets["train"]) == {
        *finished.run("fusion").split.subsets["train"],
        *finished.run("fusion").split.subsets["validation"],
    }
    assert recipe_of(finished.run("fusion")).weights_from


def load_fusion_recipe(root, finished, training, selection):
    """Return a recipe of the fusion of two finished runs, as a user would write it; the last arguments are lines of TOML."""
    head, _, _ = SEARCH.partition("[spectrogram]")
    text = f"""{head.replace("seed = 1", f"seed = 1{chr(10)}{selection}")}
[model]
name = "emotionnas-fusion"

[weights_from]
spectrogram = "{finished.run("spectrogram", "found").folder}"
recurrent = "{finished.run("recurrent", "candidates", finished.selected_candidate).folder}"

[training]
epochs = 2
{training}
"""
    (root / "fusion.toml").write_text(text)
    return load_recipe(str(root / "fusion.toml"))


def test_a_fusion_trained_on_validation_cannot_select_epochs_on_it(finished, root):
    with pytest.raises(BadConfig, match=r"training\.subset = 'validation' trains on it"):
        load_fusion_recipe(root, finished, 'subset = "validation"', 'selection = "validation"')


def test_a_fusion_without_weights_from_raises_bad_config(root):
    text = SEARCH.partition("[spectrogram]")[0] + '[model]\nname = "emotionnas-fusion"\n[training]\nepochs = 1\n'
    (root / "alone.toml").write_text(text)
    with pytest.raises(BadConfig, match=r"run folders of their weights in \[weights_from\]"):
        resolve(load_recipe(str(root / "alone.toml")))


def test_a_branch_with_the_run_of_another_model_raises_bad_config(finished, root):
    load_fusion_recipe(root, finished, "", "")
    swapped = (
        (root / "fusion.toml")
        .read_text()
        .replace("spectrogram/found", f"recurrent/candidates/{finished.selected_candidate}")
    )
    (root / "swapped.toml").write_text(swapped)
    with pytest.raises(BadConfig, match="is a run of another model; expected emotionnas-spectrogram"):
        resolve(load_recipe(str(root / "swapped.toml")))


def test_precomputed_branch_outputs_train_the_same_perceptron(finished, root):
    """The strategy "frozen-fusion" gives the same predictions as computing the branches' outputs in every epoch."""
    settings = load_fusion_recipe(root, finished, 'strategy = {name = "frozen-fusion"}', 'selection = "last"')
    (precomputed,) = train(settings, root / "precomputed")
    supervised = load_fusion_recipe(root, finished, "", 'selection = "last"')
    (recomputed,) = train(supervised, root / "recomputed")
    np.testing.assert_allclose(precomputed.predictions(2)["test"], recomputed.predictions(2)["test"], atol=1e-5)


def test_class_weights_of_the_fusion_are_inverse_to_the_counts(finished, root, monkeypatch):
    """An emotion that is half as frequent as the others has twice their weight in the loss of every step."""
    weights, original = [], torch.nn.functional.cross_entropy

    def cross_entropy(*arguments, weight=None, **options):
        weights.append(weight)
        return original(*arguments, weight=weight, **options)

    monkeypatch.setattr("affekt.training.supervised.F.cross_entropy", cross_entropy)
    monkeypatch.setattr("affekt.search.fusion.class_counts", lambda *_: [6, 12, 12, 12, 12, 12])
    for setting in ("true", "false"):
        settings = load_fusion_recipe(
            root, finished, f'strategy = {{name = "frozen-fusion", class_weights = {setting}}}', 'selection = "last"'
        )
        train(settings, root / f"class-weights-{setting}")
    weighted = [weight for weight in weights if weight is not None]
    assert weighted
    assert len(weighted) == len(weights) / 2
    for weight in weighted:
        torch.testing.assert_close(weight, 11 / 12 * torch.tensor([2.0, 1, 1, 1, 1, 1]))


@pytest.mark.slow
def test_an_error_in_a_worker_is_raised_by_the_launcher(root):
    diverging = load_small_search(root, "spectrogram.training.strategy.learning_rate=1e30")
    genotype = diverging.random_genotype(0, 1)
    job = Job(diverging.spectrogram_recipe("found", genotype, 1, 0), root / "diverging")
    with pytest.raises(Diverged, match="training diverged at epoch"):
        LocalLauncher().run([job])
    with WorkerLauncher(1) as launcher:
        with pytest.raises(Diverged, match="training diverged at epoch"):
            launcher.run([job])
        launcher.run([Job(job.recipe, job.folder, may_diverge=True)])
    assert job.run.diverged


def test_a_missing_encoder_raises_before_any_training(root):
    settings = load_small_search(root, "features.speech={name='whisper',folder='nowhere'}")
    with pytest.raises(AffektError, match="nowhere"):
        search(settings, root / "no-encoder")
    assert not list((root / "no-encoder").rglob("*.npz"))


def test_a_diverging_network_of_random_cells_is_marked_and_not_retried(root):
    diverging = load_small_search(root, "spectrogram.training.strategy.learning_rate=1e30")
    unit = SearchUnit(Search(root / "random-diverging"), 1, 0)
    job = _spectrogram_job(diverging, unit, "random", diverging.random_genotype(0, 1), "01")
    LocalLauncher().run([job])
    assert job.run.diverged
    LocalLauncher().run([job])  # and is not tried again
    assert job.run.epochs == []


def test_a_job_survives_json(root):
    recipe = load_small_search(root).recurrent_recipe("candidate", "gru", 1, 0)
    job = Job(recipe, root / "run-of-job", until=2, may_diverge=True, fold=3, repeat=1)
    assert Job.from_message(json.loads(json.dumps(job.to_message()))) == job


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("spectrogram.random=-1", "expected 'budget', or a number of at least 0"),
        ("spectrogram.known=['darts-v3']", "'darts-v3'; did you mean"),
        ("recurrent.known=['lsmt']", "'lsmt'; did you mean"),
        ("recurrent.halving={factor=1}", "expected first >= 1 and factor >= 2"),
        ("spectrogram.training.strategy.name=darts", "only spectrogram.search can have this strategy"),
        ("protocol={name='random-hold-out'}", "needs a validation subset"),
        ("spectrogram.model.channel=3", "unknown key 'channel'"),
        ("repeats=0", "expected at least 1"),
        ("fusion.model={hiden=[3]}", "unknown key 'hiden'"),
        ("fusion.training={epochs=1,subset='validation',patience=2}", "training.subset = 'validation' trains on it"),
        ("fusion.training.strategy.name=darts", "only spectrogram.search can have this strategy"),
        ("spectrogram.known=['darts-v2']", "nodes = 2, but the genotype has 4"),
        ("spectrogram.search.subset='validation'", "only the fusion may be trained on another subset"),
        ("recurrent.candidates=['gru','gru']", "recurrent.candidates names gru twice"),
    ],
)
def test_an_invalid_search_recipe_raises_bad_config(root, change, message):
    with pytest.raises(BadConfig, match=re.escape(message)):
        check_search(load_small_search(root, change))


@pytest.mark.parametrize("name", shipped_searches())
def test_shipped_search_recipes_are_valid(name):
    assert load_search(name).name == name
    assert check_search(load_search(name))


def test_an_unknown_search_recipe_suggests_a_shipped_one():
    with pytest.raises(
        BadConfig, match="search recipe 'emotionnas-cremat' not found; did you mean 'emotionnas-cremad'"
    ):
        load_search("emotionnas-cremat")


def test_the_search_recipe_of_the_paper_runs_on_the_layout_of_iemocap(root):
    """The shipped recipe runs, with small networks and few epochs, on synthetic improvised turns of two sessions."""
    corpus = root / "iemocap"
    for session in (1, 2):
        for speaker in "FM":
            for number, emotion in enumerate(("ang", "hap", "neu", "sad") * 2):
                turn = f"Ses{session:02}F_impro01_{speaker}{number:03}"
                iemocap_turn(corpus, turn, emotion)
                folder = corpus / f"Session{session}" / "sentences" / "wav" / turn.rpartition("_")[0]
                write_noise(folder / f"{turn}.wav", seed=10 * session + number)
    assignments = [
        *("features.speech={name='mfcc',coefficients=8}", "folds=[2]", "spectrogram.random=0", "spectrogram.known=[]"),
        *("spectrogram.model={cells=3,channels=2,nodes=4,shrink=5}", "spectrogram.search.epochs=1"),
        *(
            "spectrogram.training.epochs=1",
            "recurrent.model={layers=1,hidden=4,frames=8}",
            "recurrent.training.epochs=1",
        ),
        *("recurrent.candidates=['id1008530']", "recurrent.random=0", "recurrent.known=[]", "fusion.training.epochs=1"),
    ]
    paper = replace(load_search("emotionnas-iemocap", assignments), corpora=(Source("iemocap", str(corpus)),))
    (finished,) = search(paper, root / "paper", bundles=False)
    split = finished.run("fusion").split
    assert {subset: len(keys) for subset, keys in split.subsets.items()} == {"train": 16, "validation": 8, "test": 8}
    assert {key.split("_")[-1][0] for key in split.subsets["validation"]} == {"F"}
    assert finished.run("fusion").predictions(1)["test"].shape == (8, 4)


def test_torchrun_raises_bad_config(root, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadConfig, match="without torchrun, and with --workers"):
        search(load_small_search(root), root / "none")


@pytest.mark.slow
def test_the_command_searches_with_a_corpus_in_another_folder(root, monkeypatch):
    monkeypatch.delenv("AFFEKT_DATA")
    smaller = ("spectrogram.random=0", "recurrent.random_candidates=0", "recurrent.random=0", "recurrent.known=[]")
    options = ("--no-bundles", "--corpus", root / "cremad", "--run", root / "command")
    result = affekt("search", root / "small-search.toml", *smaller, *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"results: {root / 'command' / 'page.html'}\n")
