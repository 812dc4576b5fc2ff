"""What the commands call: train a recipe into run folders, search for a model, make a bundle of runs, score either."""

from affekt.experiments.bundling import check_place, make_bundle
from affekt.experiments.own import own_recipe
from affekt.experiments.scoring import evaluate
from affekt.experiments.searching import search
from affekt.experiments.training import train

__all__ = ["check_place", "evaluate", "make_bundle", "own_recipe", "search", "train"]
