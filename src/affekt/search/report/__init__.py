"""A search's page: tables, verdicts and drawings."""
