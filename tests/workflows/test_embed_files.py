"""Embeddings of recordings: what they are, the files that they are written to, and interrupted runs."""

import csv

import numpy as np
import pytest

from affekt import Recognizer, embed_files
from affekt.errors import BadAudio, BadBundle, BadOutput
from affekt.inference.embedding import Embedding
from affekt.inference.embeddings_file import names_path
from tests.commands import affekt
from tests.conftest import write_tiny_bundle
from tests.sounds import encode_audio, noise

EMOTIONS = ("angry", "happy", "sad")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle and a folder with two recordings, one of digital silence, and one that is no audio."""
    root = tmp_path_factory.mktemp("embeddings")
    write_tiny_bundle(root / "tiny", EMOTIONS, adaptable=True)
    sounds = root / "sounds"
    sounds.mkdir()
    for name, waveform in {"a": noise(32_000, 1), "b": 0.3 * noise(16_000, 2), "c": np.zeros(16_000)}.items():
        (sounds / f"{name}.wav").write_bytes(encode_audio(waveform))
    (sounds / "d.wav").write_bytes(b"no audio")
    return root


@pytest.fixture
def recognizer(folder):
    return Recognizer.load(folder / "tiny")


def test_the_embedding_is_that_of_the_graph_and_does_not_depend_on_a_threshold(folder, recognizer):
    waveform = noise(32_000, 1)
    outputs = recognizer.graph.run({"waveform": waveform[None]}, ["speech_mean", "speech_log_std"])
    embedding = Recognizer.load(folder / "tiny", threshold=1.0).embed(waveform, 16_000)
    np.testing.assert_array_equal(embedding.vector, np.concatenate(list(outputs.values()), axis=1)[0])
    assert (embedding.status, embedding.file, embedding.duration) == ("ok", "<array>", 2.0)
    assert Embedding.from_message(embedding.to_message()).vector.tolist() == embedding.vector.tolist()
    with pytest.raises(BadAudio):
        recognizer.embed(b"no audio")


def test_windows_of_a_long_recording_are_averaged_by_seconds_of_speech(recognizer):
    pause = np.zeros(8_000, np.float32)
    speech = np.concatenate([np.concatenate([noise(40_000, seed) * (seed + 1) / 8, pause]) for seed in range(5)])
    windows = [(segment.speech, outputs) for segment, outputs in recognizer.observe((speech, 16_000)) if outputs]
    assert len(windows) > 1
    weights = [seconds for seconds, _ in windows]
    means = np.average([outputs["speech_mean"][0] for _, outputs in windows], axis=0, weights=weights)
    embedding = recognizer.embed((speech, 16_000))
    np.testing.assert_allclose(embedding.vector[:3], means, rtol=1e-5)
    assert embedding.speech == pytest.approx(sum(weights), abs=1e-3)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_every_recording_has_a_row_in_the_order_of_the_files(tmp_path, folder, recognizer, suffix):
    path = tmp_path / f"vectors{suffix}"
    embeddings = list(embed_files([folder / "sounds"], path, recognizer=recognizer, jobs=1))
    assert [embedding.status for embedding in embeddings] == ["ok", "ok", "silence", "error"]
    if suffix == ".npy":
        vectors = np.load(path, allow_pickle=False)
        rows = list(csv.DictReader(names_path(path).read_text(encoding="utf-8").splitlines()))
    elif suffix == ".csv":
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        vectors = np.array([[float(row[f"e{index}"] or "nan") for index in range(6)] for row in rows])
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        vectors = np.array([row["embedding"] or [np.nan] * 6 for row in rows])
    assert vectors.shape == (4, 6)
    np.testing.assert_allclose(vectors[:2], [embedding.vector for embedding in embeddings[:2]], rtol=1e-5)
    assert np.isnan(vectors[2:]).all()
    assert [row["file"] for row in rows] == [str(folder / "sounds" / f"{name}.wav") for name in "abcd"]
    assert [row["status"] for row in rows] == ["ok", "ok", "silence", "error"]
    assert list(tmp_path.glob("*.partial.jsonl")) == []
    with pytest.raises(BadOutput, match="exists"):
        list(embed_files([folder / "sounds"], path, recognizer=recognizer))


def test_an_interrupted_run_continues_and_worker_processes_give_the_same(tmp_path, folder, recognizer, monkeypatch):
    path = tmp_path / "vectors.npy"
    stopped = embed_files([folder / "sounds"], path, recognizer=recognizer)
    first = next(stopped)
    stopped.close()
    assert not path.exists()
    with (tmp_path / "vectors.npy.partial.jsonl").open("a") as journal:
        journal.write('{"file": "b.wav", "sta')  # as a killed run leaves it
    with monkeypatch.context() as patch:
        computed = []
        real = Recognizer.observe
        patch.setattr(Recognizer, "observe", lambda self, source, **_: computed.append(source) or real(self, source))
        resumed = list(embed_files([folder / "sounds"], path, recognizer=recognizer))
    assert [source.name for source in computed] == ["b.wav", "c.wav", "d.wav"]
    assert resumed[0].vector.tolist() == first.vector.tolist()
    together = list(embed_files([folder / "sounds"], tmp_path / "again.npy", recognizer=recognizer, jobs=2))
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), np.load(path))
    assert [embedding.error for embedding in together] == [embedding.error for embedding in resumed]


def test_the_command_reports_failures_and_bad_names(tmp_path, folder):
    options = ("--model", str(folder / "tiny"), "--output")
    done = affekt("embed", str(folder / "sounds"), *options, str(tmp_path / "x.csv"))
    assert done.returncode == 2
    assert "2 embeddings of 6 values" in done.stderr
    assert "1 without speech, 1 failed" in done.stderr
    assert affekt("embed", str(folder / "sounds"), *options, str(tmp_path / "x.txt")).returncode == 2


def test_a_bundle_without_statistics_has_no_embeddings(tiny_bundle):
    with pytest.raises(BadBundle, match="returns no statistics of its features"):
        Recognizer.load(tiny_bundle).embed(noise(32_000), 16_000)
