"""Lists of the names in the registries. The entries themselves are not imported."""

from __future__ import annotations

from affekt.corpora import corpora
from affekt.features import features
from affekt.models import models
from affekt.protocols import protocols


def list_corpora() -> list[str]:
    """Return the names of all corpora, sorted; "folder" and "table" read your own data."""
    return sorted(corpora)


def list_features() -> list[str]:
    """Return the names of all features and encoders, sorted."""
    return sorted(features)


def list_models() -> list[str]:
    """Return the names of all models, sorted, without their presets."""
    return sorted(models)


def list_protocols() -> list[str]:
    """Return the names of all evaluation protocols, sorted."""
    return sorted(protocols)
