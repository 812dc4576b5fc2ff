"""The examples of docs/serving.md run."""

import json
import re
import shlex
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.serving.service import running

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def address(tiny_bundle):
    with running(tiny_bundle) as (port, _, _):
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize("code", re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL))
def test_python(address, code, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(compile(code.replace("127.0.0.1:8000", address), "<example>", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("block", re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL))
def test_commands(address, block):
    for line in block.splitlines():
        words = shlex.split(line.replace("127.0.0.1:8000", address))
        assert words[0] == "curl"
        answer = subprocess.run([*words, "--silent", "--fail"], cwd=ROOT, capture_output=True, text=True, check=True)
        if "recognize" in line:
            assert len(json.loads(answer.stdout)["results"]) == line.count("--form")
