"""Features of a manifest are those that training stores, one row for each clip."""

import json

import numpy as np
import pytest

from affekt import BadConfig, BadOutput
from affekt.audio.read import load
from affekt.features.extract import compute_features
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe
from affekt.workflows.extract_manifest import extract_manifest
from tests.sounds import encode_audio, noise
from tests.synthetic import SMALL_RECIPE
from tests.workflows.test_recognize_manifest import table

pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL_RECIPE, encoding="utf-8")
    return resolve(load_recipe(str(tmp_path / "small.toml")))


@pytest.mark.slow
def test_rows_have_the_features_of_each_clip(plan, tmp_path):
    for seed, name in enumerate("ab"):
        (tmp_path / f"{name}.wav").write_bytes(encode_audio(noise(8000, seed=seed)))
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    manifest = tmp_path / "m.csv"
    manifest.write_text("file,start,end,id\na.wav,,,1\nb.wav,0.1,0.4,2\nbad.wav,,,3\na.wav,,,4\nno.wav,,,5\n", "utf-8")
    output = tmp_path / "features"
    for resumed in (0, 5):
        summary = extract_manifest(plan, str(manifest), str(output), shard_rows=2, jobs=1)
        assert (summary.rows, summary.failed, summary.resumed) == (5, 2, resumed)
    rows = table(output)
    assert [row["id"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [(row["error"] or {}).get("code") for row in rows] == [None, None, "not_audio", None, "missing"]
    assert [row["end"] for row in rows] == [0.5, 0.4, None, 0.5, None]
    for row, span in ((rows[0], slice(None)), (rows[1], slice(1600, 6400)), (rows[3], slice(None))):
        waveform = load(tmp_path / row["file"])[span]
        (expected,) = compute_features(plan.frozen_features["speech"], [waveform])
        values = np.array(row["features"], np.float16).reshape(row["frames"], row["dim"])
        np.testing.assert_array_equal(values, expected.astype(np.float16))
    settings = json.loads((output / "_affekt.json").read_text("utf-8"))["settings"]
    assert (settings["feature"], settings["dim"]) == ("mfcc", plan.frozen_features["speech"].dim)
    (tmp_path / "other.toml").write_text(SMALL_RECIPE.replace("coefficients = 8", "coefficients = 9"), encoding="utf-8")
    other = resolve(load_recipe(str(tmp_path / "other.toml")))
    with pytest.raises(BadOutput, match="settings = "):
        extract_manifest(other, str(manifest), str(output), shard_rows=2, jobs=1)


def test_an_unknown_stream_is_refused(plan, tmp_path):
    with pytest.raises(BadConfig, match="no stream 'speach' that is computed from audio; did you mean 'speech'"):
        extract_manifest(plan, "m.csv", str(tmp_path / "out"), stream="speach")
