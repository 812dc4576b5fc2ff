"""docs/tutorials/own-data.md on a few clips of EmoDB: three speakers, and an emotion that the shipped model does not know."""

import shutil

import pytest
import torch

from affekt.bundle.pipeline import rebuild
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.workflows.finetune import finetuning_recipe
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import train
from tests.synthetic import quick_export

LETTERS = {"W": "anger", "L": "boredom", "T": "sadness"}


@pytest.fixture
def clips(emodb, tmp_path):
    for speaker in ("03", "10", "16"):
        for letter, emotion in LETTERS.items():
            for path in sorted((emodb / "wav").glob(f"{speaker}???{letter}?.*"))[:4]:
                place = tmp_path / "clips" / speaker / emotion / path.name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
    return Source("folder", str(tmp_path / "clips"))


def test_a_new_emotion_is_learnt_from_a_few_clips(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
    settings = ["training.threads=1", "training.epochs=6"]
    recipe = finetuning_recipe("default", [clips], "mine", settings)
    (run,) = train(recipe, tmp_path / "run")
    assert run.emotions == ("angry", "bored", "sad")
    assert run.split.speaker_independent
    assert run.log()[-1]["loss"] < run.log()[0]["loss"]
    right = run.predictions(6)["test"].argmax(axis=1) == run.labels("test")
    assert right.mean() > 0.5  # of three; of a speaker who was not trained on
    bundle = make_bundle(recipe, [run], tmp_path / "mine")
    pipeline, angry = rebuild(bundle), next(u for u in clips.read() if u.emotion == "angry")
    with torch.inference_mode():
        assert pipeline(torch.from_numpy(read_waveform(angry))[None]).argmax().item() == 0
