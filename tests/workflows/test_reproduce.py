"""`affekt reproduce` from raw files to the table, on small corpora in the published layouts of IEMOCAP, MELD and CREMA-D.

The encoders are tiny networks of the genuine classes, so they are stand-ins. The models have their small presets (--quick).
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from affekt.cli import app
from affekt.cli.reproduce import _parse_numbers
from affekt.cli.reproduce import reproduce as command
from affekt.config import encode
from affekt.errors import BadConfig, BadCorpus, BadOutput
from affekt.features.speaker import ECAPA
from affekt.features.wav2vec import MODEL_TYPE
from affekt.runs.folder import Run
from affekt.search.reproduce import search_row
from affekt.workflows import reproduction_plan
from affekt.workflows.jobs import LocalLauncher
from affekt.workflows.reproduce import format_scores, reproduce
from affekt.workflows.reproduction import QUICK, Request, training_row
from affekt.workflows.reproduction_plan import format_plan, make_plan
from tests.corpora.trees import iemocap_turn, meld_table, write, write_noise
from tests.features.test_speaker import TINY as TINY_ECAPA
from tests.features.test_speech import save_encoder
from tests.features.test_text import save_text_encoder
from tests.features.test_wav2vec import make_network

STAND_INS = {
    "hubert-large": "hubert:hubert-tiny",
    "wav2vec-large": "wav2vec:wav2vec-tiny",
    "bert-base-uncased": "bert:bert-tiny",
    "roberta-large": "roberta:roberta-tiny",
    "ecapa-voxceleb": "ecapa:ecapa-tiny",
    "glove.840B.300d": "glove:glove-tiny",
}
IEMOCAP_LABELS = {"ang": 2, "hap": 2, "neu": 2, "sad": 2, "exc": 2, "fru": 2, "sur": 2}
MELD_EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")


def make_iemocap(root):
    """Write two sessions of two speakers, each with two improvised turns of every emotion."""
    for session in (1, 2):
        for speaker in "FM":
            labels = [label for label, count in IEMOCAP_LABELS.items() for _ in range(count)]
            for number, label in enumerate(labels):
                turn = f"Ses{session:02}F_impro01_{speaker}{number:03}"
                iemocap_turn(root, turn, label, text=f"I said {label} again, you know.")
                folder = root / f"Session{session}" / "sentences" / "wav" / turn.rpartition("_")[0]
                write_noise(folder / f"{turn}.wav", seed=1000 * session + 100 * ord(speaker) + number)


def make_meld(root):
    """Write the three tables, and a clip for each row in the folders of the published archives."""
    folders = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    for split, folder in folders.items():
        rows = []
        for number, emotion in enumerate(MELD_EMOTIONS * (2 if split == "train" else 1)):
            rows.append((f"Oh {emotion}, really?", "Joey", emotion, number, 0))
            write_noise(root / folder / f"dia{number}_utt0.wav", seed=number + 100 * len(folder))
        meld_table(root, split, *rows)


def make_cremad(root):
    for actor in range(1001, 1006):
        for number, emotion in enumerate(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")):
            write_noise(root / "AudioWAV" / f"{actor}_DFA_{emotion}_XX.wav", seed=10 * actor + number)


def make_models(root):
    save_encoder("hubert", root / "hubert-tiny", stable=True)
    for kind in ("bert", "roberta"):
        (root / f"{kind}-tiny").mkdir(parents=True)
        save_text_encoder(kind, root / f"{kind}-tiny", max_position_embeddings=132)
    wav2vec, folder = make_network().float(), root / "wav2vec-tiny"
    write(folder / "config.json", json.dumps({"model_type": MODEL_TYPE, **encode(wav2vec.config.architecture)}))
    save_file(wav2vec.state_dict(), folder / "model.safetensors")
    (root / "ecapa-tiny").mkdir()
    save_file(ECAPA(TINY_ECAPA).network.state_dict(), root / "ecapa-tiny" / "model.safetensors")
    write(root / "glove-tiny" / "glove.txt", "i 0.1 0.2 0.3\nyou 0.4 0.1 0.2\noh 0.3 0.3 0.1\n")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("reproduce")
    for name, make in (("iemocap", make_iemocap), ("meld", make_meld), ("cremad", make_cremad)):
        make(root / "data" / name)
    make_models(root / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFEKT_DATA", str(root / "data"))
        patch.setenv("AFFEKT_MODELS", str(root / "models"))
        patch.setenv("AFFEKT_CACHE", str(root / "cache"))
        yield root


def quick(name, **changes):
    request = replace(Request(encoders=STAND_INS, quick=True), **changes)
    return search_row(name, request) if name.startswith("emotionnas") else training_row(name, request)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mstr-table2-cremad",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "mstr-table2-iemocap",
                "mstr-table2-meld-baseline",
                "tdfnet-table1-loso",
                "mcsan-table1",
                "mcsan-table2",
                "ks_transformer-table1-ccab3",
                "emotionnas-table1",
            )
        ),
    ],
)
def test_a_row_of_each_model_and_corpus_is_reproduced_from_raw_files(name, root):
    torch.manual_seed(0)
    plan = make_plan(name, [quick(name)], root / "runs")
    assert not plan.rows[0].units[1:]
    scores = reproduce(plan, LocalLauncher())
    published = plan.rows[0].row.published
    assert [score.metric for score in scores] == list(published.scores)
    for score in scores:
        assert score.name.startswith(f"{name}-quick")
        assert score.published == published.scores[score.metric]
        assert all(0 <= spread.mean <= 1 for spread in score.ours.values())
        assert {"last", "paper", score.selection} == set(score.ours)
        assert QUICK in score.remarks
        assert any("published utterances: NOT the paper's data" in remark for remark in score.remarks)
        assert "test utterances in 1 fold, split" in score.protocol
    page = (root / "runs" / "results.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith(f"| {published.row} |")]
    assert len(lines) == len(scores)
    assert all(QUICK in line for line in lines)
    uses_encoders = any(encoder.stand_in for encoder in plan.rows[0].row.encoders.values())
    assert uses_encoders == all("STAND-IN" in line for line in lines)
    if not name.startswith("emotionnas"):  # the runs of a search have a page of their own
        report = [str(plan.rows[0].folder), "--no-models", "--output", str(root / "report.html")]
        result = CliRunner().invoke(app, ["report", *report], catch_exceptions=False)
        assert result.exit_code == 0
        assert "NOT comparable: quick" in (root / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_finished_reproduction_is_only_scored_and_a_killed_one_resumes(root):
    def reproduce_again():
        plan = make_plan("mstr-table2-cremad", [quick("mstr-table2-cremad", seeds=(0, 3))], root / "resumed")
        return plan, reproduce(plan, LocalLauncher())

    plan, first = reproduce_again()
    assert [score.seeds for score in first] == [(0, 3)] * 2
    assert first[0].ours["last"].std is not None
    killed = Run(plan.rows[0].units[1].folder)
    before = {unit.seed: Run(unit.folder).modified_at(2) for unit in plan.rows[0].units}
    killed.checkpoint_path.unlink()
    killed.discard_after(1)
    plan, again = reproduce_again()
    assert again == first
    assert Run(plan.rows[0].units[0].folder).modified_at(2) == before[0]
    assert Run(plan.rows[0].units[1].folder).modified_at(2) != before[3]


@pytest.mark.slow
def test_the_plan_states_counts_encoders_time_and_disk(root):
    text = format_plan(make_plan("mstr-table2-cremad", [quick("mstr-table2-cremad")], root / "planned"))
    assert "30 of 7,442 published utterances: NOT the paper's data" in text
    assert "STAND-IN hubert:hubert-tiny for hubert-large" in text
    assert "the paper: WA 79.7, UA 79.92" in text
    assert "expected time on cpu" in text
    assert "runs up to" in text
    assert not (root / "planned").exists()


def test_a_missing_encoder_is_named_with_the_place_where_it_is_published(root):
    rows = [training_row("tdfnet-table1-loso", Request())]
    with pytest.raises(BadConfig, match=r"missing encoders: hubert-large \(HuBERT large: huggingface\.co/facebook"):
        make_plan("tdfnet-table1-loso", rows, root / "none")
    with pytest.raises(BadConfig, match=r"hubert-large=wavml:x: there is no such path, .*did you mean 'wavlm'"):
        training_row("mstr-table2-meld", Request(encoders={"hubert-large": "wavml:x"}))


def test_another_encoder_is_refused_under_the_name_of_the_papers(root):
    rows = [
        training_row("mstr-table2-cremad", Request(encoders={"hubert-large": str(root / "models" / "hubert-tiny")}))
    ]
    with pytest.raises(
        BadConfig, match=r"has 16 features, but HuBERT large has 1024: .*say so: --encoder hubert-large="
    ):
        make_plan("mstr-table2-cremad", rows, root / "none")


@pytest.mark.slow
def test_a_corpus_without_audio_and_a_full_disk_are_refused_before_anything_is_computed(root, monkeypatch, tmp_path):
    meld_table(tmp_path, "train", ("Oh.", "Joey", "joy", 0, 0), ("No.", "Joey", "anger", 1, 0))
    meld_table(tmp_path, "test", ("Oh.", "Joey", "joy", 0, 0), ("No.", "Joey", "anger", 1, 0))
    with pytest.raises(BadCorpus, match=r"needs audio, which 4 of 4 utterances of meld lack"):
        make_plan("t", [quick("mstr-table2-meld", corpora={"meld": str(tmp_path)})], root / "none")
    monkeypatch.setattr(reproduction_plan, "free_bytes", lambda _: 10)
    plan = make_plan("t", [quick("mstr-table2-cremad")], root / "none")
    with pytest.raises(BadOutput, match=r"stored features in .* need up to .*, and 0\.0 kB are free"):
        reproduce(plan, LocalLauncher())


def test_quick_keeps_what_makes_a_row_what_it_is():
    settings = {name: quick(name).recipe.model for name in ("mstr-figure3-l2-meld", "ks_transformer-table1-ccab0")}
    assert settings["mstr-figure3-l2-meld"]["scales"] == 2
    assert settings["mstr-figure3-l2-meld"]["dim"] == 128
    assert settings["ks_transformer-table1-ccab0"]["ccabs"] == 0
    assert quick("mcsan-table3-two-layers").recipe.model["layers"] == 2
    assert quick("mstr-table2-meld", quick=False).recipe.model["dim"] == 1024


@pytest.mark.parametrize(
    ("text", "numbers"), [("", ()), ("0-3", (0, 1, 2, 3)), ("5,1,2-3", (1, 2, 3, 5)), ("4", (4,)), ("2, 2", (2,))]
)
def test_seeds_and_folds_are_ranges(text, numbers):
    assert _parse_numbers("--seeds", text, minimum=0) == numbers


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "1-", "1;2", "1.5"])
def test_other_ranges_are_refused(text):
    with pytest.raises(BadConfig, match="--folds"):
        _parse_numbers("--folds", text, minimum=1)


@pytest.mark.slow
def test_the_command_prints_the_plan_of_a_row_and_names_what_is_unknown(root, capsys):
    encoders = [f"{name}={value}" for name, value in STAND_INS.items()]
    command("mstr-table2-cremad", corpus=[str(root / "data" / "cremad")], encoder=encoders, quick=True, dry_run=True)
    assert "mstr-table2-cremad: 1 recipe" in capsys.readouterr().out
    with pytest.raises(BadConfig, match=r"no recipe or table 'mstr-tabel2'; did you mean 'mstr-table2'"):
        command("mstr-tabel2")
    with pytest.raises(BadConfig, match=r"--corpus x: expected cremad:ROOT or iemocap:ROOT or meld:ROOT"):
        command("mstr-table2", corpus=["x"])
    with pytest.raises(BadConfig, match=r"--encoder hubert-larg: .* did you mean 'hubert-large'"):
        command("mstr-table2-cremad", encoder=["hubert-larg=/x"])


@pytest.mark.slow
def test_the_table_of_several_rows_has_a_line_for_each_score(root):
    plan = make_plan("two", [quick("mstr-table2-cremad"), quick("mcsan-table2")], root / "runs")
    text = format_scores("two", reproduce(plan, LocalLauncher()))
    assert [line.split(" | ")[:2] for line in text.splitlines() if QUICK in line] == [
        ["| MSTR on CREMA-D", "WA"],
        ["| MSTR on CREMA-D", "UA"],
        ["| MCSAN", "WF1"],
    ]
