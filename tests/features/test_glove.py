"""Word vectors: small files in the published formats, tokens, unknown words, and the cache."""

import hashlib
import re
import threading
import time

import numpy as np
import pytest
import torch

from affekt.errors import BadConfig
from affekt.features import features
from affekt.features.glove import Coverage, GloVe, GloVeConfig, WordVectors, tokenize

WORDS = ["the", ",", ".", "i", "ca", "n't", "it", "'s", "caf\u00e9", "over"]
VALUES = np.random.default_rng(0).normal(size=(len(WORDS), 3)).round(4).astype(np.float32)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))


def lines(words=WORDS, values=VALUES):
    return [" ".join([word, *map(str, row)]) for word, row in zip(words, values.tolist(), strict=True)]


def write(folder, content, name="small.3d.txt"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8", newline="\n")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "glove", lines())


def load_glove(folder, **settings):
    return features["glove"].from_folder(folder, GloVeConfig(**settings))


def vector(word):
    return torch.from_numpy(VALUES[WORDS.index(word)])


def test_every_word_has_its_own_vector(folder):
    vectors = WordVectors.load(folder / "small.3d.txt")
    for row, word in enumerate(WORDS):
        assert vectors.row(word) == row
    assert np.array_equal(vectors.values, VALUES)
    for absent in ("", "a", "zzz", "th", "thee", "\u00e9"):
        assert vectors.row(absent) is None
    assert vectors.std == pytest.approx(VALUES.std(), rel=1e-6)
    np.testing.assert_allclose(vectors.mean, VALUES.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        [
            f"{len(WORDS)} 3",
            *(f"{line} " for line in lines()),
        ],  # fastText: the first line has counts, lines end with a space
        [*lines(), ". . . 1 2 3", "at name@domain.com 4 5 6"],  # 840B: some words contain spaces
    ],
)
def test_files_of_fasttext_and_840b_are_read(tmp_path, content):
    vectors = WordVectors.load(write(tmp_path / "glove", content) / "small.3d.txt")
    assert np.array_equal(vectors.values[: len(WORDS)], VALUES)
    assert vectors.row("over") == WORDS.index("over")
    if len(content) == len(WORDS) + 2:
        assert (vectors.row(". . ."), vectors.row("at name@domain.com")) == (len(WORDS), len(WORDS) + 1)


def test_the_first_vector_of_a_repeated_word_is_used(tmp_path):
    vectors = WordVectors.load(write(tmp_path / "glove", ["b 1 2", "a 3 4", "b 5 6"]) / "small.3d.txt")
    assert vectors.row("b") == 0


def test_a_stream_is_its_tokens_vectors(folder):
    stream = load_glove(folder)(["I can't", "It\u2019s over."])
    assert stream.word_index.tolist() == [[0, 1, 1, -1], [0, 0, 1, 1]]
    assert stream.mask.tolist() == [[True, True, True, False], [True] * 4]
    torch.testing.assert_close(stream.values[0, :3], torch.stack([vector(word) for word in ("i", "ca", "n't")]))
    torch.testing.assert_close(stream.values[1], torch.stack([vector(word) for word in ("it", "'s", "over", ".")]))
    assert (stream.values[0, 3] == 0).all()
    assert stream.frame_rate is None


def test_a_batch_equals_one_by_one_and_has_the_same_word_indices(folder):
    texts = ["I can't, I can't.", "the caf\u00e9", "", "over"]
    glove = load_glove(folder, unknown="random")
    together = glove(texts)
    for row, (text, words) in enumerate(zip(texts, glove.word_indices(texts), strict=True)):
        count = int(together.lengths()[row])
        assert torch.equal(together.values[row, :count], glove([text]).values[0])
        assert words.tolist() == together.word_index[row, :count].tolist()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I can't believe it's over.", "I ca n't believe it 's over ."),
        ("They shouldn't've: we'll see, you'd better!", "They should n't 've : we 'll see , you 'd better !"),
        ("Mr. Smith of the U.S. left. He did.", "Mr. Smith of the U.S. left . He did ."),
        ("At 10:30 it cost $1,000.50...", "At 10:30 it cost $ 1,000.50 ..."),
        ("a t-shirt at five o'clock--really?!", "a t-shirt at five o'clock -- really ? !"),
        ("\u201cDon\u2019t!\u201d (he said)", '" Do n\'t ! " ( he said )'),
        ("'Cause I told 'em", "'Cause I told 'em"),
        ("cafe\u0301 \U0001f600", "caf\u00e9 \U0001f600"),
        (" \n", ""),
    ],
)
def test_tokens_follow_the_penn_treebank(text, tokens):
    assert [token for token, _ in tokenize(text)] == tokens.split()


def test_every_token_is_part_of_its_word():
    text = "I can't believe it's over, Mr. Smith: shouldn't've--well..."
    spelled = {}
    for token, word in tokenize(text):
        spelled[word] = spelled.get(word, "") + token
    assert [spelled[word] for word in sorted(spelled)] == text.split()


def test_texts_are_lower_cased_if_the_file_has_no_capitals(tmp_path, folder):
    lower, cased = load_glove(folder), load_glove(write(tmp_path / "cased", [*lines(), "The 7 8 9"]))
    assert (lower.config.lower, cased.config.lower) == (True, False)
    torch.testing.assert_close(lower(["THE"]).values[0, 0], vector("the"))
    assert cased(["The"]).values[0, 0].tolist() == [7, 8, 9]
    assert (cased(["THE"]).values == 0).all()
    assert load_glove(tmp_path / "cased", lower=True).config.lower is True


def test_an_unknown_word_gets_the_configured_vector(folder):
    texts = ["the xyzzy over", "xyzzy"]
    zero, mean, random = (load_glove(folder, unknown=unknown)(texts) for unknown in ("zero", "mean", "random"))
    assert (zero.values[0, 1] == 0).all()
    torch.testing.assert_close(mean.values[0, 1], torch.from_numpy(VALUES.mean(axis=0)))
    assert torch.equal(random.values[0, 1], random.values[1, 0])  # the same in every text
    assert (random.values[0, 1] != load_glove(folder, unknown="random")(["plugh"]).values[0, 0]).all()
    assert random.values.abs().max() <= max(np.abs(VALUES).max(), 3**0.5 * VALUES.std())
    dropped = load_glove(folder, unknown="drop")
    assert dropped(texts[:1]).word_index.tolist() == [[0, 2]]
    with pytest.raises(BadConfig, match="'xyzzy' has no known word"):
        dropped(texts)


def test_random_vectors_have_the_variance_of_the_file(tmp_path):
    values = np.random.default_rng(1).normal(scale=0.4, size=(20, 4000)).astype(np.float32)
    glove = load_glove(write(tmp_path / "wide", lines([f"w{n}" for n in range(20)], values)), unknown="random")
    random = glove(["unknown"]).values
    assert random.std() == pytest.approx(0.4, rel=0.05)
    assert random.mean() == pytest.approx(0, abs=0.02)


def test_an_empty_text_is_one_unknown_token(folder):
    stream = load_glove(folder)([" "])
    assert (stream.values.shape, stream.word_index.tolist()) == ((1, 1, 3), [[-1]])
    with pytest.raises(BadConfig, match="has no known word"):
        load_glove(folder, unknown="drop")([""])


def test_coverage_counts_known_tokens_and_lists_missing_ones(folder):
    coverage = load_glove(folder).coverage(["The xyzzy, I plugh.", "xyzzy XYZZY", ""])
    assert coverage == Coverage(tokens=8, known=4, missing={"xyzzy": 3, "plugh": 1})
    assert list(coverage.missing) == ["xyzzy", "plugh"]
    assert coverage.fraction == 0.5
    assert load_glove(folder).coverage([]).fraction == 1.0


def test_a_file_is_read_once(folder, monkeypatch, tmp_path):
    first = load_glove(folder)
    monkeypatch.setattr("affekt.features.glove._convert", None)  # a second conversion would fail
    monkeypatch.setattr("affekt.features.glove.file_hash", None)
    again = load_glove(folder)
    assert torch.equal(again(["the over"]).values, first(["the over"]).values)
    assert isinstance(again.vectors.values, np.memmap)
    monkeypatch.undo()
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    write(folder, ["the 1 2 3"])
    assert load_glove(folder)(["the"]).values.tolist() == [[[1, 2, 3]]]  # a changed file is read again


def test_the_state_is_the_hash_of_the_file(tmp_path, folder):
    glove, copy = load_glove(folder), load_glove(write(tmp_path / "elsewhere", lines(), "copy.vec"))
    assert (
        bytes(glove.state_dict()["source"].tolist()) == hashlib.sha256((folder / "small.3d.txt").read_bytes()).digest()
    )
    assert torch.equal(glove.source, copy.source)
    assert len(list((tmp_path / "cache" / "vectors").glob("[0-9a-f]*"))) == 1


def test_several_threads_can_convert_a_file_at_once(folder, tmp_path):
    results, start = [], threading.Barrier(4)

    def read():
        start.wait()
        results.append(WordVectors.load(folder / "small.3d.txt"))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [vectors.row("over") for vectors in results] == [9] * 4
    assert not list((tmp_path / "cache").rglob(".*"))  # no temporary files are left


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is not a text file of word vectors"),
        (["hello"], "is not a text file of word vectors"),
        ([*lines(), "word 1 2 three"], rf"line {len(WORDS) + 1}: expected a word and 3 numbers"),
        ([*lines() * 20, "word 1 2"], rf"line {20 * len(WORDS) + 1}: expected a word and 3 numbers"),
        (["word 1 2", *lines()], "line 1: expected a word and 3 numbers"),
        (["word 1", *lines()], "line 1: expected a word and 3 numbers"),
        ([*lines(), "word 1"], rf"line {len(WORDS) + 1}: expected a word and 3 numbers"),
        ([*lines(), "word 1 2 3 4"], rf"line {len(WORDS) + 1}: expected a word and 3 numbers"),
        ([*lines(), ""], rf"line {len(WORDS) + 1}: expected a word and 3 numbers"),
        ([*lines(), "word 1 2 1e99"], "numbers that are not finite in 32 bits"),
        ([*lines(), "word 1 2 nan"], "numbers that are not finite in 32 bits"),
    ],
)
def test_a_file_without_vectors_is_refused_and_leaves_nothing_in_the_cache(tmp_path, content, message):
    with pytest.raises(BadConfig, match=message):
        load_glove(write(tmp_path / "glove", content))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_folder_without_a_file_or_with_several_is_refused(tmp_path, folder):
    with pytest.raises(BadConfig, match=r"glove needs folder"):
        load_glove(None)
    with pytest.raises(BadConfig, match=r"has no other\.txt"):
        load_glove(folder, file="other.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadConfig, match=r"has no \.txt or \.vec"):
        load_glove(tmp_path / "empty")
    write(folder, lines(), "another.vec")
    with pytest.raises(BadConfig, match=r"another\.vec, small\.3d\.txt: set file"):
        load_glove(folder)
    assert load_glove(folder, file="another.vec").dim == 3
    with pytest.raises(BadConfig, match="set folder"):
        GloVe(GloVeConfig())


def test_a_damaged_cache_is_reported(folder, tmp_path):
    load_glove(folder)
    (values,) = (tmp_path / "cache").rglob("values.npy")
    values.write_bytes(values.read_bytes()[:-4])
    with pytest.raises(BadConfig, match=rf"{re.escape(str(values.parent))} is damaged .*: delete it"):
        load_glove(folder)


def test_real_glove_opens_quickly_and_similar_words_are_near(glove_folder):
    load_glove(glove_folder, file="glove.6B.50d.txt")  # converts the file, which takes some seconds
    start = time.process_time()
    glove = load_glove(glove_folder, file="glove.6B.50d.txt")
    happy, glad, engine = torch.nn.functional.normalize(glove(["happy glad engine"]).values[0], dim=1)
    assert time.process_time() - start < 2  # converting the text again takes several times as long
    assert (len(glove.vectors), glove.dim, glove.config.lower) == (400_000, 50, True)
    assert happy @ glad > 0.7
    assert happy @ engine < 0.4
