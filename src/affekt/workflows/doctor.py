"""Check an installation: what works, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import affekt
from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.folder import Bundle, shipped_bundles
from affekt.cores import usable_cores
from affekt.corpora import corpora
from affekt.corpora.source import OWN
from affekt.errors import AffektError
from affekt.files import cache_root
from affekt.inference.recognizer import Recognizer
from affekt.plural import quantity
from affekt.storage import is_url

Status = Literal["ok", "missing", "fault"]
FORMATS = ("WAV", "FLAC", "OGG", "MP3")
"""Formats that libsndfile should read; old versions have no MP3."""
OF_DEVELOPERS = ("dev", "docs")
"""Extras that users do not need."""
MIN_FREE = 5e9
"""Free bytes of the cache's disk below which there is a warning: the features of one corpus can need as much."""
REQUIREMENT = re.compile(r"""^([\w.-]+).*;.*\bextra\s*==\s*["']([\w-]+)["']""")
"""A requirement of an extra in the metadata of a package: the distribution and the extra."""


@dataclass(frozen=True)
class Finding:
    """The result of checking one part of the installation."""

    topic: str
    status: Status
    """Whether it works, is optional and missing, or should work but does not."""
    detail: str
    cure: str = ""
    """The command or setting that helps; "" if it works."""


def examine() -> Iterator[Finding]:
    """Yield the findings about Python, the models, audio formats, extras, corpora, encoders and the cache."""
    system = f"{platform.system()} {platform.machine()}, {quantity(usable_cores(), 'core')}"
    yield Finding("affekt", "ok", f"{affekt.__version__}, Python {platform.python_version()}, {system}")
    for name in shipped_bundles():
        yield examine_model(name)
    yield examine_formats()
    for extra, distributions in sorted(list_extras().items()):
        yield examine_extra(extra, distributions)
    if importlib.util.find_spec("torch"):
        yield examine_devices()
    yield _examine_folder("corpora", "AFFEKT_DATA", "corpora", _find_corpora)
    yield _examine_folder("encoders", "AFFEKT_MODELS", "encoders", _find_folders)
    yield examine_cache()


def examine_model(name: str) -> Finding:
    """Verify the checksums of a bundle, and recognize a second of noise with it."""
    try:
        bundle = Bundle.open(name)
        bundle.verify()
        recognizer = Recognizer.load(name)
        if not recognizer.needs_text:
            recognizer(np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE), SAMPLE_RATE)
    except (AffektError, OSError) as error:
        return Finding(f"model {name}", "fault", str(error), "install affekt again")
    return Finding(f"model {name}", "ok", f"{bundle.id}: {', '.join(bundle.emotions)}")


def examine_formats() -> Finding:
    """Check which audio formats libsndfile reads."""
    import soundfile

    known = soundfile.available_formats()
    version = f"libsndfile {soundfile.__libsndfile_version__}"
    if lacking := [name for name in FORMATS if name not in known]:
        return Finding(
            "audio", "fault", f"{version} cannot read {', '.join(lacking)}", "pip install --upgrade soundfile"
        )
    return Finding("audio", "ok", f"{version}: {', '.join(FORMATS)} and {len(known) - len(FORMATS)} other formats")


def list_extras() -> dict[str, list[str]]:
    """Return the distributions of each extra of affekt, from the metadata of the installed package."""
    extras: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("affekt") or ():
        if (match := REQUIREMENT.match(requirement)) and match[2] not in OF_DEVELOPERS:
            extras.setdefault(match[2], []).append(match[1])
    return extras


def examine_extra(extra: str, distributions: list[str]) -> Finding:
    """Check whether all distributions of an extra are installed."""
    versions, lacking = [], []
    for name in distributions:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lacking.append(name)
    topic = f"extra {extra}"
    if lacking:
        return Finding(topic, "missing", f"{', '.join(lacking)} not installed", f"pip install 'affekt[{extra}]'")
    return Finding(topic, "ok", ", ".join(versions))


def examine_devices() -> Finding:
    """Check which devices torch can use."""
    try:
        import torch

        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("torch", "fault", str(error).splitlines()[0], "install torch again")
    return Finding("torch", "ok", f"GPU: {', '.join(names)}" if names else "CPU only; no GPU was found")


def examine_cache() -> Finding:
    """Check whether the cache can be written, and how much space its disk has."""
    try:
        root = cache_root()
        existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free
    except (AffektError, OSError) as error:
        return Finding("cache", "fault", str(error), "set AFFEKT_CACHE to a folder that you can write")
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding("cache", "fault", f"{root} cannot be written", "set AFFEKT_CACHE to a folder that you can write")
    detail = f"{root}, {free / 1e9:.1f} GB free"
    if free < MIN_FREE:
        return Finding("cache", "fault", detail, "free some space, or set AFFEKT_CACHE to a folder on another disk")
    return Finding("cache", "ok", detail)


def _examine_folder(topic: str, variable: str, contents: str, find: Callable[[Path], list[str]]) -> Finding:
    """Check a folder that an environment variable names, which is needed for training and evaluation only."""
    value, cure = (
        os.environ.get(variable, ""),
        f"for training and evaluation, set {variable} to the folder of the {contents}",
    )
    if not value:
        return Finding(topic, "missing", f"{variable} is not set", cure)
    if is_url(value):
        return Finding(topic, "ok", f"{value}, which was not looked into")
    if not Path(value).is_dir():
        return Finding(topic, "fault", f"{variable} = {value} is not a folder", cure)
    if not (names := find(Path(value))):
        return Finding(topic, "fault", f"{value} has no {contents}", cure)
    return Finding(topic, "ok", f"{value}: {', '.join(names)}")


def _find_corpora(folder: Path) -> list[str]:
    """Return the names of the corpora that have a folder."""
    return [name for name in corpora if name not in OWN and (folder / name).is_dir()]


def _find_folders(folder: Path) -> list[str]:
    """Return the names of the folders with files in them."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.iterdir()))
