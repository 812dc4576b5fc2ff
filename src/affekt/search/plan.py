"""Check a search recipe: everything that it names must exist, and fit together, before anything is computed."""

from __future__ import annotations

from affekt.errors import BadConfig
from affekt.search.recipe import SearchRecipe
from affekt.training.plan import Plan, resolve


def check_search(recipe: SearchRecipe) -> list[Plan]:
    """Resolve a recipe of every kind of training in a search, and return the plans of the branches that are searched.

    Raises:
        BadConfig: A name is unknown, a setting is wrong, or the search needs a validation subset and has none.
    """
    plans = [resolve(branch) for branch in recipe.branches]
    has_validation = plans[0].protocol.has_validation
    if recipe.spectrogram:
        resolve(recipe.of_cells("found", recipe.random_cells(0, 1), 1, 0))
        for known in recipe.spectrogram.known:
            resolve(recipe.of_cells("known", known, 1, 0))
        if recipe.spectrogram.random and not has_validation:
            raise BadConfig(
                "the best of the random cells is selected on the validation subset: set the protocol's setting "
                "`validation`, or spectrogram.random = 0"
            )
    if recipe.recurrent and not has_validation:
        raise BadConfig(
            "a recurrent cell is selected on the validation subset, so the search needs a validation subset: set the "
            "protocol's setting `validation`"
        )
    if recipe.fusion:
        resolve(recipe.of_unfrozen_fusion())
    return plans
