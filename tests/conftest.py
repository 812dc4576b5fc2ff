"""Shapes in signatures are checked while the tests run; real data and encoders are found through the environment."""

import contextlib
import os
from pathlib import Path

import jaxtyping
import pytest
from jaxtyping import install_import_hook

hook = install_import_hook(
    ["affekt.batch", "affekt.models", "affekt.features", "affekt.pipeline"], "beartype.beartype"
)

ROOT = Path(__file__).parent.parent
SAMPLES = sorted((ROOT / "samples").glob("*.wav"))


@contextlib.contextmanager
def shapes_unchecked():
    """For what traces our code: a tracer's symbols are neither tensors nor numbers to a type checker."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def _folder(variable: str, name: str) -> Path:
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} is not set: needs {name}")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"{variable} has no {name}/")
    return folder


@pytest.fixture
def cremad() -> Path:
    return _folder("AFFEKT_DATA", "cremad")


@pytest.fixture
def emodb() -> Path:
    return _folder("AFFEKT_DATA", "emodb")


@pytest.fixture
def whisper() -> Path:
    return _folder("AFFEKT_MODELS", "whisper-tiny.en-encoder")
