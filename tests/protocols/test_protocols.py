"""Protocols make the folds that they promise, the same on every machine; splits are saved and read back."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import pytest

from affekt.config import decode_named, encode
from affekt.errors import BadConfig, BadOutput
from affekt.protocols import Split, protocols, utterance_key
from affekt.protocols.files import read_splits
from affekt.protocols.grouped import LeaveOneSessionOut, LeaveOneSpeakerOut, RandomFolds, SpeakerFolds
from affekt.protocols.holdout import HeldOutSpeakers, RandomHoldOut
from affekt.protocols.official import Official
from affekt.protocols.papers import EightOneOne, EmotionNAS, MSTRRandom, TDFNetRandomTen
from affekt.protocols.split import save_folds
from affekt.protocols.split_files import SplitFiles
from affekt.utterance import Utterance
from tests.logs import logged

EMOTIONS = ("angry", "happy", "neutral", "neutral", "neutral", "sad", "sad")  # neutral is frequent, as in real corpora
# IEMOCAP's 5,531 utterances by speaker, as published.
IEMOCAP = {
    "Ses01F": 528, "Ses01M": 557, "Ses02F": 481, "Ses02M": 542, "Ses03F": 522,
    "Ses03M": 629, "Ses04F": 528, "Ses04M": 503, "Ses05F": 590, "Ses05M": 651,
}  # fmt: skip
MADE = {
    "Ses01F": 100, "Ses01M": 100, "Ses02F": 110, "Ses02M": 110,
    "Ses03F": 100, "Ses03M": 120, "Ses04F": 80, "Ses04M": 70,
}  # fmt: skip


def hold_out(given, speakers):
    return HeldOutSpeakers(**{subset: tuple(names) for subset, names in speakers.items()}).folds(given)[0]


def utterances(speakers=("1", "2", "3"), each=2):
    return [Utterance(f"{s}-{n}", "made", None, "happy", speaker=s) for s in speakers for n in range(each)]


def conversations(counts=MADE):
    """Return utterances in sessions of a woman and a man, as in IEMOCAP; by default 790, enough for every protocol."""
    return [
        Utterance(
            f"{speaker}_{n:03}",
            "made",
            None,
            EMOTIONS[n % 7],
            speaker=speaker,
            gender={"F": "female", "M": "male"}[speaker[-1]],
            session=speaker[:-1],
            split=("train", "train", "dev", "test")[n % 4],
        )
        for speaker, count in counts.items()
        for n in range(count)
    ]


@pytest.fixture(autouse=True, scope="module")
def split_file(tmp_path_factory):
    """Write the table that `default` reads: an official split, which is not speaker-independent."""
    path = tmp_path_factory.mktemp("splits") / "split.csv"
    write_rows(path, [(utterance.id, utterance.split) for utterance in conversations()])
    REQUIRED["split-files"] = {"path": str(path)}


REQUIRED = {"held-out-speakers": {"test": ("made/Ses01F",)}}
"""The settings that have no default, by protocol."""


def default(name):
    """Return a protocol with its default settings."""
    return protocols[name](**REQUIRED.get(name, {}))


def write_rows(path, rows, columns=("id", "split")):
    path.write_text("\n".join(",".join(map(str, row)) for row in [columns, *rows]) + "\n")


def members(split, subset, given):
    by_key = {utterance_key(utterance): utterance for utterance in given}
    return [by_key[name] for name in split.subsets[subset]]


# Every protocol


@pytest.mark.parametrize("name", protocols)
def test_every_utterance_is_in_exactly_one_subset(name):
    given = conversations()
    for fold in default(name).folds(given):
        assert sorted(name for ids in fold.subsets.values() for name in ids) == sorted(map(utterance_key, given))
        assert {"train", "test"} <= set(fold.subsets) <= {"train", "validation", "test"}


@pytest.mark.parametrize("name", protocols)
def test_folds_do_not_depend_on_the_order_of_the_utterances(name):
    given = conversations()
    assert default(name).folds(given) == default(name).folds(given[::-1])


@pytest.mark.parametrize("name", protocols)
def test_the_seed_changes_random_protocols_only(name):
    first, second = (default(name).folds(conversations(), seed) for seed in (0, 1))
    assert default(name).is_random == ([fold.hash for fold in first] != [fold.hash for fold in second])
    assert {fold.seed for fold in second} == {1 if default(name).is_random else None}


@pytest.mark.parametrize("name", protocols)
def test_folds_differ_from_each_other(name):
    folds = default(name).folds(conversations())
    assert len({fold.hash for fold in folds}) == len({fold.title for fold in folds}) == len(folds)


@pytest.mark.parametrize("name", protocols)
def test_speaker_independent_folds_share_no_speaker(name):
    given = conversations()
    for fold in default(name).folds(given):
        speakers = [{u.speaker_key for u in members(fold, subset, given)} for subset in fold.subsets]
        assert fold.speaker_independent == all(not first & second for first, second in combinations(speakers, 2))


def test_the_speaker_independent_protocols():
    independent = {n for n in protocols if all(fold.speaker_independent for fold in default(n).folds(conversations()))}
    assert independent == {
        "held-out-speakers",
        "leave-one-session-out",
        "leave-one-speaker-out",
        "speaker-folds",
        "emotionnas",
    }


@pytest.mark.parametrize("name", protocols)
def test_settings_survive_encoding_and_decoding(name):
    protocol = default(name)
    assert decode_named(protocols, {"name": name, **encode(protocol)}, "protocol")[1] == protocol


@pytest.mark.parametrize("name", protocols)
def test_has_validation_agrees_with_the_folds(name):
    assert default(name).has_validation == ("validation" in default(name).folds(conversations())[0].subsets)


@pytest.mark.parametrize("name", protocols)
def test_a_repeated_utterance_is_refused(name):
    with pytest.raises(BadConfig, match="1 utterances are given more than once, first made/Ses01F_000"):
        default(name).folds([*conversations(), conversations()[0]])


# For each protocol the hash of the hashes of its folds: the same on every machine, Python and operating system.
HASHES = {
    "held-out-speakers": "c861316da3d0",
    "leave-one-session-out": "c0e2f725e685",
    "leave-one-speaker-out": "e337ff314e50",
    "speaker-folds": "2a56c44e4c72",
    "random-folds": "05b5bfb499de",
    "random-hold-out": "36783fc3fc30",
    "official": "6a60690d7776",
    "split-files": "6a60690d7776",  # the same subsets
    "mstr-random": "47f3cec14848",
    "tdfnet-random-ten": "dc0214260c17",
    "eight-one-one": "56d4897bdd89",
    "emotionnas": "fe21f471773a",
}


@pytest.mark.parametrize("name", protocols)
def test_folds_are_the_same_on_every_machine(name):
    hashes = " ".join(fold.hash for fold in default(name).folds(conversations(), seed=7))
    assert hashlib.sha256(hashes.encode()).hexdigest()[:12] == HASHES[name]


@pytest.mark.slow
def test_folds_do_not_depend_on_pythons_hash_seed():
    program = (
        "from tests.protocols.test_protocols import *\n"
        "names = [name for name in protocols if name != 'split-files']  # the split of a file of this process\n"
        "print([fold.hash for name in names for fold in default(name).folds(conversations(), seed=7)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


# Groups


def test_leave_one_session_out_tests_each_session_once():
    given = conversations(IEMOCAP)
    folds = LeaveOneSessionOut().folds(given)
    assert {fold.fold: len(fold.subsets["test"]) for fold in folds} == {
        "made/Ses01": 1085, "made/Ses02": 1023, "made/Ses03": 1151, "made/Ses04": 1031, "made/Ses05": 1241,
    }  # fmt: skip
    assert all({f"made/{u.session}" for u in members(fold, "test", given)} == {fold.fold} for fold in folds)


def test_leave_one_speaker_out_tests_each_speaker_once():
    folds = LeaveOneSpeakerOut().folds(conversations(IEMOCAP))
    assert {fold.fold.removeprefix("made/"): len(fold.subsets["test"]) for fold in folds} == IEMOCAP


def test_validation_next_is_the_following_group_and_wraps_around():
    folds = LeaveOneSessionOut(validation="next").folds(conversations())
    assert [fold.subsets["validation"] for fold in folds] == [folds[(n + 1) % 4].subsets["test"] for n in range(4)]


def test_a_validation_fraction_by_speakers_takes_whole_speakers():
    given = conversations(IEMOCAP)
    for fraction, num_speakers in ((0.01, 1), (0.12, 1), (0.25, 2), (0.5, 4)):
        for fold in LeaveOneSessionOut(validation=fraction).folds(given, seed=3):
            assert len({u.speaker_key for u in members(fold, "validation", given)}) == num_speakers
            assert fold.speaker_independent


def test_a_validation_fraction_by_utterances_is_exact_and_stratified():
    given = conversations(IEMOCAP)
    for fold in LeaveOneSessionOut(validation=0.1, validation_by="utterances").folds(given):
        remaining = members(fold, "train", given) + members(fold, "validation", given)
        assert len(fold.subsets["validation"]) == len(remaining) // 10
        counts = Counter(u.emotion for u in members(fold, "validation", given))
        for emotion, number in Counter(u.emotion for u in remaining).items():
            assert abs(counts[emotion] - len(fold.subsets["validation"]) * number / len(remaining)) < 1
        assert (fold.verdict, fold.validation_verdict) == ("speaker-independent", "NOT speaker-independent")
        assert "speaker-independent (validation against training: NOT speaker-independent)" in fold.line("test")


def test_at_least_one_speaker_is_left_to_train_on():
    fold = LeaveOneSpeakerOut(validation=0.99).folds(utterances(each=200))[0]
    assert len(fold.subsets["train"]) == 200


def test_speaker_folds_have_similar_sizes():
    sizes = [len(fold.subsets["test"]) for fold in SpeakerFolds(k=5).folds(conversations(IEMOCAP))]
    assert sum(sizes) == 5531
    assert max(sizes) - min(sizes) < 100
    equal = [
        len(fold.subsets["test"]) for fold in SpeakerFolds(k=5).folds(utterances([str(n) for n in range(91)], each=1))
    ]
    assert sorted(equal) == [18, 18, 18, 18, 19]


@pytest.mark.parametrize("stratified", [True, False])
def test_random_folds_test_each_utterance_once_in_folds_of_equal_size(stratified):
    given = conversations()
    folds = RandomFolds(k=7, stratified=stratified).folds(given)
    tested = [members(fold, "test", given) for fold in folds]
    assert sorted(utterance_key(u) for fold in tested for u in fold) == sorted(map(utterance_key, given))
    assert max(map(len, tested)) - min(map(len, tested)) <= 1
    counts = defaultdict(list)
    for fold in tested:
        for emotion in set(EMOTIONS):
            counts[emotion].append(sum(u.emotion == emotion for u in fold))
    assert stratified == all(max(numbers) - min(numbers) <= 1 for numbers in counts.values())


def test_folds_can_be_stratified_by_another_label():
    given = conversations()
    for fold in RandomFolds(k=2).folds(given, label=lambda u: u.speaker):
        counts = Counter(u.speaker for u in members(fold, "test", given))
        assert all(abs(counts[name] - number / 2) <= 0.5 for name, number in Counter(u.speaker for u in given).items())


# Hold-out protocols


def test_held_out_speakers_are_in_their_subsets_only():
    split = hold_out(utterances(), {"test": ["made/3"], "validation": ["made/1"]})
    assert split.subsets == {
        "train": ("made/2-0", "made/2-1"),
        "test": ("made/3-0", "made/3-1"),
        "validation": ("made/1-0", "made/1-1"),
    }
    assert split.speaker_independent
    assert sorted(id for ids in split.subsets.values() for id in ids) == sorted(map(utterance_key, utterances()))


def test_further_subsets_of_held_out_speakers_may_have_any_name():
    (split,) = HeldOutSpeakers(test=("made/3",), others={"far": ("made/2",)}).folds(utterances())
    assert split.subsets["far"] == ("made/2-0", "made/2-1")
    assert split.description == "far 1 speakers, test 1 speakers"
    with pytest.raises(BadConfig, match=r"others has \['test'\]"):
        HeldOutSpeakers(others={"test": ("made/2",)})
    with pytest.raises(BadConfig, match=r"no speaker is held out: expected test = \['CORPUS/SPEAKER', ...\]"):
        HeldOutSpeakers()


def test_a_held_out_speaker_must_exist_and_be_in_one_subset():
    with pytest.raises(BadConfig, match="names made/9, who has no utterance; did you mean 'made/"):
        hold_out(utterances(), {"test": ["made/9"]})
    with pytest.raises(BadConfig, match="made/1 is in both 'validation' and 'test'"):
        hold_out(utterances(), {"validation": ["made/1"], "test": ["made/1"]})
    with pytest.raises(BadConfig, match="held-out speakers: subset 'train' of 6 utterances would be empty"):
        hold_out(utterances(), {"test": ["made/1", "made/2", "made/3"]})


@pytest.mark.parametrize(
    ("fraction", "total", "number"),
    [(0.2, 7442, 1488), (0.1, 5531, 553), (0.29, 100, 29), (0.7, 10, 7), (553, 5531, 553)],
)
def test_a_fraction_is_rounded_down_exactly(fraction, total, number):
    # 0.29 * 100 is 28.999999999999996 in floating point, but the result must be 29.
    (split,) = RandomHoldOut(test=fraction).folds(utterances(["1"], each=total))
    assert len(split.subsets["test"]) == number


def test_a_stratified_choice_is_within_one_utterance_of_the_proportion():
    given = conversations()
    sizes = Counter(u.emotion for u in given)
    for fold in RandomHoldOut(test=0.23, repeats=3).folds(given):
        counts = Counter(u.emotion for u in members(fold, "test", given))
        assert counts.total() == math.floor(Fraction("0.23") * len(given))
        assert all(abs(counts[name] - counts.total() * size / len(given)) < 1 for name, size in sizes.items())


def test_repeats_are_independent_and_do_not_depend_on_their_number():
    few, many = (RandomHoldOut(repeats=repeats).folds(conversations()) for repeats in (2, 4))
    assert [fold.hash for fold in few] == [fold.hash for fold in many[:2]]
    shared = set(many[0].subsets["test"]) & set(many[1].subsets["test"])
    assert 0 < len(shared) < len(many[0].subsets["test"]) / 2


@pytest.mark.parametrize("test", [0.001, 790, 800, 1.5])
def test_a_test_subset_of_no_or_all_utterances_is_refused(test):
    with pytest.raises(
        BadConfig,
        match=r"test part 1 would have \d+ of 790 utterances .*: expected a fraction below 1 or a whole number",
    ):
        RandomHoldOut(test=test).folds(conversations())


def test_the_official_split_recognizes_usual_names_of_subsets():
    (split,) = Official().folds(conversations())
    assert set(split.subsets) == {"train", "validation", "test"}
    with pytest.raises(BadConfig, match=r"there is no test: the corpus has \['dev', 'train'\]"):
        Official().folds([u for u in conversations() if u.split != "test"])


def test_missing_subsets_are_taken_from_the_training_subset_by_whole_speakers():
    (split,) = Official(test=0.2, validation=0.1).folds([replace(u, split="train") for u in conversations()])
    assert set(split.subsets) == {"train", "validation", "test"}
    assert split.speaker_independent
    assert split.seed == 0
    stated = [u for u in conversations() if u.split != "dev"]
    (split,) = Official(test=0.2, validation=0.1).folds(stated)
    assert set(split.subsets["test"]) == {utterance_key(u) for u in stated if u.split == "test"}
    assert len(split.subsets["validation"]) > 0
    anonymous = [replace(u, split="train", speaker="") for u in conversations()]
    (split,) = Official(test=0.2).folds(anonymous)
    assert len(split.subsets["test"]) == 790 // 5


def test_utterances_without_a_subset_are_for_training_if_no_others_are():
    some = [u if u.split == "test" else replace(u, split="") for u in conversations()]
    (split,) = Official().folds(some)
    assert set(split.subsets["train"]) == {utterance_key(u) for u in some if not u.split}
    with pytest.raises(BadConfig, match=r"needs every utterance's split: 1 of 790 have none, first "):
        Official().folds([replace(u, split="") if n == 0 else u for n, u in enumerate(conversations())])
    with pytest.raises(BadConfig, match="expected fractions of the training subset"):
        Official(test=1.0)


# Papers


def test_mstr_tests_on_a_fifth_without_stratification():
    (split,) = MSTRRandom().folds(conversations())
    assert len(split.subsets["test"]) == 790 // 5
    assert split.hash == RandomHoldOut(test=0.2, stratified=False).folds(conversations())[0].hash


@pytest.mark.slow
def test_tdfnet_has_ten_tests_of_exactly_553():
    folds = TDFNetRandomTen().folds(conversations(IEMOCAP))
    assert [len(fold.subsets["test"]) for fold in folds] == [553] * 10
    assert [len(fold.subsets["validation"]) for fold in folds] == [497] * 10  # a tenth of the 4,978 others
    assert len({name for fold in folds for name in fold.subsets["test"]}) < 5531  # ten draws, not a partition


def test_mcsan_trains_on_8_tenths_validates_on_1_and_tests_on_1():
    given = conversations()
    folds = EightOneOne().folds(given)
    assert [[len(fold.subsets[subset]) for subset in ("train", "validation", "test")] for fold in folds] == [
        [632, 79, 79]
    ] * 10
    assert sorted(name for fold in folds for name in fold.subsets["test"]) == sorted(map(utterance_key, given))


def test_emotionnas_validates_on_one_speaker_of_the_session_and_tests_on_the_other():
    given = conversations(IEMOCAP)
    folds = EmotionNAS().folds(given)
    assert len(folds) == 5
    for fold in folds:
        (validates,), (tested,) = (
            {u.speaker for u in members(fold, subset, given)} for subset in ("validation", "test")
        )
        assert (validates[:-1], validates[-1], tested[-1]) == (tested[:-1], "F", "M")
        assert len({u.speaker for u in members(fold, "train", given)}) == 8


def test_emotionnas_with_swap_has_each_fold_in_both_directions():
    folds = EmotionNAS(swap=True).folds(conversations())
    assert len(folds) == 8
    for fold, swapped in zip(folds[::2], folds[1::2], strict=True):
        assert fold.subsets["validation"] == swapped.subsets["test"]
        assert fold.subsets["test"] == swapped.subsets["validation"]
    men = EmotionNAS(validates="male").folds(conversations())
    assert [fold.hash for fold in men] == [fold.hash for fold in folds[1::2]]


def test_emotionnas_needs_two_speakers_of_different_gender_in_each_session():
    given = conversations()
    with pytest.raises(
        BadConfig, match="made/Ses01 does not have exactly one female speaker: set validates = 'random'"
    ):
        EmotionNAS().folds([replace(u, gender="male") for u in given])
    with pytest.raises(BadConfig, match="200 of 200 have none, first made/Ses01F_000; set validates = 'random'"):
        EmotionNAS().folds([replace(u, gender="") for u in given])
    assert len(EmotionNAS(validates="random").folds([replace(u, gender="") for u in given])) == 4
    with pytest.raises(BadConfig, match="needs two speakers in every session: made/Ses01 has made/Ses01F"):
        EmotionNAS().folds([u for u in given if u.speaker != "Ses01M"])


# Errors and unknown speakers


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("leave-one-session-out", "session"),
        ("leave-one-speaker-out", "speaker"),
        ("speaker-folds", "speaker"),
        ("official", "split"),
        ("emotionnas", "session"),
        ("emotionnas", "speaker"),
    ],
)
def test_utterances_that_lack_a_needed_field_are_reported(name, field):
    given = [replace(u, **{field: ""}) if u.id in ("Ses02F_003", "Ses02F_001") else u for u in conversations()]
    with pytest.raises(BadConfig, match=f"needs every utterance's {field}: 2 of 790 have none, first made/Ses02F_001"):
        default(name).folds(given)


def test_validation_by_speakers_needs_speakers():
    given = [replace(u, speaker="") for u in conversations()]
    with pytest.raises(BadConfig, match="first made/Ses02F_000; set validation_by = 'utterances'"):
        LeaveOneSessionOut(validation=0.1).folds(given)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (LeaveOneSpeakerOut(validation="next"), "expected 3 groups or more, got made/1, made/2"),
        (SpeakerFolds(k=3), "k = 3: expected 2 to 2, the number of speakers"),
        (RandomFolds(k=5), "k = 5: expected 2 to 4, the number of utterances"),
    ],
)
def test_too_many_groups_are_refused(protocol, message):
    with pytest.raises(BadConfig, match=message):
        protocol.folds(utterances(["1", "2"]))


def test_invalid_settings_are_refused():
    with pytest.raises(BadConfig, match="validation = -1: expected 'next', a fraction, or 0 for none"):
        RandomFolds(validation=-1)
    with pytest.raises(BadConfig, match="repeats = 0: expected a fraction or number for test"):
        RandomHoldOut(repeats=0)
    with pytest.raises(BadConfig, match="protocol: unknown key 'fold'"):
        decode_named(protocols, {"name": "random-folds", "fold": 3}, "protocol")


def test_a_split_with_unknown_speakers_is_not_speaker_independent():
    given = [*utterances(), replace(utterances()[0], id="x", speaker="")]
    split = hold_out(given, {"test": ["made/3"]})
    assert not split.speaker_independent
    assert split.line("test") == f"held-out speakers, subset 'test': 2 utterances, speakers unknown, split {split.hash}"


# Splits


def test_the_hash_depends_on_the_subsets_only():
    split = hold_out(utterances(), {"test": ["made/3"]})
    same = hold_out(utterances()[::-1], {"test": ["made/3"]})
    other = hold_out(utterances(), {"test": ["made/2"]})
    assert split.hash == same.hash != other.hash
    assert split.hash == replace(split, name="x", fold="y", seed=1, description="z").hash
    assert split.hash == "01d1c07d1ba5"  # the same on every machine


def test_the_line_has_protocol_fold_seed_verdict_and_hash():
    split = RandomFolds(k=2).folds(conversations(), seed=5)[1]
    assert split.line("test") == (
        f"random folds, fold 2 of 2, seed 5, subset 'test': 395 utterances, NOT speaker-independent, split {split.hash}"
    )
    assert split.description == "stratified, k 2"


def test_a_split_is_read_back_unless_its_file_was_edited(tmp_path):
    split = TDFNetRandomTen().folds(conversations(), seed=2)[3]
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    content = json.loads((tmp_path / "split.json").read_text())
    content["subsets"]["train"].pop()
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(BadConfig, match="was edited"):
        Split.load(tmp_path / "split.json")


def test_a_split_of_an_earlier_version_is_read(tmp_path):
    split = hold_out(utterances(), {"test": ["made/3"]})
    earlier = {"name": split.name, "hash": split.hash, "speaker_independent": True, "parts": dict(split.subsets)}
    (tmp_path / "split.json").write_text(json.dumps(earlier))
    assert Split.load(tmp_path / "split.json") == replace(split, description="")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "is not a split: it is not JSON"),
        ("[1]", "is not a split: expected an object with name, hash, subsets and speaker_independent"),
        ('{"a": 1}', "is not a split: expected an object with name, hash"),
        ('{"hash": "x", "name": "a", "subset": {}}', "unknown key 'subset'; did you mean 'subsets'"),
        ('{"hash": "x", "name": "a", "speaker_independent": true}', "missing required field `subsets`"),
        (
            '{"hash": "x", "name": "a", "parts": {"train": [1]}, "speaker_independent": true}',
            "Expected `str`, got `int`",
        ),
    ],
)
def test_an_invalid_split_file_is_refused(tmp_path, text, message):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(BadConfig, match=message):
        Split.load(tmp_path / "split.json")


def test_a_missing_split_file_raises_bad_config(tmp_path):
    with pytest.raises(BadConfig, match=r"none.json does not exist: expected a split"):
        Split.load(tmp_path / "none.json")


def test_folds_are_saved_as_files_and_read_back_in_order(tmp_path):
    folds = LeaveOneSpeakerOut().folds(utterances([str(n) for n in range(12)]))
    paths = save_folds(folds, tmp_path / "folds")
    assert [path.name for path in paths][:2] == ["fold-01.json", "fold-02.json"]
    assert read_splits(tmp_path / "folds", []) == folds
    with pytest.raises(BadOutput, match=r"has fold-04.json, which is not one of these folds"):
        save_folds(folds[:3], tmp_path / "folds")


# Split files


def test_saved_folds_are_trained_on_with_the_same_hash_name_and_verdict(tmp_path):
    folds = SpeakerFolds(k=4, validation="next").folds(conversations(), seed=3)
    save_folds(folds, tmp_path)
    read = SplitFiles(str(tmp_path)).folds(conversations())
    for split, saved in zip(read, folds, strict=True):
        assert replace(split, description=saved.description) == saved
        assert split.hash == saved.hash
        assert split.description == f"{saved.description}, read from {tmp_path}"


def test_utterances_that_are_left_out_of_the_data_are_left_out_of_the_split(tmp_path):
    everyone = conversations()
    (split,) = RandomHoldOut(test=0.5).folds(everyone)
    save_folds([split], tmp_path)
    used, left_out = everyone[::2], everyone[1::2]
    (read,) = SplitFiles(str(tmp_path)).folds(used, left_out=left_out)
    expected = {utterance_key(utterance) for utterance in used}
    assert read.subsets == {name: tuple(k for k in keys if k in expected) for name, keys in split.subsets.items()}


def test_utterances_that_the_corpora_lack_are_an_error_unless_allowed(tmp_path):
    everyone = conversations()
    save_folds(RandomHoldOut(test=0.5).folds(everyone), tmp_path / "folds")
    write_rows(tmp_path / "split.csv", [(u.id, "test" if number % 2 else "train") for number, u in enumerate(everyone)])
    for path in (tmp_path / "folds", tmp_path / "split.csv"):
        with pytest.raises(BadConfig, match=r"1 of \d+ (utterances are not in the corpora|rows do not match one)"):
            SplitFiles(str(path)).folds(everyone[1:])
        with logged() as messages:
            (split,) = SplitFiles(str(path), allow_missing=True).folds(everyone[1:])
        assert sum(map(len, split.subsets.values())) == len(everyone) - 1
        assert re.search(r"1 of \d+ .* left out", messages[0])


def test_every_value_of_a_column_of_folds_is_the_test_subset_once(tmp_path):
    everyone = conversations()
    fold_of = {u.id: number % 10 + 1 for number, u in enumerate(everyone)}
    write_rows(tmp_path / "t.csv", [(u.id, "x", fold_of[u.id]) for u in everyone], columns=("id", "set", "my fold"))
    splits = SplitFiles(str(tmp_path / "t.csv"), column="my fold").folds(everyone)
    assert [split.fold for split in splits] == [str(number) for number in range(1, 11)]
    for split in splits:
        tested = {utterance_key(u) for u in everyone if str(fold_of[u.id]) == split.fold}
        assert set(split.subsets["test"]) == tested
        assert set(split.subsets["train"]) == {utterance_key(u) for u in everyone} - tested


def test_folds_with_a_file_for_each_subset_are_read_as_emobox_writes_them(tmp_path):
    everyone = conversations()
    for fold in range(1, 12):
        for number, subset in enumerate(("train", "valid", "test")):
            lines = [
                json.dumps({"key": f"made-{u.id}", "wav": f"downloads/made/{u.id}.wav"}) for u in everyone[number::3]
            ]
            path = tmp_path / f"fold_{fold}" / f"made_{subset}_fold_{fold}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
            path.with_suffix(".json").write_text("{}")  # EmoBox's other form of the same table, which is not read
    splits = SplitFiles(str(tmp_path)).folds(everyone)
    assert [split.fold for split in splits] == [f"fold_{number}" for number in range(1, 12)]
    for number, subset in enumerate(("train", "validation", "test")):
        assert splits[0].subsets[subset] == tuple(sorted(utterance_key(u) for u in everyone[number::3]))


def test_a_validation_subset_is_taken_from_the_training_subset_if_the_files_have_none(tmp_path):
    save_folds(LeaveOneSpeakerOut().folds(conversations()), tmp_path)
    plain = SplitFiles(str(tmp_path)).folds(conversations())
    for split, before in zip(SplitFiles(str(tmp_path), validation=0.2).folds(conversations(), 1), plain, strict=True):
        assert split.subsets["test"] == before.subsets["test"]
        assert set(split.subsets["train"]) | set(split.subsets["validation"]) == set(before.subsets["train"])
        assert split.speaker_independent
        assert split.seed == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("{0}", "train"), ("{0}", "test"), ("{1}", "test")], "is in the subsets 'train' and 'test'"),
        ([("{0}", "test"), ("{1}", "test")], "the subset 'train' has no utterance"),
        ([("{0}", "train"), ("{1}", "validation")], "the subset 'test' has no utterance"),
    ],
)
def test_a_split_that_cannot_be_trained_on_is_refused(tmp_path, rows, message):
    ids = [utterance.id for utterance in conversations()[:2]]
    write_rows(tmp_path / "split.csv", [(name.format(*ids), subset) for name, subset in rows])
    with pytest.raises(BadConfig, match=message):
        SplitFiles(str(tmp_path / "split.csv")).folds(conversations())
