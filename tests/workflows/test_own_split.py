"""The split that own data state is the split of fine-tuning, and clips that the start was trained on are recognized."""

import shutil

import pytest
import soundfile

from affekt.bundle.folder import Bundle
from affekt.bundle.training_clips import FILE, TrainingClips
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.errors import BadBundle, BadConfig, BadCorpus
from affekt.workflows.finetune import plan_finetuning
from tests.logs import logged
from tests.synthetic import make_folder

EMOTIONS = ("angry", "happy")


def make_split(root, subsets, speakers=("",), count=3):
    """Write `count` clips of each emotion and speaker for each subset."""
    clips = [
        "/".join(part for part in (subset, speaker, emotion, f"{subset}{speaker}{number}.wav") if part)
        for subset in subsets
        for speaker in speakers
        for emotion in EMOTIONS
        for number in range(count)
    ]
    return make_folder(root, clips)


def plan(root, *settings, **options):
    """Return the only split of fine-tuning the shipped bundle on a folder, and what was logged."""
    source = Source("table" if root.suffix else "folder", str(root), **options)
    with logged() as messages:
        finetuning, data = plan_finetuning("default", [source], "mine", list(settings))
        ((_, split),) = data.folds(finetuning)
    return split, messages


def sizes(split):
    return {subset: len(keys) for subset, keys in split.subsets.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("training", "dev", "testing"), ("Train", "devel", "eval"), ("train", "evaluation", "TEST")],
)  # fmt: skip
def test_the_folders_of_a_split_are_the_split(train, validation, test, tmp_path):
    split, messages = plan(make_split(tmp_path / "data", (train, validation, test)))
    for subset, word in (("train", train), ("validation", validation), ("test", test)):
        assert len(split.subsets[subset]) == 6
        assert all(name.startswith(f"data/{word}/") for name in split.subsets[subset])
    (line,) = (line for line in messages if "the split of the data is used" in line)
    assert line.startswith("data: the split of the data is used: train 6")
    assert f"validation 6 ({validation!r}), test 6" in line


@pytest.mark.slow
def test_the_column_of_a_split_is_the_split(tmp_path):
    make_split(tmp_path, ("train", "valid", "test"))
    rows = [
        f"{path.relative_to(tmp_path)},{path.parts[-2]},{path.parts[-3].upper()}" for path in tmp_path.rglob("*.wav")
    ]
    (tmp_path / "t.csv").write_text("file,label,split\n" + "\n".join(rows) + "\n")
    split, _ = plan(tmp_path / "t.csv")
    assert sizes(split) == {"train": 6, "validation": 6, "test": 6}
    assert all("/test/" in f"/{name}" for name in split.subsets["test"])
    ignored, _ = plan(tmp_path / "t.csv", columns={"split": ""})
    assert "validation" not in ignored.subsets


def test_without_a_test_subset_speakers_are_taken_from_training(tmp_path):
    split, messages = plan(make_split(tmp_path / "data", ("train",), ("anna", "ben", "cem", "dora")))
    assert sizes(split) == {"train": 18, "test": 6}
    assert split.speaker_independent
    assert any("the split of the data is used: train 24" in line for line in messages)


@pytest.mark.slow
def test_a_validation_subset_is_taken_from_training_only_if_a_setting_needs_it(tmp_path):
    root = make_split(tmp_path / "data", ("train", "test"), count=10)
    assert sizes(plan(root)[0]) == {"train": 20, "test": 20}
    assert sizes(plan(root, "selection=validation")[0]) == {"train": 18, "validation": 2, "test": 20}
    assert sizes(plan(root, "protocol.validation=0.2")[0]) == {"train": 16, "validation": 4, "test": 20}
    with pytest.raises(
        BadConfig, match=r"needs a validation subset, and the split has none: .* protocol.validation=0.1"
    ):
        plan(root, "selection=validation", 'protocol={name="official"}')


@pytest.mark.slow
def test_clips_without_a_subset_are_for_training_unless_others_are(tmp_path):
    root = make_split(tmp_path / "data", ("test", ""))
    split, messages = plan(root)
    assert sizes(split) == {"train": 6, "test": 6}
    assert "data: the split of the data is used: train 6 (without a subset), test 6" in messages
    make_split(root, ("train",))
    with pytest.raises(BadConfig, match="needs every utterance's split: 6 of 18 have none"):
        plan(root)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "tset"), r"unknown subset 'tset'; did you mean 'test'\?"),
        (("fold1", "fold2"), "unknown subset 'fold1'"),
        (("test", "dev"), "all utterances are in the subset test or validation, so there is none to train on"),
    ],
)
def test_a_split_that_cannot_be_used_is_refused_unless_another_is_asked_for(words, message, tmp_path):
    make_split(tmp_path, ("a", "b"))
    rows = [
        f"{path.relative_to(tmp_path)},{path.parts[-2]},{words[path.parts[-3] == 'b']}"
        for path in tmp_path.rglob("*.wav")
    ]
    (tmp_path / "t.csv").write_text("file,label,split\n" + "\n".join(rows) + "\n")
    with pytest.raises(BadCorpus, match=message):
        plan(tmp_path / "t.csv")
    split, _ = plan(tmp_path / "t.csv", 'protocol={name="random-hold-out"}')
    assert set(split.subsets) == {"train", "test"}


def test_training_on_the_datas_test_subset_needs_another_protocol_and_is_logged(tmp_path):
    _, messages = plan(make_split(tmp_path / "data", ("train", "test")), 'protocol={name="random-hold-out"}')
    assert any("of 'test' are trained on, since the protocol is random hold-out" in line for line in messages)


def test_a_corpus_without_a_split_beside_one_with_a_split_is_for_training(tmp_path):
    sources = [
        Source("folder", str(make_split(tmp_path / "a", ("train", "test")))),
        Source("folder", str(make_split(tmp_path / "b", ("",)))),
    ]
    finetuning, data = plan_finetuning("default", sources, "mine")
    ((_, split),) = data.folds(finetuning)
    assert sizes(split) == {"train": 12, "test": 6}


def test_labels_one_letter_apart_are_logged_in_training(tmp_path):
    root = make_folder(tmp_path / "data", [f"p{n}/{e}/1.wav" for n in range(4) for e in ("happy", "hapy", "sad")])
    _, messages = plan(root)
    assert any("labels 'happy' (4) and 'hapy' (4) differ by one letter" in line for line in messages)


# Clips that the bundle to start from was trained on


@pytest.fixture
def start(tmp_path):
    """A copy of the shipped bundle that was trained on two of the clips of `data`, with another copy of one of them."""
    root = make_split(tmp_path / "data", ("train", "test"))
    folder = tmp_path / "start"
    shutil.copytree(Bundle.open().folder, folder)
    clips = [u for u in Source("folder", str(root)).read() if u.split == "test"][:2]
    (folder / "SHA256SUMS").unlink()  # which does not fit the clips
    TrainingClips.of_utterances(clips).write(folder)
    return folder


def test_training_clips_of_the_start_are_recognized_by_their_samples(start, tmp_path):
    utterances = Source("folder", str(tmp_path / "data")).read()
    clips = TrainingClips.of_bundle(Bundle.open(start))
    known = clips.find(utterances)
    assert len(known) == 2
    assert all(name.startswith("data/test/") for name in known)
    for utterance in utterances:  # under another name, in another format
        path = tmp_path / "flac" / f"{utterance.id.replace('/', '-')}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, read_waveform(utterance), 16_000)
    copies = [type(u)(p.stem, "copy", p, "sad") for u, p in zip(utterances, sorted(path.parent.iterdir()), strict=True)]
    assert len(clips.find(copies)) == 2


def test_a_split_that_tests_on_training_clips_of_the_start_is_not_speaker_independent(start, tmp_path):
    with logged() as messages:
        finetuning, data = plan_finetuning(str(start), [Source("folder", str(tmp_path / "data"))], "mine")
        ((_, split),) = data.folds(finetuning)
    assert split.verdict == "NOT speaker-independent"
    assert any(
        line.startswith("2 of the 6 utterances for testing or validation are clips that default@") for line in messages
    )


def test_clips_of_published_corpora_are_recognized_by_their_names(tmp_path):
    root = make_folder(tmp_path / "data", ["anna/happy/16b10Wb.wav", "anna/sad/1001_DFA_ANG_XX.wav", "anna/sad/1.wav"])
    known = TrainingClips.of_bundle(Bundle.open()).find(Source("folder", str(root)).read())
    assert known == {"data/anna/happy/16b10Wb.wav", "data/anna/sad/1001_DFA_ANG_XX.wav"}


def test_the_shipped_bundle_has_the_hashes_of_its_training_clips():
    clips = TrainingClips.of_bundle(Bundle.open())
    assert len(clips.hashes) == len(clips.names) == 6335


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "has no valid lists of hashes and names"),
        ("[]", "has no valid lists of hashes and names"),
        ('{"hashes": "0123456789abcdef", "names": []}', "has no valid lists of hashes and names"),
        ('{"hashes": [1], "names": []}', "has no valid lists of hashes and names"),
        ('{"hashes": [', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_damaged_training_clips_are_a_bad_bundle(start, text, message):
    (start / FILE).write_text(text)
    with pytest.raises(BadBundle, match=message):
        TrainingClips.of_bundle(Bundle.open(start))
