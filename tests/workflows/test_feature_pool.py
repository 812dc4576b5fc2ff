"""Feature extraction in worker processes: the same features as in this process, which computes none of them."""

import pytest

from affekt.cores import MAX_THREADS_PER_CORE
from affekt.errors import BadConfig, BadCorpus
from affekt.features.extract import compute_features
from affekt.training.recipe import load_recipe
from affekt.workflows import feature_pool
from affekt.workflows.feature_pool import FeaturePool
from affekt.workflows.job import Job
from affekt.workflows.job_runner import JobRunner
from tests.synthetic import SMALL_RECIPE, environment_set, make_cremad

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe with an altered copy of the training utterances."""
    make_cremad(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(SMALL_RECIPE)
    monkeypatch.setattr(feature_pool, "MIN_UTTERANCES", 1)
    with environment_set(tmp_path):
        yield load_recipe(str(path), ["training.threads=1", "training.augmentation.copies=1"])


def prepare(recipe, folder, monkeypatch, pool=None):
    """Compute the features of a recipe into a new store; return its files, and how many features this process computed."""
    monkeypatch.setenv("AFFEKT_CACHE", str(folder))
    computed = []

    def count(encoder, waveforms, device="cpu"):
        computed.extend(waveforms)
        return compute_features(encoder, waveforms, device)

    monkeypatch.setattr("affekt.features.extract.compute_features", count)
    progress = []
    runner = JobRunner(pool=pool, progress=lambda *values: progress.append(values))
    assert runner.prepare(Job(recipe, folder / "run"))
    assert progress[-1][1] == progress[-1][2]
    files = folder.glob("features/**/*.npy")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}, len(computed)


def test_workers_compute_the_same_features_and_leave_errors_to_this_process(recipe, monkeypatch, tmp_path, workers):
    expected, computed = prepare(recipe, tmp_path / "alone", monkeypatch)
    assert len(expected) == computed > 72
    with FeaturePool(2) as pool:
        assert prepare(recipe, tmp_path / "pool", monkeypatch, pool) == (expected, 0)
        assert len(workers) == 2
        damaged = sorted(tmp_path.glob("**/AudioWAV/*.wav"))[3]
        damaged.write_bytes(damaged.read_bytes()[:50])
        with pytest.raises(BadCorpus, match=damaged.stem):
            prepare(recipe, tmp_path / "damaged", monkeypatch, pool)
    assert len(list((tmp_path / "damaged").glob("features/**/*.npy"))) > 0


def test_too_many_processes_are_refused(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with pytest.raises(BadConfig, match=f"jobs {MAX_THREADS_PER_CORE + 1}"):
        FeaturePool(MAX_THREADS_PER_CORE + 1)
