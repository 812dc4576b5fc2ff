import errno
import os
import stat

import pytest
from safetensors import SafetensorError

from affekt.errors import BadOutput
from affekt.files import atomic_folder, atomic_write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(path):
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")


def fill_half(path, *, replace=False):
    with atomic_folder(path, replace=replace) as temporary:
        (temporary / "file").touch()
        raise RuntimeError("stop")


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".result.txt.")
        assert str(os.getpid()) in temporary.name
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["result.txt"]


def test_a_failure_leaves_the_old_file_unchanged(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        write_half(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_two_writers_of_the_same_file_do_not_interfere(tmp_path):
    path = tmp_path / "result.txt"
    with atomic_write(path) as first, atomic_write(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer context is the last to finish
    assert names(tmp_path) == ["result.txt"]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_file_has_the_users_mode(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "private") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)  # as safetensors' save_file does
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "private")]
    assert modes[0] == modes[1]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "none" / "result.txt"):
        pass


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(RuntimeError, match="stop"):
        fill_half(path)
    assert names(tmp_path) == []
    with atomic_folder(path) as temporary:
        (temporary / "file").touch()
        assert not path.exists()
    assert names(path) == ["file"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_is_replaced_only_on_request_and_on_success(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(OSError, match="folder"), atomic_folder(path):
        pass
    with pytest.raises(RuntimeError, match="stop"):
        fill_half(path, replace=True)
    assert names(path) == ["old"]
    with atomic_folder(path, replace=True) as temporary:
        (temporary / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "x"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "x"),
        OSError("7296 requested and 6080 written"),  # numpy
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_to_be_full(error, tmp_path):
    for write in (atomic_write, atomic_folder):
        with pytest.raises(BadOutput, match="result: its disk is full: free some space"), write(tmp_path / "result"):
            raise error
    assert names(tmp_path) == []
