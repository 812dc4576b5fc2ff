"""The fuzzer decodes its seeds, and its mutants give no error that is not ours."""

import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("av")
sys.path.append(str(ROOT / "benchmarks"))

from fuzz import SEEDS, decode, mutant, report, run_worker, seed_file


@pytest.mark.parametrize("suffix", SEEDS)
def test_every_seed_is_decoded(suffix):
    assert decode(suffix, seed_file(suffix)) == "ok"


def test_a_mutant_is_determined_by_the_seed_and_its_number():
    assert mutant(1, 7) == mutant(1, 7)
    assert len({mutant(seed, number)[1] for seed in range(3) for number in range(40)}) == 120


@pytest.mark.slow
def test_no_mutant_escapes_hangs_or_crashes(capsys):
    outcomes, last, ended = run_worker(seed=1, start=0, stop=400)
    assert (len(outcomes), last, ended) == (400, 399, "")
    assert report(outcomes, 1, None) == 0
    assert "0 findings" in capsys.readouterr().out


def test_findings_are_reported_and_kept(tmp_path, capsys):
    outcomes = {0: ("ok", 0.0), 1: ("escaped OSError: x", 0.1), 2: ("timeout", 10.0), 3: ("crash status -11", 0.0)}
    assert report(outcomes, 0, tmp_path) == 3
    assert "3 findings" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 3
