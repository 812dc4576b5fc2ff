"""`affekt web`: the web page as a static site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affekt.cli.recognition_options import Model


def web(
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="The folder of the site.")],
    model: Model = "default",
) -> None:
    """Write a web page that recognizes in the browser.

        affekt web --output site
        python -m http.server --directory site --bind 127.0.0.1

    docs/web-page.md describes the page.
    """
    from affekt.serving.static_site import write_site

    name = write_site(output, model)
    print(f"{output}: the page with {name}; offer the folder with any file server")
