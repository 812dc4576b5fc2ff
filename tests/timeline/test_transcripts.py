"""Transcripts, diarizations and tables of intervals: what is read, and what bad files raise."""

import base64
import json
import re

import pympi
import pytest
from praatio import textgrid as praatio
from pyannote.core import Annotation, Segment

from affekt.errors import BadConfig, BadTranscript
from affekt.interval import Interval, Word
from affekt.timeline.transcripts import READERS, read_intervals, read_rttm
from affekt.timeline.transcripts.entries import MAX_BYTES
from tests.logs import logged


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file, and returns its path."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def rows(intervals):
    return [(interval.start, interval.end, interval.speaker, interval.text) for interval in intervals]


SRT = """1
00:00:01,000 --> 00:00:02,500 X1:0 X2:100
<i>Hello</i> there,
{\\an8}<font color="red">you</font> & me

00:01:03.250 --> 01:00:04
[SPEAKER_01]: a < b

with a blank line and 3 --

3
00:00:02,500 --> 00:00:03,000
<b></b>

4
01:00:05,000 --> 01:00:05,000
nothing
"""


def test_srt_is_read(write):
    with logged() as messages:
        intervals = read_intervals(write("a.srt", SRT))
    assert rows(intervals) == [
        (1.0, 2.5, None, "Hello there, you & me"),
        (63.25, 3604.0, "SPEAKER_01", "a < b with a blank line and 3 --"),
    ]
    assert [message.split(": ", 1)[1] for message in messages] == [
        "skipped 1 of 4 intervals: 1 without text",
        "skipped 1 of 3 intervals: 1 without length",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_those_of_tables(write, encoding):
    path = write("a.srt", "1\r\n00:00:01,000 --> 00:00:02,000\r\nschön \N{EN DASH} “gut”\r\n".encode(encoding))
    assert read_intervals(path)[0].text == "schön \N{EN DASH} “gut”"


VTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

REGION
id:fred

NOTE a comment
over --- lines

intro
00:01.000 --> 00:02.500 align:start position:10%
<v.loud Mary Ann>Hello <i>there</i> &amp; you &lt;3</v>

100:00:03.000 --> 100:00:04.000
nobody
<v Bob>Hi <00:03.500><c.yellow>you</c>
<v Mary Ann>no
"""


def test_the_voices_of_webvtt_are_the_speakers(write):
    assert rows(read_intervals(write("a.vtt", VTT))) == [
        (1.0, 2.5, "Mary Ann", "Hello there & you <3"),
        (360003.0, 360004.0, None, "nobody"),
        (360003.0, 360004.0, "Bob", "Hi you"),
        (360003.0, 360004.0, "Mary Ann", "no"),
    ]


FASTER_WHISPER = [
    {
        "id": 1,
        "start": 0.0,
        "end": 2.0,
        "text": " Hi you.",
        "tokens": [1, 2],
        "words": [
            {"start": 0.1, "end": 0.5, "word": " Hi", "probability": 0.9},
            {"start": 0.5, "end": 0.9, "word": " you.", "probability": 0.8},
        ],
    }
]
HI_YOU = Interval(0.0, 2.0, None, "Hi you.", (Word(0.1, 0.5, "Hi"), Word(0.5, 0.9, "you.")))


@pytest.mark.parametrize(
    "content",
    [FASTER_WHISPER, {"segments": FASTER_WHISPER}, {"text": " Hi you.", "segments": FASTER_WHISPER, "language": "en"}],
)
def test_json_of_whisper_is_read(write, content):
    assert read_intervals(write("a.json", json.dumps(content))) == [HI_YOU]


def test_half_of_a_surrogate_pair_is_replaced(write):
    content = '[{"start": 0, "end": 1, "text": "a\\ud800", "speaker": "\\udc00", "words": []}]'
    assert rows(read_intervals(write("a.json", content))) == [(0.0, 1.0, "?", "a?")]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([" It's", " o", "'clock,", " well", "-known."], ["It's", "o'clock,", "well-known."]),
        (["'cause", "it's", "'tis"], ["'cause", "it's", "'tis"]),  # WhisperX writes no spaces
        (["我", "们"], ["我", "们"]),
        ([" 'cause", " -", "yes"], ["'cause", "-", "yes"]),
    ],
)
def test_words_that_whisper_divides_are_joined(parts, expected, write):
    words = [{"word": part, "start": index, "end": index + 1} for index, part in enumerate(parts)]
    segment = {"start": 0, "end": len(parts), "text": "".join(parts), "words": words}
    (interval,) = read_intervals(write("a.json", json.dumps([segment])))
    assert [word.text for word in interval.words] == expected
    assert (interval.words[0].start, interval.words[-1].end) == (0.0, len(parts))


def test_words_of_whisperx_without_times_divide_the_gap_between_their_neighbors(write):
    words = [
        {"word": "in"},
        {"word": "It", "start": 1.5, "end": 2.0, "speaker": "B"},
        {"word": "costs", "start": 2.0, "end": 2.5, "score": 0.9, "speaker": "A"},
        {"word": "$50"},
        {"word": "42"},
        {"word": "now.", "start": 3.5, "end": 4.0, "speaker": "A"},
    ]
    segments = [
        {"start": 1.0, "end": 4.0, "text": "…", "words": words},
        {"start": 4.0, "end": 5.0, "text": "", "speaker": "B"},
    ]
    with logged() as messages:
        (interval,) = read_intervals(write("a.json", json.dumps({"segments": segments})))
    assert interval.speaker == "A"
    assert [(word.text, word.start, word.end) for word in interval.words] == [
        ("in", 1.0, 1.5),
        ("It", 1.5, 2.0),
        ("costs", 2.0, 2.5),
        ("$50", 2.5, 3.0),
        ("42", 3.0, 3.5),
        ("now.", 3.5, 4.0),
    ]
    assert "3 words without times" in messages[0]
    assert "skipped 1 of 2 intervals: 1 without text" in messages[1]


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
def test_a_textgrid_of_praatio_has_a_tier_per_speaker(tmp_path, form):
    grid = praatio.Textgrid()
    grid.addTier(praatio.IntervalTier("Anna", [(0.5, 1.5, 'say "no"\n! 3 <x>'), (2, 3, "ja")], 0, 4))
    grid.addTier(praatio.IntervalTier("Björn", [(1.0, 2.25, "\N{EN DASH}")], 0, 4))
    grid.addTier(praatio.PointTier("bell", [(1.5, "ding")], 0, 4))
    grid.save(str(tmp_path / "a.TextGrid"), form, includeBlankSpaces=True)
    with logged() as messages:
        intervals = read_intervals(tmp_path / "a.TextGrid")
    assert rows(intervals) == [
        (0.5, 1.5, "Anna", 'say "no" ! 3 <x>'),
        (1.0, 2.25, "Björn", "\N{EN DASH}"),
        (2.0, 3.0, "Anna", "ja"),
    ]
    assert "'bell' (1 point)" in messages[0]


PRAAT_BINARY = """
b29CaW5hcnlGaWxlCFRleHRHcmlkAAAAAAAAAABAEAAAAAAAAAEAAAADDEludGVydmFsVGllcgAEQW5uYQAAAAAAAAAAQBAAAAAAAAAAAAADAA
AAAAAAAAA/8AAAAAAAAAAAP/AAAAAAAABABAAAAAAAAP//ABAAUwBoAGUAIABzAGEAaQBkACAAIgBuAG8AIgAgAOkgE0AEAAAAAAAAQBAAAAAA
AAAAAAxJbnRlcnZhbFRpZXL//wAFAEIAagD2AHIAbgAAAAAAAAAAQBAAAAAAAAAAAAACAAAAAAAAAABACAAAAAAAAAAAQAgAAAAAAABAEAAAAA
AAAP//AAcAcABsAGEAaQBuACDYPd4ACFRleHRUaWVyAARiZWxsAAAAAAAAAABAEAAAAAAAAAAAAAE/+AAAAAAAAAAEZGluZw==
"""
"""Written by Praat."""


def test_a_binary_textgrid_of_praat_is_read(write):
    assert rows(read_intervals(write("a.textgrid", base64.b64decode(PRAAT_BINARY)))) == [
        (1.0, 2.5, "Anna", 'She said "no" é\N{EN DASH}'),
        (3.0, 4.0, "Björn", "plain \N{GRINNING FACE}"),
    ]


@pytest.mark.parametrize("size", [23, 60, 200, 300])
def test_a_binary_textgrid_that_is_cut_off_is_refused(write, size):
    with pytest.raises(BadTranscript, match="cut off"):
        read_intervals(write("a.textgrid", base64.b64decode(PRAAT_BINARY)[:size]))


@pytest.fixture
def aligned(tmp_path):
    """Return the path of a TextGrid as the Montreal Forced Aligner writes it."""
    grid = praatio.Textgrid()
    for name in ("Anna - words", "Anna - phones", "Bob - words", "Bob - phones"):
        grid.addTier(praatio.IntervalTier(name, [(0.5, 1.5, name)], 0, 4))
    grid.save(str(tmp_path / "a.TextGrid"), "short_textgrid", includeBlankSpaces=True)
    return tmp_path / "a.TextGrid"


def test_the_tiers_with_text_are_the_default(aligned):
    assert [interval.text for interval in read_intervals(aligned)] == ["Anna - words", "Bob - words"]
    assert [interval.speaker for interval in read_intervals(aligned)] == ["Anna", "Bob"]


def test_tiers_are_chosen_by_name_or_level(aligned):
    assert [interval.text for interval in read_intervals(aligned, tiers=["Bob - phones"])] == ["Bob - phones"]
    assert len(read_intervals(aligned, tiers=["phones"])) == 2
    with pytest.raises(BadTranscript, match=r"no tier 'Bob-words'; did you mean 'Bob - words'\?"):
        read_intervals(aligned, tiers=["Bob-words"])


def test_tiers_without_text_must_be_chosen(tmp_path):
    grid = praatio.Textgrid()
    for name in ("Anna", "phones"):
        grid.addTier(praatio.IntervalTier(name, [(0.5, 1.5, name)], 0, 4))
    grid.save(str(tmp_path / "a.TextGrid"), "short_textgrid", includeBlankSpaces=True)
    with pytest.raises(BadTranscript, match="choose them"):
        read_intervals(tmp_path / "a.TextGrid")


@pytest.fixture
def eaf(tmp_path):
    """Return the path of an ELAN file with a tier for each of two speakers, and one that refers to the first."""
    file = pympi.Eaf(author="")
    file.add_linguistic_type("refers", constraints="Symbolic_Association", timealignable=False)
    file.add_tier("A_text", part="Anna")
    file.add_tier("Bob")
    file.add_tier("A_translation", ling="refers", parent="A_text")
    file.add_annotation("A_text", 500, 1500, "hallo & <du>")
    file.add_annotation("Bob", 1000, 2250, "")
    file.add_ref_annotation("A_translation", "A_text", 700, "hello")
    file.to_file(str(tmp_path / "a.eaf"))
    return tmp_path / "a.eaf"


def test_the_independent_tiers_of_elan_are_read(eaf):
    assert rows(read_intervals(eaf)) == [(0.5, 1.5, "Anna", "hallo & <du>"), (1.0, 2.25, "Bob", None)]


def test_referring_annotations_have_the_times_of_those_they_refer_to(eaf):
    assert rows(read_intervals(eaf, tiers=["A_translation"])) == [(0.5, 1.5, "Anna", "hello")]


ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds"/><TIME_ORDER><TIME_SLOT TIME_SLOT_ID="t1" TIME_VALUE="1000"/>
<TIME_SLOT TIME_SLOT_ID="t2"/><TIME_SLOT TIME_SLOT_ID="t3" TIME_VALUE="2000"/></TIME_ORDER>
<TIER TIER_ID="A" LINGUISTIC_TYPE_REF="x"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="t1"
TIME_SLOT_REF2="t2"><ANNOTATION_VALUE>one</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="t2" TIME_SLOT_REF2="t3"><ANNOTATION_VALUE>two</ANNOTATION_VALUE>
</ALIGNABLE_ANNOTATION></ANNOTATION></TIER>
<TIER TIER_ID="words of A" PARENT_REF="A" LINGUISTIC_TYPE_REF="x"><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a3"
ANNOTATION_REF="a2"><ANNOTATION_VALUE>t</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION><ANNOTATION><REF_ANNOTATION
ANNOTATION_ID="a4" ANNOTATION_REF="a2" PREVIOUS_ANNOTATION="a3"><ANNOTATION_VALUE>wo</ANNOTATION_VALUE></REF_ANNOTATION>
</ANNOTATION></TIER></ANNOTATION_DOCUMENT>"""


def test_annotations_without_times_divide_the_time_evenly(write):
    path = write("a.eaf", ELAN)
    assert rows(read_intervals(path)) == [(1.0, 1.5, "A", "one"), (1.5, 2.0, "A", "two")]
    assert rows(read_intervals(path, tiers=["words of A"])) == [(1.5, 1.75, "A", "t"), (1.75, 2.0, "A", "wo")]


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


def test_a_table_is_read(write):
    content = "file;Start;End;Speaker ID;Transcript\na.wav;0.5;1.5;anna;None.\na.wav;0 days 00:00:02;3;unknown;\n"
    assert rows(read_intervals(write("a.csv", content))) == [(0.5, 1.5, "anna", "None."), (2.0, 3.0, None, None)]
    jsonl = '{"audio_filepath": "a.wav", "offset": 1.5, "duration": 2, "text": "hi"}\n'
    assert rows(read_intervals(write("a.jsonl", jsonl))) == [(1.5, 3.5, None, "hi")]


def test_a_table_of_several_recordings_needs_the_name_of_one(write):
    path = write("a.tsv", "file\tstart\tend\nx/a.wav\t1\t2\nx/b.wav\t3\t4\n")
    assert rows(read_intervals(path, file_id="/data/b.wav")) == [(3.0, 4.0, None, None)]
    with pytest.raises(BadTranscript, match="2 recordings"):
        read_intervals(path)


def test_the_rttm_of_pyannote_is_read(write):
    calls = [Annotation(uri=name) for name in ("call1", "call2")]
    for call in calls:
        call[Segment(0.5, 2.75)], call[Segment(2.5, 4.0)] = "SPEAKER_00", "SPEAKER_01"
    path = write("a.rttm", calls[0].to_rttm())
    expected = [(0.5, 2.75, "SPEAKER_00", None), (2.5, 4.0, "SPEAKER_01", None)]
    assert rows(read_rttm(path)) == rows(read_rttm(path, "other.wav")) == rows(read_intervals(path)) == expected
    both = write("b.rttm", "".join(call.to_rttm() for call in calls))
    assert rows(read_rttm(both, "/data/call2.wav")) == expected
    with pytest.raises(BadTranscript, match=r"2 recordings \(call1, call2\), but none is called 'call3'"):
        read_rttm(both, "call3.wav")
    with pytest.raises(BadTranscript, match="file_id="):
        read_rttm(both)


def test_other_lines_of_rttm_are_counted(write):
    content = ";; comment\nSPKR-INFO a 1 <NA> <NA> <NA> unknown x <NA>\nSPEAKER a 1 1 2 <NA> <NA> x <NA>\n"
    with logged() as messages:
        assert rows(read_rttm(write("a.rttm", content))) == [(1.0, 3.0, "x", None)]
    assert "1 of type SPKR-INFO" in messages[0]


def test_short_overlaps_of_a_speaker_are_cut(write):
    content = "start,end,speaker\n1,2.05,a\n2,3,a\n1.5,4,b\n"
    assert [row[:3] for row in rows(read_intervals(write("a.csv", content)))] == [
        (1, 2, "a"),
        (1.5, 4, "b"),
        (2, 3, "a"),
    ]


CUE = "00:00:01,000 --> 00:00:02,000\nx\n"
BAD = [
    ("a.srt", "hello\n" + CUE, "line 1: 'hello': expected SRT"),
    ("a.srt", VTT, r"rename it to \.vtt"),
    ("a.srt", "just text", "expected SRT"),
    ("a.srt", CUE + "\n2\n00:00:03,000 --> 00:00:0x,000\nx\n", "line 5: '00:00:0x,000'"),
    ("a.srt", CUE + "\n2\n00:00:03,000 -> 00:00:04,000\nx\n", "line 5"),
    ("a.srt", CUE + "\n2\n00:00:63,000 --> 00:01:04,000\nx\n", "line 5"),
    (
        "a.srt",
        CUE + "\n00:00:03,000 --> 00:00:02,500\nx\n",
        "line 4: start 3 s, end 2.5 s: the end is before the start",
    ),
    ("a.srt", f"{'9' * 400}:00:03,000 --> 00:00:02,500\nx\n", "line 1.*no valid times"),
    ("a.srt", CUE + "\n2\n00:00:03,000 00:00:04,000\nx\n", "line 5"),
    ("a.srt", CUE + "\n2\n00:00:03,000\nx\n", "line 5"),
    ("a.srt", "1\n" + CUE + "\n2\nno times\n\n3\n" + CUE, "line 6: 'no times': subtitle 2 has no times"),
    ("a.srt", "-00:00:03,000 --> 00:00:02,500\nx\n", "no negative times"),
    (
        "a.srt",
        CUE + "\n00:00:01,500 --> 00:00:02,500\nx\n",
        "line 4: starts at 1.5 s, while line 1 lasts to 2 s, .*name the speakers",
    ),
    ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\n\n", "no intervals"),
    ("a.srt", "", "is empty"),
    ("a.srt", " \n\n", "has no text"),
    ("a.srt", b"\x89PNG\r\n\0\0", "NUL character"),
    ("a.srt", CUE.encode("utf-16")[2:], "NUL character"),
    ("a.vtt", "1\n" + CUE, r"line 1.*rename it to \.srt"),
    ("a.vtt", "WEBVTT\n\nhello\nyou\n", "line 3: 'hello'"),
    ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:0x.000\nx\n", "line 3"),
    ("a.json", "[1,\n2", "line 2: is not JSON"),
    ("a.json", '{"start": 1}\n{"start": 2}', r"rename it to \.jsonl"),
    ("a.json", '{"transcription": []}', "an object with 'transcription': expected a list of segments"),
    ("a.json", '[[1, 0, 0.0, 2.0, "x"]]', r"segment 1 is a list.*_asdict\(\)"),
    ("a.json", '[{"start": 1}]', "segment 1: end is missing"),
    ("a.json", '[{"start": 1, "end": "2"}]', "segment 1: end is a text"),
    ("a.json", '[{"start": 1, "end": NaN}]', "finite"),
    ("a.json", '[{"start": 1, "end": 2, "text": 3}]', "text is a number"),
    ("a.json", '[{"start": 1, "end": 2, "words": [{"word": "x", "start": 2, "end": 1}]}]', "segment 1, word 1"),
    ("a.json", "[]", "no intervals"),
    ("a.json", "[" * 100_000, "is not JSON"),
    (
        "a.textgrid",
        '"ooTextFile"\n"TextGrid"\n0 4 <exists> 1\n"IntervalTier" "a" 0 4 1\n0 1\n',
        "line 5.*is a line missing",
    ),
    ("a.textgrid", '"ooTextFile"\n"TextGrid"\n0 4 <exists> 1\n"IntervalTier" "a" 0 4 1\n0 1 "x', "line 5.*quote"),
    ("a.textgrid", '"ooTextFile"\n"TextGrid"\n0 4 <exists> 1.5', "line 3.*whole number"),
    ("a.textgrid", '"ooTextFile"\n"Sound"\n', 'expected "TextGrid"'),
    ("a.textgrid", '"ooTextFile"\n"TextGrid"\n0 4 <exists> 1\n"TextTier" "a" 0 4 0', "no tier of intervals"),
    ("a.eaf", ELAN.replace("<ANNOTATION_D", ENTITIES + "<ANNOTATION_D"), "line 2: has a document type declaration"),
    ("a.eaf", ELAN[:300], "line 4, is not XML"),
    ("a.eaf", "<html/>", "root <html>"),
    ("a.eaf", ELAN.replace('"2000"', '"2s"'), "time slot t3"),
    ("a.eaf", ELAN.replace(' TIME_VALUE="2000"', ""), "annotation a2: its time slots have no time"),
    ("a.eaf", ELAN.replace('"t2"/>', '"t4"/>'), "no time slot 't2'"),
    ("a.rttm", "SPEAKER my call 1 0 1 <NA> <NA> x <NA> <NA>\n", "line 1.*names without spaces"),
    ("a.rttm", "SPEAKER a 1 x 1 <NA> <NA> x <NA> <NA>\n", "line 1: 'x' and '1'"),
    ("a.rttm", "SPEAKER a 1 1 -1 <NA> <NA> x <NA> <NA>\n", "end is before the start"),
    ("a.rttm", "1 2 x\n", "line 1.*expected RTTM"),
    ("a.csv", "from_time,stop_time\n1,2\n", "expected 'start' and 'end'"),
    ("a.csv", "start,end\n1,2\n3,\n", "line 3: end is missing"),
    ("a.csv", "start,end\n1,two\n", "line 2: end 'two'"),
    ("a.csv", "start,end\n1,2\n3\n", "line 3, has 1 field"),
    ("a.docx", "x", "no known format"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=range(len(BAD)))
def test_bad_files_are_refused_with_the_line(write, name, content, message):
    path = write(name, content)
    with pytest.raises(BadTranscript, match=message) as error:
        read_intervals(path)
    assert str(error.value).startswith(str(path))


def test_missing_and_huge_files_and_folders_are_refused(tmp_path):
    with pytest.raises(BadTranscript, match="No such file"):
        read_intervals(tmp_path / "a.srt")
    (tmp_path / "folder.srt").mkdir()
    with pytest.raises(BadTranscript, match="folder"):
        read_intervals(tmp_path / "folder.srt")
    with (tmp_path / "huge.srt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(BadTranscript, match="split it"):
        read_intervals(tmp_path / "huge.srt")


def test_only_files_with_tiers_have_tiers(write):
    with pytest.raises(BadConfig, match=re.escape(".textgrid and .eaf")):
        read_intervals(write("a.srt", CUE), tiers=["x"])


def test_every_reader_exists():
    assert all(callable(READERS[suffix]) for suffix in READERS)
