"""JSON for other programs is always valid: numbers that JSON lacks become null."""

import json

import pytest

from affekt.json_text import to_json


def strict(text):
    """Parse JSON, and fail for NaN and Infinity, which Python's parser accepts."""

    def refuse(constant):
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_become_null(number):
    value = {"a": number, "b": [1.5, number, {"c": (number, "NaN")}], "d": True, "e": None}
    assert strict(to_json(value)) == {"a": None, "b": [1.5, None, {"c": [None, "NaN"]}], "d": True, "e": None}
    assert strict(to_json({number: 1})) == {str(number): 1}


def test_other_values_are_written_as_python_writes_them():
    value = {"name": "caf\u00e9", "values": [0.1, 1e300, -0.0, 10**30], "nothing": {}}
    assert to_json(value) == json.dumps(value)
    assert to_json(value, indent=1) == json.dumps(value, indent=1)
    assert to_json(value, ascii_only=False) == json.dumps(value, ensure_ascii=False)


def test_a_value_that_is_no_json_is_an_error():
    with pytest.raises(TypeError):
        to_json({"a": object()})
