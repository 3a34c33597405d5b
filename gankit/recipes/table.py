"""The named recipes: a run for every row of the papers' tables, with the papers' values.

Where a paper does not print a value, `about` says so and names whose choice it is. `gankit recipes` lists them, with an
estimate of what each costs (`gankit.recipes.operations`).
"""

from __future__ import annotations

from gankit.recipes import (
    augmentation,
    conditional,
    incremental,
    leakyema,
    lipschitz,
    loss_zoo,
    sample_weighting,
    style,
)
from gankit.recipes.recipe import Recipe
from gankit.recipes.records import near


class RecipeTable(dict[str, Recipe]):
    """The recipes by name; an unknown name lists near matches."""

    def __missing__(self, name: str) -> Recipe:
        raise UnknownRecipe(
            f"recipe {name!r} is unknown{near(str(name), self) or '; `gankit recipes` lists them'}"
        )


class UnknownRecipe(KeyError, ValueError):
    """A name that `recipes` does not hold."""

    def __str__(self) -> str:  # KeyError would print the sentence in quotes
        return str(self.args[0])


recipes = RecipeTable(
    {
        recipe.name: recipe
        for paper in (
            sample_weighting,
            loss_zoo,
            leakyema,
            incremental,
            conditional,
            style,
            lipschitz,
            augmentation,
        )
        for recipe in paper.RECIPES
    }
)
"""The named runs: `recipes["mm-nsat-digits"]`. An unknown name lists near matches."""
