"""The text encoders of a bundle, whose ONNX graph does not contain them but takes their output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.features.base import Feature, TextFeature
from affekt.features.choice import choose_feature


def load_text_encoders(bundle: Bundle) -> dict[str, Feature]:
    """Build the text encoders that a bundle needs, by stream. Raises `BadConfig` if the folder of one is missing."""
    choices = {
        stream: choose_feature(section, f"{bundle.folder}, features.{stream}")
        for stream, section in bundle.config.get("features", {}).items()
    }
    return {stream: choice.build().eval() for stream, choice in choices.items() if choice.kind.input == "text"}


def encode_text(encoders: Mapping[str, Feature], text: str) -> dict[str, NDArray[Any]]:
    """Return the graph's inputs for a text: the values (1, tokens, dim) and the mask (1, tokens) of each stream."""
    inputs: dict[str, NDArray[Any]] = {}
    for name, encoder in encoders.items():
        assert isinstance(encoder, TextFeature)
        with torch.inference_mode():
            values = encoder([text]).values.numpy()
        inputs |= {name: values, f"{name}_mask": np.ones(values.shape[:2], bool)}
    return inputs
