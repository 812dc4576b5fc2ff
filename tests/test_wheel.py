"""The wheel as a user gets it: built from the sources, installed in an empty environment, and used there."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile

import pytest

from tests.conftest import ROOT, SAMPLES

pytestmark = pytest.mark.slow
OFFLINE = ("No matching distribution", "Could not find a version", "Connection", "Temporary failure", "Max retries")


def pip(python, *arguments, cwd):
    """Run pip. Skip the test if pip cannot reach a package index; fail on any other error."""
    command = [python, "-m", "pip", *arguments, "--disable-pip-version-check", "--quiet"]
    run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if run.returncode and any(message in run.stderr for message in OFFLINE):
        pytest.skip(f"pip cannot get what it needs: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel. It is built from a copy of the sources, so that no build files are left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    shutil.copytree(ROOT / "src", sources / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, sources / name)
    pip(sys.executable, "wheel", ".", "--no-deps", "--wheel-dir", str(folder / "dist"), cwd=sources)
    (path,) = (folder / "dist").glob("affekt-*.whl")
    return path


def test_the_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"affekt", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert {"affekt/py.typed", "affekt/assets/default/model.onnx", "affekt/recipes/default.toml"} <= names
    assert {"affekt/assets/vad/silero_vad_16k.onnx", "affekt/assets/vad/LICENSE.silero"} <= names
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "affekt").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


def test_the_wheel_recognizes_in_an_empty_environment(wheel, tmp_path):
    venv.create(tmp_path / "venv")
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    # Without pip in the environment and without compiling all modules, which takes as long as the installation.
    arguments = ["--python", str(scripts / "python"), "install", "--no-compile", str(wheel)]
    pip(sys.executable, *arguments, "--constraint", str(ROOT / "constraints.txt"), cwd=tmp_path)
    environment = {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "COVERAGE_PROCESS_START"}
    }
    run = subprocess.run(
        [str(scripts / "affekt"), "recognize", str(SAMPLES[0]), "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (row,) = map(json.loads, run.stdout.splitlines())
    assert row["status"] == "ok"
    assert row["emotion"] == "neutral"
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
