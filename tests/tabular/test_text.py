"""Encodings of text files, and repaired Windows punctuation."""

from affekt.tabular.text import read_lines, read_text, repair


def test_control_characters_become_the_windows_punctuation_that_was_meant():
    assert repair("don\x92t \x93x\x94 \x96 fine\x85 \x80 \x81") == "don\u2019t \u201cx\u201d \u2013 fine\u2026 € \x81"
    assert repair("don\u2019t\u2026") == "don\u2019t\u2026"


def test_each_line_is_utf8_or_windows_text(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbfit\x92s caf\xe9\r\ncaf\xc3\xa9\rdon\xc2\x92t\n")
    assert read_lines(path) == ["it\u2019s café", "café", "don\u2019t"]


def test_a_line_ends_only_at_its_end(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a\u2028b\x0bc\x0cd\ne", encoding="utf-8")
    assert read_lines(path) == ["a\u2028b\x0bc\x0cd", "e"]
    for encoding in ("utf-16", "utf-32"):
        path.write_text("é\n", encoding=encoding)
        assert read_text(path) == "é\n"
