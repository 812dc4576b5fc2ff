"""The format of a bundle, the folder of a trained model:

config.toml         how the network is built, what it was trained on, and under which protocol
labels.json         the emotions, in the order of the outputs
model.safetensors   the weights, to rebuild the network in torch
model.onnx          the network for recognition: 16 kHz waveform in, probabilities out
split.json          the utterances of each subset
training_clips.json hashes of the clips that were trained on (`affekt.bundle.training_clips`)
results.json        the scores on the model card, and how they were obtained
predictions.json    the probabilities of the test utterances, from which `--error-rate` is calibrated
familiarity.npy     statistics of the training corpora, by which other recordings are recognized as different
across.json         the scores on corpora that it was not trained on, if `affekt evaluate --across` recorded any
shifts.json         the scores on altered recordings, if `make shifts` recorded any
refusals.json       which recordings without speech are refused, if `make refusals` recorded any
README.md           the model card, written by `affekt.reports.card` from the files above
SHA256SUMS          the checksums of all other files, which bundles of earlier versions lack

This module does not need torch; `affekt.bundle.pipeline`, which rebuilds the network, does. What recognition does not need
is imported inside functions, so that it starts fast.
"""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from affekt.bundle.checksums import NAME as SUMS
from affekt.bundle.checksums import Checksums, hash_files, read_checksums, write_checksums
from affekt.errors import BadBundle, BadConfig
from affekt.json_text import to_json

SCHEMA = 1
"""Version of the format of labels.json."""
ASSETS = Path(__file__).parents[1] / "assets"
DEFAULT = "default"
"""The name of the bundle that ships with the package."""
ACROSS = "across.json"
"""The file of the scores on corpora that a bundle was not trained on."""
SHIFTS = "shifts.json"
"""The file of the scores on altered recordings."""
REFUSALS = "refusals.json"
"""The file of the recordings that are refused."""
PREDICTIONS = "predictions.json"
"""The file of the predictions on the test subset (`affekt.bundle.predictions`)."""
FAMILIARITY = "familiarity.npy"
"""The file of the statistics of the training corpora (`affekt.inference.familiarity`)."""
PREDICTING = ("config.toml", "labels.json", "model.onnx")
"""The files that determine the predictions, in the order in which the id hashes them."""
MAX_BYTES = {
    "labels.json": 1 << 20,
    "config.toml": 1 << 22,
    "results.json": 1 << 26,
    ACROSS: 1 << 26,
    SHIFTS: 1 << 26,
    REFUSALS: 1 << 26,
    PREDICTIONS: 1 << 28,
    "training_clips.json": 1 << 28,
}
"""Limits of the size of files that are read as a whole; they are far above what affekt writes."""
SPEECH_PROBABILITY = "speech_probability"
"""The output of model.onnx with the probability that a recording contains speech."""
SPEECH_THRESHOLD = "speech_threshold"
"""The metadata of model.onnx with the smallest such probability of a recording with speech."""
MAX_NAME = 200
"""Maximum length of the name of a bundle or an emotion."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. `Bundle.open` reads labels.json only; other files are read on access."""

    folder: Path
    name: str
    emotions: tuple[str, ...]

    @classmethod
    def open(cls, source: str | Path = DEFAULT) -> Bundle:
        """Open the bundle in a folder, or a shipped bundle by its name. Raises `BadBundle`."""
        folder = ASSETS / source if str(source) in shipped_bundles() else Path(source)
        if not _is_file(folder / "labels.json"):
            from affekt.registry import did_you_mean

            known = ", ".join(shipped_bundles()) or "none"
            raise BadBundle(
                f"{source} is not a bundle: expected a folder with model.onnx, config.toml and labels.json, as "
                "`affekt train --output` writes it, or the name of a shipped bundle"
                f"{did_you_mean(str(source), shipped_bundles())} (shipped: {known})"
            )
        labels = read_json(folder / "labels.json")
        try:
            schema, name, emotions = labels["schema"], labels["name"], labels["emotions"]
        except (KeyError, TypeError) as error:
            raise BadBundle(
                f"{folder / 'labels.json'} has no valid schema, name and emotions ({error!r}); make the bundle again"
            ) from error
        if schema != SCHEMA:
            raise BadBundle(
                f"{folder} has schema {schema!r}; this version of affekt reads schema {SCHEMA}: upgrade affekt"
            )
        if reason := _find_fault(name, emotions):
            raise BadBundle(f"{folder / 'labels.json'}: {reason}; make the bundle again")
        return cls(folder, name, tuple(emotions))

    @property
    def onnx(self) -> Path:
        """The path of model.onnx. Raises `BadBundle` if it is missing."""
        return self.file("model.onnx")

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle. Raises `BadBundle` if it is missing."""
        path = self.folder / name
        if not _is_file(path):
            raise BadBundle(f"the bundle {self.folder} has no {name}; make it again")
        return path

    @cached_property
    def id(self) -> str:
        """The name, and the first 8 hexadecimal digits of a hash of all files that determine the predictions.

        Raises `BadBundle` if one of them is missing, or if the hash is not that in SHA256SUMS.
        """
        for name in PREDICTING:
            self.file(name)
        digest = hash_files(self.folder, PREDICTING)
        if self._checksums and self._checksums.joined != digest:
            raise self._damage(self._find_changed(PREDICTING) or [SUMS])
        return f"{self.name}@{digest[:8]}"

    def verify(self) -> None:
        """Compare all files with SHA256SUMS, if there is one. Raises `BadBundle`.

        `id`, which every command computes, covers only the files that determine the predictions.
        """
        if self._checksums and (changed := self._find_changed(self._checksums.files)):
            raise self._damage(changed)

    @cached_property
    def _checksums(self) -> Checksums | None:
        return read_checksums(self.folder)

    def _find_changed(self, names: Iterable[str]) -> list[str]:
        """Return the names of the files that differ from SHA256SUMS. Raises `BadBundle` if one is missing."""
        recorded = self._checksums.files if self._checksums else {}
        return [name for name in names if hash_files(self.folder, [name]) != recorded.get(name)]

    def _damage(self, changed: Iterable[str]) -> BadBundle:
        return BadBundle(
            f"{self.folder}: {', '.join(changed)} changed since the bundle was made (SHA256SUMS has another checksum): "
            "copy or make the bundle again; if you changed it on purpose, delete SHA256SUMS"
        )

    def check(self) -> None:
        """Raise `BadBundle` if a file that recognition needs is missing or damaged, or if config.toml is invalid.

        If the checksum in SHA256SUMS is right, config.toml is as affekt wrote it, and is not parsed, to save time.
        """
        _ = self.id
        if not self._checksums:
            _ = self._settings

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """The contents of config.toml, of any version."""
        from affekt.bundle.settings import Config, check
        from affekt.config import read_toml

        path = self.file("config.toml")
        _check_size(path)
        try:
            settings = read_toml(path)
        except (BadConfig, OSError) as error:
            raise BadBundle(f"{error}; copy or make the bundle again") from error
        if not _is_outdated(settings):
            check(Config, settings, path)
        return settings

    @property
    def config(self) -> dict[str, Any]:
        """The contents of config.toml. Raises `BadBundle` if it is invalid or of an earlier version."""
        if _is_outdated(self._settings):
            raise BadBundle(f"{self.folder} was made by an earlier version: run `affekt migrate {self.folder}`")
        return self._settings

    def section(self, name: str) -> dict[str, Any]:
        """Return a section of config.toml, such as "features", "model" or "protocol". Raises `BadBundle` if it is missing."""
        if name not in self.config:
            raise BadBundle(f"{self.folder}: config.toml has no section [{name}]; make the bundle again")
        section: dict[str, Any] = self.config[name]
        return section

    @cached_property
    def results(self) -> dict[str, Any]:
        """The contents of results.json. Raises `BadBundle` if it is missing or invalid."""
        from affekt.bundle.settings import Results, check

        path = self.file("results.json")
        results: dict[str, Any] = read_json(path)
        check(Results, results, path)
        return results

    @cached_property
    def across(self) -> list[dict[str, Any]]:
        """The entries of across.json, one for each corpus; [] without the file. Raises `BadBundle` if it is invalid."""
        from affekt.bundle.settings import Across, check

        if not _is_file(path := self.folder / ACROSS):
            return []
        content = read_json(path)
        check(Across, content, path)
        if content["model"] != self.id:
            raise BadBundle(
                f"{path} has the scores of {content['model']}, not of {self.id}: delete it, and score the bundle again with "
                "`affekt evaluate --across`"
            )
        entries: list[dict[str, Any]] = content["corpora"]
        return entries

    @cached_property
    def shifts(self) -> dict[str, Any] | None:
        """The contents of shifts.json; None without the file. Raises `BadBundle` if it is invalid."""
        from affekt.bundle.settings import Shifts

        return self._read_measured(SHIFTS, Shifts, "make shifts")

    @cached_property
    def refusals(self) -> dict[str, Any] | None:
        """The contents of refusals.json; None without the file. Raises `BadBundle` if it is invalid."""
        from affekt.bundle.settings import Refusals

        return self._read_measured(REFUSALS, Refusals, "make refusals")

    def _read_measured(self, name: str, kind: Any, command: str) -> dict[str, Any] | None:
        """Return the contents of a file that a benchmark recorded; None without it. Raises `BadBundle` if it is invalid."""
        from affekt.bundle.settings import check

        if not _is_file(path := self.folder / name):
            return None
        content: dict[str, Any] = read_json(path)
        check(kind, content, path)
        if content["model"] != self.id:
            raise BadBundle(
                f"{path} has the scores of {content['model']}, not of {self.id}: delete it, and measure the bundle again "
                f"with `{command}`"
            )
        return content


def _is_outdated(config: dict[str, Any]) -> bool:
    from affekt.config import is_outdated

    recipe = config.get("recipe")
    return is_outdated(config) or (isinstance(recipe, dict) and is_outdated(recipe))


def _is_file(path: Path) -> bool:
    """Return whether a path is a file, also through links; False instead of an error for a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113


def _check_size(path: Path, kind: str = "") -> None:
    size, limit = path.stat().st_size, MAX_BYTES[kind or path.name]
    if size > limit:
        raise BadBundle(f"{path} has {size} bytes, expected at most {limit}; make the bundle again")


def read_json(path: Path, kind: str = "") -> Any:
    """Read a JSON file of a bundle, or one of the same kind elsewhere. Raises `BadBundle` if it is too large or not JSON.

    Args:
        path: The file.
        kind: The name of the file in a bundle; by default that of `path`.
    """
    _check_size(path, kind)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadBundle(f"{path} is not valid JSON ({error}); copy or make the bundle again") from error


def _find_fault(name: Any, emotions: Any) -> str | None:
    """Return what is wrong with a bundle's name and emotions; None if nothing is."""
    if not _is_name(name) or {"/", "\\"} & set(name) or name in (".", ".."):
        return f"the name {_shorten(name)} is not the plain name of a bundle"
    if not isinstance(emotions, list) or len(emotions) < 2:
        return f"emotions is {_shorten(emotions)}, expected a list of at least two names"
    if wrong := [emotion for emotion in emotions if not _is_name(emotion)]:
        return f"{_shorten(wrong[0])} is not the name of an emotion"
    counts = Counter(unicodedata.normalize("NFC", emotion) for emotion in emotions)
    if repeated := [emotion for emotion, count in counts.items() if count > 1]:
        return f"the emotion {_shorten(repeated[0])} occurs {counts[repeated[0]]} times, expected different names"
    return None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable() and value == value.strip()


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def write_labels(folder: Path, name: str, emotions: Iterable[str]) -> None:
    """Write labels.json for a bundle of this name with these emotions."""
    labels = {"schema": SCHEMA, "name": name, "emotions": list(emotions)}
    (folder / "labels.json").write_text(to_json(labels, indent=2) + "\n", encoding="utf-8")


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, after all other files of a bundle are written."""
    write_checksums(folder, PREDICTING)


def shipped_bundles() -> list[str]:
    """Return the names of the bundles that ship with the package."""
    return sorted(path.parent.name for path in ASSETS.glob("*/labels.json"))
