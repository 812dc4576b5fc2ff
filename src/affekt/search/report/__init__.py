"""The report of an architecture search: tables, verdicts and drawings, as Markdown and as an HTML page."""
