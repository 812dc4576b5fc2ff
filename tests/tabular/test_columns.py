"""Names of columns."""

import pytest

from affekt.tabular.columns import NAMES, find_column


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("audio", "file_name"), ("audio", "File Name"), ("audio", "WAV"), ("audio", "path"), ("audio", "filename"),
        ("emotion", "Label"), ("emotion", "category"), ("speaker", "speaker-id"), ("speaker", "spk"), ("speaker", "Speaker ID"),
    ],
)  # fmt: skip
def test_usual_names_are_known_in_any_spelling(field, column):
    assert find_column(NAMES[field], ["x", column]) == column


def test_an_earlier_name_is_preferred():
    assert find_column(NAMES["emotion"], ["label", "emotion"]) == "emotion"
    assert find_column(NAMES["emotion"], ["x"]) is None
