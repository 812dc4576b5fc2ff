"""From raw sound to a prediction from audio and words, with a real speech-to-text model and real sentences."""

import json
import shutil

import pytest

from affekt.training.recipe import load_recipe
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import train
from tests.commands import affekt
from tests.conftest import data_folder, shapes_unchecked

pytestmark = pytest.mark.slow  # trains and exports

SMALL = (
    'corpora=[{name="cremad",where={speaker=["1001","1005"],text=["It\'s eleven o\'clock."]}}]',
    'protocol.test=["cremad/1005"]',
    'features.speech={name="mfcc"}',
    "training.epochs=1",
    "model={name='mcsan-small',dim=16,heads=2,feedforward=16}",
)
CLIP = "1005_IEO_HAP_MD"
WORDS = "it's eleven o'clock"


@pytest.fixture(scope="module")
def real_data(minilm_folder):
    pytest.importorskip("pocketsphinx", reason="needs the extra pocketsphinx")
    assert minilm_folder
    return data_folder("AFFEKT_DATA", "cremad")


@pytest.fixture(scope="module")
def bundle(real_data, tmp_path_factory):
    assert real_data
    folder, recipe = tmp_path_factory.mktemp("words"), load_recipe("words", list(SMALL))
    with shapes_unchecked():
        return make_bundle(recipe, train(recipe, folder / "run"), folder / "bundle").folder


@pytest.fixture
def clip(real_data, tmp_path):
    (path,) = (real_data / "audio").glob(f"{CLIP}.*")
    return shutil.copy(path, tmp_path)


def recognize(clip, bundle, *options):
    run = affekt("recognize", clip, "--model", bundle, "--transcribe", "--asr", "pocketsphinx", *options)
    assert run.returncode == 0, run.stderr
    return run


def test_raw_sound_gives_a_prediction_from_audio_and_words(bundle, clip):
    (row,) = map(json.loads, recognize(clip, bundle, "--json").stdout.splitlines())
    assert (row["status"], row["text"], row["text_by"]) == ("ok", WORDS, "asr:pocketsphinx")
    assert [word["text"] for word in row["words"]] == WORDS.split()
    times = [time for word in row["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < row["duration"]
    given = affekt("recognize", clip, "--model", bundle, "--text", WORDS, "--json")
    other = affekt("recognize", clip, "--model", bundle, "--text", "no", "--json")
    assert json.loads(given.stdout)["probabilities"] == row["probabilities"]
    assert json.loads(other.stdout)["probabilities"] != row["probabilities"]


def test_a_timeline_has_the_sentences_and_keeps_the_transcript(bundle, clip, tmp_path):
    output = tmp_path / "segments.jsonl"
    printed = recognize(clip, bundle, "--timeline", "--output", output).stdout
    assert "recognized sentences" in printed
    (segment,) = map(json.loads, output.read_text().splitlines())
    assert (segment["text"], segment["text_by"]) == (WORDS, "asr:pocketsphinx")
    kept = tmp_path / "segments.transcripts.jsonl"
    kept.write_text(kept.read_text().replace("eleven", "twelve"))
    output.unlink()
    recognize(clip, bundle, "--timeline", "--output", output)  # does not transcribe again
    assert "twelve" in json.loads(output.read_text())["text"]
