"""Files are recognized in several processes with the same rows as in one, whatever happens to the processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from affekt import AffektError, BadConfig, Recognizer, learn_profile, recognize_files
from affekt.inference import worker_pool
from affekt.inference.worker_pool import choose_jobs, recognition_pool
from affekt.processes import describe_status
from tests.cli.test_cli import AFFEKT, ENVIRONMENT, affekt, needs_pipes, rows
from tests.conftest import write_tiny_bundle
from tests.sounds import babble, encode_audio, noise, tone

pytestmark = pytest.mark.slow  # starts worker processes

DYING = "tests.inference.dying_worker:work"


@pytest.fixture
def clips(tmp_path):
    """Return a folder with six clips, one of them long, one silent and one that is no audio."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        (folder / f"{name}.wav").write_bytes(encode_audio(noise(16_000, seed=seed)))
    (folder / "d-long.wav").write_bytes(encode_audio(babble(40 * 16_000)))
    (folder / "e.wav").write_bytes(b"no audio")
    (folder / "f.wav").write_bytes(encode_audio(np.zeros(16_000)))
    return folder


def is_running(process_id):
    """Return whether a process runs; one that has ended may still be in the table of processes."""
    try:
        os.kill(process_id, 0)
        return Path(f"/proc/{process_id}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return sys.platform != "linux"


# The same rows


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_order_and_results_are_those_of_one_process(recognizer, clips, tmp_path, workers, suffix):
    contents = []
    for jobs in (1, 2):
        output, calls, windows = tmp_path / f"rows-{jobs}.{suffix}", [], []
        result = list(
            recognize_files(
                [clips], output, recognizer=recognizer, jobs=jobs, on_window=windows.append,
                progress=lambda *arguments, calls=calls: calls.append(arguments),
            )
        )  # fmt: skip
        again = list(recognize_files([clips], output, recognizer=recognizer))
        assert [row.resumed for row in again] == [row.status != "error" for row in result]
        contents.append((result, windows, calls, output.read_bytes()))
    assert contents[0] == contents[1]
    assert len(contents[0][1]) == len(contents[0][0][3].windows) > 1
    assert len(workers) == 2
    assert not any(map(is_running, workers))


def test_a_profile_is_the_same_and_is_applied_in_workers(tmp_path, workers):
    write_tiny_bundle(tmp_path / "adaptable", ("angry", "happy", "sad"), adaptable=True)
    recognizer = Recognizer.load(tmp_path / "adaptable")
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed in range(12):
        (folder / f"{seed:02}.wav").write_bytes(encode_audio((0.02 + 0.05 * seed) * noise(16_000, seed=seed)))
    (folder / "bad.wav").write_bytes(b"no audio")
    sources = [folder, noise(16_000, seed=20)]
    profiles = [learn_profile(sources[:1], recognizer=recognizer, jobs=jobs) for jobs in (1, 2)]
    assert profiles[0] == profiles[1]
    assert profiles[0].skipped == {"error": 1}
    assert len(workers) == (4 if profiles[0].strength else 2)
    adapted = recognizer.adapt(profiles[0])
    in_one, in_two = (list(recognize_files([folder], recognizer=adapted, jobs=jobs)) for jobs in (1, 2))
    assert in_one == in_two
    assert in_one[0].profile == profiles[0].row_field()


@needs_pipes
def test_standard_input_is_read_by_the_command_itself_in_its_turn(clips, tiny_bundle):
    files = ["a.wav", "-", "b.wav", "c.wav"]
    run = subprocess.run(
        [*AFFEKT, "recognize", *files, "--json", "--jobs", "2", "--model", str(tiny_bundle)],
        input=encode_audio(tone()), cwd=clips, env=ENVIRONMENT, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    found_rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["file"] for row in found_rows] == files
    assert {row["status"] for row in found_rows} == {"ok"}


def test_a_file_name_that_is_not_unicode_reaches_the_worker(tmp_path, tiny_bundle):
    name = os.fsdecode(b"caf\xe9.wav")
    try:
        (tmp_path / name).write_bytes(encode_audio(tone()))
    except OSError:
        pytest.skip("the file system allows no such name")
    (tmp_path / "b.wav").write_bytes(encode_audio(tone()))
    run = affekt("recognize", ".", "--json", "--jobs", 2, "--model", tiny_bundle, folder=tmp_path)
    assert [(row["file"], row["status"]) for row in rows(run)] == [("b.wav", "ok"), (r"caf\udce9.wav", "ok")]


# Workers that die


def test_a_file_with_which_workers_die_is_tried_twice_and_fails_alone(recognizer, clips, workers, monkeypatch, caplog):
    monkeypatch.setattr(worker_pool, "ENTRY", DYING)
    (clips / "b.wav").rename(clips / "b-dies.wav")
    (clips / "c.wav").rename(clips / "c-once.wav")
    results = {row.file: row for row in recognize_files([clips], recognizer=recognizer, jobs=2)}
    codes = {name.removeprefix(f"{clips}{os.sep}"): row.error and row.error["code"] for name, row in results.items()}
    assert codes == {
        "a.wav": None, "b-dies.wav": "crashed", "c-once.wav": None, "d-long.wav": None, "e.wav": "not_audio", "f.wav": None,
    }  # fmt: skip
    assert "exit status 3" in results[str(clips / "b-dies.wav")].error["message"]
    assert len([record for record in caplog.records if "retrying once" in record.message]) == 2
    assert 4 <= len(workers) <= 5
    assert not any(map(is_running, workers))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_worker_that_is_killed_is_replaced_and_its_long_file_continues(recognizer, tmp_path, workers):
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(encode_audio(babble(300 * 16_000)))
    killed = []

    def kill_first(_):
        if not killed:
            killed.extend(workers)
            for process_id in killed:
                os.kill(process_id, signal.SIGKILL)

    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    result = list(recognize_files(files, tmp_path / "rows.csv", recognizer=recognizer, jobs=2, on_window=kill_first))
    assert result == list(recognizer.rows(files))
    assert killed
    assert 3 <= len(workers) <= 4
    assert not list(tmp_path.glob("*.partial.jsonl"))


def test_workers_that_cannot_start_are_an_error(recognizer, clips, workers, monkeypatch):
    monkeypatch.setattr(worker_pool, "ENTRY", "tests.inference.dying_worker:never_ready")
    with pytest.raises(AffektError, match=r"exit status 4.*ready"):
        list(recognize_files([clips], recognizer=recognizer, jobs=2))
    assert not any(map(is_running, workers))


def test_a_bundle_that_changes_before_a_worker_loads_it_is_an_error(clips, tmp_path, workers):
    write_tiny_bundle(tmp_path / "bundle", ("happy", "sad"))
    recognizer = Recognizer.load(tmp_path / "bundle")
    labels = tmp_path / "bundle" / "labels.json"
    labels.write_text(labels.read_text("utf-8").replace("sad", "mad"), "utf-8")
    with pytest.raises(AffektError):
        list(recognize_files([clips], recognizer=recognizer, jobs=2))
    assert not any(map(is_running, workers))


@needs_pipes
def test_a_worker_whose_decoder_hangs_is_replaced(recognizer, clips, workers):
    os.mkfifo(clips / "pipe.wav")
    files = [clips / name for name in ("pipe.wav", "a.wav", "b.wav", "c.wav")]
    result = list(recognize_files(files, recognizer=recognizer, jobs=2, timeout=3.0))
    assert [row.error and row.error["code"] for row in result] == ["timeout", None, None, None]
    assert not any(map(is_running, workers))


# Interruptions


def test_an_early_end_keeps_what_is_finished_and_leaves_no_process(recognizer, clips, tmp_path, workers):
    output = tmp_path / "rows.jsonl"
    run = recognize_files([clips], output, recognizer=recognizer, jobs=2)
    first = next(run)
    run.close()
    assert not any(map(is_running, workers))
    assert first.file in {json.loads(line)["file"] for line in output.read_text("utf-8").splitlines()}
    resumed = list(recognize_files([clips], output, recognizer=recognizer, jobs=2))
    assert resumed[0].resumed
    assert [json.loads(line)["file"] for line in output.read_text("utf-8").splitlines()] == [
        row.file for row in resumed
    ]


def children(process_id):
    """Return the ids of the processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{process_id}/task/{process_id}/children").read_text("utf-8").split()]


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_command_leaves_no_process_and_is_resumed(tmp_path, tiny_bundle, sent):
    for number in range(4):
        (tmp_path / f"{number}.wav").write_bytes(encode_audio(babble(16_000, seed=number)))
    pipes = ["pipe-1.wav", "pipe-2.wav"]  # the workers wait here
    for name in pipes:
        os.mkfifo(tmp_path / name)
    output = tmp_path / "rows.jsonl"
    files = [*(f"{number}.wav" for number in range(4)), *pipes]
    arguments = ["recognize", *files, "--model", str(tiny_bundle), "--output", "rows.jsonl", "--jobs", "2"]
    command = [*AFFEKT, *arguments]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background inherits "ignored"
    try:
        process = subprocess.Popen(command, env=ENVIRONMENT, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, handler)
    with process:
        try:
            deadline = time.monotonic() + 60
            while not output.exists() or output.read_bytes().count(b"\n") < 4:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            started = children(process.pid)
            process.send_signal(sent)
            _, messages = process.communicate(timeout=60)
        finally:
            process.kill()
    assert len(started) == 2
    while any(map(is_running, started)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if sent == signal.SIGINT:
        assert messages == "interrupted; run the same command again to continue rows.jsonl\n"
    assert output.read_bytes().count(b"\n") == 4
    resumed = affekt(*arguments, "--timeout", 1, folder=tmp_path)
    assert resumed.stderr == "rows.jsonl: 6 files, 4 from an earlier run, 2 failed\n"


# Numbers of jobs and threads


def write_empty(folder, count, size):
    """Write files of a size, which take no space on most disks."""
    paths = [folder / f"{size}-{number}.wav" for number in range(count)]
    for path in paths:
        with path.open("wb") as stream:
            stream.truncate(size)
    return paths


def test_workers_are_started_only_where_they_save_time(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_pool, "usable_cores", lambda: 4)
    few, long = write_empty(tmp_path, 20, 80_000), write_empty(tmp_path, 3, 100_000_000)
    assert choose_jobs(None, few) == 1
    assert choose_jobs(None, few * 5) == 4
    assert choose_jobs(None, few * 5, threads=2) == 2
    assert choose_jobs(None, few * 5, threads=8) == 1
    assert choose_jobs(None, long) == 3
    assert choose_jobs(None, long[:1]) == 1
    assert choose_jobs(2, few[:3]) == 2
    assert choose_jobs(9, few[:3]) == 3
    assert choose_jobs(9, [few[0], "-", np.zeros(16_000), "/dev/stdin"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "jobs 0: expected 1 to"),
        ({"jobs": 9999}, "jobs 9999: expected 1 to"),
        ({"jobs": -1}, "jobs -1: expected 1 to"),
    ],
)
def test_a_number_of_jobs_out_of_range_is_refused(recognizer, clips, options, message):
    with pytest.raises(BadConfig, match=message):
        list(recognize_files([clips], recognizer=recognizer, **options))
    with pytest.raises(BadConfig, match=message):
        learn_profile([clips], recognizer=recognizer, **options)


@pytest.mark.parametrize("threads", [0, 9999])
def test_a_number_of_threads_out_of_range_is_refused(tiny_bundle, threads):
    with pytest.raises(BadConfig, match=f"threads {threads}: expected 1 to"):
        Recognizer.load(tiny_bundle, threads=threads)


def test_too_many_threads_of_all_jobs_together_are_refused(tiny_bundle, clips):
    most = 2 * os.cpu_count()
    recognizer = Recognizer.load(tiny_bundle, threads=most)
    with pytest.raises(BadConfig, match=f"jobs times threads: {2 * most}"):
        list(recognize_files([clips], recognizer=recognizer, jobs=2))


def test_jobs_and_threads_out_of_range_are_refused_on_the_command_line(clips, tiny_bundle):
    for command in (["recognize"], ["adapt", "--output", "p.affekt"]):
        for option in ("--threads", "--jobs"):
            run = affekt(*command, clips, option, 9999, "--model", tiny_bundle, folder=clips)
            assert run.returncode == 2
            assert f"{option[2:]} 9999: expected 1 to {2 * os.cpu_count()}" in run.stderr
            assert "Traceback" not in run.stderr


def test_a_pool_lists_its_processes_and_ends_them(recognizer):
    class Silence:
        name = "missing.wav"

        def request(self):
            return {"do": "recognize", "path": self.name, "lenient": False, "timeout": None, "windows": []}

    with recognition_pool(recognizer, 1) as pool:
        ((_, message),) = pool.run([Silence()])
        (process_id,) = pool.ids
        assert is_running(process_id)
    assert message["row"]["error"]["code"] == "missing"
    assert not is_running(process_id)


def test_the_end_of_a_process_is_described():
    assert describe_status(3) == "exit status 3"
    if sys.platform != "win32":
        assert describe_status(-9) == "signal SIGKILL"
