"""The report of an architecture search: tables, conclusions and drawings, as Markdown and as an HTML page."""
