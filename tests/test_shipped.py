"""The bundle that ships with affekt: its size, its outputs, its split, and the statements of its card."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from affekt.audio.read import load
from affekt.bundle.folder import DEFAULT, Bundle, shipped_bundles
from affekt.bundle.pipeline import rebuild
from affekt.corpora.source import Source
from affekt.inference.recognizer import Recognizer
from affekt.protocols import Split, utterance_key
from affekt.protocols.holdout import HeldOutSpeakers
from affekt.reports.card import card
from affekt.training.recipe import load_recipe
from affekt.workflows.evaluate import evaluate
from tests.conftest import ROOT, SAMPLES, shapes_unchecked

HELD_OUT = {f"cremad/{actor}" for actor in range(1005, 1095, 5)} | {"emodb/03", "emodb/10"}


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open()


@pytest.fixture(scope="module")
def pair(bundle):
    with shapes_unchecked():
        yield rebuild(bundle), Recognizer.load()


def test_the_bundle_exists_and_is_small(bundle):
    assert DEFAULT in shipped_bundles()
    assert bundle.emotions == ("angry", "disgust", "fear", "happy", "neutral", "sad")
    assert bundle.onnx.stat().st_size <= 25_000_000


def test_every_file_has_its_checksum(bundle):
    """If the card was changed on purpose, `affekt.bundle.folder.write_sums(ASSETS / "default")` writes new checksums."""
    bundle.verify()
    listed = {line.split()[1] for line in bundle.file("SHA256SUMS").read_text().splitlines()[1:]}
    assert listed == {path.name for path in bundle.folder.iterdir()} - {"SHA256SUMS"}


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1600, 1601, 4321, 16_000, 50_001, 161_000, 480_000])
def test_torch_and_onnx_agree_at_any_length(pair, samples):
    pipeline, recognizer = pair
    speech = np.tile(load(SAMPLES[0]), 12)[:samples]
    with torch.inference_mode():
        expected = pipeline(torch.from_numpy(speech)[None])[0].numpy()
    (probabilities,) = recognizer.graph._session.run(["probabilities"], {"waveform": speech[np.newaxis]})
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-4)


@pytest.mark.parametrize("samples", [1600, 8_000, 161_000])
def test_no_fragment_of_a_word_and_no_long_speech_is_refused(pair, samples):
    speech = np.tile(load(SAMPLES[0]), 4)[:samples]
    assert sum(pair[1].predict(speech)) == pytest.approx(1, abs=1e-3)
    assert pair[1]((speech, 16_000)).status == "ok"


def test_a_batch_equals_one_by_one_in_the_onnx_file(pair):
    session = pair[1].graph._session
    speech = np.stack([load(SAMPLES[0])[:20_000], load(SAMPLES[1])[:20_000]])
    (together,) = session.run(["probabilities"], {"waveform": speech})
    for row, waveform in zip(together, speech, strict=True):
        np.testing.assert_allclose(pair[1].infer(waveform), row, atol=1e-5)


def test_the_gain_of_a_recording_does_not_change_the_probabilities(pair):
    speech = load(SAMPLES[0])
    expected = pair[1].infer(speech)
    for gain in (1e-3, 0.1, 10.0):
        np.testing.assert_allclose(pair[1].infer((speech * gain).astype(np.float32)), expected, atol=2e-3)


def test_the_recipe_holds_out_the_test_speakers(bundle):
    recipe = load_recipe("default")
    assert set(recipe.protocol["test"]) == HELD_OUT == set(bundle.config["recipe"]["protocol"]["test"])
    assert recipe.selection == "last"


def test_the_encoder_has_whispers_weights(bundle, whisper):
    from safetensors.torch import load_file

    whisper_weights = load_file(whisper / "model.safetensors")
    bundle_weights = {
        name.removeprefix("encoder."): tensor for name, tensor in load_file(bundle.file("model.safetensors")).items()
    }
    for name in ("conv1.weight", "layers.0.fc1.weight", "layers.2.self_attn.q_proj.weight"):
        assert torch.equal(bundle_weights[name], whisper_weights[name].half()), name


def test_the_card_is_generated_and_states_limits_and_licenses(bundle):
    text = bundle.file("README.md").read_text(encoding="utf-8")
    assert text == card(bundle)
    assert bundle.results["model"] == bundle.id
    for phrase in (
        "Acted speech",
        "rebuilt audio",
        "Open Database License",
        "Article 5(1)(f)",
        "MIT license",
        "Griffin-Lim",
    ):
        assert phrase in text
    assert "OpenAI" in bundle.file("LICENSE.whisper").read_text(encoding="utf-8")


def test_the_readme_shows_what_make_run_prints(bundle):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^samples/(\S+) +([\d.]+) s +(\w+) +\S* +(\d+)%  (\w+) (\d+)%$", readme, re.MULTILINE)
    expected = []
    for row in Recognizer.load(bundle.folder).rows(SAMPLES):
        (first, p), (second, q), *_ = sorted(row.probabilities.items(), key=lambda item: -item[1])
        expected.append((Path(row.file).name, f"{row.duration:.1f}", first, f"{100 * p:.0f}", second, f"{100 * q:.0f}"))
    assert shown == expected


def test_the_readme_has_the_scores_of_the_bundle(bundle):
    """Each row of the README's table has the numbers of the bundle's results in the right columns."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in readme.splitlines() if line.startswith("| ")]
    header = next(number for number, cells in enumerate(lines) if cells[-3:] == ["UA", "WA", "ECE"])
    rows = {cells[0].split(",")[0]: cells[1:] for cells in lines[header + 1 :] if len(cells) == 5}
    rows.pop("---", None)
    expected = {}
    for corpus in bundle.results["scores"].values():
        speakers, model = corpus.get("speakers", corpus.get("people")), corpus["model"]
        recall, accuracy = model["UA"], model["WA"]
        expected[corpus["title"]] = [
            f"{speakers}, {model['utterances']}",
            f"{100 * recall['value']:.1f} ({100 * recall['low']:.1f} to {100 * recall['high']:.1f})",
            f"{100 * accuracy['value']:.1f}",
            f"{100 * model['ece']:.1f}",
        ]
    assert rows == expected


def test_the_test_subset_has_exactly_the_held_out_speakers(bundle, cremad, emodb):
    from affekt.corpora import corpora

    emotions = set(bundle.emotions)
    all_utterances = [*corpora["cremad"].read(cremad), *corpora["emodb"].read(emodb)]
    utterances = [u for u in all_utterances if u.emotion in emotions]
    (split,) = HeldOutSpeakers(tuple(HELD_OUT)).folds(utterances)
    assert split.hash == bundle.config["protocol"]["hash"] == Split.load(bundle.file("split.json")).hash
    speakers = {utterance_key(u): u.speaker_key for u in utterances}
    assert {speakers[id] for id in split.subsets["test"]} == HELD_OUT
    assert not {speakers[id] for id in split.subsets["train"]} & HELD_OUT


@pytest.mark.data
@pytest.mark.parametrize("name", ["cremad", "emodb"])
def test_evaluating_the_bundle_reproduces_the_scores_of_its_card(bundle, name, request):
    root = request.getfixturevalue(name)
    scores = json.loads(json.dumps(evaluate(DEFAULT, Source(name, str(root))).to_json()))
    stated = bundle.results["scores"][name]["model"]
    assert scores["utterances"] == stated["utterances"]
    # On another processor, rounding may change the prediction for an utterance whose probabilities are nearly equal.
    for metric in ("UA", "WA", "WF1"):
        assert scores[metric]["value"] == pytest.approx(stated[metric]["value"], abs=0.005)
