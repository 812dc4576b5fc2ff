"""Delimited tables: every row is read as it is written, or an error names its line."""

import itertools

import pytest

from affekt.errors import AffektError, BadConfig, BadCorpus
from affekt.tabular.delimited import parse_delimiter
from affekt.tabular.table import open_table


def read(path, content, delimiter=""):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = open_table(path, delimiter)
    return [tuple(record.values.values()) for record in table.records(table.columns)]


TWO = [("a.wav", "sad"), ("b.wav", "happy")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
def test_the_delimiter_is_found_in_every_format(delimiter, name, tmp_path):
    content = "file,emotion\na.wav,sad\nb.wav,happy\n".replace(",", delimiter)
    assert read(tmp_path / name, content) == TWO


@pytest.mark.parametrize(
    "header", ["file;text, as spoken;emotion", 'file;"text, as, spoken";emotion', "file\ttext, as, spoken\temotion"]
)
def test_a_delimiter_inside_a_column_name_does_not_divide(header, tmp_path):
    delimiter = ";" if ";" in header else "\t"
    assert (
        read(tmp_path / "t.csv", f"{header}\na.wav,x,sad\n".replace(",x,", f"{delimiter}x{delimiter}"))[0][2] == "sad"
    )


def test_a_delimiter_can_be_given(tmp_path):
    assert read(tmp_path / "t.txt", "file emotion\na.wav sad\n", "space") == [("a.wav", "sad")]
    assert read(tmp_path / "t.csv", "file:emotion\na.wav:sad\n", ":") == [("a.wav", "sad")]
    assert read(tmp_path / "t.csv", "a,b;emotion\n1;sad\n", "semicolon") == [("1", "sad")]
    assert parse_delimiter("\\t") == parse_delimiter("TAB") == "\t"
    with pytest.raises(BadConfig, match="delimiter ';' does not occur in the first line"):
        read(tmp_path / "t.csv", "file,emotion\na.wav,sad\n", ";")
    for invalid in ("::", '"', "\n"):
        with pytest.raises(BadConfig, match="expected one character"):
            parse_delimiter(invalid)


def test_a_delimiter_line_of_a_spreadsheet_is_obeyed(tmp_path):
    assert read(tmp_path / "t.csv", "sep=;\nfile;emotion\na.wav;sad\n") == [("a.wav", "sad")]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbffile,emotion\r\na.wav,sad\r\nb.wav,happy",
        b"file,emotion\ra.wav,sad\rb.wav,happy\r",
        b"\n\nfile,emotion\na.wav,sad\n\n  \n,\nb.wav,happy\n\n",
        "file,emotion\na.wav,sad\nb.wav,happy\n".encode("utf-16"),
        b'file, "emotion" \na.wav, "sad"\n"b.wav" , happy\n',
    ],
)
def test_marks_line_ends_blank_lines_and_spaces_are_no_values(content, tmp_path):
    assert [tuple(value.strip() for value in row) for row in read(tmp_path / "t.csv", content)] == TWO


def test_quoted_fields_may_contain_delimiters_quotes_and_line_breaks(tmp_path):
    content = 'file,text,emotion\na.wav,"Hello, you\nmy, dear",sad\nb.wav,"He said ""no"""\r,happy\nc.wav,5" tall,sad\n'
    assert [row[1] for row in read(tmp_path / "t.csv", content.replace("\r", ""))] == [
        "Hello, you\nmy, dear",
        'He said "no"',
        '5" tall',
    ]


@pytest.mark.parametrize("length", [131_071, 131_073, 1_000_000])
@pytest.mark.parametrize("quote", ["", '"'])
def test_fields_of_any_length_are_read(length, quote, tmp_path):
    ((_, text, emotion),) = read(tmp_path / "t.csv", f"file,text,emotion\na.wav,{quote}{'x' * length}{quote},sad\n")
    assert (len(text), emotion) == (length, "sad")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("file,emotion,emotion\na,b,c\n", "has several columns 'emotion'"),
        ('"file\nx",emotion\na,b\n', "contains a line break"),
        (
            "file,text,emotion\na.wav,x,sad\n1.wav,stop, neutral, please,angry\n",
            "line 3, has 5 fields, but there are 3 columns",
        ),
        ("file,text,emotion\n\na.wav,sad\n", "line 3, has 2 fields, but there are 3 columns"),
        ("file,emotion\na.wav,sad\n\ufefffile,emotion\nb.wav,sad\n", "line 3, repeats the column names"),
        ("file,emotion\na.wav,sad,\n", "line 2, has 3 fields"),
        ('file,text,emotion\na.wav,"x\ny",sad,z\n', r"line 2 \(to line 3\), has 4 fields"),
        ('file,text,emotion\na.wav,"Stop" she said,sad\n', "line 2: 'she said,sad' follows a closing quote"),
        (
            'file,text,emotion\na.wav,x,sad\nb.wav,"Stop,sad\nc.wav,x,sad\n',
            "line 3: a quote is opened and never closed",
        ),
        ('file,text,emotion\na.wav,"Stop,sad\nb.wav,"x, y",sad\n', r"line 2 \(to line 3\)"),
        (b"file,emotion\na.wav,s\0ad\n", "line 2, contains a NUL character"),
        ("file,emotion\na.wav,sad\n".encode("utf-16-le"), "save the file as UTF-8"),
        (b"file,emotion\na.wav,sad\nb.wav,\x81\n", "line 3, is neither UTF-8 nor Windows-1252"),
        (b"\xff\xfe\0i\0", "is damaged: it is marked as utf-16"),
    ],
)
def test_a_damaged_row_is_named(content, message, tmp_path):
    with pytest.raises(BadCorpus, match=message):
        read(tmp_path / "t.csv", content)


LONE_QUOTE = ["file,text,emotion", "0.wav,good,happy", '1.wav,"Stop,angry', "2.wav,it is,neutral", '3.wav,news",happy']


def test_a_lone_quote_that_joins_rows_is_an_error_in_csv(tmp_path):
    with pytest.raises(BadCorpus, match="line 3: the quote joins lines 3 to 5, which look like rows"):
        read(tmp_path / "t.csv", "\n".join(LONE_QUOTE))
    without_files = "\n".join(line.replace(".wav", "") for line in LONE_QUOTE)
    with pytest.raises(BadCorpus, match="line 3: the quote joins lines 3 to 5"):
        read(tmp_path / "t.csv", without_files)


def test_a_lone_quote_is_an_ordinary_character_in_tsv(tmp_path):
    lines = "\n".join(LONE_QUOTE).replace(",", "\t") + '\n4.wav\t"Go" she said\tsad\n5.wav\t"a ""b"""\tsad\n'
    rows = read(tmp_path / "t.tsv", lines)
    assert [row[2] for row in rows] == ["happy", "angry", "neutral", "happy", "sad", "sad"]
    assert [row[1] for row in rows[1:]] == ['"Stop', "it is", 'news"', '"Go" she said', 'a "b"']


def test_quoted_tabs_and_line_breaks_are_read_in_tsv(tmp_path):
    assert read(tmp_path / "t.tsv", 'file\ttext\temotion\na.wav\t"x\ty\nz"\tsad\n') == [("a.wav", "x\ty\nz", "sad")]


@pytest.mark.parametrize("inserted", ['"', ",", "\n"])
@pytest.mark.parametrize(
    "content",
    [
        "file,text,emotion\n0.wav,hello,happy\n1.wav,go,angry\n2.wav,well,sad\n",
        "text,emotion,who\nhello,happy,a\ngo,angry,b\nwell,sad,c\n",
    ],
)
def test_two_surplus_characters_anywhere_never_give_a_row_the_label_of_another(inserted, content, tmp_path):
    path = tmp_path / "t.csv"
    for first, second in itertools.combinations(range(0, len(content) + 1, 3), 2):
        path.write_text(content[:first] + inserted + content[first:second] + inserted + content[second:])
        try:
            table = open_table(path)
            labels = (
                [record.text("emotion") for record in table.records(table.columns)]
                if "emotion" in table.columns
                else []
            )
        except AffektError:
            continue
        if labels:
            pairs = zip(labels, ("happy", "angry", "sad"), strict=True)
            assert all(label == expected or label not in content.split(",") for label, expected in pairs)
