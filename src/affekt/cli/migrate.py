"""`affekt migrate`: update runs, searches and bundles from an earlier version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def migrate(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A run, search or bundle folder, or a folder that contains some.")
    ],
) -> None:
    """Update runs, searches and bundles from an earlier version.

    Their configuration is rewritten in place. This changes the id of a bundle, which is then updated in its results and
    its model card.
    """
    from affekt.extras import need

    need("torch", extra="train", purpose="migration")
    from affekt.workflows.migrate import migrate as migrate_folder

    rewritten = migrate_folder(folder)
    for path in rewritten:
        print(f"rewritten: {path}")
    if not rewritten:
        print(f"nothing to migrate in {folder}")
