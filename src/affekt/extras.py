"""Optional dependencies, imported where they are used."""

import importlib
from types import ModuleType

from affekt.errors import MissingExtra


def need(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module.

    Raises:
        MissingExtra: It is not installed. The message names the purpose and the extra to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # The module is installed, but one of its dependencies is not: raise the error unchanged.
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(f"{purpose} needs {module.split('.')[0]}: pip install 'affekt[{extra}]'") from error
