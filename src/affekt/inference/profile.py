"""A profile adapts a model to one source of recordings. It is a JSON file with the suffix .affekt.

A source is everything that is recorded in the same way: one microphone and room, one call center, one archive.
`affekt.workflows.learn_profile` learns a profile from unlabeled recordings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig, BadOutput
from affekt.files import atomic_write_text
from affekt.json_text import to_json
from affekt.terminal import escape_controls

SCHEMA = 1
"""Version of the format, stored in each profile."""
KIND = "affekt profile"
MAX_BYTES = 1 << 26
"""Largest file that is read, far larger than what affekt writes."""
DIGITS = 6
"""Significant digits of the stored numbers."""
MAX_OFFSET = 1e6
"""Largest absolute value of an offset. The limits are far above the values that are learned, and below those with which the
graph overflows."""
MAX_EXPONENT = 20.0
"""Largest absolute value of a class bias or of the logarithm of a scale."""
MAX_NAME = 255
"""Largest number of characters in a name."""
MAX_COUNT = 1 << 53
"""Largest number of clips; up to it, every format of results stores whole numbers exactly."""


@dataclass(frozen=True)
class StreamShift:
    """The shift of a source's features relative to those of the training utterances (`affekt.bundle.adaptation`)."""

    offset: tuple[float, ...]
    """(dim,); is subtracted from the features."""
    log_scale: tuple[float, ...]
    """(dim,); the deviations from the mean are divided by its exponential."""


@dataclass(frozen=True)
class Profile:
    """Shifts of features, and class biases, that were learned from unlabeled recordings of one source for one model."""

    name: str
    model: str
    """The id of the bundle."""
    recordings: int
    """Number of recordings that it was learned from."""
    clips: int
    """Number of clips: recordings of up to 8 s, and windows of longer ones."""
    seconds: float
    """Their duration in seconds."""
    expected: Mapping[str, float]
    """Emotion -> its expected fraction of the clips: the assumption from which the class biases follow."""
    diversity: float
    """The diversity of the predictions for the clips, from 0 to 1 (`affekt.inference.profile_learning.diversity`)."""
    strength: float
    """The factor of all offsets and biases, from 0 (nothing is adapted) to 1."""
    class_bias: Mapping[str, float]
    """Emotion -> number that is added to the logarithm of its probability (`affekt.inference.class_bias`)."""
    streams: Mapping[str, StreamShift] = field(default_factory=dict)
    """Stream of features inside the model -> its shift; empty for a model whose features cannot be adapted."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Status ("silence", "no_speech", "error"), or "duplicate" -> number of recordings that were not learned from."""
    notes: tuple[str, ...] = ()
    """Sentences on the limits of the profile."""
    clip_hashes: tuple[str, ...] = ()
    """Hashes of the clips' samples (`hash_samples`), by which an evaluation detects that it scores these clips."""

    @property
    def id(self) -> str:
        """The name, "@", and 8 hexadecimal digits of a hash of all that determines the predictions."""
        shifts = {stream: asdict(shift) for stream, shift in sorted(self.streams.items())}
        content = to_json([self.model, dict(sorted(self.class_bias.items())), shifts])
        return f"{self.name}@{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    def row_field(self) -> dict[str, Any]:
        """Return the field "profile" of a row."""
        return {"id": self.id, "recordings": self.recordings}

    def bias(self, emotions: tuple[str, ...]) -> NDArray[np.float64]:
        """Return the class biases in the order of the emotions, (emotions,)."""
        return np.array([self.class_bias[emotion] for emotion in emotions])

    def graph_inputs(self) -> dict[str, NDArray[np.float32]]:
        """Return the graph's optional inputs `STREAM_offset` and `STREAM_log_scale`, (dim,) each."""
        return {
            f"{stream}_{part}": np.array(values, np.float32)
            for stream, shift in self.streams.items()
            for part, values in asdict(shift).items()
        }

    def check(self, model: str, emotions: tuple[str, ...], dims: Mapping[str, int]) -> None:
        """Raise `BadConfig` if the profile was not learned for a model.

        Args:
            model: The bundle's id.
            emotions: The bundle's emotions.
            dims: Stream that the model can adapt -> its dim.
        """
        if self.model != model:
            raise BadConfig(
                f"the profile {self.name} was learned for the model {self.model}, but this is {model}: learn it again with "
                "`affekt adapt`, or choose the model with --model"
            )
        sizes = {stream: (len(shift.offset), len(shift.log_scale)) for stream, shift in self.streams.items()}
        if set(self.class_bias) != set(emotions) or any(
            size != (dims.get(stream), dims.get(stream)) for stream, size in sizes.items()
        ):
            raise BadConfig(
                f"the profile {self.name} does not have the emotions and features of {model}: learn it again with "
                "`affekt adapt`"
            )

    def write(self, path: str | Path) -> None:
        """Write the profile atomically. Raises `BadOutput` as `check_output`, or if the file cannot be written."""
        path = check_output(Path(path))
        content = {"schema": SCHEMA, "kind": KIND, **asdict(self)}
        try:
            atomic_write_text(path, to_json(content) + "\n")
        except OSError as error:
            raise BadOutput(f"the profile {path} cannot be written: {error.strerror or error}") from error

    @classmethod
    def read(cls, path: str | Path) -> Profile:
        """Read a profile. Raises `BadConfig` if it is missing or invalid."""
        import msgspec

        path = Path(path)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise BadConfig(f"{path} has {path.stat().st_size} bytes; expected a profile made by `affekt adapt`")
            content = msgspec.json.decode(path.read_bytes())
        except FileNotFoundError:
            raise BadConfig(f"{path} not found: expected a profile; make one with `affekt adapt`") from None
        except OSError as error:
            raise BadConfig(f"{path} cannot be read: {error.strerror or error}") from error
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            content = None
        if not isinstance(content, dict) or content.pop("kind", None) != KIND:
            raise BadConfig(f"{path} is not a profile: expected a file made by `affekt adapt`")
        if (schema := content.pop("schema", None)) != SCHEMA:
            raise BadConfig(
                f"{path} has schema {schema!r}; this version of affekt reads schema {SCHEMA}: upgrade affekt"
            )
        try:
            if unknown := sorted(set(content) - set(cls.__dataclass_fields__)):
                raise ValueError(f"unknown field {unknown[0]!r}")
            profile: Profile = msgspec.convert(content, cls, strict=True)
            profile._check_values()
        except (ValueError, RecursionError) as error:
            raise BadConfig(f"{path} is not a valid profile ({error}); learn it again with `affekt adapt`") from error
        return profile

    def _check_values(self) -> None:
        """Raise `ValueError` if a number is out of range."""
        numbers = [*self.class_bias.values(), *(value for shift in self.streams.values() for value in shift.log_scale)]
        if not all(abs(number) <= MAX_EXPONENT for number in numbers):
            raise ValueError(
                f"a class bias or logarithm of a scale is not between {-MAX_EXPONENT:g} and {MAX_EXPONENT:g}"
            )
        if not all(abs(value) <= MAX_OFFSET for shift in self.streams.values() for value in shift.offset):
            raise ValueError(f"an offset is not between {-MAX_OFFSET:g} and {MAX_OFFSET:g}")
        if not (1 <= self.recordings <= self.clips <= MAX_COUNT and self.seconds >= 0):
            raise ValueError("its numbers of recordings, clips and seconds cannot be true")
        if not (0 <= self.strength <= 1 and self.diversity <= 1):
            raise ValueError("its strength or diversity is out of range")
        if not 0 < len(self.name) <= MAX_NAME or escape_controls(self.name) != self.name:
            raise ValueError(f"its name is empty, longer than {MAX_NAME} characters, or has control characters")


def check_output(path: Path) -> Path:
    """Return the file that a profile is to be written to: `path`, or what it links to.

    Raises:
        BadOutput: The file exists and is not a profile, so that something would be lost, or its folder does not exist.
    """
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path  # a link would be replaced by a file
        if target.exists():
            Profile.read(target)
        elif not target.parent.is_dir():
            raise BadOutput(f"the profile {path} cannot be written: the folder {target.parent} does not exist")
    except BadConfig as error:
        raise BadOutput(f"{path} exists and is not a profile; choose another name so that nothing is lost") from error
    except OSError as error:  # such as a name that is too long
        raise BadOutput(f"the profile {path} cannot be written: {error.strerror or error}") from error
    return target


def round_digits(values: NDArray[np.floating]) -> tuple[float, ...]:
    """Return numbers as a profile stores them, with `DIGITS` significant digits."""
    return tuple(float(f"{value:.{DIGITS}g}") + 0.0 for value in values)  # no -0.0
