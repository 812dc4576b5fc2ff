"""A search from its recipe to what it finds, all of it real and small; killed and gone on with; by one process and by two."""

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

from affekt.bundle.folder import Bundle
from affekt.corpora.source import Source
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
from affekt.workflows.evaluate import evaluate
from affekt.workflows.jobs import Job, LocalLauncher, Workers
from affekt.workflows.train import train
from tests.conftest import ROOT, shapes_unchecked
from tests.corpora.trees import iemocap_turn, write_noise
from tests.logs import logged
from tests.search.settings import SEARCH
from tests.synthetic import environment, make_cremad

pytestmark = pytest.mark.slow  # its fixtures train and export


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    make_cremad(root)
    (root / "sought.toml").write_text(SEARCH)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment(root).items():
            patch.setenv(variable, value)
        patch.setattr("affekt.evaluation.bootstrap.DRAWS", 50)  # of the page, which is written four times in a search
        yield root


def recipe(place, *assignments):
    return load_search(str(place / "sought.toml"), list(assignments))


@pytest.fixture(scope="module")
def log():
    """The messages that the search of `found` logs."""
    with logged() as messages:
        yield messages


@pytest.fixture(scope="module")
def found(place, log):  # noqa: ARG001 (logged)
    with shapes_unchecked():
        (one,) = search(recipe(place), place / "run")
    return one


def weights_of(found):
    """Run -> the weights of its last epoch, of every run of a search."""
    folders = sorted(path.parent for path in found.folder.rglob("checkpoint.safetensors"))
    return {
        str(folder.relative_to(found.folder)): load_state(max((folder / "weights").glob("*.safetensors")))
        for folder in folders
    }


def assert_equal_searches(first, second):
    mine, theirs = weights_of(first), weights_of(second)
    assert mine.keys() == theirs.keys()
    for run, weights in mine.items():
        for name, tensor in weights.items():
            assert tensor.equal(theirs[run][name]), f"{run}: {name}"


@pytest.mark.slow
def test_all_three_stages_leave_their_runs(found):
    for run in (("spectrogram", "search"), ("spectrogram", "found"), ("fusion",)):
        assert set(found.run(*run).predictions(2)) == {"test", "validation"}
    assert list(found.runs("spectrogram", "random")) == ["01"]
    assert len(found.runs("recurrent", "candidates")) == 3
    assert list(found.runs("recurrent", "known")) == ["gru"]
    assert len(found.runs("recurrent", "random")) == 1


def test_the_log_has_the_alphas_after_every_epoch(found):
    log = found.run("spectrogram", "search").log()
    assert [np.shape(line["alphas"]["normal"]) for line in log] == [(5, 8), (5, 8)]
    assert log[0]["alphas"] != log[1]["alphas"]
    assert all(line["seconds"] > 0 and "alpha_loss" in line for line in log)


def test_the_derived_network_is_made_of_the_cells_that_were_found(found):
    last = found.run("spectrogram", "search").log()[-1]
    genotype = Genotype.from_json(found.genotype_path.read_text())
    assert genotype == Genotype.from_dict(last["genotype"])
    assert Genotype.from_dict(found.run("spectrogram", "found").config["model"]["genotype"]) == genotype


def test_halving_keeps_the_candidates_of_the_lowest_loss(found):
    rounds = found.rounds
    assert [(one.epochs, len(one.losses), len(one.kept)) for one in rounds] == [(1, 3, 2), (2, 2, 1), (3, 1, 1)]
    for one in rounds:
        kept, dropped = (
            [one.losses[name] for name in one.losses if (name in one.kept) is went] for went in (True, False)
        )
        assert max(kept) <= min(dropped, default=np.inf)
    epochs = {name: run.epochs[-1] for name, run in found.runs("recurrent", "candidates").items()}
    assert sorted(epochs.values()) == [1, 2, 3]
    assert epochs[found.selected_candidate] == 3
    assert json.loads(found.recurrent_recipe_path.read_text())["name"] == found.selected_candidate


def test_the_fusion_stands_over_the_chosen_epochs_of_what_was_found(found):
    run = found.run("fusion")
    weights = load_state(run.weights_path(run.epochs[-1]))
    for branch, its_run in (
        ("spectrogram", found.run("spectrogram", "found")),
        ("recurrent", found.run("recurrent", "candidates", found.selected_candidate)),
    ):
        for name, tensor in load_state(its_run.weights_path(select_epoch(its_run, "validation"))).items():
            assert tensor.equal(weights[f"{branch}.{name}"]), name


def test_what_is_found_recognizes(found, place):
    assert [bundle.folder.name for bundle in bundles_of(found)] == ["fusion", "recurrent", "spectrogram"]
    clip = place / "cremad" / "AudioWAV" / "1005_DFA_ANG_XX.wav"
    for bundle in bundles_of(found):
        answer = Recognizer.load(bundle.folder)(clip)
        assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-4)


def test_what_is_found_scores_as_its_run_did(found):
    bundle = Bundle.open(found.folder / "bundles" / "fusion")
    run = found.run("fusion")
    answers = run.predictions(select_epoch(run, run.config["selection"]))["test"]
    right = (answers.argmax(axis=1) == run.labels("test")).mean()
    assert evaluate(bundle.folder, Source.parse("cremad")).scores.WA.value == pytest.approx(right, abs=0.05)


def test_a_page_is_written(found):
    """The page has a well-formed drawing of every found cell and of the plots, its table, and nothing from elsewhere."""
    text = (found.folder / "page.html").read_text(encoding="utf-8")
    assert text == search_page(found.folder)
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg\b.*?</svg>", text, re.DOTALL)]
    assert len(drawings) >= 3  # the alphas, the normal and the reduction cell
    for drawing in drawings:
        assert any(element.tag.endswith(("path", "line", "polyline")) for element in drawing.iter())
    cells = re.findall(r"<td[^>]*>(.*?)</td>", text, re.DOTALL)
    assert any(found.selected_candidate in cell for cell in cells) or found.selected_candidate in re.sub(
        r"<svg.*?</svg>", "", text, flags=re.DOTALL
    )
    assert not re.findall(r'(?:src|href)\s*=\s*["\']?(?!#|data:)', text)


def test_it_says_that_the_architecture_learns_from_the_part_that_selects(found, log):  # noqa: ARG001
    assert any("validation subset, which also selects the epoch" in line for line in log)


def test_a_second_call_does_nothing_again(found, place):
    files = {path: path.stat().st_mtime_ns for path in found.folder.rglob("*.npz")}
    rounds = found.rounds
    search(recipe(place), place / "run")
    assert {path: path.stat().st_mtime_ns for path in found.folder.rglob("*.npz")} == files
    assert found.rounds == rounds


def test_the_cards_say_how_it_was_found_and_by_which_command(found):
    cells, cell, fusion = (
        (found.folder / "bundles" / branch / "README.md").read_text().replace("\n", " ")
        for branch in ("spectrogram", "recurrent", "fusion")
    )
    assert all("`affekt search sought`" in card for card in (cells, cell, fusion))
    assert "whose alphas learned from the validation subset" in cells
    assert (
        f"Recurrent cell {found.selected_candidate}: lowest cross-entropy on the validation subset, of 3 candidates."
        in cell
    )
    assert "the perceptron that fuses them, which was trained on the training subset" in fusion
    assert "weights_from" not in Bundle.open(found.folder / "bundles" / "fusion").section("recipe")


def test_the_device_may_change_between_two_calls(found, place):
    settings = recipe(place, "spectrogram.search.device=cuda", "fusion.training.device=cuda").resolved(1, 0)
    assert Search.start(found.folder, settings).folder == found.folder
    with pytest.raises(BadConfig, match=r"other settings \(spectrogram\.search\.epochs\)"):
        Search.start(found.folder, recipe(place, "spectrogram.search.epochs=9").resolved(1, 0))


def test_another_number_of_seeds_in_the_same_folder_is_refused(found, place):  # noqa: ARG001
    with pytest.raises(BadConfig, match=r"with the present numbers, it would be in .*seed-1"):
        search(recipe(place, "repeats=2"), place / "run")


def test_another_recipe_in_the_same_folder_is_refused(found, place):  # noqa: ARG001
    with pytest.raises(BadConfig, match=r"contains a search with other settings \(recurrent\.drawn\)"):
        search(recipe(place, "recurrent.drawn=3"), place / "run")


@pytest.mark.slow
def test_workers_find_the_same(found, place):
    with Workers(2) as launcher:
        (other,) = search(recipe(place), place / "workers", launcher=launcher, bundles=False)
    assert_equal_searches(other, found)


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same(found, place):
    """Killed three times, each time somewhere else, with its workers; then run to its end."""
    command = [sys.executable, "-m", "affekt", "search", str(place / "sought.toml"), "--run", str(place / "killed")]
    runs = lambda: len(list((place / "killed").rglob("*.npz")))  # noqa: E731
    for enough in (1, 6, 14):
        process = subprocess.Popen(
            [*command, "--workers", "2", "--no-bundles"],
            env=os.environ,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and runs() < enough:
            time.sleep(0.05)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)  # the workers notice by themselves
        process.wait()
        left = -1
        while left != (left := runs()):
            time.sleep(1.0)
    (other,) = search(recipe(place), place / "killed", bundles=False)
    assert_equal_searches(other, found)
    assert other.rounds == found.rounds
    assert [len(run.log()) for run in other.runs("recurrent", "candidates").values()] == [
        len(run.log()) for run in found.runs("recurrent", "candidates").values()
    ]


def test_a_candidate_that_comes_apart_later_keeps_its_earlier_rounds(place, found):
    """What was kept after a round stays so, whatever happens to it afterwards."""
    folder = place / "later"
    shutil.copytree(found.folder, folder)
    again = Search(folder)
    dropped = next(iter(set(again.rounds[1].losses) - set(again.rounds[1].kept)))
    again.run("recurrent", "candidates", dropped).mark_diverged("in a later round")
    search(recipe(place), folder, bundles=False)
    assert again.rounds == found.rounds


def test_seeds_and_stages_can_be_chosen(place):
    only = recipe(place, "repeats=2", "seed=5", "recurrent.training.epochs=1", "recurrent.halving={first=1}")
    only = replace(only, spectrogram=None, fusion=None)
    found = search(only, place / "seeds", bundles=False)
    assert [one.folder.name for one in found] == ["seed-5", "seed-6"]
    assert [one.folder for one in searches_in(place / "seeds")] == [one.folder for one in found]
    drawn = [{name for name in one.runs("recurrent", "candidates") if name.startswith("drawn")} for one in found]
    assert drawn[0] != drawn[1]
    assert "spectrogram" not in {path.name for path in found[0].folder.iterdir()}


def test_half_of_the_training_part_can_train_the_architecture(place):
    only = recipe(
        place, "spectrogram.search.strategy.learn_alphas_on=half", "spectrogram.search.epochs=1", "spectrogram.random=0"
    )
    with logged() as messages:
        search(replace(only, recurrent=None, fusion=None), place / "half", bundles=False)
    (line,) = (line for line in messages if "weights learn from" in line)
    weights, alphas = map(int, re.findall(r"from (\d+)", line))
    assert weights + alphas == 36
    assert not any("also selects the epoch" in line for line in messages)


def test_the_fusion_can_be_trained_on_what_the_branches_did_not_hear(found, place):
    made = recipe_of(found.run("fusion"))
    settings = load_recipe_text(place, found, 'subset = "validation"', 'selection = "last"')
    (run,) = train(settings, place / "unheard")
    assert set(run.predictions(1)) == {"test"}
    assert set(run.split.subsets["train"]) == {
        *found.run("fusion").split.subsets["train"],
        *found.run("fusion").split.subsets["validation"],
    }
    assert made.weights_from


def load_recipe_text(place, found, training, selection):
    """A recipe of the fusion that a user writes by hand."""
    head, _, _ = SEARCH.partition("[spectrogram]")
    text = f"""{head.replace("seed = 1", f"seed = 1{chr(10)}{selection}")}
[model]
name = "emotionnas-fusion"

[weights_from]
spectrogram = "{found.run("spectrogram", "found").folder}"
recurrent = "{found.run("recurrent", "candidates", found.selected_candidate).folder}"

[training]
epochs = 2
{training}
"""
    (place / "fusion.toml").write_text(text)
    return load_recipe(str(place / "fusion.toml"))


def test_training_the_fusion_on_validation_leaves_none_to_choose_by(found, place):
    with pytest.raises(BadConfig, match=r"training\.subset = 'validation' trains on it"):
        load_recipe_text(place, found, 'subset = "validation"', 'selection = "validation"')


def test_a_fusion_needs_its_branches(place):
    text = SEARCH.partition("[spectrogram]")[0] + '[model]\nname = "emotionnas-fusion"\n[training]\nepochs = 1\n'
    (place / "alone.toml").write_text(text)
    with pytest.raises(BadConfig, match=r"run folders of their weights in \[weights_from\]"):
        resolve(load_recipe(str(place / "alone.toml")))


def test_a_branch_must_be_what_it_is_taken_for(found, place):
    load_recipe_text(place, found, "", "")
    swapped = (
        (place / "fusion.toml")
        .read_text()
        .replace("spectrogram/found", f"recurrent/candidates/{found.selected_candidate}")
    )
    (place / "swapped.toml").write_text(swapped)
    with pytest.raises(BadConfig, match="is a run of another model; expected emotionnas-spectrogram"):
        resolve(load_recipe(str(place / "swapped.toml")))


def test_frozen_answers_computed_once_train_the_same_perceptron(found, place):
    """The shortcut over finished branches gives what going through them in every epoch gives."""
    settings = load_recipe_text(place, found, 'strategy = {name = "frozen-fusion"}', 'selection = "last"')
    (quick,) = train(settings, place / "quick")
    slow = load_recipe_text(place, found, "", 'selection = "last"')
    (whole,) = train(slow, place / "slow")
    np.testing.assert_allclose(quick.predictions(2)["test"], whole.predictions(2)["test"], atol=1e-5)


def test_a_fusion_can_weigh_every_emotion_alike(found, place, monkeypatch):
    """Every step's loss has the weights that follow from the counts: the half as frequent emotion weighs twice as much."""
    weights, original = [], torch.nn.functional.cross_entropy

    def cross_entropy(*arguments, weight=None, **options):
        weights.append(weight)
        return original(*arguments, weight=weight, **options)

    monkeypatch.setattr("affekt.training.supervised.F.cross_entropy", cross_entropy)
    monkeypatch.setattr("affekt.search.fusion.class_counts", lambda *_: [6, 12, 12, 12, 12, 12])
    for setting in ("true", "false"):
        settings = load_recipe_text(
            place, found, f'strategy = {{name = "frozen-fusion", class_weights = {setting}}}', 'selection = "last"'
        )
        train(settings, place / f"class-weights-{setting}")
    weighted = [weight for weight in weights if weight is not None]
    assert weighted
    assert len(weighted) == len(weights) / 2
    for weight in weighted:
        torch.testing.assert_close(weight, 11 / 12 * torch.tensor([2.0, 1, 1, 1, 1, 1]))


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_callers(place):
    bad = recipe(place, "spectrogram.training.strategy.learning_rate=1e30")
    cells = bad.random_genotype(0, 1)
    job = Job(bad.spectrogram_recipe("found", cells, 1, 0), place / "apart")
    with pytest.raises(Diverged, match="training diverged at epoch"):
        LocalLauncher().run([job])
    with Workers(1) as launcher:
        with pytest.raises(Diverged, match="training diverged at epoch"):
            launcher.run([job])
        launcher.run([Job(job.recipe, job.folder, may_diverge=True)])
    assert job.run.diverged


def test_an_encoder_that_is_not_there_is_noticed_first(place):
    lacking = recipe(place, "features.speech={name='whisper',folder='nowhere'}")
    with pytest.raises(AffektError, match="nowhere"):
        search(lacking, place / "lacking")
    assert not list((place / "lacking").rglob("*.npz"))


def test_random_cells_that_come_apart_are_marked_and_end_nothing(place):
    apart = recipe(place, "spectrogram.training.strategy.learning_rate=1e30")
    place_of = SearchUnit(Search(place / "random-apart"), 1, 0)
    job = _spectrogram_job(apart, place_of, "random", apart.random_genotype(0, 1), "01")
    LocalLauncher().run([job])
    assert job.run.diverged
    LocalLauncher().run([job])  # and is not tried again
    assert job.run.epochs == []


def test_a_worker_that_dies_is_reported(place):
    with Workers(1) as launcher:
        launcher.processes[0].kill()
        job = Job(recipe(place).recurrent_recipe("known", "gru", 1, 0), place / "dead")
        with pytest.raises(
            AffektError, match=r"a worker process ended with exit status -9 .* run the same command again"
        ):
            launcher.run([job])


def test_a_job_travels_as_json(place):
    job = Job(recipe(place).recurrent_recipe("candidate", "gru", 1, 0), place / "somewhere", until=2, may_diverge=True)
    assert Job.from_json(job.to_json()).to_json() == job.to_json()
    assert Job.from_json(job.to_json()) == job


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
def test_a_bad_search_recipe_is_refused_before_anything_is_computed(place, change, message):
    with pytest.raises(BadConfig, match=re.escape(message)):
        check_search(recipe(place, change))


@pytest.mark.parametrize("name", shipped_searches())
def test_shipped_searches_are_in_order(name):
    assert load_search(name).name == name
    assert check_search(load_search(name))


def test_an_unknown_search_names_those_that_there_are():
    with pytest.raises(
        BadConfig, match="search recipe 'emotionnas-cremat' not found; did you mean 'emotionnas-cremad'"
    ):
        load_search("emotionnas-cremat")


def test_the_papers_search_runs_on_iemocaps_layout(place):
    """The shipped recipe, its networks and epochs made small, on improvised turns of two sessions that are made here."""
    corpus = place / "iemocap"
    for session in (1, 2):
        for speaker in "FM":
            for number, emotion in enumerate(("ang", "hap", "neu", "sad") * 2):
                turn = f"Ses{session:02}F_impro01_{speaker}{number:03}"
                iemocap_turn(corpus, turn, emotion)
                folder = corpus / f"Session{session}" / "sentences" / "wav" / turn.rpartition("_")[0]
                write_noise(folder / f"{turn}.wav", seed=10 * session + number)
    small = [
        *("features.speech={name='mfcc',coefficients=8}", "folds=[2]", "spectrogram.random=0", "spectrogram.known=[]"),
        *("spectrogram.model={cells=3,channels=2,nodes=4,shrink=5}", "spectrogram.search.epochs=1"),
        *(
            "spectrogram.training.epochs=1",
            "recurrent.model={layers=1,hidden=4,frames=8}",
            "recurrent.training.epochs=1",
        ),
        *("recurrent.candidates=['id1008530']", "recurrent.random=0", "recurrent.known=[]", "fusion.training.epochs=1"),
    ]
    paper = replace(load_search("emotionnas-iemocap", small), corpora=(Source("iemocap", str(corpus)),))
    (one,) = search(paper, place / "paper", bundles=False)
    split = one.run("fusion").split
    assert {part: len(ids) for part, ids in split.subsets.items()} == {"train": 16, "validation": 8, "test": 8}
    assert {key.split("_")[-1][0] for key in split.subsets["validation"]} == {"F"}
    assert one.run("fusion").predictions(1)["test"].shape == (8, 4)


def test_torchrun_is_refused(place, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadConfig, match="without torchrun, and with --workers"):
        search(recipe(place), place / "none")


@pytest.mark.slow
def test_the_command_searches_a_corpus_elsewhere(place):
    command = [sys.executable, "-m", "affekt", "search", str(place / "sought.toml"), "spectrogram.random=0"]
    command += ["recurrent.drawn=0", "recurrent.random=0", "recurrent.known=[]", "--no-bundles"]
    env = {name: value for name, value in os.environ.items() if name != "AFFEKT_DATA"}
    result = subprocess.run(
        [*command, "--corpus", str(place / "cremad"), "--run", str(place / "command")],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"results: {place / 'command' / 'page.html'}\n")
