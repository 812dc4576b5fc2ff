"""MSTR and the vanilla Transformer that its paper compares it with (Li et al., Interspeech 2023)."""
