"""Missing values."""

import pytest

from affekt.tabular.missing import is_missing, is_missing_transcript

WORDS = ["", "  ", "nan", "NaN", "NA", "N/A", "None", "NONE", "null", "NULL", "-", "<NA>", "NaT", " nan ", "#N/A"]


@pytest.mark.parametrize("value", [*WORDS, None, float("nan")])
def test_words_for_missing_values_are_missing(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", ["unknown", "other", "0", "no", "Nancy", 0, 0.0, False, "neutral", "x"])
def test_other_values_are_not_missing(value):
    assert not is_missing(value)


def test_transcripts_may_be_words_that_people_say():
    assert [text for text in [*WORDS, "Na", "None."] if not is_missing_transcript(text)] == [
        "NA", "N/A", "None", "NONE", "-", "Na", "None.",
    ]  # fmt: skip
