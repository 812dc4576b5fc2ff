"""KS-Transformer."""
