"""Check a search recipe before anything is computed: all that it names must exist, and its settings must be compatible."""

from __future__ import annotations

from affekt.errors import BadConfig
from affekt.search.recipe import SearchRecipe
from affekt.training.plan import Plan, resolve


def check_search(recipe: SearchRecipe) -> list[Plan]:
    """Resolve a recipe of each kind that the search trains, and return the plans of the branches that are searched.

    Raises:
        BadConfig: A name is unknown, a setting is wrong, or the search needs a validation subset and has none.
    """
    plans = [resolve(branch) for branch in recipe.branch_recipes]
    has_validation = plans[0].protocol.has_validation
    if recipe.spectrogram:
        resolve(recipe.spectrogram_recipe("found", recipe.random_genotype(0, 1), 1, 0))
        for name in recipe.spectrogram.known:
            resolve(recipe.spectrogram_recipe("known", name, 1, 0))
        if recipe.spectrogram.random and not has_validation:
            raise BadConfig(
                "the best of the random cells is selected on the validation subset, and the protocol has none: set "
                "protocol.validation, or spectrogram.random = 0"
            )
    if recipe.recurrent and not has_validation:
        raise BadConfig(
            "the recurrent cell is selected on the validation subset, so the search needs a validation subset: set "
            "protocol.validation"
        )
    if recipe.fusion:
        resolve(recipe.fusion_recipe_without_runs())
    return plans
