"""MCSAN."""
