"""Word vectors in GloVe's text format (Pennington et al., 2014): each line has a word and its numbers, separated by spaces.

A file is converted once, to arrays in the cache that are memory-mapped from then on. The text files of word2vec and
fastText, whose first line states the number of words and features, can be read as well.
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
from affekt.features.store import HASH_DIGITS, file_hash
from affekt.files import atomic_folder, atomic_write_text, cache_root
from affekt.json_text import to_json

SUFFIXES = (".txt", ".vec")

# Typographic quotes are replaced by plain ones, as in GloVe's corpora.
QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
# The pieces into which a whitespace-separated word is split; the first alternative that matches is used.
PIECE = re.compile(
    r"""
      (?:[^\W\d_]\.){2,}                      # initials: U.S.
    | (?:mr|mrs|ms|dr|st|jr|sr|prof|vs)\.     # titles
    | '(?:s|m|d|ll|re|ve|em|til|cause)\b      # separate clitics, and words without their beginning
    | \d+(?:[.,:]\d+)+                        # numbers and times: 1,000.5 10:30
    | \w+(?:[-']\w+)*                         # words with inner hyphens and apostrophes: t-shirt, o'clock
    | \.{2,} | -{2,}                          # dots and dashes
    | \S                                      # any other character, one by one
    """,
    re.VERBOSE | re.IGNORECASE,
)
CLITIC = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve))", re.IGNORECASE)


@dataclass(frozen=True)
class GloVeConfig:
    """The settings of GloVe."""

    file: str = ""
    """Name of the file in the folder. Optional if there is only one .txt or .vec file."""
    lower: bool | None = None
    """If true, texts are lower-cased. None: only if no word in the file has a capital letter."""
    unknown: Literal["zero", "mean", "random", "drop"] = "zero"
    """The vector of a word that is not in the file.

    "zero": zeros; "mean": the mean of all vectors; "random": random numbers with the file's variance, always the same for a
    word; "drop": the word is left out, and a text without a known word is an error.
    """


@dataclass(frozen=True)
class Coverage:
    """The number of tokens in some texts that have a vector."""

    tokens: int
    known: int
    missing: Mapping[str, int]
    """The unknown tokens and their counts, the most frequent first."""

    @property
    def fraction(self) -> float:
        """The fraction of known tokens; 1 if there is no token."""
        return self.known / self.tokens if self.tokens else 1.0


class GloVe(TextFeature):
    """The word vector of each token. The state contains only the hash of the file; the vectors stay in the cache.

    A text is split at whitespace, and each word as in the Penn Treebank: punctuation is separate, clitics are split off
    (ca n't, it 's). There are two differences from NLTK's tokenizer. A full stop is split off from every word except
    initials and titles, not only at the end of the text; and quotes are not changed, except that typographic ones become
    plain. An empty text is encoded as one unknown token, whose word index is -1.
    """

    Config = GloVeConfig

    source: Tensor
    """SHA-256 of the file, (32,)."""

    def __init__(self, config: GloVeConfig, vectors: WordVectors | None = None) -> None:
        super().__init__()
        if vectors is None:
            raise BadConfig(
                "glove needs a file of vectors, which the settings do not contain: set folder to its folder"
            )
        self.vectors = vectors
        self.config = replace(config, lower=not vectors.cased if config.lower is None else config.lower)
        self.dim = vectors.dim
        self.register_buffer("source", torch.frombuffer(bytearray.fromhex(vectors.digest), dtype=torch.uint8))
        self._row_cache: dict[str, int | None] = {}

    @classmethod
    def from_folder(cls, folder: Path | None, config: GloVeConfig) -> GloVe:
        """Load the vectors of a folder's file. Raises `BadConfig` if there is none or it cannot be read."""
        return cls(config, WordVectors.load(_find_file(folder, config.file))).eval()

    def forward(self, texts: Sequence[str]) -> Stream:  # type: ignore[override]
        """Encode texts as (batch, tokens, dim), with a mask and `word_index`, each token's word in `text.split()`.

        Raises `BadConfig` if unknown tokens are dropped and none is left.
        """
        encoded = [self._tokenize(text) for text in texts]
        device = self.source.device
        values = [torch.from_numpy(np.stack([self._vector(token) for token, _ in tokens])) for tokens in encoded]
        words = [torch.tensor([word for _, word in tokens]) for tokens in encoded]
        counts = torch.tensor([len(tokens) for tokens in encoded], device=device)
        return Stream(
            pad_sequence(values, batch_first=True).to(device),
            frame_mask(counts, int(counts.max())),
            None,
            pad_sequence(words, batch_first=True, padding_value=-1).to(device),
        )

    def word_indices(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return each text's `word_index` (tokens,) as `forward` does."""
        return [np.array([word for _, word in self._tokenize(text)], np.int64) for text in texts]

    def coverage(self, texts: Sequence[str]) -> Coverage:
        """Count the tokens of the texts that have a vector, and those that have none."""
        counts = Counter(self._spelling(token) for text in texts for token, _ in tokenize(text))
        missing = Counter({token: count for token, count in counts.items() if self._row(token) is None})
        return Coverage(counts.total(), counts.total() - missing.total(), dict(missing.most_common()))

    def _tokenize(self, text: str) -> list[tuple[str, int]]:
        """Return the tokens of the stream, spelled as in the file, each with its word index."""
        tokens = [(self._spelling(token), word) for token, word in tokenize(text)]
        if self.config.unknown != "drop":
            return tokens or [("", -1)]
        if known := [(token, word) for token, word in tokens if self._row(token) is not None]:
            return known
        raise BadConfig(f'{text!r} has no known word, and unknown = "drop" drops all others: set unknown = "zero"')

    def _spelling(self, token: str) -> str:
        return token.lower() if self.config.lower else token

    def _row(self, token: str) -> int | None:
        if token not in self._row_cache:
            self._row_cache[token] = self.vectors.row(token)
        return self._row_cache[token]

    def _vector(self, token: str) -> NDArray[np.float32]:
        """Return the vector (dim,) of a token."""
        if (row := self._row(token)) is not None:
            return self.vectors.values[row]
        if self.config.unknown == "mean":
            return self.vectors.mean
        if self.config.unknown == "random":
            return _random_vector(token, self.dim, self.vectors.std)
        return np.zeros(self.dim, np.float32)


def tokenize(text: str) -> list[tuple[str, int]]:
    """Return a text's tokens, each with the index of its word in `text.split()`."""
    tokens = []
    for index, word in enumerate(text.split()):
        plain = unicodedata.normalize("NFC", word).translate(QUOTES)
        tokens += [(token, index) for piece in PIECE.findall(plain) for token in _split_clitics(piece)]
    return tokens


def _split_clitics(piece: str) -> list[str]:
    """Split "shouldn't've" into should, n't and 've."""
    clitics: list[str] = []
    while match := CLITIC.fullmatch(piece):
        piece = match[1]
        clitics.insert(0, match[2])
    return [piece, *clitics]


def _random_vector(token: str, dim: int, std: float) -> NDArray[np.float32]:
    """Return a vector (dim,) of uniform random numbers derived from the token's hash, not from a library's generator."""
    bits = np.frombuffer(hashlib.shake_256(token.encode()).digest(4 * dim), "<u4")
    # Numbers uniform in [-1, 1) have a standard deviation of 1 / sqrt(3).
    return ((bits / 2**31 - 1) * 3**0.5 * std).astype(np.float32)


def _find_file(folder: Path | None, name: str) -> Path:
    if folder is None:
        raise BadConfig("glove needs folder, which contains its text file, such as glove.6B.50d.txt")
    files = [folder / name] if name else sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if len(files) > 1:
        raise BadConfig(f"{folder} contains {', '.join(path.name for path in files)}: set file to one of them")
    if not files or not files[0].is_file():
        raise BadConfig(f"{folder} has no {name or ' or '.join(SUFFIXES)}: expected an unzipped text file of vectors")
    return files[0]


@dataclass(frozen=True)
class WordVectors:
    """A file's words and vectors, memory-mapped.

    AFFEKT_CACHE/vectors/0123456789ab           words, vectors and statistics of the file with this hash
    AFFEKT_CACHE/vectors/sources/0123456789ab   the hash of the file with a certain path, size and modification time

    Several processes may convert a file at once: each writes a folder under a temporary name. The first to finish renames
    its folder, and the others use that. A file whose size or modification time changed is read again.
    """

    digest: str
    """SHA-256 of the file, hexadecimal."""
    values: NDArray[np.float32]
    """Vectors, (words, dim), in the file's order."""
    rows: NDArray[np.int64]
    """Row of each word in `values`, (words,), in the words' sorted order."""
    letters: NDArray[np.uint8]
    """The sorted words as UTF-8, concatenated."""
    ends: NDArray[np.int64]
    """End of each word in `letters`, (words,)."""
    mean: NDArray[np.float32]
    """Mean vector, (dim,)."""
    std: float
    """Standard deviation of all numbers."""
    cased: bool
    """Whether any word has a capital letter, A to Z."""

    @classmethod
    def load(cls, path: Path) -> WordVectors:
        """Open a file's vectors in the cache; convert the file first if needed. Raises `BadConfig` if it has no vectors."""
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
        return cls._open(folder, digest)

    @classmethod
    def _open(cls, folder: Path, digest: str) -> WordVectors:
        try:
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ("values", "rows", "letters", "ends", "mean")
            }
            about = json.loads((folder / "about.json").read_bytes())
            return cls(digest, **arrays, std=about["deviation"], cased=about["cased"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadConfig(f"{folder} is damaged ({error}): delete it, and it is written again") from error

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def row(self, word: str) -> int | None:
        """Return the row of a word in `values`, the first one for a repeated word; None for an unknown word."""
        encoded = word.encode()
        index = bisect.bisect_left(range(len(self)), encoded, key=self._word)
        return int(self.rows[index]) if index < len(self) and self._word(index) == encoded else None

    def _word(self, index: int) -> bytes:
        return self.letters[self.ends[index - 1] if index else 0 : self.ends[index]].tobytes()


def _short(digest: str) -> str:
    return digest[:HASH_DIGITS]


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
    words, values = _parse(path, folder / "values.npy")
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
    (folder / "about.json").write_text(to_json(about))


def _parse(path: Path, target: Path) -> tuple[list[bytes], NDArray[np.float32]]:
    """Return the words and the numbers (words, dim) of a text file; the numbers are written to `target`."""
    header, rows, dim = _read_layout(path)
    values = np.lib.format.open_memmap(target, "w+", np.float32, (rows, dim))
    words = []
    with path.open("rb") as file, np.errstate(over="ignore"):
        for row, line in enumerate(itertools.islice(file, header, None)):
            # Split from the right, since some words contain spaces.
            word, *numbers = line.rstrip().rsplit(b" ", dim)
            try:
                values[row] = _numbers(word, numbers, dim)
            except ValueError:
                raise BadConfig(f"{path}, line {row + header + 1}: expected a word and {dim} numbers") from None
            words.append(word)
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise BadConfig(f"{path} contains numbers that are not finite in 32 bits")
    values.flush()
    return words, values


def _numbers(word: bytes, numbers: Sequence[bytes], dim: int) -> list[float]:
    """Return a line's numbers.

    Raises `ValueError` if there are fewer than `dim`, or more: the surplus ones are then part of `word`, as lines are split
    from the right.
    """
    if len(numbers) != dim or (b" " in word and all(map(_is_number, word.split()[1:]))):
        raise ValueError
    return [float(number) for number in numbers]


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _read_layout(path: Path) -> tuple[int, int, int]:
    """Return the number of header lines, of words, and of numbers per word.

    The number per word is the most frequent one in the first lines of the file.
    """
    with path.open("rb") as file:
        first_lines = [line.split() for line in itertools.islice(file, 100)]
        num_lines = len(first_lines) + sum(1 for _ in file)
    header = int(bool(first_lines) and len(first_lines[0]) == 2 and all(field.isdigit() for field in first_lines[0]))
    lengths = Counter(len(fields) for fields in first_lines[header:])
    # Of equally frequent lengths, the smallest: words with spaces make a line longer.
    dim = max(sorted(lengths), key=lengths.__getitem__, default=0) - 1
    if dim < 1:
        raise BadConfig(f"{path} is not a text file of word vectors: expected lines of a word and its numbers")
    return header, num_lines - header, dim
