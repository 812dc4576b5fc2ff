"""MSTR and the vanilla transformer that its paper compares it with."""
