"""The table of altered recordings on a card."""

import json

import pytest

from affekt.bundle.folder import SHIFTS, Bundle
from affekt.errors import BadBundle
from affekt.reports.shifts import UNCHANGED, largest_loss, shifts_section, shifts_table
from tests.conftest import write_tiny_bundle

SCORES = {
    UNCHANGED: 0.7,
    "reverb, 0.5 s": 0.5,
    "1 s of zeros, before": 0.69,
    "1 s of zeros, after": 0.68,
    "1 s of zeros, both": 0.66,
    "a pause of 1 s, zeros": 0.7,
}


def shifts(model):
    entry = {"title": "Corpus", "utterances": 10, "long": 0, "UA": SCORES, "refused": dict.fromkeys(SCORES, 0.0)}
    return {"model": model, "corpora": {"corpus": entry}}


def test_places_share_a_row_and_the_worst_condition_with_silence_is_named():
    section = shifts_section(shifts("tiny@1"))
    assert "| 1 s of zeros | 69.0 / 68.0 / 66.0 |" in section
    assert "| reverb, 0.5 s | 50.0 |" in section
    assert "- Corpus: of the conditions with silence, the worst is 1 s of zeros, both: -4.0 points." in section
    assert "| a pause of 1 s, zeros | 0.0 |" in shifts_table(shifts("tiny@1"), "refused")
    assert largest_loss({UNCHANGED: 0.7}) == "silence was not measured"
    assert shifts_section(None) == ""


def test_a_bundle_has_the_table_of_its_own_model_only(tmp_path):
    write_tiny_bundle(tmp_path / "tiny", ("happy", "sad"))
    assert Bundle.open(tmp_path / "tiny").shifts is None
    content = shifts(Bundle.open(tmp_path / "tiny").id)
    (tmp_path / "tiny" / SHIFTS).write_text(json.dumps(content))
    assert Bundle.open(tmp_path / "tiny").shifts == content
    (tmp_path / "tiny" / SHIFTS).write_text(json.dumps(shifts("other@1")))
    with pytest.raises(BadBundle, match=r"scores of other@1, not of tiny@.*`make shifts`"):
        _ = Bundle.open(tmp_path / "tiny").shifts
