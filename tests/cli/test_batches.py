"""A batch on the command line always ends: a file that hangs or fails does not end it, and two runs do not mix their rows."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from affekt.terminal import escape_controls
from tests.cli.test_cli import AFFEKT, ENVIRONMENT, affekt, needs_pipes, rows, run_on_terminal
from tests.sounds import encode_audio, noise, tone

pytestmark = pytest.mark.slow  # most of its tests start a process


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.wav"
    path.write_bytes(encode_audio(tone()))
    return path


@needs_pipes
def test_a_file_that_hangs_is_given_up_and_the_others_are_recognized(tmp_path, good, tiny_bundle):
    os.mkfifo(tmp_path / "pipe.wav")
    start = time.monotonic()
    run = affekt(
        "recognize", tmp_path / "pipe.wav", good, "--json", "--model", tiny_bundle, "--timeout", 0.5, "--output", "o.csv",
        folder=tmp_path,
    )  # fmt: skip
    assert time.monotonic() - start < 30
    assert run.returncode == 2
    assert [row["error"] and row["error"]["code"] for row in rows(run)] == ["timeout", None]
    assert run.stderr == "o.csv: 2 files, 1 failed\n"


@pytest.mark.parametrize("timeout", ["0", "-1", "nan"])
def test_a_time_limit_that_is_not_positive_is_refused(good, tiny_bundle, timeout):
    run = affekt("recognize", good, "--model", tiny_bundle, "--timeout", timeout)
    assert run.returncode == 2
    assert "expected a positive number of seconds" in run.stderr
    assert "Traceback" not in run.stderr


# A decoder that fails for files whose name contains "bad", and that writes to standard error as C libraries do.
FAILING = """
import os, sys
from affekt.audio import read
decode = read._file_blocks
def fail(stream, reading):
    if "bad" in reading.name:
        os.write(2, b"[mp3 @ 0x1] invalid frame\\n")
        raise UnicodeDecodeError("utf-8", b"\\xb8", 0, 1, "invalid start byte")
    return decode(stream, reading)
read._file_blocks = fail
from affekt.cli import main
main()
"""


@pytest.mark.parametrize("debug", [False, True])
def test_whatever_a_decoder_raises_becomes_a_row(tmp_path, good, tiny_bundle, debug):
    (tmp_path / "bad.wav").write_bytes(encode_audio(tone()))
    options = ["--debug"] if debug else []
    run = affekt(
        "recognize", "bad.wav", good.name, "--json", "--model", tiny_bundle, *options,
        folder=tmp_path, python=[sys.executable, "-c", FAILING],
    )  # fmt: skip
    assert run.returncode == 2
    assert [row["status"] for row in rows(run)] == ["error", "ok"]
    assert rows(run)[0]["error"] == {
        "code": "undecodable",
        "message": "bad.wav cannot be decoded: UnicodeDecodeError: 'utf-8' codec can't decode byte 0xb8 in position 0: "
        "invalid start byte",
    }
    assert ("Traceback" in run.stderr) == debug
    assert ("invalid frame" in run.stderr) == debug
    assert run.stderr.endswith("2 files, 1 failed\n")
    if not debug:
        assert run.stderr == "2 files, 1 failed\n"


@pytest.mark.parametrize("debug", [False, True])
def test_whatever_a_decoder_raises_is_a_finding_of_corpus_check(tmp_path, debug):
    folder = tmp_path / "happy"
    folder.mkdir()
    for name in ("a.wav", "bad.wav", "c.wav"):
        (folder / name).write_bytes(encode_audio(noise(16_000, seed=ord(name[0]))))
    options = ["--debug"] if debug else []
    run = affekt("corpus", "check", "folder", tmp_path, *options, python=[sys.executable, "-c", FAILING])
    assert run.returncode == 1
    assert "1 unreadable utterance: happy/bad.wav" in run.stdout
    assert "cannot be decoded: UnicodeDecodeError" in run.stdout
    assert ("Traceback" in run.stderr, "invalid frame" in run.stderr) == (debug, debug)


@needs_pipes
@pytest.mark.usefixtures("good")
def test_a_second_run_with_the_same_output_fails_at_once(tmp_path, tiny_bundle):
    os.mkfifo(tmp_path / "pipe.wav")  # the first run waits here
    arguments = ["recognize", "good.wav", "pipe.wav", "--model", str(tiny_bundle), "--output", "rows.jsonl"]
    with subprocess.Popen([*AFFEKT, *arguments], env=ENVIRONMENT, cwd=tmp_path) as process:
        try:
            deadline = time.monotonic() + 30
            while not (tmp_path / "rows.jsonl").exists() or not (tmp_path / "rows.jsonl").read_bytes():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            second = affekt(*arguments, folder=tmp_path)
        finally:
            process.kill()
    assert second.returncode == 2
    assert second.stderr == (
        "affekt: results file rows.jsonl is being written by another run: wait until it has ended, or choose another file\n"
    )
    third = affekt(*arguments, "--timeout", 0.5, folder=tmp_path)  # the killed run's lock is gone
    assert third.stderr == "rows.jsonl: 2 files, 1 from an earlier run, 1 failed\n"


def test_a_changed_file_is_recognized_again(tmp_path, good, tiny_bundle):
    arguments = ["recognize", "good.wav", "--json", "--model", tiny_bundle, "--output", "rows.csv"]
    first = affekt(*arguments, folder=tmp_path)
    assert affekt(*arguments, folder=tmp_path).stderr == "rows.csv: 1 file, 1 from an earlier run, 0 failed\n"
    good.write_bytes(encode_audio(noise(32_000)))
    again = affekt(*arguments, folder=tmp_path)
    assert again.stderr == "rows.csv: 1 file, 0 failed\n"
    assert (rows(first)[0]["duration"], rows(again)[0]["duration"]) == (1.0, 2.0)
    assert list(rows(again)[0]) == list(rows(first)[0])


def test_the_progress_bar_shows_how_far_a_long_file_is(tmp_path, tiny_bundle):
    (tmp_path / "long.wav").write_bytes(encode_audio(noise(300 * 16_000)))
    status, output = run_on_terminal("recognize", "long.wav", "--model", tiny_bundle, folder=tmp_path)
    assert status == 0
    assert "recognizing long.wav" in output


ODD_NAMES = {
    "line\nbreak": r"line\nbreak",
    "return\rhere": r"return\rhere",
    "color\x1b[31m": r"color\x1b[31m",
    "title\x1b]0;x\x07": r"title\x1b]0;x\x07",
    "c1\x9b31m": r"c1\x9b31m",
    "nel\x85x": r"nel\x85x",
    "bidi\u202egpj": r"bidi\u202egpj",
    "isolate\u2066x": r"isolate\u2066x",
    "separator\u2028x": r"separator\u2028x",
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not allow these names")
def test_control_characters_in_names_are_escaped_on_the_terminal(tmp_path, tiny_bundle):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ODD_NAMES:
        (folder / f"{name}.wav").write_bytes(encode_audio(tone()))
        (folder / f"{name}-bad.wav").write_bytes(b"no audio")
    run = affekt("recognize", ".", "--model", tiny_bundle, folder=folder)
    assert len(run.stdout.splitlines()) == 2 * len(ODD_NAMES)
    assert all(line.isprintable() for line in run.stdout.splitlines())
    for escaped in ODD_NAMES.values():
        assert f"{escaped}.wav" in run.stdout
        assert f"{escaped}-bad.wav" in run.stdout
    run = affekt("recognize", ".", "--json", "--model", tiny_bundle, folder=folder)
    assert {row["file"] for row in rows(run)} == {f"{name}{end}" for name in ODD_NAMES for end in (".wav", "-bad.wav")}
    _, output = run_on_terminal("recognize", ".", "--model", tiny_bundle, folder=folder, columns=200)
    assert "\x1b[31m.wav" not in output
    assert "\x1b]" not in output
    assert not {"\x85", "\x9b", "\u202e", "\u2066", "\u2028"} & set(output)
    missing = affekt(
        "recognize", "no\x1b[31m\nsuch.wav", "--model", tiny_bundle, "--output", "a\x1b[31m.txt", folder=folder
    )
    assert "\x1b" not in missing.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not allow these names")
def test_corpus_check_escapes_control_characters(tmp_path):
    (tmp_path / "happy").mkdir()
    for name in ODD_NAMES:
        (tmp_path / "happy" / f"{name}.wav").write_bytes(encode_audio(np.zeros(16_000)))
    run = affekt("corpus", "check", "folder", tmp_path)
    assert all(line.isprintable() for line in run.stdout.splitlines())
    assert r"color\x1b[31m" in run.stdout


def test_ordinary_names_are_not_escaped():
    for name in ("grüß dich.wav", "日本語", "العربية", "می‌خواهم", "👩‍👩‍👧", "a b"):
        assert escape_controls(name) == name
    assert escape_controls("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def run_in_shell(redirection, *arguments):
    command = f"{shlex.join([*AFFEKT, *map(str, arguments)])} {redirection}"
    return subprocess.run(command, shell=True, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=60)


@needs_pipes
def test_messages_are_not_printed_on_standard_output_if_standard_error_is_closed(tmp_path, good, tiny_bundle):
    run = run_in_shell("2>&-", "recognize", good, tmp_path / "no.wav", "--json", "--model", tiny_bundle)
    assert run.returncode == 2
    assert [row["status"] for row in rows(run)] == ["ok", "error"]


@needs_pipes
def test_standard_output_may_be_closed(tmp_path, good, tiny_bundle):
    output = tmp_path / "o.jsonl"
    run = run_in_shell(">&-", "recognize", good, "--json", "--model", tiny_bundle, "--output", output)
    assert (run.returncode, run.stderr) == (0, f"{output}: 1 file, 0 failed\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--json"], []])
def test_a_full_disk_under_standard_output_is_reported_once(good, tiny_bundle, arguments):
    run = run_in_shell("> /dev/full", "recognize", good, "--model", tiny_bundle, *arguments)
    assert (run.returncode, run.stderr) == (2, "affekt: output: No space left on device\n")
