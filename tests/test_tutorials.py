"""The tutorials' commands, on small synthetic corpora; and fine-tuning on real clips with an emotion new to the model."""

import re
import shlex
import shutil

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from affekt.bundle.pipeline import rebuild
from affekt.cli import app
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.workflows.finetune import finetuning_recipe
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import train
from tests.conftest import ROOT
from tests.synthetic import make_clip, make_folder, quick_export

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
FILE = re.compile(r'```toml title="(?P<name>.+?)"\n(?P<content>.*?)```', re.DOTALL)
COMMANDS = re.compile(r"```sh\n(.*?)```", re.DOTALL)
# Replacements that make the training runs of a tutorial small enough for a test.
SMALLER = ((r"epochs = \d+", "epochs = 1"), (r"\brepeats = \d+", "repeats = 1"), (r" --workers \d+", ""))


def make_emodb(root):
    """Write a corpus with EmoDB's layout and tones instead of speech: ten speakers, a pitch for each emotion."""
    generator = np.random.default_rng(0)
    for speaker in ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"):
        for index, letter in enumerate("WLEAFTN"):
            make_clip(root / "wav" / f"{speaker}a01{letter}a.wav", 300 * 1.6**index, generator)


def make_ravdess(root):
    """Write a corpus with RAVDESS's layout: four actors, each with a tone for each emotion."""
    generator = np.random.default_rng(0)
    for actor in ("01", "02", "03", "04"):
        for emotion in range(1, 9):
            make_clip(root / f"Actor_{actor}" / f"03-01-0{emotion}-01-01-01-{actor}.wav", 300 * 1.6**emotion, generator)


def fill_with_speech(folder):
    """Replace the audio of all clips by parts of the samples, since a clip without speech would be refused."""
    samples = [soundfile.read(path) for path in sorted((ROOT / "samples").glob("*.wav"))]
    for number, path in enumerate(sorted(folder.rglob("*.wav"))):
        waveform, rate = samples[number % len(samples)]
        soundfile.write(path, waveform[number // len(samples) * rate // 20 :], rate)


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """A folder with samples/ and calls/, where commands run; AFFEKT_DATA contains emodb/ and ravdess/."""
    make_emodb(tmp_path / "data" / "emodb")
    clips = [
        f"{speaker}/{emotion}/{number}.wav"
        for speaker in ("anna", "ben", "eve")
        for emotion in ("anger", "boredom")
        for number in (1, 2)
    ]
    make_folder(tmp_path / "calls", clips)
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    make_ravdess(tmp_path / "data" / "ravdess")
    for folder in ("calls", "data/ravdess"):
        fill_with_speech(tmp_path / folder)
    monkeypatch.setenv("AFFEKT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
    monkeypatch.setattr("affekt.evaluation.bootstrap.DRAWS", 50)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorials_commands_run(page, working_folder):
    text = page.read_text(encoding="utf-8")
    for pattern, smaller in SMALLER:
        text = re.sub(pattern, smaller, text)
    for file in FILE.finditer(text):
        (working_folder / file["name"]).write_text(file["content"], encoding="utf-8")
    commands = [shlex.split(line) for block in COMMANDS.findall(text) for line in block.splitlines()]
    assert commands
    for program, *arguments in commands:
        assert program == "affekt"
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, (arguments, result.output)


LETTERS = {"W": "anger", "L": "boredom", "T": "sadness"}


@pytest.fixture
def clips(emodb, tmp_path):
    for speaker in ("03", "10", "16"):
        for letter, emotion in LETTERS.items():
            for path in sorted((emodb / "wav").glob(f"{speaker}???{letter}?.*"))[:4]:
                clip = tmp_path / "clips" / speaker / emotion / path.name
                clip.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, clip)
    return Source("folder", str(tmp_path / "clips"))


def test_a_new_emotion_is_learned_from_a_few_clips(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
    settings = ["training.threads=1", "training.epochs=6"]
    recipe = finetuning_recipe("default", [clips], "mine", settings)
    (run,) = train(recipe, tmp_path / "run")
    assert run.emotions == ("angry", "bored", "sad")
    assert run.split.speaker_independent
    assert run.log()[-1]["loss"] < run.log()[0]["loss"]
    correct = run.predictions(6)["test"].argmax(axis=1) == run.labels("test")
    assert correct.mean() > 0.5  # chance: 1/3; the speaker was not trained on
    bundle = make_bundle(recipe, [run], tmp_path / "mine")
    pipeline, angry = rebuild(bundle), next(u for u in clips.read() if u.emotion == "angry")
    with torch.inference_mode():
        assert pipeline(torch.from_numpy(read_waveform(angry))[None]).argmax().item() == 0
