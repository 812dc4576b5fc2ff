"""The table of recordings that are refused, as `make refusals` records it in a bundle."""

import json

import pytest

from affekt.bundle.folder import REFUSALS, Bundle
from affekt.errors import BadBundle
from affekt.reports.refusals import SOUNDS, SPEECH, measured_table, merge_folders, refusals_section, summarize
from tests.conftest import write_tiny_bundle


def measured(model):
    kinds = [(SPEECH, "Corpus", 50, 1, 2), (SOUNDS, "esc10/rain", 10, 9, 10), (SOUNDS, "esc10/sea", 30, 30, 20)]
    entries = [
        {"group": group, "kind": kind, "recordings": number, "refused": {"off": 0, "auto": refused}, "unlike": unlike}
        for group, kind, number, refused, unlike in kinds
    ]
    return {"model": model, "modes": ["off", "auto"], "kinds": entries}


def test_kinds_are_listed_with_the_total_of_their_group_and_those_of_a_folder_can_be_merged():
    table = measured_table(measured("m@1"))
    assert f"| {SOUNDS} | esc10/rain | 10 | 0.0 | 90.0 | 100.0 |" in table
    assert f"| {SOUNDS} | all | 40 | 0.0 | 97.5 | 75.0 |" in table
    merged = merge_folders(measured("m@1"))
    assert [entry["kind"] for entry in merged["kinds"]] == ["Corpus", "esc10"]
    assert f"| {SOUNDS} | esc10 | 40 | 0.0 | 97.5 | 75.0 |" in measured_table(merged)
    assert summarize(merged) == summarize(measured("m@1"))
    assert "`--vad auto`: 1 of 50 recordings of speech are lost, 39 of 40 without speech" in summarize(merged)


def test_a_bundle_has_the_table_of_its_own_model_only(tmp_path):
    write_tiny_bundle(tmp_path / "tiny", ("happy", "sad"))
    assert Bundle.open(tmp_path / "tiny").refusals is None
    content = measured(Bundle.open(tmp_path / "tiny").id)
    (tmp_path / "tiny" / REFUSALS).write_text(json.dumps(content))
    assert "esc10/rain" in refusals_section({}, {}, Bundle.open(tmp_path / "tiny").refusals)
    (tmp_path / "tiny" / REFUSALS).write_text(json.dumps(measured("other@1")))
    with pytest.raises(BadBundle, match=r"other@1, not of tiny@.*`make refusals`"):
        _ = Bundle.open(tmp_path / "tiny").refusals
