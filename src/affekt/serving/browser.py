"""The web page, and the files with which it recognizes on its own: for the service and for a static site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affekt.audio.mono import SILENCE_RANGE
from affekt.audio.read import SAMPLE_RATE, SHORTEST
from affekt.inference.onnx import MIN_DETECTED, Graph
from affekt.inference.voice_activity import CONTEXT, FRAME, MODEL, UNITS

PAGE = Path(__file__).parent / "page"
"""The folder of the page, which `make web` builds from web/."""
RUNTIME = "ort-wasm-simd-threaded.wasm.gz"
"""The file of the page with which a browser computes the graph."""
SETTINGS = "settings.json"


def browser_files(graph: Graph) -> dict[str, Path]:
    """Return the files of the model, by name."""
    return {"model.onnx": graph.bundle.onnx, MODEL.name: MODEL}


def read_card(graph: Graph) -> str:
    """Return the model card; "" if the bundle has none."""
    card = graph.bundle.folder / "README.md"
    return card.read_text(encoding="utf-8") if card.is_file() else ""


def browser_settings(graph: Graph) -> dict[str, Any]:
    """Return what a program needs to know besides the graph, to recognize as `Recognizer` does."""
    return {
        "schema": 1,
        "model": graph.bundle.id,
        "emotions": graph.bundle.emotions,
        "sample_rate": SAMPLE_RATE,
        "shortest_seconds": SHORTEST,
        "silence_range": SILENCE_RANGE,
        "speech_threshold": graph.speech_threshold,
        "min_detected_samples": MIN_DETECTED,
        "vad": {"file": MODEL.name, "frame": FRAME, "context": CONTEXT, "units": UNITS},
    }
