"""Options of the HTML page."""

from __future__ import annotations

from dataclasses import dataclass, field

from affekt.reports.sections import Options


@dataclass(frozen=True)
class PageOptions:
    """Options of the HTML page."""

    tables: Options = field(default_factory=Options)
    """Options of the tables."""
    embed_text: bool = False
    """Show transcripts, which are the corpus's own texts."""
    embed_audio: bool = False
    """Embed recordings, which are the corpus's own."""
    models: bool = True
    """Run the trained models on their test sets, for figures of embeddings, attention and scales."""
