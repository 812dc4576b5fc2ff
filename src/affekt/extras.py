"""Optional dependencies: imported where they are used, and their absence names the cure."""

import importlib
from types import ModuleType

from affekt.errors import MissingExtra


def need(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` that says what it was for and which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that is there but lacks a dependency of its own is another fault: let it show itself.
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(f"{purpose} needs {module.split('.')[0]}: pip install 'affekt[{extra}]'") from error
