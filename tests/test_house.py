"""The house's rules: who may import whom, what is loaded when, and that nothing of ours unpickles."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "affekt"
MODULES = sorted(SOURCE.rglob("*.py"))

# Lower numbers may not import higher ones; siblings of one level may not import one another, unless ORDERED says so.
LEVELS = {
    "errors": 0,
    "extras": 0,
    "progress": 0,
    "registry": 0,
    "audio": 1,
    "batch": 1,
    "config": 1,
    "files": 1,
    "labels": 1,
    "tables": 1,
    "utterance": 1,
    "corpora": 2,
    "features": 2,
    "models": 2,
    "protocols": 3,
    "listing": 4,
    "bundle": 4,
    "cost": 4,
    "evaluation": 4,
    "runs": 4,
    "inference": 5,
    "reports": 5,
    "training": 5,
    "search": 6,
    "workflows": 6,
    "cli": 7,
}
# Within these levels modules build on one another: each may import what stands before it.
ORDERED = (
    ("errors", "extras", "registry"),
    ("utterance", "files", "labels", "audio", "config", "batch"),
    ("corpora", "features"),
    ("evaluation", "runs"),
    ("workflows", "search"),
)
UPWARD: set[tuple[str, str]] = set()
"""Imports that still go upward, as (importer, imported)."""


def top(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path):
    """The names of our modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "affekt":
            if node.module == "affekt":
                yield from (f"affekt.{alias.name}" for alias in node.names)
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "affekt")


def may_import(importer, imported):
    if importer == imported or (importer, imported) in UPWARD:
        return True
    if LEVELS[imported] != LEVELS[importer]:
        return LEVELS[imported] < LEVELS[importer]
    return any(
        importer in order and imported in order and order.index(imported) < order.index(importer) for order in ORDERED
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_downward(path):
    importer = top(path)
    if importer in ("__init__", "__main__"):
        return
    names = {name.split(".")[1] for name in imports(path) if "." in name}
    assert all(may_import(importer, name) for name in names & set(LEVELS)), f"{importer} imports {names}"


def test_every_module_has_a_level():
    assert {top(path) for path in MODULES} - {"__init__", "__main__"} == set(LEVELS)


def test_recognition_knows_no_training():
    for path in (SOURCE / "inference").glob("*.py"):
        assert not {name.split(".")[1] for name in imports(path) if "." in name} & {"training", "models", "features"}


@pytest.mark.parametrize("path", [p for p in MODULES if top(p) == "models"], ids=lambda path: path.name)
def test_a_model_sees_only_layers_and_the_batch(path):
    allowed = {"affekt.batch", "affekt.errors", "affekt.registry", "affekt.models"}
    assert all(name in allowed or name.startswith("affekt.models.") for name in imports(path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_is_pickled(path):
    names = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not names & {"pickle", "dill", "joblib", "shelve", "marshal"}
    text = path.read_text(encoding="utf-8")
    assert "allow_pickle=True" not in text
    assert text.count("torch.load(") == text.count("weights_only=True)")
    assert "torch.save(" not in text
    assert text.count("np.load(") == text.count("allow_pickle=False)") - text.count("np.save(")
