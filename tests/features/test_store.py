"""The feature store with concurrent and killed writers, and the commands `affekt features`."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from affekt.errors import AffektError, BadConfig, BadOutput, UnknownName
from affekt.features.store import FeatureStore, audio_key, file_hash, shape_of
from affekt.features.store_maintenance import LEFTOVER, plan_pruning, stored_features, verify
from affekt.files import atomic_write, cache_root
from affekt.utterance import Utterance
from tests.commands import affekt

DESCRIPTION = {"feature": "made", "dim": 4, "settings": {"blocks": [1, 2], "empty": "", "architecture": {"deep": 1}}}
DESCRIPTION |= {"device": "cpu", "threads": 2, "batched": True, "copy": {"number": 3, "seed": 0}}
KEY = "ab" + 62 * "0"


def make_frames(count=3, dim=4, value=1.5):
    return np.full((count, dim), value, np.float32)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path))
    return FeatureStore("made", DESCRIPTION)


def test_arrays_are_stored_as_16_bit_floats(store):
    values = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    assert KEY not in store
    store[KEY] = values
    assert KEY in store
    assert isinstance(store[KEY], np.memmap)
    np.testing.assert_array_equal(store[KEY], values.astype(np.float16))
    assert store.path(KEY) == store.folder / "ab" / f"{KEY}.npy"
    assert not list(store.folder.rglob(".*"))


def test_the_description_determines_the_folder_and_is_stored_in_it(store):
    assert json.loads((store.folder / "description.json").read_text()) == DESCRIPTION
    assert FeatureStore("made", dict(reversed(DESCRIPTION.items()))).folder == store.folder
    assert FeatureStore("made", {**DESCRIPTION, "dim": 5}).folder != store.folder
    (store.folder / "description.json").write_text("{")  # truncated by a full disk
    FeatureStore("made", DESCRIPTION)
    assert json.loads((store.folder / "description.json").read_text()) == DESCRIPTION


def test_values_that_16_bits_cannot_hold_are_refused(store):
    for value in (7e4, np.inf, np.nan):
        with pytest.raises(AffektError, match="65504"):
            store[KEY] = make_frames(value=value)
    assert KEY not in store


@pytest.mark.parametrize("length", [0, 5, 100, 140, -1])
def test_a_truncated_file_counts_as_missing(store, length):
    store[KEY] = make_frames()
    content = store.path(KEY).read_bytes()
    store.path(KEY).write_bytes(content[:length])
    assert KEY not in store
    with pytest.raises(AffektError, match=r"is damaged: run the same command again"):
        store[KEY]
    store[KEY] = make_frames()
    assert store.path(KEY).read_bytes() == content


def test_other_files_count_as_missing(store):
    store[KEY] = make_frames()
    with store.path(KEY).open("ab") as file:
        file.write(b"more")
    assert KEY not in store
    np.save(store.path(KEY), make_frames(), allow_pickle=False)  # 32 bits
    assert KEY not in store
    store.path(KEY).unlink()
    with pytest.raises(AffektError, match=r"is missing: run the same command again"):
        store[KEY]


def test_a_full_disk_leaves_nothing(store, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(BadOutput, match="its disk is full: free some space"):
        store[KEY] = make_frames()
    assert not list((store.folder / "ab").iterdir())


WRITER = """
import sys
import numpy as np
from affekt.features.store import FeatureStore
store = FeatureStore("made", {"feature": "made", "dim": 1000})
print("ready", flush=True)
for turn in range(int(sys.argv[2])):
    for number in range(10):
        shared, own = f"aa{number}", f"{sys.argv[1]}{number}"
        store[shared] = np.full((50, 1000), number, np.float32)
        store[own] = np.full((50, 1000), turn, np.float32)
        assert store[shared][-1, -1] == number
"""


def start_writer(name, turns):
    return subprocess.Popen([sys.executable, "-c", WRITER, name, str(turns)], stdout=subprocess.PIPE)


@pytest.mark.slow
def test_several_processes_can_write_the_same_keys_and_different_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path))
    processes = [start_writer(name, 10) for name in ("bb", "cc", "dd")]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    (stored,) = stored_features()
    assert len(stored.files) == 40
    assert not [reason for _, reason in verify(stored) if reason]


@pytest.mark.slow
def test_a_killed_writer_leaves_no_truncated_file(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path))
    for delay in (0.02, 0.05, 0.09):
        process = start_writer("bb", 10**6)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (stored,) = stored_features()
    assert stored.files
    assert all(shape_of(path) == (50, 1000) for path, _ in stored.files)


def test_the_key_depends_on_the_audio_and_the_segment(tmp_path):
    original, same, other = tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav"
    for path, content in ((original, b"sound"), (same, b"sound"), (other, b"noise")):
        path.write_bytes(content)
    keys = [
        audio_key(Utterance("x", "made", path, "angry", start=start, end=end))
        for path, start, end in (
            (original, 0.0, None),
            (same, 0.0, None),
            (other, 0.0, None),
            (original, 0.0, 1.0),
            (original, 0.5, 1.0),
        )
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_the_default_root_is_in_the_systems_cache(monkeypatch):
    for name in ("AFFEKT_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    assert cache_root().parts[-2:] == (".cache", "affekt")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache_root()) == "/somewhere/affekt"


def set_age(path, seconds):
    past = time.time() - seconds
    os.utime(path, (past, past))


def test_ls_lists_the_stored_features(store):
    store[KEY] = make_frames()
    (feature,) = json.loads(affekt("features", "ls", "--json").stdout)["features"]
    assert (feature["feature"], feature["dim"], feature["files"]) == ("made", 4, 1)
    assert feature["bytes"] == store.path(KEY).stat().st_size
    assert feature["settings"] == {"blocks": [1, 2], "copy": 3, "batched": True, "threads": 2}
    table = affekt("features", "ls").stdout
    assert store.folder.name in table
    assert "blocks=1,2" in table


def test_an_empty_store_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "none"))
    result = affekt("features", "ls")
    assert result.stdout == f"no features are stored in {tmp_path / 'none'}\n"
    assert affekt("features", "verify").returncode == 0
    assert plan_pruning(everything=True).size == 0


def test_verify_reports_damaged_files_and_removes_them(store):
    for number, values in enumerate(
        (make_frames(), make_frames(dim=5), make_frames(count=0), make_frames(), make_frames())
    ):
        store[f"ab{number}"] = values
    store.path("ab3").write_bytes(store.path("ab3").read_bytes()[:-1])
    content = bytearray(store.path("ab4").read_bytes())
    content[-2:] = np.float16(np.nan).tobytes()
    store.path("ab4").write_bytes(content)
    reasons = {path.stem: reason for path, reason in verify(stored_features()[0])}
    assert reasons["ab0"] == ""
    assert "(3, 5); expected (frames, 4), or (4,) without a time axis" in reasons["ab1"]
    assert "(0, 4)" in reasons["ab2"]
    assert "as long as its header states" in reasons["ab3"]
    assert "not finite" in reasons["ab4"]
    result = affekt("features", "verify", "made")
    assert result.returncode == 2
    assert "5 files of 1 feature, 4 damaged; --remove" in result.stdout
    removed = affekt("features", "verify", "--remove", "--json")
    assert removed.returncode == 0
    assert len(json.loads(removed.stdout)["damaged"]) == 4
    assert [path.stem for path, _ in stored_features()[0].files] == ["ab0"]


def test_verify_checks_the_description(store):
    path = store.folder / "description.json"
    path.write_text(path.read_text().replace("4", "5"))
    assert [reason for _, reason in verify(stored_features()[0])] == ["does not match the hash in the folder's name"]
    path.unlink()
    assert [reason for _, reason in verify(stored_features()[0])] == ["is missing or not a JSON object"]


def test_prune_deletes_named_or_old_features(store, tmp_path):
    other = FeatureStore("other", DESCRIPTION)
    store[KEY] = other[KEY] = make_frames()
    set_age(other.folder / "description.json", 3 * 86_400)
    (tmp_path / "features" / "mine").mkdir()  # not a store, so it must stay
    assert [feature.feature for feature in plan_pruning(older_than=2.0).stored] == ["other"]
    assert [feature.feature for feature in plan_pruning(["made"]).stored] == ["made"]
    assert [feature.feature for feature in plan_pruning([other.folder.name], older_than=4.0).stored] == []
    assert [feature.feature for feature in plan_pruning(everything=True).stored] == ["made", "other"]
    assert plan_pruning().stored == ()
    dry = affekt("features", "prune", "--all", "--dry-run")
    assert "would be freed" in dry.stdout
    assert store.folder.is_dir()
    pruned = json.loads(affekt("features", "prune", "made", "--json").stdout)
    assert pruned["bytes"] == plan_pruning(["other"]).size
    assert not store.folder.exists()
    assert KEY in other
    FeatureStore("other", DESCRIPTION)  # resets the time of last use
    assert plan_pruning(older_than=2.0).stored == ()
    plan_pruning(everything=True).delete()
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["mine"]


def test_the_temporary_file_of_a_killed_writer_is_recognized_as_a_leftover(store):
    store.path(KEY).parent.mkdir()
    with atomic_write(store.path(KEY)) as temporary:
        assert LEFTOVER.fullmatch(temporary.name)
    assert not LEFTOVER.fullmatch(store.path(KEY).name)


def test_prune_deletes_leftovers_and_not_files_being_written(store):
    store[KEY] = make_frames()
    old, new = (store.path(KEY).with_name(f".{digit * 32}") for digit in "01")
    for path in (old, new):
        path.write_bytes(b"half")
    set_age(old, 7200)
    pruning = plan_pruning()
    assert pruning.leftovers == ((old, 4),)
    pruning.delete()
    assert not old.exists()
    assert new.exists()
    assert KEY in store


def test_unknown_names_and_contradicting_options_are_refused(store):
    with pytest.raises(UnknownName, match=r"no feature 'mode'.*did you mean 'made'"):
        plan_pruning(["mode"])
    with pytest.raises(BadConfig, match=r"either names \(made\) or --all"):
        plan_pruning(["made"], everything=True)
    with pytest.raises(BadConfig, match=r"--older-than -1.0: expected a number of days"):
        plan_pruning(older_than=-1.0)
    assert store.folder.is_dir()


@pytest.mark.slow
def test_the_commands_need_no_torch(store):
    code = "import sys; sys.modules['torch'] = None; from affekt.cli import app; app(['features', 'verify'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "0 files of 1 feature, 0 damaged\n"), store.folder


def test_vectors_without_time_are_valid(tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path))
    store = FeatureStore("voice", {"dim": 4})
    store["ab1"], store["ab2"] = np.ones(4), np.ones(5)
    (stored,) = stored_features()
    reasons = {path.stem: reason for path, reason in verify(stored)}
    assert not reasons["ab1"]
    assert "(5,); expected (frames, 4), or (4,) without a time axis" in reasons["ab2"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_has_no_hash(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(OSError, match="it is not a regular file"):
        file_hash(tmp_path / "pipe.wav")
