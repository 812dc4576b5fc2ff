"""The command line, mostly in separate processes: output, exit status, resumption, terminal display and imports."""

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from affekt import Recognizer, __version__
from affekt.cli import main
from tests.sounds import babble, encode_audio, encode_media, noise, tone

AFFEKT = [sys.executable, "-W", "error", "-m", "affekt"]
# Without the variables that describe the terminal from which the tests are run.
ENVIRONMENT = {
    key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"}
}
HEAVY = {"torch", "onnxruntime", "numpy", "soundfile", "soxr", "av", "pyarrow", "transformers"}

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def affekt(*arguments, folder=None, python=AFFEKT, **environment):
    """Run the command in its own process, and return the completed process."""
    return subprocess.run(
        [*python, *map(str, arguments)],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def rows(run):
    """Return the rows that a run printed as JSON."""
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture
def clips(tmp_path):
    """Return a folder with two good clips, one of them in nested folders, a silent one and a truncated one."""
    folder = tmp_path / "clips"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.wav").write_bytes(encode_audio(noise(16_000)))
    (folder / "b.flac").write_bytes(encode_audio(tone(), format="FLAC")[:-500])
    (folder / "c.wav").write_bytes(encode_audio(np.zeros(16_000)))
    (folder / "deep" / "er" / "d.ogg").write_bytes(encode_audio(tone(2), format="OGG"))
    (folder / "notes.txt").write_text("no audio")
    return folder


# Output for programs


def test_json_prints_one_row_per_line_as_python_returns_it(clips, tiny_bundle):
    run = affekt("recognize", "clips", "--json", "--model", tiny_bundle, folder=clips.parent)
    assert [row["file"] for row in rows(run)] == ["clips/a.wav", "clips/b.flac", "clips/c.wav", "clips/deep/er/d.ogg"]
    assert [row["status"] for row in rows(run)] == ["ok", "error", "silence", "ok"]
    recognizer = Recognizer.load(tiny_bundle)
    assert [row | {"file": ""} for row in (rows(run)[0], rows(run)[3])] == [
        recognizer(clips / name) | {"file": ""} for name in ("a.wav", "deep/er/d.ogg")
    ]


@pytest.mark.slow
def test_one_failure_gives_status_2_and_the_other_files_are_recognized(clips, tiny_bundle):
    run = affekt("recognize", clips, clips / "no.wav", clips / "a.wav", "--json", "--model", tiny_bundle)
    assert run.returncode == 2
    assert [row["error"] and row["error"]["code"] for row in rows(run)] == [None, "truncated", None, None, "missing"]
    assert run.stderr == "5 files, 2 failed\n"


@pytest.mark.slow
def test_success_gives_status_0_and_no_message(clips, tiny_bundle):
    run = affekt("recognize", clips / "a.wav", clips / "c.wav", "--json", "--model", tiny_bundle)
    assert (run.returncode, run.stderr, len(rows(run))) == (0, "", 2)


@pytest.mark.slow
def test_a_folder_without_audio_is_an_error(tmp_path, tiny_bundle):
    run = affekt("recognize", ".", "--json", "--model", tiny_bundle, folder=tmp_path)
    assert run.returncode == 2
    assert rows(run)[0]["error"] == {
        "code": "folder",
        "message": ". is a folder: expected an audio file or, on the command line, a folder with audio files",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.wav", "--model", "nowhere"], r"affekt: nowhere is not a bundle: expected a folder with model\.onnx, .*\n"),
        (
            ["a.wav", "--model", "BUNDLE", "--output", "rows.txt"],
            r"affekt: results file rows.txt: expected a name ending in .*\n",
        ),
    ],
)
def test_an_affekt_error_is_printed_as_one_line_with_status_2(clips, tiny_bundle, arguments, message):
    run = affekt(
        "recognize", *[str(tiny_bundle) if argument == "BUNDLE" else argument for argument in arguments], folder=clips
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert re.fullmatch(message, run.stderr)


FROM_DEFAULT = ["train", "--from", "default"]
OWN_DATA = ["--corpus", "folder:clips", "--output", "mine"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "no recipe: expected a recipe (affekt train default)"),
        (["train", "defualt"], "recipe 'defualt' not found; did you mean 'default'?"),
        (
            ["train", "default", "--corpus", "emodb"],
            "--corpus, --column, --emotion, --layout, --delimiter and --annotators need --from",
        ),
        (["train", "default", "training.epoch=3"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (FROM_DEFAULT, "--from needs --corpus with your data"),
        ([*FROM_DEFAULT, "default", *OWN_DATA], "'default' is not KEY=VALUE"),
        ([*FROM_DEFAULT, *OWN_DATA], "expected EMOTION/FILE or SPEAKER/EMOTION/FILE"),
        ([*FROM_DEFAULT, "--corpus", "folder:nowhere", "--output", "mine"], "nowhere is not a folder"),
        ([*FROM_DEFAULT, "--corpus", "clips", "--output", "mine"], "for your own data: folder:clips or table:clips"),
        ([*FROM_DEFAULT, *OWN_DATA[:2], "--output", "clips"], "clips exists and is not a bundle"),
        (["train", "--from", "defalt", *OWN_DATA], "did you mean 'default'?"),
        (["evaluate", "nowhere", "emodb"], "nowhere not found"),
        (["evaluate", "default", "emodbb"], "there is no corpus 'emodbb'; did you mean 'emodb'?"),
        (["evaluate", "default", "emodb", "--selection", "lsat"], "no selection rule 'lsat'; did you mean 'last'?"),
        (["evaluate", "clips", "emodb"], "clips is not a bundle"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_of_train_and_evaluate_are_explained(clips, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(clips.parent)
    monkeypatch.setattr(sys, "argv", ["affekt", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    printed = capsys.readouterr().err
    assert exit.value.code == 2
    assert printed.startswith("affekt: ")
    assert message in printed
    assert printed.count("\n") == 1
    assert not (clips.parent / "runs").exists()


@pytest.mark.slow
def test_json_is_utf8_in_any_locale(tmp_path, tiny_bundle):
    (tmp_path / "grüß dich 日本.wav").write_bytes(encode_audio(tone()))
    run = affekt("recognize", ".", "--json", "--model", tiny_bundle, folder=tmp_path, PYTHONIOENCODING="ascii")
    assert [row["file"] for row in rows(run)] == ["grüß dich 日本.wav"]
    assert "grüß" in run.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_a_file_name_that_is_not_unicode_is_recognized_and_resumed(tmp_path, tiny_bundle):
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(encode_audio(tone()))
    for suffix in ("jsonl", "csv", "parquet"):
        for _ in "first", "again":
            run = affekt("recognize", ".", "--json", "--model", tiny_bundle, "--output", f"o.{suffix}", folder=tmp_path)
            assert (run.returncode, rows(run)[0]["file"]) == (0, r"caf\udce9.wav")
    assert "1 file, 1 from an earlier run, 0 failed" in run.stderr


@pytest.mark.slow
def test_a_closed_pipe_causes_no_traceback(clips, tiny_bundle):
    for number in range(200):
        (clips / f"{number}.wav").hardlink_to(clips / "a.wav")
    command = [*AFFEKT, "recognize", str(clips), "--json", "--model", str(tiny_bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
    assert b"Traceback" not in stderr
    assert process.returncode not in (0, 2)


@pytest.mark.slow
def test_media_without_pyav_name_the_extra_and_other_files_are_recognized(tmp_path, tiny_bundle):
    (tmp_path / "a.m4a").write_bytes(encode_media(tone(1, 48_000), 48_000, "ipod", "aac"))
    (tmp_path / "b.wav").write_bytes(encode_audio(tone()))
    run = affekt("recognize", ".", "--json", "--model", tiny_bundle, folder=tmp_path, **hide_modules(tmp_path, "av"))
    assert run.returncode == 2
    assert [row["status"] for row in rows(run)] == ["error", "ok"]
    assert rows(run)[0]["error"] == {
        "code": "missing_extra",
        "message": "reading a.m4a needs av: pip install 'affekt[media]'",
    }
    assert affekt("recognize", ".", "--model", tiny_bundle, folder=tmp_path).returncode == 0


# Interruption


@pytest.mark.slow
@needs_pipes
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_killed_run_resumes_without_repeating(tmp_path, tiny_bundle, suffix):
    output = tmp_path / f"rows{suffix}"
    journal = output if suffix == ".jsonl" else tmp_path / f"rows{suffix}.partial.jsonl"
    clips = [tmp_path / name for name in ("1.wav", "2.wav", "3.wav", "4.wav")]
    for clip in clips[:2]:
        clip.write_bytes(encode_audio(noise(16_000)))
    os.mkfifo(clips[2])  # nothing is written to it, so the run waits here until it is killed
    arguments = ["recognize", *map(str, clips), "--model", str(tiny_bundle), "--output", str(output)]
    with subprocess.Popen([*AFFEKT, *arguments], env=ENVIRONMENT) as process:
        done = wait_for_lines(journal, 2)
        process.kill()
    assert process.returncode == -signal.SIGKILL

    for clip in clips[:2]:
        status = clip.stat()
        clip.write_bytes(bytes(status.st_size))  # recognizing it again would fail, but it looks unchanged
        os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns))
    clips[2].unlink()
    for clip in clips[2:]:
        clip.write_bytes(encode_audio(tone()))
    run = affekt(*arguments, "--json")
    assert run.returncode == 0
    assert run.stderr == f"{output}: 4 files, 2 from an earlier run, 0 failed\n"
    stored = [json.loads(line) for line in done.splitlines()]
    assert [{key: row[key] for key in row if key != "source"} for row in stored] == rows(run)[:2]
    assert [(row["file"], row["status"]) for row in rows(run)] == [(str(clip), "ok") for clip in clips]

    again = affekt(*arguments, "--json")
    assert rows(again) == rows(run)
    assert again.stderr == f"{output}: 4 files, 4 from an earlier run, 0 failed\n"
    assert journal.exists() == (suffix == ".jsonl")
    if suffix == ".jsonl":
        assert output.read_bytes().startswith(done)
        assert output.read_bytes().count(b"\n") == 4


def wait_for_lines(path, count):
    """Return the content of a file as soon as it has this number of lines."""
    for _ in range(3000):
        with contextlib.suppress(FileNotFoundError):
            if (content := path.read_bytes()).count(b"\n") >= count:
                return content
        time.sleep(0.01)
    raise AssertionError(f"{path.name} did not get {count} lines within 30 s")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_only_failed_files_are_retried(clips, tiny_bundle, name):
    arguments = ["recognize", ".", "--model", tiny_bundle, "--output", name]
    assert affekt(*arguments, folder=clips).stderr == f"{name}: 4 files, 1 failed\n"
    assert affekt(*arguments, folder=clips).stderr == f"{name}: 4 files, 3 from an earlier run, 1 failed\n"
    (clips / "b.flac").write_bytes(encode_audio(tone(), format="FLAC"))
    again = affekt(*arguments, folder=clips)
    assert again.returncode == 0
    assert again.stderr == f"{name}: 4 files, 3 from an earlier run, 0 failed\n"
    content = (clips / name).read_text(encoding="utf-8")
    assert content.count("b.flac") == 1
    assert "truncated" not in content


@pytest.mark.slow
def test_an_empty_file_name_is_refused(clips, tiny_bundle):
    run = affekt("recognize", "", "--model", tiny_bundle, folder=clips)
    assert run.returncode == 2
    assert "one of the file names is empty" in run.stderr


@pytest.mark.slow
def test_with_an_output_only_failures_are_shown(clips, tiny_bundle):
    run = affekt("recognize", ".", "--model", tiny_bundle, "--output", "rows.jsonl", folder=clips)
    (line,) = run.stdout.splitlines()
    assert re.match(r"b.flac +is damaged or cut off: ", line)


# Text output


@pytest.mark.slow
def test_piped_text_has_no_colors_and_complete_names(clips, tiny_bundle):
    longest = "deep/" + "and-then-some-" * 10 + ".wav"
    (clips / longest).write_bytes(encode_audio(tone()))
    run = affekt("recognize", ".", "--model", tiny_bundle, folder=clips)
    assert "\x1b" not in run.stdout
    lines = run.stdout.splitlines()
    assert len(lines) == 5
    emotion = r"(angry|disgust|fear|happy|neutral|sad) +[█▏▎▍▌▋▊▉ ]{20} +\d+%  [a-z]+ \d+%"
    assert re.fullmatch(rf"a.wav +1.0 s  {emotion}", lines[0])
    assert re.fullmatch(r"b.flac +is damaged or cut off: .+", lines[1])
    assert re.fullmatch(r"c.wav +1.0 s  silence", lines[2])
    assert lines[3].startswith(longest)
    assert len({line.index(" s  ") for line in (lines[0], *lines[2:])}) == 1


@pytest.mark.slow
def test_few_files_are_shown_with_every_emotion_and_their_windows(tmp_path, tiny_bundle):
    (tmp_path / "long.wav").write_bytes(encode_audio(babble(150 * 16_000)))
    run = affekt("recognize", "long.wav", "--model", tiny_bundle, folder=tmp_path)
    lines = run.stdout.splitlines()
    assert re.fullmatch(r"long.wav  2:30  tiny@[0-9a-f]{8}", lines[0])
    percentages = [float(re.fullmatch(r"  [a-z]+ +[█▏▎▍▌▋▊▉ ]{20} +(\d+\.\d)%", line)[1]) for line in lines[1:7]]
    assert percentages == sorted(percentages, reverse=True)
    assert sum(percentages) == pytest.approx(100, abs=0.5)
    assert [line[:14] for line in lines[7:10]] == ["  0:00 to 0:06", "  0:06 to 0:12", "  0:12 to 0:18"]
    assert lines[-2] == "  and 13 more windows; --json shows all"
    assert lines[-1].startswith("  probabilities above: mean of the windows' probabilities")
    assert len(lines) == 1 + 6 + 12 + 2


def run_on_terminal(*arguments, columns=80, folder=None, **environment):
    """Run a command on a terminal of this width; return its exit status and everything that it printed."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = ENVIRONMENT | {"TERM": "xterm-256color"} | environment
    command = [*AFFEKT, *map(str, arguments)]
    output = b""
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, env=variables
    ) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # on Linux, reading fails once the other end is closed
            while block := os.read(controller, 65_536):
                output += block
    os.close(controller)
    return process.returncode, output.decode("utf-8")


def visible_lines(output):
    """Return the lines that remain on the screen, without colors."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    return [line.split("\r")[-1] for line in text.replace("\r\n", "\n").split("\n")]


@pytest.mark.slow
def test_a_terminal_gets_colors_and_a_progress_bar(clips, tiny_bundle):
    status, output = run_on_terminal("recognize", ".", "--model", tiny_bundle, folder=clips)
    assert status == 2
    assert re.search(r"\x1b\[(1;)?3\dm", output)
    assert re.search(r"recognizing .*━.*\d/4", output)
    assert "4 files, 1 failed" in visible_lines(output)
    assert not any("recognizing" in line for line in visible_lines(output)[-2:])


@pytest.mark.slow
def test_a_single_file_has_no_progress_bar(clips, tiny_bundle):
    status, output = run_on_terminal("recognize", "a.wav", "--model", tiny_bundle, folder=clips)
    assert status == 0
    assert "recognizing" not in output


@pytest.mark.slow
def test_no_color_turns_off_colors(clips, tiny_bundle):
    _, output = run_on_terminal("recognize", ".", "--model", tiny_bundle, folder=clips, NO_COLOR="1")
    assert "silence" in output
    assert not re.search(r"\x1b\[[0-9;]*3\dm", output)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(clips, tiny_bundle, columns):
    (clips / "deep" / ("日本語のとても長い" * 5 + ".wav")).write_bytes(encode_audio(tone()))
    (clips / "deep" / ("an-even-longer-name-" * 9 + ".wav")).write_bytes(encode_audio(tone()))
    (clips / "cut.wav").write_bytes(encode_audio(tone())[:9_000])
    _, output = run_on_terminal("recognize", ".", "--model", tiny_bundle, folder=clips, columns=columns)
    lines = [line for line in visible_lines(output) if "recognizing" not in line]
    assert all(cell_width(line) <= columns for line in lines)
    assert any(line.startswith("…") and "name-.wav " in line for line in lines)
    assert any(line.startswith("…") and "長い.wav " in line for line in lines)
    assert "8956" in " ".join(lines)


def cell_width(line):
    return sum(2 if ord(character) > 0x2E80 else 1 for character in line.rstrip())


@pytest.mark.slow
def test_json_on_a_terminal_is_still_json(clips, tiny_bundle):
    _, output = run_on_terminal("recognize", ".", "--json", "--model", tiny_bundle, folder=clips)
    parsed = [json.loads(line) for line in visible_lines(output) if line.startswith("{")]
    assert [row["status"] for row in parsed] == ["ok", "error", "silence", "ok"]


# Imports and extras


def hide_modules(folder, *modules):
    """Return environment variables with which importing these modules fails."""
    stubs = folder / ".stubs"
    stubs.mkdir()
    for module in modules:
        text = f"raise ModuleNotFoundError('No module named {module}', name={module!r})\n"
        (stubs / f"{module}.py").write_text(text, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join([str(stubs), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])])}


@pytest.mark.parametrize(
    "code",
    [
        "import affekt",
        "import affekt; affekt.__version__; dir(affekt)",
        "import affekt.cli",
        "import runpy; sys.argv = ['affekt', '--help']; runpy.run_module('affekt', run_name='__main__')",
        "import runpy; sys.argv = ['affekt', 'recognize', '--help']; runpy.run_module('affekt', run_name='__main__')",
        "import runpy; sys.argv = ['affekt', 'train', '--help']; runpy.run_module('affekt', run_name='__main__')",
        "import runpy; sys.argv = ['affekt', 'evaluate', '--help']; runpy.run_module('affekt', run_name='__main__')",
    ],
)
def test_import_and_help_load_no_heavy_module(code):
    print_modules = (
        "import atexit, sys; atexit.register(lambda: print('loaded:', *sorted(sys.modules), file=sys.stderr)); "
    )
    run = affekt(python=[sys.executable, "-c", print_modules + code])
    assert run.returncode == 0
    loaded = set(run.stderr.split("loaded: ")[1].split())
    assert "affekt" in loaded
    assert not loaded & HEAVY


@pytest.mark.slow
def test_recognition_of_a_wav_loads_only_what_it_needs(clips):
    code = (
        "import atexit, runpy, sys; atexit.register(lambda: print('loaded:', *sys.modules, file=sys.stderr)); "
        f"sys.argv = ['affekt', 'recognize', {str(clips / 'a.wav')!r}, '--json']; "
        "runpy.run_module('affekt', run_name='__main__')"
    )
    run = affekt(python=[sys.executable, "-c", code])
    assert run.returncode == 0
    loaded = set(run.stderr.split("loaded: ")[1].split())
    unneeded = {"affekt.inference.results_file", "affekt.lock"}  # needed with --output
    unneeded |= {f"affekt.audio.{name}" for name in ("arrays", "caf", "media", "mpeg", "ogg")}
    unneeded |= {"affekt.config", "msgspec", "rich.console", "torch"}
    assert "affekt.audio.sndfile" in loaded
    assert not loaded & unneeded


def test_recognition_needs_no_extra(clips, tiny_bundle, tmp_path):
    extras = hide_modules(
        tmp_path, "torch", "transformers", "safetensors", "sklearn", "einops", "jaxtyping", "av", "pyarrow"
    )
    run = affekt("recognize", clips / "a.wav", "--json", "--model", tiny_bundle, **extras)
    assert (run.returncode, run.stderr) == (0, "")
    assert rows(run)[0]["status"] == "ok"
    refused = affekt("recognize", "a.wav", "--model", tiny_bundle, "--output", "rows.parquet", folder=clips, **extras)
    assert refused.returncode == 2
    assert refused.stderr == "affekt: writing rows.parquet needs pyarrow: pip install 'affekt[parquet]'\n"


@pytest.mark.slow
@pytest.mark.parametrize("group", [[], ["corpus"], ["features"]])
def test_no_description_in_a_list_of_commands_is_cut_off(group):
    commands = affekt(*group, "--help", COLUMNS="80").stdout.split("Commands:")[1]
    assert "..." not in commands


def test_version_prints_the_version_of_the_package():
    assert affekt("--version").stdout == f"affekt {__version__}\n"


# Shell completion


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "beginning"),
    [("bash", "_affekt_completion() {"), ("zsh", "#compdef affekt"), ("fish", "complete --command affekt")],
)
def test_show_completion_prints_the_script_of_a_shell(shell, beginning):
    run = affekt("--show-completion", shell)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(beginning)
    assert f"_AFFEKT_COMPLETE=complete_{shell}" in run.stdout


@pytest.mark.slow
def test_an_unknown_shell_is_refused_with_the_known_ones():
    run = affekt("--show-completion", "cmd")
    assert run.returncode == 2
    assert "'cmd' is not one of 'bash', 'zsh', 'fish'" in " ".join(run.stderr.split())


@pytest.mark.slow
def test_install_completion_writes_the_script_to_the_home_folder(tmp_path):
    run = affekt("--install-completion", "bash", HOME=str(tmp_path))
    assert (run.returncode, run.stderr) == (0, "")
    assert "_affekt_completion()" in (tmp_path / ".bash_completions" / "affekt.sh").read_text()
    assert "affekt.sh" in (tmp_path / ".bashrc").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("affekt re", {"recipes", "recognize", "report", "reproduce"}),
        ("affekt recognize --mo", {"--model"}),
        ("affekt corpus ch", {"check"}),
    ],
)
def test_commands_and_options_are_completed(words, completions):
    variables = {"_AFFEKT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    run = affekt(**variables)
    assert set(run.stdout.split()) == completions
