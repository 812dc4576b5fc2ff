"""The auditor of splits, in Python and as a command."""

import csv
import json
import os
import random
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from affekt.corpora import corpora
from affekt.errors import BadConfig, BadCorpus
from affekt.protocols import Split, protocols, utterance_key
from affekt.protocols.audit import KINDS, audit, normalize
from affekt.protocols.files import read_splits
from affekt.protocols.grouped import LeaveOneSpeakerOut, RandomFolds
from affekt.protocols.holdout import RandomHoldOut
from affekt.utterance import Utterance
from tests.commands import affekt
from tests.conftest import ROOT


def random_utterances(number=60, **known):
    """Return utterances with random fields; `known` is the fraction of utterances for which a field is known."""
    generator = random.Random(0)

    def pick(values, fraction):
        return generator.choice(values) if generator.random() < fraction else ""

    return [
        Utterance(
            f"{n:03}",
            "made",
            None,
            generator.choice(["happy", "sad"]),
            speaker=pick("abcdef", known.get("speaker", 1)),
            session=pick("12", known.get("session", 1)),
            dialogue=pick("uvwxyz", known.get("dialogue", 0.5)),
            text=pick(["Yes.", "yes", "No!", "Well, no"], known.get("text", 0.8)),
        )
        for n in range(number)
    ]


def split_by_size(utterances, *sizes):
    """Return a split into subsets of these sizes, in the order of the utterances."""
    ids, subsets = list(map(utterance_key, utterances)), {}
    for name, size in zip(("train", "test", "validation"), sizes, strict=False):
        subsets[name], ids = ids[:size], ids[size:]
    return Split.of(utterances, subsets, "made")


def overlap(result, kind, first="train", second="test"):
    (match,) = [o for o in result.overlaps if (o.kind, o.first, o.second) == (kind, first, second)]
    return match


# Overlaps


@pytest.mark.parametrize("known", [{}, {"speaker": 0.5}, {"speaker": 0, "session": 0, "dialogue": 0, "text": 0}])
@pytest.mark.parametrize("kind", KINDS)
def test_overlaps_equal_those_of_a_loop_over_all_pairs(kind, known):
    utterances = random_utterances(**known)
    result = audit(split_by_size(utterances, 25, 20, 15), utterances)
    subsets = {"train": utterances[:25], "test": utterances[25:45], "validation": utterances[45:]}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared, affected, value = set(), set(), KINDS[kind]
        for before, after in product(subsets[first], subsets[second]):
            if value(before) and value(before) == value(after):
                shared.add(value(before))
                affected.add(utterance_key(after))
        unknown = sum(not value(u) for u in subsets[first] + subsets[second])
        reported = overlap(result, kind, first, second)
        assert (reported.unknown, reported.affected) == (unknown, len(affected))
        assert reported.shared == (None if unknown and not shared else len(shared))
        assert set(reported.examples) <= shared


def test_fields_that_a_corpus_does_not_record_are_unknown():
    utterances = random_utterances(speaker=0, text=0)
    result = audit(split_by_size(utterances, 40, 20), utterances)
    assert str(overlap(result, "speaker")) == str(overlap(result, "sentence")) == "unknown"
    assert overlap(result, "speaker").fraction is None
    assert result.to_json()["speaker_independent"] is None
    assert result.line == "speakers unknown: 60 utterances have no speaker"
    assert not result.clean


def test_shared_speakers_are_found_although_others_are_unknown():
    utterances = random_utterances(speaker=0.5)
    result = audit(split_by_size(utterances, 40, 20), utterances)
    assert re.fullmatch(r"NOT speaker-independent: at least \d of \d test speakers also in train", result.line)


def test_one_unknown_speaker_makes_the_verdict_unknown():
    utterances = [Utterance(str(n), "made", None, "sad", speaker="ab"[n % 2]) for n in range(8)]
    subsets = {"train": [f"made/{n}" for n in range(0, 8, 2)], "test": [f"made/{n}" for n in range(1, 8, 2)]}
    assert audit(Split.of(utterances, subsets, "x"), utterances).verdict == "speaker-independent"
    assert audit(Split.of(utterances, subsets, "x"), utterances).clean
    utterances[7] = Utterance("7", "made", None, "sad")
    assert audit(Split.of(utterances, subsets, "x"), utterances).verdict == "speakers unknown"


def test_equal_speaker_names_in_two_corpora_are_two_speakers():
    utterances = [Utterance("1", "here", None, "sad", speaker="a"), Utterance("1", "there", None, "sad", speaker="a")]
    assert audit(Split.of(utterances, {"train": ["here/1"], "test": ["there/1"]}, "x"), utterances).clean


def test_an_utterance_in_two_subsets_is_found():
    utterances = random_utterances()
    split = Split.of(
        utterances,
        {"train": [utterance_key(u) for u in utterances[:30]], "test": [utterance_key(u) for u in utterances[28:]]},
        "x",
    )
    repeated = overlap(audit(split, utterances), "utterance")
    assert (repeated.shared, repeated.examples) == (2, ("made/028", "made/029"))
    assert audit(split, utterances).line.endswith("; 2 of 32 test utterances also in train")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Don't forget a jacket.", "dont  FORGET, a jacket"),
        ("Don\u2019t!", "don\u00b4t"),
        ("Das weiß ich", "das weiss ich"),
        ("e\u0301cole", "école"),
        ("well -- no", "Well, no…"),
    ],
)
def test_sentences_are_compared_without_case_and_punctuation(first, second):
    assert normalize(first) == normalize(second) != ""


def test_different_sentences_stay_different_and_punctuation_alone_is_empty():
    assert normalize("I can") != normalize("I can't")
    assert normalize("... -- !") == ""


def test_identical_audio_files_with_different_names_are_found(tmp_path):
    for name, content in {"a": b"one", "b": b"two", "c": b"one"}.items():
        (tmp_path / name).write_bytes(content)
    utterances = [Utterance(name, "made", tmp_path / name, "sad", speaker=name) for name in "abc"]
    split = Split.of(utterances, {"train": ["made/a", "made/b"], "test": ["made/c"]}, "x")
    assert audit(split, utterances).clean  # audio is not compared
    result = audit(split, utterances, audio=True)
    assert (overlap(result, "audio").shared, result.verdict, result.clean) == (1, "speaker-independent", False)
    assert result.line == "speaker-independent; 1 of 1 test recordings also in train"
    (tmp_path / "c").unlink()
    with pytest.raises(BadCorpus, match=r"made/c: .* cannot be read"):
        audit(split, utterances, audio=True)


def test_two_segments_of_one_file_are_different_audio(tmp_path):
    (tmp_path / "long").write_bytes(b"one")
    utterances = [Utterance(str(n), "made", tmp_path / "long", "sad", str(n), start=n, end=n + 1.0) for n in range(2)]
    split = Split.of(utterances, {"train": ["made/0"], "test": ["made/1"]}, "x")
    assert overlap(audit(split, utterances, audio=True), "audio").shared == 0


# Warnings


def test_small_subsets_and_missing_and_rare_emotions_get_a_warning():
    utterances = [Utterance(f"{n:02}", "made", None, "happy" if n < 50 else "sad", speaker=str(n)) for n in range(60)]
    split = Split.of(
        utterances,
        {"train": [utterance_key(u) for u in utterances[:48]], "test": [utterance_key(u) for u in utterances[48:55]]},
        "x",
    )
    assert audit(split, utterances).warnings == (
        "5 of 60 utterances are in no subset (sad 5)",
        "subset 'train' has no sad",
        "subset 'test' is small: each of its 7 utterances is 14.3 points of accuracy",
        "subset 'test' has few utterances of happy (2)",
    )


def test_a_wrong_claim_of_speaker_independence_gets_a_warning():
    utterances = random_utterances()
    subsets = split_by_size(utterances, 40, 20).subsets
    result = audit(Split("x", subsets, speaker_independent=True), utterances)
    assert result.warnings[0] == "the split claims to be 'speaker-independent', but is not"
    assert result.verdict == "NOT speaker-independent"


@pytest.mark.parametrize(
    "name", ["leave-one-session-out", "speaker-folds", "random-folds", "random-hold-out", "eight-one-one"]
)
def test_the_auditor_confirms_the_claims_of_protocols(name):
    for known in ({}, {"speaker": 0.9}):
        if known and name == "speaker-folds":
            continue  # speaker folds need all speakers
        utterances = random_utterances(**known)
        assert all(audit(split, utterances).verdict == split.verdict for split in protocols[name]().folds(utterances))


def test_a_split_of_other_utterances_is_refused():
    utterances = random_utterances()
    with pytest.raises(BadConfig, match=r"20 of 60 utterances are not in these corpora, first made/040"):
        audit(split_by_size(utterances, 40, 20), utterances[:40])
    with pytest.raises(BadConfig, match="expected at least two subsets, none of them empty; got train 60"):
        audit(Split.of(utterances, {"train": map(utterance_key, utterances)}, "x"), utterances)


# Tables from other sources


@pytest.fixture
def berlin(tmp_path):
    """Return a folder with EmoDB's layout: three speakers, two sentences and two emotions, all given by the file names."""
    folder = tmp_path / "berlin"
    (folder / "wav").mkdir(parents=True)
    for speaker, sentence, emotion in product(("03", "08", "09"), ("a01", "b03"), "FT"):
        (folder / "wav" / f"{speaker}{sentence}{emotion}a.wav").write_bytes(f"{speaker}{sentence}{emotion}".encode())
    return folder


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "form", ["{stem}", "emodb/{stem}", "{stem}.wav", "there/wav/{stem}.flac", r"C:\their\{stem}.wav"]
)
def test_a_table_of_ids_or_paths_is_read(tmp_path, form, separator):
    utterances = [
        Utterance(n, "emodb", tmp_path / "wav" / f"{n}.wav", "sad", speaker=n[:2]) for n in ("03a", "03b", "08a")
    ]
    with (tmp_path / "split.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter=separator)
        table.writerow(["File", "Split"])
        table.writerows([form.format(stem=u.id), "dev" if u.speaker == "08" else "Training"] for u in utterances)
    (split,) = read_splits(tmp_path / "split.csv", utterances)
    assert split.subsets == {"train": ("emodb/03a", "emodb/03b"), "validation": ("emodb/08a",)}
    assert split.speaker_independent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: expected a row of column names"),
        ("clip,split\na,train\n", "has columns clip, split: expected one called id, utterance"),
        ("id,when\na,train\n", "has columns id, when: expected one called split, subset"),
        (
            "id,part\na,train\nz,test\n",
            r"1 of 2 rows do not match one utterance and a subset, first 'z' \(0 utterances",
        ),
        ("path,part\nx/same.wav,train\nsame.wav,test\n", r"first 'same.wav' \(2 utterances, subset 'test'\)"),
        ("id,part\na,train\na,train\n", "line 2 and line 3 are both made/a in 'train': remove one"),
        ("id,part\na,train\na,tset\n", r"line 3: no subset 'tset'; did you mean 'test'\?"),
        ("id,part\na,\n", r"first 'a' \(1 utterance, subset ''\) in line 2: correct"),
        ("id,part\n.,test\n", r"first '.' \(0 utterances"),
    ],
)
def test_an_invalid_table_is_refused_with_the_reason(tmp_path, text, message):
    utterances = [Utterance("a", "made", None, "sad")]
    utterances += [Utterance(name, "made", tmp_path / name / "same.wav", "sad") for name in "xy"]
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(BadConfig, match=message):
        read_splits(tmp_path / "split.csv", utterances)


def test_a_table_may_name_segments_and_other_unicode_forms(tmp_path):
    audio = tmp_path / "caf\u00e9.wav"
    utterances = [Utterance(f"a{i}", "made", audio, "sad", start=i, end=None if i else 1.0) for i in (0.0, 1.0)]
    (tmp_path / "split.csv").write_text(
        "file,start,end,split\ncafe\u0301.wav,0,1,train\ncafe\u0301.wav,0 days 00:00:01,,test\n"
    )
    (split,) = read_splits(tmp_path / "split.csv", utterances)
    assert split.subsets == {"train": ("made/a0.0",), "test": ("made/a1.0",)}


def test_runs_that_differ_by_seed_have_one_split(tmp_path):
    first, second = RandomFolds(k=2).folds(random_utterances())
    for name, split in {"fold-1/seed-0": first, "fold-1/seed-1": first, "fold-2/seed-0": second}.items():
        (tmp_path / name).mkdir(parents=True)
        split.save(tmp_path / name / "split.json")
    assert read_splits(tmp_path, []) == [first, second]


def test_a_folder_without_splits_is_refused(tmp_path):
    with pytest.raises(
        BadConfig,
        match=r"has neither split.json nor fold-01.json nor a table for each subset .*: expected a run, a bundle",
    ):
        read_splits(tmp_path, [])


# The command


def audit_command(*arguments):
    return affekt("audit", *arguments)


def test_saved_folds_are_audited_with_the_same_output(tmp_path, berlin):
    result = audit_command("--protocol", "leave-one-speaker-out", "--save", tmp_path / "folds", "emodb", berlin)
    assert (result.returncode, result.stderr) == (0, f"{tmp_path / 'folds'}: 3 folds\n")
    assert "speaker-independent: all 3 folds" in result.stdout
    again = audit_command(tmp_path / "folds", f"emodb:{berlin}")
    assert (again.returncode, again.stdout) == (0, result.stdout)
    single = audit_command(tmp_path / "folds" / "fold-02.json", "emodb", berlin)
    assert single.returncode == 0
    assert single.stdout.startswith("leave one speaker out, fold emodb/08\nspeaker-independent\n")
    assert re.search(
        r"sentence +2 of 2 \(100%\)  an den wochenenden .*, der lappen liegt auf dem eisschrank", single.stdout
    )


def test_shared_speakers_give_exit_status_1(berlin):
    shared = audit_command("--protocol", "random-hold-out", "--set", "test=0.5", "emodb", berlin)
    assert shared.returncode == 1
    assert re.search(r"^NOT speaker-independent: 3 of 3 test speakers also in train$", shared.stdout, re.MULTILINE)


def test_json_is_a_list_of_the_audits_of_the_folds(berlin):
    result = audit_command(
        "--protocol", "random-folds", "--set", "k=2", "--seed", "3", "--audio", "--json", "emodb", berlin
    )
    utterances = corpora["emodb"].read(berlin)
    expected = [audit(split, utterances, audio=True).to_json() for split in RandomFolds(k=2).folds(utterances, 3)]
    assert json.loads(result.stdout) == json.loads(json.dumps(expected))


def test_a_label_set_merges_emotions_and_reports_left_out_utterances(berlin):
    (berlin / "wav" / "03a01La.wav").touch()
    result = audit_command("--protocol", "leave-one-speaker-out", "--labels", "six", "--json", "emodb", berlin)
    assert result.stderr == "left out 1 of 13 utterances whose emotions are not in six (bored 1)\n"
    assert json.loads(result.stdout)[0]["subsets"][0]["emotions"] == {"happy": 4, "sad": 4}


def test_a_folder_with_split_json_is_audited(tmp_path, berlin):
    utterances = corpora["emodb"].read(berlin)
    RandomHoldOut(test=0.5).folds(utterances)[0].save(tmp_path / "split.json")
    assert audit_command(tmp_path, "emodb", berlin).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json", "emodb", "BERLIN"], "none.json does not exist: expected a split file, a table, a run folder"),
        (["defualt", "emodb", "BERLIN"], "did you mean 'default'?"),
        (["pyproject.toml"], "no corpus given: expected CORPUS ROOT"),
        (["--seed", "1", "x.json", "emodb", "BERLIN"], "--set and --seed need --protocol NAME"),
        (["--protocol", "random-fold", "emodb", "BERLIN"], "did you mean 'random-folds'?"),
        (["--protocol", "random-folds", "--set", "kk=2", "emodb", "BERLIN"], "unknown key 'kk'; did you mean 'k'?"),
        (["--protocol", "random-folds", "emobd", "BERLIN"], "there is no corpus 'emobd'; did you mean 'emodb'?"),
        (["--protocol", "official", "emodb", "BERLIN"], "official split needs every utterance's split: 12 of 12"),
    ],
)
def test_an_error_is_one_line_with_exit_status_2(berlin, arguments, message):
    result = audit_command(*[str(berlin) if argument == "BERLIN" else argument for argument in arguments])
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


@pytest.mark.slow
def test_auditing_needs_neither_torch_nor_numpy(berlin):
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['numpy', 'torch', 'onnxruntime', 'soundfile']))\n"
        f"sys.argv = ['affekt', 'audit', '--protocol', 'leave-one-speaker-out', 'emodb', {str(berlin)!r}]\n"
        "from affekt.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


# docs/protocols.md


COPIES = {"cremad": 7429, "emodb": 535, "meld": 13708}  # the utterances of the copies that the page was written from
PAGE = ROOT / "docs" / "protocols.md"


def test_every_protocol_has_a_row_on_the_page():
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(protocols)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "shown"),
    re.findall(r"```console\n\$ affekt audit (.*)\n((?:.*\n)*?)```", PAGE.read_text(encoding="utf-8")),
)
def test_the_page_shows_the_output_of_its_commands(command, shown):
    for corpus in COPIES.keys() & set(command.split()):
        root = Path(os.environ.get("AFFEKT_DATA", ""), corpus)
        if not os.environ.get("AFFEKT_DATA") or not root.is_dir():
            pytest.skip(f"AFFEKT_DATA has no {corpus}/")
        if len(corpora[corpus].read(root)) != COPIES[corpus]:
            pytest.skip(
                f"{root} is another copy of {corpus}: the page was written from one of {COPIES[corpus]} utterances"
            )
    assert audit_command(*command.split()).stdout == shown


def test_folds_of_emodbs_speakers_share_every_sentence(emodb):
    utterances = corpora["emodb"].read(emodb)
    audits = [audit(split, utterances) for split in LeaveOneSpeakerOut().folds(utterances)]
    assert all(entry.clean for entry in audits)
    assert {str(overlap(entry, "sentence")) for entry in audits} == {"10 of 10"}
