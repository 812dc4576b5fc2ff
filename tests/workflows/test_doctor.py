"""`affekt doctor`: what works, what is missing, and what to do."""

import json
import shutil
import subprocess
import sys

import pytest
import soundfile

from affekt.bundle.folder import ASSETS, DEFAULT
from affekt.workflows import doctor
from affekt.workflows.doctor import examine, examine_cache, examine_extra, examine_formats, examine_model


@pytest.fixture
def findings(tmp_path, monkeypatch):
    """Return the findings by topic, with these variables."""
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))

    def find(**variables):
        for name in ("AFFEKT_DATA", "AFFEKT_MODELS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        return {finding.topic: finding for finding in examine()}

    return find


def test_everything_is_examined_and_what_is_not_there_has_a_cure(findings):
    result = findings()
    assert {"affekt", "model default", "audio", "extra train", "corpora", "encoders", "cache"} <= result.keys()
    assert all(bool(finding.cure) == (finding.status != "ok") for finding in result.values())
    assert result["model default"].status == result["audio"].status == result["cache"].status == "ok"
    assert result["corpora"].status == result["encoders"].status == "missing"


def test_corpora_and_encoders_are_listed(findings, tmp_path):
    (tmp_path / "data" / "emodb").mkdir(parents=True)
    (tmp_path / "models" / "hubert").mkdir(parents=True)
    (tmp_path / "models" / "hubert" / "config.json").touch()
    result = findings(AFFEKT_DATA=tmp_path / "data", AFFEKT_MODELS=tmp_path / "models")
    assert result["corpora"].detail.endswith(": emodb")
    assert result["encoders"].detail.endswith(": hubert")


@pytest.mark.parametrize(("value", "status"), [("s3://bucket/data", "ok"), ("nowhere", "fault"), (".", "fault")])
def test_folders_that_are_elsewhere_missing_or_empty(findings, tmp_path, monkeypatch, value, status):
    monkeypatch.chdir(tmp_path)
    assert findings(AFFEKT_DATA=value)["corpora"].status == status


def test_a_damaged_model_is_a_fault(tmp_path):
    shutil.copytree(ASSETS / DEFAULT, tmp_path / "copy")
    assert examine_model(str(tmp_path / "copy")).status == "ok"
    with (tmp_path / "copy" / "results.json").open("a") as file:
        file.write(" ")
    finding = examine_model(str(tmp_path / "copy"))
    assert finding.status == "fault"
    assert "results.json" in finding.detail


def test_a_missing_extra_names_its_packages():
    finding = examine_extra("imaginary", ["numpy", "no-such-package"])
    assert (finding.status, finding.cure) == ("missing", "pip install 'affekt[imaginary]'")
    assert "no-such-package" in finding.detail
    assert "numpy" not in finding.detail


def test_an_old_libsndfile_is_a_fault(monkeypatch):
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "", "FLAC": "", "OGG": ""})
    assert "MP3" in examine_formats().detail
    assert examine_formats().status == "fault"


def test_a_cache_that_cannot_be_used_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for value in ("s3://bucket/cache", str(tmp_path / "file")):
        monkeypatch.setenv("AFFEKT_CACHE", value)
        assert examine_cache().status == "fault"
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "MIN_FREE", 1e18)
    assert examine_cache().status == "fault"


@pytest.mark.slow
def test_the_command_fails_if_there_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").touch()
    monkeypatch.setenv("AFFEKT_MODELS", str(tmp_path))
    monkeypatch.delenv("AFFEKT_DATA", raising=False)
    command = [sys.executable, "-m", "affekt", "doctor"]
    result = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    topics = {finding["topic"]: finding for finding in map(json.loads, result.stdout.splitlines())}
    assert topics["encoders"]["status"] == "ok"
    monkeypatch.setenv("AFFEKT_MODELS", str(tmp_path / "nowhere"))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "set AFFEKT_DATA to the folder of the corpora" in " ".join(result.stdout.split())
