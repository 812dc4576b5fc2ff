"""Names of columns."""

import pytest

from affekt.tabular.columns import NAMES, find_column

USUAL = {
    "audio": ["file_name", "File Name", "WAV", "path", "filename", "file", "audio"],
    "emotion": ["emotion", "Label", "category"],
    "speaker": ["speaker", "speaker-id", "spk", "Speaker ID"],
}


@pytest.mark.parametrize(
    ("field", "column"), [(field, column) for field, columns in USUAL.items() for column in columns]
)
def test_usual_names_are_known_in_any_spelling(field, column):
    assert find_column(NAMES[field], ["x", column]) == column


def test_an_earlier_name_is_preferred():
    assert find_column(NAMES["emotion"], ["label", "emotion"]) == "emotion"
    assert find_column(NAMES["emotion"], ["x"]) is None
