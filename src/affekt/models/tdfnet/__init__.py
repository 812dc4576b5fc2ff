"""TDFNet."""
