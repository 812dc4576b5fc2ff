"""Word vectors in GloVe's text format (Pennington et al., 2014): a line is a word and its numbers, separated by spaces.

A file is read once, into arrays in the cache that are memory-mapped from then on. Also word2vec's and fastText's text files
can be read, whose first line counts words and features.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from affekt.batch import Stream, frame_mask
from affekt.errors import BadConfig
from affekt.features.base import TextFeature
from affekt.features.store import HEXADECIMAL, cache_root, file_hash
from affekt.files import atomic_folder, atomic_write_text

SUFFIXES = (".txt", ".vec")

# Typographic quotes as GloVe's corpora have them.
QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
# What a word between spaces falls into, the first that fits.
PIECE = re.compile(
    r"""
      (?:[^\W\d_]\.){2,}                      # initials: U.S.
    | (?:mr|mrs|ms|dr|st|jr|sr|prof|vs)\.     # titles
    | '(?:s|m|d|ll|re|ve|em|til|cause)\b      # a clitic by itself, and words that lost their beginning
    | \d+(?:[.,:]\d+)+                        # numbers and times: 1,000.5 10:30
    | \w+(?:[-']\w+)*                         # words, their hyphens and apostrophes within: t-shirt, o'clock
    | \.{2,} | -{2,}                          # dots and dashes
    | \S                                      # any other sign, one by one
    """,
    re.VERBOSE | re.IGNORECASE,
)
CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve))", re.IGNORECASE)


@dataclass(frozen=True)
class GloVeConfig:
    file: str = ""  # its name in the folder; may be left out where there is one .txt or .vec
    lower: bool | None = None  # whether letters are lowered. None: if no word of the file has a capital
    # What stands for a word that the file lacks. "zero": zeros; "mean": the mean of all vectors; "random": numbers as large
    # as the file's, always the same for a word; "drop": nothing, and a text of which nothing is left is refused.
    unknown: Literal["zero", "mean", "random", "drop"] = "zero"


@dataclass(frozen=True)
class Coverage:
    """How much of some texts a file of vectors knows."""

    tokens: int
    known: int
    missing: Mapping[str, int]  # unknown tokens and how often they stand there, the most frequent first

    @property
    def share(self) -> float:
        """Known tokens among all; 1 where there is no token."""
        return self.known / self.tokens if self.tokens else 1.0


class GloVe(TextFeature):
    """Each token's vector. Its state is the hash of the file alone: the vectors stay in the cache, beside the network.

    Tokens: a text is split at its spaces, and each word as in the Penn treebank: punctuation stands by itself, clitics are
    split off (ca n't, it 's). It differs from NLTK's in that a full stop is split off from every word but initials and
    titles, not only at a text's end, and in that quotes stay what they are, but typographic ones become plain.
    An empty text counts as one unknown token, of no word.
    """

    Config = GloVeConfig

    source: Tensor  # (32,), the file's SHA-256

    def __init__(self, config: GloVeConfig, vectors: WordVectors | None = None) -> None:
        super().__init__()
        if vectors is None:
            raise BadConfig("glove is made of a file of vectors, which no settings hold: give folder, where it is")
        self.vectors = vectors
        self.config = replace(config, lower=not vectors.cased if config.lower is None else config.lower)
        self.dim = vectors.dim
        self.register_buffer("source", torch.frombuffer(bytearray.fromhex(vectors.digest), dtype=torch.uint8))
        self._found: dict[str, int | None] = {}

    @classmethod
    def from_folder(cls, folder: Path | None, config: GloVeConfig) -> GloVe:
        """With the vectors of a folder's file. Raises `BadConfig` where there is none, or one that cannot be read."""
        return cls(config, WordVectors.of_file(_file(folder, config.file))).eval()

    def forward(self, texts: Sequence[str]) -> Stream:  # type: ignore[override]
        """(batch, tokens, dim), masked, with `words`: the index of each token's word in `text.split()`, -1 for none.

        Raises `BadConfig` where unknown tokens are dropped and none is left.
        """
        read = [self._read(text) for text in texts]
        device = self.source.device
        values = [torch.from_numpy(np.stack([self._vector(token) for token, _ in tokens])) for tokens in read]
        words = [torch.tensor([word for _, word in tokens]) for tokens in read]
        counts = torch.tensor([len(tokens) for tokens in read], device=device)
        return Stream(
            pad_sequence(values, batch_first=True).to(device),
            frame_mask(counts, int(counts.max())),
            None,
            pad_sequence(words, batch_first=True, padding_value=-1).to(device),
        )

    def words(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Of each text (tokens,): the word of every token, as `forward` gives it."""
        return [np.array([word for _, word in self._read(text)], np.int64) for text in texts]

    def coverage(self, texts: Sequence[str]) -> Coverage:
        """How many tokens of the texts have a vector, and which have none."""
        counted = Counter(self._spelled(token) for text in texts for token, _ in tokens_of(text))
        missing = Counter({token: count for token, count in counted.items() if self._row(token) is None})
        return Coverage(counted.total(), counted.total() - missing.total(), dict(missing.most_common()))

    def _read(self, text: str) -> list[tuple[str, int]]:
        """The tokens that stand in the stream, spelled as in the file, and the word of each."""
        tokens = [(self._spelled(token), word) for token, word in tokens_of(text)]
        if self.config.unknown != "drop":
            return tokens or [("", -1)]
        if kept := [(token, word) for token, word in tokens if self._row(token) is not None]:
            return kept
        raise BadConfig(f'{text!r} has no known word, and unknown = "drop" leaves nothing of it: set unknown = "zero"')

    def _spelled(self, token: str) -> str:
        return token.lower() if self.config.lower else token

    def _row(self, token: str) -> int | None:
        if token not in self._found:
            self._found[token] = self.vectors.row(token)
        return self._found[token]

    def _vector(self, token: str) -> NDArray[np.float32]:
        """(dim,)"""
        if (row := self._row(token)) is not None:
            return self.vectors.values[row]
        if self.config.unknown == "mean":
            return self.vectors.mean
        if self.config.unknown == "random":
            return _drawn(token, self.dim, self.vectors.deviation)
        return np.zeros(self.dim, np.float32)


def tokens_of(text: str) -> list[tuple[str, int]]:
    """A text's tokens, each with the index of its word in `text.split()`."""
    tokens = []
    for index, word in enumerate(text.split()):
        plain = unicodedata.normalize("NFC", word).translate(QUOTES)
        tokens += [(token, index) for piece in PIECE.findall(plain) for token in _without_clitics(piece)]
    return tokens


def _without_clitics(piece: str) -> list[str]:
    """ "shouldn't've" is should, n't, 've."""
    clitics: list[str] = []
    while match := CLITIC.fullmatch(piece):
        piece = match[1]
        clitics.insert(0, match[2])
    return [piece, *clitics]


def _drawn(token: str, dim: int, deviation: float) -> NDArray[np.float32]:
    """(dim,), evenly spread with the given deviation, by the token's hash: no library's random stream is in it."""
    drawn = np.frombuffer(hashlib.shake_256(token.encode()).digest(4 * dim), "<u4")
    return ((drawn / 2**31 - 1) * 3**0.5 * deviation).astype(np.float32)


def _file(folder: Path | None, name: str) -> Path:
    if folder is None:
        raise BadConfig("glove needs folder, where its text file is, such as glove.6B.50d.txt")
    found = [folder / name] if name else sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if len(found) > 1:
        raise BadConfig(f"{folder} holds {', '.join(path.name for path in found)}: say which by file")
    if not found or not found[0].is_file():
        raise BadConfig(f"{folder} has no {name or ' or '.join(SUFFIXES)}: expected a text file of vectors, not zipped")
    return found[0]


@dataclass(frozen=True)
class WordVectors:
    """A file's words and vectors, memory-mapped.

    AFFEKT_CACHE/vectors/0123456789ab           of a file with this hash: words, vectors, and what is known of them
    AFFEKT_CACHE/vectors/sources/0123456789ab   the hash of the file that had a path, a size and a time when it was read

    Many processes may begin at once: each makes a folder under a name of its own, the first gives it its place, and the
    others take that one. A file whose size or time changed is read again.
    """

    digest: str  # SHA-256 of the file, hexadecimal
    values: NDArray[np.float32]  # (words, dim), in the file's order
    rows: NDArray[np.int64]  # (words,), where in the file a word stands, by the words' order
    letters: NDArray[np.uint8]  # the words in order, as UTF-8, one after the other
    ends: NDArray[np.int64]  # (words,), where in `letters` a word ends
    mean: NDArray[np.float32]  # (dim,)
    deviation: float  # of all numbers
    cased: bool  # whether any word has a capital, of A to Z

    @classmethod
    def of_file(cls, path: Path) -> WordVectors:
        """Opened in the cache; read first, where they are not there. Raises `BadConfig` for what is not such a file."""
        root, status = cache_root() / "vectors", path.stat()
        name = f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
        source = root / "sources" / _short(hashlib.sha256(name.encode()).hexdigest())
        digest = source.read_text() if source.is_file() else file_hash(path).hexdigest()
        folder = root / _short(digest)
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _tolerate_race(folder), atomic_folder(folder) as temporary:
                _convert(path, temporary)
        if not source.is_file():
            source.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(source, digest)
        return cls._opened(folder, digest)

    @classmethod
    def _opened(cls, folder: Path, digest: str) -> WordVectors:
        try:
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ("values", "rows", "letters", "ends", "mean")
            }
            return cls(digest, **arrays, **json.loads((folder / "about.json").read_bytes()))
        except (OSError, ValueError) as error:
            raise BadConfig(f"{folder} is damaged: delete it, and it is made anew ({error})") from error

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def row(self, word: str) -> int | None:
        """Where a word's vector stands in `values`; of a word that the file has twice, the first."""
        sought = word.encode()
        place = bisect.bisect_left(range(len(self)), sought, key=self._word)
        return int(self.rows[place]) if place < len(self) and self._word(place) == sought else None

    def _word(self, place: int) -> bytes:
        return self.letters[self.ends[place - 1] if place else 0 : self.ends[place]].tobytes()


def _short(digest: str) -> str:
    return digest[:HEXADECIMAL]


@contextmanager
def _tolerate_race(folder: Path) -> Iterator[None]:
    """Ignore an `OSError` if the folder exists afterwards: another process created it first."""
    try:
        yield
    except OSError:
        if not folder.is_dir():
            raise


def _convert(path: Path, folder: Path) -> None:
    """Write the arrays of `WordVectors` from a text file."""
    words, values = _parsed(path, folder / "values.npy")
    order = sorted(range(len(words)), key=words.__getitem__)
    arrays = {
        "rows": np.array(order, np.int64),
        "letters": np.frombuffer(b"".join(words[row] for row in order), np.uint8),
        "ends": np.cumsum([len(words[row]) for row in order], dtype=np.int64),
        "mean": values.mean(axis=0, dtype=np.float64).astype(np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    variance = np.einsum("wd,wd->", values, values, dtype=np.float64) / values.size - values.mean(dtype=np.float64) ** 2
    about = {"deviation": float(variance**0.5), "cased": any(word != word.lower() for word in words)}
    (folder / "about.json").write_text(json.dumps(about))


def _parsed(path: Path, target: Path) -> tuple[list[bytes], NDArray[np.float32]]:
    """A text file's words, and its numbers, (words, dim), written where `target` says."""
    header, rows, dim = _layout(path)
    values = np.lib.format.open_memmap(target, "w+", np.float32, (rows, dim))
    words = []
    with path.open("rb") as file, np.errstate(over="ignore"):
        for row, line in enumerate(itertools.islice(file, header, None)):
            # From the right: some words hold spaces.
            word, *numbers = line.rstrip().rsplit(b" ", dim)
            try:
                values[row] = [float(number) for number in numbers]
            except ValueError:
                raise BadConfig(f"{path}, line {row + header + 1}: expected a word and {dim} numbers") from None
            words.append(word)
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise BadConfig(f"{path} holds numbers that are not finite in 32 bits")
    values.flush()
    return words, values


def _layout(path: Path) -> tuple[int, int, int]:
    """Lines of header, words, and numbers of a word."""
    with path.open("rb") as file:
        first = [line.split() for line in itertools.islice(file, 100)]
        lines = len(first) + sum(1 for _ in file)
    header = int(bool(first) and len(first[0]) == 2 and all(field.isdigit() for field in first[0]))
    dim = min((len(fields) for fields in first[header:]), default=0) - 1
    if dim < 1:
        raise BadConfig(f"{path} is no text file of word vectors: expected lines of a word and its numbers")
    return header, lines - header, dim
