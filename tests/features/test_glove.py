"""Word vectors: files as they are published, small ones written here; what is found again; what stands for the unknown."""

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


def opened(folder, **settings):
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
        [f"{len(WORDS)} 3", *(f"{line} " for line in lines())],  # fastText: a first line of counts, a space at the end
        [*lines(), ". . . 1 2 3", "at name@domain.com 4 5 6"],  # 840B: words with spaces in them
    ],
)
def test_other_makers_files_are_read_alike(tmp_path, content):
    vectors = WordVectors.load(write(tmp_path / "glove", content) / "small.3d.txt")
    assert np.array_equal(vectors.values[: len(WORDS)], VALUES)
    assert vectors.row("over") == WORDS.index("over")
    if len(content) == len(WORDS) + 2:
        assert (vectors.row(". . ."), vectors.row("at name@domain.com")) == (len(WORDS), len(WORDS) + 1)


def test_of_a_word_that_stands_there_twice_the_first_counts(tmp_path):
    vectors = WordVectors.load(write(tmp_path / "glove", ["b 1 2", "a 3 4", "b 5 6"]) / "small.3d.txt")
    assert vectors.row("b") == 0


def test_a_stream_is_its_tokens_vectors(folder):
    stream = opened(folder)(["I can't", "It\u2019s over."])
    assert stream.word_index.tolist() == [[0, 1, 1, -1], [0, 0, 1, 1]]
    assert stream.mask.tolist() == [[True, True, True, False], [True] * 4]
    torch.testing.assert_close(stream.values[0, :3], torch.stack([vector(word) for word in ("i", "ca", "n't")]))
    torch.testing.assert_close(stream.values[1], torch.stack([vector(word) for word in ("it", "'s", "over", ".")]))
    assert (stream.values[0, 3] == 0).all()
    assert stream.frame_rate is None


def test_a_batch_equals_one_by_one_and_words_are_known_without_it(folder):
    texts = ["I can't, I can't.", "the caf\u00e9", "", "over"]
    glove = opened(folder, unknown="random")
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
def test_tokens_are_the_treebanks(text, tokens):
    assert [token for token, _ in tokenize(text)] == tokens.split()


def test_every_token_is_part_of_its_word():
    text = "I can't believe it's over, Mr. Smith: shouldn't've--well..."
    spelled = {}
    for token, word in tokenize(text):
        spelled[word] = spelled.get(word, "") + token
    assert [spelled[word] for word in sorted(spelled)] == text.split()


def test_letters_are_lowered_if_the_file_has_no_capitals(tmp_path, folder):
    lowered, cased = opened(folder), opened(write(tmp_path / "cased", [*lines(), "The 7 8 9"]))
    assert (lowered.config.lower, cased.config.lower) == (True, False)
    torch.testing.assert_close(lowered(["THE"]).values[0, 0], vector("the"))
    assert cased(["The"]).values[0, 0].tolist() == [7, 8, 9]
    assert (cased(["THE"]).values == 0).all()
    assert opened(tmp_path / "cased", lower=True).config.lower is True


def test_what_stands_for_an_unknown_word(folder):
    texts = ["the xyzzy over", "xyzzy"]
    zero, mean, drawn = (opened(folder, unknown=unknown)(texts) for unknown in ("zero", "mean", "random"))
    assert (zero.values[0, 1] == 0).all()
    torch.testing.assert_close(mean.values[0, 1], torch.from_numpy(VALUES.mean(axis=0)))
    assert torch.equal(drawn.values[0, 1], drawn.values[1, 0])  # the same wherever it stands
    assert (drawn.values[0, 1] != opened(folder, unknown="random")(["plugh"]).values[0, 0]).all()
    assert drawn.values.abs().max() <= max(np.abs(VALUES).max(), 3**0.5 * VALUES.std())
    dropped = opened(folder, unknown="drop")
    assert dropped(texts[:1]).word_index.tolist() == [[0, 2]]
    with pytest.raises(BadConfig, match="'xyzzy' has no known word"):
        dropped(texts)


def test_random_vectors_spread_as_the_files_do(tmp_path):
    values = np.random.default_rng(1).normal(scale=0.4, size=(20, 4000)).astype(np.float32)
    glove = opened(write(tmp_path / "wide", lines([f"w{n}" for n in range(20)], values)), unknown="random")
    drawn = glove(["unheard"]).values
    assert drawn.std() == pytest.approx(0.4, rel=0.05)
    assert drawn.mean() == pytest.approx(0, abs=0.02)


def test_an_empty_text_is_one_unknown_token(folder):
    stream = opened(folder)([" "])
    assert (stream.values.shape, stream.word_index.tolist()) == ((1, 1, 3), [[-1]])
    with pytest.raises(BadConfig, match="has no known word"):
        opened(folder, unknown="drop")([""])


def test_coverage_counts_and_names_the_missing(folder):
    coverage = opened(folder).coverage(["The xyzzy, I plugh.", "xyzzy XYZZY", ""])
    assert coverage == Coverage(tokens=8, known=4, missing={"xyzzy": 3, "plugh": 1})
    assert list(coverage.missing) == ["xyzzy", "plugh"]
    assert coverage.fraction == 0.5
    assert opened(folder).coverage([]).fraction == 1.0


def test_a_file_is_read_once(folder, monkeypatch, tmp_path):
    first = opened(folder)
    monkeypatch.setattr("affekt.features.glove._convert", None)  # it would fail
    monkeypatch.setattr("affekt.features.glove.file_hash", None)
    again = opened(folder)
    assert torch.equal(again(["the over"]).values, first(["the over"]).values)
    assert isinstance(again.vectors.values, np.memmap)
    monkeypatch.undo()
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    write(folder, ["the 1 2 3"])
    assert opened(folder)(["the"]).values.tolist() == [[[1, 2, 3]]]  # another content is another file


def test_its_state_is_the_files_hash(tmp_path, folder):
    glove, copy = opened(folder), opened(write(tmp_path / "elsewhere", lines(), "copy.vec"))
    assert (
        bytes(glove.state_dict()["source"].tolist()) == hashlib.sha256((folder / "small.3d.txt").read_bytes()).digest()
    )
    assert torch.equal(glove.source, copy.source)
    assert len(list((tmp_path / "cache" / "vectors").glob("[0-9a-f]*"))) == 1


def test_many_may_read_it_first_at_once(folder, tmp_path):
    found, start = [], threading.Barrier(4)

    def read():
        start.wait()
        found.append(WordVectors.load(folder / "small.3d.txt"))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [vectors.row("over") for vectors in found] == [9] * 4
    assert not list((tmp_path / "cache").rglob(".*"))  # nothing unfinished is left


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is not a text file of word vectors"),
        (["hello"], "is not a text file of word vectors"),
        ([*lines(), "word 1 2 three"], rf"line {len(WORDS) + 1}: expected a word and 3 numbers"),
        ([*lines() * 20, "word 1 2"], rf"line {20 * len(WORDS) + 1}: expected a word and 3 numbers"),
        ([*lines(), "word 1 2 1e99"], "numbers that are not finite in 32 bits"),
        ([*lines(), "word 1 2 nan"], "numbers that are not finite in 32 bits"),
    ],
)
def test_what_is_no_file_of_vectors_is_said_and_leaves_nothing(tmp_path, content, message):
    with pytest.raises(BadConfig, match=message):
        opened(write(tmp_path / "glove", content))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_folder_with_none_or_several_is_said(tmp_path, folder):
    with pytest.raises(BadConfig, match=r"glove needs folder"):
        opened(None)
    with pytest.raises(BadConfig, match=r"has no other\.txt"):
        opened(folder, file="other.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadConfig, match=r"has no \.txt or \.vec"):
        opened(tmp_path / "empty")
    write(folder, lines(), "another.vec")
    with pytest.raises(BadConfig, match=r"another\.vec, small\.3d\.txt: set file"):
        opened(folder)
    assert opened(folder, file="another.vec").dim == 3
    with pytest.raises(BadConfig, match="set folder"):
        GloVe(GloVeConfig())


def test_a_damaged_cache_is_said(folder, tmp_path):
    opened(folder)
    (values,) = (tmp_path / "cache").rglob("values.npy")
    values.write_bytes(values.read_bytes()[:-4])
    with pytest.raises(BadConfig, match=rf"{re.escape(str(values.parent))} is damaged .*: delete it"):
        opened(folder)


def test_real_glove_opens_at_once_and_knows_what_is_near(glove_folder):
    opened(glove_folder, file="glove.6B.50d.txt")  # the first reading takes some seconds and writes a binary copy
    start = time.process_time()
    glove = opened(glove_folder, file="glove.6B.50d.txt")
    happy, glad, engine = torch.nn.functional.normalize(glove(["happy glad engine"]).values[0], dim=1)
    assert time.process_time() - start < 2  # reading the text anew takes several times as long
    assert (len(glove.vectors), glove.dim, glove.config.lower) == (400_000, 50, True)
    assert happy @ glad > 0.7
    assert happy @ engine < 0.4
