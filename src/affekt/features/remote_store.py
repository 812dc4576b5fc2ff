"""Features in an object store, behind the feature store on disk: AFFEKT_FEATURES=s3://BUCKET/features.

Features that are not on disk are downloaded from there, and new ones are uploaded. Several machines can thus share features
without a shared disk.

URL/whisper-0123456789ab/description.json, URL/whisper-0123456789ab/ab/abcdef....npy    as on disk
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path, PurePosixPath

from affekt.errors import AffektError, BadConfig, BadOutput
from affekt.files import atomic_write
from affekt.storage import download, is_url, join, open_filesystem

VARIABLE = "AFFEKT_FEATURES"


class RemoteFeatures:
    """The features of one description in an object store. Their keys are listed once.

    Args:
        url: The URL of the folder of these features.

    Raises:
        AffektError: The object store cannot be reached.
        BadConfig: The URL is invalid.
        MissingExtra: A package is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._filesystem, self._path = open_filesystem(url)
        try:
            names = self._filesystem.find(self._path)
        except FileNotFoundError:
            names = []
        except Exception as error:  # libraries for object stores have errors of their own
            raise AffektError(self._describe("cannot be listed", error), code="bad_store") from error
        self._keys = {PurePosixPath(name).stem for name in names if name.endswith(".npy")}

    @classmethod
    def find(cls, name: str) -> RemoteFeatures | None:
        """Return the features in the folder NAME of AFFEKT_FEATURES; None if this is not set.

        Raises:
            BadConfig: AFFEKT_FEATURES is not a URL, or fsspec does not know its protocol.
        """
        root = os.environ.get(VARIABLE)
        if not root:
            return None
        if not is_url(root):
            raise BadConfig(
                f"{VARIABLE} = {root!r}: expected the URL of an object store, such as s3://BUCKET/features; "
                "a folder on a disk is set with AFFEKT_CACHE"
            )
        return cls(join(root, name))

    def download(self, key: str, path: Path) -> bool:
        """Write the features with this key to a file; return False if there are none.

        Raises:
            AffektError: The object store cannot be reached.
        """
        if key not in self._keys:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_write(path) as temporary:
                download(self._file(key), temporary)
        except OSError as error:
            raise AffektError(self._describe("cannot be read", error), code="bad_store") from error
        return True

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def upload(self, key: str, path: Path, description: Path) -> None:
        """Copy a file with the features of this key to the object store, and before the first one, their description.

        Raises:
            BadOutput: The object store cannot be written.
        """
        try:
            if not self._keys:
                self._put(description, f"{self._path}/{description.name}")
            self._put(path, f"{self._path}/{key[:2]}/{key}.npy")
        except Exception as error:  # libraries for object stores have errors of their own
            raise BadOutput(self._describe("cannot be written", error)) from error
        self._keys.add(key)

    def _put(self, source: Path, target: str) -> None:
        with contextlib.suppress(FileExistsError, NotImplementedError):
            self._filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._filesystem.put_file(str(source), target)

    def _file(self, key: str) -> str:
        return join(self._url, f"{key[:2]}/{key}.npy")

    def _describe(self, what: str, error: Exception) -> str:
        reason = f"{type(error).__name__}: {error}"
        return f"{self._url} {what} ({reason}): check {VARIABLE} and the credentials, or unset it"
