"""The examples in the documentation run, its links exist, and its error codes are those of the code."""

import re
import shlex
import subprocess
import sys

import pytest

from affekt.audio.read import CODES
from tests.conftest import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language, paths=DOCS):
    for path in paths:
        for number, code in enumerate(
            re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        ):
            yield pytest.param(code, id=f"{path.stem}-{number}")


@pytest.mark.slow
@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_examples_run(code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code, "<example>", "exec"), {"__name__": "__main__"})  # in this process, which has imported torch
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("code", list(blocks("sh", [path for path in DOCS if path.parent.name != "tutorials"])))
def test_shell_examples_run(code, tmp_path):
    for line in code.splitlines():
        words = shlex.split(re.sub(r"\bresults\.(?=csv|jsonl|parquet)", f"{tmp_path}/results.", line))
        assert words.pop(0) == "affekt"
        result = subprocess.run(
            [sys.executable, "-m", "affekt", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr


def test_every_error_code_is_documented_with_its_meaning():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for code, meaning in CODES.items():
        assert f"| `{code}` | {meaning} |" in design


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_links_to_files_exist(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target
