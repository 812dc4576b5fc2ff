"""The self-contained HTML page: its template, its style sheet, and what turns results into its sections."""
