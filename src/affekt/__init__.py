"""affekt: from a voice to the emotion in it.

>>> from affekt import Recognizer
>>> Recognizer.load()("hello.wav").emotion
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affekt.bundle.folder import Bundle as Bundle
    from affekt.errors import AffektError as AffektError
    from affekt.inference.recognizer import Recognizer as Recognizer
    from affekt.inference.row import Row as Row

__version__ = "0.1.0"

# Imported when first asked for: `import affekt` loads neither numpy nor onnxruntime nor torch.
_LAZY = {
    "AffektError": "affekt.errors",
    "Bundle": "affekt.bundle.folder",
    "Recognizer": "affekt.inference.recognizer",
    "Row": "affekt.inference.row",
}

__all__ = ["AffektError", "Bundle", "Recognizer", "Row", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
