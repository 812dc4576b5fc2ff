"""MSTR, and the vanilla transformer that it is compared with."""
