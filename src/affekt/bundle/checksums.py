"""SHA256SUMS: the checksums of a bundle's files, in the format of `sha256sum -c SHA256SUMS`.

The first line is a comment with a single hash of the concatenated files that determine the predictions. This hash is computed
at every start anyway, since its first digits are a part of the bundle's id, so that comparing it costs nothing. Hashing every
file would make the start slower.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from affekt.errors import BadBundle

NAME = "SHA256SUMS"
MAX_BYTES = 1 << 16
FIRST_LINE = re.compile(r"# ([0-9a-f]{64})  (\S+(?: \S+)*) joined")
LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\x00-\x1f]+)")


@dataclass(frozen=True)
class Checksums:
    """The contents of SHA256SUMS."""

    joined: str
    """Hash of the concatenated files that determine the predictions."""
    files: dict[str, str]
    """Name of each other file of the bundle -> its hash."""


def write_checksums(folder: Path, joined: Sequence[str]) -> None:
    """Write SHA256SUMS for all files in a bundle's folder.

    Args:
        folder: The folder.
        joined: The files that determine the predictions, in the order in which the id hashes them.
    """
    from affekt.files import atomic_write_text  # not needed for recognition, which should start fast

    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != NAME)
    names = [name for name in names if not name.startswith(".")]
    lines = [f"# {hash_files(folder, joined)}  {' '.join(joined)} joined"]
    lines += [f"{hash_files(folder, [name])}  {name}" for name in names]
    atomic_write_text(folder / NAME, "\n".join(lines) + "\n")


def read_checksums(folder: Path) -> Checksums | None:
    """Read SHA256SUMS; return None if there is none, as in bundles of earlier versions. Raises `BadBundle`."""
    path = folder / NAME
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadBundle(f"{path} cannot be read ({error}); copy the bundle again") from error
    first, *rest = text.splitlines() or [""]
    head, entries = FIRST_LINE.fullmatch(first), [LINE.fullmatch(line) for line in rest]
    if not head or not all(entries) or len(text) > MAX_BYTES:
        raise BadBundle(f"{path} is damaged: expected lines of a SHA-256 and a file's name; copy the bundle again")
    return Checksums(head[1], {entry[2]: entry[1] for entry in entries if entry})


def hash_files(folder: Path, names: Iterable[str]) -> str:
    """Return the SHA-256 of the concatenated files. Raises `BadBundle` if one cannot be read."""
    digest = hashlib.sha256()
    for name in names:
        try:
            with (folder / name).open("rb") as stream:
                while block := stream.read(1 << 16):
                    digest.update(block)
        except OSError as error:
            raise BadBundle(
                f"{folder / name} cannot be read: {error.strerror or error}; copy the bundle again"
            ) from error
    return digest.hexdigest()
