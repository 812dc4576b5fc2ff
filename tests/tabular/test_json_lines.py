"""JSON lines."""

import pytest

from affekt.errors import BadConfig, BadCorpus
from affekt.tabular.table import open_table


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3, is not JSON"),
        ("[1]", "line 3: expected an object"),
        ('{"a": 1, "a": 2}', "line 3, is not JSON: it has the key 'a' twice"),
        ("[" * 100_000, "line 3, is not JSON"),
        ('{"a": ' + "1" * 5000 + "}", "line 3, is not JSON"),
    ],
)
def test_a_damaged_line_is_named(line, message, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n' + line + "\n")
    with pytest.raises(BadCorpus, match=message):
        open_table(tmp_path / "t.jsonl")


@pytest.mark.parametrize("value", ['["sad"]', '{"sad": 1}', '"\\ud800"', '"a\\nb"'])
def test_a_value_that_is_no_text_is_named(value, tmp_path):
    (tmp_path / "t.jsonl").write_text(f'{{"emotion": {value}}}\n')
    (record,) = open_table(tmp_path / "t.jsonl").records(["emotion"])
    with pytest.raises(BadCorpus, match="line 1: column 'emotion'"):
        record.text("emotion")


def test_numbers_that_do_not_exist_are_missing(tmp_path):
    (tmp_path / "t.ndjson").write_text('{"a": NaN, "b": null, "c": 3}\n')
    (record,) = open_table(tmp_path / "t.ndjson").records([])
    assert [record.text(column) for column in "abcd"] == ["", "", "3", ""]


def test_a_delimiter_is_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text("{}\n")
    with pytest.raises(BadConfig, match="has no delimiter"):
        open_table(tmp_path / "t.jsonl", ";")
