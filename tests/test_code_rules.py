"""Rules of the code: imports go downward, nothing is pickled or unpickled, and docstrings begin plainly."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "affekt"
MODULES = sorted(SOURCE.rglob("*.py"))

# A module may import modules of lower levels. Modules of the same level may import one another only as in ORDERED.
LEVELS = {
    "errors": 0,
    "extras": 0,
    "plural": 0,
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
# Groups of modules of the same level, each of which may import those before it in its group.
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
    """Yield the names of the affekt modules that a file imports, also inside functions."""
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


def test_inference_does_not_import_training_models_or_features():
    for path in (SOURCE / "inference").glob("*.py"):
        assert not {name.split(".")[1] for name in imports(path) if "." in name} & {"training", "models", "features"}


@pytest.mark.parametrize("path", [p for p in MODULES if top(p) == "models"], ids=lambda path: path.name)
def test_a_model_imports_only_layers_and_the_batch(path):
    allowed = {"affekt.batch", "affekt.errors", "affekt.registry", "affekt.models"}
    assert all(name in allowed or name.startswith("affekt.models.") for name in imports(path))


PICKLING = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Call, by the last two parts of its name -> the argument that makes it safe from pickles; None: never allowed.
SAFE_CALLS = {
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
    "torch.save": None,
    "pd.read_pickle": None,
}


def pickling(tree):
    """Yield the code of everything in a syntax tree that may read or write a pickle."""
    for node in ast.walk(tree):
        if unsafe_import(node) or unsafe_call(node):
            yield ast.unparse(node)


def unsafe_import(node):
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in PICKLING for alias in node.names)
    if isinstance(node, ast.ImportFrom):  # `unsafe_call` would not recognize the calls after `from torch import load`
        names = {alias.name for alias in node.names}
        return (node.module or "").split(".")[0] in PICKLING or (node.module in ("numpy", "torch") and "load" in names)
    return False


def unsafe_call(node):
    if not isinstance(node, ast.Call):
        return False
    name = ".".join(ast.unparse(node.func).replace("numpy.", "np.").split(".")[-2:])
    if name in ("importlib.import_module", "__import__"):
        return any(isinstance(argument, ast.Constant) and argument.value in PICKLING for argument in node.args)
    values = {keyword.arg: keyword.value for keyword in node.keywords}
    allowed = isinstance(value := values.get("allow_pickle"), ast.Constant) and value.value is False
    if "allow_pickle" in values and not allowed:
        return True
    return name in SAFE_CALLS and not has_safe_argument(node, SAFE_CALLS[name])


def has_safe_argument(call, argument):
    if argument is None:
        return False
    values = {keyword.arg: keyword.value for keyword in call.keywords}
    value = values.get(argument[0])
    return isinstance(value, ast.Constant) and value.value is argument[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_is_pickled(path):
    assert not list(pickling(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "import os, shelve as s",
        "importlib.import_module('pickle')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)  # not weights_only=True)",
        "numpy.load(path, mmap_mode='r')",
        "np.load(path, allow_pickle=1 == 1)",
        "np.savez(path, x, allow_pickle=True)",
        "torch.save(state, path)",
        "from torch import load",
    ],
)
def test_unsafe_code_is_detected(code):
    assert list(pickling(ast.parse(code)))


def test_safe_calls_are_accepted():
    code = "np.load(p, allow_pickle=False); torch.load(p, map_location='cpu', weights_only=True); json.load(p)"
    assert not list(pickling(ast.parse(code)))


OBSCURE_OPENING = re.compile(r"(Of|By|What|Whether) ")


def test_docstrings_open_with_a_plain_phrase():
    """No docstring opens with "Of", "By", "What" or "Whether", not even that of a field."""
    openings = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {node.value.value.splitlines()[0]}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if OBSCURE_OPENING.match(node.value.value.lstrip())
    ]
    assert not openings
