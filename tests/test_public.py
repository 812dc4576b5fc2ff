"""The public surface: `affekt.__all__` is sorted, importable and documented, and the documentation uses nothing else."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import affekt

ROOT = Path(__file__).parent.parent
NAMES = [name for name in affekt.__all__ if name != "__version__"]


def test_the_names_are_sorted_and_listed():
    assert affekt.__all__ == sorted(set(affekt.__all__))
    assert dir(affekt) == affekt.__all__


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_importable_and_documented(name):
    value = getattr(affekt, name)
    assert value.__doc__, name
    assert not value.__doc__.startswith(f"{name}("), "this is the docstring that dataclass writes"


def test_the_lazy_table_and_the_imports_for_type_checkers_agree():
    tree = ast.parse(Path(affekt.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == affekt._LAZY
    assert sorted(affekt._LAZY) == NAMES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        affekt.Recogniser  # noqa: B018


def test_importing_affekt_imports_nothing_heavy():
    code = "import affekt, sys; print(*{'numpy', 'torch', 'onnxruntime', 'rich', 'typer', 'scipy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_recognize_files_needs_no_torch():
    code = (
        "from affekt import recognize_files; import sys; print(*{'torch', 'scipy', 'transformers'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("name", ["README.md", "docs/tutorials/recognize.md"])
def test_the_first_pages_import_public_names_only(name):
    path = ROOT / name
    imports = re.findall(
        r"^\s*(?:from (affekt[\w.]*) import (.+)|import (affekt[\w.]*))", path.read_text("utf-8"), re.M
    )
    assert all(module in ("affekt", "") and plain in ("affekt", "") for module, _, plain in imports)
    assert {word for _, words, _ in imports for word in re.findall(r"\w+", words)} <= set(affekt.__all__)


def test_lists_are_sorted_names():
    for names in (affekt.list_corpora(), affekt.list_features(), affekt.list_models(), affekt.list_protocols()):
        assert names == sorted(names)
    assert "cremad" in affekt.list_corpora()
    assert "whisper" in affekt.list_features()
    assert "mstr" in affekt.list_models()
    assert "speaker-folds" in affekt.list_protocols()
