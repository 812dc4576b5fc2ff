"""What the commands call: train a recipe into run folders, make a bundle of them, score either."""

from affekt.experiments.bundling import check_place, make_bundle
from affekt.experiments.own import own_recipe
from affekt.experiments.scoring import evaluate
from affekt.experiments.training import train

__all__ = ["check_place", "evaluate", "make_bundle", "own_recipe", "train"]
