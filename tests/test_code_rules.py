"""Rules of the code: imports go downward, nothing is pickled or unpickled, and docstrings begin plainly."""

import ast
import functools
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "affekt"
MODULES = sorted(SOURCE.rglob("*.py"))
OUR_FILES = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]

# A module may import modules of lower levels. Modules of the same level may import one another only as in ORDERED.
LEVELS = {
    "errors": 0,
    "extras": 0,
    "invisible": 0,
    "json_text": 0,
    "plural": 0,
    "progress": 0,
    "registry": 0,
    "storage": 0,
    "terminal": 0,
    "audio": 1,
    "batch": 1,
    "config": 1,
    "cores": 1,
    "files": 1,
    "interval": 1,
    "labels": 1,
    "lock": 1,
    "processes": 1,
    "published": 1,
    "ray_cluster": 1,
    "recipe_files": 1,
    "tables": 1,
    "tabular": 1,
    "utterance": 1,
    "worker_pool": 1,
    "asr": 2,
    "corpora": 2,
    "features": 2,
    "models": 2,
    "collection": 3,
    "protocols": 3,
    "listing": 4,
    "bundle": 4,
    "cost": 4,
    "evaluation": 4,
    "runs": 4,
    "inference": 5,
    "reports": 5,
    "timeline": 5,
    "training": 5,
    "search": 6,
    "client": 6,
    "serving": 6,
    "workflows": 6,
    "cli": 7,
}
# Groups of modules of the same level, each of which may import those before it in its group.
ORDERED = (
    ("errors", "extras", "registry", "storage"),
    ("utterance", "files", "labels", "audio", "config", "batch"),
    ("config", "recipe_files", "published"),
    ("audio", "ray_cluster"),
    ("asr", "corpora", "features"),
    ("processes", "worker_pool"),
    ("evaluation", "runs"),
    ("inference", "timeline"),
    ("reports", "timeline"),
    ("workflows", "search"),
)
UPWARD = {("inference", "timeline")}
"""Imports that go upward, as (importer, imported): `Recognizer.timeline` is a method for the convenience of callers."""


@functools.cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def top(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path):
    """Yield the names of the affekt modules that a file imports, also inside functions."""
    for node in ast.walk(tree(path)):
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


def pickling(module):
    """Yield the code of everything in a syntax tree that may read or write a pickle."""
    for node in ast.walk(module):
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
    assert not list(pickling(tree(path)))


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


OBSCURE_OPENING = re.compile(r"(Of|By|What) ")


def test_docstrings_open_with_a_plain_phrase():
    """No docstring opens with "Of", "By" or "What", not even that of a field."""
    openings = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {node.value.value.splitlines()[0]}"
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if OBSCURE_OPENING.match(node.value.value.lstrip())
    ]
    assert not openings


def location(path, node):
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def prints(module):
    """Yield the calls of `print` that write to standard output."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield from () if any(keyword.arg == "file" for keyword in node.keywords) else [node]


def test_only_the_command_line_prints():
    others = [path for path in MODULES if top(path) not in ("cli", "__main__")]
    assert not [location(path, node) for path in others for node in prints(tree(path))]


def test_a_print_is_found():
    assert list(prints(ast.parse("if x:\n    print(1)")))
    assert not list(prints(ast.parse("print(1, file=log)\nlog.print(1)\n# print(1)")))


EXACT_JSON = {
    "cost/measure.py": "between processes of affekt",
    "features/convert.py": "a content that is hashed",
    "features/store.py": "a content that is hashed",
    "models/emotionnas/random_cells.py": "a content that is hashed",
    "protocols/base.py": "a content that is hashed",
    "protocols/split.py": "a content that is hashed",
    "training/checkpoint.py": "numbers that are restored exactly, also infinite ones",
    "workflows/job.py": "between processes of affekt",
    "workflows/migrate.py": "a copy in memory",
    "workflows/feature_pool.py": "between processes of affekt",
}
"""Modules that may call `json.dumps` without `allow_nan=False`, with the reason. Others call `affekt.json_text.to_json`."""


def invalid_json(module):
    """Yield the calls of `json.dumps` and `json.dump` that may write NaN or Infinity, which are not JSON."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump", "jsonlib.dumps"):
            values = {keyword.arg: keyword.value for keyword in node.keywords}
            value = values.get("allow_nan")
            if not (isinstance(value, ast.Constant) and value.value is False):
                yield node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_json_is_always_valid(path):
    calls = [location(path, node) for node in invalid_json(tree(path))]
    assert not calls or path.relative_to(SOURCE).as_posix() in EXACT_JSON


def test_a_json_call_that_may_write_nan_is_found():
    assert list(invalid_json(ast.parse("json.dumps(x)")))
    assert list(invalid_json(ast.parse("json.dump(x, file, allow_nan=True)")))
    assert not list(invalid_json(ast.parse("json.dumps(x, allow_nan=False)")))


GENERIC = set(LEVELS) - {"cli", "models", "search"}
PAPER_MODEL = re.compile("mstr|tdfnet|mcsan|ks[_-]?transformer|emotion[_-]?nas", re.IGNORECASE)
NAMES_A_MODEL = {
    "cost/page.py": "states which papers give a number of operations",
    "features/spectral.py": "the settings of two papers' spectrograms and MFCCs are values of its classes",
    "protocols/__init__.py": "the registry of the papers' protocols",
    "protocols/papers.py": "the papers' protocols",
    "workflows/migrate.py": "renames settings of one model in folders of earlier versions",
}
"""Generic modules that may name a paper's model, with the reason."""


def without_docstrings(module):
    """Yield the nodes of a syntax tree except the strings that are statements."""
    docs = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    return (node for node in ast.walk(module) if not (isinstance(node, ast.Constant) and id(node) in docs))


def models_named(module):
    """Yield the names, strings and imports of a syntax tree that name a paper's model; docstrings and comments may."""
    for node in without_docstrings(module):
        values = [value for _, value in ast.iter_fields(node) if isinstance(value, str)]
        if any(PAPER_MODEL.search(value) for value in values):
            yield node


@pytest.mark.parametrize("path", [p for p in MODULES if top(p) in GENERIC], ids=lambda path: path.name)
def test_generic_code_names_no_model_of_a_paper(path):
    named = [ast.unparse(node) for node in models_named(tree(path))]
    assert not named or path.relative_to(SOURCE).as_posix() in NAMES_A_MODEL


@pytest.mark.parametrize(
    "code",
    [
        "KSTransformer(x)",
        "from affekt.models import tdfnet",
        "if name == 'mstr': pass",
        "x.mcsan",
        "def emotionnas(): pass",
    ],
)
def test_a_model_of_a_paper_is_found(code):
    assert list(models_named(ast.parse(code)))


def test_a_docstring_may_name_a_model():
    assert not list(models_named(ast.parse('def f():\n    """As in MSTR."""')))


VAGUE = {"one", "found", "place", "said", "told", "heard", "drawn"}


def vague_names(module):
    """Yield the definitions in a syntax tree (variables, arguments, functions, classes) with a name that says nothing."""
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        else:
            continue
        if name in VAGUE:
            yield node


def test_a_variable_is_called_what_it_is():
    assert not [location(path, node) for path in OUR_FILES for node in vague_names(tree(path))]


@pytest.mark.parametrize(
    "code",
    [
        "for one in runs: pass",
        "[one for one in runs]",
        "found = 1",
        "lambda said: 1",
        "def told(): pass",
        "a, place = x",
    ],
)
def test_a_vague_name_is_found(code):
    assert list(vague_names(ast.parse(code)))


def commented_fields(text):
    """Yield the fields of classes that have a comment on one of their lines; a docstring below the field replaces it."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and has_comment(lines[field.lineno - 1 : field.end_lineno]):
                    yield field


def has_comment(lines):
    """Return whether lines of code have a comment that is not for a tool."""
    code = "\n".join(["(", *lines, ")"])  # in parentheses, the indentation does not matter
    return "#" in code and any(
        token.type == tokenize.COMMENT and not re.match("# (type|noqa)", token.string)
        for token in tokenize.generate_tokens(io.StringIO(code).readline)
    )


def test_fields_are_documented_by_docstrings():
    assert not [
        location(path, field) for path in OUR_FILES for field in commented_fields(path.read_text(encoding="utf-8"))
    ]


def test_a_comment_on_a_field_is_found():
    assert list(commented_fields("class Config:\n    size: int = (\n        3  # frames\n    )\n"))
    assert not list(
        commented_fields(
            'class Config:\n    size: int = 3\n    """Frames."""\n    # above\n    x: int  # type: ignore\n'
        )
    )


NOT_IMPERATIVE = re.compile(
    r"(The|An?|As|At|Both|Each|Every|For|In|Other|Over|Some|Whether|Who|Whose)\b|[^A-Z]|[A-Z][\w-]*([^s]s|ed|ing)\b"
)


def is_function(node):
    """Return whether a node is a function that is no property."""
    decorators = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", ())]
    return isinstance(node, ast.FunctionDef) and not any("property" in decorator for decorator in decorators)


def not_imperative(module):
    """Yield the functions of a syntax tree whose docstring does not open with a verb in the imperative."""
    for node in ast.walk(module):
        if is_function(node) and NOT_IMPERATIVE.match(ast.get_docstring(node) or "Do nothing."):
            yield node


def test_docstrings_of_functions_open_with_an_imperative():
    assert not [location(path, node) for path in MODULES for node in not_imperative(tree(path))]


@pytest.mark.parametrize(
    "docstring", ["The runs.", "Returns the runs.", "Sorted runs.", "Reading.", "`loss` of a run.", "Over runs."]
)
def test_a_docstring_without_an_imperative_is_found(docstring):
    assert list(not_imperative(ast.parse(f"def f():\n    '{docstring}'")))


@pytest.mark.parametrize(
    "code", ["def f():\n    'Pass the runs.'", "@property\ndef f():\n    'The runs.'", "def f(): pass"]
)
def test_an_imperative_is_accepted(code):
    assert not list(not_imperative(ast.parse(code)))
