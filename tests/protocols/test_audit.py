"""The auditor, as Python calls it and as a person meets it."""

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
from affekt.protocols import Split, key, protocols
from affekt.protocols.audit import KINDS, audit, normalize
from affekt.protocols.files import read_splits
from affekt.protocols.grouped import LeaveOneSpeakerOut, RandomFolds
from affekt.protocols.holdout import RandomHoldOut
from affekt.utterance import Utterance
from tests.conftest import ROOT


def made(number=60, **known):
    """Utterances about whom anything may be unknown, at random."""
    chance = random.Random(0)

    def some(words, share):
        return chance.choice(words) if chance.random() < share else ""

    return [
        Utterance(
            f"{n:03}",
            "made",
            None,
            chance.choice(["happy", "sad"]),
            speaker=some("abcdef", known.get("speaker", 1)),
            session=some("12", known.get("session", 1)),
            dialogue=some("uvwxyz", known.get("dialogue", 0.5)),
            text=some(["Yes.", "yes", "No!", "Well, no"], known.get("text", 0.8)),
        )
        for n in range(number)
    ]


def placed(utterances, *sizes):
    """A split of them into parts of these sizes, in their order."""
    ids, parts = list(map(key, utterances)), {}
    for name, size in zip(("train", "test", "validation"), sizes, strict=False):
        parts[name], ids = ids[:size], ids[size:]
    return Split.of(utterances, parts, "made")


def overlap(found, kind, first="train", second="test"):
    (one,) = [o for o in found.overlaps if (o.kind, o.first, o.second) == (kind, first, second)]
    return one


# What is shared


@pytest.mark.parametrize("known", [{}, {"speaker": 0.5}, {"speaker": 0, "session": 0, "dialogue": 0, "text": 0}])
@pytest.mark.parametrize("kind", KINDS)
def test_overlaps_are_those_of_a_plain_loop_over_all_pairs(kind, known):
    utterances = made(**known)
    found = audit(placed(utterances, 25, 20, 15), utterances)
    parts = {"train": utterances[:25], "test": utterances[25:45], "validation": utterances[45:]}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared, touched = set(), set()
        for one, other in product(parts[first], parts[second]):
            if KINDS[kind](one) and KINDS[kind](one) == KINDS[kind](other):
                shared.add(KINDS[kind](one))
                touched.add(key(other))
        unknown = sum(not KINDS[kind](u) for u in parts[first] + parts[second])
        here = overlap(found, kind, first, second)
        assert (here.unknown, here.affected) == (unknown, len(touched))
        assert here.shared == (None if unknown and not shared else len(shared))
        assert set(here.examples) <= shared


def test_what_a_corpus_does_not_say_is_unknown_and_never_nothing():
    utterances = made(speaker=0, text=0)
    found = audit(placed(utterances, 40, 20), utterances)
    assert str(overlap(found, "speaker")) == str(overlap(found, "sentence")) == "unknown"
    assert overlap(found, "speaker").fraction is None
    assert found.to_json()["speaker_independent"] is None
    assert found.line == "speakers unknown: 60 utterances have no speaker"
    assert not found.clean


def test_some_unknown_speakers_do_not_hide_a_known_one_on_both_sides():
    utterances = made(speaker=0.5)
    found = audit(placed(utterances, 40, 20), utterances)
    assert re.fullmatch(r"NOT speaker-independent: at least \d of \d test speakers also in train", found.line)


def test_one_unknown_speaker_leaves_it_open_and_all_known_settle_it():
    ours = [Utterance(str(n), "made", None, "sad", speaker="ab"[n % 2]) for n in range(8)]
    parts = {"train": [f"made/{n}" for n in range(0, 8, 2)], "test": [f"made/{n}" for n in range(1, 8, 2)]}
    assert audit(Split.of(ours, parts, "x"), ours).verdict == "speaker-independent"
    assert audit(Split.of(ours, parts, "x"), ours).clean
    ours[7] = Utterance("7", "made", None, "sad")
    assert audit(Split.of(ours, parts, "x"), ours).verdict == "speakers unknown"


def test_the_same_speaker_s_name_in_two_corpora_is_two_people():
    ours = [Utterance("1", "here", None, "sad", speaker="a"), Utterance("1", "there", None, "sad", speaker="a")]
    assert audit(Split.of(ours, {"train": ["here/1"], "test": ["there/1"]}, "x"), ours).clean


def test_an_utterance_in_two_parts_is_found():
    ours = made()
    split = Split.of(ours, {"train": [key(u) for u in ours[:30]], "test": [key(u) for u in ours[28:]]}, "x")
    found = overlap(audit(split, ours), "utterance")
    assert (found.shared, found.examples) == (2, ("made/028", "made/029"))
    assert audit(split, ours).line.endswith("; 2 of 32 test utterances also in train")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Don't forget a jacket.", "dont  FORGET, a jacket"),
        ("Don\u2019t!", "don\u00b4t"),
        ("Das weiß ich", "das weiss ich"),
        ("e\u0301cole", "école"),
        ("well -- no", "Well, no…"),
    ],
)
def test_a_sentence_is_the_same_in_whatever_spelling(one, other):
    assert normalize(one) == normalize(other) != ""


def test_sentences_that_differ_and_sounds_without_words():
    assert normalize("I can") != normalize("I can't")
    assert normalize("... -- !") == ""


def test_the_same_bytes_are_found_whatever_they_are_called(tmp_path):
    for name, content in {"a": b"one", "b": b"two", "c": b"one"}.items():
        (tmp_path / name).write_bytes(content)
    ours = [Utterance(name, "made", tmp_path / name, "sad", speaker=name) for name in "abc"]
    split = Split.of(ours, {"train": ["made/a", "made/b"], "test": ["made/c"]}, "x")
    assert audit(split, ours).clean  # not asked
    found = audit(split, ours, audio=True)
    assert (overlap(found, "audio").shared, found.verdict, found.clean) == (1, "speaker-independent", False)
    assert found.line == "speaker-independent; 1 of 1 test recordings also in train"
    (tmp_path / "c").unlink()
    with pytest.raises(BadCorpus, match=r"made/c: .* cannot be read"):
        audit(split, ours, audio=True)


def test_another_stretch_of_the_same_file_is_another_sound(tmp_path):
    (tmp_path / "long").write_bytes(b"one")
    ours = [Utterance(str(n), "made", tmp_path / "long", "sad", str(n), start=n, end=n + 1.0) for n in range(2)]
    split = Split.of(ours, {"train": ["made/0"], "test": ["made/1"]}, "x")
    assert overlap(audit(split, ours, audio=True), "audio").shared == 0


# What to beware of


def test_small_parts_and_absent_and_rare_emotions_are_warned_of():
    ours = [Utterance(f"{n:02}", "made", None, "happy" if n < 50 else "sad", speaker=str(n)) for n in range(60)]
    split = Split.of(ours, {"train": [key(u) for u in ours[:48]], "test": [key(u) for u in ours[48:55]]}, "x")
    assert audit(split, ours).warnings == (
        "5 of 60 utterances are in no subset (sad 5)",
        "subset 'train' has no sad",
        "subset 'test' is small: one of its 7 is 14.3 points of accuracy",
        "subset 'test' has few utterances of happy (2)",
    )


def test_a_false_claim_is_contradicted():
    ours = made()
    parts = placed(ours, 40, 20).subsets
    found = audit(Split("x", parts, speaker_independent=True), ours)
    assert found.warnings[0] == "the split claims to be 'speaker-independent', but is not"
    assert found.verdict == "NOT speaker-independent"


@pytest.mark.parametrize(
    "name", ["leave-one-session-out", "speaker-folds", "random-folds", "random-hold-out", "eight-one-one"]
)
def test_a_protocol_s_claim_is_what_the_auditor_finds(name):
    for known in ({}, {"speaker": 0.9}):
        if known and name == "speaker-folds":
            continue  # it refuses
        ours = made(**known)
        assert all(audit(split, ours).verdict == split.verdict for split in protocols[name]().folds(ours))


def test_a_split_of_other_utterances_is_refused():
    ours = made()
    with pytest.raises(BadConfig, match=r"20 of 60 utterances are not in these corpora, first made/040"):
        audit(placed(ours, 40, 20), ours[:40])
    with pytest.raises(BadConfig, match="expected at least two subsets, none of them empty; got train 60"):
        audit(Split.of(ours, {"train": map(key, ours)}, "x"), ours)


# Tables that others made


@pytest.fixture
def berlin(tmp_path):
    """A corpus laid out as EmoDB, of three speakers who say two sentences in two emotions: names tell it all."""
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
    ours = [Utterance(n, "emodb", tmp_path / "wav" / f"{n}.wav", "sad", speaker=n[:2]) for n in ("03a", "03b", "08a")]
    with (tmp_path / "split.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter=separator)
        table.writerow(["File", "Split"])
        table.writerows([form.format(stem=u.id), "dev" if u.speaker == "08" else "Training"] for u in ours)
    (split,) = read_splits(tmp_path / "split.csv", ours)
    assert split.subsets == {"train": ("emodb/03a", "emodb/03b"), "validation": ("emodb/08a",)}
    assert split.speaker_independent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: expected a row of column names"),
        ("clip,split\na,train\n", "has columns clip, split: expected one called id, utterance"),
        ("id,when\na,train\n", "has columns id, when: expected one called part, split"),
        (
            "id,part\na,train\nz,test\n",
            r"1 of 2 rows do not match one utterance and a subset, first 'z' \(0 utterances",
        ),
        ("path,part\nx/same.wav,train\nsame.wav,test\n", r"first 'same.wav' \(2 utterances, subset 'test'\)"),
        ("id,part\na,\n", r"first 'a' \(1 utterances, subset ''\)"),
        ("id,part\n.,test\n", r"first '.' \(0 utterances"),
    ],
)
def test_a_table_that_cannot_be_understood_says_why(tmp_path, text, message):
    ours = [Utterance("a", "made", None, "sad")]
    ours += [Utterance(name, "made", tmp_path / name / "same.wav", "sad") for name in "xy"]
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(BadConfig, match=message):
        read_splits(tmp_path / "split.csv", ours)


def test_runs_that_differ_by_their_seeds_have_one_split(tmp_path):
    one, other = RandomFolds(k=2).folds(made())
    for place, split in {"fold-1/seed-0": one, "fold-1/seed-1": one, "fold-2/seed-0": other}.items():
        (tmp_path / place).mkdir(parents=True)
        split.save(tmp_path / place / "split.json")
    assert read_splits(tmp_path, []) == [one, other]


def test_a_folder_of_no_splits_is_named(tmp_path):
    with pytest.raises(
        BadConfig, match=r"has neither split.json nor fold-01.json: expected a run, a bundle or saved folds"
    ):
        read_splits(tmp_path, [])


# The command


def affekt(*arguments, **environment):
    variables = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "affekt", "audit", *map(str, arguments)],
        env=variables | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_folds_are_made_audited_saved_and_audited_again(tmp_path, berlin):
    said = affekt("--protocol", "leave-one-speaker-out", "--save", tmp_path / "folds", "emodb", berlin)
    assert (said.returncode, said.stderr) == (0, f"{tmp_path / 'folds'}: 3 folds\n")
    assert "speaker-independent: all 3 folds" in said.stdout
    again = affekt(tmp_path / "folds", f"emodb:{berlin}")
    assert (again.returncode, again.stdout) == (0, said.stdout)
    one = affekt(tmp_path / "folds" / "fold-02.json", "emodb", berlin)
    assert one.returncode == 0
    assert one.stdout.startswith("leave one speaker out, fold emodb/08\nspeaker-independent\n")
    assert re.search(
        r"sentence +2 of 2 \(100%\)  an den wochenenden .*, der lappen liegt auf dem eisschrank", one.stdout
    )


def test_shared_speakers_are_status_1_and_unknown_ones_too(berlin):
    shared = affekt("--protocol", "random-hold-out", "--set", "test=0.5", "emodb", berlin)
    assert shared.returncode == 1
    assert re.search(r"^NOT speaker-independent: 3 of 3 test speakers also in train$", shared.stdout, re.MULTILINE)


def test_json_is_a_list_of_audits_as_python_gives_them(berlin):
    said = affekt("--protocol", "random-folds", "--set", "k=2", "--seed", "3", "--audio", "--json", "emodb", berlin)
    ours = corpora["emodb"].read(berlin)
    expected = [audit(split, ours, audio=True).to_json() for split in RandomFolds(k=2).folds(ours, 3)]
    assert json.loads(said.stdout) == json.loads(json.dumps(expected))


def test_a_label_set_leaves_out_aloud_and_merges(berlin):
    (berlin / "wav" / "03a01La.wav").touch()
    said = affekt("--protocol", "leave-one-speaker-out", "--labels", "six", "--json", "emodb", berlin)
    assert said.stderr == "left out 1 of 13 utterances whose emotions are not in six (bored 1)\n"
    assert json.loads(said.stdout)[0]["subsets"][0]["emotions"] == {"happy": 4, "sad": 4}


def test_a_run_and_a_bundle_are_found_by_their_split(tmp_path, berlin):
    ours = corpora["emodb"].read(berlin)
    RandomHoldOut(test=0.5).folds(ours)[0].save(tmp_path / "split.json")
    assert affekt(tmp_path, "emodb", berlin).returncode == 1


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
def test_an_error_of_ours_is_one_line_and_status_2(berlin, arguments, message):
    said = affekt(*[str(berlin) if word == "BERLIN" else word for word in arguments])
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (2, "", 1)
    assert message in said.stderr


def test_auditing_needs_neither_torch_nor_numpy(berlin):
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['numpy', 'torch', 'onnxruntime', 'soundfile']))\n"
        f"sys.argv = ['affekt', 'audit', '--protocol', 'leave-one-speaker-out', 'emodb', {str(berlin)!r}]\n"
        "from affekt.cli import main; main()"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


# The page about them


COPIES = {"cremad": 7429, "emodb": 535, "meld": 13708}  # the utterances of the copies that the page was written from
PAGE = ROOT / "docs" / "protocols.md"


def test_every_protocol_has_its_row_on_the_page():
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(protocols)


@pytest.mark.parametrize(
    ("command", "shown"),
    re.findall(r"```console\n\$ affekt audit (.*)\n((?:.*\n)*?)```", PAGE.read_text(encoding="utf-8")),
)
def test_the_page_shows_what_the_command_says(command, shown):
    for corpus in COPIES.keys() & set(command.split()):
        root = Path(os.environ.get("AFFEKT_DATA", ""), corpus)
        if not os.environ.get("AFFEKT_DATA") or not root.is_dir():
            pytest.skip(f"AFFEKT_DATA has no {corpus}/")
        if len(corpora[corpus].read(root)) != COPIES[corpus]:
            pytest.skip(
                f"{root} is another copy of {corpus}: the page was written from one of {COPIES[corpus]} utterances"
            )
    assert affekt(*command.split()).stdout == shown


def test_leaving_emodb_s_speakers_out_shares_every_sentence(emodb):
    ours = corpora["emodb"].read(emodb)
    found = [audit(split, ours) for split in LeaveOneSpeakerOut().folds(ours)]
    assert all(one.clean for one in found)
    assert {str(overlap(one, "sentence")) for one in found} == {"10 of 10"}
