"""The web page as a static site, which any file server can offer: everything is computed in the browser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from affekt.bundle.folder import DEFAULT, Bundle
from affekt.errors import BadBundle, BadOutput
from affekt.files import atomic_folder
from affekt.inference.onnx import Graph
from affekt.json_text import to_json
from affekt.serving.browser import PAGE, RUNTIME, SETTINGS, browser_files, browser_settings, read_card

INDEX = "index.html"
FILES = "model"
"""The folder of the model's files in the site."""
CARD = "card.md"


def write_site(output: Path, model: str | Path = DEFAULT) -> str:
    """Write the page with a model that recognizes in the browser, and return the model's id.

    Args:
        output: The folder of the site: a new one, an empty one, or one that this function has written, which is replaced.
        model: A bundle's folder, or the name of a shipped bundle.

    Raises:
        BadBundle: The bundle cannot be read, or its model needs more than audio.
        BadOutput: The folder has other files or cannot be written, or the page was built without its runtime.
    """
    if not (PAGE / RUNTIME).is_file():
        raise BadOutput(f"{PAGE} has no {RUNTIME}, with which a browser recognizes: build the page with `make web`")
    graph = Graph.load(Bundle.open(model))
    if graph.inputs != ("waveform",):
        raise BadBundle(f"{graph.bundle.id} needs {', '.join(graph.inputs)}: the page needs a model of audio only")
    if output.exists() and not (output / FILES / SETTINGS).is_file() and (output.is_file() or any(output.iterdir())):
        raise BadOutput(f"{output} exists and is not such a site; choose a new folder so that nothing is overwritten")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(output, replace=True) as folder:
            _write(folder, graph)
    except OSError as error:
        raise BadOutput(f"{output} cannot be written: {error.strerror or error}") from error
    return graph.bundle.id


def _write(folder: Path, graph: Graph) -> None:
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    index = (folder / INDEX).read_text(encoding="utf-8")
    for name, content in (("service", ""), ("files", f"{FILES}/")):
        index = re.sub(rf'(<meta name="affekt-{name}" content=")[^"]*', rf"\g<1>{content}", index)
    (folder / INDEX).write_text(index, encoding="utf-8")
    files = folder / FILES
    files.mkdir()
    for name, path in browser_files(graph).items():
        shutil.copyfile(path, files / name)
    (files / SETTINGS).write_text(to_json(browser_settings(graph)), encoding="utf-8")
    (files / CARD).write_text(read_card(graph), encoding="utf-8")
