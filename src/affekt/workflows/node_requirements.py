"""The requirements that a cluster node must meet so that training jobs run there as on the machine that sends them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from affekt import __version__
from affekt.processes import Message

LIBRARIES = ("torch", "numpy", "transformers", "tokenizers")
"""Libraries on whose versions results, or the identity of stored features, depend, besides affekt."""


def versions() -> dict[str, str]:
    """Return the versions of affekt and `LIBRARIES` on this machine; "" if not installed."""
    installed = {"affekt": __version__}
    for library in LIBRARIES:
        try:
            installed[library] = version(library)
        except PackageNotFoundError:
            installed[library] = ""
    return installed


@dataclass(frozen=True)
class NodeRequirements:
    """The requirements of jobs; all paths are absolute."""

    readable: tuple[str, ...] = ()
    """Paths that the node must be able to read: corpora, encoders, bundles, earlier runs."""
    shared: Mapping[str, str] = field(default_factory=dict)
    """Folder on a shared disk -> name of a file that the command has just written to it; "" if it could not write there."""
    writable: str = ""
    """The shared folder that contains the run folders; the node must be able to write to it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables to set."""
    folder: str = ""
    """The working directory of the command, from which relative paths start. It is also that of the workers, if it exists on
    their node."""
    versions: Mapping[str, str] = field(default_factory=versions)
    """The versions of affekt and of libraries."""

    def to_message(self) -> Message:
        """Return the fields as a dictionary that can be encoded as JSON."""
        return asdict(self)

    def find_problem(self) -> str:
        """Return what this node lacks, with the cure; "" if it has everything."""
        for library, expected in self.versions.items():
            if (installed := versions()[library]) != expected:
                return (
                    f"has {library} {installed or '(not installed)'} instead of this machine's {expected}: "
                    "install the same version"
                )
        for path, token in self.shared.items():
            if problem := self._find_problem_of_shared(Path(path), token):
                return problem
        for path in self.readable:
            try:
                os.listdir(path) if Path(path).is_dir() else Path(path).open("rb").close()  # noqa: PTH208
            except OSError as error:
                return (
                    f"cannot read {path} ({error.strerror or error}): put it on a disk that all nodes have at the same path, "
                    "or, for a corpus, give the URL of an object store"
                )
        return ""

    def _find_problem_of_shared(self, folder: Path, token: str) -> str:
        cure = "it must be on a disk that all nodes have at the same path, such as NFS or Lustre"
        if not folder.is_dir():
            return f"has no folder {folder}: {cure}"
        if token and not (folder / token).is_file():
            return f"has a folder {folder}, but it is not that of this machine: {cure}"
        if str(folder) != self.writable:
            return ""
        probe = folder / f".affekt-{secrets.token_hex(8)}"
        try:
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            return f"cannot write to {folder} ({error.strerror or error}): give its user permission, or {cure}"
        return ""
