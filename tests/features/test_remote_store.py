"""Features in an object store, which several machines with caches of their own share."""

import json

import numpy as np
import pytest

from affekt.errors import AffektError, BadConfig, BadOutput
from affekt.features.store import FeatureStore
from affekt.files import cache_root

fsspec = pytest.importorskip("fsspec")

KEY = "ab" * 32
VALUES = np.arange(12.0).reshape(3, 4)


@pytest.fixture
def url(monkeypatch):
    """An empty object store in memory, which AFFEKT_FEATURES names."""
    url = "memory://bucket/features"
    monkeypatch.setenv("AFFEKT_FEATURES", url)
    yield url
    fsspec.filesystem("memory").store.clear()


def open_store(folder, monkeypatch, description=None):
    """Open a store on a machine whose cache is this folder."""
    monkeypatch.setenv("AFFEKT_CACHE", str(folder))
    return FeatureStore("made", description or {"feature": "made"})


@pytest.mark.usefixtures("url")
def test_features_of_one_machine_are_found_on_another(monkeypatch, tmp_path):
    first = open_store(tmp_path / "first", monkeypatch)
    assert KEY not in first
    first[KEY] = VALUES
    second = open_store(tmp_path / "second", monkeypatch)
    assert not second.path(KEY).exists()
    assert KEY in second
    np.testing.assert_array_equal(second[KEY], VALUES)
    assert "cd" * 32 not in second
    assert KEY not in open_store(tmp_path / "second", monkeypatch, {"feature": "other"})


def test_the_object_store_contains_arrays_and_their_description(url, monkeypatch, tmp_path):
    store = open_store(tmp_path, monkeypatch)
    store[KEY] = VALUES
    files = fsspec.filesystem("memory").find(url)
    assert files == [
        f"/bucket/features/{store.folder.name}/ab/{KEY}.npy",
        f"/bucket/features/{store.folder.name}/description.json",
    ]
    assert json.loads(fsspec.filesystem("memory").cat(files[1])) == {"feature": "made"}


@pytest.mark.usefixtures("url")
def test_features_that_were_stored_before_are_uploaded(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.delenv("AFFEKT_FEATURES")
        open_store(tmp_path / "first", patch)[KEY] = VALUES
    assert KEY in open_store(tmp_path / "first", monkeypatch)
    assert KEY in open_store(tmp_path / "second", monkeypatch)


@pytest.mark.usefixtures("url")
def test_a_truncated_array_counts_as_missing(monkeypatch, tmp_path):
    first = open_store(tmp_path / "first", monkeypatch)
    first[KEY] = VALUES
    memory = fsspec.filesystem("memory")
    (path,) = [name for name in memory.find("/bucket") if name.endswith(".npy")]
    memory.pipe(path, memory.cat(path)[:-1])
    assert KEY not in open_store(tmp_path / "second", monkeypatch)


def test_what_cannot_be_read_or_written_is_named(url, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise PermissionError("access denied")

    store = open_store(tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.memory.MemoryFileSystem.put_file", fail, raising=False)
        # Extraction reports other errors as those of an utterance, and goes on.
        with pytest.raises(BadOutput, match=f"{url}/made-.* cannot be written .*access denied.*AFFEKT_FEATURES"):
            store[KEY] = VALUES
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.find", fail, raising=False)
    with pytest.raises(AffektError, match=f"{url}/made-.* cannot be listed .*access denied"):
        open_store(tmp_path, monkeypatch)


@pytest.mark.parametrize("value", ["/mnt/features", "nothing://bucket"])
def test_a_setting_that_is_no_object_store_is_refused(value, monkeypatch, tmp_path):
    monkeypatch.setenv("AFFEKT_FEATURES", value)
    with pytest.raises(BadConfig, match=value):
        open_store(tmp_path, monkeypatch)


def test_the_cache_is_not_a_url(monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", "s3://bucket/cache")
    with pytest.raises(BadConfig, match=r"s3://bucket/cache.*AFFEKT_FEATURES"):
        cache_root()
