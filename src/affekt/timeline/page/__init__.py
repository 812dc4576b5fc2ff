"""The page of a timeline: one self-contained HTML file."""
