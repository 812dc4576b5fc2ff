"""The text inputs of a graph, which the text encoders of its bundle compute."""

from __future__ import annotations

from typing import Any

from affekt.errors import BadBundle
from affekt.extras import need
from affekt.inference.onnx import Graph


def load_text_encoders(graph: Graph) -> dict[str, Any]:
    """Return the text encoders that a graph needs, by stream. Raises `BadBundle` if it needs other inputs."""
    if graph.inputs == ("waveform",):
        return {}
    need("torch", extra="train", purpose=f"{graph.bundle.name}, whose model needs text")
    from affekt.bundle.text_encoders import load_text_encoders as load_encoders

    encoders = load_encoders(graph.bundle)
    provided = {"waveform", *encoders, *(f"{stream}_mask" for stream in encoders)}
    if not set(graph.inputs) <= provided:
        raise BadBundle(
            f"{graph.bundle.onnx} needs {', '.join(graph.inputs)}, but recognition provides only "
            f"{', '.join(sorted(provided))}: use affekt evaluate with a corpus that has them"
        )
    return encoders
